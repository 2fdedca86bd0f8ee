//! A recipe: everything a training run is, in one TOML file.
//!
//! Comes in: TOML with the network's sizes, the tokenizer's size, and the stages in order. Goes out: [`Recipe`], checked. The recipe and a seed decide the
//! weights bit by bit on one machine; nothing else is read.

use super::encode::Masking;
use super::optimizer::Schedule;
use crate::world::{WorldConfig, conversations::Mix};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Sizes of a network made from nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    /// Pixels per side.
    pub image_size: usize,
    /// Pixels per patch side.
    pub patch: usize,
    /// Tower: channels, MLP channels, blocks, heads.
    pub vision: [usize; 4],
    /// Decoder: channels, MLP channels, blocks, heads, key heads.
    pub decoder: [usize; 5],
    /// Rotary base.
    pub rope_theta: f64,
    /// Longest sequence.
    pub max_positions: usize,
    /// Entries of the tokenizer.
    pub vocab: usize,
}

/// Which weights move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Stage 1: the projector.
    Align,
    /// Stage 2: everything.
    Tune,
}

/// A stage: what moves, how fast, on what.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Its name in logs.
    pub name: String,
    /// What moves.
    pub kind: Kind,
    /// Updates.
    pub steps: usize,
    /// Clips per forward pass of one worker.
    pub micro_batch: usize,
    /// Forward passes per update.
    pub accumulate: usize,
    /// Frames per clip and their odds; one draw per micro-batch.
    pub frames: Vec<(usize, f32)>,
    /// Optimizer.
    pub schedule: Schedule,
    /// What is asked.
    pub mix: Mix,
    /// Worlds that the clips come from.
    pub world: WorldConfig,
}

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the run and of its bundle.
    pub name: String,
    /// Everything random follows from it.
    pub seed: u64,
    /// Network.
    pub sizes: Sizes,
    /// Targets.
    #[serde(default)]
    pub masking: Masking,
    /// See [`super::encode::Encoder::length_power`].
    #[serde(default)]
    pub length_power: f32,
    /// Updates between checkpoints.
    pub checkpoint_every: usize,
    /// Updates between validations.
    pub validate_every: usize,
    /// Weight format of the exported decoder.
    pub quant: String,
    /// Stages in order.
    pub stages: Vec<Stage>,
}

impl Recipe {
    /// Reads and checks a recipe.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("reading the recipe {}", path.display()))?;
        let recipe: Self =
            toml::from_str(&text).with_context(|| format!("in the recipe {}", path.display()))?;
        for stage in &recipe.stages {
            let bad = |what: &str| format!("recipe {}, stage {}: {what}", path.display(), stage.name);
            ensure!(
                stage.steps > 0 && stage.micro_batch > 0 && stage.accumulate > 0,
                bad("steps, micro_batch and accumulate must be above zero")
            );
            let frames = stage.frames.iter().all(|(n, odds)| (1..=32).contains(n) && *odds > 0.0);
            ensure!(
                frames && !stage.frames.is_empty(),
                bad("frames must list 1 to 32 frames with odds above zero")
            );
        }
        ensure!(!recipe.stages.is_empty(), "recipe {} has no stages", path.display());
        ensure!(
            recipe.checkpoint_every > 0 && recipe.validate_every > 0,
            "checkpoint_every and validate_every must be above zero"
        );
        Ok(recipe)
    }
}
