//! What is asked of a camera: size, rate, format, orientation.
//!
//! Comes in: query parameters. Goes out: a [`CameraSpec`]; what is left open, the camera decides.

use std::fmt::{Display, Formatter};

use super::query::Query;

/// What is asked of a camera; nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CameraSpec {
    /// Pixels.
    pub width: Option<u32>,
    /// Pixels.
    pub height: Option<u32>,
    /// Frames per second.
    pub fps: Option<u32>,
    /// The format it sends.
    pub codec: Option<Codec>,
    /// How the picture is turned before anything sees it.
    pub flip: Option<Flip>,
}

/// The format a camera sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Pixels.
    Raw,
    /// Motion JPEG.
    Mjpeg,
    /// H.264, also called AVC.
    H264,
    /// H.265, also called HEVC.
    H265,
}

impl Codec {
    /// As spelled.
    pub const NAMES: &'static [(&'static str, Codec)] =
        &[("raw", Codec::Raw), ("mjpeg", Codec::Mjpeg), ("h264", Codec::H264), ("h265", Codec::H265)];

    /// As spelled.
    pub fn name(self) -> &'static str {
        word(Self::NAMES, self)
    }
}

/// How a picture is turned; jetson-inference's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flip {
    /// A quarter turn to the left.
    Counterclockwise,
    /// Upside down.
    Rotate180,
    /// A quarter turn to the right.
    Clockwise,
    /// Left and right change places.
    Horizontal,
    /// Top and bottom change places.
    Vertical,
    /// Mirrored along the diagonal from the upper left.
    UpperLeftDiagonal,
    /// Mirrored along the diagonal from the upper right.
    UpperRightDiagonal,
}

impl Flip {
    /// As spelled.
    pub const NAMES: &'static [(&'static str, Flip)] = &[
        ("counterclockwise", Flip::Counterclockwise),
        ("rotate-180", Flip::Rotate180),
        ("clockwise", Flip::Clockwise),
        ("horizontal", Flip::Horizontal),
        ("vertical", Flip::Vertical),
        ("upper-left-diagonal", Flip::UpperLeftDiagonal),
        ("upper-right-diagonal", Flip::UpperRightDiagonal),
    ];

    /// As spelled.
    pub fn name(self) -> &'static str {
        word(Self::NAMES, self)
    }

    /// `videoflip`'s word for it.
    pub fn video_direction(self) -> &'static str {
        match self {
            Flip::Counterclockwise => "90l",
            Flip::Rotate180 => "180",
            Flip::Clockwise => "90r",
            Flip::Horizontal => "horiz",
            Flip::Vertical => "vert",
            Flip::UpperLeftDiagonal => "ul-lr",
            Flip::UpperRightDiagonal => "ur-ll",
        }
    }
}

fn word<T: Copy + PartialEq>(words: &[(&'static str, T)], choice: T) -> &'static str {
    words.iter().find(|(_, known)| *known == choice).map_or("", |(word, _)| word)
}

impl CameraSpec {
    /// Takes width, height, fps and flip out of a query; the codec is the caller's, as not every camera has the choice.
    pub fn take(query: &mut Query) -> Result<Self, String> {
        let mut number = |key: &str, high: u64| {
            Ok::<_, String>(query.number(key, 1, high)?.and_then(|n| u32::try_from(n).ok()))
        };
        let (width, height, fps) = (number("width", 16384)?, number("height", 16384)?, number("fps", 1000)?);
        Ok(Self { width, height, fps, codec: None, flip: query.choice("flip", Flip::NAMES)? })
    }

    /// The asked size and rate as fields of GStreamer caps, each with a leading comma.
    pub fn caps_fields(&self) -> String {
        let mut text = String::new();
        for (field, value) in [("width", self.width), ("height", self.height)] {
            text.extend(value.map(|value| format!(",{field}={value}")));
        }
        text.extend(self.fps.map(|fps| format!(",framerate={fps}/1")));
        text
    }
}

/// As a query, `?` included; nothing where nothing is asked.
impl Display for CameraSpec {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let numbers = [("width", self.width), ("height", self.height), ("fps", self.fps)];
        let numbers = numbers.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", value?)));
        let words = [("codec", self.codec.map(Codec::name)), ("flip", self.flip.map(Flip::name))];
        let words = words.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", value?)));
        let all: Vec<String> = numbers.chain(words).collect();
        if all.is_empty() { Ok(()) } else { write!(f, "?{}", all.join("&")) }
    }
}
