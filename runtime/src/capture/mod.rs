//! Capture: frames, one after the other, from any source.
//!
//! Comes in: a [`Source`]. Goes out: a [`Capture`] that advances frame by frame and copies a picture out only when
//! asked, so that a pass that merely counts costs no copies. Pictures are RGB at source size; a video's rotation tag and a
//! photograph's orientation are honoured. It neither resizes nor chooses frames (`sample` does).

mod feed;
mod folder;
#[cfg(feature = "gst")]
mod gst;
#[cfg(not(feature = "gst"))]
#[path = "gst_disabled.rs"]
mod gst;
pub mod live;
mod pattern;
mod replay;

use std::path::Path;
use std::time::{Duration, Instant};

use utr_models::RgbFrame;

use crate::board::Board;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::source::Source;

pub use feed::{Feed, Layout, RawPicture};
pub use folder::{FOLDER_FPS, limits as picture_limits};
#[cfg(feature = "gst")]
pub use gst::{ElementReport, GstReport, camera_formats, check as check_gstreamer};
pub use pattern::NAMES as PATTERN_NAMES;

/// How a source is read.
#[derive(Clone, Debug)]
pub struct CaptureOptions {
    /// Longest wait for the next frame before the source counts as hung.
    pub timeout: Duration,
    /// Looked at while waiting.
    pub interrupt: Interrupt,
    /// Whose elements are used; found out where it is not given.
    pub board: Option<Board>,
}

impl CaptureOptions {
    /// The board that was given, or the one this runs on.
    ///
    /// # Errors
    /// Only for a profile that does not parse.
    pub fn board(&self) -> Result<Board> {
        self.board.clone().map_or_else(Board::detect, Ok)
    }
}

impl Default for CaptureOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10), interrupt: Interrupt::default(), board: None }
    }
}

/// Which frame of the source, and when it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Counted from 0 in presentation order.
    pub index: usize,
    /// Milliseconds since the source's start.
    pub pts_ms: u64,
}

/// A captured frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Which one.
    pub stamp: Stamp,
    /// When it reached this process.
    pub captured: Instant,
    /// The picture at source size.
    pub image: RgbFrame,
}

/// An open source.
pub trait Capture: Send {
    /// Moves to the next frame; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Lost`] where the source breaks, holds no picture, or stays silent past the timeout; [`Error::Capture`] where
    /// something is missing to read it.
    fn advance(&mut self) -> Result<Option<Stamp>>;

    /// Copies the current picture out.
    ///
    /// # Errors
    /// [`Error::Capture`] before the first [`Capture::advance`] or where the picture cannot be read.
    fn image(&mut self) -> Result<RgbFrame>;

    /// Number of frames, where the source knows before reading.
    fn total(&self) -> Option<usize> {
        None
    }

    /// How long the source says it is, in milliseconds; with sound, the longer of the two.
    fn duration_ms(&self) -> Option<u64> {
        None
    }

    /// True for cameras and other sources that run on their own clock and never end.
    fn live(&self) -> bool {
        false
    }

    /// Frames lost between the source and this process: those a source skipped in its own numbering, where it has one (cameras
    /// do), and those that a live source delivered while nobody advanced. Files lose none.
    fn dropped(&self) -> u64 {
        0
    }
}

/// Opens a source at its first frame.
///
/// # Errors
/// [`Error::Capture`] where it is missing, empty or unreadable, [`Error::Lost`] where a camera is not there now; with what to
/// do next. [`Error::Interrupted`] where a stop was asked for while a device was being opened.
pub fn open(source: &Source, options: &CaptureOptions) -> Result<Box<dyn Capture>> {
    match source {
        Source::Path(path) | Source::Loop(path) => open_path(path, options),
        Source::Pattern(spec) => Ok(Box::new(pattern::PatternCapture::open(spec)?)),
        Source::Replay(path) => Ok(Box::new(replay::ReplayCapture::open(path)?)),
        Source::Test(spec) => gst::open_test(spec, options),
        Source::V4l2 { device, camera } => gst::open_v4l2(device, camera, options),
        Source::Csi { sensor, camera } => gst::open_csi(*sensor, camera, options),
        Source::Rtsp(spec) => gst::open_rtsp(spec, options),
        Source::Feed(feed) => Ok(Box::new(feed::FeedCapture::open(feed, options))),
        Source::Gst(pipeline) => gst::open_pipeline(pipeline, options),
    }
}

/// A video, a picture or a folder of pictures.
fn open_path(path: &Path, options: &CaptureOptions) -> Result<Box<dyn Capture>> {
    let origin = || path.display().to_string();
    let kind = std::fs::metadata(path)
        .map_err(|error| Error::capture(origin(), format!("{error}; check the spelling of --source")))?;
    if kind.is_dir() {
        return Ok(Box::new(folder::FolderCapture::open(path)?));
    }
    if kind.is_file() && kind.len() == 0 {
        return Err(Error::capture(origin(), "the file is empty (0 bytes); record it again"));
    }
    if !kind.is_file() {
        return Err(Error::capture(
            origin(),
            "is neither a file nor a folder; read pipes and devices with gst://PIPELINE",
        ));
    }
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("mcap")) {
        let what = format!("is a recording; read it with replay://{}", path.display());
        return Err(Error::capture(origin(), what));
    }
    if folder::is_picture(path) {
        return Ok(Box::new(folder::FolderCapture::single(path)));
    }
    gst::open_file(path, options)
}
