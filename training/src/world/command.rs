//! `utr-train world`: the command line over [`super::write`] and [`super::ceilings`].
//!
//! Comes in: parsed arguments. Goes out: files, a progress bar on standard error, and a table of ceilings on standard
//! output. All decisions about content are made in the modules it calls.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};

use super::ceilings::{self, Ceilings, SkillCeilings};
use super::encode::Encoder;
use super::suite::{Suite, find_demo};
use super::write::{Encode, Settings, Source, write_clips};
use super::{HoldOut, Split, WorldConfig};
use crate::queries::{Listing, QueryFrame};

/// Clips of the procedural world with ground truth, tracks, questions and conversations.
#[derive(Clone, Debug, clap::Args)]
pub struct WorldArgs {
    /// Folder to write to (with --ceilings: the JSON file). A run that was stopped continues where it was.
    #[arg(long, required_unless_present = "find_demo")]
    pub output: Option<PathBuf>,
    /// Number of clips.
    #[arg(long, default_value_t = 16)]
    pub clips: usize,
    /// Index of the first clip within its split.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Seeds of this split; no two splits share one.
    #[arg(long, value_enum, default_value = "train")]
    pub split: SplitName,
    /// A world configuration (TOML) in place of the full distribution.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Write the pairs of this suite (training/worlds/test.toml) in place of general clips.
    #[arg(long, conflicts_with_all = ["clips", "seed", "split", "config"])]
    pub suite: Option<PathBuf>,
    /// Write only the suite's demo clip and its reversal.
    #[arg(long, requires = "suite")]
    pub demo: bool,
    /// Measure the suite's ceilings and write them as JSON in place of clips.
    #[arg(long, requires = "suite", conflicts_with = "demo")]
    pub ceilings: bool,
    /// Print the first demo seed of the suite from this one on, and write nothing.
    #[arg(long, value_name = "SEED", requires = "suite", conflicts_with_all = ["demo", "ceilings"])]
    pub find_demo: Option<u64>,
    /// Side of the square frames in pixels.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..=2048))]
    pub size: u32,
    /// Video files, or folders of PNG with exact pixels.
    #[arg(long, value_enum, default_value = "mp4")]
    pub encode: EncodeName,
    /// Frames per step: a clip has 31 k + 1 frames at 4 k frames a second.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub frames_per_step: u32,
}

/// `--split`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum SplitName {
    /// Training seeds; held-out combinations never appear.
    Train,
    /// Validation seeds.
    Val,
    /// Test seeds; held-out combinations may appear.
    Test,
}

/// `--encode`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum EncodeName {
    /// Folders of PNG.
    Frames,
    /// MP4.
    Mp4,
}

/// Runs `utr-train world`.
///
/// # Errors
/// Whatever the files, the encoder or the suite refuse.
pub fn run(args: &WorldArgs) -> anyhow::Result<()> {
    let suite = args.suite.as_deref().map(Suite::load).transpose()?;
    if let (Some(from), Some(suite)) = (args.find_demo, &suite) {
        let Some(found) = find_demo(suite, from, 5, 5) else {
            bail!("no clip among 10000 from {from} on poses questions on five order skills");
        };
        println!("{found}");
        return Ok(());
    }
    let output = args.output.as_deref().context("--output is missing")?;
    if let Some(suite) = suite.as_ref().filter(|_| args.ceilings) {
        return measure(suite, output);
    }
    let settings = settings(args, suite.clone())?;
    if let Encode::Mp4 = settings.encode {
        eprintln!("encoder: {}", Encoder::find()?.element());
    }
    // Ceilings lie beside their suite: test.toml, test.ceilings.json.
    let beside = args.suite.as_ref().map(|p| p.with_extension("ceilings.json")).filter(|p| p.exists());
    let ceilings = match (beside, &suite) {
        (Some(path), Some(suite)) => Some(Ceilings::load(&path, suite)?),
        _ => None,
    };
    let bar = ProgressBar::new(0)
        .with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} clips, {eta} left")?);
    write_clips(output, &settings, ceilings.as_ref(), &|done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish();
    match suite.as_ref().filter(|_| args.demo) {
        Some(suite) => {
            let extension = match settings.encode {
                Encode::Mp4 => Encoder::find()?.extension(),
                Encode::Frames => "",
            };
            demo_questions(suite, output, extension)
        }
        None => Ok(()),
    }
}

/// Writes `questions.json` beside the demo clips: five questions about the clip and the same five about its reversal, with the right
/// answers, as `make demo` asks them.
fn demo_questions(suite: &Suite, output: &Path, extension: &str) -> anyhow::Result<()> {
    let items: Vec<_> = suite.demo().items.into_iter().take(5).collect();
    let entry = |clip: &str, item: &super::Item, answer: &str| {
        let clip = format!("clips/{clip}{extension}");
        let (question, skill) = (&item.question, item.skill.word());
        serde_json::json!({"clip": clip, "question": question, "answer": answer, "skill": skill})
    };
    let forward = items.iter().map(|item| entry("demo", item, &item.answer));
    let twin = items.iter().filter_map(|item| Some(entry("demo-twin", item, item.twin_answer.as_deref()?)));
    let list = serde_json::Value::Array(forward.chain(twin).collect());
    let text = serde_json::to_string_pretty(&list)? + "\n";
    let path = output.join("questions.json");
    Ok(crate::files::write_atomic(&path, |file| file.write_all(text.as_bytes()))?)
}

fn settings(args: &WorldArgs, suite: Option<Suite>) -> anyhow::Result<Settings> {
    let source = match suite {
        Some(suite) if args.demo => Source::Demo(suite),
        Some(suite) => Source::Suite(suite),
        None => {
            let split = args.split.into();
            Source::Seeds { split, first: args.seed, clips: args.clips, world: world(args, split)? }
        }
    };
    let encode = match args.encode {
        EncodeName::Frames => Encode::Frames,
        EncodeName::Mp4 => Encode::Mp4,
    };
    Ok(Settings {
        source,
        size: args.size,
        frames_per_step: args.frames_per_step,
        encode,
        listing: Listing::default(),
        query: QueryFrame::Random,
    })
}

fn world(args: &WorldArgs, split: Split) -> anyhow::Result<WorldConfig> {
    let Some(path) = &args.config else {
        let held_out = if let Split::Test = split { HoldOut::Any } else { HoldOut::Never };
        return Ok(WorldConfig::full().with_held_out(held_out));
    };
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let config: WorldConfig = toml::from_str(&text).with_context(|| path.display().to_string())?;
    config.check().map_err(|reason| anyhow::anyhow!("{}: {reason}", path.display()))?;
    Ok(config)
}

fn measure(suite: &Suite, output: &Path) -> anyhow::Result<()> {
    println!(
        "{:<18} {:>5} {:>6} {:>7} {:>6} {:>6} {:>6}   fresh single, bag",
        "skill", "n", "blind", "single", "two", "four", "bag"
    );
    let found = ceilings::run(suite, output, &|s: &SkillCeilings| {
        let percent = |a: f64| format!("{:.1}", a * 100.0);
        println!(
            "{:<18} {:>5} {:>6} {:>7} {:>6} {:>6} {:>6}   {} {} (n {}){}",
            s.skill.word(),
            s.n,
            percent(s.blind.accuracy),
            percent(s.single.accuracy),
            percent(s.two.accuracy),
            percent(s.four.accuracy),
            percent(s.bag.accuracy),
            percent(s.fresh.single.accuracy),
            percent(s.fresh.bag.accuracy),
            s.fresh.n,
            if s.order { " order" } else { "" },
        );
    })?;
    println!("{:.1} % of the items need more than 4 frames", found.needs_more_than_four * 100.0);
    Ok(())
}

impl From<SplitName> for Split {
    fn from(name: SplitName) -> Self {
        match name {
            SplitName::Train => Split::Train,
            SplitName::Val => Split::Val,
            SplitName::Test => Split::Test,
        }
    }
}
