//! Questions about a clip: facts put into words as open, yes/no and multiple-choice questions.
//!
//! In: a [`Script`] (or a [`Fact`]) and a random generator for kind and wording. Out: [`Item`]s with the right answer, the options, and the
//! answer that the twin clip would have. What can be seen is decided in `facts`, the wording lives in `templates`.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::facts::{Fact, facts};
use super::scene_facts::image_facts;
use super::script::{Script, Skill};
use super::templates::{fill, templates};
use crate::sample::Turn;

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

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 3] = [Kind::Open, Kind::YesNo, Kind::MultipleChoice];
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

impl Item {
    /// An answer or option of this item without the letter of its option.
    pub fn bare<'a>(&self, answer: &'a str) -> &'a str {
        match self.kind {
            Kind::MultipleChoice => answer.split_once(") ").map_or(answer, |(_, text)| text),
            Kind::Open | Kind::YesNo => answer,
        }
    }

    /// The question with the reply that a model is taught. Multiple choice is answered in the words of its option: a letter would have to be
    /// known before the words that it stands for.
    pub fn turn(&self) -> Turn {
        Turn { question: self.question.clone(), answer: self.bare(&self.answer).to_owned() }
    }

    /// The same question for the twin clip.
    pub fn twin(&self, window: [usize; 2]) -> Option<Item> {
        let answer = self.twin_answer.clone()?;
        Some(Item { answer, twin_answer: Some(self.answer.clone()), window, ..self.clone() })
    }
}

/// All decidable questions of a clip: one per fact, in a random kind and wording; order of the clip's objects.
pub fn questions(script: &Script, rng: &mut ChaCha8Rng) -> Vec<Item> {
    facts(script, rng).iter().map(|fact| pose(fact, rng)).collect()
}

/// Questions that the single frame at `step` answers: colours, and how objects lie to each other.
pub fn image_questions(script: &Script, step: usize, rng: &mut ChaCha8Rng) -> Vec<Item> {
    image_facts(script, step, rng).iter().map(|fact| pose(fact, rng)).collect()
}

/// Puts a fact as a question of a random kind.
pub fn pose(fact: &Fact, rng: &mut ChaCha8Rng) -> Item {
    let kind = Kind::ALL[rng.random_range(0..3)];
    pose_as(fact, kind, rng)
}

/// Puts a fact as a question of the given kind, in a random wording; what is right and what is the twin's enters alike.
pub fn pose_as(fact: &Fact, kind: Kind, rng: &mut ChaCha8Rng) -> Item {
    let template = templates(fact.skill, kind).choose(rng).copied().unwrap_or("{0} {a} {b}");
    let mut two = [fact.right.clone(), fact.twin.clone()];
    two.shuffle(rng);
    let (question, answer, options, twin) = match kind {
        Kind::Open => {
            let question = fill(template, &fact.slots, &two, "");
            (question, fact.right.clone(), fact.options.clone(), fact.twin.clone())
        }
        Kind::YesNo => {
            let question = fill(template, &fact.slots, &two, &two[0]);
            let reply = |holds: bool| if holds { "yes" } else { "no" }.to_string();
            let holds = two[0] == fact.right;
            (question, reply(holds), vec![reply(true), reply(false)], reply(!holds))
        }
        Kind::MultipleChoice => {
            let mut shown = two.to_vec();
            if fact.skill == Skill::ObjectShuffle {
                shown = fact.options.clone();
                shown.shuffle(rng);
            }
            let lettered: Vec<String> =
                shown.iter().zip('A'..='Z').map(|(option, letter)| format!("({letter}) {option}")).collect();
            let find = |text: &str| {
                shown.iter().position(|o| o == text).map_or(String::new(), |i| lettered[i].clone())
            };
            let question = format!("{}\n{}", fill(template, &fact.slots, &two, ""), lettered.join("\n"));
            (question, find(&fact.right), lettered.clone(), find(&fact.twin))
        }
    };
    Item {
        skill: fact.skill,
        kind,
        question,
        answer,
        options,
        twin_answer: Some(twin),
        subjects: fact.subjects.clone(),
        window: fact.window,
    }
}
