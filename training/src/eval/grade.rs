//! Replies against the truth: by rule where one decides, by a judge where there is one, else left waiting.
//!
//! Comes in: items and answers, in the same order, and a judge or none. Goes out: one [`Outcome`] per item. Nothing is guessed: what waits for a judge is
//! neither right nor wrong. A judge's reply that stays unreadable counts as wrong, as in the reference, and is marked.

use super::answers::Answer;
use super::extract;
use super::item::{Asked, Item, Truth};
use super::judge::Judge;
use super::rubric::{Case, Rubric};
use super::verdict::Verdict;
use super::work::spread;
use anyhow::Result;
use serde::Serialize;
use std::sync::atomic::AtomicBool;

/// Who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// A rule of the benchmark.
    Rule,
    /// MVBench leaves empty replies out of the count.
    LeftOut,
    /// The judge.
    Judge,
    /// The judge was asked and said nothing that can be read; counted as wrong.
    JudgeUnreadable,
    /// Nobody yet.
    Waiting,
}

/// What became of one item.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The item's.
    pub id: String,
    /// The item's.
    pub task: String,
    /// The right answer.
    pub expected: String,
    /// What the model said.
    pub reply: String,
    /// Who decided.
    pub by: By,
    /// Right or wrong; neither while it waits, is left out, or where a judge said neither.
    pub right: Option<bool>,
    /// ActivityNet-QA's score, 0 to 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<i64>,
    /// What the judge said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judge: Option<String>,
    /// Why there is no reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a rule says.
#[derive(Debug)]
enum Grade {
    Rule(bool),
    LeftOut,
    Judge(Case),
}

fn grade(truth: &Truth, reply: &str) -> Grade {
    let decided = |right: Option<bool>, rubric: Rubric, asked: &Asked| match right {
        Some(right) => Grade::Rule(right),
        None => Grade::Judge(Case { rubric, asked: asked.clone(), reply: reply.to_string() }),
    };
    match truth {
        Truth::MvBench(_) if reply.is_empty() => Grade::LeftOut,
        Truth::MvBench(letter) => Grade::Rule(extract::mvbench(reply) == extract::mvbench(letter)),
        Truth::VideoMme(letter) => Grade::Rule(extract::video_mme(reply) == *letter),
        Truth::MultiChoice(asked) => {
            decided(extract::multi_choice(reply, &asked.answer), Rubric::MultiChoice, asked)
        }
        Truth::YesNo(asked) => {
            decided(extract::yes_no(reply).map(|word| word == asked.answer), Rubric::YesNo, asked)
        }
        Truth::Matching(asked) => {
            decided(extract::matching(reply, &asked.question, &asked.answer), Rubric::CaptionMatching, asked)
        }
        Truth::Captioning(asked) => decided(None, Rubric::Captioning, asked),
        Truth::Open(asked) => decided(None, Rubric::OpenEnded, asked),
    }
}

/// Grades all answers; `items` and `answers` are in the same order.
///
/// # Errors
/// A judge that cannot be reached or refuses; what it said before is kept.
pub fn all(
    items: &[Item],
    answers: &[Answer],
    judge: Option<&Judge>,
    stop: &AtomicBool,
) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::with_capacity(items.len());
    let mut cases = Vec::new();
    for (item, answer) in items.iter().zip(answers) {
        let reply = extract::strip(&answer.reply);
        let (by, right) = match grade(&item.truth, reply) {
            Grade::Rule(right) => (By::Rule, Some(right)),
            Grade::LeftOut => (By::LeftOut, None),
            Grade::Judge(case) => {
                cases.push((outcomes.len(), case));
                (By::Waiting, None)
            }
        };
        outcomes.push(Outcome {
            id: item.id.clone(),
            task: item.task.clone(),
            expected: item.truth.answer().to_string(),
            reply: reply.to_string(),
            by,
            right,
            score: None,
            judge: None,
            error: answer.error.clone(),
        });
    }
    let Some(judge) = judge else { return Ok(outcomes) };
    let rulings =
        spread(cases.len(), judge.threads(), stop, || Ok(()), |(), place| judge.rule(&cases[place].1, stop))?;
    for ((place, case), ruling) in cases.iter().zip(rulings) {
        let Some(outcome) = outcomes.get_mut(*place) else { continue };
        // As the reference counts them.
        let unreadable =
            Verdict { right: Some(false), score: (case.rubric == Rubric::OpenEnded).then_some(0) };
        outcome.by = if ruling.verdict.is_some() { By::Judge } else { By::JudgeUnreadable };
        let verdict = ruling.verdict.unwrap_or(unreadable);
        (outcome.right, outcome.score, outcome.judge) = (verdict.right, verdict.score, Some(ruling.said));
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_rule_decides_goes_to_a_judge() {
        let asked = |question: &str, answer: &str| Asked { question: question.into(), answer: answer.into() };
        let rule = |truth: Truth, reply: &str| match grade(&truth, reply) {
            Grade::Rule(right) => Some(right),
            Grade::LeftOut => panic!("left out"),
            Grade::Judge(case) => {
                assert_eq!(case.reply, reply);
                None
            }
        };
        assert!(matches!(grade(&Truth::MvBench("A".into()), ""), Grade::LeftOut));
        assert_eq!(rule(Truth::MvBench("B".into()), "(B) x"), Some(true));
        assert_eq!(rule(Truth::VideoMme("B".into()), ""), Some(false));
        assert_eq!(rule(Truth::YesNo(asked("?", "no")), "Not really"), Some(true));
        assert_eq!(rule(Truth::YesNo(asked("?", "no")), "It does"), None);
        assert_eq!(rule(Truth::MultiChoice(asked("?", "B. x")), "b"), None);
        assert_eq!(rule(Truth::Captioning(asked("?", "B. x")), "B. x"), None);
        assert_eq!(rule(Truth::Open(asked("?", "yes")), "yes"), None);
    }
}
