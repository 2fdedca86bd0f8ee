//! UTR conversations: bidirectional querying over tracks (arXiv 2502.12081; format in reference.md §7).
//!
//! Comes in: a clip's tracks. Goes out: a question that gives one attribute of one object at one frame, and the answer
//! with its identity, its trajectory before and after that frame, and what it does. A query is posed only where the
//! attribute names exactly one object. Captions and short instructions live in `caption`.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::scene;
use super::tracks::{ClipTracks, Track, TrackAction, TrackBox};
use crate::sample::Turn;

/// How boxes are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listing {
    /// Coordinates are multiples of this many thousandths; 1 is exact.
    pub grid: u16,
    /// At most this many frames of a trajectory are listed: every k-th, from frame 1.
    pub max_listed: u32,
}

impl Default for Listing {
    /// The shipped model's listing: grid 20, at most 8 frames.
    fn default() -> Self {
        Self { grid: 20, max_listed: 8 }
    }
}

impl Listing {
    /// The k of "every k-th frame" for a clip of `frames`.
    pub fn every(&self, frames: u32) -> u32 {
        frames.div_ceil(self.max_listed.max(1)).max(1)
    }
}

/// Which frame an attribute is taken from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueryFrame {
    /// Any frame in which the object is seen: the answer must look both ways (the paper's bidirectional querying).
    #[default]
    Random,
    /// The first frame in which it is seen (Merlin's way; for comparison).
    First,
}

/// What the question gives away about the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attribute {
    /// Its box.
    Coordinate,
    /// Its place in words.
    Location,
    /// How it looks.
    Appearance,
    /// Its number, introduced with its box.
    Identity,
    /// What it does at that frame.
    Action,
    /// From when to when it does something.
    TimeSpan,
}

impl Attribute {
    /// All six.
    pub const ALL: [Attribute; 6] = [
        Attribute::Coordinate,
        Attribute::Location,
        Attribute::Appearance,
        Attribute::Identity,
        Attribute::Action,
        Attribute::TimeSpan,
    ];
}

/// A UTR question and answer, and what it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UtrTurn {
    /// The words.
    pub turn: Turn,
    /// The attribute given.
    pub attribute: Attribute,
    /// The query frame, from 1.
    pub frame: u32,
    /// The id of the track asked about, in the clip's numbering.
    pub track: u32,
}

/// One query per track of the clip, attributes drawn at random among those that single the object out.
pub fn utr_turns(
    clip: &ClipTracks,
    query: QueryFrame,
    listing: &Listing,
    rng: &mut ChaCha8Rng,
) -> Vec<UtrTurn> {
    clip.tracks.iter().filter_map(|track| utr_turn(clip, track, query, listing, rng)).collect()
}

/// A query about `track`, or nothing where no attribute at the drawn frame singles it out.
pub fn utr_turn(
    clip: &ClipTracks,
    track: &Track,
    query: QueryFrame,
    listing: &Listing,
    rng: &mut ChaCha8Rng,
) -> Option<UtrTurn> {
    let seen = match query {
        QueryFrame::Random => track.boxes.choose(rng)?,
        QueryFrame::First => track.boxes.first()?,
    };
    let mut attributes = Attribute::ALL;
    attributes.shuffle(rng);
    let query = Query { clip, track, seen, listing };
    attributes.iter().find_map(|&attribute| {
        let (hint, id) = query.hint(attribute, rng)?;
        let turn = Turn { question: query.question(&hint, id, rng), answer: query.answer(id) };
        Some(UtrTurn { turn, attribute, frame: seen.frame, track: track.id })
    })
}

/// One object at one frame.
struct Query<'a> {
    clip: &'a ClipTracks,
    track: &'a Track,
    seen: &'a TrackBox,
    listing: &'a Listing,
}

impl Query<'_> {
    /// The sentence that points at the object, and the id it goes by in the conversation: its own where the question
    /// introduces it, else 1, the first mentioned.
    fn hint(&self, attribute: Attribute, rng: &mut ChaCha8Rng) -> Option<(String, u32)> {
        let frame = self.seen.frame;
        let first = |hint: String| Some((hint, 1));
        match attribute {
            Attribute::Coordinate => {
                let at = scene::box_text(self.clip, self.seen, self.listing);
                self.is_apart().then_some(())?;
                first(format!("What is at frame{frame}:{at}?"))
            }
            Attribute::Location => {
                let place = scene::place(self.clip, self.seen)?;
                self.is_alone_near(place).then_some(())?;
                first(format!("What is at the {place} in frame{frame}:?"))
            }
            Attribute::Appearance => {
                scene::has_own_name(self.clip, self.track).then_some(())?;
                let name = self.track.name();
                first(format!("Find the {name} of frame{frame}:."))
            }
            Attribute::Identity => {
                let id = self.track.id;
                self.is_apart().then_some(())?;
                let (name, at) = (
                    scene::short_name(self.clip, self.track),
                    scene::box_text(self.clip, self.seen, self.listing),
                );
                Some((format!("{name}<id{id}>frame{frame}:{at}</id{id}>: follow <id{id}>."), id))
            }
            Attribute::Action => {
                let done = self.track.actions.iter().filter(|a| (a.start..=a.end).contains(&frame));
                let own: Vec<&TrackAction> = done.filter(|a| self.only_one_doing(a)).collect();
                first(format!("What {} in frame{frame}:?", own.choose(rng)?.text))
            }
            Attribute::TimeSpan => {
                let brief = self.track.actions.iter().filter(|a| !scene::lasts(self.clip, a));
                let own: Vec<&TrackAction> = brief.filter(|a| self.only_one_acting(a)).collect();
                first(format!("What acts {}?", scene::span_text(own.choose(rng)?)))
            }
        }
    }

    fn question(&self, hint: &str, id: u32, rng: &mut ChaCha8Rng) -> String {
        let every = match self.listing.every(self.clip.frames) {
            1 => "in each frame".to_owned(),
            k => format!("every {k} frames"),
        };
        let form = format!("name<id{id}>frame1:[box];...</id{id}>");
        match rng.random_range(0..3) {
            0 => format!("{hint} Give its track {every} as {form} and its actions."),
            1 => format!("{hint} Where is it {every}, and what does it do? Use {form}."),
            _ => format!("{hint} Track it {every}, then say what it does. Format: {form}."),
        }
    }

    fn answer(&self, id: u32) -> String {
        let trajectory = scene::trajectory(self.clip, self.track, id, self.listing);
        match scene::actions_text(self.clip, self.track) {
            Some(actions) => format!("{trajectory} {actions}."),
            None => format!("{trajectory}."),
        }
    }

    /// No other object's box in this frame could be meant by this one's.
    fn is_apart(&self) -> bool {
        let others = self.others().filter_map(|t| t.at(self.seen.frame));
        others.into_iter().all(|b| scene::iou(b.xyxy, self.seen.xyxy) < 0.4)
    }

    /// No other object is at, or too near the border of, this place.
    fn is_alone_near(&self, place: &str) -> bool {
        let mut others = self.others().filter_map(|t| t.at(self.seen.frame));
        others.all(|b| scene::place(self.clip, b).is_some_and(|p| p != place))
    }

    fn only_one_doing(&self, action: &TrackAction) -> bool {
        let overlaps = |a: &TrackAction| a.start <= action.end + 1 && action.start <= a.end + 1;
        !self.others().any(|t| t.actions.iter().any(|a| a.text == action.text && overlaps(a)))
    }

    fn only_one_acting(&self, action: &TrackAction) -> bool {
        let brief = |a: &TrackAction| !scene::lasts(self.clip, a);
        let overlaps = |a: &TrackAction| a.start <= action.end + 1 && action.start <= a.end + 1;
        !self.others().any(|t| t.actions.iter().any(|a| brief(a) && overlaps(a)))
    }

    fn others(&self) -> impl Iterator<Item = &Track> {
        let own = self.track.id;
        self.clip.tracks.iter().filter(move |t| t.id != own)
    }
}
