//! A probe as tables for people.
//!
//! Comes in: a summary. Goes out: Markdown: what was looked at, the models side by side, paired differences, layers. No files.

use super::summary::Summary;
use crate::stats::Mean;

/// The whole of `attention.md`.
pub fn markdown(summary: &Summary) -> String {
    let mut text = format!(
        "{} samples of {}, {} frames, seed {}; means with 95 % intervals over samples. Rows that choose the tokens of the reference answers look; breadth \
         is the effective number of frames (exponential of the entropy of their shares), top the share of the frame that gets most.\n\n",
        summary.samples, summary.data, summary.frames, summary.seed
    );
    if summary.failed > 0 {
        text += &format!("**{} samples could not be read.**\n\n", summary.failed);
    }
    text += "| model | breadth | top % | of all attention: frames % | newline % | text % |\n|---|---|---|---|---|---|\n";
    for m in &summary.models {
        let shares = [m.top, m.visual, m.newline, m.text].map(|mean| told(mean, 100.0, 1)).join(" | ");
        text += &format!("| {} | {} | {shares} |\n", m.name, told(m.breadth, 1.0, 2));
    }
    if !summary.differences.is_empty() {
        text += "\n| paired difference | breadth | top, points | frames, points |\n|---|---|---|---|\n";
    }
    for d in &summary.differences {
        let shares = [d.top, d.visual].map(|mean| told(mean, 100.0, 1)).join(" | ");
        text += &format!("| {} less {} | {} | {shares} |\n", d.model, d.from, told(d.breadth, 1.0, 2));
    }
    let names: String =
        summary.models.iter().map(|m| format!(" {0}: breadth | {0}: frames % |", m.name)).collect();
    text += &format!("\n| layer |{names}\n|---|{}\n", "---|---|".repeat(summary.models.len()));
    let layers = summary.models.iter().map(|m| m.layers.len()).max().unwrap_or(0);
    for layer in 0..layers {
        let cells = summary.models.iter().map(|m| match m.layers.get(layer) {
            Some(l) => format!(" {} | {} |", told(l.breadth, 1.0, 2), told(l.visual, 100.0, 1)),
            None => " | |".into(),
        });
        text += &format!("| {layer} |{}\n", cells.collect::<String>());
    }
    text
}

/// A mean with its interval.
fn told(mean: Mean, times: f64, digits: usize) -> String {
    let [low, high] = mean.interval.map(|end| end * times);
    format!("{:.digits$} [{low:.digits$}, {high:.digits$}]", mean.mean * times)
}
