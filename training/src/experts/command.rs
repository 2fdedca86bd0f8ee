//! `utr-train annotate`: a folder of clips in, detections out.
//!
//! Comes in: a folder of videos and the name of an expert. Goes out: one line per frame (`detections`), and, beside it, one line per clip that could
//! not be read with the reason: a broken clip never stops the others. A part is one clip, so that a stopped run loses at most one; the bytes are the
//! same however often it was stopped and however many machines shared the work.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::Expert;
use super::clip::{Clip, Shape};
use super::content::{inventory, twins};
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
    /// Detections, JSON lines; what could not be read goes to NAME.skipped.jsonl beside it
    #[arg(long)]
    pub output: PathBuf,
    /// Only part I of N of the clips, such as 0/4, so that several machines can share them
    #[arg(long, value_name = "I/N", default_value = "0/1")]
    pub shard: Shard,
    /// Who looks.
    #[command(flatten)]
    pub expert: ExpertArgs,
}

/// Who looks, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct ExpertArgs {
    /// Who looks
    #[arg(long, value_enum, default_value = "motion")]
    pub expert: Kind,
    /// Look at every K-th frame only and let the tracker fill in what lies between; for slow experts
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub every: u32,
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
    annotate(args)?;
    println!("{}", args.output.display());
    Ok(())
}

/// Where the clips that could not be used are listed.
pub fn skipped_path(detections: &Path) -> PathBuf {
    detections.with_extension("skipped.jsonl")
}

/// The same without a word on standard output.
pub fn annotate(args: &AnnotateArgs) -> Result<()> {
    let mut all = Clip::all(&args.videos)?;
    all.iter_mut().for_each(|clip| clip.every = args.expert.every);
    let twins = twins(&all);
    let mut expert = args.expert.open(&args.videos)?;
    let mine = args.shard.range(all.len());
    let settings = format!(
        "{}, every {}; {}, shard {}",
        expert.settings(),
        args.expert.every,
        inventory(&all),
        args.shard
    );
    let parts = Parts::open(&args.output, &settings)?;
    let skipped_path = skipped_path(&args.output);
    let skipped = Parts::open(&skipped_path, &settings)?;
    let bar = progress(mine.len());
    let began = Instant::now();
    let mut done = 0u64;
    for place in mine.clone() {
        let Some(clip) = all.get(place) else { break };
        bar.set_message(clip.name.clone());
        if !(parts.has(place) && skipped.has(place)) {
            let (lines, left_out) = looked_at(expert.as_mut(), clip, twins.get(&place));
            if let Some(Skipped { video, reason }) = &left_out {
                bar.suspend(|| eprintln!("left out: {video}: {reason}"));
            }
            done += lines.len() as u64;
            skipped.write(place, |out| write_lines(out, left_out))?;
            parts.write(place, |out| write_lines(out, &lines))?;
        }
        bar.inc(1);
        bar.set_prefix(format!("{:.0} frames/s", done as f64 / began.elapsed().as_secs_f64().max(1e-3)));
    }
    bar.finish_and_clear();
    // Whoever has the detections has the list of what is not in them.
    skipped.join(mine.clone())?;
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
    parts.join(mine)?;
    skipped.remove()?;
    parts.remove()
}

/// The lines of a clip, or why there are none; `twin` is an earlier clip with the same content.
fn looked_at(
    expert: &mut dyn Expert,
    clip: &Clip,
    twin: Option<&String>,
) -> (Vec<FrameObjects>, Option<Skipped>) {
    let looked = match twin {
        Some(first) => Err(anyhow!("has the same content as {first}")),
        None => look(expert, clip),
    };
    looked.map_or_else(
        |error| {
            let reason = unnumbered(&format!("{error:#}"));
            (Vec::new(), Some(Skipped { video: clip.name.clone(), reason }))
        },
        |lines| (lines, None),
    )
}

/// A reason without the numbers that GStreamer gives its elements in the order they are made (`GstQTDemux:qtdemux2`, `/GstPipeline:pipeline5`): the same clip has the same reason
/// wherever it stands.
fn unnumbered(reason: &str) -> String {
    let mut pieces = reason.split("Gst");
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        text.push_str("Gst");
        // `QTDemux:qtdemux2: …`: class, name with its number, rest.
        let named = piece.split_once(':').filter(|(class, _)| class.chars().all(char::is_alphanumeric));
        let Some((class, rest)) = named else {
            text.push_str(piece);
            continue;
        };
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_-".contains(c))).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        text.extend([class, ":", name.trim_end_matches(|c: char| c.is_ascii_digit()), rest]);
    }
    text
}

impl ExpertArgs {
    /// The expert, ready to look at the clips of `videos`.
    fn open(&self, videos: &Path) -> Result<Box<dyn Expert>> {
        Ok(match self.expert {
            Kind::Motion => Box::new(Motion::new(self.motion)),
            Kind::World => {
                let truth = self.truth.clone().unwrap_or_else(|| videos.join("tracks.jsonl"));
                Box::new(Oracle::open(&truth, self.dials)?)
            }
            Kind::GroundingDino => {
                let dino = GroundingDino::open(&self.dino)?;
                if let Some(remark) = dino.remark() {
                    eprintln!("{remark}");
                }
                Box::new(dino)
            }
        })
    }
}

/// All lines of a clip. Its size and rate are known only at its end, so that they are filled in last; the last frame has a line even where nobody
/// looked at it, so that the length is known.
fn look(expert: &mut dyn Expert, clip: &Clip) -> Result<Vec<FrameObjects>> {
    let mut seen: Vec<Vec<Object>> = Vec::new();
    let Shape { width, height, frames, fps, times_ms, cuts } =
        expert.annotate(clip, &mut |objects| seen.push(objects))?;
    let every = clip.every.max(1);
    let mut looked: Vec<(u32, Vec<Object>)> = (1..).step_by(every as usize).zip(seen).collect();
    if looked.last().is_none_or(|(last, _)| *last < frames) {
        looked.push((frames, Vec::new()));
    }
    let line = |(frame, objects): (u32, Vec<Object>)| FrameObjects {
        video: clip.name.clone(),
        frame,
        width,
        height,
        fps: Some(fps),
        time_ms: times_ms.get(frame as usize - 1).copied(),
        every: (every > 1).then_some(every),
        cut: cuts.contains(&frame),
        objects,
    };
    Ok(looked.into_iter().map(line).collect())
}

fn progress(clips: usize) -> ProgressBar {
    let bar = ProgressBar::new(clips as u64);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {prefix} eta {eta} {msg}") {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_do_not_depend_on_how_many_clips_came_before() {
        let reason = "reading a.mp4: GstQTDemux:qtdemux12: none (a.c(509): /GstPipeline:pipeline7/GstQTDemux:qtdemux12:); after 10 s, 3 frames of a2b.mp4";
        let wanted = "reading a.mp4: GstQTDemux:qtdemux: none (a.c(509): /GstPipeline:pipeline/GstQTDemux:qtdemux:); after 10 s, 3 frames of a2b.mp4";
        assert_eq!(unnumbered(reason), wanted);
    }
}
