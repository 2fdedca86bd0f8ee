//! The picture side: a frame at the size that the graph wants, normalised.
//!
//! Comes in: a frame. Goes out: (3, H, W) pixels: shortest side 800, longest at most 1333, or the fixed size of the graph. Two roundings exist, the
//! original's and that of `transformers` (reference.md §4.1); they differ in one pixel of very long pictures.

use anyhow::Result;
use utr_models::RgbFrame;
use utr_models::preprocess::{Filter, Preprocessor, resize};

/// Shortest side, in pixels.
const SHORTEST: f64 = 800.0;
/// Longest side, in pixels.
const LONGEST: f64 = 1333.0;

/// Whose rounding of the longer side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Rounding {
    /// `transformers`: from the unrounded shorter side.
    #[default]
    HuggingFace,
    /// The original code: from the rounded shorter side.
    Original,
}

/// (height, width) that a picture of (height, width) is resized to.
pub fn target(size: (usize, usize), rounding: Rounding) -> (usize, usize) {
    let (h, w) = (size.0 as f64, size.1 as f64);
    let (short, long) = (h.min(w), h.max(w));
    let raw = if long / short * SHORTEST > LONGEST { LONGEST * short / long } else { SHORTEST };
    let side = raw.round_ties_even();
    if short == side {
        return size;
    }
    let base = if rounding == Rounding::HuggingFace { raw } else { side };
    let longer = (base * long / short) as usize;
    let side = side as usize;
    if w < h { (longer.max(1), side.max(1)) } else { (side.max(1), longer.max(1)) }
}

/// A frame as pixels of (3, height, width), with ImageNet's mean and deviation.
///
/// # Errors
/// A size of zero.
pub fn pixels(frame: &RgbFrame, (height, width): (usize, usize)) -> Result<Vec<f32>> {
    let normalise = Preprocessor {
        height,
        width,
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
        rescale: 1.0 / 255.0,
    };
    Ok(normalise.pixels(&resize(frame, (height, width), Filter::Bilinear)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_equal_both_references() {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/misc_golden.json");
        let golden: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(golden).unwrap()).unwrap();
        let cases = golden["gdino_resize"].as_array().unwrap();
        assert!(cases.len() > 5);
        for case in cases {
            let size = |key: &str| -> (usize, usize) { serde_json::from_value(case[key].clone()).unwrap() };
            assert_eq!(target(size("hw"), Rounding::HuggingFace), size("hf"), "{case}");
            assert_eq!(target(size("hw"), Rounding::Original), size("orig"), "{case}");
        }
    }
}
