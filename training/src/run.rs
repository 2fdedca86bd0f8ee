//! A recipe from nothing to a scored bundle: `utr-train run`.
//!
//! Comes in: a recipe and a run folder. Goes out: checkpoints, the loss curve, `bundle/NAME` with its scores in the manifest, `eval/` and `tpl.json`.
//! Each step is skipped where its result is already there; a stopped run goes on where it was.

use crate::eval::table::percent;
use crate::eval::world::{self, Results};
use crate::eval::{EvalArgs, SuiteKind};
use crate::export::{Making, bundle_folder, export};
use crate::tpl::world::{Clips, Compared, SAMPLES, compare_tpl};
use crate::train::checkpoint;
use crate::train::data::feed::Reading;
use crate::train::data::{Corpora, settle};
use crate::train::driver::{Driver, Options};
use crate::train::folder::{amendments, recipe_file};
use crate::train::plan::plan;
use crate::train::ranks::join::join;
use crate::train::ranks::place::Place;
use crate::train::ranks::{Alone, Transport};
use crate::train::recipe::{Kind, Recipe};
use crate::validate::Validation;
use crate::world::suite::Suite;
use anyhow::{Context, Result};
use candle_core::Device;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use utr_models::{DeviceChoice, atomic};
use utr_runtime::decode::KvPrecision;

/// How data on disk are read ahead of the trainer; none of it changes the result.
#[derive(Clone, Debug, clap::Args)]
pub struct ReadingArgs {
    /// Threads that read and decode data on disk
    #[arg(long, default_value_t = Reading::default().workers, value_name = "N")]
    pub read_workers: usize,
    /// Micro-batches that are ready or on the way at most; each takes the memory of its frames
    #[arg(long, default_value_t = Reading::default().queue, value_name = "N")]
    pub read_queue: usize,
}

/// Training by a recipe.
#[derive(Clone, Debug, clap::Args)]
pub struct TrainArgs {
    /// The recipe (TOML)
    #[arg(long)]
    pub recipe: PathBuf,
    /// Where checkpoints and the loss log go; a run found there is continued [default: runs/NAME of the recipe]
    #[arg(long)]
    pub output: Option<PathBuf>,
    /// Go on with a recipe that differs from the one the run began with; the change is written down
    #[arg(long)]
    pub amend: bool,
    /// Where it runs: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub device: DeviceChoice,
    /// Threads; each trains on its own clips. With a CUDA device one computes, the others draw clips of the world ahead of it, and all step the optimizer
    #[arg(long, default_value_t = 2)]
    pub workers: usize,
    /// How data on disk are read
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// Updates between progress lines where standard error is not a terminal
    #[arg(long, default_value_t = 20)]
    pub log_every: usize,
    /// Seconds that a rank may keep the others waiting: at the start, in an update, and while rank 0 validates or writes a checkpoint. Raise it for large models,
    /// slow disks and large validation suites
    #[arg(long, default_value_t = 600)]
    pub rank_timeout: u64,
    /// Suite whose items are watched during training, such as training/worlds/val.toml
    #[arg(long)]
    pub validation: Option<PathBuf>,
    /// Pairs per skill of it
    #[arg(long, default_value_t = 10)]
    pub validation_pairs: usize,
    /// Frames of each clip that are shown; items that need more are left out
    #[arg(long, default_value_t = 32)]
    pub validation_frames: usize,
}

/// The whole way.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// The recipe (TOML), such as training/recipes/nano.toml
    pub recipe: PathBuf,
    /// The run's folder [default: runs/NAME of the recipe]
    #[arg(long)]
    pub output: Option<PathBuf>,
    /// Go on with a recipe that differs from the one the run began with; the change is written down
    #[arg(long)]
    pub amend: bool,
    /// Where it trains: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub device: DeviceChoice,
    /// Threads
    #[arg(long, default_value_t = 2)]
    pub workers: usize,
    /// How data on disk are read
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// Updates between progress lines where standard error is not a terminal
    #[arg(long, default_value_t = 20)]
    pub log_every: usize,
    /// Seconds that a rank may keep the others waiting: at the start, in an update, and while rank 0 validates or writes a checkpoint. Raise it for large models,
    /// slow disks and large validation suites
    #[arg(long, default_value_t = 600)]
    pub rank_timeout: u64,
    /// Suite watched during training
    #[arg(long, default_value = "training/worlds/val.toml")]
    pub validation: PathBuf,
    /// Suite scored at the end
    #[arg(long, default_value = "training/worlds/test.toml")]
    pub test: PathBuf,
}

/// Where a recipe's run lies.
fn folder(output: Option<&PathBuf>, recipe: &Recipe) -> PathBuf {
    output.cloned().unwrap_or_else(|| Path::new("runs").join(&recipe.name))
}

/// Left-out records that are named.
const NAMED: usize = 5;

/// Says what was read of the data on disk.
fn tell(recipe: &Recipe, corpora: &Corpora) {
    for (stage, corpus) in recipe.stages.iter().zip(corpora) {
        let Some(corpus) = corpus else { continue };
        let (used, out) = (corpus.records.len(), &corpus.left_out);
        eprintln!("{}: {used} samples, {} left out, {} updates", stage.name, out.len(), stage.steps);
        out.iter().take(NAMED).for_each(|reason| eprintln!("  left out: {reason}"));
        if out.len() > NAMED {
            eprintln!("  and {} more", out.len() - NAMED);
        }
    }
}

/// Opens a device; says what `auto` took where there was a choice.
pub fn opened(choice: DeviceChoice, place: Option<&Place>) -> Result<Device> {
    let (device, said) = choice.open(place.map_or(0, |place| place.local))?;
    if let Some(said) = said.filter(|_| cfg!(feature = "cuda")) {
        eprintln!("{said}");
    }
    Ok(device)
}

/// Runs the recipe's stages of one kind (`align`, `tune`), or all; rank 0 prints the checkpoint. Without a `place` this process is alone.
pub fn train(
    args: &TrainArgs,
    only: Option<Kind>,
    place: Option<&Place>,
    stop: &AtomicBool,
) -> Result<PathBuf> {
    let mut recipe = Recipe::load(&args.recipe)?;
    let corpora = settle(&mut recipe)?;
    let device = opened(args.device, place)?;
    if place.is_none_or(|place| place.rank == 0) {
        tell(&recipe, &corpora);
        let ranks = place.map_or(1, |place| place.size);
        let computing = if device.is_cpu() { args.workers } else { 1 };
        match plan(&recipe, ranks, computing) {
            Ok(plans) => plans.iter().for_each(|plan| eprintln!("plan of {plan}")),
            // Whether a run can go on is decided by what it has.
            Err(error) => eprintln!("no plan of its memory: {error:#}"),
        }
    }
    let validation = args
        .validation
        .as_deref()
        .map(|p| Validation::load(p, args.validation_pairs, args.validation_frames))
        .transpose()?;
    let run = folder(args.output.as_ref(), &recipe);
    let ranks: Box<dyn Transport> = match place {
        Some(place) => Box::new(join(place, Duration::from_secs(args.rank_timeout))?),
        None => Box::new(Alone),
    };
    let reading = Reading { workers: args.reading.read_workers, queue: args.reading.read_queue };
    let (workers, amend, log_every) = (args.workers, args.amend, args.log_every);
    let options = Options { workers, amend, log_every, device, label: None, validation, reading, corpora };
    let model = Driver::new(&recipe, &run, options, ranks, stop)?.train(only)?;
    // Half a run is no success, whatever comes after it in a script.
    let model = model.context("stopped; the same command goes on from the last checkpoint")?;
    if place.is_none_or(|place| place.rank == 0) {
        println!("{}", model.display());
    }
    Ok(model)
}

/// Runs `utr-train run`. What can be wrong is looked at first; what a stopped run had finished is not done again, but for the scores. Of
/// several ranks only rank 0 goes on once the training is done.
pub fn run(args: &RunArgs, place: Option<&Place>, stop: &AtomicBool) -> Result<()> {
    let recipe = Recipe::load(&args.recipe)?;
    Suite::load(&args.test)?;
    let run = folder(args.output.as_ref(), &recipe);
    let train_args = TrainArgs {
        recipe: args.recipe.clone(),
        output: Some(run.clone()),
        amend: args.amend,
        device: args.device,
        workers: args.workers,
        reading: args.reading.clone(),
        log_every: args.log_every,
        rank_timeout: args.rank_timeout,
        validation: Some(args.validation.clone()),
        validation_pairs: 10,
        validation_frames: 32,
    };
    let model = train(&train_args, None, place, stop)?;
    if place.is_some_and(|place| place.rank > 0) {
        return Ok(());
    }
    let state = checkpoint::state(&model)?;
    // As the run used it, whatever has become of the file that it was begun with.
    let text = std::fs::read_to_string(recipe_file(&run)).context("reading the run's recipe")?;
    let amended = amendments(&run)?.lines().map(|line| format!("# {line}\n")).collect::<String>();
    let on_disk = recipe.stages.iter().any(|stage| stage.data.is_some());
    let kind = if on_disk { "samples" } else { "utr-world clips" };
    let mut making = Making {
        name: recipe.name.clone(),
        recipe: text + &amended,
        seeds: BTreeMap::from([("recipe".to_string(), recipe.seed)]),
        data: BTreeMap::from([(kind.to_string(), state.samples)]),
        hours: state.seconds / 3600.0,
        scores: BTreeMap::new(),
    };
    // Named after its checkpoint, so that scores can never be those of other weights.
    let mark = model.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let plain = bundle_folder(&run, &format!("unscored-{mark}"));
    if !plain.exists() {
        export(&model, recipe.quant, making.clone(), &plain)?;
    }
    let scoring = EvalArgs {
        bundle: Some(plain.clone()),
        model: None,
        suite: SuiteKind::World,
        data: args.test.clone(),
        output: run.join("eval"),
        kv: KvPrecision::default(),
        workers: args.workers,
        world: Default::default(),
        benchmark: Default::default(),
        judge: Default::default(),
    };
    let results = world::score(&scoring, stop)?;
    let comparison = compare_tpl(&model, &opened(args.device, place)?, SAMPLES, &Clips::full(), stop)?;
    let text = serde_json::to_string_pretty(&comparison)? + "\n";
    atomic::write(&run.join("tpl.json"), text.as_bytes())?;
    println!("{text}");
    making.scores = scores(&results, &comparison);
    let (bundle, new) = (bundle_folder(&run, &recipe.name), bundle_folder(&run, "new"));
    let clear = |folder: &Path| match folder.exists() {
        true => std::fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display())),
        false => Ok(()),
    };
    clear(&new)?;
    export(&model, recipe.quant, making, &new)?;
    clear(&bundle)?;
    std::fs::rename(&new, &bundle).with_context(|| format!("renaming {}", new.display()))?;
    clear(&plain)?;
    println!("{}", bundle.display());
    Ok(())
}

fn scores(results: &Results, tpl: &[Compared]) -> BTreeMap<String, f64> {
    let mut scores = BTreeMap::from([
        ("world/all/items".to_string(), percent(results.all.0.share)),
        ("world/all/pairs".to_string(), percent(results.all.1.share)),
        ("world/order/items".to_string(), percent(results.order.0.share)),
        ("world/order/pairs".to_string(), percent(results.order.1.share)),
    ]);
    for row in &results.skills {
        scores.insert(format!("world/{}/items", row.skill.word()), percent(row.items.share));
        scores.insert(format!("world/{}/pairs", row.skill.word()), percent(row.pairs.share));
    }
    for compared in tpl {
        scores.insert(format!("tpl_log/{}", compared.data), (compared.tpl_log * 1000.0).round() / 1000.0);
    }
    scores
}
