//! The loss log and its picture.
//!
//! Comes in: one [`Record`] per update and per validation. Goes out: `log.jsonl` (append only; cut back to the checkpoint on resume) and
//! `loss.svg`. No screen output here.

use crate::figures;
use anyhow::{Context, Result};
use plotters::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// One line of the log.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    /// Updates done in all.
    pub step: usize,
    /// Stage name.
    pub stage: String,
    /// Mean training loss of the update.
    pub loss: f64,
    /// Learning rate of projector and decoder.
    pub lr: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Clips per second of this update.
    pub samples_per_s: f64,
    /// Clips seen in all.
    pub samples: u64,
    /// Rows that the decoder read a second, visual and text.
    #[serde(default)]
    pub tokens_per_s: f64,
    /// Model FLOPs utilization (see [`super::flops`]), 0 to 1.
    #[serde(default)]
    pub utilization: f64,
    /// When it was written, seconds since 1970.
    #[serde(default)]
    pub time: f64,
    /// Share of validation items answered word for word, per skill; only on validation steps.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub validation: BTreeMap<String, f64>,
}

/// Reads a log.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    // A kill can leave half a line at the end; everything before it counts.
    Ok(text.lines().map_while(|line| serde_json::from_str(line).ok()).collect())
}

/// Rewrites a log without the records after `step`.
pub fn cut(path: &Path, step: usize) -> Result<()> {
    let kept: String = (read(path)?.iter().filter(|r| r.step <= step))
        .map(|r| serde_json::to_string(r).map(|line| line + "\n"))
        .collect::<Result<_, _>>()?;
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, kept).with_context(|| format!("writing {}", temporary.display()))?;
    std::fs::rename(&temporary, path).with_context(|| format!("renaming {}", temporary.display()))
}

/// Appends one record.
pub fn append(path: &Path, record: &Record) -> Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))?;
    writeln!(file, "{}", serde_json::to_string(record)?)
        .with_context(|| format!("writing {}", path.display()))
}

/// Draws loss and mean validation accuracy over clips seen.
pub fn draw(records: &[Record], path: &Path) -> Result<()> {
    let Some(last) = records.last() else { return Ok(()) };
    let smooth = smooth(records);
    let top = smooth.iter().map(|(_, l)| *l).fold(0.1, f64::max);
    figures::draw(path, "Loss and validation", |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(48)
            .right_y_label_area_size(48)
            .build_cartesian_2d(0f64..last.samples as f64, 0f64..top)?
            .set_secondary_coord(0f64..last.samples as f64, 0f64..1f64);
        chart.configure_mesh().x_desc("clips").y_desc("loss").draw()?;
        chart.configure_secondary_axes().y_desc("validation, word for word").draw()?;
        chart.draw_series(LineSeries::new(smooth, &BLUE))?;
        let accuracy = records.iter().filter(|r| !r.validation.is_empty()).map(|r| {
            let mean = r.validation.values().sum::<f64>() / r.validation.len() as f64;
            (r.samples as f64, mean)
        });
        chart.draw_secondary_series(LineSeries::new(accuracy, &RED))?;
        Ok(())
    })
}

/// Losses as running means over a hundredth of the run.
fn smooth(records: &[Record]) -> Vec<(f64, f64)> {
    let window = (records.len() / 100).max(1);
    let mean = |r: &[Record]| r.iter().map(|r| r.loss).sum::<f64>() / r.len() as f64;
    records.chunks(window).filter_map(|r| Some((r.last()?.samples as f64, mean(r)))).collect()
}
