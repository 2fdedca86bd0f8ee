//! A LLaVA-OneVision model out of its parts: a Qwen2 folder and a SigLIP folder.
//!
//! Comes in: the two Hugging Face folders. Goes out: a folder that everything else loads like any other checkpoint: the decoder with its tokenizer, to which
//! `<image>` and `<video>` are added, the tower without its last block (as LLaVA-NeXT cuts it, whatever its depth), and a projector and a newline that
//! are drawn from the seed as PyTorch and LLaVA-NeXT draw them (reference.md §1.2, §2.5). Tensors keep the number format they are stored in.

use super::checkpoint::copy_model_files;
use super::start::preprocessing;
use crate::stats::normal;
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use utr_models::Config;
use utr_models::anyres::MOST_SIDE;
use utr_models::preprocess::Preprocessor;
use utr_models::prompt::{ChatTemplate, Kind};
use utr_models::weights::{self, Found, canonical, table};

fn json_of(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("in {}", path.display()))
}

fn write(path: &Path, value: &Value) -> Result<()> {
    std::fs::write(path, format!("{value:#}\n")).with_context(|| format!("writing {}", path.display()))
}

/// The configuration of the model that the parts make; placeholders are `tokens` (image, video). Nothing but two `config.json` is read.
///
/// # Errors
/// Folders of other models, with what they are.
pub fn config(language: &Path, vision: &Path, tokens: [u32; 2]) -> Result<Config> {
    let (text_path, vision_path) = (language.join("config.json"), vision.join("config.json"));
    let (text, whole) = (json_of(&text_path)?, json_of(&vision_path)?);
    let kind =
        |value: &Value| value.get("model_type").and_then(Value::as_str).unwrap_or("nothing").to_owned();
    ensure!(
        kind(&text) == "qwen2",
        "language_model: {} is of a {} model; a qwen2 model is needed, such as Qwen2-7B-Instruct",
        text_path.display(),
        kind(&text)
    );
    let mut tower = whole.get("vision_config").unwrap_or(&whole).clone();
    ensure!(
        ["siglip", "siglip_vision_model"].contains(&kind(&whole).as_str())
            && tower.get("hidden_size").is_some(),
        "vision_tower: {} is of a {} model or does not say its sizes; a siglip model is needed, such as siglip-so400m-patch14-384",
        vision_path.display(),
        kind(&whole)
    );
    let layers = tower.get("num_hidden_layers").and_then(Value::as_u64).unwrap_or(0);
    ensure!(
        layers >= 2,
        "vision_tower: {} has {layers} blocks; the last one is dropped",
        vision_path.display()
    );
    tower["num_hidden_layers"] = json!(layers - 1);
    let model = json!({
        "model_type": "llava_onevision", "vision_config": tower, "text_config": text,
        "image_token_index": tokens[0], "video_token_index": tokens[1],
    });
    Config::from_hf(&model).map_err(|reason| {
        anyhow::anyhow!("{} and {} make no model: {reason}", text_path.display(), vision_path.display())
    })
}

/// Writes the model of two parts into `folder`.
///
/// # Errors
/// A part that is missing, of another kind, or without a tensor; a table of tokens that has no room for the placeholders.
pub fn assemble(language: &Path, vision: &Path, seed: u64, folder: &Path) -> Result<()> {
    copy_model_files(language, folder).context("language_model of the recipe")?;
    let tokens = placeholders(folder)?;
    let mut config = config(language, vision, tokens)?;
    let mut found = weights::read(language, &canonical, None, &Device::Cpu)?;
    found.extend(weights::read(vision, &|name| of_tower(name, config.vision.layers), None, &Device::Cpu)?);
    found.extend(drawn(&config, seed)?);
    let weights = weights::complete(folder, &mut config, found, DType::F32, &Device::Cpu)
        .with_context(|| format!("of {} and {}", language.display(), vision.display()))?;
    let highest = tokens.into_iter().max().unwrap_or(0) as usize;
    ensure!(
        highest < config.text.vocab,
        "the table of tokens in {} has {} rows, and `<video>` would be number {highest}: there is no room for it",
        language.display(),
        config.text.vocab
    );
    let side = config.vision.image_size;
    let mut model = config.to_hf();
    let sides = 1..=MOST_SIDE;
    let grids =
        sides.clone().flat_map(|rows| sides.clone().map(move |columns| [rows * side, columns * side]));
    model["image_grid_pinpoints"] = json!(grids.collect::<Vec<_>>());
    write(&folder.join("config.json"), &model)?;
    let with = Preprocessor::load(vision, side)?;
    write(&folder.join("preprocessor_config.json"), &preprocessing(&with))?;
    ChatTemplate::load(folder, Kind::Tokenizer)?;
    // The weights come last: a folder that has them is whole.
    Ok(weights::save(folder, &weights)?)
}

/// The name of a tower's tensor in a SigLIP file, for a tower of `layers` blocks.
fn of_tower(name: &str, layers: usize) -> Option<String> {
    let name = name.strip_prefix("vision_model.")?;
    let block =
        name.strip_prefix("encoder.layers.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    let kept =
        block.map_or(!name.starts_with("head.") && !name.ends_with("position_ids"), |block| block < layers);
    kept.then(|| format!("vision_tower.{name}"))
}

/// Adds `<image>` and `<video>` to the tokenizer of `folder`, where they are missing; their ids.
fn placeholders(folder: &Path) -> Result<[u32; 2]> {
    let (path, settings_path) = (folder.join("tokenizer.json"), folder.join("tokenizer_config.json"));
    let mut tokenizer = json_of(&path)?;
    let id = |token: &Value| token.get("id").and_then(Value::as_u64);
    let added = tokenizer.get("added_tokens").and_then(Value::as_array).cloned().unwrap_or_default();
    let known = tokenizer.pointer("/model/vocab").and_then(Value::as_object);
    let known = known.with_context(|| format!("{} has no vocabulary", path.display()))?;
    let mut next = known
        .values()
        .filter_map(Value::as_u64)
        .chain(added.iter().filter_map(id))
        .max()
        .map_or(0, |n| n + 1);
    let mut all = added;
    let mut ids = Vec::new();
    for content in ["<image>", "<video>"] {
        let there = all
            .iter()
            .find(|token| token.get("content").and_then(Value::as_str) == Some(content))
            .and_then(id);
        let number = there.unwrap_or(next);
        if there.is_none() {
            next += 1;
            all.push(json!({
                "id": number, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            }));
        }
        ids.push(u32::try_from(number).with_context(|| format!("{content} would be number {number}"))?);
    }
    tokenizer["added_tokens"] = json!(all);
    write(&path, &tokenizer)?;
    if settings_path.exists() {
        let mut settings = json_of(&settings_path)?;
        if let Some(decoder) = settings.get_mut("added_tokens_decoder").and_then(Value::as_object_mut) {
            for (number, content) in ids.iter().zip(["<image>", "<video>"]) {
                decoder.insert(
                    number.to_string(),
                    json!({
                        "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                        "special": true,
                    }),
                );
            }
            write(&settings_path, &settings)?;
        }
    }
    Ok([ids[0], ids[1]])
}

/// A new projector, uniform within one over the square root of its inputs, and a new newline, normal with one over the square root of its length.
fn drawn(config: &Config, seed: u64) -> Result<Found> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut new = Found::new();
    for (name, shape, _) in table(config) {
        let count = shape.iter().product();
        let inputs = if name.contains("linear_1") { config.feature_channels() } else { config.text.hidden };
        let bound = (inputs as f32).powf(-0.5);
        let data: Vec<f32> = match name.as_str() {
            "image_newline" => (0..count).map(|_| normal(&mut rng) * bound).collect(),
            part if part.starts_with("multi_modal_projector.") => {
                (0..count).map(|_| rng.random_range(-bound..bound)).collect()
            }
            _ => continue,
        };
        let tensor = Tensor::from_vec(data, shape, &Device::Cpu)?;
        new.insert(name.clone(), (name, PathBuf::from("the new parts"), tensor));
    }
    Ok(new)
}
