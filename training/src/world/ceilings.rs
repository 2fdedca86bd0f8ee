//! Ceilings: how far one gets on each skill without watching the clip in order.
//!
//! Comes in: a suite. Goes out: for each skill the accuracy of a blind guesser, of the best single frame (knowing its
//! position), of the best 2 and 4 frames, and of the unordered bag of frames, as JSON. Forests are fitted on pairs of the
//! train split from visible state alone ([`super::observe`]), positions are chosen there too, and the suite is scored once.
//! The simulator's behaviours are never looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};
use utr_models::{Error, Result};

use super::extra_trees::{Forest, Growth, Table};
use super::observe::{Observed, PER_BAG, two_answers, width_at};
use super::suite::Suite;
use super::{HoldOut, Item, Kind, Posed, STEPS, Script, Skill, Split, clip_seed, pair};
use crate::files::write_atomic;
use crate::stats::wilson;

/// Pairs of the train split that forests are fitted on, per skill.
pub const FIT_PAIRS: usize = 1500;
/// Fresh pairs of the train split that narrow the intervals of the order skills, per skill.
pub const FRESH_PAIRS: usize = 1000;
/// Train seeds of the ceilings start here, far from those of training.
const FIRST_FIT_SEED: u64 = 1 << 40;
/// Answers of a skill are classes by their text up to this many; beyond, by which of the two comes first in the question.
const TEXT_CLASSES: usize = 12;
/// Words of a question that are told apart, at most.
const WORDS: usize = 64;

/// The committed result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ceilings {
    /// The suite's name.
    pub suite: String,
    /// [`Suite::hash`] of the suite that was scored.
    pub suite_hash: String,
    /// Pairs per skill the forests saw.
    pub fit_pairs: usize,
    /// By skill, in the suite's order.
    pub skills: Vec<SkillCeilings>,
    /// Share of all items that the best 4 frames do not answer (wrong, or right by no more than chance).
    pub needs_more_than_four: f64,
}

/// Ceilings of one skill. All are item accuracies, 0 to 1, of choosing between the item's answer and its twin's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SkillCeilings {
    /// The skill.
    pub skill: Skill,
    /// Only the order of frames decides (by construction, see [`Skill::is_order`]).
    pub order: bool,
    /// The bag of frames does not decide (measured): chance lies in its interval, or it is within 3 points of chance.
    pub bag_proof: bool,
    /// Items scored.
    pub n: usize,
    /// Accuracy of a coin.
    pub chance: f64,
    /// The question alone.
    pub blind: Score,
    /// The best single frame, knowing its position.
    pub single: Score,
    /// The best two frames.
    pub two: Score,
    /// The best four frames.
    pub four: Score,
    /// All frames without their order.
    pub bag: Score,
    /// Positions the forests chose, 0 to 31: one, two, four.
    pub positions: [Vec<usize>; 3],
    /// Single frame and bag on fresh pairs of the train distribution, which are more than the suite's.
    pub fresh: Fresh,
}

/// An accuracy with its 95 % interval (Wilson, over pairs).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// Share of right items; a tie counts half.
    pub accuracy: f64,
    /// Lower and upper end.
    pub interval: [f64; 2],
}

/// The same forests on more pairs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fresh {
    /// Items scored.
    pub n: usize,
    /// The best single frame.
    pub single: Score,
    /// The bag.
    pub bag: Score,
}

impl Ceilings {
    /// Reads the committed file and checks that it belongs to `suite`.
    ///
    /// # Errors
    /// A missing file, or ceilings of another suite.
    pub fn load(path: &Path, suite: &Suite) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let found: Self = serde_json::from_str(&text).map_err(|e| Error::format(path, e.to_string()))?;
        if found.suite_hash != suite.hash() {
            let reason = format!(
                "ceilings of another suite: written for {}, the suite is {}; run `utr-train world --ceilings` again",
                found.suite_hash,
                suite.hash()
            );
            return Err(Error::format(path, reason));
        }
        Ok(found)
    }

    /// The ceilings of a skill.
    pub fn skill(&self, skill: Skill) -> Option<&SkillCeilings> {
        self.skills.iter().find(|s| s.skill == skill)
    }
}

/// Fits and scores the ceilings of every skill of `suite` and writes them to `out`.
///
/// # Errors
/// `out` cannot be written.
pub fn run(suite: &Suite, out: &Path, progress: &dyn Fn(&SkillCeilings)) -> Result<Ceilings> {
    let ceilings = measure(suite, FIT_PAIRS, FRESH_PAIRS, progress);
    write_atomic(out, |file| {
        serde_json::to_writer_pretty(&mut *file, &ceilings)?;
        file.write_all(b"\n")
    })?;
    Ok(ceilings)
}

/// As [`run`], with any number of pairs and without a file.
pub fn measure(
    suite: &Suite,
    fit_pairs: usize,
    fresh_pairs: usize,
    progress: &dyn Fn(&SkillCeilings),
) -> Ceilings {
    let mut skills = Vec::new();
    let (mut unsolved, mut items) = (0.0, 0);
    for &skill in &suite.skills {
        let (ceilings, needs_more) = measure_skill(suite, skill, fit_pairs, fresh_pairs);
        progress(&ceilings);
        unsolved += needs_more;
        items += ceilings.n;
        skills.push(ceilings);
    }
    Ceilings {
        suite: suite.name.clone(),
        suite_hash: suite.hash(),
        fit_pairs,
        skills,
        needs_more_than_four: unsolved / items.max(1) as f64,
    }
}

/// Everything of one skill that forests are fitted on or scored with.
struct Exam {
    fit: Vec<Case>,
    test: Vec<Case>,
    fresh: Vec<Case>,
    classes: usize,
}

/// One item as the learner sees it: words, frames, and which of two classes is right. Twins are neighbours.
struct Case {
    words: Vec<f32>,
    observed: Observed,
    right: usize,
    wrong: usize,
}

/// What a forest is shown beside the question's words.
#[derive(Clone, Debug, PartialEq)]
enum View {
    Nothing,
    Frames(Vec<usize>),
    Bag,
}

fn measure_skill(suite: &Suite, skill: Skill, fit_pairs: usize, fresh_pairs: usize) -> (SkillCeilings, f64) {
    let exam = Exam::new(suite, skill, fit_pairs, fresh_pairs);
    let every: Vec<usize> = (0..STEPS).collect();
    let some: Vec<usize> = (0..STEPS).step_by(3).collect();
    let one = exam.best_position(&[], &every);
    let two = exam.best_position(&one, &every);
    let three = exam.best_position(&two, &some);
    let four = exam.best_position(&three, &some);
    let blind = exam.forest(&View::Nothing);
    let single = exam.forest(&View::Frames(one.clone()));
    let pair = exam.forest(&View::Frames(two.clone()));
    let quad = exam.forest(&View::Frames(four.clone()));
    let bag = exam.forest(&View::Bag);
    let chance = 0.5;
    let fresh = Fresh {
        n: exam.fresh.len(),
        single: score(&single.marks(&exam.fresh)),
        bag: score(&bag.marks(&exam.fresh)),
    };
    let quad_marks = quad.marks(&exam.test);
    let bag_score = score(&bag.marks(&exam.test));
    let best = if fresh.n > exam.test.len() { fresh.bag } else { bag_score };
    let ceilings = SkillCeilings {
        skill,
        order: skill.is_order(),
        bag_proof: best.interval[0] <= chance || best.accuracy <= chance + 0.03,
        n: exam.test.len(),
        chance,
        blind: score(&blind.marks(&exam.test)),
        single: score(&single.marks(&exam.test)),
        two: score(&pair.marks(&exam.test)),
        four: score(&quad_marks),
        bag: bag_score,
        positions: [one, two, four],
        fresh,
    };
    // Above chance, an accuracy a answers a share 2a - 1 of the items; the others are guessed.
    let answered = (2.0 * ceilings.four.accuracy - 1.0).clamp(0.0, 1.0);
    let needs_more = (1.0 - answered) * ceilings.n as f64;
    (ceilings, needs_more)
}

impl Exam {
    fn new(suite: &Suite, skill: Skill, fit_pairs: usize, fresh_pairs: usize) -> Self {
        let config = suite.world.clone().with_held_out(HoldOut::Never);
        let base = FIRST_FIT_SEED + ((skill as u64) << 20);
        let drawn = |n: usize| pair(skill, clip_seed(Split::Train, base + n as u64), &config);
        let fit: Vec<[Posed; 2]> = (0..fit_pairs).map(drawn).collect();
        let fresh: Vec<[Posed; 2]> = (fit_pairs..fit_pairs + fresh_pairs).map(drawn).collect();
        let test: Vec<[Posed; 2]> = (0..suite.pairs_per_skill).map(|n| suite.pair(skill, n).twins).collect();
        let mut lexicon = Lexicon::new(fit.iter().flatten());
        let mut cases =
            |pairs: &[[Posed; 2]]| pairs.iter().flatten().map(|p| lexicon.case(p)).collect::<Vec<_>>();
        let (fit, test, fresh) = (cases(&fit), cases(&test), cases(&fresh));
        Self { fit, test, fresh, classes: lexicon.classes.len() }
    }

    fn forest(&self, view: &View) -> Fitted {
        self.fitted(view, &self.fit, 150)
    }

    fn fitted(&self, view: &View, cases: &[Case], trees: usize) -> Fitted {
        let mut table = Table::new(view.width());
        let labels: Vec<usize> = cases.iter().map(|c| c.right).collect();
        cases.iter().for_each(|c| table.push(&view.row(c)));
        let growth = Growth { trees, ..Growth::default() };
        Fitted { forest: Forest::fit(&table, &labels, self.classes, &growth), view: view.clone() }
    }

    /// `chosen` with the position from `candidates` that helps most, judged on the second half of the fit cases by forests
    /// fitted on the first half.
    fn best_position(&self, chosen: &[usize], candidates: &[usize]) -> Vec<usize> {
        let middle = self.fit.len() / 4 * 2;
        let (first, second) = self.fit.split_at(middle);
        let with = |p: usize| {
            let mut positions = chosen.to_vec();
            positions.push(p);
            positions.sort_unstable();
            positions
        };
        let judged = candidates.iter().filter(|p| !chosen.contains(p)).map(|&p| {
            let fitted = self.fitted(&View::Frames(with(p)), first, 16);
            (with(p), fitted.marks(second).iter().sum::<f64>())
        });
        let best = judged.max_by(|a, b| a.1.total_cmp(&b.1));
        best.map_or_else(|| chosen.to_vec(), |(positions, _)| positions)
    }
}

struct Fitted {
    forest: Forest,
    view: View,
}

impl Fitted {
    /// 1 for a right item, 0 for a wrong one, 0.5 for a tie.
    fn marks(&self, cases: &[Case]) -> Vec<f64> {
        let mark = |case: &Case| {
            let p = self.forest.probabilities(&self.view.row(case));
            match p[case.right].total_cmp(&p[case.wrong]) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Less => 0.0,
            }
        };
        cases.iter().map(mark).collect()
    }
}

impl View {
    fn width(&self) -> usize {
        WORDS
            + match self {
                View::Nothing => 0,
                View::Frames(positions) => width_at(positions.len()),
                View::Bag => PER_BAG,
            }
    }

    fn row(&self, case: &Case) -> Vec<f32> {
        let mut row = case.words.clone();
        match self {
            View::Nothing => {}
            View::Frames(positions) => case.observed.at(positions, &mut row),
            View::Bag => case.observed.bag(&mut row),
        }
        row
    }
}

/// Words of questions and classes of answers, numbered as they come.
struct Lexicon {
    words: BTreeMap<String, usize>,
    classes: BTreeMap<String, usize>,
    by_text: bool,
}

impl Lexicon {
    /// The commonest words of the questions, and whether the answers are few.
    fn new<'a>(posed: impl Iterator<Item = &'a Posed>) -> Self {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let mut texts: BTreeSet<String> = BTreeSet::new();
        for Posed { script, item } in posed {
            tokens(&item.question).for_each(|w| *counts.entry(w).or_default() += 1);
            let slots = Observed::new(script, item).slots;
            texts.insert(canonical(item, script, &slots, &item.answer));
        }
        let mut ranked: Vec<(String, usize)> = counts.into_iter().collect();
        ranked.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        let words = ranked.into_iter().take(WORDS).enumerate().map(|(i, (w, _))| (w, i)).collect();
        Self { words, classes: BTreeMap::new(), by_text: texts.len() <= TEXT_CLASSES }
    }

    fn case(&mut self, posed: &Posed) -> Case {
        let item = &posed.item;
        let observed = Observed::new(&posed.script, item);
        let mut words = vec![0.0; WORDS];
        // A word counts by its place, so that "hop" first and "hop" second differ.
        for (place, word) in tokens(&item.question).enumerate() {
            if let Some(&i) = self.words.get(&word) {
                words[i] = 1.0 + place as f32;
            }
        }
        let twin = item.twin_answer.as_deref().unwrap_or_default();
        let texts = [item.answer.as_str(), twin].map(|a| canonical(item, &posed.script, &observed.slots, a));
        let relative = !self.by_text || item.skill == Skill::AttributeChange;
        let names = if relative && item.kind != Kind::YesNo { relative_classes(item, texts) } else { texts };
        let [right, wrong] = names.map(|name| self.class(&name));
        Case { words, observed, right, wrong }
    }

    fn class(&mut self, text: &str) -> usize {
        let next = self.classes.len();
        *self.classes.entry(text.to_owned()).or_insert(next)
    }
}

/// The two answers as "the first" and "the second" of [`two_answers`].
fn relative_classes(item: &Item, [right, _]: [String; 2]) -> [String; 2] {
    let [first, _] = two_answers(item);
    let is_first = right == first || item.bare(&item.answer).to_lowercase() == first;
    if is_first { ["<first>".into(), "<second>".into()] } else { ["<second>".into(), "<first>".into()] }
}

/// Lower-case words without option letters.
fn tokens(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase)
}

/// An answer as a class that can be learned across clips: the option's text without its letter, and `#n` for the
/// object of slot n where it names one (or its colour or category, where that is what is asked), since these words differ
/// from clip to clip.
fn canonical(item: &Item, script: &Script, slots: &[usize], answer: &str) -> String {
    let bare = item.bare(answer);
    let bare = bare.strip_prefix("the ").or(bare.strip_prefix("a ")).unwrap_or(bare);
    let mut named = slots.iter().enumerate().filter(|(_, index)| {
        let Some(object) = script.objects.get(**index) else { return false };
        let attribute = item.skill == Skill::MovingAttribute
            && (bare == object.colour.word() || bare == object.category.word());
        attribute || bare == script.name(**index)
    });
    match (named.next(), named.next()) {
        (Some((slot, _)), None) => format!("#{slot}"),
        _ => bare.to_lowercase(),
    }
}

/// Mean and Wilson interval; marks of twins are neighbours, and pairs are what is independent.
fn score(marks: &[f64]) -> Score {
    let accuracy = marks.iter().sum::<f64>() / marks.len().max(1) as f64;
    let pairs = marks.len() / 2;
    Score { accuracy, interval: wilson(accuracy * pairs as f64, pairs) }
}

#[cfg(test)]
#[path = "ceilings_tests.rs"]
mod tests;
