//! A bundle: the folder that leaves the host and answers on the device.
//!
//! Comes in: a manifest without its file list and a function that writes the files; or the path of a bundle. Goes out: a
//! folder in which every byte is accounted for; or the verified manifest. Opening checks everything (design.md §4.3):
//! `manifest.sha256` over the manifest's raw bytes, the format version, size and hash of every listed file, and that
//! nothing unlisted lies beside them. A bundle is not repaired, and nothing in it is parsed before its hash is known.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::atomic;
use crate::error::{Error, Result};
pub use crate::manifest::{
    FORMAT_VERSION, FileEntry, GoldenQuestion, Manifest, Memory, Network, Provenance, Quantization, Window,
    WindowMode,
};

/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";
/// Holds the manifest's hash, in the format of `sha256sum`.
pub const MANIFEST_HASH: &str = "manifest.sha256";
/// The vision side.
pub const VISION: &str = "vision.onnx";
/// The language model.
pub const DECODER: &str = "decoder.gguf";
/// A manifest larger than this is refused unread.
const LARGEST_MANIFEST: u64 = 16 << 20;

/// A bundle whose every byte was checked when it was opened.
#[derive(Debug, Clone)]
pub struct Bundle {
    folder: PathBuf,
    manifest: Manifest,
    hash: String,
}

impl Bundle {
    /// Opens and verifies a bundle. Anything amiss is [`Error::Bundle`] naming the file and both hashes (or sizes, or
    /// versions).
    pub fn open(folder: &Path) -> Result<Self> {
        let (manifest, hash) = read_manifest(folder)?;
        check_listing(folder, &manifest)?;
        for (name, entry) in &manifest.files {
            check_file(&folder.join(name), name, entry)?;
        }
        Ok(Self { folder: folder.to_path_buf(), manifest, hash })
    }

    /// The manifest alone and its hash, no other file read: what a bundle says before it is known that it is whole.
    pub fn manifest_of(folder: &Path) -> Result<(Manifest, String)> {
        read_manifest(folder)
    }

    /// Whether a folder claims to be a bundle, as opposed to a Hugging Face model folder.
    pub fn is_bundle(folder: &Path) -> bool {
        folder.join(MANIFEST).exists() || folder.join(MANIFEST_HASH).exists()
    }

    /// The bundle's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the bundle says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// SHA-256 of the manifest in hexadecimal; it identifies the bundle, since the manifest holds all other hashes.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Path of a listed file; an error where the manifest does not list it.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        if self.manifest.files.contains_key(name) {
            return Ok(self.folder.join(name));
        }
        Err(refused(name, "the bundle holds no such file"))
    }
}

fn refused(file: &str, reason: impl Into<String>) -> Error {
    Error::Bundle { file: file.to_owned(), reason: reason.into() }
}

/// Reads and checks the manifest alone: its hash, its version, its file names.
fn read_manifest(folder: &Path) -> Result<(Manifest, String)> {
    let raw = read_small(folder, MANIFEST)?;
    let listed = read_small(folder, MANIFEST_HASH)?;
    let hash = hex(&Sha256::digest(&raw));
    let wanted = hash_line(&hash);
    if listed != wanted.as_bytes() {
        let found = String::from_utf8_lossy(&listed);
        let reason = format!("its SHA-256 is {hash}, but {MANIFEST_HASH} says {:?}", found.trim_end());
        return Err(refused(MANIFEST, reason));
    }
    let json: serde_json::Value =
        serde_json::from_slice(&raw).map_err(|e| refused(MANIFEST, format!("not JSON: {e}")))?;
    // The version comes first: a newer manifest may have fields that this program does not know.
    let version = json.get("format_version");
    match version.and_then(serde_json::Value::as_u64) {
        None => {
            let found = version.map_or("none".into(), ToString::to_string);
            return Err(refused(MANIFEST, format!("format_version must be a whole number, found {found}")));
        }
        Some(version) if version != u64::from(FORMAT_VERSION) => {
            let remedy =
                if version > u64::from(FORMAT_VERSION) { "update this program" } else { "export it again" };
            let reason =
                format!("format version {version}, this program reads version {FORMAT_VERSION}: {remedy}");
            return Err(refused(MANIFEST, reason));
        }
        Some(_) => {}
    }
    let manifest: Manifest =
        serde_json::from_value(json).map_err(|e| refused(MANIFEST, format!("not a manifest: {e}")))?;
    for name in manifest.files.keys() {
        check_name(name)?;
    }
    let (vision, decoder) = (&manifest.network.vision, &manifest.network.decoder);
    let sound = vision.validate().and_then(|()| decoder.validate());
    sound.map_err(|e| refused(MANIFEST, e.to_string()))?;
    let Window { frames, fps, .. } = manifest.window;
    if !((1..=32).contains(&frames) && fps.is_finite() && fps > 0.0) {
        return Err(refused(MANIFEST, format!("a window of {frames} frames at {fps} a second")));
    }
    manifest.sampling.validate().map_err(|e| refused(MANIFEST, e.to_string()))?;
    Ok((manifest, hash))
}

fn read_small(folder: &Path, name: &str) -> Result<Vec<u8>> {
    let path = folder.join(name);
    let metadata =
        std::fs::symlink_metadata(&path).map_err(|e| refused(name, format!("cannot be read: {e}")))?;
    if !metadata.is_file() || metadata.len() > LARGEST_MANIFEST {
        return Err(refused(name, format!("not a plain file of at most {LARGEST_MANIFEST} bytes")));
    }
    std::fs::read(&path).map_err(Error::io(&path))
}

/// The one spelling of `manifest.sha256`, so that no byte of it can change unnoticed.
fn hash_line(hash: &str) -> String {
    format!("{hash}  {MANIFEST}\n")
}

/// Listed names are relative, with `/` between plain parts, and never the manifest itself.
fn check_name(name: &str) -> Result<()> {
    let path = Path::new(name);
    let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
    let spelled = path.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/");
    if name.is_empty()
        || !plain
        || spelled != name
        || name.contains('\\')
        || [MANIFEST, MANIFEST_HASH].contains(&name)
    {
        return Err(refused(name, "the manifest lists a name that is not a plain relative path"));
    }
    Ok(())
}

/// Every entry of the folder is listed, every listed file exists, and nothing is a link.
fn check_listing(folder: &Path, manifest: &Manifest) -> Result<()> {
    let found = list_files(folder)?;
    let listed: BTreeSet<&str> =
        manifest.files.keys().map(String::as_str).chain([MANIFEST, MANIFEST_HASH]).collect();
    for name in &found {
        // An empty folder ends in a slash and is never listed.
        if !listed.contains(name.as_str()) {
            return Err(refused(name, "the manifest does not list it"));
        }
    }
    match listed.iter().find(|name| !found.contains(**name)) {
        Some(missing) => Err(refused(missing, "the manifest lists it, but it is not there")),
        None => Ok(()),
    }
}

/// Relative names of all files below `folder`; an empty folder appears with a trailing slash. Links are refused.
fn list_files(folder: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let mut open = vec![String::new()];
    while let Some(prefix) = open.pop() {
        let path = folder.join(&prefix);
        let mut empty = true;
        for entry in std::fs::read_dir(&path).map_err(Error::io(&path))? {
            let entry = entry.map_err(Error::io(&path))?;
            empty = false;
            let file_name = entry.file_name();
            let name = format!("{prefix}{}", file_name.to_string_lossy());
            let kind = entry.file_type().map_err(Error::io(entry.path()))?;
            if file_name.to_str().is_none() {
                return Err(refused(&name, "its name is not UTF-8"));
            } else if kind.is_dir() {
                open.push(format!("{name}/"));
            } else if kind.is_file() {
                names.insert(name);
            } else {
                return Err(refused(&name, "neither a plain file nor a folder; bundles hold no links"));
            }
        }
        if empty && !prefix.is_empty() {
            names.insert(prefix);
        }
    }
    Ok(names)
}

fn check_file(path: &Path, name: &str, entry: &FileEntry) -> Result<()> {
    let size = std::fs::metadata(path).map_err(Error::io(path))?.len();
    if size != entry.bytes {
        // Both hashes belong to the message.
        let reason = format!("{size} bytes, the manifest says {}", entry.bytes);
        let hash = hash_file(path)?;
        return Err(refused(
            name,
            format!("{reason}; its SHA-256 is {hash}, the manifest says {}", entry.sha256),
        ));
    }
    let hash = hash_file(path)?;
    if hash != entry.sha256 {
        return Err(refused(name, format!("its SHA-256 is {hash}, the manifest says {}", entry.sha256)));
    }
    Ok(())
}

/// SHA-256 of a file in lower-case hexadecimal, read in pieces.
pub fn hash_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut piece).map_err(Error::io(path))?;
        if read == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(piece.get(..read).unwrap_or_default());
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a bundle: `fill` puts the files into a temporary folder, then they are hashed into `manifest.files`, the
/// manifest is written, the result is opened as a reader would, and the folder takes its name. `folder` must not exist.
pub fn write_bundle(
    folder: &Path,
    mut manifest: Manifest,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<Bundle> {
    if std::fs::symlink_metadata(folder).is_ok() {
        return Err(Error::Argument(format!(
            "{} exists; a bundle is never overwritten: remove it or choose another name",
            folder.display()
        )));
    }
    let parent = folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(atomic::TEMPORARY_PREFIX);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o777));
    }
    let temporary = builder.tempdir_in(parent).map_err(Error::io(parent))?;
    fill(temporary.path())?;
    manifest.format_version = FORMAT_VERSION;
    manifest.files = BTreeMap::new();
    for name in list_files(temporary.path())? {
        check_name(&name)?;
        let path = temporary.path().join(&name);
        let bytes = std::fs::metadata(&path).map_err(Error::io(&path))?.len();
        manifest.files.insert(name, FileEntry { bytes, sha256: hash_file(&path)? });
    }
    let json = serde_json::to_string_pretty(&manifest)
        .map_err(|e| Error::Argument(format!("the manifest cannot be written as JSON: {e}")))?;
    let raw = format!("{json}\n");
    atomic::write(&temporary.path().join(MANIFEST), raw.as_bytes())?;
    let hash = hex(&Sha256::digest(raw.as_bytes()));
    atomic::write(&temporary.path().join(MANIFEST_HASH), hash_line(&hash).as_bytes())?;
    Bundle::open(temporary.path())?;
    let finished = temporary.keep();
    if let Err(error) = std::fs::rename(&finished, folder) {
        // The half-made folder is ours; leaving it would only confuse.
        let _ = std::fs::remove_dir_all(&finished);
        return Err(Error::io(folder)(error));
    }
    Bundle::open(folder)
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;
