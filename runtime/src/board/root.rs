//! A root folder and the files below it: this machine's, or a root file system mounted elsewhere.
//!
//! Comes in: a folder, and paths as the machine itself would spell them, without the leading slash. Goes out:
//! texts, numbers, names, links. Links are followed *inside* the folder, whatever they say, and reading is
//! bounded, so that nothing of the host leaks into what is said about another system. What is missing or
//! unreadable is none; nothing is written.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use super::parse;

/// Longest text read from a file.
const LONGEST: u64 = 1 << 20;
/// dpkg's list of packages is longer.
const LONGEST_LIST: u64 = 32 << 20;
/// Links followed on the way to one file.
const LINKS: usize = 40;
/// Names taken from one folder.
const NAMES: usize = 8192;

/// A root folder.
#[derive(Clone, Debug)]
pub struct Root {
    folder: PathBuf,
}

impl Root {
    /// The folder that takes the place of `/`.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf() }
    }

    /// This machine's own.
    pub fn here() -> Self {
        Self::new(Path::new("/"))
    }

    /// Whether it is this machine's own.
    pub fn is_here(&self) -> bool {
        self.folder == Path::new("/")
    }

    /// The beginning of a plain file as text; what is no UTF-8 is replaced.
    pub fn text(&self, path: &str) -> Option<String> {
        self.read(path, LONGEST)
    }

    /// As [`Root::text`], for lists of packages.
    pub fn long_text(&self, path: &str) -> Option<String> {
        self.read(path, LONGEST_LIST)
    }

    /// A file's first line, fit to print.
    pub fn line(&self, path: &str) -> Option<String> {
        parse::line(&self.text(path)?)
    }

    /// The number on a file's first line.
    pub fn number(&self, path: &str) -> Option<u64> {
        parse::number(&self.text(path)?)
    }

    fn read(&self, path: &str, limit: u64) -> Option<String> {
        let path = self.resolve(path)?;
        // A pipe or a device would block.
        if !std::fs::metadata(&path).ok()?.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        File::open(path).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The names in a folder, sorted.
    pub fn names(&self, path: &str) -> Vec<String> {
        let entries = self.resolve(path).and_then(|path| std::fs::read_dir(path).ok());
        let names = entries.into_iter().flatten().flatten().take(NAMES);
        let mut names: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The paths of what in a folder has a name that begins so, sorted.
    pub fn paths(&self, folder: &str, prefix: &str) -> Vec<String> {
        let names = self.names(folder).into_iter().filter(|name| name.starts_with(prefix));
        names.map(|name| format!("{folder}/{name}")).collect()
    }

    /// The last part of what a link points to; the file need not exist.
    pub fn link(&self, path: &str) -> Option<String> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let target = std::fs::read_link(self.resolve(parent)?.join(name)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    /// Whether something is there.
    pub fn exists(&self, path: &str) -> bool {
        self.resolve(path).is_some()
    }

    /// Where a path leads, links followed inside the root; none where it leads nowhere.
    fn resolve(&self, path: &str) -> Option<PathBuf> {
        let mut left: VecDeque<OsString> = Path::new(path).iter().map(OsString::from).collect();
        let (mut inside, mut links) = (PathBuf::new(), 0);
        while let Some(part) = left.pop_front() {
            match Path::new(&part).components().next() {
                Some(Component::RootDir) => inside.clear(),
                Some(Component::ParentDir) => {
                    inside.pop();
                }
                Some(Component::Normal(name)) => {
                    let at = self.folder.join(&inside).join(name);
                    if !std::fs::symlink_metadata(&at).ok()?.is_symlink() {
                        inside.push(name);
                        continue;
                    }
                    links += 1;
                    if links > LINKS {
                        return None;
                    }
                    for part in std::fs::read_link(&at).ok()?.iter().rev() {
                        left.push_front(part.into());
                    }
                }
                _ => {}
            }
        }
        Some(self.folder.join(inside))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_stay_inside_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        std::fs::create_dir_all(folder.path().join("usr/lib")).unwrap();
        std::fs::write(folder.path().join("usr/lib/release"), "R36\n").unwrap();
        for (target, link) in [
            ("usr/lib", "lib"),
            ("/lib/release", "absolute"),
            ("../../../../lib/release", "upward"),
            ("/etc/passwd", "outside"),
            ("loop", "loop"),
            ("/lib/systemd/graphical.target", "dangling"),
        ] {
            symlink(target, folder.path().join(link)).unwrap();
        }
        for path in ["lib/release", "absolute", "upward", "usr/../lib/release", "../lib/release"] {
            assert_eq!(root.text(path).as_deref(), Some("R36\n"), "{path}");
        }
        for path in ["outside", "loop", "dangling", "lib", "none", ""] {
            assert_eq!(root.text(path), None, "{path}");
        }
        assert_eq!(root.link("dangling").as_deref(), Some("graphical.target"));
        assert_eq!((root.line("absolute").as_deref(), root.number("absolute")), (Some("R36"), None));
        assert_eq!(root.names("lib"), ["release"]);
        assert_eq!(root.paths("lib", "rel"), ["lib/release"]);
        assert!(root.paths("lib", "x").is_empty());
        assert!(root.exists("absolute") && !root.exists("outside") && !root.is_here());
        assert!(Root::here().is_here() && Root::here().exists("proc"));
    }
}
