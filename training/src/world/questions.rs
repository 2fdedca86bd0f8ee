//! Questions about a clip: which facts of a script can be seen, and how they are asked.
//!
//! In: a [`Script`] (whose truth is known) and a random generator for kind and wording. Out: [`Item`]s with the right answer,
//! the options, and the answer that the twin clip would have. Facts that cannot be decided from the 32 sampled
//! frames (hidden, out of view, ambiguous) are left out. The wording itself lives in `templates`.

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::script::{Script, Skill};

/// How a question is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A short answer in words.
    Open,
    /// "yes" or "no".
    YesNo,
    /// Lettered options; the answer is "(B) right".
    MultipleChoice,
}

/// One question with its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// What it tests.
    pub skill: Skill,
    /// How it is put.
    pub kind: Kind,
    /// The whole text, lettered options included.
    pub question: String,
    /// The right reply: an option's text, "yes" or "no", or "(B) right".
    pub answer: String,
    /// The possible replies in the form of `answer` (all of them; two where the item belongs to an order skill).
    pub options: Vec<String>,
    /// The reply that is right for the twin clip, in the form of `answer`.
    pub twin_answer: Option<String>,
    /// Objects the question is about (indices into the script's objects), in the order they are named.
    pub subjects: Vec<usize>,
    /// First and last whole step that show the fact, in played time: a window that contains them decides the question.
    pub window: [usize; 2],
}

/// All decidable questions of a clip, one per fact.
pub fn questions(script: &Script, rng: &mut ChaCha8Rng) -> Vec<Item> {
    let _ = (script, rng);
    Vec::new()
}
