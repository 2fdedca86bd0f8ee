//! A pool of clips in the order of their temporal perplexity, for arms that train on a part of it.
//!
//! Comes in: a study with a pool. Goes out: `pool.jsonl`, each clip with its TPL under one fixed model, and the clips between two quantiles. Scored are a clip's questions
//! alone: what is said beside them differs in length by lot, and would sort the clips by it. Twins and pieces of other lengths count as their clip. Nothing is
//! trained here.

use super::study::{Pool, Study};
use crate::eval::work::spread;
use crate::files::{read_jsonl, write_atomic, write_jsonl};
use crate::tpl::{Scorer, Single};
use crate::train::gradient::clip_index;
use crate::train::recipe::Stage;
use crate::world::conversations::world_sample;
use crate::world::{Split, clip_seed};
use anyhow::{Context, Result};
use candle_core::Device;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Stage number of the pool's clips; no recipe has so many.
const STAGE: usize = usize::MAX - 1;

/// One clip of the pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// Its place in the training split.
    pub clip: u64,
    /// ppl(one frame) - ppl(all frames) of its answers.
    pub tpl: f64,
    /// The same as a difference of mean log-likelihoods.
    pub tpl_log: f64,
}

/// The pool, lowest TPL first; empty where a study has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts(Vec<Scored>);

impl Parts {
    fn slice(&self, [low, high]: [f64; 2]) -> &[Scored] {
        let place = |share: f64| (share * self.0.len() as f64).round() as usize;
        self.0.get(place(low)..place(high)).unwrap_or_default()
    }

    /// The clips between two quantiles.
    pub fn between(&self, part: [f64; 2]) -> Vec<u64> {
        self.slice(part).iter().map(|scored| scored.clip).collect()
    }

    /// Mean log TPL between two quantiles.
    pub fn mean(&self, part: [f64; 2]) -> f64 {
        let slice = self.slice(part);
        slice.iter().map(|scored| scored.tpl_log).sum::<f64>() / slice.len().max(1) as f64
    }
}

/// Scores the pool of a study, or reads it where that was done.
pub fn score(study: &Study, folder: &Path, workers: usize, stop: &AtomicBool) -> Result<Parts> {
    let Some(pool) = &study.pool else { return Ok(Parts::default()) };
    let stage = study.arms.first().map(|arm| study.stage(arm)).context("a study has arms")??;
    let model = super::digest(&pool.model.join("model.safetensors"))?;
    let told = toml::to_string(pool)? + &toml::to_string(&stage)? + &model;
    let (path, mark) = (folder.join("pool.jsonl"), folder.join("pool-of"));
    let known = path.exists() && std::fs::read_to_string(&mark).ok().as_deref() == Some(&told);
    let mut scored: Vec<Scored> = if known { read_jsonl(&path)? } else { Vec::new() };
    if scored.len() != pool.clips {
        scored = measure(&stage, pool, workers, stop)?;
        std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        write_jsonl(&path, &scored)?;
        write_atomic(&mark, |out| out.write_all(told.as_bytes()))?;
        // As the next run will read them.
        scored = read_jsonl(&path)?;
    }
    scored.sort_by(|a, b| a.tpl.total_cmp(&b.tpl));
    Ok(Parts(scored))
}

fn measure(stage: &Stage, pool: &Pool, workers: usize, stop: &AtomicBool) -> Result<Vec<Scored>> {
    let (mix, world) = Study::world(stage)?;
    let start = || {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
        Ok((Scorer::load(&pool.model, &Device::Cpu)?, threads))
    };
    spread(pool.clips, workers, stop, start, |(scorer, threads), n| {
        let clip = clip_index(0, STAGE, n as u64);
        let seed = clip_seed(Split::Train, clip);
        let mut sample = world_sample(seed, false, mix, world, pool.frames);
        sample.fills.clear();
        let score = threads.install(|| scorer.score(&sample, Single::Reduce, pool.draws, 0))?;
        Ok(Scored { clip, tpl: score.tpl, tpl_log: score.tpl_log })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_part_the_pool_without_a_rest() {
        let scored = |clip: u64| Scored { clip, tpl: clip as f64, tpl_log: clip as f64 / 10.0 };
        let parts = Parts((0..10).map(scored).collect());
        assert_eq!(parts.between([0.0, 0.3]), [0, 1, 2]);
        let whole: Vec<u64> =
            [[0.0, 0.25], [0.25, 0.5], [0.5, 1.0]].iter().flat_map(|part| parts.between(*part)).collect();
        assert_eq!(whole, (0..10).collect::<Vec<_>>());
        assert!((parts.mean([0.8, 1.0]) - 0.85).abs() < 1e-12);
    }
}
