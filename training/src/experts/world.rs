//! The world's oracle: true boxes, with a dial for every way in which experts err.
//!
//! Comes in: the truth of world clips (`tracks.jsonl` beside them). Goes out: what an expert would say that sees everything, or one that misses
//! boxes, places them inexactly, mixes up two objects or misnames them. All errors follow from the seed and the clip's name. Frames are
//! not looked at.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::Expert;
use super::clip::{Clip, Shape};
use crate::parts::generator;
use crate::queries::tracks::read_tracks;
use crate::queries::{ClipTracks, Track};
use crate::stats::normal;
use crate::tracks::detections::Object;

/// The dials; all at zero tell the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, clap::Args)]
pub struct Dials {
    /// Share of the boxes that are missed
    #[arg(long, default_value_t = 0.0)]
    pub miss: f32,
    /// Standard deviation of each side of a box, as a share of the box
    #[arg(long, default_value_t = 0.0)]
    pub jitter: f32,
    /// Share of the objects that exchange their name, looks and deeds with another one at some frame
    #[arg(long, default_value_t = 0.0)]
    pub mix_up: f32,
    /// Share of the boxes that are given another category
    #[arg(long, default_value_t = 0.0)]
    pub misname: f32,
    /// Decides which
    #[arg(long, default_value_t = 0)]
    pub expert_seed: u64,
}

impl Dials {
    /// Refuses a dial that is out of range.
    ///
    /// # Errors
    /// The dial, its value and its range.
    pub fn check(&self) -> Result<()> {
        for (name, value) in [("miss", self.miss), ("mix-up", self.mix_up), ("misname", self.misname)] {
            ensure!((0.0..=1.0).contains(&value), "--{name} {value}: a share lies between 0 and 1");
        }
        ensure!((0.0..=1.0).contains(&self.jitter), "--jitter {}: between 0 and 1", self.jitter);
        Ok(())
    }
}

/// The oracle.
#[derive(Clone, Debug)]
pub struct Oracle {
    dials: Dials,
    clips: HashMap<String, ClipTracks>,
    categories: Vec<String>,
}

impl Oracle {
    /// Reads the truth.
    ///
    /// # Errors
    /// A file that is missing or no tracks file, and dials out of range.
    pub fn open(truth: &Path, dials: Dials) -> Result<Self> {
        dials.check()?;
        let clips = read_tracks(truth).with_context(|| {
            format!("the expert `world` needs the truth of its clips, {}", truth.display())
        })?;
        let categories: BTreeSet<String> =
            clips.iter().flat_map(|c| c.tracks.iter().map(|t| t.category.clone())).collect();
        let clips = clips.into_iter().map(|c| (c.video.clone(), c)).collect();
        Ok(Self { dials, clips, categories: categories.into_iter().collect() })
    }

    /// An oracle for clips that are handed to [`Oracle::look`]; wrong names are taken from `categories`.
    pub fn over(categories: Vec<String>, dials: Dials) -> Self {
        Self { dials, clips: HashMap::new(), categories }
    }

    /// What it says of every frame of a clip.
    pub fn look(&self, clip: &ClipTracks) -> Vec<Vec<Object>> {
        let mut rng = generator(self.dials.expert_seed, &clip.video);
        let whose = self.mix_ups(clip, &mut rng);
        (1..=clip.frames)
            .map(|frame| {
                let named = whose.iter().map(|switch| &clip.tracks[switch.of(frame)]);
                let seen = clip.tracks.iter().zip(named);
                seen.filter_map(|(track, named)| self.object(clip, track, named, frame, &mut rng)).collect()
            })
            .collect()
    }

    /// Per track, whose name it goes by.
    fn mix_ups(&self, clip: &ClipTracks, rng: &mut ChaCha8Rng) -> Vec<Switch> {
        let mut switches: Vec<Switch> = (0..clip.tracks.len()).map(Switch::none).collect();
        for index in 0..clip.tracks.len() {
            if clip.tracks.len() < 2 || !rng.random_bool(f64::from(self.dials.mix_up)) {
                continue;
            }
            let other = (index + rng.random_range(1..clip.tracks.len())) % clip.tracks.len();
            let from = rng.random_range(1..=clip.frames);
            if switches[index].from.is_none() && switches[other].from.is_none() {
                switches[index] = Switch { own: index, other, from: Some(from) };
                switches[other] = Switch { own: other, other: index, from: Some(from) };
            }
        }
        switches
    }

    fn object(
        &self,
        clip: &ClipTracks,
        track: &Track,
        named: &Track,
        frame: u32,
        rng: &mut ChaCha8Rng,
    ) -> Option<Object> {
        let seen = track.at(frame)?;
        if rng.random_bool(f64::from(self.dials.miss)) {
            return None;
        }
        let [x1, y1, x2, y2] = seen.xyxy;
        let mut shift = |side: f32| self.dials.jitter * side * normal(rng);
        let moved = [x1 + shift(x2 - x1), y1 + shift(y2 - y1), x2 + shift(x2 - x1), y2 + shift(y2 - y1)];
        let limits = [clip.width as f32, clip.height as f32, clip.width as f32, clip.height as f32];
        let inside: Vec<f32> = moved.iter().zip(limits).map(|(v, limit)| v.clamp(0.0, limit)).collect();
        let xyxy: [f32; 4] = inside.try_into().ok()?;
        let mut category = named.category.clone();
        if rng.random_bool(f64::from(self.dials.misname)) {
            let others: Vec<&String> = self.categories.iter().filter(|c| **c != category).collect();
            category = others.choose(rng).map_or(category, |other| (*other).clone());
        }
        let deed = named.actions.iter().find(|a| (a.start..=a.end).contains(&frame));
        (xyxy[2] > xyxy[0] && xyxy[3] > xyxy[1]).then(|| Object {
            xyxy,
            score: seen.score,
            category,
            appearance: (!named.appearance.is_empty()).then(|| named.appearance.clone()),
            action: deed.map(|a| a.text.clone()),
            caption: None,
        })
    }
}

/// From a frame on, an object goes by another one's name.
#[derive(Clone, Copy, Debug)]
struct Switch {
    own: usize,
    other: usize,
    from: Option<u32>,
}

impl Switch {
    fn none(own: usize) -> Self {
        Self { own, other: own, from: None }
    }

    fn of(&self, frame: u32) -> usize {
        if self.from.is_some_and(|from| frame >= from) { self.other } else { self.own }
    }
}

impl Expert for Oracle {
    fn settings(&self) -> String {
        format!("world {:?}", self.dials)
    }

    fn annotate(&mut self, clip: &Clip, found: &mut dyn FnMut(Vec<Object>)) -> Result<Shape> {
        let known = self.clips.get(&clip.name);
        let truth = known.with_context(|| format!("the truth has no clip called {}", clip.name))?;
        self.look(truth).into_iter().step_by(clip.every.max(1) as usize).for_each(found);
        Ok(Shape {
            width: truth.width,
            height: truth.height,
            frames: truth.frames,
            fps: truth.fps,
            times_ms: truth.times_ms.clone(),
            cuts: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::write_jsonl;
    use crate::world::conversations::world_tracks;
    use crate::world::{STEPS, Split, WorldConfig, clip_seed, generate};

    fn oracle(dials: Dials) -> (Oracle, ClipTracks) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tracks.jsonl");
        let script = generate(clip_seed(Split::Train, 5), &WorldConfig::full());
        let clip = world_tracks(&script, "clips/a", 256, 0, STEPS);
        write_jsonl(&path, [&clip]).unwrap();
        (Oracle::open(&path, dials).unwrap(), clip)
    }

    #[test]
    fn with_all_dials_at_zero_it_tells_the_truth() {
        let (oracle, clip) = oracle(Dials::default());
        let said = oracle.look(&clip);
        assert_eq!(said.len(), STEPS);
        for (frame, objects) in (1..).zip(&said) {
            let boxes: Vec<[f32; 4]> = objects.iter().map(|o| o.xyxy).collect();
            let truth: Vec<[f32; 4]> =
                clip.tracks.iter().filter_map(|t| t.at(frame)).map(|b| b.xyxy).collect();
            assert_eq!(boxes, truth);
        }
    }

    #[test]
    fn the_dials_do_what_they_say() {
        let dials = Dials { miss: 0.3, jitter: 0.05, misname: 0.2, ..Dials::default() };
        let ((truthful, clip), (noisy, _)) = (oracle(Dials::default()), oracle(dials));
        let count = |o: &Oracle| o.look(&clip).iter().map(Vec::len).sum::<usize>() as f32;
        let kept = count(&noisy) / count(&truthful);
        assert!((0.6..0.8).contains(&kept), "{kept}");
        assert_eq!(noisy.look(&clip), noisy.look(&clip));
        let mixed = oracle(Dials { mix_up: 1.0, ..Dials::default() }).0.look(&clip);
        let differ =
            mixed.iter().flatten().zip(truthful.look(&clip).iter().flatten().cloned().collect::<Vec<_>>());
        assert!(differ.clone().all(|(a, b)| a.xyxy == b.xyxy));
        assert!(differ.clone().any(|(a, b)| (&a.category, &a.appearance) != (&b.category, &b.appearance)));
        assert!(Dials { miss: 1.5, ..Dials::default() }.check().is_err());
    }
}
