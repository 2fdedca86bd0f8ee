//! Videos that a request names: only in one folder, and only where the user opened it.
//!
//! Comes in: a `file://` address. Goes out: a path under the folder, or a refusal that is the same for everything that is not there, so that
//! nothing outside can be told apart. Links are followed before the check.

use std::path::{Path, PathBuf};

use super::errors::ApiError;
use crate::error::{Error, Result};
use crate::source::Source;

/// The folder.
pub struct Files(PathBuf);

impl Files {
    /// Opens the folder.
    ///
    /// # Errors
    /// [`Error::Argument`] where it is none.
    pub fn open(folder: &Path) -> Result<Self> {
        let none = |what: &str| {
            Error::Argument(format!("--allow-files {}: {what}; give a folder with videos", folder.display()))
        };
        let root = folder.canonicalize().map_err(|error| none(&error.to_string()))?;
        if !root.is_dir() {
            return Err(none("is not a folder"));
        }
        Ok(Self(root))
    }

    /// The video or folder of pictures at an address.
    ///
    /// # Errors
    /// Status 400, the same for what is outside and what does not exist.
    pub fn find(&self, url: &str) -> Result<PathBuf, ApiError> {
        let refuse = || {
            let text = "there is no such video in the folder that this server was allowed to read";
            ApiError { code: Some("file_not_found"), ..ApiError::invalid(text, Some("messages")) }
        };
        let Ok(Source::Path(path)) = Source::parse(url) else { return Err(refuse()) };
        let path = path.canonicalize().map_err(|_| refuse())?;
        let inside = |path: &Path| path.starts_with(&self.0) && path != self.0;
        let whole = if path.is_dir() {
            // Pictures of a folder may be links too.
            let entries = std::fs::read_dir(&path).map_err(|_| refuse())?;
            entries.filter_map(Result::ok).all(|entry| {
                let real = entry.path().canonicalize();
                real.is_ok_and(|real| inside(&real))
            })
        } else {
            path.is_file()
        };
        if inside(&path) && whole { Ok(path) } else { Err(refuse()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_in_the_folder_is_found() {
        let root = tempfile::tempdir().unwrap();
        let (open, shut) = (root.path().join("open"), root.path().join("shut"));
        for folder in [&open, &shut] {
            std::fs::create_dir(folder).unwrap();
            std::fs::write(folder.join("a b.mp4"), "x").unwrap();
        }
        std::os::unix::fs::symlink(shut.join("a b.mp4"), open.join("link.mp4")).unwrap();
        std::fs::create_dir(open.join("pictures")).unwrap();
        std::os::unix::fs::symlink(shut.join("a b.mp4"), open.join("pictures/1.png")).unwrap();
        let files = Files::open(&open).unwrap();
        let find = |path: &str| files.find(&format!("file://{}/{path}", root.path().display()));
        assert!(find("open/a%20b.mp4").is_ok() && find("open/../open/a%20b.mp4").is_ok());
        let missing = find("open/none.mp4").unwrap_err();
        for bad in [
            "shut/a%20b.mp4",
            "open/../shut/a%20b.mp4",
            "open/link.mp4",
            "open/pictures",
            "open",
            "shut",
            "open/%00",
            "open/%zz",
        ] {
            let refused = find(bad).unwrap_err();
            assert_eq!((refused.message, refused.code), (missing.message.clone(), missing.code), "{bad}");
        }
        assert!(files.find("file://etc/passwd").is_err() && files.find("test://ball").is_err());
        assert!(Files::open(&open.join("a b.mp4")).is_err());
    }
}
