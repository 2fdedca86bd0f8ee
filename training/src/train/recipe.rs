//! A recipe: everything a training run is, in one TOML file.
//!
//! Comes in: TOML with where the network begins, and the stages in order, each on clips of the world or on data on disk. Goes out: [`Recipe`], checked. The
//! recipe, its seed and the files that it names decide the weights bit by bit on one machine. Nothing but the recipe is read here.

use super::data::Data;
use super::encode::Masking;
use super::features::CacheLimits;
use super::lora::Lora;
use super::optimizer::Schedule;
use crate::world::stream::LONGEST;
use crate::world::{HoldOut, STEPS, WorldConfig, conversations::Mix};
use anyhow::{Context, Result, ensure};
use candle_core::DType;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use utr_models::bpe::world_added_tokens;
use utr_models::gguf::Format;

/// Sizes of a network made from nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

impl Sizes {
    fn check(&self) -> Result<()> {
        let ([channels, _, _, heads], [hidden, _, _, q_heads, kv_heads]) = (self.vision, self.decoder);
        let counts = [self.image_size, self.patch, self.max_positions];
        let numbers = counts.iter().chain(&self.vision).chain(&self.decoder);
        ensure!(numbers.clone().all(|n| *n > 0), "a size is zero");
        ensure!(
            self.image_size >= self.patch,
            "image_size {} is less than patch {}",
            self.image_size,
            self.patch
        );
        ensure!(channels % heads == 0, "vision: {channels} channels do not divide into {heads} heads");
        ensure!(
            hidden % q_heads == 0 && q_heads % kv_heads == 0 && (hidden / q_heads) % 2 == 0,
            "decoder: {hidden} channels, {q_heads} heads and {kv_heads} key heads do not fit (heads divide channels into an even \
             number, key heads divide heads)"
        );
        let least = 256 + world_added_tokens().len();
        ensure!(self.vocab >= least, "vocab is {}; bytes and added tokens alone take {least}", self.vocab);
        Ok(())
    }
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

/// The type that a run computes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// All in f32.
    #[default]
    F32,
    /// Weights and activations in bf16; the values that move, their moments, sums of gradients, norms, softmax and loss in f32.
    Bf16,
}

impl Precision {
    /// Of weights and activations.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }
}

/// A stage: what moves, how fast, on what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Its name in logs.
    pub name: String,
    /// What moves.
    pub kind: Kind,
    /// Updates; with data on disk `epochs` may stand in its place.
    #[serde(default)]
    pub steps: usize,
    /// How often the data are gone through; a run writes the updates that this is into its own copy of the recipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Clips per forward pass of one worker.
    pub micro_batch: usize,
    /// Forward passes per update.
    pub accumulate: usize,
    /// Frames per clip of the world and their odds; one draw per micro-batch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<(usize, f32)>,
    /// Frames in view at a time. Clips of more frames are streams: read through a rolling window, and asked about its newest content.
    #[serde(default = "whole_window")]
    pub window: usize,
    /// Clips of the training split (see [`crate::world::clip_seed`]) that are trained on, over and over; none: new ones without end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<u64>,
    /// Optimizer.
    pub schedule: Schedule,
    /// The decoder learns through low-rank adapters, beside the projector and the newline; everything else stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<Lora>,
    /// Keeps what the tower makes of a clip, for clips that come again; for stages in which the tower stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature_cache: Option<CacheLimits>,
    /// What is asked about clips of the world.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mix: Option<Mix>,
    /// Worlds that the clips come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub world: Option<WorldConfig>,
    /// Conversations on disk, in place of `frames`, `mix` and `world`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
}

impl Stage {
    /// Whether the tower stays as it is.
    pub fn tower_frozen(&self) -> bool {
        self.kind == Kind::Align || self.lora.is_some()
    }

    /// Clips of one update.
    pub fn clips(&self) -> u64 {
        (self.micro_batch * self.accumulate) as u64
    }

    /// Where its clips come from, if from the world.
    pub fn clips_of_world(&self) -> Option<(&Mix, &WorldConfig)> {
        self.mix.as_ref().zip(self.world.as_ref())
    }

    /// What is out of range, in words.
    pub fn check(&self) -> Result<(), String> {
        if self.micro_batch == 0 || self.accumulate == 0 {
            return Err("micro_batch and accumulate must be above zero".into());
        }
        match (&self.data, self.epochs) {
            (None, _) => self.check_world()?,
            (Some(_), None) if self.steps == 0 => {
                return Err("name `steps`, or the `epochs` of its data".into());
            }
            (Some(_), Some(_)) if self.steps > 0 => return Err("name one of `steps` and `epochs`".into()),
            (Some(_), Some(epochs)) if !(epochs > 0.0 && epochs <= 1e6) => {
                return Err(format!("epochs is {epochs}; it must be above zero"));
            }
            (Some(data), _) => {
                if !self.frames.is_empty() || self.mix.is_some() || self.world.is_some() {
                    return Err("a stage with `data` has no `frames`, `mix` and `world`: those are of clips of the world".into());
                }
                data.check()?;
            }
        }
        self.schedule.check()?;
        if self.feature_cache.is_some() && !self.tower_frozen() {
            return Err(
                "feature_cache is for stages that leave the tower as it is: kind \"align\", or lora".into()
            );
        }
        if let Some(lora) = &self.lora {
            lora.check()?;
            if self.kind != Kind::Tune {
                return Err("lora is for stages of kind \"tune\"".into());
            }
        }
        Ok(())
    }

    fn check_world(&self) -> Result<(), String> {
        let Some((mix, world)) = self.clips_of_world() else {
            return Err(
                "name `frames`, `mix` and `world` (clips of the procedural world), or `data` (files)".into(),
            );
        };
        if self.steps == 0 || self.epochs.is_some() {
            return Err("steps must be above zero (`epochs` are of data on disk)".into());
        }
        let sound = |odds: &f32| (0.0..=1e6).contains(odds);
        let frames =
            self.frames.iter().all(|(n, odds)| (1..=LONGEST).contains(n) && *odds > 0.0 && sound(odds));
        if !frames || self.frames.is_empty() {
            return Err(format!("frames must list 1 to {LONGEST} frames with odds above zero"));
        }
        if !(1..=STEPS).contains(&self.window) {
            return Err("window must be 1 to 32 frames".into());
        }
        if !(mix.kinds.iter().all(sound) && mix.kinds.iter().sum::<f32>() > 0.0) {
            return Err(
                "kinds must be three odds (open, yes/no, multiple choice), one of them above zero".into()
            );
        }
        if let Some(filler) = &mix.filler {
            filler.check()?;
        }
        if let Some(watched) = &mix.watched {
            watched.check()?;
        }
        if !(0.0..=1.0).contains(&mix.pair_share) {
            return Err("pair_share must lie between 0 and 1".into());
        }
        world.check()?;
        match world.held_out {
            HoldOut::Never => Ok(()),
            _ => Err("held_out must be \"never\" in training".into()),
        }
    }
}

fn whole_window() -> usize {
    STEPS
}

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the run and of its bundle.
    pub name: String,
    /// Everything random follows from it.
    pub seed: u64,
    /// Model folder whose weights and tokenizer the run begins with, as seen from the working directory; without it, from nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<PathBuf>,
    /// Qwen2 folder that the decoder and the tokenizer come from; with `vision_tower`, in place of `from`. The projector and the newline are then new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language_model: Option<PathBuf>,
    /// SigLIP folder that the tower comes from, less its last block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vision_tower: Option<PathBuf>,
    /// Network that is made from nothing, or that `from` must hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sizes: Option<Sizes>,
    /// Targets.
    #[serde(default)]
    pub masking: Masking,
    /// See [`super::encode::Encoder::length_power`].
    #[serde(default)]
    pub length_power: f32,
    /// Type of the arithmetic.
    #[serde(default)]
    pub precision: Precision,
    /// Blocks are computed again on the way back: the same numbers from less memory, a third more time.
    #[serde(default)]
    pub checkpointing: bool,
    /// Each rank adds up its own gradients and keeps the sum alone, not one for each micro-batch; the bits then depend on the number of ranks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rank_sums: bool,
    /// Updates between checkpoints.
    pub checkpoint_every: usize,
    /// Updates between validations.
    pub validate_every: usize,
    /// Weight format of the exported decoder.
    pub quant: Format,
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
        // The name becomes that of a folder, which is replaced.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        ensure!(
            recipe.name.chars().all(plain)
                && recipe.name.starts_with(|c: char| c.is_ascii_alphanumeric())
                && recipe.name != "new"
                && !recipe.name.starts_with("unscored-"),
            "recipe {}: the name {:?} must be of letters, digits, `-`, `_` and `.`, and begin with a letter or digit (`new` and \
             `unscored-…` are taken)",
            path.display(),
            recipe.name
        );
        ensure!(
            (0.0..=2.0).contains(&recipe.length_power),
            "recipe {}: length_power {} must lie between 0 and 2",
            path.display(),
            recipe.length_power
        );
        if let Some(sizes) = &recipe.sizes {
            sizes.check().with_context(|| format!("recipe {}, sizes", path.display()))?;
        }
        recipe.begins().map_err(|reason| anyhow::anyhow!("recipe {}: {reason}", path.display()))?;
        for stage in &recipe.stages {
            let checked = stage.check();
            checked.map_err(|e| anyhow::anyhow!("recipe {}, stage {}: {e}", path.display(), stage.name))?;
        }
        ensure!(!recipe.stages.is_empty(), "recipe {} has no stages", path.display());
        ensure!(
            recipe.checkpoint_every > 0 && recipe.validate_every > 0,
            "checkpoint_every and validate_every must be above zero"
        );
        Ok(recipe)
    }
}

impl Recipe {
    /// Whether it says where the network comes from, once.
    fn begins(&self) -> Result<(), String> {
        let parts = (self.language_model.is_some(), self.vision_tower.is_some());
        match (parts, self.from.is_some(), self.sizes.is_some()) {
            ((true, true), false, false) | ((false, false), true, _) | ((false, false), false, true) => {}
            ((true, false) | (false, true), ..) => {
                return Err("`language_model` and `vision_tower` come together".into());
            }
            _ => {
                return Err("name where the network begins: `from` (a model folder), `language_model` and `vision_tower` (folders of its parts), \
                            or `sizes` (from nothing)"
                    .into());
            }
        }
        let nothing = self.sizes.is_some() && self.from.is_none();
        match self.stages.iter().find(|stage| nothing && stage.data.is_some()) {
            Some(stage) => Err(format!(
                "stage {} trains on data, which needs a network and a tokenizer to begin with: `from`, or `language_model` and `vision_tower`",
                stage.name
            )),
            None => Ok(()),
        }
    }

    /// The first thing in which `other` differs as far as `stage`, which is what a run that has come there was made with.
    pub fn departs(&self, other: &Self, stage: usize) -> Option<String> {
        let same = [
            ("seed", self.seed == other.seed),
            ("from", self.from == other.from),
            ("language_model", self.language_model == other.language_model),
            ("vision_tower", self.vision_tower == other.vision_tower),
            ("sizes", self.sizes == other.sizes),
            ("masking", self.masking == other.masking),
            ("length_power", self.length_power == other.length_power),
            ("precision", self.precision == other.precision),
            ("rank_sums", self.rank_sums == other.rank_sums),
        ];
        let started = self.stages.iter().zip(&other.stages).take(stage + 1);
        let changed = started.clone().find(|(a, b)| a != b).map(|(a, _)| format!("stage {}", a.name));
        let missing =
            (other.stages.len() < stage.min(self.stages.len())).then(|| "the number of stages".to_string());
        same.iter().find(|(_, same)| !same).map(|(name, _)| name.to_string()).or(changed).or(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nano() -> Recipe {
        Recipe::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/nano.toml"))).unwrap()
    }

    #[test]
    fn a_later_stage_may_change_and_a_started_one_may_not() {
        let (old, mut new) = (nano(), nano());
        let last = new.stages.len() - 1;
        new.stages[last].steps += 1;
        assert_eq!(old.departs(&new, last - 1), None);
        assert_eq!(old.departs(&new, last), Some(format!("stage {}", old.stages[last].name)));
        new.seed += 1;
        assert_eq!(old.departs(&new, 0).as_deref(), Some("seed"));
        let changed = |change: &dyn Fn(&mut Recipe)| {
            let mut new = nano();
            change(&mut new);
            old.departs(&new, 0)
        };
        assert_eq!(changed(&|r| r.precision = Precision::Bf16).as_deref(), Some("precision"));
        assert_eq!(changed(&|r| r.rank_sums = true).as_deref(), Some("rank_sums"));
        assert_eq!(changed(&|r| r.checkpointing = true), None, "the numbers are the same");
    }

    #[test]
    fn the_streaming_recipe_goes_on_with_the_network_of_the_shipped_one() {
        let stream =
            Recipe::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/stream.toml"))).unwrap();
        assert_eq!(stream.sizes, nano().sizes);
        let [stage] = &stream.stages[..] else { panic!("one stage") };
        let all: f32 = stage.frames.iter().map(|(_, odds)| odds).sum();
        let streams: f32 = stage.frames.iter().filter(|(n, _)| *n > stage.window).map(|(_, odds)| odds).sum();
        assert!((0.25..0.5).contains(&(streams / all)), "{streams} of {all}");
        assert!(stream.seed != nano().seed && stream.from.is_some() && nano().from.is_none());
    }

    #[test]
    fn sizes_and_worlds_out_of_range_are_refused_with_words() {
        let text =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/nano.toml")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.toml");
        for (from, to, words) in [
            ("decoder = [128, 320, 6, 4, 2]", "decoder = [128, 320, 6, 0, 2]", "zero"),
            ("vision = [128, 320, 3, 4]", "vision = [128, 320, 3, 5]", "heads"),
            ("max_objects = 1,", "max_objects = 7,", "1 to 6"),
            ("held_out = \"never\"", "held_out = \"any\"", "never"),
            ("quant = \"q8_0\"", "quant = \"q8\"", "q8"),
            ("name = \"utr-nano\"", "name = \"..\"", "name"),
            ("name = \"utr-nano\"", "name = \"/tmp/x\"", "name"),
            ("name = \"utr-nano\"", "name = \"new\"", "name"),
            ("frames = [[1, 1.0]]", "frames = [[1, inf]]", "odds"),
            ("frames = [[1, 1.0]]", "frames = [[129, 1.0]]", "128"),
            ("frames = [[1, 1.0]]", "frames = [[1, 1.0]]\nwindow = 33", "window"),
            ("lr = 2e-3", "lr = -2e-3", "lr"),
            ("pair_share = 0.0", "pair_share = 5.0", "pair_share"),
            ("frames = [[1, 1.0]]", "lora = { rank = 0, alpha = 1.0 }\nframes = [[1, 1.0]]", "rank"),
            (
                "frames = [[1, 1.0]]",
                "lora = { rank = 1, alpha = 1.0, targets = [\"x\"] }\nframes = [[1, 1.0]]",
                "q_proj",
            ),
            ("length_power = 1.0", "length_power = nan", "length_power"),
            ("length_power = 1.0", "precision = \"f16\"", "f16"),
            (
                "frames = [[1, 1.0]]",
                "feature_cache = { memory_mb = 8 }\nframes = [[1, 1.0]]",
                "feature_cache",
            ),
        ] {
            assert!(text.contains(from), "{from}");
            std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
            let message = format!("{:#}", Recipe::load(&path).unwrap_err());
            assert!(message.contains(words) && message.contains("r.toml"), "{to}: {message}");
        }
    }
}
