//! Tokens per second of training the decoder on one device: forward, backward and an AdamW step with f32 master weights.
//!
//! Comes in: sizes (Qwen2's 0.5B by default), a device, a type. Goes out: one JSON line. Weights are random and data is noise: speed depends on
//! neither. `train/peer.py` does the same with PyTorch and transformers.

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor, Var};
use std::collections::BTreeMap;
use std::time::Instant;
use utr_models::config::{TextConfig, VisionConfig};
use utr_models::network::{Example, Span};
use utr_models::ops::AdamWStep;
use utr_models::weights::{Init, Weights, table};
use utr_models::{Config, DeviceChoice, Network};

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let get = |name: &str, default: &str| {
        let given = words.iter().position(|w| w == name).and_then(|i| words.get(i + 1));
        given.cloned().unwrap_or_else(|| default.to_string())
    };
    let number = |name, default| get(name, default).parse::<usize>().with_context(|| name.to_string());
    let (device, _) = get("--device", "auto").parse::<DeviceChoice>().map_err(anyhow::Error::msg)?.open(0)?;
    let dtype = match get("--dtype", "bf16").as_str() {
        "f32" => DType::F32,
        "bf16" => DType::BF16,
        other => anyhow::bail!("--dtype {other}: f32 or bf16"),
    };
    let (hidden, heads) = (number("--hidden", "896")?, number("--heads", "14")?);
    let text = TextConfig {
        hidden,
        intermediate: number("--intermediate", "4864")?,
        layers: number("--layers", "24")?,
        heads,
        kv_heads: number("--kv-heads", "2")?,
        head_dim: hidden / heads,
        vocab: number("--vocab", "151936")?,
        rope_theta: 1e6,
        rms_norm_eps: 1e-6,
        max_positions: 32768,
        tied: true,
    };
    let (batch, rows) = (number("--batch", "4")?, number("--rows", "2048")?);
    let steps = number("--steps", "10")?;
    let seconds = run(text, [batch, rows, steps], dtype, &device)?;
    println!(
        "{}",
        serde_json::json!({
            "program": "utr", "device": format!("{:?}", device.location()), "dtype": format!("{dtype:?}"),
            "batch": batch, "rows": rows, "seconds_per_step": seconds, "tokens_per_s": (batch * rows) as f64 / seconds,
        })
    );
    Ok(())
}

/// Variables by name, each with its f32 master or moments beside it.
type Moving = BTreeMap<String, (Var, Tensor)>;

/// Variables of the decoder with their optimizer's state; the tower, which the data does not reach, is as small as can be.
fn variables(config: &Config, dtype: DType, device: &Device) -> Result<(Weights, Moving)> {
    let (mut weights, mut trained) = (Weights::new(), BTreeMap::new());
    for (name, shape, init) in table(config) {
        let wide = match init {
            Init::One => Tensor::ones(shape, DType::F32, device)?,
            Init::Zero => Tensor::zeros(shape, DType::F32, device)?,
            Init::Normal(deviation) => Tensor::randn(0.0, deviation, shape, device)?,
        };
        let var = Var::from_tensor(&wide.to_dtype(dtype)?)?;
        weights.insert(name.clone(), var.as_tensor().clone());
        if name.starts_with("language_model") {
            let n = wide.elem_count();
            let moments = Tensor::zeros((2, n), DType::F32, device)?;
            trained.insert(name, (var, Tensor::cat(&[wide.reshape((1, n))?, moments], 0)?));
        }
    }
    Ok((weights, trained))
}

/// Seconds of one step, after two that load libraries and kernels.
fn run(text: TextConfig, [batch, rows, steps]: [usize; 3], dtype: DType, device: &Device) -> Result<f64> {
    let vocab = text.vocab as u32;
    let vision = VisionConfig {
        hidden: 8,
        intermediate: 8,
        layers: 1,
        heads: 1,
        image_size: 16,
        patch: 8,
        layer_norm_eps: 1e-6,
    };
    let config =
        Config { vision, text, feature_layers: vec![1], image_token: vocab - 2, video_token: vocab - 1 };
    let (weights, trained) = variables(&config, dtype, device)?;
    let network = Network::new(config, &weights)?;
    let example = |n: usize| {
        let mut trunk = Span::default();
        let ids: Vec<u32> = (0..rows).map(|i| ((i * 7919 + n * 104_729) as u32) % (vocab - 2)).collect();
        trunk.push(&ids, 1.0);
        Example { trunk, ..Example::default() }
    };
    let examples: Vec<Example> = (0..batch).map(example).collect();
    let step = AdamWStep {
        scale: 1.0 / (batch * rows) as f32,
        lr: 1e-5,
        decay: 0.0,
        betas: [0.9, 0.999],
        unbias: [1.0, 1.0],
    };
    let mut begun = Instant::now();
    for n in 0..steps + 2 {
        if n == 2 {
            device.synchronize()?;
            begun = Instant::now();
        }
        let (loss, _) = network.loss(&examples)?;
        let grads = loss.backward()?;
        for (name, (var, state)) in &trained {
            let grad = grads.get(var).with_context(|| format!("{name} got no gradient"))?;
            step.apply(state, &grad.flatten_all()?)?;
            var.set(&state.get(0)?.reshape(var.shape())?.to_dtype(dtype)?)?;
        }
        let loss = loss.to_scalar::<f32>()? / (batch * rows) as f32;
        anyhow::ensure!(loss.is_finite(), "the loss is {loss}");
    }
    device.synchronize()?;
    Ok(begun.elapsed().as_secs_f64() / steps as f64)
}
