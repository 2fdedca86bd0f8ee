//! Which tracks are worth asking about, and why the others are not.
//!
//! Comes in: a clip's tracks and [`Limits`]. Goes out: the tracks that pass, and [`Dropped`], how many each rule took; a track that several rules
//! would take counts for the first. Tracks are dropped whole and never changed.

use serde::{Deserialize, Serialize};

use crate::queries::{ClipTracks, Track};

/// The rules; the defaults suit clips of a few seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Least number of frames that show the object
    #[arg(long, default_value_t = 8)]
    pub min_frames: u32,
    /// The same as a share of the clip
    #[arg(long, default_value_t = 0.1)]
    pub min_share: f32,
    /// Least side of the mean box, as a share of the frame's (1/32 in Merlin)
    #[arg(long, default_value_t = 1.0 / 32.0)]
    pub min_size: f32,
    /// Largest area of the mean box, as a share of the frame's
    #[arg(long, default_value_t = 0.9)]
    pub max_area: f32,
    /// Least mean score
    #[arg(long, default_value_t = 0.3)]
    pub min_score: f32,
    /// Least way of the centre, in mean box diagonals, unless the object does something; 0 keeps what stands still
    #[arg(long, default_value_t = 0.0)]
    pub min_way: f32,
    /// Least share of the frames between the first and the last that show the object
    #[arg(long, default_value_t = 0.5)]
    pub min_filled: f32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            min_frames: 8,
            min_share: 0.1,
            min_size: 1.0 / 32.0,
            max_area: 0.9,
            min_score: 0.3,
            min_way: 0.0,
            min_filled: 0.5,
        }
    }
}

impl Limits {
    /// Those that only noise breaks: too short, too small or too unsure to be an object at all.
    pub fn of_noise(&self) -> Self {
        Self { min_share: 0.0, min_way: 0.0, min_filled: 0.0, ..*self }
    }

    /// Refuses limits that make no sense.
    ///
    /// # Errors
    /// The option, its value and its range.
    pub fn check(&self) -> anyhow::Result<()> {
        let Self { min_share, min_size, max_area, min_score, min_filled, min_way, .. } = *self;
        let shares = [
            ("min-share", min_share),
            ("min-size", min_size),
            ("max-area", max_area),
            ("min-score", min_score),
            ("min-filled", min_filled),
        ];
        for (name, value) in shares {
            anyhow::ensure!((0.0..=1.0).contains(&value), "--{name} {value}: a share lies between 0 and 1");
        }
        anyhow::ensure!(min_way.is_finite() && min_way >= 0.0, "--min-way {min_way}: at least 0");
        Ok(())
    }
}

/// Tracks by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Passed all rules.
    pub kept: usize,
    /// Seen in too few frames.
    pub short: usize,
    /// Seen in too small a share of the clip.
    pub brief: usize,
    /// Too small or too large.
    pub size: usize,
    /// Not sure enough.
    pub score: usize,
    /// Neither moves nor does anything.
    pub still: usize,
    /// Missing too often between its first and last frame.
    pub fragmented: usize,
}

impl std::ops::AddAssign for Dropped {
    fn add_assign(&mut self, other: Self) {
        self.kept += other.kept;
        self.short += other.short;
        self.brief += other.brief;
        self.size += other.size;
        self.score += other.score;
        self.still += other.still;
        self.fragmented += other.fragmented;
    }
}

/// What a track is like as a whole.
struct Summary {
    frames: u32,
    span: u32,
    width: f32,
    height: f32,
    score: f32,
    way: f32,
}

impl Summary {
    fn of(track: &Track) -> Option<Self> {
        let (first, last) = (track.boxes.first()?, track.boxes.last()?);
        let count = track.boxes.len() as f32;
        let mean = |f: fn(&crate::queries::TrackBox) -> f32| track.boxes.iter().map(f).sum::<f32>() / count;
        let centres: Vec<[f32; 2]> = track
            .boxes
            .iter()
            .map(|b| [(b.xyxy[0] + b.xyxy[2]) / 2.0, (b.xyxy[1] + b.xyxy[3]) / 2.0])
            .collect();
        // The farthest it gets from where it began: jitter adds up along the path, but leads nowhere.
        let away = |c: &[f32; 2]| (c[0] - centres[0][0]).hypot(c[1] - centres[0][1]);
        Some(Self {
            frames: track.boxes.len() as u32,
            span: last.frame - first.frame + 1,
            width: mean(|b| b.xyxy[2] - b.xyxy[0]),
            height: mean(|b| b.xyxy[3] - b.xyxy[1]),
            score: mean(|b| b.score),
            way: centres.iter().map(away).fold(0.0, f32::max),
        })
    }
}

/// The place where a track is counted.
type Place = fn(&mut Dropped) -> &mut usize;

/// Keeps the tracks that pass, in their order and with their ids.
pub fn filter(clip: &mut ClipTracks, limits: &Limits) -> Dropped {
    let mut dropped = Dropped::default();
    let frame = [clip.width as f32, clip.height as f32];
    let frames = clip.frames.max(1) as f32;
    clip.tracks.retain(|track| {
        let fault = Summary::of(track)
            .map_or(Some((|d| &mut d.short) as Place), |s| s.fault(track, limits, frame, frames));
        *fault.unwrap_or(|d| &mut d.kept)(&mut dropped) += 1;
        fault.is_none()
    });
    dropped
}

impl Summary {
    /// The first rule that the track breaks.
    fn fault(&self, track: &Track, limits: &Limits, frame: [f32; 2], frames: f32) -> Option<Place> {
        let seen = self.frames as f32;
        let sides = [self.width / frame[0], self.height / frame[1]];
        let rules: [(bool, Place); 6] = [
            (self.frames < limits.min_frames, |d| &mut d.short),
            (seen < limits.min_share * frames, |d| &mut d.brief),
            (
                sides.iter().any(|side| *side < limits.min_size) || sides[0] * sides[1] > limits.max_area,
                |d| &mut d.size,
            ),
            (self.score < limits.min_score, |d| &mut d.score),
            (track.actions.is_empty() && self.way < limits.min_way * self.width.hypot(self.height), |d| {
                &mut d.still
            }),
            (seen < limits.min_filled * self.span as f32, |d| &mut d.fragmented),
        ];
        rules.into_iter().find(|(broken, _)| *broken).map(|(_, place)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queries::{TrackAction, TrackBox};

    fn track(id: u32, frames: impl Iterator<Item = u32>, step: f32, side: f32, score: f32) -> Track {
        let boxes = frames.map(|frame| {
            let x = 10.0 + step * frame as f32;
            TrackBox { frame, xyxy: [x, 10.0, x + side, 10.0 + side], score }
        });
        Track {
            id,
            category: "ball".into(),
            appearance: String::new(),
            boxes: boxes.collect(),
            actions: vec![],
        }
    }

    #[test]
    fn each_rule_takes_its_own_and_counts_it() {
        let mut busy = track(8, 1..=40, 0.0, 30.0, 0.9);
        busy.actions = vec![TrackAction { start: 1, end: 4, text: "blinks".into() }];
        let tracks = vec![
            track(1, 1..=40, 2.0, 30.0, 0.9),
            track(2, 1..=5, 2.0, 30.0, 0.9),
            track(3, 1..=9, 2.0, 30.0, 0.9),
            track(4, 1..=40, 2.0, 3.0, 0.9),
            track(5, 1..=40, 2.0, 30.0, 0.2),
            track(6, 1..=40, 0.0, 30.0, 0.9),
            track(7, (1..=100).step_by(3), 1.0, 30.0, 0.9),
            busy,
        ];
        let mut clip = ClipTracks {
            video: "v".into(),
            fps: 25.0,
            width: 320,
            height: 240,
            frames: 100,
            times_ms: vec![],
            tracks,
        };
        let limits = Limits { min_way: 0.5, ..Limits::default() };
        let dropped = filter(&mut clip, &limits);
        let wanted = Dropped { kept: 2, short: 1, brief: 1, size: 1, score: 1, still: 1, fragmented: 1 };
        assert_eq!(dropped, wanted);
        assert_eq!(clip.tracks.iter().map(|t| t.id).collect::<Vec<_>>(), [1, 8]);
    }

    #[test]
    fn jitter_is_no_way() {
        let mut shaking = track(1, 1..=40, 0.0, 30.0, 0.9);
        shaking.boxes.iter_mut().for_each(|b| b.xyxy[0] += (b.frame % 2) as f32);
        let mut clip = ClipTracks {
            video: "v".into(),
            fps: 25.0,
            width: 320,
            height: 240,
            frames: 40,
            times_ms: vec![],
            tracks: vec![shaking],
        };
        assert_eq!(filter(&mut clip, &Limits { min_way: 0.2, ..Limits::default() }).still, 1);
    }
}
