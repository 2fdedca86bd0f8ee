//! From an RGB picture of any size to the tensor the vision tower reads.
//!
//! Comes in: [`RgbFrame`] and a `preprocessor_config.json`. Goes out: a resized [`RgbFrame`] and (3, H, W) f32 pixels.
//! The resize repeats Pillow's filters bit for bit: separable, horizontal pass first, antialiased support,
//! fixed-point weights, bytes between the passes (reference.md §1.1). The aspect ratio is not kept, nothing is cropped
//! or padded: that is how SigLIP for LLaVA-OneVision sees a frame. No colour conversion happens here.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::frame::RgbFrame;

/// Fraction bits of the filter weights: 32 bits less 8 for the sample and 2 for overshoot and sign.
const PRECISION_BITS: u32 = 32 - 8 - 2;
/// Pillow's number for the bicubic filter.
const RESAMPLE_BICUBIC: u64 = 3;

/// How a picture is resized; both are antialiased, as Pillow's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// What language models' towers are trained with.
    Bicubic,
    /// What detectors are trained with.
    Bilinear,
}

impl Filter {
    /// Half width of the kernel in source pixels at scale one.
    fn support(self) -> f64 {
        match self {
            Filter::Bicubic => 2.0,
            Filter::Bilinear => 1.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        match self {
            Filter::Bicubic => bicubic(x),
            Filter::Bilinear => (1.0 - x.abs()).max(0.0),
        }
    }
}

/// How a frame becomes pixels: the target size and the normalisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessor {
    /// Target rows.
    pub height: usize,
    /// Target columns.
    pub width: usize,
    /// Per-channel mean, subtracted after rescaling.
    pub mean: [f32; 3],
    /// Per-channel standard deviation, divided by after the mean.
    pub std: [f32; 3],
    /// Factor from a byte to the unit range, 1/255 in all released models.
    pub rescale: f64,
}

impl Preprocessor {
    /// SigLIP's values for a square tower: mean and deviation 0.5, bytes times 1/255.
    pub fn siglip(image_size: usize) -> Self {
        Self { height: image_size, width: image_size, mean: [0.5; 3], std: [0.5; 3], rescale: 1.0 / 255.0 }
    }

    /// Reads the frame preprocessing of a Hugging Face folder.
    ///
    /// The first of these that exists decides: `video_preprocessor_config.json`, the `video_processor` entry of
    /// `processor_config.json`, `preprocessor_config.json`. Without any, [`Preprocessor::siglip`] of
    /// `image_size_default` (the tower's `image_size`). A filter other than bicubic, a crop or a skipped step is an error.
    pub fn load(folder: &Path, image_size_default: usize) -> Result<Self> {
        let video = folder.join("video_preprocessor_config.json");
        if let Some(value) = read_json(&video)? {
            return Self::from_json(&value, image_size_default)
                .map_err(|reason| Error::format(&video, reason));
        }
        let processor = folder.join("processor_config.json");
        if let Some(value) = read_json(&processor)?.as_ref().and_then(|v| v.get("video_processor")) {
            return Self::from_json(value, image_size_default)
                .map_err(|reason| Error::format(&processor, reason));
        }
        let image = folder.join("preprocessor_config.json");
        match read_json(&image)? {
            Some(value) => {
                Self::from_json(&value, image_size_default).map_err(|reason| Error::format(&image, reason))
            }
            None => Ok(Self::siglip(image_size_default)),
        }
    }

    fn from_json(value: &Value, image_size_default: usize) -> Result<Self, String> {
        for step in ["do_resize", "do_rescale", "do_normalize"] {
            if value.get(step).and_then(Value::as_bool) == Some(false) {
                return Err(format!(
                    "{step} is false; only resize, rescale and normalize together are supported"
                ));
            }
        }
        if value.get("do_center_crop").and_then(Value::as_bool) == Some(true) {
            return Err(
                "do_center_crop is true; frames are squashed to the tower's size, never cropped".into()
            );
        }
        if let Some(resample) = value.get("resample").and_then(Value::as_u64)
            && resample != RESAMPLE_BICUBIC
        {
            return Err(format!("resample is {resample}; only {RESAMPLE_BICUBIC} (bicubic) is supported"));
        }
        let (height, width) = read_size(value.get("size"), image_size_default)?;
        let default = Self::siglip(image_size_default);
        let rescale = value.get("rescale_factor").and_then(Value::as_f64).unwrap_or(default.rescale);
        Ok(Self {
            height,
            width,
            mean: read_channels(value, "image_mean", default.mean)?,
            std: read_channels(value, "image_std", default.std)?,
            rescale,
        })
    }

    /// Resizes to this preprocessor's size and returns normalised (3, H, W) pixels.
    pub fn frame_pixels(&self, frame: &RgbFrame) -> Result<Vec<f32>> {
        Ok(self.pixels(&self.picture(frame)?))
    }

    /// The picture as the tower sees it: resized, not yet normalised. Resizing it again changes nothing.
    pub fn picture(&self, frame: &RgbFrame) -> Result<RgbFrame> {
        resize(frame, (self.height, self.width), Filter::Bicubic)
    }

    /// Normalises a frame as it is, without resizing: (3, height, width), `(byte * rescale - mean) / std`.
    ///
    /// The product is taken in f64 and rounded to f32 before the mean is subtracted, as the reference does.
    pub fn pixels(&self, frame: &RgbFrame) -> Vec<f32> {
        let plane = frame.width * frame.height;
        let mut pixels = Vec::with_capacity(3 * plane);
        for (channel, (&mean, &std)) in self.mean.iter().zip(&self.std).enumerate() {
            let table: [f32; 256] =
                std::array::from_fn(|byte| ((byte as f64 * self.rescale) as f32 - mean) / std);
            pixels.extend(
                frame
                    .data
                    .iter()
                    .skip(channel)
                    .step_by(3)
                    .map(|&byte| table.get(byte as usize).copied().unwrap_or(0.0)),
            );
        }
        pixels
    }
}

/// Resizes to `(height, width)` exactly as Pillow 13's `Image.resize`; a pass is skipped where that side is kept.
pub fn resize(frame: &RgbFrame, (height, width): (usize, usize), filter: Filter) -> Result<RgbFrame> {
    if height == 0 || width == 0 {
        return Err(Error::Argument(format!(
            "cannot resize to {width}x{height}: both sides must be above zero"
        )));
    }
    let horizontal = |frame: &RgbFrame| match width == frame.width {
        true => Ok(frame.clone()),
        false => RgbFrame::new(width, frame.height, resample_rows(frame, width, filter)),
    };
    let vertical = |frame: &RgbFrame| match height == frame.height {
        true => Ok(frame.clone()),
        false => RgbFrame::new(frame.width, height, resample_columns(frame, height, filter)),
    };
    // Pillow 13 shrinks the height first where it loses more than twice as many rows as columns; earlier versions never
    // did. The order shows only in bytes that are rounded or clipped between the passes.
    let lost = |from: usize, to: usize| from as i64 - to as i64;
    let (rows, columns) = (lost(frame.height, height), lost(frame.width, width));
    if rows > 0 && rows > 2 * columns { horizontal(&vertical(frame)?) } else { vertical(&horizontal(frame)?) }
}

/// The source samples one output sample reads: `weights[i]` belongs to source index `start + i`.
struct Taps {
    start: usize,
    weights: Vec<i32>,
}

/// Cubic convolution kernel with a = -0.5 (Keys 1981).
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Fixed-point weights for every output sample; the kernel is stretched by the scale when shrinking.
fn filter_taps(source: usize, target: usize, filter: Filter) -> Vec<Taps> {
    let scale = source as f64 / target as f64;
    let filter_scale = scale.max(1.0);
    let support = filter.support() * filter_scale;
    let inverse = 1.0 / filter_scale;
    (0..target)
        .map(|out| {
            let center = (out as f64 + 0.5) * scale;
            // `as usize` truncates towards zero and saturates there, which is the clamp to the left edge.
            let start = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(source);
            let raw: Vec<f64> =
                (start..end).map(|i| filter.weight((i as f64 - center + 0.5) * inverse)).collect();
            let total: f64 = raw.iter().sum();
            let weights =
                raw.iter().map(|&w| fixed_point(if total == 0.0 { w } else { w / total })).collect();
            Taps { start, weights }
        })
        .collect()
}

/// Rounds half away from zero to `PRECISION_BITS` fraction bits.
fn fixed_point(weight: f64) -> i32 {
    let scaled = weight * f64::from(1u32 << PRECISION_BITS);
    (if weight < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
}

const ROUNDING: i32 = 1 << (PRECISION_BITS - 1);

fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

fn resample_rows(frame: &RgbFrame, width: usize, filter: Filter) -> Vec<u8> {
    let taps = filter_taps(frame.width, width, filter);
    let mut out = Vec::with_capacity(width * frame.height * 3);
    for row in frame.data.chunks_exact(frame.width * 3) {
        for tap in &taps {
            let (mut red, mut green, mut blue) = (ROUNDING, ROUNDING, ROUNDING);
            for (pixel, &weight) in row.chunks_exact(3).skip(tap.start).zip(&tap.weights) {
                if let &[r, g, b] = pixel {
                    red += i32::from(r) * weight;
                    green += i32::from(g) * weight;
                    blue += i32::from(b) * weight;
                }
            }
            out.extend([to_byte(red), to_byte(green), to_byte(blue)]);
        }
    }
    out
}

fn resample_columns(frame: &RgbFrame, height: usize, filter: Filter) -> Vec<u8> {
    let stride = frame.width * 3;
    let mut out = Vec::with_capacity(stride * height);
    let mut sums = vec![ROUNDING; stride];
    for tap in filter_taps(frame.height, height, filter) {
        sums.fill(ROUNDING);
        for (row, &weight) in frame.data.chunks_exact(stride).skip(tap.start).zip(&tap.weights) {
            for (sum, &byte) in sums.iter_mut().zip(row) {
                *sum += i32::from(byte) * weight;
            }
        }
        out.extend(sums.iter().map(|&sum| to_byte(sum)));
    }
    out
}

fn read_json(path: &Path) -> Result<Option<Value>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    serde_json::from_str(&text).map(Some).map_err(|e| Error::format(path, format!("not JSON: {e}")))
}

fn read_size(size: Option<&Value>, default: usize) -> Result<(usize, usize), String> {
    let side = |value: &Value, key: &str| value.get(key).and_then(Value::as_u64).map(|n| n as usize);
    let found = match size {
        None | Some(Value::Null) => Some((default, default)),
        Some(Value::Number(n)) => n.as_u64().map(|n| (n as usize, n as usize)),
        Some(value) => side(value, "height")
            .zip(side(value, "width"))
            .or_else(|| side(value, "shortest_edge").map(|edge| (edge, edge))),
    };
    found.filter(|&(height, width)| height > 0 && width > 0).ok_or_else(|| {
        format!(
            "size is {}; expected a number, {{height, width}} or {{shortest_edge}} above zero",
            size.unwrap_or(&Value::Null)
        )
    })
}

fn read_channels(value: &Value, key: &str, default: [f32; 3]) -> Result<[f32; 3], String> {
    let Some(entry) = value.get(key).filter(|v| !v.is_null()) else { return Ok(default) };
    let numbers: Vec<f32> =
        entry.as_array().into_iter().flatten().filter_map(Value::as_f64).map(|n| n as f32).collect();
    <[f32; 3]>::try_from(numbers).map_err(|_| format!("{key} is {entry}; expected three numbers"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn golden() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/preprocess")
    }

    #[test]
    fn resize_equals_pillow_on_every_golden_case() {
        let cases: Value =
            serde_json::from_str(&std::fs::read_to_string(golden().join("cases.json")).unwrap()).unwrap();
        let bytes = std::fs::read(golden().join("cases.bin")).unwrap();
        let mut at = 0;
        let mut take = |n: usize| {
            at += n;
            bytes[at - n..at].to_vec()
        };
        let cases = cases.as_array().unwrap();
        assert!(cases.len() >= 12);
        for case in cases {
            let n = |key: &str| case[key].as_u64().unwrap() as usize;
            let (w, h, ow, oh) = (n("width"), n("height"), n("out_width"), n("out_height"));
            let source = RgbFrame::new(w, h, take(w * h * 3)).unwrap();
            let expected = take(ow * oh * 3);
            let filter = if case["filter"] == "bilinear" { Filter::Bilinear } else { Filter::Bicubic };
            let found = resize(&source, (oh, ow), filter).unwrap();
            assert_eq!(found.data, expected, "{filter:?} {w}x{h} -> {ow}x{oh} differs from Pillow");
        }
        assert_eq!(at, bytes.len());
    }

    #[test]
    fn pixels_are_planar_and_normalised() {
        let frame = RgbFrame::new(2, 1, vec![0, 51, 255, 255, 102, 0]).unwrap();
        let pixels = Preprocessor::siglip(2).pixels(&frame);
        let expected = [-1.0, 1.0, -0.6, -0.2, 1.0, -1.0];
        for (found, wanted) in pixels.iter().zip(expected) {
            assert!((found - wanted).abs() < 1e-6, "{pixels:?}");
        }
    }

    #[test]
    fn load_accepts_every_spelling_of_size_and_refuses_other_filters() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("preprocessor_config.json");
        assert_eq!(Preprocessor::load(folder.path(), 384).unwrap(), Preprocessor::siglip(384));
        for (text, size) in [
            (r#"{"size": 70, "image_mean": [0.1, 0.2, 0.3]}"#, (70, 70)),
            (r#"{"size": {"height": 56, "width": 84}, "resample": 3}"#, (56, 84)),
            (r#"{"size": {"shortest_edge": 42}}"#, (42, 42)),
        ] {
            std::fs::write(&file, text).unwrap();
            let found = Preprocessor::load(folder.path(), 384).unwrap();
            assert_eq!((found.height, found.width), size);
        }
        for text in [
            r#"{"resample": 2}"#,
            r#"{"size": "big"}"#,
            r#"{"image_std": [1]}"#,
            r#"{"do_resize": false}"#,
            "{",
        ] {
            std::fs::write(&file, text).unwrap();
            let error = Preprocessor::load(folder.path(), 384).unwrap_err().to_string();
            assert!(error.contains("preprocessor_config.json"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_flat_picture_stays_flat(w in 1usize..90, h in 1usize..90, ow in 1usize..90, oh in 1usize..90, v: u8) {
            let source = RgbFrame::new(w, h, vec![v; w * h * 3]).unwrap();
            let found = resize(&source, (oh, ow), Filter::Bicubic).unwrap();
            prop_assert!(found.data.iter().all(|&byte| byte == v));
        }
    }
}
