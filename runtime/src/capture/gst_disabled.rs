//! Stands in for GStreamer in a build without it: every request is refused with the way to get it.
//!
//! Folders of pictures and drawn patterns still work.

use std::path::Path;

use super::{Capture, CaptureOptions};
use crate::error::{Error, Result};
use crate::source::PatternSpec;

fn refuse<T>(origin: String) -> Result<T> {
    Err(Error::capture(
        origin,
        "this program was built without GStreamer; build it with the feature `gst`, or give a folder of pictures",
    ))
}

/// A video file.
pub fn open_file(path: &Path, _options: &CaptureOptions) -> Result<Box<dyn Capture>> {
    refuse(path.display().to_string())
}

/// A test picture.
pub fn open_test(spec: &PatternSpec, _options: &CaptureOptions) -> Result<Box<dyn Capture>> {
    refuse(format!("test://{}", spec.name))
}

/// A user's pipeline.
pub fn open_pipeline(pipeline: &str, _options: &CaptureOptions) -> Result<Box<dyn Capture>> {
    refuse(format!("gst://{pipeline}"))
}
