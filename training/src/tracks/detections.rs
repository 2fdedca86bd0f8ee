//! Detections: what an expert found in each frame, as files.
//!
//! Comes in and goes out: JSON lines, one frame a line (`{video, frame, width, height, objects: [...]}`), boxes in pixels, frames counted from 1. A
//! frame without a line is empty and still a frame. Nothing is found and nothing is tracked here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use anyhow::ensure;
use serde::{Deserialize, Serialize};
use utr_models::{Error, Result};

use super::Detection;
use super::frames::{Frames, check_frame};
use crate::files::read_jsonl;

/// What was found in one frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameObjects {
    /// The clip's name.
    pub video: String,
    /// From 1.
    pub frame: u32,
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Frames per second of the clip, where the expert knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fps: Option<f64>,
    /// When the frame is shown, in milliseconds from the first; given where the rate varies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_ms: Option<u64>,
    /// Every how many frames somebody looked at the clip, where not at each: frames 1, 1 + every, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<u32>,
    /// The frame begins a new shot.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cut: bool,
    /// In the expert's order.
    pub objects: Vec<Object>,
}

fn is_false(value: &bool) -> bool {
    !*value
}

/// One box with what is known of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// Left, top, right, bottom in pixels.
    pub xyxy: [f32; 4],
    /// 0 to 1.
    pub score: f32,
    /// The class, such as `ball`.
    pub category: String,
    /// How it looks, such as `large red`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appearance: Option<String>,
    /// What it is doing in this frame, such as `moves left`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// A sentence about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
}

impl Object {
    /// What a tracker needs of it.
    pub fn detection(&self) -> Detection {
        Detection { xyxy: self.xyxy.map(f64::from), score: f64::from(self.score) }
    }
}

/// One clip's detections.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipObjects {
    /// The clip's name.
    pub video: String,
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Frames per second, where known.
    pub fps: Option<f64>,
    /// Frames (from 1) that begin a new shot, in order.
    pub cuts: Vec<u32>,
    /// When each frame is shown, in milliseconds from the first; empty where the rate does not vary.
    pub times_ms: Vec<u64>,
    /// Every how many frames somebody looked: frames 1, 1 + every, …
    pub every: u32,
    /// What is in frame 1, 2, …; gaps are empty.
    pub frames: Frames<Object>,
}

/// A clip while its lines come.
struct Gathering {
    video: String,
    size: [u32; 2],
    fps: Option<f64>,
    cuts: Vec<u32>,
    times: BTreeMap<u32, u64>,
    every: u32,
    given: HashSet<u32>,
    objects: Vec<(u32, Object)>,
}

impl Gathering {
    fn new(first: &FrameObjects) -> Self {
        Self {
            video: first.video.clone(),
            size: [first.width, first.height],
            fps: None,
            cuts: Vec::new(),
            times: BTreeMap::new(),
            every: first.every.unwrap_or(1),
            given: HashSet::new(),
            objects: Vec::new(),
        }
    }

    /// Takes a line in, or says what is wrong with it.
    fn take(&mut self, line: FrameObjects) -> anyhow::Result<()> {
        let FrameObjects { video: _, frame, width, height, fps, time_ms, every, cut, objects } = line;
        check_frame(f64::from(frame))?;
        let every = every.unwrap_or(1);
        ensure!(every > 0 && every == self.every, "every {every} frames after {}", self.every);
        ensure!(width > 0 && height > 0, "{width}x{height} pixels: both sides must be above zero");
        ensure!(
            self.size == [width, height],
            "{width}x{height} pixels after {}x{}",
            self.size[0],
            self.size[1]
        );
        ensure!(self.given.insert(frame), "the frame is given twice");
        if let Some(rate) = fps {
            ensure!(rate.is_finite() && rate > 0.0, "{rate} frames per second: the rate must be above zero");
            let before = *self.fps.get_or_insert(rate);
            ensure!(before == rate, "{rate} frames per second after {before}");
        }
        for object in &objects {
            object.detection().check()?;
            ensure!((0.0..=1.0).contains(&object.score), "score {} is not between 0 and 1", object.score);
        }
        if cut {
            self.cuts.push(frame);
        }
        self.times.extend(time_ms.map(|time| (frame, time)));
        self.objects.extend(objects.into_iter().map(|object| (frame, object)));
        Ok(())
    }

    fn finish(mut self) -> ClipObjects {
        self.cuts.sort_unstable();
        let last = self.given.into_iter().max().unwrap_or(0);
        ClipObjects {
            video: self.video,
            width: self.size[0],
            height: self.size[1],
            fps: self.fps,
            cuts: self.cuts,
            times_ms: times(&self.times, last),
            every: self.every,
            frames: Frames::from_iter(self.objects).at_least(last),
        }
    }
}

/// The times of frames 1 to `last` from those that are known, evenly between them; nothing where the first or the last is not known, or they fall.
fn times(known: &BTreeMap<u32, u64>, last: u32) -> Vec<u64> {
    let ends = known.contains_key(&1) && known.contains_key(&last);
    let points: Vec<(u32, u64)> = known.iter().map(|(frame, time)| (*frame, *time)).collect();
    if !ends || points.windows(2).any(|w| w[1].1 < w[0].1) {
        return Vec::new();
    }
    let mut times: Vec<u64> = points.first().map(|(_, time)| *time).into_iter().collect();
    for pair in points.windows(2) {
        let ((from, start), (to, end)) = (pair[0], pair[1]);
        let between = |frame: u32| start + (end - start) * u64::from(frame - from) / u64::from(to - from);
        times.extend((from + 1..=to).map(between));
    }
    times
}

/// Reads a file and gathers it by clip, in the order in which clips first come.
///
/// # Errors
/// The file, the clip and the frame that is wrong: a box without area, a frame counted from 0 or given twice, sizes or rates that change.
pub fn read(path: &Path) -> Result<Vec<ClipObjects>> {
    let mut clips: Vec<Gathering> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for line in read_jsonl::<FrameObjects>(path)? {
        let place = *places.entry(line.video.clone()).or_insert_with(|| {
            clips.push(Gathering::new(&line));
            clips.len() - 1
        });
        let here = format!("{}, frame {}", line.video, line.frame);
        clips[place].take(line).map_err(|what| Error::format(path, format!("{here}: {what}")))?;
    }
    Ok(clips.into_iter().map(Gathering::finish).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::write_jsonl;

    fn line(video: &str, frame: u32) -> FrameObjects {
        let object = Object {
            xyxy: [1.0, 2.0, 11.0, 22.0],
            score: 0.5,
            category: "ball".into(),
            appearance: None,
            action: None,
            caption: None,
        };
        FrameObjects {
            video: video.into(),
            frame,
            width: 64,
            height: 48,
            fps: None,
            time_ms: None,
            every: None,
            cut: false,
            objects: vec![object],
        }
    }

    fn read_back(lines: &[FrameObjects]) -> Result<Vec<ClipObjects>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("detections.jsonl");
        write_jsonl(&path, lines).unwrap();
        read(&path)
    }

    #[test]
    fn clips_are_gathered_and_gaps_are_empty_frames() {
        let clips = read_back(&[line("a", 1), line("b", 2), line("a", 4)]).unwrap();
        let counts = |c: &ClipObjects| c.frames.iter().map(|(_, objects)| objects.len()).collect::<Vec<_>>();
        assert_eq!((clips[0].video.as_str(), counts(&clips[0])), ("a", vec![1, 0, 0, 1]));
        assert_eq!((clips[1].video.as_str(), counts(&clips[1])), ("b", vec![0, 1]));
    }

    #[test]
    fn a_last_frame_without_objects_counts_and_a_late_line_may_tell_the_rate() {
        let empty = FrameObjects { objects: Vec::new(), fps: Some(29.97), ..line("a", 9_999_999) };
        let clips = read_back(&[line("a", 3), line("a", 1), empty]).unwrap();
        assert_eq!((clips[0].frames.len(), clips[0].fps), (9_999_999, Some(29.97)));
        assert_eq!((clips[0].frames.at(1).len(), clips[0].frames.at(2).len()), (1, 0));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let with = |change: fn(&mut FrameObjects)| {
            let mut bad = line("a", 2);
            change(&mut bad);
            bad
        };
        for (bad, words) in [
            (line("a", 0), "frame 0 is not"),
            (line("a", u32::MAX), "from 1 to 10000000"),
            (line("a", 1), "twice"),
            (with(|l| l.objects[0].xyxy[2] = 1.0), "no area"),
            (with(|l| l.objects[0].xyxy[2] = 1e20), "beyond"),
            (with(|l| l.objects[0].score = 1.5), "score 1.5"),
            (with(|l| l.width = 65), "65x48"),
            (with(|l| l.fps = Some(0.0)), "above zero"),
            (with(|l| l.fps = Some(30.0)), "after 25"),
        ] {
            let first = FrameObjects { fps: Some(25.0), ..line("a", 1) };
            let message = read_back(&[first, bad]).unwrap_err().to_string();
            assert!(message.contains(words) && message.contains("detections.jsonl"), "{message}");
        }
        let flat = FrameObjects { height: 0, ..line("a", 1) };
        assert!(read_back(&[flat]).unwrap_err().to_string().contains("64x0"));
    }
}
