//! The figures of a probe.
//!
//! Comes in: a summary. Goes out: `frames.svg` (mean share by position of the frame, all models), `ranks.svg` (by rank within each clip), and for each model
//! `layers-N.svg` (layer by frame) and `breadth-N.svg` (how many samples have which breadth), N counted from 1 in the order of the models.

use super::summary::{ModelSummary, Summary};
use crate::figures::{Bar, Series, bars, heat, lines};
use crate::stats::Mean;
use anyhow::Result;
use std::path::Path;

/// Bars of a distribution, at most.
const BINS: usize = 16;

/// Draws all of them into a folder.
///
/// # Errors
/// An unwritable file.
pub fn draw(folder: &Path, summary: &Summary) -> Result<()> {
    let about = format!("{} samples, bands are 95 % intervals", summary.samples);
    let share = "share of the attention on frames (%)";
    let by = |of: fn(&ModelSummary) -> &[Mean], from: usize| -> Vec<Series> {
        let even = vec![(100.0 / summary.frames as f64, None); summary.frames];
        let model = |m: &ModelSummary| {
            let points = of(m).iter().map(|m| (100.0 * m.mean, Some(m.interval.map(|end| 100.0 * end))));
            series(&m.name, from, points.collect())
        };
        summary.models.iter().map(model).chain([series("all alike", from, even)]).collect()
    };
    let title = format!("Attention by position of the frame ({about})");
    let x = "frame, 0 is the oldest";
    lines(&folder.join("frames.svg"), &title, x, share, &by(|m| &m.per_frame, 0))?;
    let title = format!("Attention by rank of the frame in its clip ({about})");
    lines(&folder.join("ranks.svg"), &title, "rank, 1 gets most", share, &by(|m| &m.ranked, 1))?;
    for (n, model) in (1..).zip(&summary.models) {
        let rows: Vec<Vec<f64>> =
            model.layers.iter().map(|layer| layer.mass.iter().map(|mass| 100.0 * mass).collect()).collect();
        let title = format!("{}: attention of each layer by frame (% of the layer's)", model.name);
        heat(&folder.join(format!("layers-{n}.svg")), &title, x, "layer, 0 is the first", &rows)?;
        let title = format!(
            "{}: effective number of frames, mean {:.1} of {}",
            model.name, model.breadth.mean, summary.frames
        );
        let bins = histogram(&model.breadths, summary.frames);
        bars(&folder.join(format!("breadth-{n}.svg")), &title, "samples", &bins)?;
    }
    Ok(())
}

fn series(name: &str, from: usize, points: Vec<(f64, Option<[f64; 2]>)>) -> Series {
    let point = |(place, (value, interval)): (usize, (f64, Option<[f64; 2]>))| {
        let [low, high] = interval.unwrap_or([value; 2]);
        ((from + place) as f64, value, low, high)
    };
    Series { name: name.into(), points: points.into_iter().enumerate().map(point).collect() }
}

/// Samples by breadth, from 1 to all frames in steps of whole frames.
fn histogram(breadths: &[f32], frames: usize) -> Vec<Bar> {
    let width = (frames.saturating_sub(1)).div_ceil(BINS).max(1);
    let bins = (frames.saturating_sub(1)).div_ceil(width).max(1);
    let mut counts = vec![0usize; bins];
    for breadth in breadths {
        let place = ((breadth - 1.0).max(0.0) as usize / width).min(bins - 1);
        counts[place] += 1;
    }
    let bar = |(place, count): (usize, usize)| {
        let low = 1 + place * width;
        let value = count as f64;
        Bar { name: format!("{low}–{}", (low + width).min(frames)), value, low: value, high: value }
    };
    counts.into_iter().enumerate().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_stands_in_one_bar() {
        let bars = histogram(&[0.999, 1.0, 2.99, 3.0, 31.9, 32.0], 32);
        let counts: Vec<(&str, f64)> =
            bars.iter().filter(|b| b.value > 0.0).map(|b| (b.name.as_str(), b.value)).collect();
        assert_eq!(counts, [("1–3", 3.0), ("3–5", 1.0), ("31–32", 2.0)]);
        assert_eq!(histogram(&[1.0, 2.0], 2).len(), 1);
        assert_eq!(histogram(&[1.5, 3.9], 4).iter().map(|b| b.value).collect::<Vec<_>>(), [1.0, 0.0, 1.0]);
    }
}
