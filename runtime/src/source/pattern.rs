//! Synthetic clips: `test://` and `pattern://`.
//!
//! Comes in: `NAME?key=value&…`. Goes out: a [`PatternSpec`] within its limits. Whether the name exists is known where
//! it is opened.

use super::query::Query;

/// A synthetic clip.
#[derive(Clone, Debug, PartialEq)]
pub struct PatternSpec {
    /// `videotestsrc` pattern nick, or the name of a drawn pattern.
    pub name: String,
    /// Length in frames; 0 where it is live and has none.
    pub frames: usize,
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Frames per second.
    pub fps: u32,
    /// Draws one of many; `pattern://` only.
    pub seed: u64,
    /// Runs on its own clock without an end, as a camera does; `test://` only.
    pub live: bool,
}

/// Longest synthetic clip, in frames.
pub const MAX_PATTERN_FRAMES: usize = 1_000_000;
/// Largest side of a synthetic picture, in pixels.
pub const MAX_PATTERN_SIDE: usize = 8192;

/// After `test://`.
pub fn parse_test(rest: &str) -> Result<PatternSpec, String> {
    let (mut query, mut spec) = parse(rest, "smpte", (320, 240))?;
    spec.live = query.flag("live")?.unwrap_or(false);
    let frames = query.number("frames", 1, MAX_PATTERN_FRAMES as u64)?;
    if spec.live && frames.is_some() {
        return Err("live=true has no end; leave frames away".into());
    }
    spec.frames = if spec.live { 0 } else { frames.map_or(spec.frames, |n| n as usize) };
    query.finish("frames, width, height, fps, live")?;
    Ok(spec)
}

/// After `pattern://`.
pub fn parse_drawn(rest: &str) -> Result<PatternSpec, String> {
    let (mut query, mut spec) = parse(rest, "squares", (96, 96))?;
    spec.frames = query.number("frames", 1, MAX_PATTERN_FRAMES as u64)?.map_or(spec.frames, |n| n as usize);
    spec.seed = query.number("seed", 0, u64::MAX)?.unwrap_or(0);
    query.finish("frames, width, height, fps, seed")?;
    Ok(spec)
}

/// What both have.
fn parse(rest: &str, default: &str, size: (usize, usize)) -> Result<(Query, PatternSpec), String> {
    let (name, query) = rest.split_once('?').unwrap_or((rest, ""));
    let name = if name.is_empty() { default } else { name };
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return Err(format!("the pattern name {name:?} has characters other than letters, digits, - and _"));
    }
    let mut query = Query::parse(query)?;
    let mut side = |key: &str, default: usize| {
        Ok::<_, String>(query.number(key, 1, MAX_PATTERN_SIDE as u64)?.map_or(default, |n| n as usize))
    };
    let (width, height) = (side("width", size.0)?, side("height", size.1)?);
    let fps = query.number("fps", 1, 1000)?.map_or(30, |n| n as u32);
    let spec = PatternSpec { name: name.to_string(), frames: 64, width, height, fps, seed: 0, live: false };
    Ok((query, spec))
}
