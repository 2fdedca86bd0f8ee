//! TPL of the world's own kinds of data: how much UTR queries, captions and skill questions need their frames.
//!
//! Comes in: a model and the distribution that clips come from. Goes out: mean TPL of each kind over the same unseen clips, with its standard error. Nothing is
//! read but the model; clips are drawn from seeds that neither training nor a suite uses.

use super::{Scorer, Single};
use crate::world::conversations::{Mix, world_sample};
use crate::world::{Split, WorldConfig, clip_seed};
use anyhow::{Result, ensure};
use candle_core::Device;
use serde::Serialize;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Clips that a model's card tells of.
pub const SAMPLES: u64 = 200;

/// Mean TPL of one kind of data.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// `utr`, `caption` or `skills`.
    pub data: String,
    /// Samples.
    pub n: usize,
    /// Mean ppl(one frame) - ppl(32 frames).
    pub tpl: f64,
    /// Mean nll(one frame) - nll(32 frames).
    pub tpl_log: f64,
    /// Standard error of `tpl_log`.
    pub standard_error: f64,
}

/// Which clips are scored.
#[derive(Clone, Debug)]
pub struct Clips {
    /// Where they come from.
    pub world: WorldConfig,
    /// Frames of each.
    pub frames: usize,
}

impl Clips {
    /// The general distribution, as the whole window shows it.
    pub fn full() -> Self {
        Self { world: WorldConfig::full(), frames: 32 }
    }
}

/// TPL of UTR queries, of captions and of skill questions over the same unseen clips, under one model.
pub fn compare_tpl(
    model: &Path,
    device: &Device,
    samples: u64,
    clips: &Clips,
    stop: &AtomicBool,
) -> Result<Vec<Compared>> {
    let scorer = Scorer::load(model, device)?;
    let none = Mix {
        skill_turns: 0,
        utr_turns: 0,
        caption_turns: 0,
        instruction_turns: 0,
        pair_share: 0.0,
        ..Mix::default()
    };
    let kinds = [
        ("utr", Mix { utr_turns: 2, ..none.clone() }),
        ("caption", Mix { caption_turns: 2, ..none.clone() }),
        ("skills", Mix { skill_turns: 6, ..none }),
    ];
    kinds
        .into_iter()
        .map(|(name, mix)| {
            let mut logs = Vec::new();
            let mut sum = 0.0;
            for i in 0..samples {
                ensure!(!stop.load(Ordering::Relaxed), "stopped; the same command scores again");
                let sample = world_sample(
                    clip_seed(Split::Test, (1 << 50) + i),
                    false,
                    &mix,
                    &clips.world,
                    clips.frames,
                );
                let score = scorer.score(&sample, Single::Reduce, 4, 0)?;
                sum += score.tpl;
                logs.push(score.tpl_log);
            }
            let n = logs.len() as f64;
            let mean = logs.iter().sum::<f64>() / n;
            let variance = logs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
            Ok(Compared {
                data: name.into(),
                n: logs.len(),
                tpl: sum / n,
                tpl_log: mean,
                standard_error: (variance / n).sqrt(),
            })
        })
        .collect()
}
