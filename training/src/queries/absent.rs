//! Questions about what is not there: an object that the clip never shows, or one that this frame does not show.
//!
//! Comes in: a clip's tracks (all of them, kept or not) and the names that occur in the data set. Goes out: questions whose answer denies their premise. They
//! teach a model not to invent trajectories. What an expert overlooked is unknown here; names are therefore taken from what it can see.

use std::collections::BTreeSet;

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::conversation::{Attribute, Query};
use super::scene;
use super::tracks::{ClipTracks, Track};
use super::wording::Wording;
use crate::sample::Turn;

/// Words of size; they alone do not tell two objects apart.
const SIZES: [&str; 3] = ["small", "medium", "large"];
/// Names that are tried for one that the clip does not have.
const TRIES: usize = 24;
/// Sampled frames between the question and the nearest sight of the object.
const CLEAR: u32 = 2;

/// The names that occur in a data set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vocabulary {
    names: Vec<(String, String)>,
}

impl Vocabulary {
    /// Category and appearance of every track.
    pub fn of<'a>(tracks: impl Iterator<Item = &'a Track>) -> Self {
        let names: BTreeSet<(String, String)> =
            tracks.map(|t| (t.category.clone(), t.appearance.clone())).collect();
        Self { names: names.into_iter().collect() }
    }

    /// A name that no track of the clip could be called.
    fn absent(&self, clip: &ClipTracks, rng: &mut ChaCha8Rng) -> Option<String> {
        (0..TRIES).find_map(|_| {
            let (category, appearance) = self.names.choose(rng)?;
            let fits = |t: &Track| t.category == *category && shares_a_word(&t.appearance, appearance);
            let name = [appearance.as_str(), category.as_str()].join(" ").trim().to_owned();
            (!clip.tracks.iter().any(fits)).then_some(name)
        })
    }
}

/// Whether two looks have a word in common that is no size; a look without such words may be any.
fn shares_a_word(a: &str, b: &str) -> bool {
    let words = |text: &str| -> BTreeSet<String> {
        text.split_whitespace().filter(|w| !SIZES.contains(w)).map(str::to_lowercase).collect()
    };
    let (a, b) = (words(a), words(b));
    a.is_empty() || b.is_empty() || a.intersection(&b).next().is_some()
}

/// A question for an object that the clip does not show, and the frame it names.
pub fn absent_object(
    clip: &ClipTracks,
    vocabulary: &Vocabulary,
    (every, wording): (&str, Wording),
    rng: &mut ChaCha8Rng,
) -> Option<(Turn, u32)> {
    let name = vocabulary.absent(clip, rng)?;
    let frame = rng.random_range(1..=clip.frames.max(1));
    let hint = wording.hint(Attribute::Appearance, &format!("frame{frame}:"), &[("name", name.clone())], rng);
    let question = format!("{hint} {}", wording.request(1, every, rng));
    let forms = ["There is no {} in this video.", "No {} is seen in any frame.", "This video shows no {}."];
    let answer = wording.any(&forms, rng).replace("{}", &name);
    Some((Turn { question, answer }, frame))
}

/// A question for an object in a frame that does not show it; the answer says so and gives its trajectory. `query.seen` is not used.
pub fn absent_in_frame(query: &Query<'_>, rng: &mut ChaCha8Rng) -> Option<(Turn, u32)> {
    let Query { clip, track, listing, wording, .. } = query;
    scene::has_own_name(clip, track).then_some(())?;
    let far = |frame: &u32| track.boxes.iter().all(|b| b.frame.abs_diff(*frame) > CLEAR);
    let frames: Vec<u32> = (1..=clip.frames).filter(far).collect();
    let frame = *frames.choose(rng)?;
    let hint = wording.hint(Attribute::Appearance, &format!("frame{frame}:"), &[("name", track.name())], rng);
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
    fn looks_that_could_be_meant_are_not_absent() {
        assert!(shares_a_word("small red", "large red dotted"));
        assert!(!shares_a_word("small red", "small blue"));
        assert!(shares_a_word("", "small blue") && shares_a_word("small", "blue"));
    }
}
