//! From a world clip to what the trainer learns: tracks, and samples drawn in memory from a seed.
//!
//! Comes in: a script or a seed, and a [`Mix`]. Goes out: [`ClipTracks`] with the exact boxes and actions, and
//! [`Sample`]s of rendered frames with skill questions, UTR queries, captions and short instructions. A shorter clip is a
//! contiguous piece of the 32 steps, and only what that piece shows is asked. No files, no tokens.

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::facts::{Fact, facts};
use super::filler::Filler;
use super::questions::pose_as;
use super::scene_facts::image_facts;
use super::timeline::timelines;
use super::watched::Watched;
use super::{
    EventKind, Item, Kind, Renderer, STEPS, Script, Skill, Texture, Truth, WorldConfig, generate, pair,
    state_at, truth,
};
use crate::queries::{ClipTracks, Listing, QueryFrame, Track, TrackAction, TrackBox, caption, utr_turn};
use crate::sample::{Sample, Turn};

/// Side of the frames the shipped model sees, in pixels.
pub const FRAME_SIZE: u32 = 64;
/// Steps per second of a clip shot at 8 frames per second with two frames per step.
pub const STEPS_PER_SECOND: f64 = 4.0;
/// An object of which less than this share is seen has no box.
const LEAST_VISIBLE: f32 = 0.2;
/// How often a fact may be asked of one clip.
const ROUNDS: usize = 4;
/// A lasting action is told of a piece of the clip only where this many steps show it.
const LEAST_LASTING: usize = 12;

/// How many questions of each sort a sample carries, and which clips are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mix {
    /// Skill questions (direction, order of events, …), spread over the skills of the clip.
    pub skill_turns: usize,
    /// UTR queries: one attribute in, the whole trajectory out.
    pub utr_turns: usize,
    /// Courses of one object (its colours, its deeds) as one list.
    pub timeline_turns: usize,
    /// Captions of the clip, of single frames, and lists of events.
    pub caption_turns: usize,
    /// Short questions on place, number and time.
    pub instruction_turns: usize,
    /// Share of samples whose clip is made for one skill (half of a minimal pair); the others are general clips.
    pub pair_share: f64,
    /// Skills that such clips are made for; empty means all.
    pub skills: Vec<Skill>,
    /// Odds of open, yes/no and multiple-choice questions.
    pub kinds: [f32; 3],
    /// What is said beside the questions, up to a number of tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filler: Option<Filler>,
    /// Whose tracks the filler is made of; the truth where nobody is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watched: Option<Watched>,
    /// How boxes are listed.
    pub listing: Listing,
    /// Where the attribute of a UTR query is taken from.
    pub query: QueryFrame,
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            skill_turns: 5,
            utr_turns: 1,
            timeline_turns: 0,
            caption_turns: 1,
            instruction_turns: 2,
            pair_share: 0.5,
            skills: Vec::new(),
            kinds: [1.0; 3],
            filler: None,
            watched: None,
            listing: Listing::default(),
            query: QueryFrame::Random,
        }
    }
}

/// The tracks of a clip at the whole steps `first..first + frames`, numbered from 1, in pixels of a square frame.
///
/// Tracks come in the order of their first frame, then from left to right, with ids 1, 2, …
pub fn world_tracks(script: &Script, video: &str, size: u32, first: usize, frames: usize) -> ClipTracks {
    let times: Vec<f32> = (first..first + frames).map(|t| t as f32).collect();
    world_tracks_at(script, &truth(script), video, size, &times, STEPS_PER_SECOND)
}

/// As [`world_tracks`], at any increasing times (in steps), `fps` of them a second.
pub fn world_tracks_at(
    script: &Script,
    truth: &Truth,
    video: &str,
    size: u32,
    times: &[f32],
    fps: f64,
) -> ClipTracks {
    let states: Vec<_> = times.iter().map(|&t| state_at(script, t)).collect();
    let object = |index: usize| {
        let numbered = (1u32..).zip(&states).filter_map(|(frame, all)| Some((frame, all.get(index)?)));
        let boxes: Vec<TrackBox> = numbered
            .filter(|(_, s)| s.visibility >= LEAST_VISIBLE)
            .filter_map(|(frame, s)| {
                let xyxy = s.bbox?.map(|v| v * size as f32);
                Some(TrackBox { frame, xyxy, score: s.visibility.min(1.0) })
            })
            .collect();
        let (category, appearance) = looks(script, index)?;
        let actions = shown_actions(truth, index, times);
        (!boxes.is_empty()).then_some(Track { id: 0, category, appearance, boxes, actions })
    };
    let mut tracks: Vec<Track> = (0..script.objects.len()).filter_map(object).collect();
    let place = |t: &Track| t.boxes.first().map_or((0, 0.0), |b| (b.frame, b.xyxy[0] + b.xyxy[2]));
    tracks.sort_by(|a, b| {
        let (a, b) = (place(a), place(b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    (1u32..).zip(&mut tracks).for_each(|(id, t)| t.id = id);
    ClipTracks {
        video: video.into(),
        fps,
        width: size,
        height: size,
        frames: times.len() as u32,
        times_ms: Vec::new(),
        tracks,
    }
}

/// Category and appearance (size, surface, colour). What changes over the clip is left out, as in the world's own
/// names: a size that pulses, a colour that cycles.
fn looks(script: &Script, index: usize) -> Option<(String, String)> {
    let object = script.objects.get(index)?;
    let resizes = matches!(object.behaviour, super::Behaviour::Pulse { .. })
        || object.events.iter().any(|e| matches!(e.kind, EventKind::Grow | EventKind::Shrink));
    let mut words = Vec::new();
    if !object.changes_colour() {
        words.extend((!resizes).then(|| object.size.word()));
        words.extend((object.texture != Texture::Plain).then(|| object.texture.word()));
        words.push(object.colour.word());
    }
    Some((object.category.word().to_owned(), words.join(" ")))
}

/// The actions of an object that these times show: brief ones that lie inside with a step to spare, lasting ones that
/// are seen for long enough.
fn shown_actions(truth: &Truth, index: usize, times: &[f32]) -> Vec<TrackAction> {
    let (Some(&from), Some(&to)) = (times.first(), times.last()) else { return Vec::new() };
    let shown = |a: &&super::Action| {
        let (start, end) = (a.start as f32, a.end as f32);
        let overlap = (end.min(to) - start.max(from) + 1.0).max(0.0);
        let whole = (from <= start - 1.0 || a.start == 0 && from <= 0.0)
            && (end + 1.0 <= to || a.end + 1 == STEPS && to >= end);
        let lasting = a.start <= 1 && a.end + 2 >= STEPS && overlap >= LEAST_LASTING as f32;
        a.object == index && (whole || lasting)
    };
    let numbered = |a: &super::Action| {
        let (low, high) = (a.start as f32, a.end as f32);
        let mut inside = (1u32..).zip(times).filter(|(_, t)| (low..=high).contains(*t)).map(|(n, _)| n);
        let start = inside.next()?;
        Some(TrackAction { start, end: inside.last().unwrap_or(start), text: a.text.clone() })
    };
    let mut actions: Vec<TrackAction> = truth.actions.iter().filter(shown).filter_map(numbered).collect();
    actions.sort_by_key(|a| a.start);
    actions
}

/// A training sample: the clip of `seed` (take it from [`super::clip_seed`]) or its `twin`, which plays backwards or differs in what the pair
/// is about, `frames` of its 32 steps drawn at [`FRAME_SIZE`], and questions as `mix` asks. Everything follows from the arguments.
pub fn world_sample(seed: u64, twin: bool, mix: &Mix, config: &WorldConfig, frames: usize) -> Sample {
    piece(seed, twin, mix, config, frames).sample
}

/// The skill that a clip was made for; none for a clip of the general distribution.
pub fn made_for(seed: u64, mix: &Mix, config: &WorldConfig) -> Option<Skill> {
    draw_clip(seed, false, mix, config, &mut stream(seed)).1.map(|item| item.skill)
}

/// A stream of its own: the generator draws the clip from the bare seed.
fn stream(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed ^ 0x5A4D_504C_4500_0000)
}

/// A sample with what it is a piece of.
pub(super) struct Piece {
    pub sample: Sample,
    pub script: Script,
    /// Its first step.
    pub first: usize,
}

/// See [`world_sample`].
pub(super) fn piece(seed: u64, twin: bool, mix: &Mix, config: &WorldConfig, frames: usize) -> Piece {
    let frames = frames.clamp(1, STEPS);
    let mut rng = stream(seed);
    let (script, posed) = draw_clip(seed, twin, mix, config, &mut rng);
    // Each fact several times over, in other words: what can be read off a clip is worth more than one question.
    let rounds = if frames == 1 { 0 } else { ROUNDS };
    let asked: Vec<Item> =
        (0..rounds).flat_map(|_| asked_of(turned(facts(&script, &mut rng)), mix, &mut rng)).collect();
    let first = start(posed.as_ref(), &asked, frames, &mut rng);
    let asked = match frames {
        1 => asked_of(image_facts(&script, first, &mut rng), mix, &mut rng),
        _ => asked,
    };
    let id = format!("world-{seed:016x}{}-{frames}", if twin { "-twin" } else { "" });
    let tracks = world_tracks(&script, &id, FRAME_SIZE, first, frames);
    let turns = turns(&script, posed, asked, &tracks, mix, first, &mut rng);
    let mut renderer = Renderer::new(&script, FRAME_SIZE);
    let drawn = (first..first + frames).map(|t| renderer.frame(t as f32)).collect();
    // From a stream of its own: the same questions, whatever is said beside them.
    let mut lots = ChaCha8Rng::seed_from_u64(seed ^ (0x4649_4C4C + u64::from(twin)));
    let watched = mix.watched.as_ref().map(|w| w.tracks(&script, &id, FRAME_SIZE, first, frames));
    let told = watched.as_ref().unwrap_or(&tracks);
    let filler = mix.filler.iter();
    let fills = filler.flat_map(|f| f.fills(told, mix.query, &mix.listing, &mut lots)).collect();
    Piece { sample: Sample { id, frames: drawn, turns, fills, linked: false, window: None }, script, first }
}

/// With every fact of a circle of three (colours, deeds) its two others: a suite asks one, training asks all.
fn turned(facts: Vec<Fact>) -> Vec<Fact> {
    let three = |fact: Fact| match (&fact.slots[..], fact.skill) {
        ([name, from], Skill::AttributeChange | Skill::ActionSequence) => {
            let circle = [from.clone(), fact.right.clone(), fact.twin.clone()];
            let at = |i: usize| circle[i % 3].clone();
            let other = |i: usize| {
                let mut options = vec![at(i + 1), at(i + 2)];
                options.sort();
                Fact {
                    slots: vec![name.clone(), at(i)],
                    right: at(i + 1),
                    twin: at(i + 2),
                    options,
                    ..fact.clone()
                }
            };
            vec![other(0), other(1), other(2)]
        }
        _ => vec![fact],
    };
    facts.into_iter().flat_map(three).collect()
}

/// One question per fact, of a kind drawn as the mix has it.
fn asked_of(facts: Vec<Fact>, mix: &Mix, rng: &mut ChaCha8Rng) -> Vec<Item> {
    let odds: f32 = mix.kinds.iter().sum();
    let ask = |fact: &Fact| {
        let mut draw = rng.random_range(0.0..odds);
        let kind = Kind::ALL.into_iter().zip(mix.kinds).find(|(_, odds)| {
            draw -= odds;
            draw < 0.0
        });
        pose_as(fact, kind.map_or(Kind::Open, |(kind, _)| kind), rng)
    };
    facts.iter().map(ask).collect()
}

fn draw_clip(
    seed: u64,
    twin: bool,
    mix: &Mix,
    config: &WorldConfig,
    rng: &mut ChaCha8Rng,
) -> (Script, Option<Item>) {
    if !rng.random_bool(mix.pair_share.clamp(0.0, 1.0)) {
        let script = generate(seed, config);
        return (if twin { script.time_reversed() } else { script }, None);
    }
    let skills = if mix.skills.is_empty() { Skill::ALL } else { &mix.skills };
    let skill = skills.choose(rng).copied().unwrap_or(Skill::Direction);
    let [a, b] = pair(skill, seed, config);
    let posed = if rng.random::<bool>() != twin { a } else { b };
    (posed.script, Some(posed.item))
}

/// The first step of a piece of `frames` steps. It shows what the clip was made for where that is short enough, else one of the things that
/// can be asked, so that short pieces are not mostly silent.
fn start(posed: Option<&Item>, asked: &[Item], frames: usize, rng: &mut ChaCha8Rng) -> usize {
    let fits = |item: &&Item| item.window[1] - item.window[0] < frames;
    let others: Vec<&Item> = asked.iter().filter(fits).collect();
    let Some(anchor) = posed.filter(fits).or_else(|| others.choose(rng).copied()) else {
        return rng.random_range(0..=STEPS - frames);
    };
    let [from, to] = anchor.window;
    rng.random_range((to + 1).saturating_sub(frames)..=from.min(STEPS - frames))
}

/// The sample's questions, at least one.
fn turns(
    script: &Script,
    posed: Option<Item>,
    asked: Vec<Item>,
    tracks: &ClipTracks,
    mix: &Mix,
    first: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<Turn> {
    let last = first + tracks.frames as usize - 1;
    let shown = |item: &Item| {
        let [from, to] = item.window;
        first <= from && to <= last && (tracks.frames > 1 || item.skill.is_static())
    };
    let mut items: Vec<Item> = asked.into_iter().filter(&shown).collect();
    items.shuffle(rng);
    let posed = posed.filter(&shown);
    let mut turns = skill_turns(posed, items, mix.skill_turns);
    let mut asked: Vec<&Track> = tracks.tracks.iter().collect();
    asked.shuffle(rng);
    let utr = asked.iter().filter_map(|t| utr_turn(tracks, t, mix.query, &mix.listing, rng).map(|u| u.turn));
    turns.extend(utr.take(mix.utr_turns).collect::<Vec<_>>());
    if mix.timeline_turns > 0 {
        turns.extend(timelines(script, tracks, first, rng).into_iter().take(mix.timeline_turns));
    }
    turns.extend(captions(tracks, mix, rng));
    let wanted = turns.len() + mix.instruction_turns;
    turns.extend(caption::instructions(tracks, &mix.listing, rng));
    turns.truncate(wanted.max(1));
    turns
}

/// The posed question first, then the others in turn over the skills; none twice.
fn skill_turns(posed: Option<Item>, items: Vec<Item>, wanted: usize) -> Vec<Turn> {
    let mut chosen: Vec<Item> = posed.into_iter().collect();
    let mut rest = items;
    while chosen.len() < wanted && !rest.is_empty() {
        // The skill that has been asked least so far; among equals the first of the shuffled list.
        let asked = |skill: Skill| chosen.iter().filter(|c| c.skill == skill).count();
        let Some(next) = (0..rest.len()).min_by_key(|&i| asked(rest[i].skill)) else { break };
        let item = rest.swap_remove(next);
        if chosen.iter().all(|c| c.question != item.question) {
            chosen.push(item);
        }
    }
    chosen.truncate(wanted);
    chosen.iter().map(Item::turn).collect()
}

fn captions(tracks: &ClipTracks, mix: &Mix, rng: &mut ChaCha8Rng) -> Vec<Turn> {
    let mut made = Vec::new();
    for _ in 0..mix.caption_turns * 2 {
        if made.len() >= mix.caption_turns {
            break;
        }
        let frame = rng.random_range(1..=tracks.frames);
        let told = match rng.random_range(0..3) {
            0 => caption::clip_caption(tracks, rng),
            1 => caption::events(tracks, rng),
            _ => Some(caption::frame_caption(tracks, frame, &mix.listing, rng)),
        };
        let told = told.unwrap_or_else(|| caption::frame_caption(tracks, frame, &mix.listing, rng));
        if made.iter().all(|t: &Turn| t.answer != told.answer) {
            made.push(told);
        }
    }
    made
}

#[cfg(test)]
#[path = "conversations_tests.rs"]
mod tests;
