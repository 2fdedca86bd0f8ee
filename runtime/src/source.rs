//! Where frames come from: the spelling of a source, parsed once.
//!
//! Comes in: the text after `--source`. Goes out: a [`Source`]. Nothing is opened or looked up on disk here, so that
//! parsing is the same everywhere; `capture` opens it. What prints a source, also for debugging, leaves secrets out.

use std::path::PathBuf;

use crate::capture::Feed;
use crate::error::{Error, Result};

mod camera;
mod pattern;
mod query;
mod rtsp;
pub mod secret;

pub use camera::{CameraSpec, Codec, Flip};
pub use pattern::{MAX_PATTERN_FRAMES, MAX_PATTERN_SIDE, PatternSpec};
pub use rtsp::{DEFAULT_LATENCY_MS, Login, RtspSpec, Transport};

use query::{Query, percent_decode};

/// A parsed source.
#[derive(Clone, PartialEq)]
pub enum Source {
    /// A video file, one picture, or a folder of numbered pictures.
    Path(PathBuf),
    /// A file or folder that a live session starts again at its end (`file://…?loop=true`); read elsewhere, it ends.
    Loop(PathBuf),
    /// GStreamer's own test picture: finite, or live and without an end.
    Test(PatternSpec),
    /// Pictures drawn by this program, the same bytes on every machine (`pattern://`).
    Pattern(PatternSpec),
    /// A USB camera, or whatever else Linux shows as a video device.
    V4l2 {
        /// Such as `/dev/video0`.
        device: PathBuf,
        /// What is asked of it.
        camera: CameraSpec,
    },
    /// A camera on the board's camera connector, read through the board's own source element.
    Csi {
        /// Counted from 0.
        sensor: u32,
        /// What is asked of it.
        camera: CameraSpec,
    },
    /// A network camera.
    Rtsp(RtspSpec),
    /// A recording made by this program.
    Replay(PathBuf),
    /// A GStreamer pipeline that ends before its sink.
    Gst(String),
    /// Pictures that another part of this program brings; it has no spelling.
    Feed(Feed),
}

/// What `--source` accepts, for messages and help.
pub const SOURCES_HELP: &str = "a path or file://PATH[?loop=] (video, picture, or folder of numbered pictures), \
     /dev/videoN or v4l2://DEVICE[?width=&height=&fps=&codec=&flip=], csi://N[?width=&height=&fps=&flip=], \
     rtsp://[USER:PASSWORD@]HOST[:PORT]/PATH[?latency=&transport=&codec=&flip=] (rtsps:// too), replay://FILE.mcap, \
     test://NAME[?frames=&width=&height=&fps=&live=], pattern://NAME[?frames=&width=&height=&fps=&seed=], gst://PIPELINE";

impl Source {
    /// Parses the text after `--source`.
    ///
    /// # Errors
    /// [`Error::Source`] for an empty text, an unknown scheme or a bad parameter; secrets in the text are not repeated.
    pub fn parse(text: &str) -> Result<Self> {
        let fail = |reason: String| Error::Source { uri: secret::mask_uri(text), reason };
        if text.trim().is_empty() {
            return Err(fail(format!("is empty; accepted are {SOURCES_HELP}")));
        }
        let Some((scheme, rest)) = split_scheme(text) else {
            return if text.starts_with("/dev/video") {
                v4l2(text).map_err(fail)
            } else {
                Ok(Source::Path(PathBuf::from(text)))
            };
        };
        match scheme.to_ascii_lowercase().as_str() {
            "file" => file(rest).map_err(fail),
            "test" => pattern::parse_test(rest).map(Source::Test).map_err(fail),
            "pattern" => pattern::parse_drawn(rest).map(Source::Pattern).map_err(fail),
            "v4l2" => v4l2(rest).map_err(fail),
            "csi" => csi(rest).map_err(fail),
            "rtsp" => RtspSpec::parse(rest, false).map(Source::Rtsp).map_err(fail),
            "rtsps" => RtspSpec::parse(rest, true).map(Source::Rtsp).map_err(fail),
            "replay" if rest.is_empty() => {
                Err(fail("names no recording; write replay://FILE.mcap".to_string()))
            }
            "replay" => Ok(Source::Replay(PathBuf::from(rest))),
            "gst" => match rest.trim().trim_end_matches(|c: char| c == '!' || c.is_whitespace()) {
                "" => Err(fail("names no pipeline; write gst://ELEMENT ! ELEMENT, without a sink".into())),
                pipeline => Ok(Source::Gst(pipeline.to_string())),
            },
            other => Err(fail(format!("the scheme {other}:// is unknown; accepted are {SOURCES_HELP}"))),
        }
    }

    /// Whether the spelling alone says that the source runs on its own clock and never ends. A pipeline (`gst://`) says so
    /// only once it is open.
    pub fn never_ends(&self) -> bool {
        match self {
            Source::V4l2 { .. } | Source::Csi { .. } | Source::Rtsp(_) | Source::Feed(_) => true,
            Source::Test(spec) => spec.live,
            Source::Path(_) | Source::Loop(_) | Source::Pattern(_) | Source::Replay(_) | Source::Gst(_) => {
                false
            }
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Path(path) => write!(f, "{}", path.display()),
            Source::Loop(path) => write!(f, "file://{}?loop=true", query::percent_encode(path)),
            Source::Test(spec) if spec.live => {
                let PatternSpec { name, width, height, fps, .. } = spec;
                write!(f, "test://{name}?width={width}&height={height}&fps={fps}&live=true")
            }
            Source::Test(PatternSpec { name, frames, width, height, fps, .. }) => {
                write!(f, "test://{name}?frames={frames}&width={width}&height={height}&fps={fps}")
            }
            Source::Pattern(PatternSpec { name, frames, width, height, fps, seed, .. }) => {
                write!(
                    f,
                    "pattern://{name}?frames={frames}&width={width}&height={height}&fps={fps}&seed={seed}"
                )
            }
            Source::V4l2 { device, camera } => write!(f, "v4l2://{}{camera}", device.display()),
            Source::Csi { sensor, camera } => write!(f, "csi://{sensor}{camera}"),
            Source::Rtsp(spec) => spec.fmt(f),
            Source::Replay(path) => write!(f, "replay://{}", path.display()),
            Source::Gst(pipeline) => write!(f, "gst://{}", secret::scrub(pipeline)),
            Source::Feed(feed) => f.write_str(feed.name()),
        }
    }
}

/// The same text as `Display`: a derived one would print passwords.
impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({self})")
    }
}

/// Splits `scheme://rest`; a text without a scheme (or with an odd one) is a path.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let mut bytes = scheme.bytes();
    let first = bytes.next()?.is_ascii_alphabetic();
    (first && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')))
        .then_some((scheme, rest))
}

/// A `file://` address: percent sequences decoded, no host but `localhost`.
fn file(rest: &str) -> Result<Source, String> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = path.strip_prefix("localhost/").map_or_else(|| path.to_string(), |tail| format!("/{tail}"));
    if path.is_empty() {
        return Err("names no file".into());
    }
    if !path.starts_with('/') {
        return Err(
            "a file:// address needs an absolute path (file:///home/…); a relative path is written bare"
                .into(),
        );
    }
    let path = PathBuf::from(percent_decode(&path)?);
    let mut query = Query::parse(query)?;
    let repeat = query.flag("loop")?.unwrap_or(false);
    query.finish("loop (a ? in a file's name is written %3F)")?;
    Ok(if repeat { Source::Loop(path) } else { Source::Path(path) })
}

/// A video device, from `/dev/video0?width=…`.
fn v4l2(rest: &str) -> Result<Source, String> {
    let (device, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !device.starts_with('/') {
        return Err("names no device; write v4l2:///dev/video0, with three strokes".into());
    }
    let mut query = Query::parse(query)?;
    let mut camera = CameraSpec::take(&mut query)?;
    camera.codec = query.choice("codec", Codec::NAMES)?;
    query.finish("width, height, fps, codec, flip")?;
    Ok(Source::V4l2 { device: PathBuf::from(device), camera })
}

/// A camera connector, from `0?width=…`.
fn csi(rest: &str) -> Result<Source, String> {
    let (sensor, query) = rest.split_once('?').unwrap_or((rest, ""));
    let sensor: u32 = (if sensor.is_empty() { "0" } else { sensor })
        .parse()
        .map_err(|_| format!("{sensor:?} is not a camera's number; the first is csi://0"))?;
    let mut query = Query::parse(query)?;
    let camera = CameraSpec::take(&mut query)?;
    query.finish("width, height, fps, flip")?;
    Ok(Source::Csi { sensor, camera })
}

#[cfg(test)]
mod tests;
