//! What was seen before a clip: the frames of a stream that have left the window when a question comes.
//!
//! Comes in: a clip, the step it is shown from, and how many frames came before. Goes out: those frames and what was seen only in them ([`Past`]). Either the
//! clip's own scene went on all the while, with events and an object of its own that are over when the clip begins; or other scenes came first and
//! were cut. The clip itself is drawn as ever, so that nothing that is true of it depends on its past. No questions here.

use std::collections::BTreeSet;

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use utr_models::RgbFrame;

use super::config::{HoldOut, is_held_out};
use super::facts::is_transient;
use super::generate::{EVENT_STEPS, Part, dress, transient};
use super::placement::settle;
use super::script::{Behaviour, Event, EventKind, LAST_STEP, ObjectSpec, STEPS, Script};
use super::{Renderer, WorldConfig, generate, state_at};

/// The generator's stream for pasts; those of pairs are numbered by skill.
const PAST_STREAM: u64 = 1000;
/// Seeds below this are one split's.
const SPLIT: u64 = 1 << 62;
/// A cut comes at most this many frames before the frames that are asked about.
const LATEST_CUT: usize = 8;
/// Frames of each scene that was cut.
const SCENE: std::ops::RangeInclusive<usize> = 16..=STEPS;
/// Steps between the starts of two events of one object.
const EVENT_GAPS: std::ops::RangeInclusive<i32> = 6..=16;
/// Events that show on every look.
const ANY_LOOK: [EventKind; 3] = [EventKind::Hop, EventKind::Blink, EventKind::Swell];

/// The frames before a clip.
pub struct Past {
    /// Scenes with the played time of their first frame and their number of frames, in order.
    scenes: Vec<(Script, f32, usize)>,
    /// Another scene came first.
    pub cut: bool,
    /// Looks of the clip's objects.
    kept: Vec<ObjectSpec>,
}

impl Past {
    /// `frames` frames before step `first` of the clip. Everything follows from the arguments; `cut` None tosses a coin. Twins of one seed get
    /// the same cut scenes, each its own scene.
    pub fn draw(
        script: &Script,
        config: &WorldConfig,
        first: usize,
        frames: usize,
        cut: Option<bool>,
    ) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(script.seed);
        rng.set_stream(PAST_STREAM);
        let coin = rng.random();
        let cut = cut.unwrap_or(coin);
        let own = if cut { rng.random_range(0..=LATEST_CUT).min(frames) } else { frames };
        let mut scenes = Vec::new();
        let mut missing = frames - own;
        while missing > 0 {
            let count = rng.random_range(SCENE).min(missing);
            let from = rng.random_range(0..=STEPS - count);
            let seed = script.seed / SPLIT * SPLIT + rng.random_range(0..SPLIT);
            scenes.push((generate(seed, config), from as f32, count));
            missing -= count;
        }
        let before = went_on(script, config, frames as i32, &mut rng);
        scenes.push((before, first as f32 - own as f32, own));
        Self { scenes, cut, kept: script.objects.clone() }
    }

    /// The frames, `size` pixels a side, in time order.
    pub fn frames(&self, size: u32) -> Vec<RgbFrame> {
        let drawn = |(script, from, count): &(Script, f32, usize)| {
            let mut renderer = Renderer::new(script, size);
            (0..*count).map(|t| renderer.frame(from + t as f32)).collect::<Vec<_>>()
        };
        self.scenes.iter().flat_map(drawn).collect()
    }

    /// Names ("red ball") of what was seen well and looks like nothing in the clip: an answer about the clip never has reason to say one.
    pub fn gone(&self) -> BTreeSet<String> {
        let alike = |o: &ObjectSpec| {
            let same =
                |k: &ObjectSpec| k.category == o.category && (k.colour == o.colour || k.changes_colour());
            o.changes_colour() || self.kept.iter().any(same)
        };
        let mut names = BTreeSet::new();
        for (script, from, count) in &self.scenes {
            for state in (0..*count).map(|t| state_at(script, from + t as f32)) {
                let seen = script.objects.iter().zip(&state).enumerate();
                let gone = seen.filter(|(_, (o, s))| s.present && s.visibility >= 0.5 && !alike(o));
                names.extend(gone.map(|(index, _)| script.name(index)));
            }
        }
        names
    }
}

/// The clip's scene as it was during up to `frames` steps before step 0, where it is the clip to the last pixel from then on.
fn went_on(script: &Script, config: &WorldConfig, frames: i32, rng: &mut ChaCha8Rng) -> Script {
    let mut before = script.clone();
    for object in before.objects.iter_mut().filter(|o| !o.identical) {
        earlier_events(object, config, frames, script.reversed, rng);
    }
    // Something that goes away: named in an answer, it tells of a leak.
    let leaves = played(EventKind::Disappear, -rng.random_range(2..=6), 1.0, script.reversed);
    let part = Part::with(vec![leaves]);
    let mut leaver = dress(rng, config, &before.objects, part, false);
    leaver.depth = before.objects.iter().map(|o| o.depth + 1).max().unwrap_or(0);
    before.objects.push(leaver);
    let placed = before.objects.len() - 1;
    settle(rng, &mut before.objects, placed);
    before
}

/// An event that starts at played time `start`, in base time.
fn played(kind: EventKind, start: i32, steps: f32, reversed: bool) -> Event {
    let start = start as f32;
    let start = if reversed { LAST_STEP - start - steps } else { start };
    Event { kind: kind.played(reversed), start, steps }
}

/// Adds events that are over before step 0 to an object that has such events, or that stands still.
fn earlier_events(
    object: &mut ObjectSpec,
    config: &WorldConfig,
    frames: i32,
    reversed: bool,
    rng: &mut ChaCha8Rng,
) {
    let own: Vec<EventKind> = object.events.iter().map(|e| e.kind).filter(|k| is_transient(*k)).collect();
    let restless = !own.is_empty();
    let kinds = if restless { own } else { ANY_LOOK.to_vec() };
    if object.behaviour != Behaviour::Still || (!restless && rng.random()) {
        return;
    }
    let mut start = -(EVENT_STEPS as i32) - 1 - rng.random_range(0..=*EVENT_GAPS.start());
    while start > -frames {
        let kind = *kinds.choose(rng).unwrap_or(&EventKind::Hop);
        let kept = config.held_out == HoldOut::Never
            && is_held_out(object.colour, object.category, kind.kind_index());
        if !kept {
            let Event { kind, steps, .. } = transient(kind, 0);
            object.events.push(played(kind, start, steps, reversed));
        }
        start -= rng.random_range(EVENT_GAPS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Skill, Split, clip_seed, pair, split_of};

    fn each_skill(check: impl Fn(Skill, &Script)) {
        for &skill in Skill::ALL {
            for index in 0..6 {
                for posed in pair(skill, clip_seed(Split::Train, index), &WorldConfig::full()) {
                    check(skill, &posed.script);
                }
            }
        }
    }

    #[test]
    fn a_scene_that_went_on_is_the_clip_from_its_first_step_on() {
        each_skill(|skill, script| {
            let past = Past::draw(script, &WorldConfig::full(), 0, 64, Some(false));
            let [(before, from, 64)] = &past.scenes[..] else { panic!("{skill:?}: one scene of 64 frames") };
            assert_eq!(*from, -64.0);
            let (mut a, mut b) = (Renderer::new(before, 64), Renderer::new(script, 64));
            for t in (0..STEPS).map(|t| t as f32) {
                let states = state_at(before, t);
                assert_eq!(states[..script.objects.len()], state_at(script, t), "{skill:?} at {t}");
                assert!(a.frame(t) == b.frame(t), "{skill:?} at {t}");
            }
        });
    }

    #[test]
    fn things_move_on_into_the_clip_without_a_jump() {
        each_skill(|skill, script| {
            for (index, object) in script.objects.iter().enumerate() {
                let x = |t: f32| state_at(script, t)[index].centre;
                for t in -40..0 {
                    let (a, b) = (x(t as f32), x(t as f32 + 1.0));
                    let way = (a[0] - b[0]).abs().max((a[1] - b[1]).abs());
                    // As fast as anything moves, or off one side and in at the other.
                    assert!(!(0.2..=0.7).contains(&way), "{skill:?}, {:?} at {t}: {way}", object.behaviour);
                }
            }
        });
    }

    #[test]
    fn the_past_shows_events_that_are_over_and_objects_that_are_gone() {
        let (mut with_events, mut all) = (0, 0);
        each_skill(|_, script| {
            let past = Past::draw(script, &WorldConfig::full(), 0, 64, Some(false));
            let (before, ..) = &past.scenes[0];
            for index in 0..script.objects.len() {
                let events = before.played_events(index);
                let new = events.iter().filter(|e| !script.played_events(index).contains(e));
                assert!(new.clone().all(|e| e.end() < 0.0 && is_transient(e.kind)));
            }
        });
        for index in 0..20 {
            let [a, _] = pair(Skill::ActionCount, clip_seed(Split::Train, index), &WorldConfig::full());
            let past = Past::draw(&a.script, &WorldConfig::full(), 0, 64, Some(false));
            let kind = a.script.objects[0].events[0].kind;
            let count = |s: &Script| s.objects[0].events.iter().filter(|e| e.kind == kind).count();
            with_events += usize::from(count(&past.scenes[0].0) > count(&a.script) + 2);
            all += usize::from(!past.gone().is_empty());
        }
        assert!(
            with_events == 20 && all >= 18,
            "{with_events} with events of the kind asked about, {all} with a leaver"
        );
    }

    #[test]
    fn cut_scenes_are_others_of_the_same_split_and_the_same_for_twins() {
        for index in 0..12 {
            let [a, b] = pair(Skill::Direction, clip_seed(Split::Test, index), &WorldConfig::full());
            let [a, b] = [a, b].map(|p| Past::draw(&p.script, &WorldConfig::full(), 0, 64, Some(true)));
            let others = |p: &Past| p.scenes[..p.scenes.len() - 1].to_vec();
            assert_eq!(others(&a), others(&b));
            assert!(others(&a).iter().all(|(s, ..)| split_of(s.seed) == Some(Split::Test)));
            assert!(!others(&a).is_empty() && a.scenes.last().unwrap().2 <= LATEST_CUT);
            assert_eq!((a.frames(64).len(), a.gone().is_empty()), (64, false));
        }
    }
}
