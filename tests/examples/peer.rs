//! Our side of `make test-peers`: what our code computes, as files that `tests/peers/run.py` compares with other engines.
//!
//! In:  one of
//!      `resave FROM TO`               loads a Hugging Face folder and saves it as the trainer does
//!      `logits FOLDER IN OUT`         IN: `ids` (L, one video placeholder), `pixels` (F, 3, S, S); OUT: `logits` (rows, vocab)
//!      `vision BUNDLE ENGINE IN OUT`  IN: `pixels`; OUT: `tokens` (F, T, hidden), `newline` (hidden)
//!      `continue BUNDLE COUNT IDS`    greedy continuation of comma-separated text ids, as a JSON list on standard output
//! Out: safetensors, or JSON. It compares nothing.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor, safetensors};
use utr_models::config::Config;
use utr_models::generate::argmax;
use utr_models::network::{Example, Network, Span};
use utr_models::weights;
use utr_runtime::decode::{KvPrecision, Place, Span as KvSpan};
use utr_runtime::encode::EncoderKind;
use utr_runtime::load::Model;
use utr_training::train::checkpoint;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["resave", from, to] => resave(Path::new(from), Path::new(to)),
        ["logits", folder, input, output] => logits(Path::new(folder), input, output),
        ["vision", bundle, engine, input, output] => vision(Path::new(bundle), engine, input, output),
        ["continue", bundle, count, ids] => continuation(Path::new(bundle), count.parse()?, ids),
        _ => bail!("see the head of tests/examples/peer.rs for the arguments"),
    }
}

fn resave(from: &Path, to: &Path) -> Result<()> {
    let mut config = Config::load(from)?;
    let weights = weights::load(from, &mut config, DType::F32, &Device::Cpu)?;
    std::fs::create_dir_all(to)?;
    checkpoint::copy_model_files(from, to)?;
    std::fs::write(to.join("config.json"), format!("{:#}\n", config.to_hf()))?;
    Ok(weights::save(to, &weights)?)
}

fn read(path: &str, name: &str) -> Result<Tensor> {
    let mut tensors = safetensors::load(path, &Device::Cpu)?;
    tensors.remove(name).with_context(|| format!("{path} holds no {name}"))
}

fn logits(folder: &Path, input: &str, output: &str) -> Result<()> {
    let network = Network::load(folder, DType::F32, &Device::Cpu)?;
    let ids: Vec<u32> = read(input, "ids")?.to_dtype(DType::U32)?.to_vec1()?;
    let patches = network.vision.patches(&read(input, "pixels")?)?;
    let trunk = Span::context(ids);
    let example =
        Example { patches: Some(patches), pictures: Vec::new(), trunk, branches: Vec::new(), window: None };
    let logits = network.logits(&example)?;
    Ok(safetensors::save(&HashMap::from([("logits", logits)]), output)?)
}

fn vision(bundle: &Path, engine: &str, input: &str, output: &str) -> Result<()> {
    let kind = match engine {
        "tract" => EncoderKind::Tract,
        "ort" => EncoderKind::Ort,
        "candle" => EncoderKind::Candle,
        other => bail!("no engine {other}: tract, ort or candle"),
    };
    let mut encoder = Model::open(bundle, Some(kind))?.encoder;
    let pixels = read(input, "pixels")?;
    let frames = pixels.dim(0)?;
    let tokens = encoder.encode(&pixels.flatten_all()?.to_vec1::<f32>()?, frames)?;
    let shape = (frames, encoder.tokens_per_frame(), encoder.hidden());
    let newline = Tensor::new(encoder.newline(), &Device::Cpu)?;
    let tokens = Tensor::from_vec(tokens, shape, &Device::Cpu)?;
    Ok(safetensors::save(&HashMap::from([("tokens", tokens), ("newline", newline)]), output)?)
}

fn continuation(bundle: &Path, count: usize, ids: &str) -> Result<()> {
    let decoder = Arc::clone(&Model::open(bundle, None)?.language.decoder);
    let ids = ids.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>()?;
    ensure!(!ids.is_empty() && count > 0, "nothing to continue");
    let mut span = KvSpan::new(decoder.shape(), KvPrecision::F32, ids.len() + count);
    let (mut made, mut next) = (Vec::new(), ids);
    while made.len() < count {
        let rows = decoder.embed(&next)?;
        let states = decoder.read(&[], Place { own: &mut span, start: 0 }, &rows, None)?;
        let token = argmax(&decoder.logits(&states[states.len() - decoder.hidden()..])?)?;
        made.push(token);
        next = vec![token];
    }
    println!("{}", serde_json::to_string(&made)?);
    Ok(())
}
