//! Clips drawn by this program: the same bytes on every machine, no GStreamer, no files.
//!
//! Comes in: a name, a size, a length and a seed. Goes out: RGB frames made with integer arithmetic only. They carry
//! the golden questions of a bundle and the tests; they are not training data.

use utr_models::RgbFrame;

use super::{Capture, Stamp};
use crate::error::{Error, Result};
use crate::source::PatternSpec;

/// The patterns: `squares` (coloured squares that move and bounce), `gradient` (a drifting ramp), `noise`.
pub const NAMES: [&str; 3] = ["squares", "gradient", "noise"];

/// A drawn clip.
pub struct PatternCapture {
    spec: PatternSpec,
    squares: Vec<Square>,
    next: usize,
}

/// A square in units of 1/1024 of the picture's sides.
struct Square {
    x: i64,
    y: i64,
    dx: i64,
    dy: i64,
    side: i64,
    rgb: [u8; 3],
}

impl PatternCapture {
    /// Checks the name and draws the seed's squares.
    pub fn open(spec: &PatternSpec) -> Result<Self> {
        if !NAMES.contains(&spec.name.as_str()) {
            return Err(Error::capture(
                format!("pattern://{}", spec.name),
                format!("there is no such pattern; there are {}", NAMES.join(", ")),
            ));
        }
        let mut state = spec.seed;
        let mut draw = |low: i64, high: i64| low + (mix(&mut state) >> 33) as i64 % (high - low + 1);
        let squares = (0..3)
            .map(|_| Square {
                x: draw(0, 800),
                y: draw(0, 800),
                dx: draw(-40, 40),
                dy: draw(-40, 40),
                side: draw(120, 320),
                rgb: [draw(0, 255) as u8, draw(0, 255) as u8, draw(0, 255) as u8],
            })
            .collect();
        Ok(Self { spec: spec.clone(), squares, next: 0 })
    }

    fn pixel(&self, t: i64, x: i64, y: i64, noise: &mut u64) -> [u8; 3] {
        match self.spec.name.as_str() {
            "noise" => {
                let [r, g, b, ..] = mix(noise).to_le_bytes();
                [r, g, b]
            }
            "gradient" => {
                [((x / 4 + 8 * t) % 256) as u8, ((y / 4) % 256) as u8, ((x / 8 + y / 8 + 4 * t) % 256) as u8]
            }
            _ => self
                .squares
                .iter()
                .rev()
                .find(|square| {
                    let (left, top) = (
                        fold(square.x + t * square.dx, 1024 - square.side),
                        fold(square.y + t * square.dy, 1024 - square.side),
                    );
                    (left..left + square.side).contains(&x) && (top..top + square.side).contains(&y)
                })
                .map_or([(32 + y / 32) as u8, 40, (64 + x / 32) as u8], |square| square.rgb),
        }
    }
}

impl Capture for PatternCapture {
    fn advance(&mut self) -> Result<Option<Stamp>> {
        let index = self.next;
        if index >= self.spec.frames {
            return Ok(None);
        }
        self.next += 1;
        Ok(Some(Stamp { index, pts_ms: index as u64 * 1000 / u64::from(self.spec.fps.max(1)) }))
    }

    fn image(&mut self) -> Result<RgbFrame> {
        let Some(t) = self.next.checked_sub(1) else {
            return Err(Error::capture(format!("pattern://{}", self.spec.name), "no frame was reached yet"));
        };
        let (width, height) = (self.spec.width, self.spec.height);
        let mut noise = self.spec.seed ^ (t as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut data = Vec::with_capacity(width * height * 3);
        for row in 0..height {
            for column in 0..width {
                let (x, y) = (column * 1024 / width, row * 1024 / height);
                data.extend(self.pixel(t as i64, x as i64, y as i64, &mut noise));
            }
        }
        Ok(RgbFrame::new(width, height, data)?)
    }

    fn total(&self) -> Option<usize> {
        Some(self.spec.frames)
    }
}

/// Reflects `value` into `0..=limit`, as a ball bounces between two walls.
fn fold(value: i64, limit: i64) -> i64 {
    let phase = value.rem_euclid(2 * limit.max(1));
    if phase > limit { 2 * limit - phase } else { phase }
}

/// SplitMix64 (Steele, Lea and Flood 2014): one step.
fn mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;

    fn read(uri: &str) -> Vec<RgbFrame> {
        let Source::Pattern(spec) = Source::parse(uri).unwrap() else { panic!("not a pattern") };
        let mut clip = PatternCapture::open(&spec).unwrap();
        let mut frames = Vec::new();
        while clip.advance().unwrap().is_some() {
            frames.push(clip.image().unwrap());
        }
        frames
    }

    #[test]
    fn a_seed_draws_the_same_clip_and_another_seed_another() {
        for name in NAMES {
            let uri = format!("pattern://{name}?frames=4&seed=3&width=40&height=30");
            let clip = read(&uri);
            assert_eq!(clip.len(), 4);
            assert_eq!(clip, read(&uri), "{name}");
            assert_ne!(clip[0], clip[3], "{name} does not move");
        }
        assert_ne!(read("pattern://squares?frames=1&seed=1"), read("pattern://squares?frames=1&seed=2"));
    }

    #[test]
    fn the_bytes_never_change() {
        // FNV-1a over a whole clip: a change here would void the golden answers of every bundle.
        let hash = |uri: &str| {
            read(uri)
                .iter()
                .flat_map(|frame| frame.data.clone())
                .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
                    (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
                })
        };
        assert_eq!(
            NAMES.map(|name| hash(&format!("pattern://{name}?frames=5&seed=9&width=33&height=21"))),
            [340_110_235_822_169_858, 14_023_757_871_631_061_989, 5_511_890_716_057_688_121]
        );
    }

    #[test]
    fn an_unknown_pattern_lists_the_known_ones() {
        let Source::Pattern(spec) = Source::parse("pattern://spiral").unwrap() else {
            panic!("not a pattern")
        };
        assert!(PatternCapture::open(&spec).err().unwrap().to_string().contains("squares"));
    }
}
