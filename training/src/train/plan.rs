//! The memory plan of a recipe: what each stage takes on a rank, from configurations alone.
//!
//! Comes in: a recipe, the number of ranks and of workers, and how numbers are held. Goes out: bytes of weights, gradients, moments and activations, and, where a
//! device cannot hold them, a refusal with what would help. No weights are loaded. Activations are counted for a sample with the most media and
//! [`TEXT_ROWS`] rows of text; scores of attention are not, since they are not kept.

use super::recipe::{Kind, Recipe, Stage};
use super::{assemble, lora::Lora};
use anyhow::{Context, Result, bail};
use std::fmt;
use std::path::PathBuf;
use utr_models::Config;
use utr_models::anyres::MOST_SIDE;
use utr_models::config::{TextConfig, VisionConfig};
use utr_models::network::Picture;
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
    /// Ranks that share an update
    #[arg(long, default_value_t = 1)]
    pub ranks: usize,
    /// Threads of a rank; each holds a micro-batch of its own
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

/// How numbers are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Bytes of a weight and of an activation: 4 (f32) or 2 (bf16, with f32 masters of what moves).
    pub width: u64,
    /// Blocks keep their input alone and compute the rest again.
    pub checkpointing: bool,
}

impl Holding {
    /// As a recipe says.
    pub fn of(recipe: &Recipe) -> Self {
        let width = recipe.precision.dtype().size_in_bytes() as u64;
        Self { width, checkpointing: recipe.checkpointing }
    }
}

/// Bytes of one stage on one rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The stage.
    pub stage: String,
    /// Weights in all, and those that move.
    pub parameters: [u64; 2],
    /// Bytes of all weights, with the sums of adapters.
    pub weights: u64,
    /// Bytes of the f32 masters of what moves, where weights are narrower.
    pub masters: u64,
    /// Bytes of gradients: one process adds them up as they come; of several, each keeps those of all its micro-batches until they are added in order.
    pub gradients: u64,
    /// Bytes of this rank's share of both moments.
    pub moments: u64,
    /// Bytes of activations, without and with checkpointing.
    pub activations: [u64; 2],
    /// Whether the stage checkpoints.
    pub checkpointing: bool,
}

impl Plan {
    /// Bytes in all.
    pub fn total(&self) -> u64 {
        let activations = self.activations[usize::from(self.checkpointing)];
        self.weights + self.masters + self.gradients + self.moments + activations
    }

    /// Refuses what a device of so many bytes cannot hold, with what would help.
    ///
    /// # Errors
    /// The numbers, and for each way out what it would save.
    pub fn fit(&self, device: u64, stage: &Stage, ranks: usize) -> Result<()> {
        let total = self.total();
        if total <= device {
            return Ok(());
        }
        let mut ways = Vec::new();
        if !self.checkpointing {
            let saved = self.activations[0].saturating_sub(self.activations[1]);
            ways.push(format!("checkpointing saves {}", Gib(saved)));
        }
        if stage.micro_batch > 1 {
            let one = self.activations[usize::from(self.checkpointing)] / stage.micro_batch as u64;
            ways.push(format!("micro_batch = 1 leaves {} of activations", Gib(one)));
        }
        if stage.accumulate > ranks {
            let own = stage.accumulate.div_ceil(ranks);
            ways.push(format!(
                "{} ranks in place of {ranks} leave {} of moments and {} of gradients",
                stage.accumulate,
                Gib(self.moments * ranks as u64 / stage.accumulate as u64),
                Gib(self.gradients / own as u64)
            ));
        }
        if stage.kind == Kind::Tune && stage.lora.is_none() {
            ways.push(format!(
                "lora = {{ rank = 16, alpha = 32.0 }} leaves almost nothing of the {} of gradients and moments",
                Gib(self.gradients + self.moments)
            ));
        }
        bail!(
            "stage {} needs {} on each rank and the device has {}; {}",
            self.stage,
            Gib(total),
            Gib(device),
            if ways.is_empty() { "take a smaller network".to_owned() } else { ways.join("; ") }
        )
    }
}

/// Bytes for people.
struct Gib(u64);

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
        let [kept, recomputed] = self.activations.map(Gib);
        write!(
            f,
            "{}: {all:.1} M weights, {moving:.1} M move; on each rank {}: weights {}",
            self.stage,
            Gib(self.total()),
            Gib(self.weights)
        )?;
        if self.masters > 0 {
            write!(f, ", f32 masters {}", Gib(self.masters))?;
        }
        write!(f, ", gradients {}, moments {}", Gib(self.gradients), Gib(self.moments))?;
        match self.checkpointing {
            true => write!(f, ", activations {recomputed} with checkpointing ({kept} without)"),
            false => write!(f, ", activations {kept} ({recomputed} with checkpointing)"),
        }
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

/// Weights in all, those that move, and those that adapters sit on.
fn parameters(config: &Config, stage: &Stage) -> [u64; 3] {
    let (mut all, mut moving, mut adapted) = (0, 0, 0);
    for (name, shape, _) in table(config) {
        let count = shape.iter().product::<usize>() as u64;
        all += count;
        let projector = name.starts_with("multi_modal_projector");
        let hit = |lora: &Lora| lora.hits(&name);
        let moves = match (stage.kind, &stage.lora) {
            (Kind::Align, _) => projector,
            (Kind::Tune, Some(_)) => projector || name == "image_newline",
            (Kind::Tune, None) => !name.contains("post_layernorm"),
        };
        moving += if moves { count } else { 0 };
        if let Some(lora) = stage.lora.as_ref().filter(|lora| hit(lora)) {
            adapted += count;
            moving += (lora.rank * shape.iter().sum::<usize>()) as u64;
        }
    }
    [all, moving, adapted]
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

/// Numbers that are kept for the way back, without and with checkpointing.
fn activations(config: &Config, stage: &Stage) -> [u64; 2] {
    let (v, t) = (&config.vision, &config.text);
    let [tower, decoder] = rows(config, stage).map(|n| n as u64);
    // Of a block: its input, what its norms, maps, nonlinearity and residual sums give.
    let tower_block = (11 * v.hidden + 2 * v.intermediate) as u64;
    let attention = 3 * t.heads * t.head_dim + 3 * t.kv_heads * t.head_dim;
    let block = (6 * t.hidden + attention + 4 * t.intermediate) as u64;
    let frozen = stage.kind == Kind::Align || stage.lora.is_some();
    let (tower_layers, layers) = (v.layers as u64, t.layers as u64);
    let projector = tower * (config.feature_channels() + 3 * t.hidden) as u64;
    let head = 2 * TEXT_ROWS as u64 * t.vocab as u64;
    let own = decoder * 2 * t.hidden as u64 + projector + head;
    // A frozen tower keeps nothing, but for the block that it is at.
    let kept = if frozen { tower_block } else { tower_block * tower_layers };
    let inputs = if frozen { tower_block } else { tower_block + v.hidden as u64 * tower_layers };
    [
        own + tower * kept + decoder * block * layers,
        own + tower * inputs + decoder * (block + t.hidden as u64 * layers),
    ]
}

/// The plan of each stage.
///
/// # Errors
/// Configurations that cannot be read.
pub fn plan(recipe: &Recipe, ranks: usize, workers: usize, holding: Holding) -> Result<Vec<Plan>> {
    let (config, ranks) = (shape(recipe)?, ranks.max(1));
    let one = |stage: &Stage| {
        let [all, moving, adapted] = parameters(&config, stage);
        let own = stage.accumulate.div_ceil(ranks) as u64;
        let at_once = own.min(workers.max(1) as u64);
        let each = at_once * stage.micro_batch as u64 * holding.width;
        Plan {
            stage: stage.name.clone(),
            parameters: [all, moving],
            weights: (all + adapted) * holding.width,
            masters: if holding.width < 4 { 4 * moving } else { 0 },
            gradients: 4 * moving * if ranks == 1 { own.min(at_once + 1) } else { own },
            moments: (8 * moving).div_ceil(ranks as u64),
            activations: activations(&config, stage).map(|numbers| numbers * each),
            checkpointing: holding.checkpointing,
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
    let plans = plan(&recipe, args.ranks, args.workers, Holding::of(&recipe))?;
    plans.iter().for_each(|plan| println!("{plan}"));
    match args.device_memory {
        Some(device) => {
            plans.iter().zip(&recipe.stages).try_for_each(|(p, stage)| p.fit(device, stage, args.ranks))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let [align, tune] = &plan(&recipe, 64, 1, Holding { width: 4, checkpointing: false }).unwrap()[..]
        else {
            panic!("two stages")
        };
        // Qwen2-7B has 7.62 billion weights, the tower 0.41, the projector 3584 * (1152 + 3584 + 2).
        assert!((8.0e9..8.1e9).contains(&(tune.parameters[0] as f64)), "{tune}");
        assert_eq!(align.parameters[1], 3584 * (1152 + 3584 + 2));
        assert_eq!(tune.moments, (tune.parameters[1] * 8).div_ceil(64));
        assert_eq!(tune.gradients, tune.parameters[1] * 4 * 8);
        assert!(tune.activations[1] * 4 < tune.activations[0]);
        let stage = &recipe.stages[1];
        let refusal = tune.fit(80 << 30, stage, 64).unwrap_err().to_string();
        for words in ["80.0 GiB", "checkpointing saves", "512 ranks", "lora"] {
            assert!(refusal.contains(words), "{refusal}");
        }
        assert!(tune.fit(tune.total(), stage, 64).is_ok());
        let narrow = plan(&recipe, 64, 1, Holding { width: 2, checkpointing: true }).unwrap();
        assert_eq!((narrow[1].weights * 2, narrow[1].masters), (tune.weights, tune.parameters[1] * 4));
        assert!(narrow[1].total() < tune.total());
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(bytes("80GiB"), Ok(80 << 30));
        assert_eq!(bytes("1.5MiB"), Ok(3 << 19));
        assert!(bytes("80GB").is_err() && bytes("-1").is_err());
    }
}
