//! Engines that were built for this machine: where they lie, and whether one fits.
//!
//! Comes in: an identity, which is a text of everything an engine depends on (graph, libraries, GPU, precision, shapes). Goes out: the folder
//! of the engine that was built for exactly this, or the advice to build it. An engine is built under a temporary name and renamed,
//! so that half of one is never found. What is in the folder is the builder's business; nothing is computed here.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use utr_models::atomic::TEMPORARY_PREFIX;

use crate::board::{self, Root};
use crate::error::{Error, Result};

/// The cache that a service and whoever administers the machine share.
const SHARED: &str = "/var/cache/utr";
/// Holds the identity, and the name and size of every other file.
const STAMP: &str = "prepared";

/// Everything an engine depends on, by name. Two engines with the same identity are interchangeable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// SHA-256 of the graph, in hexadecimal.
    pub graph: String,
    /// The rest: versions, GPU, precision, shapes.
    pub parts: BTreeMap<&'static str, String>,
}

impl Identity {
    /// The folder's name: readable as far as it names the graph, and short.
    fn name(&self) -> String {
        let digest = crc32fast::hash(self.text().as_bytes());
        format!("{}-{digest:08x}", self.graph.get(..12).unwrap_or(&self.graph))
    }

    fn text(&self) -> String {
        let parts = self.parts.iter().map(|(name, value)| format!("{name} {}\n", value.replace('\n', " ")));
        format!("graph {}\n{}", self.graph, parts.collect::<String>())
    }
}

/// Folders that may hold engines, the one to write to first. `XDG_CACHE_HOME` and `HOME` name the user's own.
pub fn places() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|text| !text.is_empty()).map(PathBuf::from);
    places_of(variable("XDG_CACHE_HOME"), variable("HOME"))
}

/// The shared cache comes first, so that what an administrator prepares a service finds; others cannot write there and get their own.
fn places_of(cache: Option<PathBuf>, home: Option<PathBuf>) -> Vec<PathBuf> {
    let own = cache.or_else(|| Some(home?.join(".cache"))).map(|folder| folder.join("utr"));
    let places = [Some(PathBuf::from(SHARED)), own.filter(|folder| folder.is_absolute())];
    places.into_iter().flatten().map(|folder| folder.join("engines")).collect()
}

/// The folder of the engine with this identity, every file as it was built; none where there is none.
pub fn find(places: &[PathBuf], identity: &Identity) -> Option<PathBuf> {
    let mut folders = places.iter().map(|place| place.join(identity.name()));
    folders.find(|folder| {
        let stamp = fs::read_to_string(folder.join(STAMP)).ok();
        stamp.is_some() && stamp == stamp_of(folder, identity).ok()
    })
}

/// Lets `make` build an engine into a folder, in the first place that can be written; its second argument is a folder that later builds
/// share. What was built of the same graph for other versions is removed.
///
/// # Errors
/// [`Error::Io`] where no place can be written, and whatever `make` reports.
pub fn build(
    places: &[PathBuf],
    identity: &Identity,
    make: impl FnOnce(&Path, &Path) -> Result<()>,
) -> Result<PathBuf> {
    let mut refused = None;
    for place in places {
        let temporary = place.join(format!("{TEMPORARY_PREFIX}{}", identity.name()));
        let shared = place.join("timing");
        let _ = fs::remove_dir_all(&temporary);
        match fs::create_dir_all(&temporary).and_then(|()| fs::create_dir_all(&shared)) {
            Ok(()) => return build_in(place, &temporary, identity, |folder| make(folder, &shared)),
            Err(reason) => refused = Some(Error::io(place)(reason)),
        }
    }
    Err(refused.unwrap_or_else(|| Error::Argument("there is no folder for engines; set HOME".into())))
}

fn build_in(
    place: &Path,
    temporary: &Path,
    identity: &Identity,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let folder = place.join(identity.name());
    let built = make(temporary).and_then(|()| {
        let io = Error::io(temporary);
        let stamp = stamp_of(temporary, identity).map_err(io)?;
        utr_models::atomic::write(&temporary.join(STAMP), stamp.as_bytes())?;
        sync(temporary).map_err(Error::io(temporary))?;
        remove_of_graph(place, &identity.graph).map_err(Error::io(place))?;
        fs::rename(temporary, &folder).map_err(Error::io(&folder))
    });
    if built.is_err() {
        // Half an engine is no use; that it cannot be removed changes nothing.
        let _ = fs::remove_dir_all(temporary);
    }
    built.map(|()| folder)
}

/// Removes every engine of a graph.
fn remove_of_graph(place: &Path, graph: &str) -> std::io::Result<()> {
    let prefix = format!("{}-", graph.get(..12).unwrap_or(graph));
    for entry in fs::read_dir(place)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn sync(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        File::open(entry?.path())?.sync_all()?;
    }
    File::open(folder)?.sync_all()
}

/// The identity, and the name and size of every file beside the stamp.
fn stamp_of(folder: &Path, identity: &Identity) -> std::io::Result<String> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        files.insert(entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len());
    }
    files.remove(STAMP);
    let lines = files.iter().map(|(name, bytes)| format!("file {name} {bytes}\n"));
    Ok(identity.text() + &lines.collect::<String>())
}

/// The version of a library that this process has loaded, from the end of its file's name, such as `10.3.0` of `libnvinfer.so.10.3.0`.
pub fn loaded_version(library: &str) -> Option<String> {
    version_in(&fs::read_to_string("/proc/self/maps").ok()?, library)
}

fn version_in(maps: &str, library: &str) -> Option<String> {
    let mut names = maps.lines().filter_map(|line| line.rsplit_once('/')).map(|(_, name)| name.trim());
    names.find_map(|name| name.strip_prefix(library)?.strip_prefix(".so.").map(str::to_string))
}

/// The GPU: on a Jetson by what the device tree calls board, module and chip, because modules of one chip have GPUs of several sizes; elsewhere by its
/// model; `unknown` where the system does not say.
pub fn gpu(root: &Root) -> String {
    let board = board::Identity::read(root);
    if board.is_tegra() {
        return board.compatible.join(" ");
    }
    let cards = root.paths("proc/driver/nvidia/gpus", "");
    let card = cards.first().and_then(|card| root.text(&format!("{card}/information"))).unwrap_or_default();
    let model = card.lines().find_map(|line| line.strip_prefix("Model:"));
    model.map_or("unknown", str::trim).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(version: &str) -> Identity {
        let parts = [("tensorrt", version.to_string()), ("shapes", "1..8x3x64x64".into())].into();
        Identity { graph: "0123456789abcdef".into(), parts }
    }

    fn write(folder: &Path, _: &Path) -> Result<()> {
        fs::write(folder.join("a.engine"), "engine").map_err(Error::io(folder))
    }

    #[test]
    fn only_an_engine_for_exactly_this_machine_is_found() {
        let root = tempfile::tempdir().unwrap();
        let places = [root.path().join("engines")];
        assert_eq!(find(&places, &identity("10.3.0")), None);
        let folder = build(&places, &identity("10.3.0"), write).unwrap();
        assert_eq!(find(&places, &identity("10.3.0")), Some(folder.clone()));
        assert_eq!(find(&places, &identity("10.4.0")), None);
        fs::write(folder.join("a.engine"), "cut").unwrap();
        assert_eq!(find(&places, &identity("10.3.0")), None);
        // The engine of the new version takes the place of the old one.
        let folder = build(&places, &identity("10.4.0"), write).unwrap();
        let engines = fs::read_dir(&places[0]).unwrap().map(|entry| entry.unwrap().path());
        let engines: Vec<_> = engines.filter(|path| !path.ends_with("timing")).collect();
        assert_eq!(engines, [folder]);
    }

    #[test]
    fn a_build_that_fails_leaves_the_old_engine_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let places = [root.path().to_path_buf()];
        let folder = build(&places, &identity("10.3.0"), write).unwrap();
        let fails = |folder: &Path, shared: &Path| {
            write(folder, shared)?;
            Err(Error::Interrupted)
        };
        assert!(build(&places, &identity("10.4.0"), fails).is_err());
        assert_eq!(find(&places, &identity("10.3.0")), Some(folder));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_passed_over_and_one_that_can_be_read_is_used() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        let places = [root.path().join("file/engines"), root.path().join("own/engines")];
        let folder = build(&places, &identity("10.3.0"), write).unwrap();
        assert!(folder.starts_with(&places[1]));
        assert_eq!(find(&places, &identity("10.3.0")), Some(folder));
        assert!(
            build(&places[..1], &identity("10.3.0"), write).unwrap_err().to_string().contains("file/engines")
        );
        let shared = PathBuf::from("/var/cache/utr/engines");
        assert_eq!(places_of(None, None), std::slice::from_ref(&shared));
        assert_eq!(places_of(None, Some("/h".into())), [shared.clone(), "/h/.cache/utr/engines".into()]);
        assert_eq!(places_of(Some("/c".into()), Some("/h".into())), [shared, "/c/utr/engines".into()]);
    }

    #[test]
    fn versions_are_read_as_linux_tells_them() {
        let maps = "7f00-7f01 r-xp 0 08:01 5   /usr/lib/aarch64-linux-gnu/libnvinfer_plugin.so.10.3.1\n\
             7f02-7f03 r-xp 0 08:01 6   /usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0\n7f04-7f05 rw-p 0 00:00 0\n";
        assert_eq!(version_in(maps, "libnvinfer").as_deref(), Some("10.3.0"));
        assert_eq!(version_in(maps, "libcudnn"), None);
    }

    #[test]
    fn modules_of_one_chip_are_told_apart() {
        let boards = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/boards"));
        let of = |board: &str| gpu(&Root::new(&boards.join(board)));
        assert_eq!(of("agx-orin-r36.2.0"), "nvidia,p3737-0000+p3701-0005 nvidia,p3701-0005 nvidia,tegra234");
        assert_eq!(of("agx-orin-r36.2.0"), of("agx-orin-r39.2.0"));
        let mut orins =
            ["agx-orin-r36.2.0", "agx-orin-32-r35.6.1", "orin-nx-r35.4.1", "orin-nano-r36.4.3"].map(of);
        assert!(orins.iter().all(|gpu| gpu.ends_with("nvidia,tegra234")), "{orins:?}");
        orins.sort();
        assert!(orins.windows(2).all(|pair| pair[0] != pair[1]), "{orins:?}");
        assert_eq!(of("raspberry-pi-5"), "unknown");
        let pc = tempfile::tempdir().unwrap();
        let card = pc.path().join("proc/driver/nvidia/gpus/0000:01:00.0");
        fs::create_dir_all(&card).unwrap();
        fs::write(card.join("information"), "Model: \t\t NVIDIA L4\nIRQ: 5\n").unwrap();
        assert_eq!(gpu(&Root::new(pc.path())), "NVIDIA L4");
    }
}
