//! Recordings: what a window saw and what was answered, in one MCAP file that reproduces it.
//!
//! Comes in: frames that entered the window, questions, answers, losses. Goes out: a file that Foxglove and every other MCAP reader opens, with
//! the frames as PNG in `foxglove.CompressedImage` and everything else as JSON; and the way back, up to the last whole record of a
//! file that was cut. [`Recorder`] follows a live session, [`save_view`] writes the window of one moment. Asking again is
//! `replay`'s part.

mod args;
mod command;
mod format;
mod image;
mod read;
mod recorder;
mod save;
mod snapshot;
mod walk;
mod write;

pub use args::{Record, RecordArgs};
pub use command::run;
pub use format::{AnswerNote, EventNote, FrameNote, Pictures, SessionNote, VERSION};
pub use read::{Mark, RecordedFrame, Recording};
pub use recorder::{Limits, Recorder, Report};
pub use save::{save_view, write_view};
pub use snapshot::{read_snapshot, write_snapshot};
pub use write::{Expected, RecordWriter};
