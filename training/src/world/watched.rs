//! A clip's tracks as experts and a tracker would have them, in place of the truth.
//!
//! Comes in: a script, the steps of it that a clip shows, and a [`Watched`]. Goes out: tracks over those steps. The oracle with its dials looks at four times as many frames
//! as the clip has, as an expert would look at a video, and a real tracker links what it says. Only what is said beside the questions is made of
//! them; the questions stay true.

use serde::{Deserialize, Serialize};

use super::conversations::{STEPS_PER_SECOND, world_tracks_at};
use super::script::{Category, Script};
use super::truth;
use crate::experts::world::{Dials, Oracle};
use crate::queries::{ClipTracks, TrackAction, TrackBox};
use crate::tracks::command::{Kind, TrackerArgs};
use crate::tracks::detections::ClipObjects;

/// Frames that the experts see of each step.
const FINER: u32 = 4;

/// Who looked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watched {
    /// Share of the boxes that are missed.
    #[serde(default)]
    pub miss: f32,
    /// Standard deviation of each side of a box, as a share of the box.
    #[serde(default)]
    pub jitter: f32,
    /// Share of the objects that exchange their name, looks and deeds with another one at some frame.
    #[serde(default)]
    pub mix_up: f32,
    /// Share of the boxes that are given another category.
    #[serde(default)]
    pub misname: f32,
    /// Who links the boxes.
    pub tracker: Kind,
}

impl Watched {
    fn dials(&self) -> Dials {
        let Self { miss, jitter, mix_up, misname, .. } = *self;
        Dials { miss, jitter, mix_up, misname, expert_seed: 0 }
    }

    /// What is out of range, in words.
    pub fn check(&self) -> Result<(), String> {
        self.dials().check().map_err(|error| error.to_string())
    }

    /// The tracks of a clip called `name`, `size` pixels square, that shows `frames` steps from `first` on.
    pub fn tracks(&self, script: &Script, name: &str, size: u32, first: usize, frames: usize) -> ClipTracks {
        let count = (frames as u32 - 1) * FINER + 1;
        let times: Vec<f32> = (0..count).map(|i| first as f32 + i as f32 / FINER as f32).collect();
        let rate = STEPS_PER_SECOND * f64::from(FINER);
        let true_tracks = world_tracks_at(script, &truth(script), name, size, &times, rate);
        let categories = Category::ALL.iter().map(|c| c.word().to_owned()).collect();
        let seen = Oracle::over(categories, self.dials()).look(&true_tracks);
        let objects =
            (1..).zip(seen).flat_map(|(frame, objects)| objects.into_iter().map(move |o| (frame, o)));
        let clip = ClipObjects {
            video: name.to_owned(),
            width: size,
            height: size,
            fps: Some(rate),
            cuts: Vec::new(),
            times_ms: Vec::new(),
            every: 1,
            frames: objects.collect::<crate::tracks::frames::Frames<_>>().at_least(count),
        };
        thinned(TrackerArgs::plain(self.tracker).clip(&clip, None), frames as u32)
    }
}

/// The frames of the steps alone, numbered from 1; tracks that none of them shows are gone.
fn thinned(fine: ClipTracks, frames: u32) -> ClipTracks {
    let step = |frame: u32| (frame - 1) / FINER + 1;
    let mut clip = ClipTracks { fps: STEPS_PER_SECOND, frames, times_ms: Vec::new(), ..fine };
    for track in &mut clip.tracks {
        let whole = track.boxes.iter().filter(|b| (b.frame - 1).is_multiple_of(FINER));
        track.boxes = whole.map(|b| TrackBox { frame: step(b.frame), ..*b }).collect();
        let actions = track.actions.iter();
        track.actions = actions
            .map(|a| TrackAction { start: step(a.start + FINER - 1), end: step(a.end), text: a.text.clone() })
            .filter(|a| a.start <= a.end)
            .collect();
    }
    clip.tracks.retain(|track| !track.boxes.is_empty());
    (1..).zip(&mut clip.tracks).for_each(|(id, track)| track.id = id);
    clip
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracks::command::score;
    use crate::world::conversations::world_tracks;
    use crate::world::{Split, WorldConfig, clip_seed, generate};

    /// Mean IDF1 of some clips' tracks against the truth.
    fn identity(watched: &Watched) -> f64 {
        let clips = (0..30).map(|i| {
            let script = generate(clip_seed(Split::Train, i), &WorldConfig::easy(3));
            let name = i.to_string();
            (world_tracks(&script, &name, 64, 4, 16), watched.tracks(&script, &name, 64, 4, 16))
        });
        let (truth, found): (Vec<_>, Vec<_>) = clips.unzip();
        assert!(found.iter().all(|clip| clip.frames == 16));
        let scores = score(&truth, &found);
        scores.iter().map(|s| s.idf1).sum::<f64>() / scores.len() as f64
    }

    #[test]
    fn noise_costs_identity() {
        let clean = Watched { miss: 0.0, jitter: 0.0, mix_up: 0.0, misname: 0.0, tracker: Kind::ByteTrack };
        let noisy = Watched { miss: 0.4, jitter: 0.15, ..clean.clone() };
        let (clean, noisy) = (identity(&clean), identity(&noisy));
        assert!(clean > 0.85 && noisy < clean - 0.1, "{clean} {noisy}");
    }
}
