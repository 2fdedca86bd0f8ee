//! Where frames come from: the spelling of a source, parsed once.
//!
//! Comes in: the text after `--source`. Goes out: a [`Source`]. Nothing is opened or looked up on disk here, so that
//! parsing is the same everywhere; `capture` opens it.

use std::path::PathBuf;

use crate::error::{Error, Result};

/// A parsed source.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A video file, one picture, or a folder of numbered pictures.
    Path(PathBuf),
    /// GStreamer's own test picture, finite.
    Test(PatternSpec),
    /// Pictures drawn by this program, the same bytes on every machine (`pattern://`).
    Pattern(PatternSpec),
    /// A recording (`replay://`).
    Replay(PathBuf),
    /// A GStreamer pipeline that ends before its sink.
    Gst(String),
}

/// A synthetic clip.
#[derive(Clone, Debug, PartialEq)]
pub struct PatternSpec {
    /// `videotestsrc` pattern nick, or the name of a drawn pattern.
    pub name: String,
    /// Length in frames.
    pub frames: usize,
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Frames per second.
    pub fps: u32,
    /// Draws one of many; `pattern://` only.
    pub seed: u64,
}

/// Longest synthetic clip, in frames.
pub const MAX_PATTERN_FRAMES: usize = 1_000_000;
/// Largest side of a synthetic picture, in pixels.
pub const MAX_PATTERN_SIDE: usize = 8192;

/// What `--source` accepts, for messages and help.
pub const SOURCES_HELP: &str = "a path or file://PATH (video, picture, or folder of numbered pictures), \
     test://NAME[?frames=&width=&height=&fps=], pattern://NAME[?frames=&width=&height=&fps=&seed=], replay://FILE.mcap, \
     gst://PIPELINE";

impl Source {
    /// Parses the text after `--source`.
    ///
    /// # Errors
    /// [`Error::Source`] for an empty text, an unknown scheme, a bad parameter, or a scheme of a later version.
    pub fn parse(text: &str) -> Result<Self> {
        let fail = |reason: String| Error::Source { uri: text.to_string(), reason };
        if text.trim().is_empty() {
            return Err(fail(format!("is empty; accepted are {SOURCES_HELP}")));
        }
        let Some((scheme, rest)) = split_scheme(text) else {
            return Ok(Source::Path(PathBuf::from(text)));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "file" => file_path(rest).map(Source::Path).map_err(fail),
            "test" => pattern(rest, "smpte", (320, 240), false).map(Source::Test).map_err(fail),
            "pattern" => pattern(rest, "squares", (96, 96), true).map(Source::Pattern).map_err(fail),
            "gst" => match rest.trim().trim_end_matches(|c: char| c == '!' || c.is_whitespace()) {
                "" => Err(fail("names no pipeline; write gst://ELEMENT ! ELEMENT, without a sink".into())),
                pipeline => Ok(Source::Gst(pipeline.to_string())),
            },
            "replay" if rest.is_empty() => Err(fail("names no recording; write replay://FILE.mcap".into())),
            "replay" => Ok(Source::Replay(PathBuf::from(rest))),
            later @ ("v4l2" | "csi" | "rtsp" | "rtsps") => Err(fail(format!(
                "{later}:// is not in this version; {}accepted are {SOURCES_HELP}",
                workaround(later)
            ))),
            other => Err(fail(format!("the scheme {other}:// is unknown; accepted are {SOURCES_HELP}"))),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Path(path) => write!(f, "{}", path.display()),
            Source::Test(p) => {
                write!(
                    f,
                    "test://{}?frames={}&width={}&height={}&fps={}",
                    p.name, p.frames, p.width, p.height, p.fps
                )
            }
            Source::Pattern(p) => write!(
                f,
                "pattern://{}?frames={}&width={}&height={}&fps={}&seed={}",
                p.name, p.frames, p.width, p.height, p.fps, p.seed
            ),
            Source::Replay(path) => write!(f, "replay://{}", path.display()),
            Source::Gst(pipeline) => write!(f, "gst://{pipeline}"),
        }
    }
}

/// What a user can type today for a source that comes later.
fn workaround(scheme: &str) -> &'static str {
    match scheme {
        "v4l2" => "gst://v4l2src device=/dev/video0 ! decodebin reads such a camera; ",
        "rtsp" | "rtsps" => "gst://rtspsrc location=URL ! decodebin reads such a stream; ",
        "csi" => "gst://nvarguscamerasrc ! nvvidconv ! video/x-raw reads such a camera on a Jetson; ",
        _ => "",
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

/// The path of a `file://` URI: percent sequences decoded, no host but `localhost`.
fn file_path(rest: &str) -> Result<PathBuf, String> {
    let path = rest.strip_prefix("localhost/").map_or_else(|| rest.to_string(), |tail| format!("/{tail}"));
    if path.is_empty() {
        return Err("names no file".into());
    }
    if !path.starts_with('/') {
        return Err(
            "a file:// address needs an absolute path (file:///home/…); a relative path is written bare"
                .into(),
        );
    }
    percent_decode(&path).map(PathBuf::from)
}

/// Decodes `%41` sequences of UTF-8 text.
fn percent_decode(text: &str) -> Result<String, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digits: Option<u32> = (0..2).try_fold(0, |value, _| {
            let digit = (bytes.next()? as char).to_digit(16)?;
            Some(value * 16 + digit)
        });
        let Some(Ok(value)) = digits.map(u8::try_from) else {
            return Err(
                "has a % that is not followed by two hexadecimal digits (a plain % is written %25)".into()
            );
        };
        out.push(value);
    }
    String::from_utf8(out).map_err(|_| "does not decode to UTF-8 text".to_string())
}

/// `NAME?key=value&…` with limits checked.
fn pattern(rest: &str, default: &str, size: (usize, usize), seeded: bool) -> Result<PatternSpec, String> {
    let (name, query) = rest.split_once('?').unwrap_or((rest, ""));
    let name = if name.is_empty() { default } else { name };
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return Err(format!("the pattern name {name:?} has characters other than letters, digits, - and _"));
    }
    let mut spec =
        PatternSpec { name: name.to_string(), frames: 64, width: size.0, height: size.1, fps: 30, seed: 0 };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or(format!("the parameter {pair:?} has no value"))?;
        let number: u64 = value.parse().map_err(|_| format!("{key}={value:?} is not a whole number"))?;
        let within = |limit: usize| {
            usize::try_from(number)
                .ok()
                .filter(|n| (1..=limit).contains(n))
                .ok_or(format!("{key}={value} is outside 1 to {limit}"))
        };
        match key {
            "frames" => spec.frames = within(MAX_PATTERN_FRAMES)?,
            "width" => spec.width = within(MAX_PATTERN_SIDE)?,
            "height" => spec.height = within(MAX_PATTERN_SIDE)?,
            "fps" => spec.fps = u32::try_from(within(1000)?).unwrap_or(1000),
            "seed" if seeded => spec.seed = number,
            _ => {
                let seed = if seeded { ", seed" } else { "" };
                return Err(format!(
                    "the parameter {key:?} is unknown; there are frames, width, height, fps{seed}"
                ));
            }
        }
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bare_paths_and_file_addresses_name_the_same_file() {
        assert_eq!(Source::parse("/a/clip.mp4").unwrap(), Source::parse("file:///a/clip.mp4").unwrap());
        assert_eq!(Source::parse("file:///a%20b%25.mp4").unwrap(), Source::Path("/a b%.mp4".into()));
        assert_eq!(Source::parse("file://localhost/a.mp4").unwrap(), Source::Path("/a.mp4".into()));
        assert_eq!(Source::parse("odd:name.mp4").unwrap(), Source::Path("odd:name.mp4".into()));
    }

    #[test]
    fn test_patterns_read_their_parameters() {
        let Source::Test(spec) = Source::parse("test://ball?frames=7&width=63&height=31&fps=5").unwrap()
        else {
            panic!("not a test source")
        };
        assert_eq!(
            (spec.name.as_str(), spec.frames, spec.width, spec.height, spec.fps),
            ("ball", 7, 63, 31, 5)
        );
        for bad in [
            "test://ball?frames=0",
            "test://ball?frames=x",
            "test://ball?speed=2",
            "test://ball?frames",
            "test://a!b",
        ] {
            assert!(Source::parse(bad).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn a_source_of_a_later_version_says_so() {
        for uri in ["v4l2:///dev/video0", "csi://0", "rtsp://h/s"] {
            let message = Source::parse(uri).unwrap_err().to_string();
            assert!(message.contains("not in this version"), "{message}");
        }
        assert!(Source::parse("http://x").unwrap_err().to_string().contains("unknown"));
        assert!(Source::parse("  ").is_err());
        assert!(Source::parse("gst://").is_err() && Source::parse("gst:// ! !").is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,80}") {
            let _ = Source::parse(&text);
        }

        #[test]
        fn a_spelled_source_parses_back_to_itself(
            name in "[a-z][a-z0-9-]{0,12}", frames in 1usize..1000, w in 1usize..4000, h in 1usize..4000,
            fps in 1u32..200, seed in any::<u64>(), drawn in any::<bool>(),
        ) {
            let spec = PatternSpec { name, frames, width: w, height: h, fps, seed: if drawn { seed } else { 0 } };
            let source = if drawn { Source::Pattern(spec) } else { Source::Test(spec) };
            prop_assert_eq!(Source::parse(&source.to_string()).unwrap(), source);
        }

        #[test]
        fn file_addresses_decode_what_percent_encoding_wrote(path in "/[a-zA-Z0-9 %äß/]{0,40}") {
            let encoded: String = path.bytes().map(|b| {
                if b.is_ascii_alphanumeric() || b == b'/' { (b as char).to_string() } else { format!("%{b:02X}") }
            }).collect();
            prop_assert_eq!(Source::parse(&format!("file://{encoded}")).unwrap(), Source::Path(path.into()));
        }
    }
}
