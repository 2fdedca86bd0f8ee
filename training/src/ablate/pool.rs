//! A pool of clips in the order of their temporal perplexity, for arms that train on a part of it.
//!
//! Comes in: a study with a pool. Goes out: `pool.jsonl`, each clip with its TPL under one fixed model, and the clips between two quantiles. Scored are a clip's questions
//! alone: what is said beside them differs in length by lot, and would sort the clips by it. Quantiles are taken among the clips made for one skill, so that every part
//! asks for the skills alike. Twins and pieces of other lengths count as their clip. Nothing is trained here.

use super::study::{Pool, Study};
use crate::eval::work::spread;
use crate::files::{read_jsonl, write_atomic, write_jsonl};
use crate::tpl::{Score, Scorer, Single};
use crate::train::gradient::clip_index;
use crate::train::recipe::Stage;
use crate::world::conversations::{made_for, world_sample};
use crate::world::{Split, clip_seed};
use anyhow::{Context, Result};
use candle_core::Device;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Stage number of the pool's clips; no recipe has so many.
const STAGE: usize = usize::MAX - 1;

const POOL: &str = "pool.jsonl";
const MARK: &str = "pool-of";

/// One clip of the pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// Its place in the training split.
    pub clip: u64,
    /// The skill it was made for; none for a clip of the general distribution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skill: Option<String>,
    /// ppl(one frame) - ppl(all frames) of its answers.
    pub tpl: f64,
    /// The same as a difference of mean log-likelihoods.
    pub tpl_log: f64,
    /// Mean negative log-likelihood of its answers given all frames, and given one: a low TPL may also be a scorer that does not know the answer.
    #[serde(default)]
    pub nll_full: f64,
    /// The latter.
    #[serde(default)]
    pub nll_single: f64,
}

/// The pool by skill, lowest log TPL first; empty where a study has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts(BTreeMap<Option<String>, Vec<Scored>>);

impl Parts {
    fn of(scored: Vec<Scored>) -> Self {
        let mut groups: BTreeMap<_, Vec<Scored>> = BTreeMap::new();
        for one in scored {
            groups.entry(one.skill.clone()).or_default().push(one);
        }
        groups.values_mut().for_each(|group| group.sort_by(|a, b| a.tpl_log.total_cmp(&b.tpl_log)));
        Self(groups)
    }

    fn part(&self, [low, high]: [f64; 2]) -> impl Iterator<Item = &Scored> {
        self.0.values().flat_map(move |group| {
            let place = |share: f64| (share * group.len() as f64).round() as usize;
            group.get(place(low)..place(high)).unwrap_or_default()
        })
    }

    /// The clips between two quantiles.
    pub fn between(&self, part: [f64; 2]) -> Vec<u64> {
        let mut clips: Vec<u64> = self.part(part).map(|scored| scored.clip).collect();
        // Not one skill after the other.
        clips.sort_unstable();
        clips
    }

    /// Mean of something between two quantiles.
    pub fn mean(&self, part: [f64; 2], of: impl Fn(&Scored) -> f64) -> f64 {
        let all: Vec<f64> = self.part(part).map(of).collect();
        all.iter().sum::<f64>() / all.len().max(1) as f64
    }
}

/// What a pool's scores follow from: its settings, the clips' and the model, as text.
fn told(pool: &Pool, stage: &Stage) -> Result<String> {
    let model = super::digest(&pool.model.join("model.safetensors"))?;
    Ok(toml::to_string(pool)? + &toml::to_string(stage)? + &model + "\nby skill\n")
}

fn stage(study: &Study) -> Result<Stage> {
    study.arms.first().map(|arm| study.stage(arm)).context("a study has arms")?
}

/// The pool of a study where it was scored just so; an empty one where the study has none.
pub fn known(study: &Study, folder: &Path) -> Result<Option<Parts>> {
    let Some(pool) = &study.pool else { return Ok(Some(Parts::default())) };
    let (path, mark) = (folder.join(POOL), folder.join(MARK));
    if !path.exists() || std::fs::read_to_string(&mark).ok() != Some(told(pool, &stage(study)?)?) {
        return Ok(None);
    }
    let scored: Vec<Scored> = read_jsonl(&path)?;
    Ok((scored.len() == pool.clips).then(|| Parts::of(scored)))
}

/// Scores the pool of a study, or reads it where that was done.
pub fn score(study: &Study, folder: &Path, workers: usize, stop: &AtomicBool) -> Result<Parts> {
    if let (None, Some(pool)) = (known(study, folder)?, &study.pool) {
        let stage = stage(study)?;
        let scored = measure(&stage, pool, workers, stop)?;
        std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        write_jsonl(&folder.join(POOL), &scored)?;
        let told = told(pool, &stage)?;
        write_atomic(&folder.join(MARK), |out| out.write_all(told.as_bytes()))?;
    }
    // As the next run will read them.
    known(study, folder)?.context("a pool that was just scored")
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
        let skill = made_for(seed, mix, world).map(|skill| skill.word().to_string());
        let Score { tpl, tpl_log, nll_full, nll_single, .. } = score;
        Ok(Scored { clip, skill, tpl, tpl_log, nll_full, nll_single })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_part_each_skill_without_a_rest() {
        let skill = |clip: u64| (clip < 10).then(|| "direction".to_string());
        let scored = |clip: u64| Scored {
            clip,
            skill: skill(clip),
            tpl: 0.0,
            tpl_log: clip as f64 / 10.0,
            nll_full: clip as f64,
            nll_single: 0.0,
        };
        let parts = Parts::of((0..20).rev().map(scored).collect());
        assert_eq!(parts.between([0.0, 0.3]), [0, 1, 2, 10, 11, 12]);
        let mut whole: Vec<u64> =
            [[0.0, 0.25], [0.25, 0.5], [0.5, 1.0]].iter().flat_map(|part| parts.between(*part)).collect();
        whole.sort_unstable();
        assert_eq!(whole, (0..20).collect::<Vec<_>>());
        assert!((parts.mean([0.8, 1.0], |scored| scored.tpl_log) - 1.35).abs() < 1e-12);
        assert!((parts.mean([0.8, 1.0], |scored| scored.nll_full) - 13.5).abs() < 1e-12);
    }
}
