//! A recording as a source: the frames that entered a window, with the stamps they had.
//!
//! Comes in: a file that `utr record` or `utr ask --record` wrote, whole or cut. Goes out: its frames in order, up to the last whole one; frames
//! that were dropped are not among them. Which mode and which questions belong to them is not its concern.

use std::path::Path;

use utr_models::RgbFrame;

use super::{Capture, Stamp};
use crate::error::{Error, Result};
use crate::record::Recording;

/// Recorded frames.
pub struct ReplayCapture {
    recording: Recording,
    next: usize,
}

impl ReplayCapture {
    /// Looks through the file; no picture is read yet.
    pub fn open(path: &Path) -> Result<Self> {
        let recording = Recording::open(path)?;
        if recording.frames().is_empty() {
            let flaw = recording.flaw().unwrap_or_default();
            return Err(Error::capture(path.display().to_string(), format!("it holds no whole frame{flaw}")));
        }
        Ok(Self { recording, next: 0 })
    }
}

impl Capture for ReplayCapture {
    fn advance(&mut self) -> Result<Option<Stamp>> {
        let frame = self.recording.frames().get(self.next);
        self.next += usize::from(frame.is_some());
        Ok(frame.map(|frame| frame.stamp))
    }

    fn image(&mut self) -> Result<RgbFrame> {
        match self.next.checked_sub(1) {
            Some(frame) => self.recording.picture(frame),
            None => {
                let path = self.recording.path().display().to_string();
                Err(Error::capture(path, "no frame was reached yet"))
            }
        }
    }

    fn total(&self) -> Option<usize> {
        Some(self.recording.frames().len())
    }

    fn duration_ms(&self) -> Option<u64> {
        let frames = self.recording.frames();
        Some(frames.last()?.stamp.pts_ms.saturating_sub(frames.first()?.stamp.pts_ms))
    }
}
