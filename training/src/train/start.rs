//! Where a run begins: a network from nothing (tokenizer, config and random weights), or one that was trained before.
//!
//! Comes in: a recipe. Goes out: a Hugging Face folder that everything else loads like any other checkpoint. From nothing, the tokenizer is a byte-level
//! BPE trained on the texts of the recipe's own stages, and weights are drawn from the recipe's seed; else all comes from the folder the recipe names, or from
//! those of its parts ([`super::assemble`]).

use super::checkpoint::copy_model_files;
use super::gradient::clip_index;
use super::recipe::{Recipe, Sizes};
use crate::stats::normal;
use crate::world::conversations::world_sample;
use crate::world::{Split, clip_seed};
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::path::Path;
use utr_models::Config;
use utr_models::bpe::{save_tokenizer, train_bpe, world_added_tokens};
use utr_models::config::{TextConfig, VisionConfig};
use utr_models::preprocess::Preprocessor;
use utr_models::text::Tokenizer;
use utr_models::weights::{self, Init, Weights};

/// Samples whose texts train the tokenizer.
const CORPUS_SAMPLES: u64 = 3000;

/// Writes the starting checkpoint of a recipe into `folder`.
pub fn start(recipe: &Recipe, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    if let Some(from) = &recipe.from {
        return go_on(recipe, from, folder);
    }
    if let Some((language, vision)) = recipe.language_model.as_ref().zip(recipe.vision_tower.as_ref()) {
        return super::assemble::assemble(language, vision, recipe.seed, folder);
    }
    let sizes = recipe.sizes.as_ref().context("the recipe does not say where the network begins")?;
    let stages = recipe.stages.len() as u64;
    let corpus = (0..CORPUS_SAMPLES).flat_map(|i| {
        let stage = &recipe.stages[(i % stages) as usize];
        let Some((mix, world)) = stage.clips_of_world() else { return Vec::new() };
        let frames = stage.frames[(i / stages) as usize % stage.frames.len()].0;
        // Clips of a stage that no recipe has.
        let seed = clip_seed(Split::Train, clip_index(recipe.seed, usize::MAX, i));
        let sample = world_sample(seed, false, mix, world, frames);
        sample.turns.into_iter().flat_map(|t| [t.question, t.answer]).collect::<Vec<_>>()
    });
    save_tokenizer(folder, &train_bpe(corpus, sizes.vocab, &world_added_tokens())?)?;
    let tokenizer = Tokenizer::load(folder)?;
    let config = config(sizes, &tokenizer)?;
    let write = |name: &str, value: serde_json::Value| {
        let path = folder.join(name);
        std::fs::write(&path, format!("{value:#}\n")).with_context(|| format!("writing {}", path.display()))
    };
    write("config.json", config.to_hf())?;
    let id = |token: &str| tokenizer.token_id(token);
    write(
        "generation_config.json",
        json!({"eos_token_id": id("<|im_end|>"), "pad_token_id": id("<|endoftext|>")}),
    )?;
    write("preprocessor_config.json", preprocessing(&Preprocessor::siglip(sizes.image_size)))?;
    weights::save(folder, &draw(&config, recipe.seed)?)?;
    Ok(())
}

/// A `preprocessor_config.json`.
pub(super) fn preprocessing(with: &Preprocessor) -> serde_json::Value {
    json!({
        "image_processor_type": "LlavaOnevisionImageProcessor", "do_convert_rgb": true, "do_resize": true, "do_rescale": true,
        "do_normalize": true, "resample": 3, "rescale_factor": with.rescale, "size": {"height": with.height, "width": with.width},
        "image_mean": with.mean, "image_std": with.std,
    })
}

/// A copy of the model in `from`, which must have the recipe's sizes, where it says any.
fn go_on(recipe: &Recipe, from: &Path, folder: &Path) -> Result<()> {
    let mut found = Config::load(from)
        .with_context(|| format!("in the model that the recipe begins from, {}", from.display()))?;
    let weights = weights::load(from, &mut found, DType::F32, &Device::Cpu)?;
    let wanted = match &recipe.sizes {
        Some(sizes) => config(sizes, &Tokenizer::load(from)?)?,
        None => found.clone(),
    };
    ensure!(
        found.vision == wanted.vision && found.text == wanted.text,
        "{} has other sizes than the recipe: {:?} and {:?}, the recipe says {:?} and {:?}",
        from.display(),
        found.vision,
        found.text,
        wanted.vision,
        wanted.text
    );
    copy_model_files(from, folder)?;
    // The weights come last: a folder that has them is whole.
    Ok(weights::save(folder, &weights)?)
}

fn config(s: &Sizes, tokenizer: &Tokenizer) -> Result<Config> {
    let ([hidden, intermediate, layers, heads, kv_heads], vision) = (s.decoder, s.vision);
    let id =
        |token: &str| tokenizer.token_id(token).with_context(|| format!("the new tokenizer has no {token}"));
    Ok(Config {
        vision: VisionConfig {
            hidden: vision[0],
            intermediate: vision[1],
            layers: vision[2],
            heads: vision[3],
            image_size: s.image_size,
            patch: s.patch,
            layer_norm_eps: 1e-6,
        },
        text: TextConfig {
            hidden,
            intermediate,
            layers,
            heads,
            kv_heads,
            head_dim: hidden / heads,
            vocab: tokenizer.vocab_size(),
            rope_theta: s.rope_theta,
            rms_norm_eps: 1e-6,
            max_positions: s.max_positions,
            tied: true,
        },
        feature_layers: vec![vision[2]],
        image_token: id("<image>")?,
        video_token: id("<video>")?,
    })
}

/// Random weights; maps that write into the residual stream start smaller by the square root of their number (GPT-2).
pub fn draw(config: &Config, seed: u64) -> Result<Weights> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut weights = Weights::new();
    for (name, shape, init) in weights::table(config) {
        let count = shape.iter().product();
        let residual = |layers: usize| (2.0 * layers as f32).powf(-0.5);
        let data = match init {
            Init::One => vec![1.0; count],
            Init::Zero => vec![0.0; count],
            Init::Normal(deviation) => {
                let scale = match name.as_str() {
                    n if n.ends_with("o_proj.weight") || n.ends_with("down_proj.weight") => {
                        residual(config.text.layers)
                    }
                    n if n.ends_with("out_proj.weight") || n.ends_with("fc2.weight") => {
                        residual(config.vision.layers)
                    }
                    _ => 1.0,
                };
                (0..count).map(|_| normal(&mut rng) * deviation * scale).collect()
            }
        };
        weights.insert(name, Tensor::from_vec(data, shape, &Device::Cpu)?);
    }
    Ok(weights)
}
