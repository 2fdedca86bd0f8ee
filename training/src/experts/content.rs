//! What the clips of a folder hold, without decoding them.
//!
//! Comes in: clips. Goes out: which are copies of others, and the whole folder (or one file) in a word, so that a stopped run goes on only with what
//! it began with. Names and bytes count, places do not.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::clip::Clip;

/// Clips whose file is a copy of an earlier one, by place, and that one's name.
pub fn twins(clips: &[Clip]) -> HashMap<usize, String> {
    let size = |clip: &Clip| std::fs::metadata(&clip.path).ok().filter(|m| m.is_file()).map(|m| m.len());
    let mut by_size: HashMap<u64, Vec<usize>> = HashMap::new();
    for (place, clip) in clips.iter().enumerate() {
        if let Some(size) = size(clip).filter(|size| *size > 0) {
            by_size.entry(size).or_default().push(place);
        }
    }
    let mut found = HashMap::new();
    // Only files of one size are read.
    for places in by_size.into_values().filter(|places| places.len() > 1) {
        let mut first: HashMap<[u8; 32], usize> = HashMap::new();
        for place in places {
            let Ok(content) = digest(&clips[place].path) else { continue };
            match first.get(&content) {
                Some(original) => drop(found.insert(place, clips[*original].name.clone())),
                None => drop(first.insert(content, place)),
            }
        }
    }
    found
}

fn digest(path: &Path) -> std::io::Result<[u8; 32]> {
    let (mut digest, mut file) = (Sha256::new(), std::fs::File::open(path)?);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(digest.finalize().into());
        }
        digest.update(&buffer[..count]);
    }
}

/// Number, names and sizes of the clips in a word, so that a changed folder is noticed.
pub fn inventory(clips: &[Clip]) -> String {
    let mut digest = Sha256::new();
    for clip in clips {
        let size = std::fs::metadata(&clip.path).map_or(0, |m| if m.is_file() { m.len() } else { 0 });
        digest.update(format!("{}\n{size}\n", clip.name));
    }
    format!("{} clips ({})", clips.len(), short(&digest.finalize()))
}

/// The content of a file in a word.
///
/// # Errors
/// A file that cannot be read.
pub fn fingerprint(path: &Path) -> std::io::Result<String> {
    Ok(short(&digest(path)?))
}

fn short(digest: &[u8]) -> String {
    digest.iter().take(8).map(|b| format!("{b:02x}")).collect()
}
