//! `utr-train track`: detections in, tracks out.
//!
//! Comes in: detections as JSON lines or MOTChallenge text. Goes out: tracks as JSON lines or MOTChallenge text; the endings of the file names
//! decide. Progress goes to standard error.

use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use super::byte::{ByteParams, ByteTracker};
use super::detections::{self, ClipObjects, Object};
use super::frames::Frames;
use super::merge::merge;
use super::metrics::{Scores, evaluate};
use super::mot::{self, Labelled, presentable};
use super::sort::{IouTracker, Sort, SortParams};
use super::{Detection, Seen, Tracker};
use crate::files::{distinct, write_atomic, write_jsonl};
use crate::parts::Shard;
use crate::queries::tracks::read_tracks;
use crate::queries::{ClipTracks, TrackBox};

/// Detections in, tracks out
#[derive(Clone, Debug, clap::Args)]
pub struct TrackArgs {
    /// Detections: JSON lines, or MOTChallenge text (`.txt`)
    #[arg(long)]
    pub detections: PathBuf,
    /// Tracks: JSON lines, or MOTChallenge text (`.txt`) where the detections are
    #[arg(long)]
    pub output: PathBuf,
    /// Who tracks.
    #[command(flatten)]
    pub tracker: TrackerArgs,
    /// Frames per second, where the detections do not say; the tracker's patience is counted in seconds
    #[arg(long)]
    frame_rate: Option<f64>,
    /// Also scores the tracks against these true ones (JSON lines): MOTA, IDF1 and HOTA, means over clips
    #[arg(long, value_name = "TRACKS")]
    truth: Option<PathBuf>,
    /// Only part I of N of the clips, such as 0/4, so that several machines can share them
    #[arg(long, value_name = "I/N", default_value = "0/1")]
    shard: Shard,
}

/// Who tracks, and what is left out.
#[derive(Clone, Debug, clap::Args)]
pub struct TrackerArgs {
    /// Which tracker
    #[arg(long, value_enum, default_value = "byte-track")]
    pub tracker: Kind,
    #[command(flatten)]
    byte: ByteParams,
    /// Leave out boxes that are wider than this many times their height (1.6 in the original, for pedestrians)
    #[arg(long)]
    pub aspect_ratio_thresh: Option<f64>,
    /// Leave out boxes of at most this many square pixels
    #[arg(long, default_value_t = 10.0)]
    pub min_box_area: f64,
}

/// `--tracker`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// ByteTrack, exactly as the original.
    ByteTrack,
    /// SORT.
    Sort,
    /// Overlap with the last box, nothing predicted.
    Iou,
}

impl TrackerArgs {
    /// A tracker with its usual thresholds.
    pub fn plain(tracker: Kind) -> Self {
        Self { tracker, byte: ByteParams::default(), aspect_ratio_thresh: None, min_box_area: 10.0 }
    }

    fn tracker(&self, frame_rate: f64) -> Box<dyn Tracker> {
        let min_score = self.byte.track_thresh;
        match self.tracker {
            Kind::ByteTrack => Box::new(ByteTracker::new(ByteParams { frame_rate, ..self.byte })),
            Kind::Sort => Box::new(Sort::new(SortParams { min_score, ..SortParams::default() })),
            Kind::Iou => Box::new(IouTracker::new(0.3, min_score)),
        }
    }

    /// Refuses thresholds that make no sense.
    ///
    /// # Errors
    /// The option, its value and its range.
    pub fn check(&self) -> Result<()> {
        let Self { byte, min_box_area, aspect_ratio_thresh, .. } = self;
        let shares = [("track-thresh", byte.track_thresh), ("match-thresh", byte.match_thresh)];
        for (name, value) in shares {
            ensure!((0.0..=1.0).contains(&value), "--{name} {value}: between 0 and 1");
        }
        ensure!(*min_box_area >= 0.0, "--min-box-area {min_box_area}: at least 0");
        ensure!(aspect_ratio_thresh.is_none_or(|ratio| ratio > 0.0), "--aspect-ratio-thresh must be above 0");
        Ok(())
    }

    /// The tracks of a clip; `rate` counts before the clip's own.
    pub fn clip(&self, clip: &ClipObjects, rate: Option<f64>) -> ClipTracks {
        let rate = rate.or(clip.fps).unwrap_or(ByteParams::default().frame_rate);
        let mut all = Vec::new();
        let each = |frame, seen| {
            all.push((frame, seen));
            Ok(())
        };
        let Ok(()) = self.track::<_, Infallible>(
            (rate, clip.every),
            &clip.cuts,
            &clip.frames,
            Object::detection,
            each,
        );
        merge(clip, &all.into_iter().collect(), rate)
    }

    /// Hands on what is seen in every frame that was looked at (1, 1 + every, …); at a cut everything is forgotten, so that no track crosses it.
    fn track<T, E>(
        &self,
        (rate, every): (f64, u32),
        cuts: &[u32],
        frames: &Frames<T>,
        detection: impl Fn(&T) -> Detection,
        mut each: impl FnMut(u32, Seen) -> Result<(), E>,
    ) -> Result<(), E> {
        let rate = rate / f64::from(every);
        let mut tracker = self.tracker(rate);
        // Ids of an earlier shot are not used again.
        let (mut before, mut highest) = (0, 0);
        let mut detections = Vec::new();
        for (frame, items) in frames.iter().step_by(every as usize) {
            if cuts.binary_search(&frame).is_ok() {
                (tracker, before) = (self.tracker(rate), highest);
            }
            detections.clear();
            detections.extend(items.iter().map(&detection));
            for seen in tracker.update(&detections) {
                let seen = Seen { id: seen.id + before, ..seen };
                highest = highest.max(seen.id);
                if presentable(&seen, self.min_box_area, self.aspect_ratio_thresh) {
                    each(frame, seen)?;
                }
            }
        }
        Ok(())
    }
}

/// Runs `utr-train track`.
///
/// # Errors
/// Files that cannot be read or written, with the line at fault, and parameters out of range.
pub fn run(args: &TrackArgs) -> Result<()> {
    distinct(&[&args.detections], &args.output)?;
    if let Some(truth) = &args.truth {
        ensure!(truth.is_file(), "--truth {} is not a file", truth.display());
        distinct(&[truth], &args.output)?;
    }
    args.tracker.check()?;
    if let Some(rate) = args.frame_rate {
        ensure!(rate.is_finite() && rate > 0.0, "--frame-rate {rate}: the rate must be above zero");
    }
    let is_text = |path: &PathBuf| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("txt"));
    let began = Instant::now();
    let (frames, ids) = match (is_text(&args.detections), is_text(&args.output)) {
        (true, true) => text(args)?,
        (false, false) => clips(args)?,
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

/// Text to text; returns the number of frames and of tracks.
fn text(args: &TrackArgs) -> Result<(u64, usize)> {
    ensure!(
        args.truth.is_none(),
        "--truth scores JSON lines; MOTChallenge text has evaluation kits of its own"
    );
    ensure!(args.shard.of == 1, "--shard parts JSON lines by clip; MOTChallenge text is one clip");
    let rate = args.frame_rate.unwrap_or(ByteParams::default().frame_rate);
    let frames = mot::read_detections(&args.detections)?;
    let mut ids = HashSet::new();
    write_atomic(&args.output, |out| {
        let each = |frame, seen: Seen| {
            ids.insert(seen.id);
            mot::write_result(out, frame, &seen)
        };
        args.tracker.track((rate, 1), &[], &frames, |detection| *detection, each)
    })?;
    Ok((u64::from(frames.len()), ids.len()))
}

/// JSON lines to JSON lines; returns the number of frames and of tracks.
fn clips(args: &TrackArgs) -> Result<(u64, usize)> {
    let truth = args.truth.as_deref().map(read_tracks).transpose()?;
    let clips = detections::read(&args.detections)?;
    let clips = &clips[args.shard.range(clips.len())];
    let tracks: Vec<ClipTracks> = clips.iter().map(|clip| args.tracker.clip(clip, args.frame_rate)).collect();
    write_jsonl(&args.output, &tracks)?;
    if let Some(truth) = truth {
        let scores = score(&truth, &tracks);
        ensure!(!scores.is_empty(), "--truth holds none of the {} tracked clips", tracks.len());
        let mean = |f: fn(&Scores) -> f64| scores.iter().map(f).sum::<f64>() / scores.len() as f64;
        eprintln!(
            "{} clips with truth: MOTA {:.3}, IDF1 {:.3}, HOTA {:.3}",
            scores.len(),
            mean(|s| s.mota),
            mean(|s| s.idf1),
            mean(|s| s.hota)
        );
    }
    let frames = clips.iter().map(|c| u64::from(c.frames.len())).sum();
    Ok((frames, tracks.iter().map(|t| t.tracks.len()).sum()))
}

/// Scores of every found clip that the truth knows, in their order.
pub fn score(truth: &[ClipTracks], found: &[ClipTracks]) -> Vec<Scores> {
    let truth: HashMap<&str, &ClipTracks> = truth.iter().map(|t| (t.video.as_str(), t)).collect();
    let known = |f: &ClipTracks| Some(evaluate(&labelled(truth.get(f.video.as_str())?), &labelled(f)));
    found.iter().filter_map(known).collect()
}

/// Boxes by frame.
fn labelled(clip: &ClipTracks) -> Frames<Labelled> {
    let boxes = clip.tracks.iter().flat_map(|track| track.boxes.iter().map(move |b| (track.id, b)));
    let label = |(id, b): (u32, &TrackBox)| {
        let [x1, y1, x2, y2] = b.xyxy.map(f64::from);
        (b.frame, Labelled { id, tlwh: [x1, y1, x2 - x1, y2 - y1], score: 1.0 })
    };
    boxes.map(label).collect()
}
