//! `utr-train annotate`: a folder of clips in, detections out.
//!
//! Comes in: a folder of videos and the name of an expert. Goes out: one line per frame (`detections`), and, beside it, one line per clip that could
//! not be read with the reason: a broken clip never stops the others. A part is one clip, so that a stopped run loses at most one; the bytes are the
//! same however often it was stopped and however many machines shared the work.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Expert;
use super::clip::{Clip, Shape};
use super::grounding_dino::{DinoArgs, GroundingDino};
use super::motion::{Motion, MotionParams};
use super::world::{Dials, Oracle};
use crate::files::{read_jsonl, write_lines};
use crate::parts::{Parts, Shard};
use crate::tracks::detections::{FrameObjects, Object};

/// Clips in, detections out
#[derive(Clone, Debug, clap::Args)]
pub struct AnnotateArgs {
    /// Folder of videos, at any depth; a folder of numbered pictures is a clip too
    #[arg(long)]
    pub videos: PathBuf,
    /// Who looks
    #[arg(long, value_enum)]
    pub expert: Kind,
    /// Detections, JSON lines; what could not be read goes to NAME.skipped.jsonl beside it
    #[arg(long)]
    pub output: PathBuf,
    /// Only part I of N of the clips, such as 0/4, so that several machines can share them
    #[arg(long, value_name = "I/N", default_value = "0/1")]
    pub shard: Shard,
    #[command(flatten, next_help_heading = "Expert motion")]
    motion: MotionParams,
    /// Truth of the clips; VIDEOS/tracks.jsonl where absent
    #[arg(long, help_heading = "Expert world")]
    truth: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Expert world")]
    dials: Dials,
    #[command(flatten, next_help_heading = "Expert grounding-dino")]
    dino: DinoArgs,
}

/// `--expert`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// What moves before a camera that stands still; no weights.
    Motion,
    /// The truth of world clips, with dials for mistakes.
    World,
    /// Grounding DINO, an ONNX graph through ONNX Runtime.
    GroundingDino,
}

/// A clip that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The clip.
    pub video: String,
    /// Why.
    pub reason: String,
}

/// Runs `utr-train annotate`.
///
/// # Errors
/// A folder without clips, an expert that cannot start, an output that cannot be written, and the case that no clip could be read.
pub fn run(args: &AnnotateArgs) -> Result<()> {
    let all = Clip::all(&args.videos)?;
    let mut expert = expert(args)?;
    let mine = args.shard.range(all.len());
    let settings = format!(
        "{}; {} of {}, shard {}",
        expert.settings(),
        inventory(&all),
        args.videos.display(),
        args.shard
    );
    let parts = Parts::open(&args.output, &settings)?;
    let skipped_path = args.output.with_extension("skipped.jsonl");
    let skipped = Parts::open(&skipped_path, &settings)?;
    let bar = progress(mine.len());
    let began = Instant::now();
    let mut done = 0u64;
    for place in mine.clone() {
        let Some(clip) = all.get(place) else { break };
        bar.set_message(clip.name.clone());
        if !(parts.has(place) && skipped.has(place)) {
            let looked = look(expert.as_mut(), clip);
            let (lines, reason) = match looked {
                Ok(lines) => (lines, None),
                Err(error) => (Vec::new(), Some(format!("{error:#}"))),
            };
            if let Some(reason) = &reason {
                bar.suspend(|| eprintln!("left out: {}: {reason}", clip.name));
            }
            done += lines.len() as u64;
            let line = reason.map(|reason| Skipped { video: clip.name.clone(), reason });
            skipped.write(place, |out| write_lines(out, line))?;
            parts.write(place, |out| write_lines(out, &lines))?;
        }
        bar.inc(1);
        bar.set_prefix(format!("{:.0} frames/s", done as f64 / began.elapsed().as_secs_f64().max(1e-3)));
    }
    bar.finish_and_clear();
    parts.finish(mine.clone())?;
    skipped.finish(mine.clone())?;
    let lost: Vec<Skipped> = read_jsonl(&skipped_path)?;
    let rate = done as f64 / began.elapsed().as_secs_f64().max(1e-3);
    eprintln!("{} clips, {} left out, {done} frames at {rate:.0} frames/s", mine.len(), lost.len());
    if lost.is_empty() {
        std::fs::remove_file(&skipped_path)
            .with_context(|| format!("removing {}", skipped_path.display()))?;
    }
    ensure!(
        args.shard.of > 1 || lost.len() < mine.len(),
        "none of the {} clips could be read; the reasons are in {}",
        mine.len(),
        skipped_path.display()
    );
    println!("{}", args.output.display());
    Ok(())
}

/// Number, names and sizes of the clips in a word, so that a changed folder is noticed.
fn inventory(clips: &[Clip]) -> String {
    let mut digest = Sha256::new();
    for clip in clips {
        let size = std::fs::metadata(&clip.path).map_or(0, |m| if m.is_file() { m.len() } else { 0 });
        digest.update(format!("{}\n{size}\n", clip.name));
    }
    let digest: String = digest.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!("{} clips ({digest})", clips.len())
}

fn expert(args: &AnnotateArgs) -> Result<Box<dyn Expert>> {
    Ok(match args.expert {
        Kind::Motion => Box::new(Motion::new(args.motion)),
        Kind::World => {
            let truth = args.truth.clone().unwrap_or_else(|| args.videos.join("tracks.jsonl"));
            Box::new(Oracle::open(&truth, args.dials)?)
        }
        Kind::GroundingDino => {
            let dino = GroundingDino::open(&args.dino)?;
            if let Some(remark) = dino.remark() {
                eprintln!("{remark}");
            }
            Box::new(dino)
        }
    })
}

/// All lines of a clip. Its size and rate are known only at its end, so that they are filled in last.
fn look(expert: &mut dyn Expert, clip: &Clip) -> Result<Vec<FrameObjects>> {
    let mut frames: Vec<Vec<Object>> = Vec::new();
    let Shape { width, height, fps, cuts, .. } =
        expert.annotate(clip, &mut |objects| frames.push(objects))?;
    let line = |(frame, objects)| FrameObjects {
        video: clip.name.clone(),
        frame,
        width,
        height,
        fps: Some(fps),
        cut: cuts.contains(&frame),
        objects,
    };
    Ok((1u32..).zip(frames).map(line).collect())
}

fn progress(clips: usize) -> ProgressBar {
    let bar = ProgressBar::new(clips as u64);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {prefix} eta {eta} {msg}") {
        bar.set_style(style);
    }
    bar
}
