//! A recipe from nothing to a scored bundle: `utr-train run`.
//!
//! Comes in: a recipe and a run folder. Goes out: checkpoints, the loss curve, `bundle/NAME` with its scores in the manifest, `eval/` and `tpl.json`.
//! Each step is skipped where its result is already there; a stopped run goes on where it was.

use crate::eval::{self, EvalArgs, Results, SuiteKind};
use crate::export::{Making, bundle_folder, export, parse_format};
use crate::queries::tracks::write_atomic;
use crate::tpl::{Scorer, Single};
use crate::train::checkpoint;
use crate::train::driver::Driver;
use crate::train::recipe::{Kind, Recipe};
use crate::validate::Validation;
use crate::world::conversations::{Mix, world_sample};
use crate::world::{Split, WorldConfig, clip_seed};
use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Training by a recipe.
#[derive(Clone, Debug, clap::Args)]
pub struct TrainArgs {
    /// The recipe (TOML)
    #[arg(long)]
    pub recipe: PathBuf,
    /// Where checkpoints and the loss log go; a run found there is continued
    #[arg(long)]
    pub output: PathBuf,
    /// Threads; each trains on its own clips
    #[arg(long, default_value_t = 2)]
    pub workers: usize,
    /// Suite whose items are watched during training, such as training/worlds/val.toml
    #[arg(long)]
    pub validation: Option<PathBuf>,
    /// Pairs per skill of it
    #[arg(long, default_value_t = 10)]
    pub validation_pairs: usize,
}

/// The whole way.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// The recipe (TOML), such as training/recipes/nano.toml
    pub recipe: PathBuf,
    /// The run's folder
    #[arg(long, default_value = "runs/nano")]
    pub output: PathBuf,
    /// Threads
    #[arg(long, default_value_t = 2)]
    pub workers: usize,
    /// Suite watched during training
    #[arg(long, default_value = "training/worlds/val.toml")]
    pub validation: PathBuf,
    /// Suite scored at the end
    #[arg(long, default_value = "training/worlds/test.toml")]
    pub test: PathBuf,
}

/// Runs the recipe's stages of one kind (`align`, `tune`), or all; prints the checkpoint.
pub fn train(args: &TrainArgs, only: Option<Kind>, stop: &AtomicBool) -> Result<Option<PathBuf>> {
    let recipe = Recipe::load(&args.recipe)?;
    let validation =
        args.validation.as_deref().map(|p| Validation::load(p, args.validation_pairs)).transpose()?;
    let model = Driver::new(&recipe, &args.output, args.workers, validation, stop)?.train(only)?;
    match &model {
        Some(model) => println!("{}", model.display()),
        None => eprintln!("stopped; the same command goes on from the last checkpoint"),
    }
    Ok(model)
}

/// Runs `utr-train run`.
pub fn run(args: &RunArgs, stop: &AtomicBool) -> Result<()> {
    let recipe = Recipe::load(&args.recipe)?;
    let train_args = TrainArgs {
        recipe: args.recipe.clone(),
        output: args.output.clone(),
        workers: args.workers,
        validation: args.validation.exists().then(|| args.validation.clone()),
        validation_pairs: 10,
    };
    let Some(model) = train(&train_args, None, stop)? else { return Ok(()) };
    let state = checkpoint::state(&model)?;
    let mut making = Making {
        name: recipe.name.clone(),
        recipe: std::fs::read_to_string(&args.recipe).context("reading the recipe again")?,
        seeds: BTreeMap::from([("recipe".to_string(), recipe.seed)]),
        data: BTreeMap::from([("utr-world clips".to_string(), state.samples)]),
        hours: state.seconds / 3600.0,
        scores: BTreeMap::new(),
    };
    let format = parse_format(&recipe.quant).map_err(anyhow::Error::msg)?;
    let plain = args.output.join("bundle").join("unscored");
    if !plain.exists() {
        export(&model, format, making.clone(), &plain)?;
    }
    let results = eval::run(&EvalArgs {
        bundle: Some(plain.clone()),
        model: None,
        suite: SuiteKind::World,
        data: args.test.clone(),
        output: args.output.join("eval"),
        pairs: None,
        workers: args.workers,
    })?;
    let comparison = compare_tpl(&model, 200)?;
    let text = serde_json::to_string_pretty(&comparison)? + "\n";
    write_atomic(&args.output.join("tpl.json"), |out| out.write_all(text.as_bytes()))?;
    println!("{text}");
    making.scores = scores(&results, &comparison);
    let bundle = bundle_folder(&args.output, &recipe.name);
    if bundle.exists() {
        std::fs::remove_dir_all(&bundle)
            .with_context(|| format!("removing the older {}", bundle.display()))?;
    }
    export(&model, format, making, &bundle)?;
    std::fs::remove_dir_all(&plain).with_context(|| format!("removing {}", plain.display()))?;
    println!("{}", bundle.display());
    Ok(())
}

fn scores(results: &Results, tpl: &[Compared]) -> BTreeMap<String, f64> {
    let percent = |x: f64| (x * 1000.0).round() / 10.0;
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

/// Mean TPL of one kind of data.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// `utr`, `caption` or `skills`.
    pub data: String,
    /// Samples.
    pub n: usize,
    /// Mean ppl(one frame) - ppl(32 frames).
    pub tpl: f64,
    /// Mean nll(one frame) - nll(32 frames).
    pub tpl_log: f64,
    /// Standard error of `tpl_log`.
    pub standard_error: f64,
}

/// TPL of UTR queries, of captions and of skill questions over the same unseen clips, under one model.
pub fn compare_tpl(model: &Path, samples: u64) -> Result<Vec<Compared>> {
    let scorer = Scorer::load(model)?;
    let none = Mix {
        skill_turns: 0,
        utr_turns: 0,
        caption_turns: 0,
        instruction_turns: 0,
        pair_share: 0.0,
        ..Mix::default()
    };
    let kinds = [
        ("utr", Mix { utr_turns: 2, ..none.clone() }),
        ("caption", Mix { caption_turns: 2, ..none.clone() }),
        ("skills", Mix { skill_turns: 6, ..none }),
    ];
    kinds
        .into_iter()
        .map(|(name, mix)| {
            let mut logs = Vec::new();
            let mut sum = 0.0;
            for i in 0..samples {
                let sample =
                    world_sample(clip_seed(Split::Test, (1 << 50) + i), &mix, &WorldConfig::full(), 32);
                let score = scorer.score(&sample, Single::Reduce, 4, 0)?;
                sum += score.tpl;
                logs.push(score.tpl_log);
            }
            let n = logs.len() as f64;
            let mean = logs.iter().sum::<f64>() / n;
            let variance = logs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
            Ok(Compared {
                data: name.into(),
                n: logs.len(),
                tpl: sum / n,
                tpl_log: mean,
                standard_error: (variance / n).sqrt(),
            })
        })
        .collect()
}
