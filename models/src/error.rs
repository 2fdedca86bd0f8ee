//! The one error type of this crate.
//!
//! Variants are grouped by what the reader can do: repair a file, change an argument, or report a bug in the maths.
//! Messages say what was tried, what was found and, where it helps, what to do next.

use std::path::{Path, PathBuf};

/// Everything that can go wrong between a folder on disk and an answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path}: {reason}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: std::io::Error,
    },
    /// A file was read but its content is not what the format asks for.
    #[error("{path}: {reason}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
    /// A tensor is missing, unexpected or has the wrong shape or type.
    #[error("tensor {name} in {file}: {reason}", file = file.display())]
    Tensor {
        /// The tensor's name as the file spells it.
        name: String,
        /// The file (or folder of shards).
        file: PathBuf,
        /// Expected and found shape, or "missing".
        reason: String,
    },
    /// A bundle differs from its manifest: altered, truncated, of another version, or with a stray file.
    #[error("bundle refused: {file}: {reason}")]
    Bundle {
        /// The offending file, relative to the bundle.
        file: String,
        /// The two hashes, sizes or versions.
        reason: String,
    },
    /// An argument is out of range.
    #[error("{0}")]
    Argument(String),
    /// The tensor library refused an operation.
    #[error("network: {0}")]
    Candle(#[from] candle_core::Error),
}

/// This crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Io`] for `path`; use as `.map_err(Error::io(path))`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        move |reason| Error::Io { path, reason }
    }

    /// An [`Error::Format`] for `path`.
    pub fn format(path: impl AsRef<Path>, reason: impl Into<String>) -> Error {
        Error::Format { path: path.as_ref().to_path_buf(), reason: reason.into() }
    }
}
