//! Filler: answers beside the questions of a sample, up to a number of tokens that is the same whatever they are about.
//!
//! Comes in: a clip's tracks and a [`Filler`]. Goes out: [`Fill`]s, UTR queries and captions in the wanted proportion. Studies that compare kinds of training data
//! give every arm the same questions and as many tokens of filler. Tokens are counted where there is a tokenizer, in the trainer's encoder.

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::script::{Category, Colour};
use crate::queries::absent::{Vocabulary, absent_object};
use crate::queries::{ClipTracks, Listing, QueryFrame, Track, caption, utr_turn, wording::Wording};
use crate::sample::{Fill, Turn};

/// Times over the tracks of a clip in search of further turns.
const ROUNDS: usize = 4;
/// Frames of a clip that are described at most.
const MOST_FRAMES: usize = 16;

/// How much is said beside the questions, and about what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filler {
    /// Supervised tokens per sample, on average over samples.
    pub tokens: usize,
    /// What they weigh together; a question weighs one (where `length_power` is 1).
    pub weight: f32,
    /// Share of the tokens that UTR queries have; captions have the rest.
    pub utr: f64,
    /// Share of UTR queries for objects that are not in the clip; the answer denies them.
    #[serde(default)]
    pub absent: f64,
}

impl Filler {
    /// What is out of range, in words.
    pub fn check(&self) -> Result<(), String> {
        let share = |x: f64| (0.0..=1.0).contains(&x);
        match share(self.utr) && share(self.absent) && self.weight.is_finite() && self.weight > 0.0 {
            true if self.tokens > 0 => Ok(()),
            _ => Err("filler wants tokens and weight above zero, utr and absent between 0 and 1".into()),
        }
    }

    /// The fills of one clip; more turns than fit, in random order. `query` says where the attribute of a UTR query is taken from.
    pub fn fills(
        &self,
        clip: &ClipTracks,
        query: QueryFrame,
        listing: &Listing,
        rng: &mut ChaCha8Rng,
    ) -> Vec<Fill> {
        let utr = (self.tokens as f64 * self.utr).round() as usize;
        let mut fills = Vec::new();
        let mut fill = |tokens: usize, turns: Vec<Turn>| {
            let weight = self.weight * tokens as f32 / self.tokens as f32;
            if tokens > 0 {
                fills.push(Fill { turns, tokens, weight });
            }
        };
        fill(utr, self.queries(clip, query, listing, rng));
        fill(self.tokens - utr, captions(clip, listing, rng));
        fills
    }

    fn queries(
        &self,
        clip: &ClipTracks,
        query: QueryFrame,
        listing: &Listing,
        rng: &mut ChaCha8Rng,
    ) -> Vec<Turn> {
        let every = listing.words(clip.frames);
        let names = names();
        let mut made: Vec<Turn> = Vec::new();
        for _ in 0..ROUNDS {
            let mut tracks: Vec<&Track> = clip.tracks.iter().collect();
            tracks.shuffle(rng);
            for track in tracks {
                let turn = if rng.random_bool(self.absent) {
                    absent_object((clip, clip), &names, (&every, Wording::Short), rng).map(|(turn, _)| turn)
                } else {
                    utr_turn(clip, track, query, listing, rng).map(|utr| utr.turn)
                };
                made.extend(turn.filter(|turn| made.iter().all(|t| t.question != turn.question)));
            }
        }
        made
    }
}

/// Captions of the clip and of its frames, and short questions about its frames.
fn captions(clip: &ClipTracks, listing: &Listing, rng: &mut ChaCha8Rng) -> Vec<Turn> {
    let mut made: Vec<Turn> = Vec::new();
    let mut frames: Vec<u32> = (1..=clip.frames.max(1)).collect();
    frames.shuffle(rng);
    for frame in frames.into_iter().take(MOST_FRAMES) {
        let mut told = vec![caption::frame_caption(clip, frame, listing, rng)];
        told.extend(caption::clip_caption(clip, rng));
        told.extend(caption::events(clip, rng));
        told.extend(caption::instructions(clip, listing, rng).into_iter().take(1));
        for turn in told {
            if made.iter().all(|t| t.question != turn.question) {
                made.push(turn);
            }
        }
    }
    made.shuffle(rng);
    made
}

/// Every name that an object of the world can have by colour and shape.
pub fn names() -> Vocabulary {
    let named = |category: &Category, colour: &Colour| Track {
        id: 0,
        category: category.word().into(),
        appearance: colour.word().into(),
        boxes: Vec::new(),
        actions: Vec::new(),
    };
    let tracks: Vec<Track> =
        Category::ALL.iter().flat_map(|c| Colour::ALL.iter().map(move |colour| named(c, colour))).collect();
    Vocabulary::of(tracks.iter())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queries::trajectory::parse_all;
    use crate::world::conversations::world_tracks;
    use crate::world::{Split, WorldConfig, clip_seed, generate};
    use rand::SeedableRng;

    fn fills(utr: f64, absent: f64) -> Vec<Fill> {
        let filler = Filler { tokens: 90, weight: 3.0, utr, absent };
        let script = generate(clip_seed(Split::Train, 5), &WorldConfig::full());
        let clip = world_tracks(&script, "c", 64, 0, 8);
        filler.fills(&clip, QueryFrame::Random, &Listing::default(), &mut ChaCha8Rng::seed_from_u64(2))
    }

    #[test]
    fn shares_split_tokens_and_weight() {
        let [utr, captions] = &fills(1.0 / 3.0, 0.0)[..] else { panic!("two fills") };
        assert_eq!((utr.tokens, captions.tokens), (30, 60));
        assert!((utr.weight - 1.0).abs() < 1e-6 && (captions.weight - 2.0).abs() < 1e-6);
        assert!(utr.turns.iter().all(|t| !parse_all(&t.answer).unwrap().is_empty()));
        assert!(captions.turns.iter().all(|t| parse_all(&t.answer).unwrap().is_empty()));
        assert_eq!((fills(0.0, 0.0).len(), fills(1.0, 0.0).len()), (1, 1));
    }

    #[test]
    fn absent_objects_are_denied() {
        let [fill] = &fills(1.0, 1.0)[..] else { panic!("one fill") };
        assert!(!fill.turns.is_empty());
        assert!(fill.turns.iter().all(|t| parse_all(&t.answer).unwrap().is_empty()));
    }
}
