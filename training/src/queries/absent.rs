//! Questions about what is not there: an object that the clip never shows, or one that this frame does not show.
//!
//! Comes in: a clip's tracks (all of them, noise too) and the names that occur in the data set. Goes out: questions whose answer denies their premise. They
//! teach a model not to invent trajectories. What an expert overlooked is unknown here; names are therefore taken from what it can see, and an object is
//! said to be out of the picture only where it was seen to leave or enter it.

use std::collections::BTreeSet;

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::conversation::{Attribute, Query};
use super::scene;
use super::tracks::{ClipTracks, Track};
use super::wording::Wording;
use crate::sample::Turn;

/// Words that cannot both be true of one thing.
const COLOURS: [&str; 12] =
    ["black", "blue", "brown", "cyan", "green", "grey", "orange", "pink", "purple", "red", "white", "yellow"];
/// What an expert without classes calls everything: its absence cannot be known.
const ANYTHING: &str = "object";
/// Names that are tried for one that the clip does not have.
const TRIES: usize = 24;
/// Sampled frames between the question and the nearest sight of the object.
const CLEAR: u32 = 2;
/// How near the frame's border a box ends, in shares of its side, where the object leaves the picture there.
const BORDER: f32 = 0.02;

/// The names that occur in a data set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vocabulary {
    names: Vec<(String, String)>,
}

impl Vocabulary {
    /// Category and appearance of every track.
    pub fn of<'a>(tracks: impl Iterator<Item = &'a Track>) -> Self {
        let names: BTreeSet<(String, String)> = tracks
            .filter(|t| t.category != ANYTHING)
            .map(|t| (t.category.clone(), t.appearance.clone()))
            .collect();
        Self { names: names.into_iter().collect() }
    }

    /// A name that no track of the clip could be called.
    fn absent(&self, clip: &ClipTracks, rng: &mut ChaCha8Rng) -> Option<String> {
        (0..TRIES).find_map(|_| {
            let (category, appearance) = self.names.choose(rng)?;
            let fits = |t: &Track| {
                t.category.to_lowercase() == category.to_lowercase() && !contradict(&t.appearance, appearance)
            };
            let name = [appearance.as_str(), category.as_str()].join(" ").trim().to_owned();
            (!clip.tracks.iter().any(fits)).then_some(name)
        })
    }
}

/// Whether two looks name colours and have none in common; other words may both be true.
fn contradict(a: &str, b: &str) -> bool {
    let colours = |text: &str| -> Vec<String> {
        text.split_whitespace().map(str::to_lowercase).filter(|w| COLOURS.contains(&w.as_str())).collect()
    };
    let (a, b) = (colours(a), colours(b));
    !a.is_empty() && !b.is_empty() && !a.iter().any(|colour| b.contains(colour))
}

/// Whether the object is out of the picture in the source's `frame`: `whole` (all tracks, unsampled) shows it leave or enter at the border on that side, and nothing
/// else that could be it.
pub fn is_out(whole: &ClipTracks, id: u32, frame: u32) -> bool {
    let Some(track) = whole.tracks.iter().find(|t| t.id == id) else { return false };
    let [first, last] = [track.boxes.first(), track.boxes.last()];
    let side = first.filter(|b| frame < b.frame).or(last.filter(|b| frame > b.frame));
    let at_border = side.is_some_and(|b| {
        let [x, y] = [BORDER * whole.width as f32, BORDER * whole.height as f32];
        let [x1, y1, x2, y2] = b.xyxy;
        x1 <= x || y1 <= y || x2 >= whole.width as f32 - x || y2 >= whole.height as f32 - y
    });
    at_border && scene::has_own_name(whole, track)
}

/// A question for an object that the clip does not show, and the frame it names.
pub fn absent_object(
    (whole, clip): (&ClipTracks, &ClipTracks),
    vocabulary: &Vocabulary,
    (every, wording): (&str, Wording),
    rng: &mut ChaCha8Rng,
) -> Option<(Turn, u32)> {
    let name = vocabulary.absent(whole, rng)?;
    let frame = rng.random_range(1..=clip.frames.max(1));
    let slots = [("a_name", scene::with_article(&name)), ("name", name.clone())];
    let hint = wording.hint(Attribute::Appearance, &format!("frame{frame}:"), &slots, rng);
    let question = format!("{hint} {}", wording.request(1, every, rng));
    let forms = ["There is no {} in this video.", "No {} is seen in any frame.", "This video shows no {}."];
    let answer = wording.any(&forms, rng).replace("{}", &name);
    Some((Turn { question, answer }, frame))
}

/// A question for an object in a frame in which it is out of the picture, by `out`; the answer says so and gives its trajectory. `query.seen` is not used.
pub fn absent_in_frame(
    query: &Query<'_>,
    out: impl Fn(u32) -> bool,
    rng: &mut ChaCha8Rng,
) -> Option<(Turn, u32)> {
    let Query { clip, track, listing, wording, .. } = query;
    let far = |frame: &u32| track.boxes.iter().all(|b| b.frame.abs_diff(*frame) > CLEAR);
    let frames: Vec<u32> = (1..=clip.frames).filter(far).filter(|frame| out(*frame)).collect();
    let frame = *frames.choose(rng)?;
    let slots = [("a_name", scene::with_article(&track.name())), ("name", track.name())];
    let hint = wording.hint(Attribute::Appearance, &format!("frame{frame}:"), &slots, rng);
    let question = format!("{hint} {}", wording.request(1, &query.every(), rng));
    let trajectory = scene::trajectory(clip, track, 1, listing);
    let said = scene::actions_text(clip, track).map(|a| format!(" {a}")).unwrap_or_default();
    let answer = format!("It is not seen in frame{frame}:. {trajectory}{said}.");
    Some((Turn { question, answer }, frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_colours_that_differ_contradict() {
        assert!(!contradict("small red", "large Red dotted"));
        assert!(contradict("small red", "small blue"));
        assert!(!contradict("tall old", "bearded") && !contradict("", "small blue"));
    }
}
