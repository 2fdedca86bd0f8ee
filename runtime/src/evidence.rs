//! Evidence: which frames an answer stands on, and whether it used time.
//!
//! Comes in: the attention that each frame got from the rows that chose the answer's tokens, and likelihoods of the answer under other
//! windows. Goes out: shares per frame, their breadth, and temporal perplexity (paper, section 3: the perplexity under one frame minus that under
//! all). Attention is a hint, not a proof: `utr probe` removes frames and asks again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::decode::{KvPrecision, Place, Span};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::load::Language;
use crate::prefill::{self, Reading};
use crate::window::EncodedFrame;

/// Rows whose logits are held at once: with 151,936 tokens these are 19 MB, however long the answer.
const LOGIT_ROWS: usize = 32;

/// Single frames that stand for the window when temporal perplexity is taken.
const SINGLE_FRAMES: usize = 4;

/// What to say about an answer's frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// Nothing.
    #[default]
    Nothing,
    /// Attention per frame; costs next to nothing.
    Frames,
    /// Also temporal perplexity; costs reading a few single frames.
    FramesAndTime,
}

/// Which frames an answer stands on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Share of each frame in the attention that went to frames, oldest first; sums to 1.
    pub per_frame: Vec<f32>,
    /// Effective number of frames: the exponential of the shares' entropy, 1 to the number of frames.
    pub breadth: f32,
    /// Temporal perplexity of this answer: its perplexity under single frames minus that under the window. Near zero or below: one frame
    /// would have done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpl: Option<f64>,
}

impl Evidence {
    /// From the attention mass of each frame.
    pub fn from_mass(mass: &[f32]) -> Self {
        let total: f32 = mass.iter().sum();
        let share = |mass: &f32| if total > 0.0 { mass / total } else { 0.0 };
        let per_frame: Vec<f32> = mass.iter().map(share).collect();
        let entropy: f32 = per_frame.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        Self { per_frame, breadth: entropy.exp(), tpl: None }
    }
}

/// Mean negative log-likelihood of `tokens` behind a reading, the newline and the rest of the prompt.
///
/// # Errors
/// Whatever the decoder reports; [`Error::Interrupted`].
pub fn nll(
    language: &Language,
    kv: KvPrecision,
    reading: &Reading,
    after: &[u32],
    tokens: &[u32],
    interrupt: &Interrupt,
) -> Result<f64> {
    let Some((_, read)) = tokens.split_last() else {
        return Err(Error::Argument("an empty answer has no likelihood".into()));
    };
    let decoder = language.decoder.as_ref();
    let mut rows = language.newline.clone();
    rows.extend(decoder.embed(after)?);
    rows.extend(decoder.embed(read)?);
    let hidden = decoder.hidden();
    let mut own = Span::new(decoder.shape(), kv, rows.len() / hidden.max(1));
    let (past, start) = (reading.past(), reading.end());
    // Each of the last rows chooses a token; what comes before them is only read.
    let (earlier, choosing) = rows.split_at(rows.len().saturating_sub(tokens.len() * hidden));
    prefill::read(decoder, &past, Place { own: &mut own, start }, earlier, interrupt)?;
    let mut sum = 0.0;
    for (rows, tokens) in choosing.chunks(LOGIT_ROWS * hidden.max(1)).zip(tokens.chunks(LOGIT_ROWS)) {
        interrupt.check()?;
        let states = decoder.read(&past, Place { own: &mut own, start }, rows, None)?;
        let logits = decoder.logits(&states)?;
        let losses = logits.chunks_exact(decoder.vocab().max(1)).zip(tokens);
        sum += losses.map(|(row, token)| loss(row, *token)).sum::<f64>();
    }
    Ok(sum / tokens.len() as f64)
}

/// `-log softmax(logits)[token]`.
fn loss(logits: &[f32], token: u32) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - most).exp()).sum();
    let chosen = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
    sum.ln() - f64::from(chosen - most)
}

/// A few frames spread evenly over the window, to stand for "one frame".
pub fn single_frames(frames: &[Arc<EncodedFrame>]) -> Vec<Arc<EncodedFrame>> {
    let n = SINGLE_FRAMES.min(frames.len());
    (0..n).filter_map(|i| frames.get((2 * i + 1) * frames.len() / (2 * n))).cloned().collect()
}

/// Temporal perplexity from the mean negative log-likelihoods of one answer under the window and under single frames.
pub fn tpl(full: f64, single: &[f64]) -> f64 {
    let mean = single.iter().sum::<f64>() / single.len().max(1) as f64;
    mean.exp() - full.exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breadth_counts_frames() {
        let even = Evidence::from_mass(&[0.5; 8]);
        assert!((even.breadth - 8.0).abs() < 1e-4 && even.per_frame.iter().all(|p| *p == 0.125));
        let one = Evidence::from_mass(&[0.0, 3.0, 0.0]);
        assert!((one.breadth - 1.0).abs() < 1e-6);
        assert_eq!(one.per_frame, [0.0, 1.0, 0.0]);
        assert_eq!(Evidence::from_mass(&[0.0; 2]).per_frame, [0.0; 2]);
    }

    #[test]
    fn losses_are_negative_log_probabilities() {
        assert!((loss(&[0.0, 3f32.ln()], 1) - (4f64 / 3.0).ln()).abs() < 1e-6);
        assert!((loss(&[900.0, 900.0], 0) - 2f64.ln()).abs() < 1e-6);
        assert!((tpl(1f64.ln(), &[3f64.ln(), 3f64.ln()]) - 2.0).abs() < 1e-9);
    }
}
