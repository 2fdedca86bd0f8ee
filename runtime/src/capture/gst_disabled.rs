//! Stands in for GStreamer in a build without it: every request is refused with the way to get it.
//!
//! Folders of pictures and drawn patterns still work.

use std::path::Path;

use super::{Capture, CaptureOptions};
use crate::error::{Error, Result};
use crate::source::{CameraSpec, PatternSpec, RtspSpec};

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
    refuse(format!("gst://{}", crate::source::secret::scrub(pipeline)))
}

/// A video device.
pub fn open_v4l2(device: &Path, _camera: &CameraSpec, _options: &CaptureOptions) -> Result<Box<dyn Capture>> {
    refuse(format!("v4l2://{}", device.display()))
}

/// A camera connector.
pub fn open_csi(sensor: u32, _camera: &CameraSpec, _options: &CaptureOptions) -> Result<Box<dyn Capture>> {
    refuse(format!("csi://{sensor}"))
}

/// A network camera.
pub fn open_rtsp(spec: &RtspSpec, _options: &CaptureOptions) -> Result<Box<dyn Capture>> {
    refuse(spec.shown())
}
