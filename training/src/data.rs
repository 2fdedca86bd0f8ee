//! `utr-train data`: anyone's videos to a UTR data set, in one go.
//!
//! Comes in: a folder of videos (or detections that are there already). Goes out: a folder with `detections.jsonl`, `tracks.jsonl`, `data.jsonl` with its card, and
//! `audit/index.html` to look at it. Each file is whole or not there; a run that was stopped at any point goes on and ends with the same bytes.
//! The stages are those of the other commands; nothing is decided here.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use utr_models::atomic;

use crate::experts::Clip;
use crate::experts::command::{AnnotateArgs, ExpertArgs, Skipped, annotate, skipped_path};
use crate::experts::content::{fingerprint, inventory};
use crate::files::{read_jsonl, write_jsonl};
use crate::inspect::command::{self as inspect, InspectArgs};
use crate::parts::{Parts, Shard};
use crate::queries::card::{Card, Facts};
use crate::queries::command::{card_path, make};
use crate::queries::dialogue::Plan;
use crate::queries::tracks::read_tracks;
use crate::tracks::command::TrackerArgs;
use crate::tracks::detections;
use crate::tracks::filter::Limits;

/// A folder of videos to a UTR data set with audit pages
#[derive(Clone, Debug, clap::Args)]
pub struct DataArgs {
    /// Folder of videos, at any depth; the data set names them relative to it
    #[arg(long)]
    pub videos: PathBuf,
    /// Folder to write; a run that was stopped there goes on
    #[arg(long)]
    pub output: PathBuf,
    /// Take these detections in place of an expert's, such as those of several machines joined
    #[arg(long, value_name = "FILE", conflicts_with = "expert")]
    pub detections: Option<PathBuf>,
    /// Audit pages for only so many clips, spread evenly; 0 for none
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub audit: usize,
    /// Who looks.
    #[command(flatten)]
    pub expert: ExpertArgs,
    /// Who tracks.
    #[command(flatten, next_help_heading = "Tracking")]
    pub tracker: TrackerArgs,
    /// What is asked.
    #[command(flatten, next_help_heading = "Queries")]
    pub plan: Plan,
    /// Which tracks are asked about.
    #[command(flatten, next_help_heading = "Which tracks are asked about")]
    pub limits: Limits,
}

/// Runs `utr-train data`.
///
/// # Errors
/// Whatever the stages refuse, and a folder that was made with other settings.
pub fn run(args: &DataArgs) -> Result<()> {
    args.tracker.check()?;
    args.limits.check()?;
    ensure!(args.videos.is_dir(), "--videos {} is not a folder", args.videos.display());
    fs::create_dir_all(&args.output).with_context(|| format!("creating {}", args.output.display()))?;
    let real = |path: &Path| path.canonicalize().with_context(|| format!("reading {}", path.display()));
    let (output, videos) = (real(&args.output)?, real(&args.videos)?);
    ensure!(
        !output.starts_with(&videos) && !videos.starts_with(&output),
        "--output {} and --videos {} must lie apart",
        args.output.display(),
        args.videos.display()
    );
    claim(args)?;
    let at = |name: &str| args.output.join(name);
    let (found, tracks, data) = (at("detections.jsonl"), at("tracks.jsonl"), at("data.jsonl"));
    stage("detections", &found, || detect(args, &found))?;
    // A stop may have come between the finished file and the removal of its parts.
    Parts::discard(&found)?;
    Parts::discard(&skipped_path(&found))?;
    stage("tracks", &tracks, || {
        let clips = detections::read(&found)?;
        Ok(write_jsonl(&tracks, clips.iter().map(|clip| args.tracker.clip(clip, None)))?)
    })?;
    stage("queries", &data, || queries(args, &found, &tracks, &data))?;
    let made = fs::metadata(&data).with_context(|| format!("reading {}", data.display()))?;
    ensure!(
        made.len() > 0,
        "no conversation could be made; {} says what became of the tracks",
        card_path(&data).with_extension("card.md").display()
    );
    if args.audit > 0 {
        inspect::run(&InspectArgs {
            data: data.clone(),
            tracks,
            media_root: args.videos.clone(),
            output: at("audit"),
            frames: args.plan.frames as u8,
            limit: std::num::NonZeroUsize::new(args.audit),
            shard: Shard { index: 0, of: 1 },
            tolerance: args.plan.grid / 2 + 1,
        })?;
    }
    println!("{}", data.display());
    Ok(())
}

/// Does what is not done yet.
fn stage(name: &str, output: &Path, work: impl FnOnce() -> Result<()>) -> Result<()> {
    if output.exists() {
        eprintln!("{name}: there already");
        return Ok(());
    }
    eprintln!("{name}:");
    work().with_context(|| format!("making {}", output.display()))
}

fn detect(args: &DataArgs, output: &Path) -> Result<()> {
    let Some(given) = &args.detections else {
        return annotate(&AnnotateArgs {
            videos: args.videos.clone(),
            output: output.to_path_buf(),
            shard: Shard { index: 0, of: 1 },
            expert: args.expert.clone(),
        });
    };
    ensure!(given.is_file(), "--detections {} is not a file", given.display());
    // What does not parse is not taken over.
    detections::read(given)?;
    let copy = |from: &Path, to: &Path| -> Result<()> {
        let bytes = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
        Ok(atomic::write(to, &bytes)?)
    };
    if skipped_path(given).exists() {
        copy(&skipped_path(given), &skipped_path(output))?;
    }
    copy(given, output)
}

/// Conversations and their card; the card first, so that whoever has the data has the card.
fn queries(args: &DataArgs, found: &Path, tracks: &Path, data: &Path) -> Result<()> {
    let clips = read_tracks(tracks)?;
    let (conversations, report) = make(clips, &args.plan, &args.limits, Shard { index: 0, of: 1 });
    eprintln!("{report}");
    let lost = skipped_path(found);
    let skipped: Vec<Skipped> = if lost.exists() { read_jsonl(&lost)? } else { Vec::new() };
    let skipped = skipped.into_iter().map(|s| (s.video, s.reason)).collect();
    let facts = Facts { report: Some(report), skipped, ..Facts::default() };
    Card::of(&conversations, facts).write(&card_path(data))?;
    Ok(write_jsonl(data, &conversations)?)
}

/// Writes down what the folder is made with, or checks that it was made with this.
fn claim(args: &DataArgs) -> Result<()> {
    let path = args.output.join("settings.txt");
    let DataArgs { videos, detections, expert, tracker, plan, limits, .. } = args;
    let given = match detections {
        Some(path) => fingerprint(path).with_context(|| format!("reading {}", path.display()))?,
        None => "made here".to_owned(),
    };
    let lines = [
        format!("videos {}", inventory(&Clip::all(videos)?)),
        format!("detections {given}"),
        format!("expert {expert:?}"),
        format!("tracker {tracker:?}"),
        format!("plan {plan:?}"),
        format!("limits {limits:?}"),
    ];
    if !path.exists() {
        return Ok(atomic::write(&path, format!("{}\n", lines.join("\n")).as_bytes())?);
    }
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let changed = lines.iter().find(|line| !text.lines().any(|found| found == *line));
    if let Some(line) = changed {
        let word = line.split(' ').next().unwrap_or_default();
        let before = text.lines().find(|found| found.starts_with(word)).unwrap_or("nothing");
        anyhow::bail!(
            "{} was made with other settings ({before}; now {line}): name another --output, or remove the folder (its detections can be kept and given as \
             --detections FILE)",
            args.output.display()
        );
    }
    Ok(())
}
