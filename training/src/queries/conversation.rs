//! UTR queries: bidirectional querying over tracks (arXiv 2502.12081; format in reference.md §7).
//!
//! Comes in: a clip's tracks. Goes out: a question that gives one attribute of one object at one frame, and the answer
//! with its identity, its trajectory before and after that frame, and what it does. A query is posed only where the
//! attribute names exactly one object among all tracks of the clip. Which objects are asked about, follow-up turns and objects that are
//! not there are the business of `dialogue`; captions live in `caption`.

use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::scene;
use super::tracks::{ClipTracks, Track, TrackAction, TrackBox};
use super::wording::Wording;
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

    /// The same in the words of a question.
    pub fn words(&self, frames: u32) -> String {
        match self.every(frames) {
            1 => "in each frame".to_owned(),
            k => format!("every {k} frames"),
        }
    }
}

/// Which frame an attribute is taken from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
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
    /// From which frame to which it does something.
    FrameSpan,
    /// From which second to which it does something.
    TimeSpan,
}

impl Attribute {
    /// All that the paper's figure shows, and the identity.
    pub const ALL: [Attribute; 7] = [
        Attribute::Coordinate,
        Attribute::Location,
        Attribute::Appearance,
        Attribute::Identity,
        Attribute::Action,
        Attribute::FrameSpan,
        Attribute::TimeSpan,
    ];

    /// Those that numbered frames alone decide: seconds need to know how long the clip is.
    pub const OF_FRAMES: [Attribute; 6] = {
        let [a, b, c, d, e, f, _time_span] = Attribute::ALL;
        [a, b, c, d, e, f]
    };

    /// Its name in files and reports.
    pub fn word(self) -> &'static str {
        match self {
            Attribute::Coordinate => "coordinate",
            Attribute::Location => "location",
            Attribute::Appearance => "appearance",
            Attribute::Identity => "identity",
            Attribute::Action => "action",
            Attribute::FrameSpan => "frame-span",
            Attribute::TimeSpan => "time-span",
        }
    }
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

/// One query per track of the clip in the short wording, attributes drawn at random among those that single the object out.
pub fn utr_turns(
    clip: &ClipTracks,
    query: QueryFrame,
    listing: &Listing,
    rng: &mut ChaCha8Rng,
) -> Vec<UtrTurn> {
    clip.tracks.iter().filter_map(|track| utr_turn(clip, track, query, listing, rng)).collect()
}

/// A query about `track` in the short wording, or nothing where no attribute at the drawn frame singles it out.
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
    let mut attributes = Attribute::OF_FRAMES;
    attributes.shuffle(rng);
    let query = Query { clip, track, seen, listing, wording: Wording::Short };
    attributes.iter().find_map(|&attribute| query.pose(attribute, None, rng))
}

/// One object at one frame.
pub struct Query<'a> {
    /// All tracks that are there to be seen, also those that are not asked about: a hint must not fit any of them.
    pub clip: &'a ClipTracks,
    /// The object.
    pub track: &'a Track,
    /// Its box in the query frame.
    pub seen: &'a TrackBox,
    /// How boxes are written.
    pub listing: &'a Listing,
    /// How varied the words are.
    pub wording: Wording,
}

impl Query<'_> {
    /// Question and answer, or nothing where `attribute` does not single the object out. It goes by `id`; by none given it goes by its own
    /// number where the question introduces it, else by 1, the first mentioned.
    pub fn pose(&self, attribute: Attribute, id: Option<u32>, rng: &mut ChaCha8Rng) -> Option<UtrTurn> {
        let introduced = attribute == Attribute::Identity;
        let id = id.unwrap_or(if introduced { self.track.id } else { 1 });
        let hint = self.hint(attribute, id, rng)?;
        let question = format!("{hint} {}", self.wording.request(id, &self.every(), rng));
        let turn = Turn { question, answer: self.answer(id) };
        Some(UtrTurn { turn, attribute, frame: self.seen.frame, track: self.track.id })
    }

    /// Whether `attribute` singles the object out in this frame.
    pub fn decides(&self, attribute: Attribute) -> bool {
        match attribute {
            Attribute::Coordinate | Attribute::Identity => self.is_apart(),
            Attribute::Location => scene::place(self.clip, self.seen).is_some_and(|p| self.is_alone_near(p)),
            Attribute::Appearance => scene::has_own_name(self.clip, self.track),
            Attribute::Action => !self.own_actions().is_empty(),
            Attribute::FrameSpan => !self.own_spans(1).is_empty(),
            Attribute::TimeSpan => !self.own_spans(2).is_empty(),
        }
    }

    /// The sentence that points at the object.
    fn hint(&self, attribute: Attribute, id: u32, rng: &mut ChaCha8Rng) -> Option<String> {
        self.decides(attribute).then_some(())?;
        let frame = format!("frame{}:", self.seen.frame);
        let at = || scene::box_text(self.clip, self.seen, self.listing);
        let slots: Vec<(&str, String)> = match attribute {
            Attribute::Coordinate => vec![("box", at())],
            Attribute::Location => vec![("place", scene::place(self.clip, self.seen)?.to_owned())],
            Attribute::Appearance => {
                let name = self.track.name();
                vec![("a_name", scene::with_article(&name)), ("name", name)]
            }
            Attribute::Identity => {
                let name = scene::short_name(self.clip, self.track);
                vec![("name", name), ("id", id.to_string()), ("box", at())]
            }
            Attribute::Action => vec![("action", self.own_actions().choose(rng)?.text.clone())],
            Attribute::FrameSpan => {
                let (action, act) = *self.own_spans(1).choose(rng)?;
                vec![("act", act.to_owned()), ("span", scene::span_text(action))]
            }
            Attribute::TimeSpan => {
                let (action, act) = *self.own_spans(2).choose(rng)?;
                let (span, length) = scene::seconds_text(self.clip, action);
                vec![("act", act.to_owned()), ("span", span), ("length", length)]
            }
        };
        Some(self.wording.hint(attribute, &frame, &slots, rng))
    }

    /// `every 4 frames`: which frames the answer lists.
    pub fn every(&self) -> String {
        self.listing.words(self.clip.frames)
    }

    fn answer(&self, id: u32) -> String {
        let trajectory = scene::trajectory(self.clip, self.track, id, self.listing);
        match scene::actions_text(self.clip, self.track) {
            Some(actions) => format!("{trajectory} {actions}."),
            None => format!("{trajectory}."),
        }
    }

    /// What it does in this frame and nobody else does at that time.
    fn own_actions(&self) -> Vec<&TrackAction> {
        self.done().filter(|a| self.only_one_doing(a)).collect()
    }

    /// What it does in this frame, but for standing still.
    fn done(&self) -> impl Iterator<Item = &TrackAction> {
        let now = |a: &&TrackAction| (a.start..=a.end).contains(&self.seen.frame) && a.text != scene::STILL;
        self.track.actions.iter().filter(now)
    }

    /// What it does around this frame, for at least `least` frames and not all the time, and how the question calls it: that it `acts` where
    /// nobody else does anything at that time, what it does where nobody else does the same.
    fn own_spans(&self, least: u32) -> Vec<(&TrackAction, &str)> {
        let brief = self.done().filter(|a| !scene::lasts(self.clip, a) && a.end + 1 >= a.start + least);
        let mut spans = Vec::new();
        for action in brief {
            if self.only_one_acting(action) {
                spans.push((action, "acts"));
            } else if self.only_one_doing(action) {
                spans.push((action, action.text.as_str()));
            }
        }
        spans
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
        let acts = |a: &TrackAction| a.text != scene::STILL;
        let overlaps = |a: &TrackAction| a.start <= action.end + 1 && action.start <= a.end + 1;
        !self.others().any(|t| t.actions.iter().any(|a| acts(a) && overlaps(a)))
    }

    fn others(&self) -> impl Iterator<Item = &Track> {
        let own = self.track.id;
        self.clip.tracks.iter().filter(move |t| t.id != own)
    }
}
