//! One update of a network of any shape with random weights: how long it takes and what it holds.
//!
//! Comes in: sizes, what moves, precision, checkpointing. Goes out: one JSON line with the loss before and after the update, seconds of gradient and optimizer, the process's
//! largest resident memory, and what `train::memory` foretells; an error where a loss or the gradient is no number, or not that of the CPU where this is asked for.
//! The frames and the text are made up; nothing is read and nothing is saved.
//!
//! `cargo run --release --workspace --example step -- --checkpointing` is a step that any machine can take; the true shape is
//! in `benches/train/largest` (not run: it takes a large GPU and 128 GB of memory beside it, and some more while it begins).

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use clap::Parser;
use utr_models::DeviceChoice;
use utr_models::backward::Pass;
use utr_models::config::{Config, TextConfig, VisionConfig};
use utr_models::network::{Example, Span};
use utr_models::weights::Weights;
use utr_training::train::lora::Adapters;
use utr_training::train::memory::{Setting, memory};
use utr_training::train::optimizer::{AdamW, squares};
use utr_training::train::recipe::{Kind, Stage};
use utr_training::train::stage::{network, variables};
use utr_training::train::start::draw;

/// One update of a network of any shape with random weights
#[derive(Parser)]
struct Args {
    /// Tower: channels, MLP channels, blocks, heads
    #[arg(long, value_delimiter = ',', default_value = "384,1536,1,6")]
    vision: Vec<usize>,
    /// Decoder: channels, MLP channels, blocks, heads, key heads
    #[arg(long, value_delimiter = ',', default_value = "896,4864,2,14,2")]
    decoder: Vec<usize>,
    /// Pixels per side
    #[arg(long, default_value_t = 224)]
    image_size: usize,
    /// Pixels per side of a patch
    #[arg(long, default_value_t = 14)]
    patch: usize,
    /// Entries of the vocabulary
    #[arg(long, default_value_t = 8192)]
    vocab: usize,
    /// The head is the table of embeddings
    #[arg(long)]
    tied: bool,
    /// Frames of the clip
    #[arg(long, default_value_t = 8)]
    frames: usize,
    /// Tokens of text, a third of which are targets
    #[arg(long, default_value_t = 300)]
    text: usize,
    /// Where it runs: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    /// f32 or bf16
    #[arg(long, default_value = "f32")]
    precision: String,
    /// Blocks are computed again on the way back
    #[arg(long)]
    checkpointing: bool,
    /// Rank of adapters on all matrices of the decoder, which then stays as it is, with the tower
    #[arg(long)]
    lora: Option<usize>,
    /// Adapters are put into their matrices before the step, so that gradients of these are formed; for comparison
    #[arg(long, requires = "lora")]
    merged: bool,
    /// Only the projector moves
    #[arg(long, conflicts_with = "lora")]
    align: bool,
    /// Threads of the products
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Gradients to take the time of, the fastest of which counts
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// Takes the same step on the CPU first, and fails where loss or gradient differ; what is said of memory is then of both
    #[arg(long)]
    against_cpu: bool,
}

/// How far loss and norm of the gradient on a device may lie from those on the CPU, as a share.
fn tolerance(dtype: DType) -> f64 {
    if dtype == DType::F32 { 1e-3 } else { 5e-2 }
}

fn config(args: &Args) -> Result<Config> {
    let [channels, mlp, layers, heads] = args.vision[..] else {
        anyhow::bail!("--vision takes four numbers")
    };
    let [hidden, intermediate, blocks, q_heads, kv_heads] = args.decoder[..] else {
        anyhow::bail!("--decoder takes five numbers")
    };
    ensure!(
        channels % heads == 0 && hidden % q_heads == 0 && q_heads % kv_heads == 0,
        "heads do not divide channels"
    );
    Ok(Config {
        vision: VisionConfig {
            hidden: channels,
            intermediate: mlp,
            layers,
            heads,
            image_size: args.image_size,
            patch: args.patch,
            layer_norm_eps: 1e-6,
        },
        text: TextConfig {
            hidden,
            intermediate,
            layers: blocks,
            heads: q_heads,
            kv_heads,
            head_dim: hidden / q_heads,
            vocab: args.vocab,
            rope_theta: 1e6,
            rms_norm_eps: 1e-6,
            max_positions: 32_768,
            tied: args.tied,
        },
        feature_layers: vec![layers],
        image_token: args.vocab as u32 - 2,
        video_token: args.vocab as u32 - 1,
    })
}

/// The part of a recipe that says what moves.
fn stage(args: &Args) -> Result<Stage> {
    let lora = args.lora.map(|rank| format!("lora = {{ rank = {rank}, alpha = {rank}.0 }}"));
    let kind = if args.align { "align" } else { "tune" };
    Ok(toml::from_str(&format!(
        r#"
name = "step"
kind = "{kind}"
steps = 1
micro_batch = 1
accumulate = 1
frames = [[1, 1.0]]
schedule = {{ lr = 1e-4 }}
{}
mix = {{ skill_turns = 1 }}
world = {{ min_objects = 1, max_objects = 1, max_occluders = 0, camera = false, textures = false, backdrops = false, large_only = true, held_out = "never" }}
"#,
        lora.unwrap_or_default()
    ))?)
}

fn example(config: &Config, args: &Args) -> Result<Example> {
    let (rows, width) = (args.frames * config.vision.grid().pow(2), 3 * args.patch * args.patch);
    let patches: Vec<f32> = (0..rows * width).map(|i| (i * 31 % 101) as f32 / 50.0 - 1.0).collect();
    let ids = |from: usize, n: usize| (from..from + n).map(|i| (i * 17 % 200) as u32).collect::<Vec<_>>();
    let mut trunk = Span::context(ids(0, args.text / 3));
    trunk.push(&[config.video_token], 0.0);
    let mut branch = Span::context(ids(7, args.text / 3));
    branch.push(&ids(11, args.text / 3), 1.0);
    let patches = Some(Tensor::from_vec(patches, (rows, width), &Device::Cpu)?);
    Ok(Example { patches, trunk, branches: vec![branch], ..Example::default() })
}

/// The largest resident memory of this process so far, in bytes.
fn resident() -> Result<usize> {
    let peak = utr_runtime::budget::used().into_iter().find(|(what, _)| *what == "peak");
    peak.map(|(_, bytes)| bytes as usize).context("this system does not say how much memory a process took")
}

fn main() -> Result<()> {
    // Products run in the pool of `--threads`; candle's own threads would spin beside it.
    for variable in ["CANDLE_NUM_THREADS", "RAYON_NUM_THREADS"] {
        // SAFETY: nothing else runs yet that could read the environment.
        unsafe { std::env::set_var(variable, "1") };
    }
    let args = Args::parse();
    let dtype = match args.precision.as_str() {
        "f32" => DType::F32,
        "bf16" => DType::BF16,
        other => anyhow::bail!("--precision is f32 or bf16, not {other}"),
    };
    let (device, _) = args.device.open(0)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(args.threads).build()?;
    pool.install(|| -> Result<()> {
        let cpu = args.against_cpu.then(|| step(&args, dtype, &Device::Cpu)).transpose()?;
        let (mut line, there) = step(&args, dtype, &device)?;
        let Some((_, here)) = cpu else {
            println!("{line}");
            return Ok(());
        };
        line["on_cpu"] = serde_json::json!({"loss_before": here[0], "gradient_norm": here[1]});
        println!("{line}");
        let close = |(here, there): (&f64, &f64)| (here - there).abs() <= tolerance(dtype) * here.abs();
        ensure!(
            here.iter().zip(&there).all(close),
            "loss and norm of the gradient are {there:?}, on the CPU {here:?}: more than {} of them apart",
            tolerance(dtype)
        );
        Ok(())
    })
}

/// What is said of a step, and its loss and the norm of its gradient.
fn step(args: &Args, dtype: DType, device: &Device) -> Result<(serde_json::Value, [f64; 2])> {
    let (config, stage) = (config(args)?, stage(args)?);
    let mut masters = draw(&config, 1)?;
    let (mut computed, mut vars) = variables(&masters, &stage, dtype, device)?;
    let wide = stage.lora.as_ref().map(|lora| Adapters::new(lora, &masters, 1)).transpose()?;
    masters.extend(wide.iter().flat_map(Adapters::variables).map(|(name, var)| (name, var.into_inner())));
    let mut adapters = wide.map(|adapters| adapters.cast(dtype, device)).transpose()?;
    vars.extend(adapters.iter().flat_map(Adapters::variables));
    let adapted = adapters.iter().flat_map(Adapters::variables).map(|(_, var)| var.elem_count()).sum();
    let mut optimizer = AdamW::new(vars, 0, 1).with_masters(&masters)?;
    drop::<Weights>(masters);
    if args.merged {
        computed = adapters.take().context("no adapters")?.merge(&computed)?;
    }
    let built = network(&config, &computed, adapters.as_ref())?;
    let examples = [example(&config, args)?];
    let work = built.work(&examples)?;
    let before = resident()?;

    let pass = Pass { checkpointing: args.checkpointing, features: None };
    let mut gradient = None;
    let mut seconds = f64::INFINITY;
    for _ in 0..args.repeat.max(1) {
        drop(gradient.take());
        let begun = Instant::now();
        gradient = Some(built.gradient(&examples, optimizer.vars(), &pass)?);
        seconds = seconds.min(begun.elapsed().as_secs_f64());
    }
    let gradient = gradient.context("no gradient")?;
    let peak = resident()?;
    let grads: Vec<Vec<f32>> =
        gradient.grads.into_iter().map(|g| g.iter().map(|g| g / gradient.weight as f32).collect()).collect();
    let norm = squares(&grads).iter().sum::<f64>().sqrt();
    let loss = gradient.loss / gradient.weight;
    ensure!(loss.is_finite() && norm.is_finite(), "the loss is {loss}, the gradient's norm {norm}");
    let begun = Instant::now();
    optimizer.step(&grads, norm, &stage.schedule, 1.0, &[])?;
    let update = begun.elapsed().as_secs_f64();
    let rebuilt = network(&config, &computed, adapters.as_ref())?;
    // The branch's: the trunk has no targets.
    let after = rebuilt.nll(&examples)?.last().copied().context("no loss")?;
    ensure!(after.is_finite(), "the loss is {after} after the update");
    let setting = Setting {
        tower: stage.kind == Kind::Tune && stage.lora.is_none(),
        decoder: stage.kind == Kind::Tune && stage.lora.is_none(),
        adapters: adapted,
        width: dtype.size_in_bytes(),
        checkpointing: args.checkpointing,
        workers: 1,
        ranks: 1,
    };
    let told = memory(&config, &setting, &work);
    let mb = |bytes: usize| bytes >> 20;
    let line = serde_json::json!({
        "parameters": utr_training::train::memory::count(&config, |_| true),
        "tower_rows": work.patches, "decoder_rows": work.rows, "targets": work.targets,
        "loss_before": loss, "loss_after": after, "gradient_norm": norm,
        "gradient_s": seconds, "optimizer_s": update,
        "resident_before_mb": mb(before), "resident_gradient_mb": mb(peak), "resident_mb": mb(resident()?),
        "foretold_mb": {
            "parameters": mb(told.parameters), "gradients": mb(told.gradients), "moments": mb(told.moments),
            "masters": mb(told.masters), "tower": mb(told.tower), "decoder": mb(told.decoder), "step": mb(told.step),
        },
    });
    Ok((line, [loss, norm]))
}
