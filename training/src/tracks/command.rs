//! `utr-train track`: detections in, tracks out.
//!
//! Comes in: detections as JSON lines or MOTChallenge text. Goes out: tracks as JSON lines or MOTChallenge text; the endings of the file names
//! decide. Progress goes to standard error.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use super::byte::{ByteParams, ByteTracker};
use super::detections::{self, ClipObjects};
use super::merge::merge;
use super::mot::{self, presentable};
use super::sort::{IouTracker, Sort, SortParams};
use super::{Detection, Seen, Tracker};
use crate::files::write_jsonl;
use crate::parts::Shard;

/// Detections in, tracks out
#[derive(Clone, Debug, clap::Args)]
pub struct TrackArgs {
    /// Detections: JSON lines, or MOTChallenge text (`.txt`)
    #[arg(long)]
    pub detections: PathBuf,
    /// Which tracker
    #[arg(long, value_enum, default_value = "byte-track")]
    pub tracker: Kind,
    /// Tracks: JSON lines, or MOTChallenge text (`.txt`) where the detections are
    #[arg(long)]
    pub output: PathBuf,
    #[command(flatten)]
    byte: ByteParams,
    /// Frames per second, where the detections do not say; the tracker's patience is counted in seconds
    #[arg(long)]
    frame_rate: Option<f64>,
    /// Only part I of N of the clips, such as 0/4, so that several machines can share them
    #[arg(long, value_name = "I/N", default_value = "0/1")]
    shard: Shard,
    /// Leave out boxes that are wider than this many times their height (1.6 in the original, for pedestrians)
    #[arg(long)]
    pub aspect_ratio_thresh: Option<f64>,
    /// Leave out boxes of at most this many square pixels
    #[arg(long, default_value_t = 10.0)]
    pub min_box_area: f64,
}

/// `--tracker`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// ByteTrack, exactly as the original.
    ByteTrack,
    /// SORT.
    Sort,
    /// Overlap with the last box, nothing predicted.
    Iou,
}

impl TrackArgs {
    fn tracker(&self, frame_rate: f64) -> Box<dyn Tracker> {
        let min_score = self.byte.track_thresh;
        match self.tracker {
            Kind::ByteTrack => Box::new(ByteTracker::new(ByteParams { frame_rate, ..self.byte })),
            Kind::Sort => Box::new(Sort::new(SortParams { min_score, ..SortParams::default() })),
            Kind::Iou => Box::new(IouTracker::new(0.3, min_score)),
        }
    }

    /// Tracks of frames 1, 2, …; at a cut everything is forgotten, so that no track crosses it.
    fn track(&self, rate: f64, cuts: &[u32], frames: impl Iterator<Item = Vec<Detection>>) -> Vec<Vec<Seen>> {
        let mut tracker = self.tracker(rate);
        // Ids of an earlier shot are not used again.
        let (mut before, mut highest) = (0, 0);
        let keep = |seen: &Seen| presentable(seen, self.min_box_area, self.aspect_ratio_thresh);
        let mut shot = |frame: u32, detections: Vec<Detection>| {
            if cuts.contains(&frame) {
                (tracker, before) = (self.tracker(rate), highest);
            }
            let mut seen = tracker.update(&detections);
            seen.iter_mut().for_each(|s| s.id += before);
            highest = seen.iter().map(|s| s.id).fold(highest, u32::max);
            seen.retain(keep);
            seen
        };
        (1..).zip(frames).map(|(frame, detections)| shot(frame, detections)).collect()
    }
}

/// Runs `utr-train track`.
///
/// # Errors
/// Files that cannot be read or written, with the line at fault, and parameters out of range.
pub fn run(args: &TrackArgs) -> Result<()> {
    let given = args.frame_rate;
    ensure!(
        given.is_none_or(|rate| rate.is_finite() && rate > 0.0),
        "--frame-rate {}: the rate must be above zero",
        given.unwrap_or_default()
    );
    let usual = ByteParams::default().frame_rate;
    let is_text = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "txt");
    let began = Instant::now();
    let (frames, ids) = match (is_text(&args.detections), is_text(&args.output)) {
        (true, true) => {
            ensure!(args.shard.of == 1, "--shard parts JSON lines by clip; MOTChallenge text is one clip");
            let seen =
                args.track(given.unwrap_or(usual), &[], mot::read_detections(&args.detections)?.into_iter());
            mot::write_results(&args.output, &seen)?;
            (seen.len(), distinct(&seen))
        }
        (false, false) => {
            let clips = detections::read(&args.detections)?;
            let clips = &clips[args.shard.range(clips.len())];
            let tracked = |clip: &ClipObjects| {
                let rate = given.or(clip.fps).unwrap_or(usual);
                let seen = args.track(
                    rate,
                    &clip.cuts,
                    clip.frames.iter().map(|f| f.iter().map(|o| o.detection()).collect()),
                );
                merge(clip, &seen, rate)
            };
            let tracks: Vec<_> = clips.iter().map(tracked).collect();
            write_jsonl(&args.output, &tracks)?;
            (clips.iter().map(|c| c.frames.len()).sum(), tracks.iter().map(|t| t.tracks.len()).sum())
        }
        _ => bail!(
            "--detections {} and --output {} must both be MOTChallenge text (.txt) or both JSON lines: text carries neither sizes nor names",
            args.detections.display(),
            args.output.display()
        ),
    };
    let seconds = began.elapsed().as_secs_f64();
    eprintln!(
        "{frames} frames, {ids} tracks, {:.0} frames/s with reading and writing",
        frames as f64 / seconds.max(1e-9)
    );
    println!("{}", args.output.display());
    Ok(())
}

fn distinct(seen: &[Vec<Seen>]) -> usize {
    seen.iter().flatten().map(|s| s.id).collect::<std::collections::BTreeSet<_>>().len()
}
