//! Tokens per second of an update of the decoder as `utr-train tune` makes it, of one micro-batch: its gradient on a device, and AdamW with f32 masters on
//! the host's threads.
//!
//! Comes in: sizes (Qwen2's 0.5B by default), a device, a type. Goes out: one JSON line, with the optimizer's part of the time. Weights are random and data is
//! noise: speed depends on neither. `train/peer.py` does the same with PyTorch and transformers, its optimizer on the device.

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use std::time::Instant;
use utr_models::backward::Pass;
use utr_models::config::{TextConfig, VisionConfig};
use utr_models::network::{Example, Span};
use utr_models::weights::{Init, Weights, table};
use utr_models::{Config, DeviceChoice};
use utr_training::train::guard;
use utr_training::train::optimizer::{AdamW, squares};
use utr_training::train::recipe::Stage;
use utr_training::train::stage::{network, variables};

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
    let [seconds, optimizer] = run(text, [batch, rows, steps], dtype, &device)?;
    println!(
        "{}",
        serde_json::json!({
            "program": "utr", "device": format!("{:?}", device.location()), "dtype": format!("{dtype:?}"),
            "batch": batch, "rows": rows, "seconds_per_step": seconds, "optimizer_s": optimizer, "tokens_per_s": (batch * rows) as f64 / seconds,
        })
    );
    Ok(())
}

/// Random weights in f32, in the host's memory; the tower, which the data does not reach, is as small as can be.
fn weights(config: &Config, device: &Device) -> Result<Weights> {
    let one = |(name, shape, init): (String, Vec<usize>, Init)| -> Result<(String, Tensor)> {
        let tensor = match init {
            Init::One => Tensor::ones(shape, DType::F32, device)?,
            Init::Zero => Tensor::zeros(shape, DType::F32, device)?,
            Init::Normal(deviation) => Tensor::randn(0.0, deviation, shape, device)?,
        };
        Ok((name, tensor.to_device(&Device::Cpu)?))
    };
    table(config).into_iter().map(one).collect()
}

/// Seconds of one update, and of the optimizer in it, after two that load libraries and kernels.
fn run(
    text: TextConfig,
    [batch, rows, steps]: [usize; 3],
    dtype: DType,
    device: &Device,
) -> Result<[f64; 2]> {
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
    let stage: Stage = serde_json::from_value(serde_json::json!({
        "name": "speed", "kind": "tune", "steps": 1, "micro_batch": batch, "accumulate": 1, "schedule": {"lr": 1e-5},
    }))?;
    let masters = weights(&config, device)?;
    let (computed, vars) = variables(&masters, &stage, dtype, device)?;
    let mut optimizer = AdamW::new(vars, 0, 1).with_masters(&masters)?;
    drop(masters);
    let network = network(&config, &computed, None)?;
    let pool = |_| rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let threads = std::thread::available_parallelism()?.get();
    let pools = (0..threads).map(pool).collect::<Result<Vec<_>, _>>()?;
    let example = |n: usize| {
        let mut trunk = Span::default();
        let ids: Vec<u32> = (0..rows).map(|i| ((i * 7919 + n * 104_729) as u32) % (vocab - 2)).collect();
        trunk.push(&ids, 1.0);
        Example { trunk, ..Example::default() }
    };
    let examples: Vec<Example> = (0..batch).map(example).collect();
    let pass = Pass::default();
    let (mut begun, mut optimizing) = (Instant::now(), 0.0);
    for n in 0..steps + 2 {
        if n == 2 {
            device.synchronize()?;
            (begun, optimizing) = (Instant::now(), 0.0);
        }
        let gradient = network.gradient(&examples, optimizer.vars(), &pass)?;
        let sick = guard::sick(optimizer.names(), &gradient.grads);
        ensure!(gradient.loss.is_finite() && sick.is_none(), "the loss is {}, {sick:?}", gradient.loss);
        let mut grads = gradient.grads;
        grads.iter_mut().flatten().for_each(|g| *g /= gradient.weight as f32);
        let norm = squares(&grads).iter().sum::<f64>().sqrt();
        let stepping = Instant::now();
        optimizer.step(&grads, norm, &stage.schedule, 1.0, &pools)?;
        optimizing += stepping.elapsed().as_secs_f64();
    }
    device.synchronize()?;
    Ok([begun.elapsed().as_secs_f64(), optimizing].map(|seconds| seconds / steps as f64))
}
