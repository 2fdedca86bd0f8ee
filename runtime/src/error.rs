//! The one error type of this crate.
//!
//! Variants are grouped by what the reader can do: spell the source otherwise, look at the clip or camera, choose
//! another bundle or encoder, ask differently, or stop. Messages say what was tried, what was found and what to do
//! next; nothing here logs.

use std::path::{Path, PathBuf};

/// Everything that can go wrong between a camera and an answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A source's spelling was not understood, or names something this version does not read.
    #[error("source {uri:?}: {reason}")]
    Source {
        /// As typed.
        uri: String,
        /// What was found and what is accepted.
        reason: String,
    },
    /// Frames could not be read from a source, and trying again does not help.
    #[error("reading frames from {origin}: {reason}")]
    Capture {
        /// The file, folder or pattern; without secrets.
        origin: String,
        /// What was found and what to do next; for GStreamer with the element's message and the pipeline.
        reason: String,
    },
    /// A source that is set up right gives no frames: unplugged, busy, away, silent or broken. Opening it again may help.
    #[error("reading frames from {origin}: {reason}")]
    Lost {
        /// The camera, file or address; without secrets.
        origin: String,
        /// What was found and what to do next; for GStreamer with the element's message and the pipeline.
        reason: String,
    },
    /// No bundle was named and none was found, or the one named cannot be used.
    #[error("bundle: {0}")]
    Bundle(String),
    /// A vision encoder could not be opened or failed.
    #[error("vision encoder {name}: {reason}")]
    Encoder {
        /// `tract`, `ort` or `candle`.
        name: &'static str,
        /// What failed and the remedy.
        reason: String,
    },
    /// The decoder was used outside its contract or failed.
    #[error("decoder: {0}")]
    Decoder(String),
    /// A question or an option is outside its limits.
    #[error("{0}")]
    Argument(String),
    /// Frames, prompt and question together exceed the model's positions.
    #[error(
        "{needed} tokens do not fit: this model reads {limit} (frames {visual}, prompt and question {text}); \
         ask with fewer frames (--frames) or a shorter question"
    )]
    Context {
        /// Tokens of the whole prompt plus one to answer with.
        needed: usize,
        /// `max_position_embeddings`.
        limit: usize,
        /// Visual tokens.
        visual: usize,
        /// Text tokens.
        text: usize,
    },
    /// The model does not fit into the memory that is left.
    #[error("{name} needs {needs} and {left}; {remedy}")]
    Memory {
        /// The model.
        name: String,
        /// All of the need, with its unit and its parts.
        needs: String,
        /// What may still be used, and of how much.
        left: String,
        /// What would fit, and what else to do.
        remedy: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {reason}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: std::io::Error,
    },
    /// Something below, in the model crate, failed.
    #[error(transparent)]
    Model(#[from] utr_models::Error),
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// This crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Io`] for `path`; use as `.map_err(Error::io(path))`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        move |reason| Error::Io { path, reason }
    }

    /// An [`Error::Capture`] for `origin`.
    pub fn capture(origin: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Capture { origin: origin.into(), reason: reason.into() }
    }

    /// What happened, without where: for messages that name the source themselves.
    pub fn reason(&self) -> String {
        match self {
            Self::Capture { reason, .. } | Self::Lost { reason, .. } => reason.clone(),
            other => other.to_string(),
        }
    }

    /// An [`Error::Lost`] for `origin`.
    pub fn lost(origin: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Lost { origin: origin.into(), reason: reason.into() }
    }

    /// An [`Error::Encoder`] that carries another library's message.
    pub fn encoder(name: &'static str, reason: impl std::fmt::Display) -> Error {
        Error::Encoder { name, reason: reason.to_string() }
    }
}
