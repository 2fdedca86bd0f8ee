//! Detections: what an expert found in each frame, as files.
//!
//! Comes in and goes out: JSON lines, one frame a line (`{video, frame, width, height, objects: [...]}`), boxes in pixels, frames counted from 1. A
//! frame without a line is empty and still a frame. Nothing is found and nothing is tracked here.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use utr_models::{Error, Result};

use super::Detection;
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
    /// When each frame is shown, in milliseconds from the first; empty unless every frame says so.
    pub times_ms: Vec<u64>,
    /// Frame 1, 2, …; gaps are empty.
    pub frames: Vec<Vec<Object>>,
}

/// Longest clip that is believed, in frames.
const MOST_FRAMES: u32 = 2_000_000;

/// Reads a file and gathers it by clip, in the order in which clips first come.
///
/// # Errors
/// The file, and the clip or the line that is wrong: a box without area, a frame counted from 0 or given twice, sizes that change.
pub fn read(path: &Path) -> Result<Vec<ClipObjects>> {
    let mut clips: Vec<ClipObjects> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut given = std::collections::HashSet::new();
    for line in read_jsonl::<FrameObjects>(path)? {
        let FrameObjects { video, frame, width, height, fps, time_ms, every: _, cut, objects } = line;
        let fail = |what: String| Error::format(path, format!("{video}, frame {frame}: {what}"));
        if width == 0 || height == 0 {
            return Err(fail(format!("{width}x{height} pixels: both sides must be above zero")));
        }
        if frame == 0 || frame > MOST_FRAMES {
            return Err(fail(format!("frames count from 1 to {MOST_FRAMES}")));
        }
        if !given.insert((video.clone(), frame)) {
            return Err(fail("the frame is given twice".into()));
        }
        let sound = |o: &Object| {
            let [x1, y1, x2, y2] = o.xyxy;
            o.xyxy.iter().all(|v| v.is_finite()) && x2 > x1 && y2 > y1 && (0.0..=1.0).contains(&o.score)
        };
        if let Some(bad) = objects.iter().find(|o| !sound(o)) {
            return Err(fail(format!("box {:?} with score {} has no area or no sense", bad.xyxy, bad.score)));
        }
        let place = *places.entry(video.clone()).or_insert(clips.len());
        if place == clips.len() {
            clips.push(ClipObjects {
                video: video.clone(),
                width,
                height,
                fps,
                cuts: Vec::new(),
                times_ms: Vec::new(),
                frames: Vec::new(),
            });
        }
        let clip = &mut clips[place];
        if (clip.width, clip.height) != (width, height) {
            return Err(fail(format!("{width}x{height} pixels after {}x{}", clip.width, clip.height)));
        }
        if cut {
            clip.cuts.push(frame);
        }
        let frame = frame as usize;
        // Times count only where they come without a gap.
        if let Some(time) = time_ms.filter(|_| clip.times_ms.len() + 1 == frame) {
            clip.times_ms.push(time);
        }
        clip.frames.resize_with(clip.frames.len().max(frame), Vec::new);
        clip.frames[frame - 1] = objects;
    }
    for clip in &mut clips {
        clip.cuts.sort_unstable();
        let rising = clip.times_ms.windows(2).all(|w| w[0] <= w[1]);
        if clip.times_ms.len() != clip.frames.len() || !rising {
            clip.times_ms.clear();
        }
    }
    Ok(clips)
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
        let counts = |c: &ClipObjects| c.frames.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!((clips[0].video.as_str(), counts(&clips[0])), ("a", vec![1, 0, 0, 1]));
        assert_eq!((clips[1].video.as_str(), counts(&clips[1])), ("b", vec![0, 1]));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let mut flat = line("a", 2);
        flat.objects[0].xyxy[2] = 1.0;
        let other = FrameObjects { width: 65, ..line("a", 2) };
        for (bad, words) in
            [(line("a", 0), "count from 1"), (line("a", 1), "twice"), (flat, "area"), (other, "65x48")]
        {
            let message = read_back(&[line("a", 1), bad]).unwrap_err().to_string();
            assert!(message.contains(words) && message.contains("detections.jsonl"), "{message}");
        }
    }
}
