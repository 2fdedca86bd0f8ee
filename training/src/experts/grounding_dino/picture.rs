//! The picture side: a frame at the size that the graph wants, normalised.
//!
//! Comes in: a frame, and the `preprocessor_config.json` that lies beside the graph or one folder up. Goes out: (3, H, W) pixels: shortest side 800,
//! longest at most 1333, unless the file or the graph says otherwise. Two roundings exist, the original's and that of `transformers`
//! (reference.md §4.1); they differ in one pixel of very long pictures. Nothing is padded.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use utr_models::RgbFrame;
use utr_models::preprocess::{Filter, Preprocessor, resize};

/// Shortest side, in pixels.
const SHORTEST: f64 = 800.0;
/// Longest side, in pixels.
const LONGEST: f64 = 1333.0;
/// ImageNet's mean and deviation.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];
/// Pillow's numbers for the filters.
const BILINEAR: u64 = 2;
const BICUBIC: u64 = 3;

/// Whose rounding of the longer side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Rounding {
    /// `transformers`: from the unrounded shorter side.
    #[default]
    HuggingFace,
    /// The original code: from the rounded shorter side.
    Original,
}

/// How large a picture becomes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// The shorter side gets `shortest` pixels, fewer where the longer one would get more than `longest`; the aspect ratio is kept.
    Sides {
        /// Pixels.
        shortest: f64,
        /// Pixels; no limit where absent.
        longest: Option<f64>,
    },
    /// (height, width), whatever the aspect ratio.
    Exact(usize, usize),
}

/// How a frame becomes pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// The size.
    pub target: Target,
    filter: Filter,
    mean: [f32; 3],
    std: [f32; 3],
    rescale: f64,
}

/// The fields of `preprocessor_config.json` that matter here.
#[derive(Deserialize)]
struct Settings {
    do_resize: Option<bool>,
    do_rescale: Option<bool>,
    do_normalize: Option<bool>,
    size: Option<Value>,
    max_size: Option<f64>,
    pad_size: Option<Value>,
    resample: Option<u64>,
    rescale_factor: Option<f64>,
    image_mean: Option<[f32; 3]>,
    image_std: Option<[f32; 3]>,
}

impl Default for Picture {
    fn default() -> Self {
        let target = Target::Sides { shortest: SHORTEST, longest: Some(LONGEST) };
        Self { target, filter: Filter::Bilinear, mean: MEAN, std: STD, rescale: 1.0 / 255.0 }
    }
}

impl Picture {
    /// As `preprocessor_config.json` says, where one is given.
    ///
    /// # Errors
    /// A file that cannot be read, or that asks for a step that is not supported.
    pub fn load(settings: Option<&Path>) -> Result<Self> {
        let Some(path) = settings else { return Ok(Self::default()) };
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let settings: Settings = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        Self::from_settings(settings).with_context(|| path.display().to_string())
    }

    fn from_settings(settings: Settings) -> Result<Self> {
        let steps = [settings.do_resize, settings.do_rescale, settings.do_normalize];
        ensure!(
            !steps.contains(&Some(false)),
            "a step is off; only resize, rescale and normalize together are supported"
        );
        if let Some(size) = settings.pad_size {
            bail!("pad_size is {size}; frames are never padded: export a graph that takes them as they are");
        }
        let filter = match settings.resample {
            None | Some(BILINEAR) => Filter::Bilinear,
            Some(BICUBIC) => Filter::Bicubic,
            Some(other) => {
                bail!("resample is {other}; supported are {BILINEAR} (bilinear) and {BICUBIC} (bicubic)")
            }
        };
        let mean = settings.image_mean.unwrap_or(MEAN);
        let std = settings.image_std.unwrap_or(STD);
        ensure!(
            std.iter().all(|value| *value > 0.0),
            "image_std is {std:?}; wanted are three numbers above zero"
        );
        let rescale = settings.rescale_factor.unwrap_or(1.0 / 255.0);
        Ok(Self { target: target(settings.size.as_ref(), settings.max_size)?, filter, mean, std, rescale })
    }

    /// (height, width) that a picture of (height, width) is resized to.
    pub fn size(&self, size: (usize, usize), rounding: Rounding) -> (usize, usize) {
        let (shortest, longest) = match self.target {
            Target::Exact(height, width) => return (height, width),
            Target::Sides { shortest, longest } => (shortest, longest),
        };
        let (h, w) = (size.0 as f64, size.1 as f64);
        let (short, long) = (h.min(w), h.max(w));
        let raw = match longest {
            Some(longest) if long / short * shortest > longest => longest * short / long,
            _ => shortest,
        };
        let side = raw.round_ties_even();
        if short == side {
            return size;
        }
        let base = if rounding == Rounding::HuggingFace { raw } else { side };
        let longer = (base * long / short) as usize;
        let side = side as usize;
        if w < h { (longer.max(1), side.max(1)) } else { (side.max(1), longer.max(1)) }
    }

    /// A frame as (3, height, width) pixels.
    ///
    /// # Errors
    /// A size of zero.
    pub fn pixels(&self, frame: &RgbFrame, (height, width): (usize, usize)) -> Result<Vec<f32>> {
        let Self { filter, mean, std, rescale, .. } = *self;
        let normalise = Preprocessor { height, width, mean, std, rescale };
        Ok(normalise.pixels(&resize(frame, (height, width), filter)?))
    }
}

/// The size as `transformers` writes it: two edges, two sides, or, in old files, one number with `max_size` beside it.
fn target(size: Option<&Value>, max_size: Option<f64>) -> Result<Target> {
    let Some(size) = size.filter(|size| !size.is_null()) else { return Ok(Picture::default().target) };
    let number = |key: &str| size.get(key).and_then(Value::as_f64).filter(|n| *n >= 1.0);
    let sides = |shortest, longest| Target::Sides { shortest, longest };
    let known = match (number("height"), number("width"), number("shortest_edge"), size.as_f64()) {
        (Some(height), Some(width), None, None) => Some(Target::Exact(height as usize, width as usize)),
        (None, None, Some(shortest), None) => Some(sides(shortest, number("longest_edge"))),
        (None, None, None, Some(shortest)) if shortest >= 1.0 => {
            Some(sides(shortest, max_size.or(Some(LONGEST))))
        }
        _ => None,
    };
    known.ok_or_else(|| {
        anyhow!(
            "size is {size}; supported are shortest_edge with longest_edge, height with width, and one number"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_equal_both_references() {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/misc_golden.json");
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(golden).unwrap()).unwrap();
        let cases = golden["gdino_resize"].as_array().unwrap();
        assert!(cases.len() > 5);
        let picture = Picture::default();
        for case in cases {
            let size = |key: &str| -> (usize, usize) { serde_json::from_value(case[key].clone()).unwrap() };
            assert_eq!(picture.size(size("hw"), Rounding::HuggingFace), size("hf"), "{case}");
            assert_eq!(picture.size(size("hw"), Rounding::Original), size("orig"), "{case}");
        }
    }

    fn read(text: &str) -> Result<Picture> {
        Picture::from_settings(serde_json::from_str(text)?)
    }

    #[test]
    fn settings_of_every_spelling_are_read_and_the_rest_is_refused() {
        assert_eq!(read("{}").unwrap(), Picture::default());
        let target = |text: &str| read(text).unwrap().target;
        assert_eq!(target(r#"{"size": {"height": 640, "width": 800}}"#), Target::Exact(640, 800));
        let sides = |shortest, longest| Target::Sides { shortest, longest };
        assert_eq!(target(r#"{"size": {"shortest_edge": 480}}"#), sides(480.0, None));
        assert_eq!(
            target(r#"{"size": {"shortest_edge": 480, "longest_edge": 640}}"#),
            sides(480.0, Some(640.0))
        );
        assert_eq!(target(r#"{"size": 600, "max_size": 1000}"#), sides(600.0, Some(1000.0)));
        assert_eq!(target(r#"{"size": 600}"#), sides(600.0, Some(1333.0)));
        let all = r#"{"resample": 3, "image_mean": [0.5, 0.4, 0.3], "image_std": [1, 2, 4], "rescale_factor": 0.5}"#;
        let picture = read(all).unwrap();
        let frame = RgbFrame::new(1, 1, vec![2, 4, 8]).unwrap();
        assert_eq!(picture.filter, Filter::Bicubic);
        assert_eq!(picture.pixels(&frame, (1, 1)).unwrap(), [0.5, 0.8, 0.925]);
        for (text, expected) in [
            (r#"{"do_rescale": false}"#, "off"),
            (r#"{"pad_size": {"height": 9, "width": 9}}"#, "padded"),
            (r#"{"resample": 0}"#, "resample is 0"),
            (r#"{"size": {"max_height": 9, "max_width": 9}}"#, "max_height"),
            (r#"{"size": {"height": 9}}"#, "height with width"),
            (r#"{"image_std": [0.1, 0, 0.1]}"#, "above zero"),
        ] {
            assert!(format!("{:#}", read(text).unwrap_err()).contains(expected), "{text}");
        }
    }
}
