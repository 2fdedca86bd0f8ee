//! A long stage in parts, one a clip, so that a stop costs at most one of them.
//!
//! Comes in: an output file, and the lines of part 0, 1, …, in any order. Goes out: beside the output a folder `NAME.parts` of finished parts, and at the end
//! the output, which is all parts in order: the same bytes however often the work was stopped. Several machines take parts of their own
//! ([`Shard`]); their outputs one after the other (`cat`) are what one machine would have written.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};
use utr_models::atomic;

use crate::files::write_atomic;

/// The finished parts of an output that is being made.
#[derive(Debug)]
pub struct Parts {
    output: PathBuf,
    folder: PathBuf,
}

impl Parts {
    /// Goes on with the parts beside `output`, or begins. `settings` says in words what makes them; parts made with other settings are
    /// refused.
    pub fn open(output: &Path, settings: &str) -> Result<Self> {
        let folder = folder(output)?;
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let path = folder.join("settings");
        if path.exists() {
            let found =
                std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            ensure!(
                found == settings,
                "{} was begun with other settings ({found}; now {settings}): remove it, or name another --output",
                folder.display()
            );
        } else {
            atomic::write(&path, settings.as_bytes())?;
        }
        Ok(Self { output: output.to_path_buf(), folder })
    }

    /// Removes what is left beside an output that is finished.
    pub fn discard(output: &Path) -> Result<()> {
        let folder = folder(output)?;
        match folder.is_dir() {
            true => Self { output: output.to_path_buf(), folder }.remove(),
            false => Ok(()),
        }
    }

    fn path(&self, part: usize) -> PathBuf {
        self.folder.join(format!("{part:08}"))
    }

    /// Whether a part is finished.
    pub fn has(&self, part: usize) -> bool {
        self.path(part).exists()
    }

    /// Writes a part whole or not at all.
    pub fn write(&self, part: usize, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
        Ok(write_atomic(&self.path(part), fill)?)
    }

    /// Joins `parts` in their order into the output; they stay until [`Parts::remove`].
    pub fn join(&self, parts: impl IntoIterator<Item = usize>) -> Result<()> {
        write_atomic(&self.output, |out| {
            for part in parts {
                std::io::copy(&mut std::fs::File::open(self.path(part))?, out)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Removes the parts, the settings last, so that parts without settings are never found.
    pub fn remove(self) -> Result<()> {
        let removing = || format!("removing {}", self.folder.display());
        for entry in std::fs::read_dir(&self.folder).with_context(removing)? {
            let path = entry.with_context(removing)?.path();
            if path != self.folder.join("settings") {
                std::fs::remove_file(&path).with_context(removing)?;
            }
        }
        std::fs::remove_dir_all(&self.folder).with_context(removing)
    }

    /// Joins `parts` in their order into the output and removes them.
    pub fn finish(self, parts: impl IntoIterator<Item = usize>) -> Result<()> {
        self.join(parts)?;
        self.remove()
    }
}

/// The folder beside an output that its parts lie in.
fn folder(output: &Path) -> Result<PathBuf> {
    let name = output.file_name().with_context(|| format!("{} names no file", output.display()))?;
    Ok(output.with_file_name(format!("{}.parts", name.to_string_lossy())))
}

/// A share of the work: the stretch number `index` of `of` stretches of (nearly) the same length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    pub index: usize,
    /// How many shares there are.
    pub of: usize,
}

impl Shard {
    /// Whether it is everything.
    pub fn is_whole(self) -> bool {
        self.of == 1
    }

    /// Its places among `total`.
    pub fn range(&self, total: usize) -> std::ops::Range<usize> {
        let start = |index: usize| (index as u128 * total as u128 / self.of as u128) as usize;
        start(self.index)..start(self.index + 1)
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match numbers {
            Some((index, of)) if index < of => Ok(Self { index, of }),
            _ => Err(format!("{text:?}: write I/N with I from 0 to N - 1, such as 0/4")),
        }
    }
}

/// A generator for the part called `name`: it depends on nothing else but the seed, so that the order and the share of the work do not matter.
pub fn generator(seed: u64, name: &str) -> ChaCha8Rng {
    let digest = Sha256::digest(format!("{seed}/{name}").as_bytes());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(&digest);
    ChaCha8Rng::from_seed(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_part_the_work_in_order() {
        let shards: Vec<Shard> = ["0/3", "1/3", "2/3"].map(|s| s.parse().unwrap()).to_vec();
        for total in [0, 1, 2, 30, 31] {
            let places: Vec<usize> = shards.iter().flat_map(|s| s.range(total)).collect();
            assert_eq!(places, (0..total).collect::<Vec<_>>());
        }
        assert!(["3/3", "0/0", "1", "a/b"].iter().all(|s| s.parse::<Shard>().is_err()));
        assert_eq!(shards[1].to_string(), "1/3");
    }

    #[test]
    fn a_stopped_output_goes_on_and_other_settings_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out.jsonl");
        let parts = Parts::open(&output, "a").unwrap();
        parts.write(1, |out| out.write_all(b"two\n")).unwrap();
        drop(parts);
        let parts = Parts::open(&output, "a").unwrap();
        assert!(parts.has(1) && !parts.has(0) && !output.exists());
        assert!(Parts::open(&output, "b").unwrap_err().to_string().contains("other settings"));
        parts.write(0, |out| out.write_all(b"one\n")).unwrap();
        parts.finish(0..2).unwrap();
        assert_eq!(std::fs::read_to_string(&output).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
