//! The memory plan of a recipe: what each stage takes on a rank, from configurations alone.
//!
//! Comes in: a recipe, the number of ranks and of workers. Goes out: what [`memory`] foretells of each stage, and, where a device or a host cannot hold it, a refusal with
//! what would help. No weights are loaded. Activations are counted for a sample with the most media and [`TEXT_ROWS`] rows of text.

use super::assemble;
use super::memory::{self, Memory, Setting};
use super::recipe::{Kind, Recipe, Stage};
use anyhow::{Context, Result, ensure};
use std::fmt;
use std::path::PathBuf;
use utr_models::Config;
use utr_models::anyres::MOST_SIDE;
use utr_models::config::{TextConfig, VisionConfig};
use utr_models::network::{Picture, Work};
use utr_models::weights::table;

/// Rows of text beside the media of a sample.
pub const TEXT_ROWS: usize = 1024;

/// What a recipe takes
#[derive(Clone, Debug, clap::Args)]
pub struct PlanArgs {
    /// The recipe (TOML)
    #[arg(long)]
    pub recipe: PathBuf,
    /// Memory of one device, such as 80GiB; a stage that needs more is refused
    #[arg(long, value_parser = bytes)]
    pub device_memory: Option<u64>,
    /// Memory of the host for each rank
    #[arg(long, value_parser = bytes)]
    pub host_memory: Option<u64>,
    /// Ranks that share an update
    #[arg(long, default_value_t = 1)]
    pub ranks: usize,
    /// Threads of a rank that compute, one with a GPU; each holds a micro-batch of its own
    #[arg(long, default_value_t = 1)]
    pub workers: usize,
}

/// A number of bytes such as `80GiB`, `512MiB` or `1000000`.
fn bytes(text: &str) -> Result<u64, String> {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let (number, shift) = units
        .iter()
        .find_map(|(unit, shift)| text.strip_suffix(unit).map(|n| (n, *shift)))
        .unwrap_or((text, 0));
    let number: f64 =
        number.trim().parse().map_err(|_| format!("{text}: write a number with GiB, MiB or KiB"))?;
    match number > 0.0 && number.is_finite() {
        true => Ok((number * f64::from(1u32 << shift)) as u64),
        false => Err(format!("{text} must be above zero")),
    }
}

/// What one stage takes on one rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The stage.
    pub stage: String,
    /// Weights in all, and numbers that move.
    pub parameters: [usize; 2],
    /// Bytes without and with checkpointing.
    pub memory: [Memory; 2],
    /// Whether the recipe checkpoints.
    pub checkpointing: bool,
    /// Bytes of a weight and of an activation.
    pub width: usize,
    /// Each rank keeps the gradients of all its micro-batches.
    pub keeps_each: bool,
}

impl Plan {
    /// Bytes as the recipe says.
    pub fn memory(&self) -> &Memory {
        &self.memory[usize::from(self.checkpointing)]
    }

    /// Refuses what a device of so many bytes cannot hold, with what would help.
    ///
    /// # Errors
    /// The numbers, and for each way out what it would save.
    pub fn fit_device(&self, device: u64, stage: &Stage) -> Result<()> {
        let (needed, mut ways) = (self.memory().device(), Vec::new());
        if !self.checkpointing {
            let saved = self.memory[0].device().saturating_sub(self.memory[1].device());
            ways.push(format!("checkpointing = true saves {}", Gib(saved)));
        }
        if self.width > 2 {
            ways.push(format!("precision = \"bf16\" leaves about {}", Gib(needed / 2)));
        }
        if stage.micro_batch > 1 {
            let batch = needed - self.memory().parameters;
            ways.push(format!("micro_batch = 1 saves {}", Gib(batch - batch / stage.micro_batch)));
        }
        self.refuse(needed, device, "the device of each rank", &ways)
    }

    /// The same for the memory of the host, which has the gradients and the optimizer's state, shared out over `ranks`, and on rank 0 what is copied for a
    /// checkpoint.
    ///
    /// # Errors
    /// As [`Plan::fit_device`].
    pub fn fit_host(&self, host: u64, stage: &Stage, ranks: usize) -> Result<()> {
        let (Memory { moments, masters, .. }, mut ways) = (*self.memory(), Vec::new());
        if self.keeps_each && stage.accumulate > ranks {
            ways.push("rank_sums = true with one worker keeps the sum and one gradient on each rank".into());
        }
        if stage.accumulate > ranks {
            let shared = (moments + masters) * ranks / stage.accumulate;
            ways.push(format!("{} ranks leave {} of moments and masters", stage.accumulate, Gib(shared)));
        }
        if stage.kind == Kind::Tune && stage.lora.is_none() {
            ways.push("lora = { rank = 16, alpha = 32.0 } leaves almost nothing of these".into());
        }
        self.refuse(self.memory().host(), host, "the host of rank 0", &ways)
    }

    fn refuse(&self, needed: usize, has: u64, who: &str, ways: &[String]) -> Result<()> {
        let ways = if ways.is_empty() { "take a smaller network".to_owned() } else { ways.join("; ") };
        ensure!(
            needed as u64 <= has,
            "stage {} needs {} and {who} has {}; {ways}",
            self.stage,
            Gib(needed),
            Gib(has as usize)
        );
        Ok(())
    }
}

/// Bytes for people.
struct Gib(usize);

impl fmt::Display for Gib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 as f64 / f64::from(1u32 << 30) {
            gib if gib < 0.1 => write!(f, "{:.1} MiB", gib * 1024.0),
            gib => write!(f, "{gib:.1} GiB"),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [all, moving] = self.parameters.map(|n| n as f64 / 1e6);
        let Memory { parameters, gradients, checkpoint, moments, masters, .. } = *self.memory();
        let activations = |m: &Memory| Gib(m.tower + m.decoder + m.step);
        let [kept, recomputed] = self.memory.each_ref().map(activations);
        write!(
            f,
            "{}: {all:.1} M weights, {moving:.1} M move; on each rank, where it computes: ",
            self.stage
        )?;
        write!(f, "weights {}, ", Gib(parameters))?;
        match self.checkpointing {
            true => write!(f, "activations {recomputed} with checkpointing ({kept} without)")?,
            false => write!(f, "activations {kept} ({recomputed} with checkpointing)")?,
        }
        write!(f, "; in the host's memory: moments {}", Gib(moments))?;
        if masters > 0 {
            write!(f, ", f32 masters {}", Gib(masters))?;
        }
        write!(f, ", gradients {}, in their place on rank 0 ", Gib(gradients))?;
        write!(f, "{} of copies while a checkpoint is written", Gib(checkpoint))
    }
}

/// The shape of the network that a recipe trains.
fn shape(recipe: &Recipe) -> Result<Config> {
    if let Some(from) = &recipe.from {
        return Config::load(from)
            .with_context(|| format!("in the model that the recipe begins from, {}", from.display()));
    }
    if let Some((language, vision)) = recipe.language_model.as_ref().zip(recipe.vision_tower.as_ref()) {
        return assemble::config(language, vision, [0, 1]);
    }
    let s = recipe.sizes.as_ref().context("the recipe does not say where the network begins")?;
    let ([hidden, intermediate, layers, heads, kv_heads], v) = (s.decoder, s.vision);
    let vision = VisionConfig {
        hidden: v[0],
        intermediate: v[1],
        layers: v[2],
        heads: v[3],
        image_size: s.image_size,
        patch: s.patch,
        layer_norm_eps: 1e-6,
    };
    let text = TextConfig {
        hidden,
        intermediate,
        layers,
        heads,
        kv_heads,
        head_dim: hidden / heads,
        vocab: s.vocab,
        rope_theta: s.rope_theta,
        rms_norm_eps: 1e-6,
        max_positions: s.max_positions,
        tied: true,
    };
    Ok(Config { vision, text, feature_layers: vec![v[2]], image_token: 0, video_token: 1 })
}

/// Numbers in the adapters of a stage.
fn adapters(config: &Config, stage: &Stage) -> usize {
    let Some(lora) = &stage.lora else { return 0 };
    let hit = table(config).into_iter().filter(|(name, ..)| lora.hits(name));
    hit.map(|(_, shape, _)| lora.rank * shape.iter().sum::<usize>()).sum()
}

/// Rows of the tower and of the decoder for the sample with the most media.
fn rows(config: &Config, stage: &Stage) -> [usize; 2] {
    let cells = config.vision.grid().pow(2);
    let clip = |frames: usize| [frames * cells, frames * config.tokens_per_frame() + 1];
    let Some(data) = &stage.data else {
        let most = stage.frames.iter().map(|(frames, _)| *frames).max().unwrap_or(1);
        let [tower, visual] = clip(most);
        return [tower, visual + TEXT_ROWS];
    };
    let [tower, visual] = match data.template {
        super::data::Template::Plain => [cells, cells],
        super::data::Template::Chat => clip(data.max_frames),
    };
    let (mut tower, mut visual) = (tower, visual);
    if data.image == super::data::ImageMode::AnyresMax9 {
        let side = MOST_SIDE * config.vision.image_size;
        let largest = Picture::AnyRes { height: side, width: side };
        tower = tower.max(largest.tiles(config) * cells);
        visual = visual.max(largest.tokens(config));
    }
    let most = data.max_tokens.unwrap_or(usize::MAX).min(config.text.max_positions);
    [tower, (visual + TEXT_ROWS).min(most)]
}

/// The plan of each stage, for a rank of `workers` threads.
///
/// # Errors
/// Configurations that cannot be read.
pub fn plan(recipe: &Recipe, ranks: usize, workers: usize) -> Result<Vec<Plan>> {
    let (config, ranks) = (shape(recipe)?, ranks.max(1));
    let width = recipe.precision.dtype().size_in_bytes();
    let one = |stage: &Stage| {
        let own = stage.accumulate.div_ceil(ranks);
        let workers = workers.clamp(1, own);
        let [patches, rows] = rows(&config, stage).map(|n| n * stage.micro_batch);
        let work = Work { patches, rows, pairs: 0, targets: TEXT_ROWS * stage.micro_batch };
        let moves = stage.kind == Kind::Tune && stage.lora.is_none();
        let of = |checkpointing| Setting {
            tower: moves,
            decoder: moves,
            adapters: adapters(&config, stage),
            width,
            checkpointing,
            workers,
            ranks,
        };
        let moving = memory::moving(&config, &of(false));
        let keeps_each = workers > 1 || (ranks > 1 && !recipe.rank_sums);
        let bytes = |checkpointing| {
            let found = memory::memory(&config, &of(checkpointing), &work);
            // Gradients are added in the order of the micro-batches. One worker adds each to the sum when it is made; of several the others may have made all of
            // theirs before the one that is waited for, and of several ranks each keeps its own until it is their turn, or adds them up itself.
            let held = if keeps_each { own } else { own.min(2) };
            Memory { gradients: 4 * moving * held, ..found }
        };
        Plan {
            stage: stage.name.clone(),
            parameters: [memory::count(&config, |_| true), moving],
            memory: [bytes(false), bytes(true)],
            checkpointing: recipe.checkpointing,
            width,
            keeps_each,
        }
    };
    Ok(recipe.stages.iter().map(one).collect())
}

/// Runs `utr-train plan`.
///
/// # Errors
/// A recipe or configuration that cannot be read; a stage that the device cannot hold.
pub fn run(args: &PlanArgs) -> Result<()> {
    let recipe = Recipe::load(&args.recipe)?;
    let plans = plan(&recipe, args.ranks, args.workers)?;
    plans.iter().for_each(|plan| println!("{plan}"));
    for (plan, stage) in plans.iter().zip(&recipe.stages) {
        args.device_memory.map_or(Ok(()), |device| plan.fit_device(device, stage))?;
        args.host_memory.map_or(Ok(()), |host| plan.fit_host(host, stage, args.ranks))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::recipe::Precision;
    use std::path::Path;

    /// The published shapes of both parts.
    fn parts(folder: &Path) -> Recipe {
        let qwen = serde_json::json!({"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
            "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064, "rope_theta": 1e6, "max_position_embeddings": 32768,
            "tie_word_embeddings": false});
        let siglip = serde_json::json!({"model_type": "siglip", "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 1152,
            "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16, "image_size": 384, "patch_size": 14}});
        for (name, value) in [("qwen", qwen), ("siglip", siglip)] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
            std::fs::write(folder.join(name).join("config.json"), value.to_string()).unwrap();
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/video-utr-7b.toml");
        let mut recipe = Recipe::load(Path::new(path)).unwrap();
        (recipe.language_model, recipe.vision_tower) =
            (Some(folder.join("qwen")), Some(folder.join("siglip")));
        recipe
    }

    #[test]
    fn the_papers_recipe_is_planned_from_configurations_alone_and_refused_with_ways_out() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = parts(folder.path());
        let plans = |recipe: &Recipe| plan(recipe, 64, 1).unwrap();
        let mut wide = recipe.clone();
        (wide.precision, wide.checkpointing, wide.rank_sums) = (Precision::F32, false, false);
        let (narrow, wide) = (plans(&recipe), plans(&wide));
        let [align, tune] = &wide[..] else { panic!("two stages") };
        // Qwen2-7B has 7.62 billion weights, the tower 0.41, the projector 3584 * (1152 + 3584 + 2).
        assert!((8.0e9..8.1e9).contains(&(tune.parameters[0] as f64)), "{tune}");
        assert_eq!(align.parameters[1], 3584 * (1152 + 3584 + 2));
        let Memory { gradients, moments, .. } = *tune.memory();
        assert_eq!((moments, gradients), (tune.parameters[1] * 8 / 64, tune.parameters[1] * 4 * 8));
        assert!(tune.memory[1].decoder * 4 < tune.memory[0].decoder);
        // Eight micro-batches a rank hold more than a checkpoint's copies do; a single one holds less.
        assert_eq!(tune.memory().checkpoint, tune.parameters[1] * 12);
        assert_eq!(tune.memory().host(), gradients + moments);
        let alone = &plan(&recipe, 512, 1).unwrap()[1];
        let Memory { gradients, checkpoint, moments, masters, .. } = *alone.memory();
        assert!(gradients < checkpoint && alone.memory().host() == checkpoint + moments + masters);
        let exact = alone.memory().host() as u64;
        assert!(alone.fit_host(exact, &recipe.stages[1], 512).is_ok());
        assert!(alone.fit_host(exact - 1, &recipe.stages[1], 512).is_err());
        assert!(alone.to_string().contains("while a checkpoint is written"), "{alone}");
        let stage = &recipe.stages[1];
        let refusals = [
            tune.fit_device(80 << 30, stage).unwrap_err().to_string(),
            tune.fit_host(80 << 30, stage, 64).unwrap_err().to_string(),
        ];
        for words in ["80.0 GiB", "checkpointing = true saves", "bf16", "512 ranks", "rank_sums", "lora"] {
            assert!(refusals.iter().any(|refusal| refusal.contains(words)), "{refusals:?}");
        }
        assert!(tune.fit_device(tune.memory().device() as u64, stage).is_ok());
        // The recipe as it is: half the width, masters, and of the gradients the sum and the one that is made.
        let found = narrow[1].memory();
        assert!(narrow[1].checkpointing && found.parameters * 2 == tune.memory().parameters);
        assert_eq!(found.gradients, tune.parameters[1] * 4 * 2);
        assert!(found.masters > 0 && found.device() * 2 < tune.memory().device());
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(bytes("80GiB"), Ok(80 << 30));
        assert_eq!(bytes("1.5MiB"), Ok(3 << 19));
        assert!(bytes("80GB").is_err() && bytes("-1").is_err());
    }
}
