//! The conversations of a data set: who is asked about, what is given away, what follows.
//!
//! Comes in: clips with all their tracks, and a [`Plan`]. Goes out: LLaVA conversations over each clip's sampled frames, and counts. Per kept track one
//! query whose attribute and frame the data needs most ([`Balance`]), then further turns about the same object, another one or the clip; some
//! questions have nothing to find ([`absent`](super::absent)). Hints are checked against the dropped tracks too, unless they are noise. The words of a clip follow from the seed and the
//! clip's name, its choices also from the clips before it.

use std::collections::BTreeSet;

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::absent::{Vocabulary, absent_in_frame, absent_object, is_out};
use super::balance::{Balance, quarter};
use super::caption;
use super::conversation::{Attribute, Listing, Query, QueryFrame, UtrTurn};
use super::llava::{self, Conversation};
use super::scene;
use super::tracks::{ClipTracks, Track, TrackBox};
use super::wording::Wording;
use crate::parts::generator;
use crate::sample::Turn;
use crate::tracks::filter::{Dropped, Limits, filter};

/// How conversations are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, clap::Args)]
pub struct Plan {
    /// Frames taken uniformly from each clip; conversations count these
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(2..=32))]
    pub frames: u32,
    /// Which frame an attribute is taken from: any that shows the object (bidirectional), or the first
    #[arg(long, value_enum, default_value_t)]
    pub query: QueryFrame,
    /// Queries about each track
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub per_track: u32,
    /// Most boxes that an answer lists, used in turn
    #[arg(long, value_delimiter = ',', default_value = "8,16,32", value_parser = clap::value_parser!(u32).range(1..=32))]
    pub boxes: Vec<u32>,
    /// Coordinates are multiples of this many thousandths; 1 is exact
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub grid: u16,
    /// Most turns of a conversation
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=6))]
    pub turns: u32,
    /// Conversations in a hundred that ask for something that is not there
    #[arg(long, default_value_t = 10, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=50))]
    pub absent: u32,
    /// Decides all that is drawn
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// What became of clips and tracks, and what was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Clips looked at.
    pub clips: usize,
    /// Those without any conversation.
    pub silent: Vec<String>,
    /// Tracks by what became of them.
    pub tracks: Dropped,
    /// Kept tracks that fewer than two sampled frames show.
    pub unsampled: usize,
    /// Queries given up: no attribute singles the object out, or no answer would list two boxes.
    pub ambiguous: usize,
    /// Conversations that begin with a query.
    pub queries: usize,
    /// Conversations that begin with something that is not there.
    pub absent: usize,
    /// What was asked how often.
    pub balance: Balance,
}

/// Makes the conversations of one clip after the other.
#[derive(Clone, Debug)]
pub struct Maker<'a> {
    plan: &'a Plan,
    limits: &'a Limits,
    vocabulary: &'a Vocabulary,
    /// What was asked of the clip: track, attribute, frame.
    posed: BTreeSet<(u32, Attribute, u32)>,
    /// So far.
    pub report: Report,
}

/// Objects that a caption tells of, at most.
const MOST_TOLD: usize = 6;
/// Frames of each quarter of a clip that a query may stand on.
const TRIES: usize = 3;

impl<'a> Maker<'a> {
    /// Before the first clip. `vocabulary` holds the names of the whole data set.
    pub fn new(plan: &'a Plan, limits: &'a Limits, vocabulary: &'a Vocabulary) -> Self {
        Self { plan, limits, vocabulary, posed: BTreeSet::new(), report: Report::default() }
    }

    /// The conversations of the next clip, whose names are [`clean`].
    pub fn clip(&mut self, clip: &ClipTracks) -> Vec<Conversation> {
        let mut kept = clip.clone();
        self.report.tracks += filter(&mut kept, self.limits);
        let mut real = clip.clone();
        filter(&mut real, &self.limits.of_noise());
        let all = real.sampled(self.plan.frames);
        let is_kept = |t: &&Track| kept.tracks.iter().any(|k| k.id == t.id);
        let asked: Vec<&Track> = all.tracks.iter().filter(is_kept).filter(|t| t.boxes.len() >= 2).collect();
        self.report.unsampled += kept.tracks.len() - asked.len();
        let rng = &mut generator(self.plan.seed, &clip.video);
        let source = clip.sampled_frames(self.plan.frames);
        let scene = Scene { whole: clip, clip: &all, asked: &asked, source };
        self.posed.clear();
        let mut made = Vec::new();
        for track in &asked {
            for _ in 0..self.plan.per_track {
                made.extend(self.conversation(&scene, track, rng));
                if rng.random_range(0..100) < self.absent_odds() {
                    made.extend(self.absent(&scene, track, rng));
                }
            }
        }
        self.report.clips += 1;
        self.report.silent.extend(made.is_empty().then(|| clip.video.clone()));
        let numbered = (1..).zip(made);
        numbered
            .map(|(n, (turns, meta))| {
                llava::conversation(&format!("{}#{n}", clip.video), &clip.video, &turns, Some(meta))
            })
            .collect()
    }

    /// Odds in a hundred that a question for something absent follows a query, so that they are the wanted share of all.
    fn absent_odds(&self) -> u32 {
        (100 * self.plan.absent / (100 - self.plan.absent.min(99))).min(100)
    }

    /// A query about `track` and what follows it.
    fn conversation(
        &mut self,
        scene: &Scene<'_>,
        track: &Track,
        rng: &mut ChaCha8Rng,
    ) -> Option<(Vec<Turn>, serde_json::Value)> {
        let Some((utr, listing)) = self.query(scene, track, 1, rng) else {
            self.report.ambiguous += 1;
            return None;
        };
        self.report.queries += 1;
        let (mut turns, mut sorts, mut ids) = (vec![utr.turn.clone()], vec!["utr"], vec![track.id]);
        let mut rest = Further::ALL;
        rest.shuffle(rng);
        let wanted = rng.random_range(1..=self.plan.turns) as usize;
        for further in rest {
            if turns.len() >= wanted {
                break;
            }
            let made = match further {
                Further::Another => self.another(scene, &mut ids, rng),
                plain => scene.further(plain, track, utr.frame, &listing, rng),
            };
            sorts.extend(made.as_ref().map(|_| further.word()));
            turns.extend(made);
        }
        let meta = json!({
            "task": "utr", "query_attribute": utr.attribute, "query_frame": utr.frame, "track_ids": ids,
            "frames": scene.clip.frames, "source_frame": scene.source_frame(utr.frame), "boxes": listing.max_listed, "turns": sorts,
        });
        Some((turns, meta))
    }

    /// A query about an object that is not in `ids` yet.
    fn another(&mut self, scene: &Scene<'_>, ids: &mut Vec<u32>, rng: &mut ChaCha8Rng) -> Option<Turn> {
        let others: Vec<&&Track> = scene.asked.iter().filter(|t| !ids.contains(&t.id)).collect();
        let other = others.choose(rng)?;
        let (utr, _) = self.query(scene, other, ids.len() as u32 + 1, rng)?;
        ids.push(other.id);
        Some(utr.turn)
    }

    /// The question about `track` that the data needs most.
    fn query(
        &mut self,
        scene: &Scene<'_>,
        track: &Track,
        id: u32,
        rng: &mut ChaCha8Rng,
    ) -> Option<(UtrTurn, Listing)> {
        let balance = &mut self.report.balance;
        let listed = |most: &u32| {
            let listing = Listing { grid: self.plan.grid, max_listed: *most };
            scene::listed(scene.clip, track, &listing).count()
        };
        let enough: Vec<u32> = self.plan.boxes.iter().copied().filter(|most| listed(most) >= 2).collect();
        if enough.is_empty() {
            return None;
        }
        let listing = Listing { grid: self.plan.grid, max_listed: balance.least_listed(&enough) };
        let query =
            |seen| Query { clip: scene.clip, track, seen, listing: &listing, wording: Wording::Varied };
        let frames = candidates(track, scene.clip.frames, self.plan.query, rng);
        let mut best: Option<(f64, Attribute, &TrackBox)> = None;
        for attribute in Attribute::ALL {
            let new = |b: &&&TrackBox| !self.posed.contains(&(track.id, attribute, b.frame));
            let fitting: Vec<&&TrackBox> =
                frames.iter().filter(new).filter(|b| query(**b).decides(attribute)).collect();
            if fitting.is_empty() {
                *balance.undecided.entry(attribute).or_default() += 1;
            }
            for seen in fitting {
                let surplus = balance.surplus(attribute, quarter(seen.frame, scene.clip.frames))
                    + rng.random_range(0.0..1e-3);
                if best.is_none_or(|(least, ..)| surplus < least) {
                    best = Some((surplus, attribute, seen));
                }
            }
        }
        let (_, attribute, seen) = best?;
        let utr = query(seen).pose(attribute, Some(id), rng)?;
        balance.count(attribute, quarter(seen.frame, scene.clip.frames), listing.max_listed);
        self.posed.insert((track.id, attribute, seen.frame));
        Some((utr, listing))
    }

    /// A question about something that is not there.
    fn absent(
        &mut self,
        scene: &Scene<'_>,
        track: &Track,
        rng: &mut ChaCha8Rng,
    ) -> Option<(Vec<Turn>, serde_json::Value)> {
        let max_listed = self.plan.boxes.choose(rng).copied().unwrap_or(8);
        let listing = Listing { grid: self.plan.grid, max_listed };
        let query = Query {
            clip: scene.clip,
            track,
            seen: track.boxes.first()?,
            listing: &listing,
            wording: Wording::Varied,
        };
        let object = |rng: &mut ChaCha8Rng| {
            let (turn, frame) = absent_object(
                (scene.whole, scene.clip),
                self.vocabulary,
                (&query.every(), Wording::Varied),
                rng,
            )?;
            Some((turn, frame, "absent-object", Vec::new()))
        };
        let in_frame = |rng: &mut ChaCha8Rng| {
            let (turn, frame) = absent_in_frame(&query, |frame| scene.is_out(track, frame), rng)?;
            Some((turn, frame, "absent-in-frame", vec![track.id]))
        };
        let (turn, frame, task, ids) = if rng.random() {
            object(rng).or_else(|| in_frame(rng))
        } else {
            in_frame(rng).or_else(|| object(rng))
        }?;
        self.report.absent += 1;
        let meta = json!({
            "task": task, "query_attribute": Attribute::Appearance, "query_frame": frame, "track_ids": ids, "frames": scene.clip.frames,
            "source_frame": scene.source_frame(frame), "boxes": max_listed,
        });
        Some((vec![turn], meta))
    }
}

/// Frames a query about `track` may stand on: a few of each quarter, or the first.
fn candidates<'t>(
    track: &'t Track,
    frames: u32,
    query: QueryFrame,
    rng: &mut ChaCha8Rng,
) -> Vec<&'t TrackBox> {
    if query == QueryFrame::First {
        return track.boxes.iter().take(1).collect();
    }
    let mut order: Vec<&TrackBox> = track.boxes.iter().collect();
    order.shuffle(rng);
    let mut taken = [0; super::balance::PARTS];
    order.retain(|b| {
        let count = &mut taken[quarter(b.frame, frames)];
        *count += 1;
        *count <= TRIES
    });
    order
}

/// Names come from outside: what would break the text of a trajectory becomes a space.
pub fn clean(track: &mut Track) {
    let tidy = |text: &str| {
        let letter = |c: char| if "<>[]{};:,.".contains(c) || c.is_control() { ' ' } else { c };
        text.chars().map(letter).collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    track.category = tidy(&track.category);
    track.appearance = tidy(&track.appearance);
    track.actions.iter_mut().for_each(|a| a.text = tidy(&a.text));
    track.actions.retain(|a| !a.text.is_empty());
    if track.category.is_empty() {
        track.category = "object".into();
    }
}

/// What may follow a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Further {
    Place,
    Deed,
    Seen,
    Another,
    Caption,
}

impl Further {
    const ALL: [Further; 5] =
        [Further::Place, Further::Deed, Further::Seen, Further::Another, Further::Caption];

    fn word(self) -> &'static str {
        match self {
            Further::Place => "place",
            Further::Deed => "deed",
            Further::Seen => "seen",
            Further::Another => "utr",
            Further::Caption => "caption",
        }
    }
}

/// A clip while its conversations are made.
struct Scene<'a> {
    /// All tracks as they were found.
    whole: &'a ClipTracks,
    /// All that are no noise, on the sampled frames.
    clip: &'a ClipTracks,
    /// Those that are asked about.
    asked: &'a [&'a Track],
    /// The source's frame number of each sampled frame.
    source: Vec<u32>,
}

impl Scene<'_> {
    fn source_frame(&self, frame: u32) -> Option<u32> {
        self.source.get(frame.checked_sub(1)? as usize).copied()
    }

    /// Whether an object is out of the picture in a sampled frame.
    fn is_out(&self, track: &Track, frame: u32) -> bool {
        self.source_frame(frame).is_some_and(|source| is_out(self.whole, track.id, source))
    }

    /// A turn about `<id1>` or about the clip.
    fn further(
        &self,
        sort: Further,
        track: &Track,
        asked_at: u32,
        listing: &Listing,
        rng: &mut ChaCha8Rng,
    ) -> Option<Turn> {
        let turn = |question: String, answer: String| Some(Turn { question, answer });
        let words = Wording::Varied;
        match sort {
            Further::Place => {
                let clear = |f: &u32| *f != asked_at && (track.at(*f).is_some() || self.is_out(track, *f));
                let frame = *(1..=self.clip.frames).filter(clear).collect::<Vec<_>>().choose(rng)?;
                let forms =
                    ["Where is <id1> in {}?", "And in {}, where is <id1>?", "Give the box of <id1> in {}."];
                let question = words.any(&forms, rng).replace("{}", &format!("frame{frame}:"));
                let answer = match track.at(frame) {
                    Some(b) => format!("frame{frame}:{}", scene::box_text(self.clip, b, listing)),
                    None => format!("It is not seen in frame{frame}:."),
                };
                turn(question, answer)
            }
            Further::Deed => {
                let action = track.actions.choose(rng)?;
                let seen = |f: &u32| track.at(*f).is_some();
                let frame = *(action.start..=action.end).filter(seen).collect::<Vec<_>>().choose(rng)?;
                let done = track.actions.iter().filter(|a| (a.start..=a.end).contains(&frame));
                let forms = [
                    "What does <id1> do in {}?",
                    "And what is <id1> doing in {}?",
                    "The action of <id1> in {}?",
                ];
                let question = words.any(&forms, rng).replace("{}", &format!("frame{frame}:"));
                let answer: BTreeSet<&str> = done.map(|a| a.text.as_str()).collect();
                let answer: Vec<&str> = answer.into_iter().collect();
                turn(question, format!("It {}.", answer.join(" and ")))
            }
            Further::Seen => {
                // Of several that could be it, another may be the same one earlier or later.
                let known = self.whole.tracks.iter().find(|t| t.id == track.id)?;
                scene::has_own_name(self.whole, known).then_some(())?;
                let (first, last) = (track.boxes.first()?.frame, track.boxes.last()?.frame);
                let forms =
                    ["From which frame to which is <id1> seen?", "When does <id1> first and last appear?"];
                turn(words.any(&forms, rng).to_owned(), format!("From frame{first}: to frame{last}:."))
            }
            // Of a crowd nobody tells what each one does.
            Further::Caption if self.asked.len() > MOST_TOLD => None,
            Further::Caption => {
                let tracks = self.asked.iter().map(|t| (*t).clone()).collect();
                let clip = ClipTracks { tracks, video: String::new(), times_ms: Vec::new(), ..*self.clip };
                caption::clip_caption(&clip, rng)
            }
            Further::Another => None,
        }
    }
}

#[cfg(test)]
#[path = "dialogue_tests.rs"]
mod tests;
