//! `utr-train`: the host's command line, subcommands in pipeline order.
//!
//! Comes in: arguments. Goes out: an exit status (0 done, 2 failed) and, for people, errors that say what was tried and what was found.
//! Everything else is in the library.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use utr_models::gguf::Format;
use utr_training::train::plan;
use utr_training::train::ranks::place::Place;
use utr_training::train::recipe::Kind;
use utr_training::{ablate, data, eval, experts, export, inspect, probe, queries, run, tpl, tracks, world};

/// Tensors of one update are freed and asked for again in the next; this allocator gives them back without page faults.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Set by the first Ctrl-C: training then writes a checkpoint and ends, evaluation keeps what it has.
static STOP: AtomicBool = AtomicBool::new(false);

#[derive(Parser)]
#[command(name = "utr-train", version, about = "Video to UTR data to a trained, measured, quantized bundle")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Clips of the procedural world with ground truth, tracks, questions and conversations
    World(world::command::WorldArgs),
    /// Clips to detections: what moves, Grounding DINO, or the world's truth
    Annotate(Box<experts::command::AnnotateArgs>),
    /// Detections to tracks: ByteTrack, SORT or plain overlap
    Track(tracks::command::TrackArgs),
    /// Tracks to conversations: bidirectional queries, with a card
    Queries(queries::command::QueriesArgs),
    /// Several data sets into one, as LLaVA-NeXT's mixture files say
    Mix(queries::mix::MixArgs),
    /// Pages that show clips, tracks and conversations, and where they contradict each other
    Inspect(inspect::command::InspectArgs),
    /// A folder of videos to a data set with audit pages: annotate, track, queries and inspect in one go
    Data(Box<data::DataArgs>),
    /// What each stage of a recipe takes of memory, from configurations alone
    Plan(plan::PlanArgs),
    /// The stages of a recipe up to the first that moves more than the projector
    Align(run::TrainArgs),
    /// All remaining stages of a recipe
    Tune(run::TrainArgs),
    /// Temporal perplexity of conversations: how much each needs all frames rather than one
    Tpl(tpl::TplArgs),
    /// Scores of a bundle or model on the world suite or on a local copy of a published benchmark
    Eval(Box<eval::EvalArgs>),
    /// Where models look: attention over the frames of clips, as numbers and as pictures
    Probe(probe::ProbeArgs),
    /// A study: arms that differ in one thing, trained over several seeds and compared
    Ablate(ablate::AblateArgs),
    /// The decoder of a model as GGUF
    Quantize {
        /// Hugging Face folder
        #[arg(long)]
        model: PathBuf,
        /// Number format of the matrices
        #[arg(long, default_value = "q8_0")]
        format: Format,
        /// File to write
        #[arg(long)]
        output: PathBuf,
    },
    /// A bundle that `utr` runs
    Export {
        /// Hugging Face folder
        #[arg(long)]
        model: PathBuf,
        /// Number format of the decoder's matrices
        #[arg(long, default_value = "q8_0")]
        quant: Format,
        /// The bundle's name; the folder's where absent
        #[arg(long)]
        name: Option<String>,
        /// Folder to write; must not exist
        #[arg(long)]
        output: PathBuf,
    },
    /// All of a recipe: training, export, evaluation, TPL; resumable
    Run(run::RunArgs),
}

fn main() -> ExitCode {
    // Work is spread by clip, one worker a core. Candle's own threads would make the workers wait for each other: its pool takes one caller
    // at a time and spins meanwhile.
    for variable in ["CANDLE_NUM_THREADS", "RAYON_NUM_THREADS"] {
        if std::env::var_os(variable).is_none() {
            // SAFETY: nothing else runs yet that could read the environment.
            unsafe { std::env::set_var(variable, "1") };
        }
    }
    let cli = Cli::parse();
    match execute(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn execute(command: Command) -> Result<()> {
    if matches!(
        command,
        Command::Align(_)
            | Command::Tune(_)
            | Command::Run(_)
            | Command::Eval(_)
            | Command::Probe(_)
            | Command::Ablate(_)
    ) {
        let handler = || {
            if STOP.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
            eprintln!("stopping after the update or clip at hand (again: at once)");
        };
        ctrlc::set_handler(handler).context("listening for Ctrl-C")?;
    }
    let place = || Place::resolve(|name| std::env::var(name).ok());
    match command {
        Command::World(args) => world::command::run(&args),
        Command::Annotate(args) => experts::command::run(&args),
        Command::Track(args) => tracks::command::run(&args),
        Command::Queries(args) => queries::command::run(&args),
        Command::Mix(args) => queries::mix::run(&args),
        Command::Inspect(args) => inspect::command::run(&args),
        Command::Data(args) => data::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Align(args) => run::train(&args, Some(Kind::Align), place()?.as_ref(), &STOP).map(drop),
        Command::Tune(args) => run::train(&args, None, place()?.as_ref(), &STOP).map(drop),
        Command::Tpl(args) => tpl::run(&args, &STOP),
        Command::Eval(args) => eval::run(&args, &STOP),
        Command::Probe(args) => probe::run(&args, &STOP),
        Command::Ablate(args) => ablate::run(&args, &STOP),
        Command::Quantize { model, format, output } => {
            let stored = export::quantize(&model, format, &output)?;
            println!("{} tensors in {}", stored.len(), output.display());
            Ok(())
        }
        Command::Export { model, quant, name, output } => {
            let fallback = output.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let making = export::Making { name: name.unwrap_or(fallback), ..Default::default() };
            export::export(&model, quant, making, &output)?;
            println!("{}", output.display());
            Ok(())
        }
        Command::Run(args) => run::run(&args, place()?.as_ref(), &STOP),
    }
}
