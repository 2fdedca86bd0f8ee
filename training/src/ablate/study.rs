//! A study as one file, written down before it runs: what is varied, what is kept, what is measured.
//!
//! Comes in: TOML such as `training/studies/components.toml`. Goes out: [`Study`], and per arm the stage that is trained and the measures that are taken, checked. An arm is
//! a patch on the common settings: whatever it does not name is the same for all. Nothing is trained here.

use crate::train::recipe::{Recipe, Stage};
use crate::world::WorldConfig;
use crate::world::conversations::Mix;
use crate::world::suite::Suite;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// What a study varies and what it keeps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Study {
    /// Its name, also that of its folder.
    pub name: String,
    /// What it asks, in a sentence.
    pub question: String,
    /// Recipe that makes the weights which all arms begin from.
    pub base: PathBuf,
    /// Model folder with what that recipe came to, so that it need not be run again; without one it is run first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<PathBuf>,
    /// Each arm is trained once per seed; runs of one seed see the same clips and questions, as far as their arms ask for the same clips.
    pub seeds: Vec<u64>,
    /// The arm that the others are compared with.
    pub control: String,
    /// Pairs of arms that are compared beside that: the first less the second.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contrasts: Vec<[String; 2]>,
    /// The measure that decides (see [`super::score`]); the others are reported beside it.
    pub primary: String,
    /// A measure to correlate the primary one with, over arms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlate: Option<String>,
    /// See [`crate::train::encode::Encoder::length_power`].
    pub length_power: f32,
    /// Clips that arms with a `pool` choose from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Pool>,
    /// What is measured of every trained model.
    pub measure: Measure,
    /// What is trained.
    pub stage: Table,
    /// What is varied.
    pub arms: Vec<Arm>,
}

/// A number of clips, scored by one model before anything is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Model folder that scores.
    pub model: PathBuf,
    /// Clips.
    pub clips: usize,
    /// Frames of them.
    pub frames: usize,
    /// Single frames drawn per clip.
    pub draws: usize,
}

/// What is varied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// Its name, also that of its folder.
    pub name: String,
    /// What it is, in words.
    pub about: String,
    /// Changes to `stage`.
    #[serde(default)]
    pub stage: Table,
    /// Changes to `measure`.
    #[serde(default)]
    pub measure: Table,
    /// Trained on the part of the pool whose temporal perplexity lies between these quantiles (0 to 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<[f64; 2]>,
}

/// What is measured of a trained model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measure {
    /// Suite of minimal pairs that training never saw.
    pub suite: PathBuf,
    /// Pairs per skill.
    pub pairs: usize,
    /// Frames shown, from the first that shows the answer.
    pub frames: usize,
    /// Only items that so many frames can show; `frames` where it is left out. For arms that are shown different numbers of frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
    /// Longer clips than training had, for temporal generalization.
    #[serde(default)]
    pub longer: Vec<usize>,
    /// Single pictures, with one question each.
    pub pictures: usize,
    /// Clips whose temporal perplexity is measured.
    pub tpl: usize,
    /// Clips that are asked for the trajectory of an object which is not there, and of one that is.
    pub absent: usize,
}

impl Study {
    /// Reads a study by its name (`training/studies/NAME.toml`) or its path.
    pub fn load(name: &str) -> Result<Self> {
        let path = match name.ends_with(".toml") {
            true => PathBuf::from(name),
            false => Path::new("training/studies").join(format!("{name}.toml")),
        };
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!(
                "reading the study {}; --study takes {} or the path of a TOML file",
                path.display(),
                NAMES.join(", ")
            )
        })?;
        let study: Self =
            toml::from_str(&text).with_context(|| format!("in the study {}", path.display()))?;
        study.check().with_context(|| format!("in the study {}", path.display()))?;
        Ok(study)
    }

    fn check(&self) -> Result<()> {
        let plain = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphanumeric())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        let names: BTreeSet<&str> = self.arms.iter().map(|arm| arm.name.as_str()).collect();
        ensure!(names.len() == self.arms.len(), "two arms have the same name");
        ensure!(
            names.iter().chain([&self.name.as_str()]).all(|name| plain(name)),
            "names become folders: letters, digits, `-`, `_` and `.` only"
        );
        ensure!(names.contains(self.control.as_str()), "control {:?} is no arm", self.control);
        if let Some(bad) = self.contrasts.iter().flatten().find(|name| !names.contains(name.as_str())) {
            bail!("contrasts name {bad:?}, which is no arm");
        }
        let correlated = self.correlate.iter().filter(|name| *name != "pool");
        for name in [&self.primary].into_iter().chain(correlated) {
            ensure!(
                super::score::is_measure(name),
                "{name:?} is no measure; see training/src/ablate/score.rs"
            );
        }
        let seeds: BTreeSet<u64> = self.seeds.iter().copied().collect();
        ensure!(!seeds.is_empty() && seeds.len() == self.seeds.len(), "seeds must be named, each once");
        if let Some(pool) = &self.pool {
            let sound = pool.clips > 1 && pool.draws > 0 && (1..=32).contains(&pool.frames);
            ensure!(sound, "pool wants more than one clip, a draw and 1 to 32 frames");
        }
        for arm in &self.arms {
            let context = || format!("arm {}", arm.name);
            if let Some([low, high]) = arm.pool {
                ensure!(self.pool.is_some(), "arm {} names a part of a pool, the study has none", arm.name);
                ensure!(
                    (0.0..high).contains(&low) && high <= 1.0,
                    "arm {}: pool wants [low, high]",
                    arm.name
                );
            }
            self.measure(arm).and_then(|m| m.check()).with_context(context)?;
            self.stage(arm).and_then(|stage| Self::world(&stage).map(drop)).with_context(context)?;
        }
        Ok(())
    }

    /// The stage that an arm trains.
    pub fn stage(&self, arm: &Arm) -> Result<Stage> {
        let mut stage = self.stage.clone();
        patch(&mut stage, &arm.stage);
        let stage: Stage = Value::Table(stage).try_into().context("stage")?;
        stage.check().map_err(|reason| anyhow::anyhow!("stage: {reason}"))?;
        Ok(stage)
    }

    /// What an arm trains on.
    pub fn world(stage: &Stage) -> Result<(&Mix, &WorldConfig)> {
        stage.clips_of_world().context("a study trains on clips of the world: `mix` and `world`")
    }

    /// What is measured of an arm.
    pub fn measure(&self, arm: &Arm) -> Result<Measure> {
        let mut measure = Table::try_from(&self.measure).context("measure")?;
        patch(&mut measure, &arm.measure);
        Value::Table(measure).try_into().context("measure")
    }

    /// The recipe of one run, which begins from the model in `from`.
    pub fn recipe(&self, base: &Recipe, from: &Path, arm: &Arm, seed: u64) -> Result<Recipe> {
        let stage = self.stage(arm)?;
        Ok(Recipe {
            name: format!("{}-{}-{seed}", self.name, arm.name),
            seed,
            from: Some(from.to_path_buf()),
            length_power: self.length_power,
            checkpoint_every: 100,
            validate_every: stage.steps + 1,
            stages: vec![stage],
            ..base.clone()
        })
    }
}

impl Measure {
    /// Frames that must be enough to show an item.
    pub fn window(&self) -> usize {
        self.window.unwrap_or(self.frames)
    }

    fn check(&self) -> Result<()> {
        let suite = Suite::load(&self.suite)?;
        ensure!(self.tpl > 0, "tpl: at least one clip");
        ensure!(
            (1..=suite.pairs_per_skill).contains(&self.pairs),
            "{} has 1 to {} pairs per skill, {} are wanted",
            self.suite.display(),
            suite.pairs_per_skill,
            self.pairs
        );
        ensure!(
            self.window() <= self.frames,
            "window = {} items cannot be seen in {} frames",
            self.window(),
            self.frames
        );
        if let Some(bad) = self.longer.iter().chain([&self.frames]).find(|n| !(1..=32).contains(*n)) {
            bail!("a clip has 1 to 32 frames, {bad} are wanted");
        }
        Ok(())
    }
}

/// Studies that come with the project.
pub const NAMES: [&str; 5] = ["components", "tpl-correlation", "mix-ratio", "experts", "frames"];

/// Sets what `changes` names, table by table.
fn patch(table: &mut Table, changes: &Table) {
    for (key, value) in changes {
        match (table.get_mut(key), value) {
            (Some(Value::Table(inner)), Value::Table(changes)) => patch(inner, changes),
            _ => drop(table.insert(key.clone(), value.clone())),
        }
    }
}
