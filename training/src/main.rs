//! `utr-train`: the host's command line, subcommands in pipeline order.

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use utr_training::train::driver::Driver;
use utr_training::train::recipe::{Kind, Recipe};
use utr_training::validate::Validation;

/// Tensors of one update are freed and asked for again in the next; this allocator gives them back without page faults.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

static STOP: AtomicBool = AtomicBool::new(false);

#[derive(Parser)]
#[command(name = "utr-train", version, about = "Video to UTR data to a trained, measured, quantized bundle")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Stage 1: moves the projector only
    Align(Train),
    /// Stage 2: moves all parts
    Tune(Train),
}

#[derive(clap::Args)]
struct Train {
    /// The recipe (TOML)
    #[arg(long)]
    recipe: PathBuf,
    /// Where checkpoints and the loss log go; a run found there is continued
    #[arg(long)]
    output: PathBuf,
    /// Threads; each trains on its own clips
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Suite whose items are watched during training
    #[arg(long)]
    validation: Option<PathBuf>,
    /// Pairs per skill of it
    #[arg(long, default_value_t = 10)]
    validation_pairs: usize,
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Align(args) => train(args, Kind::Align),
        Command::Tune(args) => train(args, Kind::Tune),
    }
}

fn train(args: Train, _kind: Kind) -> Result<()> {
    ctrlc::set_handler(|| STOP.store(true, std::sync::atomic::Ordering::Relaxed))?;
    let recipe = Recipe::load(&args.recipe)?;
    let validation = args.validation.map(|p| Validation::load(&p, args.validation_pairs)).transpose()?;
    let driver = Driver::new(&recipe, &args.output, args.workers, validation, &STOP)?;
    if let Some(model) = driver.train(None)? {
        println!("{}", model.display());
    }
    Ok(())
}
