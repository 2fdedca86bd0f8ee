//! Evaluation: what is evaluated is what ships.
//!
//! Comes in: a bundle (or Hugging Face folder) and a suite: the procedural world's, or a local copy of a published benchmark. Goes out: answers and
//! scores as JSON, a table for people. Replies are generated greedily by the runtime's own pipeline. Nothing is fetched: a
//! benchmark's videos lie on disk before, and a judge is asked only where one is named.

pub mod activitynet;
mod answers;
pub mod benchmark;
pub(crate) mod clip;
mod extract;
mod grade;
mod item;
mod judge;
mod mvbench;
mod paper;
mod rows;
mod rubric;
mod score;
mod streams;
mod subtitles;
pub(crate) mod table;
mod tempcompass;
mod verdict;
mod video_mme;
pub mod voice;
pub mod work;
pub mod world;

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use utr_runtime::decode::KvPrecision;

pub use benchmark::BenchmarkArgs;
pub use judge::JudgeArgs;
pub use world::WorldArgs;

/// Frames per clip.
const FRAMES: usize = 32;

/// Scores a model on a suite.
#[derive(Clone, Debug, clap::Args)]
pub struct EvalArgs {
    /// The bundle to score
    #[arg(long, conflicts_with = "model")]
    pub bundle: Option<PathBuf>,
    /// A Hugging Face folder to score in its place
    #[arg(long, required_unless_present = "bundle")]
    pub model: Option<PathBuf>,
    /// Which suite
    #[arg(long, value_enum, default_value = "world")]
    pub suite: SuiteKind,
    /// The suite: a file such as training/worlds/test.toml, or the folder that holds a published benchmark
    #[arg(long, value_name = "FILE|DIR")]
    pub data: PathBuf,
    /// Folder for results
    #[arg(long)]
    pub output: PathBuf,
    /// How keys and values are stored
    #[arg(long, value_name = "BITS", default_value = "f16")]
    pub kv: KvPrecision,
    /// Threads; each opens the model
    #[arg(long, default_value_t = 2, value_parser = at_least_one)]
    pub workers: usize,
    /// What only the world suite knows.
    #[command(flatten, next_help_heading = "Suite world")]
    pub world: WorldArgs,
    /// What only published benchmarks know.
    #[command(flatten, next_help_heading = "Published benchmarks")]
    pub benchmark: BenchmarkArgs,
    /// Who judges what no rule decides.
    #[command(flatten, next_help_heading = "Judge of TempCompass and ActivityNet-QA")]
    pub judge: JudgeArgs,
}

impl EvalArgs {
    fn folder(&self) -> Result<&PathBuf> {
        self.bundle.as_ref().or(self.model.as_ref()).context("give --bundle or --model")
    }
}

pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (1..=100_000).contains(n));
    number.ok_or_else(|| format!("{text:?}: a number from 1 to 100000"))
}

/// The last part of a path.
fn named(folder: &Path) -> String {
    folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Suites that can be scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SuiteKind {
    /// The procedural world
    World,
    /// MVBench: 20 tasks of multiple choice
    #[value(name = "mvbench")]
    MvBench,
    /// TempCompass: multiple choice, yes/no, caption matching, captioning
    #[value(name = "tempcompass")]
    TempCompass,
    /// Video-MME: multiple choice on short, medium and long videos, with or without subtitles
    VideoMme,
    /// ActivityNet-QA: open questions, for a judge
    #[value(name = "activitynet-qa")]
    ActivityNetQa,
}

/// Runs `utr-train eval`.
///
/// # Errors
/// Options of another suite, and whatever the suite reports.
pub fn run(args: &EvalArgs, stop: &AtomicBool) -> Result<()> {
    match args.suite {
        SuiteKind::World => {
            ensure!(
                args.benchmark == BenchmarkArgs::default() && args.judge.url.is_none(),
                "--suite world takes none of the options of published benchmarks and no judge"
            );
            world::run(args, stop)
        }
        suite => {
            ensure!(
                args.world == WorldArgs::default(),
                "--clips, --window-mode, --recommend and --pairs belong to --suite world"
            );
            benchmark::run(args, suite, stop)
        }
    }
}

/// What the references' own code gave for `part`, of a file in tests/golden.
#[cfg(test)]
fn golden_in<T: serde::de::DeserializeOwned>(file: &str, part: &str) -> T {
    // Other cases, as `eval_rules.py --seed N --output FILE` made them.
    let given = std::env::var("UTR_EVAL_RULES").ok().filter(|_| file == "eval_rules.json");
    let path = given.unwrap_or_else(|| format!("{}/../tests/golden/{file}", env!("CARGO_MANIFEST_DIR")));
    let mut all: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    serde_json::from_value(all[part].take()).unwrap()
}

/// The same of `eval_rules.json`, case by case.
#[cfg(test)]
fn golden(part: &str) -> Vec<serde_json::Value> {
    let cases: Vec<serde_json::Value> = golden_in("eval_rules.json", part);
    assert!(!cases.is_empty(), "no case of {part}");
    cases
}
