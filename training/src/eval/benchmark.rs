//! A published benchmark from its files to a score.
//!
//! Comes in: a folder that holds the benchmark as it is published, a model, a judge or none. Goes out, in `--output`: `answers.jsonl` (what the model said),
//! `outcomes.jsonl` (what became of it), `judge.jsonl` (what the judge said), `results.json` and `results.md`. The same command goes on where it was stopped, and
//! with a judge it goes on to judge what waited. Annotations and videos are checked before the model is opened.

use super::answers::{self, Answer, Plan};
use super::grade;
use super::item::{Benchmark, Item, Prompt};
use super::judge::Judge;
use super::score::{self, Row};
use super::table::markdown;
use super::{EvalArgs, FRAMES, SuiteKind, activitynet, mvbench, named, tempcompass, video_mme};
use crate::files::{write_atomic, write_jsonl};
use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::UNIX_EPOCH;

/// How many paths an error shows.
const SHOWN: usize = 3;

/// What only published benchmarks know.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub struct BenchmarkArgs {
    /// Show Video-MME's subtitles
    #[arg(long)]
    pub subtitles: bool,
    /// Only these tasks of MVBench or TempCompass
    #[arg(long, value_name = "TASK", value_delimiter = ',')]
    pub tasks: Vec<String>,
    /// Only the first N questions of each task (of each duration of Video-MME)
    #[arg(long, value_name = "N", value_parser = super::at_least_one)]
    pub limit: Option<usize>,
    /// Leave out questions whose video is missing; the score is then marked as partial
    #[arg(long)]
    pub skip_missing: bool,
}

/// A run's results.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// The benchmark.
    pub benchmark: &'static str,
    /// What was scored.
    pub model: String,
    /// Its bundle's hash, or that of the folder's names, sizes and times.
    pub fingerprint: String,
    /// Frames of each clip.
    pub frames: usize,
    /// Questions that were asked.
    pub questions: usize,
    /// All of the benchmark, all judged, every clip read.
    pub complete: bool,
    /// What is missing, in words.
    pub notes: Vec<String>,
    /// The judge's name.
    pub judge: Option<String>,
    /// The benchmark's score in percent; none while a question waits for a judge.
    pub accuracy: Option<f64>,
    /// ActivityNet-QA's mean score, 0 to 5.
    pub score: Option<f64>,
    /// Everything, then each group.
    pub rows: Vec<Row>,
}

/// Scores a model on a benchmark.
///
/// # Errors
/// Annotations or videos that are missing, an output of other settings, and whatever the model or the judge reports.
pub fn run(args: &EvalArgs, suite: SuiteKind, stop: &AtomicBool) -> Result<()> {
    let folder = args.folder()?;
    let mut benchmark = load(args, suite)?;
    let mut notes = narrow(&mut benchmark, &args.benchmark)?;
    std::fs::create_dir_all(&args.output).with_context(|| format!("creating {}", args.output.display()))?;
    let fingerprint = fingerprint(folder)?;
    let settings = format!(
        "{} of {}, questions {}, {FRAMES} frames, model {} {fingerprint}, keys and values {:?}",
        benchmark.items.len(),
        benchmark.name,
        questions(&benchmark.items, &args.data),
        named(folder),
        args.kv
    );
    claim(&args.output, &settings)?;
    let at = |name: &str| args.output.join(name);
    let judge = Judge::open(&args.judge, &at("judge.jsonl"))?;
    let plan = Plan { folder, kv: args.kv, workers: args.workers, settings: &settings };
    let answers = answers::collect(&plan, &benchmark.items, &at("answers.jsonl"), stop)?;
    let outcomes = grade::all(&benchmark.items, &answers, judge.as_ref(), stop)?;
    write_jsonl(&at("outcomes.jsonl"), &outcomes)?;
    let rows = score::rows(&benchmark, &outcomes);
    notes.extend(gaps(&answers, &rows));
    let summary = Summary {
        benchmark: benchmark.name,
        model: named(folder),
        fingerprint,
        frames: FRAMES,
        questions: benchmark.items.len(),
        complete: notes.is_empty(),
        notes,
        judge: judge.map(|judge| judge.model().to_string()),
        accuracy: score::headline(&benchmark, &rows),
        score: rows.first().and_then(|all| all.score),
        rows,
    };
    let write = |name: &str, text: &str| write_atomic(&at(name), |out| out.write_all(text.as_bytes()));
    write("results.json", &(serde_json::to_string_pretty(&summary)? + "\n"))?;
    let table = markdown(&summary, suite);
    write("results.md", &table)?;
    println!("{table}");
    Ok(())
}

fn load(args: &EvalArgs, suite: SuiteKind) -> Result<Benchmark> {
    let BenchmarkArgs { subtitles, tasks, .. } = &args.benchmark;
    ensure!(
        args.data.is_dir(),
        "--data {} is not a folder; it is the one that holds the benchmark",
        args.data.display()
    );
    ensure!(!subtitles || suite == SuiteKind::VideoMme, "--subtitles belongs to --suite video-mme");
    let named_tasks = matches!(suite, SuiteKind::MvBench | SuiteKind::TempCompass);
    ensure!(tasks.is_empty() || named_tasks, "--tasks belongs to --suite mvbench and tempcompass");
    let judged = matches!(suite, SuiteKind::TempCompass | SuiteKind::ActivityNetQa);
    ensure!(
        args.judge.url.is_none() || judged,
        "rules decide everything in this suite: leave the judge away"
    );
    let benchmark = match suite {
        SuiteKind::MvBench => mvbench::load(&args.data, tasks)?,
        SuiteKind::TempCompass => tempcompass::load(&args.data, tasks)?,
        SuiteKind::VideoMme => video_mme::load(&args.data, *subtitles)?,
        SuiteKind::ActivityNetQa => activitynet::load(&args.data)?,
        SuiteKind::World => bail!("the world suite is not a published benchmark"),
    };
    let mut ids = HashSet::new();
    for item in &benchmark.items {
        ensure!(ids.insert(&item.id), "{}: two questions are called {}", benchmark.name, item.id);
    }
    Ok(benchmark)
}

/// Takes only what was asked for and is there; what is left out, in words.
fn narrow(benchmark: &mut Benchmark, args: &BenchmarkArgs) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    if !args.tasks.is_empty() {
        notes.push(format!("Only the tasks {}", args.tasks.join(", ")));
    }
    if let Some(limit) = args.limit {
        let mut counts: HashMap<String, usize> = HashMap::new();
        benchmark.items.retain(|item| {
            let count = counts.entry(item.task.clone()).or_default();
            *count += 1;
            *count <= limit
        });
        notes.push(format!("Only the first {limit} questions of each task"));
    }
    let missing: Vec<&Path> = benchmark
        .items
        .iter()
        .filter(|item| !item.clip.present)
        .map(|item| item.clip.path.as_path())
        .collect();
    if !missing.is_empty() {
        let videos: HashSet<&Path> = missing.iter().copied().collect();
        let mut shown: Vec<&Path> = videos.iter().copied().collect();
        shown.sort();
        let shown: Vec<String> = shown.iter().take(SHOWN).map(|path| path.display().to_string()).collect();
        ensure!(
            args.skip_missing,
            "{} of the videos of {} are missing ({} of {} questions), such as {}; {}; --skip-missing scores the rest",
            videos.len(),
            benchmark.name,
            missing.len(),
            benchmark.items.len(),
            shown.join(", "),
            benchmark.published
        );
        notes.push(format!("{} questions left out: {} videos are missing", missing.len(), videos.len()));
        benchmark.items.retain(|item| item.clip.present);
    }
    ensure!(!benchmark.items.is_empty(), "{}: no question is left to ask", benchmark.name);
    Ok(notes)
}

/// What the score lacks, in words.
fn gaps(answers: &[Answer], rows: &[Row]) -> Vec<String> {
    let failed: Vec<&Answer> = answers.iter().filter(|answer| answer.error.is_some()).collect();
    let mut notes = Vec::new();
    if let Some(first) = failed.first() {
        let reason = first.error.as_deref().unwrap_or_default().lines().next().unwrap_or_default();
        notes.push(format!("{} questions could not be asked; {}: {reason}", failed.len(), first.id));
    }
    if let Some(all) = rows.first() {
        if all.waiting > 0 {
            notes.push(format!(
                "{} of {} questions wait for a judge (--judge-url)",
                all.waiting, all.questions
            ));
        }
        if all.unreadable > 0 {
            notes.push(format!(
                "{} rulings could not be read and count as wrong, as in the reference",
                all.unreadable
            ));
        }
    }
    notes
}

/// A hash of all that is asked and shown; the folder may move.
fn questions(items: &[Item], root: &Path) -> String {
    let mut hash = Sha256::new();
    for item in items {
        let path = item.clip.path.strip_prefix(root).unwrap_or(&item.clip.path);
        let prompt = match &item.prompt {
            Prompt::Text(text) => (false, text),
            Prompt::Subtitled { file, rest } => (file.is_some(), rest),
        };
        hash.update(format!("{:?}\n", (&item.id, path, item.clip.stretch, prompt, item.max_tokens)));
    }
    short(hash)
}

/// What tells one model from another: a bundle's hash; of a Hugging Face folder the names, sizes and times of its files.
pub(crate) fn fingerprint(folder: &Path) -> Result<String> {
    let reading = || format!("reading {}", folder.display());
    let manifest = folder.join("manifest.sha256");
    if manifest.exists() {
        let text = std::fs::read_to_string(&manifest).with_context(reading)?;
        return Ok(text.split_whitespace().next().unwrap_or_default().chars().take(16).collect());
    }
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(reading)? {
        files.push(entry.with_context(reading)?.path());
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files.iter().filter(|file| file.is_file()) {
        let facts = file.metadata().with_context(reading)?;
        let time = facts.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        hash.update(format!("{:?}\n", (named(file), facts.len(), time)));
    }
    Ok(short(hash))
}

fn short(hash: Sha256) -> String {
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Ties the folder to one benchmark and one model, so that answers of two are never mixed.
fn claim(output: &Path, settings: &str) -> Result<()> {
    let path = output.join("settings.txt");
    if !path.exists() {
        return Ok(write_atomic(&path, |out| writeln!(out, "{settings}"))?);
    }
    let before = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    ensure!(
        before.trim_end() == settings,
        "{} was begun with other settings ({}; now {settings}): name another --output, or remove the folder",
        output.display(),
        before.trim_end()
    );
    Ok(())
}
