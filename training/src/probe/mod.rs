//! Where models look: attention over the frames of clips, as numbers and as pictures (paper, figures 2b, 6 and 7).
//!
//! Comes in: one or more models (Hugging Face folders), and LLaVA conversations with their clips or a world suite. Goes out: `attention.jsonl` (a line per
//! sample and model), `attention.json` (means with 95 % intervals, paired differences), `attention.md` and figures. The tokens of the
//! reference answers are what looks, teacher-forced as for TPL; breadth is the runtime's ([`utr_runtime::evidence`]). Attention is a hint at what a model uses, not a
//! proof, and says nothing about whether its answers are right.

mod look;
mod pictures;
mod report;
mod samples;
mod summary;

pub use look::{Layer, Look, Model, names};
pub use samples::Samples;
pub use summary::{Difference, Summary, summarize};

use crate::eval::work::spread;
use crate::files::{write_atomic, write_jsonl};
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// Attention of models over frames.
#[derive(Clone, Debug, clap::Args)]
pub struct ProbeArgs {
    /// Hugging Face folder to look into; given several times, each is compared with the first on the same samples
    #[arg(long, required = true, value_name = "DIR")]
    pub model: Vec<PathBuf>,
    /// LLaVA conversations (JSON or JSON lines), or a world suite such as training/worlds/val.toml
    #[arg(long, value_name = "FILE|SUITE.toml")]
    pub data: PathBuf,
    /// Folder that the conversations' media paths start from
    #[arg(long, value_name = "DIR")]
    pub media_root: Option<PathBuf>,
    /// Samples drawn at random; all where there are fewer. Of a suite's pair one twin is drawn, of conversations one per video, so that samples are independent
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = at_least_two)]
    pub samples: usize,
    /// Frames taken uniformly from each clip
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u8).range(2..=32))]
    pub frames: u8,
    /// Decides which samples are drawn
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Threads
    #[arg(long, default_value_t = 2, value_parser = crate::eval::at_least_one)]
    pub workers: usize,
    /// Folder for numbers and figures
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
}

fn at_least_two(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| *n >= 2);
    number.ok_or_else(|| format!("{text:?}: a number from 2 on; one sample has no interval"))
}

/// Runs `utr-train probe`.
///
/// # Errors
/// Data without clips, a model that cannot be loaded, fewer than two samples, an unwritable folder; samples that cannot be read are named, left out,
/// and make the command fail after it has written the rest.
pub fn run(args: &ProbeArgs, stop: &AtomicBool) -> Result<()> {
    let samples = Samples::open(args)?;
    let models = names(&args.model)
        .into_iter()
        .zip(&args.model)
        .map(|(name, folder)| Model::load(name, folder))
        .collect::<Result<Vec<_>>>()?;
    std::fs::create_dir_all(&args.output).with_context(|| format!("creating {}", args.output.display()))?;
    let looked = spread(
        samples.len(),
        args.workers,
        stop,
        || Ok(rayon::ThreadPoolBuilder::new().num_threads(1).build()?),
        |pool, place| {
            Ok(pool.install(|| {
                let sample = samples.load(place)?;
                models.iter().map(|model| model.look(&sample)).collect::<Result<Vec<Look>>>()
            }))
        },
    )?;
    let (mut rows, mut failed) = (Vec::new(), 0);
    for looks in looked {
        match looks {
            Ok(looks) => rows.push(looks),
            Err(error) => {
                failed += 1;
                eprintln!("left out: {error:#}");
            }
        }
    }
    ensure!(
        rows.len() >= 2,
        "{} of {} samples of {} could be looked at; means with intervals need two",
        rows.len(),
        samples.len(),
        args.data.display()
    );
    let summary = summarize(args, &rows, failed);
    let at = |name: &str| args.output.join(name);
    write_jsonl(&at("attention.jsonl"), rows.iter().flatten())?;
    let json = serde_json::to_string_pretty(&summary)? + "\n";
    write_atomic(&at("attention.json"), |out| out.write_all(json.as_bytes()))?;
    let table = report::markdown(&summary);
    write_atomic(&at("attention.md"), |out| out.write_all(table.as_bytes()))?;
    pictures::draw(&args.output, &summary)?;
    println!("{table}");
    ensure!(
        failed == 0,
        "{failed} samples could not be looked at (named above); the others are in {}",
        args.output.display()
    );
    Ok(())
}
