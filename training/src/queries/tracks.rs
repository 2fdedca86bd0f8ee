//! Tracks: what every object of a clip did, where, and when.
//!
//! In and out: JSON lines, one clip a line (`{video, fps, width, height, frames, tracks: [...]}`), boxes in pixels,
//! frames counted from 1. Written by the tracker or by the world's ground truth, read by the conversation generator.
//! Nothing is tracked or drawn here.

use std::collections::HashSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use utr_models::{Error, Result};
use utr_runtime::sample::uniform_indices;

use crate::files::read_jsonl;
use crate::tracks::frames::MOST_FRAMES;

/// One clip's tracks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipTracks {
    /// The clip's name: a path below the media root, or a made-up name for a clip that lives in memory.
    pub video: String,
    /// Frames per second.
    pub fps: f64,
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Frames in the clip; boxes and actions count them from 1.
    pub frames: u32,
    /// When each frame is shown, in milliseconds from the first; empty where `fps` says it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub times_ms: Vec<u64>,
    /// Every object seen, in the order of its first frame.
    pub tracks: Vec<Track>,
}

/// One object through the clip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Track {
    /// Unique within the clip.
    pub id: u32,
    /// The class name, such as `ball`.
    pub category: String,
    /// How it looks, such as `large red striped`; may be empty.
    pub appearance: String,
    /// One box for each frame in which it can be seen, in frame order.
    pub boxes: Vec<TrackBox>,
    /// What it does, in order of start.
    pub actions: Vec<TrackAction>,
}

/// Where an object is in one frame.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrackBox {
    /// Frame number, from 1.
    pub frame: u32,
    /// Left, top, right, bottom in pixels.
    pub xyxy: [f32; 4],
    /// The detector's confidence, 0 to 1.
    pub score: f32,
}

/// Something an object does, with both end frames included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrackAction {
    /// First frame, from 1.
    pub start: u32,
    /// Last frame.
    pub end: u32,
    /// A verb phrase in the third person, such as `moves left`.
    pub text: String,
}

impl Track {
    /// Appearance and category: `large red striped ball`.
    pub fn name(&self) -> String {
        if self.appearance.is_empty() {
            return self.category.clone();
        }
        format!("{} {}", self.appearance, self.category)
    }

    /// The box in `frame`, if the object is seen there.
    pub fn at(&self, frame: u32) -> Option<&TrackBox> {
        self.boxes.iter().find(|b| b.frame == frame)
    }
}

impl ClipTracks {
    /// The same clip reduced to `count` frames spaced as the evaluation samples them
    /// (`linspace(0, frames - 1, count)`, truncated; reference.md §6.1) and renumbered 1 to `count`.
    ///
    /// An action keeps the sampled frames it covers and is dropped where it covers none.
    pub fn sampled(&self, count: u32) -> ClipTracks {
        let picked = self.sampled_frames(count);
        let tracks = self.tracks.iter().filter_map(|t| resample(t, &picked)).collect();
        let fps = if self.frames > 1 && count > 1 {
            self.fps * f64::from(count - 1) / f64::from(self.frames - 1)
        } else {
            self.fps
        };
        let times_ms = picked.iter().map(|f| (self.seconds(*f) * 1000.0).round() as u64).collect();
        ClipTracks { video: self.video.clone(), fps, frames: count, times_ms, tracks, ..*self }
    }

    /// The frame numbers (from 1) that [`ClipTracks::sampled`] takes.
    pub fn sampled_frames(&self, count: u32) -> Vec<u32> {
        let picked = uniform_indices(self.frames as usize, count as usize);
        picked.into_iter().map(|index| index as u32 + 1).collect()
    }

    /// What makes no sense in it.
    fn fault(&self) -> Option<String> {
        if self.frames == 0 || self.frames > MOST_FRAMES {
            return Some(format!("{} frames; from 1 to {MOST_FRAMES} are believed", self.frames));
        }
        if self.width == 0 || self.height == 0 || !(self.fps.is_finite() && self.fps > 0.0) {
            let Self { width, height, fps, .. } = self;
            return Some(format!("{width}x{height} pixels at {fps} frames a second: all must be above zero"));
        }
        let rising = self.times_ms.windows(2).all(|w| w[0] <= w[1]);
        if !rising || !(self.times_ms.is_empty() || self.times_ms.len() == self.frames as usize) {
            return Some(format!("{} times for {} frames; they must rise", self.times_ms.len(), self.frames));
        }
        let mut ids = HashSet::new();
        for Track { id, boxes, .. } in &self.tracks {
            let mut before = 0;
            for TrackBox { frame, xyxy, .. } in boxes {
                if *frame <= before || *frame > self.frames {
                    return Some(format!("track {id}: frame {frame} after {before} of {}", self.frames));
                }
                if !xyxy.iter().all(|v| v.is_finite()) {
                    return Some(format!("track {id}, frame {frame}: a number is not finite"));
                }
                before = *frame;
            }
            if !ids.insert(id) {
                return Some(format!("id {id} is given twice"));
            }
        }
        None
    }

    /// When `frame` (from 1) is shown, in seconds from the first.
    pub fn seconds(&self, frame: u32) -> f64 {
        let before = frame.saturating_sub(1);
        match self.times_ms.get(before as usize) {
            Some(ms) => *ms as f64 / 1000.0,
            None => f64::from(before) / self.fps.max(f64::MIN_POSITIVE),
        }
    }
}

fn resample(track: &Track, picked: &[u32]) -> Option<Track> {
    let numbered = || (1u32..).zip(picked.iter().copied());
    let boxes: Vec<TrackBox> =
        numbered().filter_map(|(n, f)| track.at(f).map(|b| TrackBox { frame: n, ..*b })).collect();
    let inside = |a: &TrackAction| {
        let mut covered = numbered().filter(|(_, f)| (a.start..=a.end).contains(f)).map(|(n, _)| n);
        let start = covered.next()?;
        Some(TrackAction { start, end: covered.last().unwrap_or(start), text: a.text.clone() })
    };
    let actions = track.actions.iter().filter_map(inside).collect();
    (!boxes.is_empty()).then(|| Track { boxes, actions, ..track.clone() })
}

/// Reads a tracks file.
///
/// # Errors
/// Names the file and the line that is not a clip's tracks, or the clip that contradicts itself or another.
pub fn read_tracks(path: &Path) -> Result<Vec<ClipTracks>> {
    let clips: Vec<ClipTracks> = read_jsonl(path)?;
    let mut videos = HashSet::new();
    for clip in &clips {
        let fault = if videos.insert(&clip.video) { clip.fault() } else { Some("is given twice".into()) };
        if let Some(fault) = fault {
            return Err(Error::format(path, format!("clip {}: {fault}", clip.video)));
        }
    }
    Ok(clips)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::write_jsonl;

    fn clip(frames: u32) -> ClipTracks {
        let boxes =
            (1..=frames).map(|frame| TrackBox { frame, xyxy: [frame as f32, 0.0, 9.0, 9.0], score: 1.0 });
        let actions = vec![
            TrackAction { start: 1, end: frames, text: "moves left".into() },
            TrackAction { start: 2, end: 2, text: "blinks".into() },
        ];
        let track = Track {
            id: 7,
            category: "ball".into(),
            appearance: "red".into(),
            boxes: boxes.collect(),
            actions,
        };
        ClipTracks {
            video: "a.mp4".into(),
            fps: 8.0,
            width: 64,
            height: 64,
            frames,
            times_ms: vec![],
            tracks: vec![track],
        }
    }

    #[test]
    fn a_tracks_file_reads_back_as_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/tracks.jsonl");
        let clips = vec![clip(3), ClipTracks { video: "b.mp4".into(), ..clip(5) }];
        write_jsonl(&path, &clips).unwrap();
        assert_eq!(read_tracks(&path).unwrap(), clips);
    }

    #[test]
    fn a_broken_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tracks.jsonl");
        std::fs::write(&path, "\n{\"video\": 3}\n").unwrap();
        let message = read_tracks(&path).unwrap_err().to_string();
        assert!(message.contains("tracks.jsonl") && message.contains("line 2"), "{message}");
    }

    #[test]
    fn a_clip_that_contradicts_itself_or_another_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tracks.jsonl");
        let changed = |change: fn(&mut ClipTracks)| {
            let mut bad = ClipTracks { video: "b.mp4".into(), ..clip(3) };
            change(&mut bad);
            bad
        };
        for (bad, words) in [
            (clip(3), "clip a.mp4: is given twice"),
            (changed(|c| c.frames = u32::MAX), "4294967295 frames"),
            (changed(|c| c.tracks.extend(c.tracks.clone())), "id 7 is given twice"),
            (changed(|c| c.frames = 2), "frame 3 after 2 of 2"),
            (changed(|c| c.tracks[0].boxes[0].frame = 0), "frame 0"),
            (changed(|c| c.tracks[0].boxes.swap(0, 2)), "frame 2 after 3"),
        ] {
            write_jsonl(&path, [clip(3), bad]).unwrap();
            let message = read_tracks(&path).unwrap_err().to_string();
            assert!(message.contains("tracks.jsonl") && message.contains(words), "{message}");
        }
    }

    #[test]
    fn sampling_takes_every_second_of_63_frames_and_drops_what_falls_between() {
        let sampled = clip(63).sampled(32);
        assert_eq!((sampled.frames, sampled.fps), (32, 4.0));
        let track = &sampled.tracks[0];
        let lefts: Vec<f32> = track.boxes.iter().map(|b| b.xyxy[0]).collect();
        assert_eq!(lefts, (0..32).map(|i| (2 * i + 1) as f32).collect::<Vec<_>>());
        assert_eq!(track.actions, vec![TrackAction { start: 1, end: 32, text: "moves left".into() }]);
    }

    #[test]
    fn any_number_of_frames_is_sampled_as_the_runtime_does() {
        // 30 * 11 / 22 is exact, 11 steps of 30 / 22 fall short of it.
        let sampled = clip(31).sampled(23);
        let picked: Vec<usize> = sampled.tracks[0].boxes.iter().map(|b| b.xyxy[0] as usize - 1).collect();
        assert_eq!(picked, uniform_indices(31, 23));
    }
}
