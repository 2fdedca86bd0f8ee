//! Outcomes added up as the reference adds them up.
//!
//! Comes in: outcomes with the groups they belong to. Goes out: a row per group, and the benchmark's score. While an outcome of a group waits for a judge,
//! the group has no accuracy, only what rules decided.

use super::grade::{By, Outcome};
use super::item::{Benchmark, Truth};
use serde::Serialize;

/// Right ones among all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Right.
    pub right: usize,
    /// All.
    pub n: usize,
}

impl Count {
    fn add(&mut self, right: bool) {
        self.right += usize::from(right);
        self.n += 1;
    }

    /// In percent; 0 for none at all, as in the reference.
    pub fn percent(self) -> f64 {
        100.0 * self.right as f64 / self.n.max(1) as f64
    }
}

/// One group's score.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What kind of group, such as `task` or `domain`.
    pub kind: &'static str,
    /// Which.
    pub name: String,
    /// Questions.
    pub questions: usize,
    /// Right ones in percent of those that count; none while any waits for a judge.
    pub accuracy: Option<f64>,
    /// Mean of a judge's scores from 0 to 5, where it gives them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// All that were decided and count.
    pub decided: Count,
    /// Those that a rule decided.
    pub by_rule: Count,
    /// Questions that wait for a judge.
    pub waiting: usize,
    /// Empty replies, which MVBench does not count.
    pub left_out: usize,
    /// Rulings that could not be read, counted as wrong.
    pub unreadable: usize,
}

impl Row {
    fn of<'a>(kind: &'static str, name: &str, outcomes: impl Iterator<Item = &'a Outcome>) -> Self {
        let mut row = Self {
            kind,
            name: name.to_string(),
            questions: 0,
            accuracy: None,
            score: None,
            decided: Count::default(),
            by_rule: Count::default(),
            waiting: 0,
            left_out: 0,
            unreadable: 0,
        };
        let mut scores = None;
        for outcome in outcomes {
            row.questions += 1;
            if let Some(right) = outcome.right {
                row.decided.add(right);
                if outcome.by == By::Rule {
                    row.by_rule.add(right);
                }
            }
            if let Some(score) = outcome.score {
                *scores.get_or_insert(0) += score;
            }
            row.waiting += usize::from(outcome.by == By::Waiting);
            row.left_out += usize::from(outcome.by == By::LeftOut);
            row.unreadable += usize::from(outcome.by == By::JudgeUnreadable);
        }
        if row.waiting == 0 {
            row.accuracy = Some(row.decided.percent());
            row.score = scores.map(|sum| sum as f64 / row.questions as f64);
        }
        row
    }
}

/// All rows: everything, then each group in the order in which it comes first.
pub fn rows(benchmark: &Benchmark, outcomes: &[Outcome]) -> Vec<Row> {
    let mut groups: Vec<(&'static str, &str)> = Vec::new();
    for item in &benchmark.items {
        let own = item.groups.iter().map(|(kind, name)| (*kind, name.as_str()));
        for group in std::iter::once(("task", item.task.as_str())).chain(own) {
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
    }
    // Kinds one after the other.
    let kinds: Vec<&str> = groups.iter().map(|group| group.0).collect();
    groups.sort_by_key(|group| kinds.iter().position(|kind| *kind == group.0));
    let pairs = || benchmark.items.iter().zip(outcomes);
    let row = |(kind, name): (&'static str, &str)| {
        let inside = pairs().filter(|(item, _)| match kind {
            "task" => item.task == name,
            _ => item.groups.iter().any(|group| (group.0, group.1.as_str()) == (kind, name)),
        });
        Row::of(kind, name, inside.map(|(_, outcome)| outcome))
    };
    let all = Row::of("all", "all questions", outcomes.iter());
    std::iter::once(all).chain(groups.into_iter().map(row)).collect()
}

/// The benchmark's own score in percent: the mean over tasks for MVBench and TempCompass, the share of all questions for the others.
pub fn headline(benchmark: &Benchmark, rows: &[Row]) -> Option<f64> {
    let over_tasks = benchmark
        .items
        .first()
        .is_some_and(|item| !matches!(item.truth, Truth::VideoMme(_) | Truth::Open(_)));
    if !over_tasks {
        return rows.first().and_then(|all| all.accuracy);
    }
    let tasks: Option<Vec<f64>> =
        rows.iter().filter(|row| row.kind == "task").map(|row| row.accuracy).collect();
    tasks.filter(|tasks| !tasks.is_empty()).map(|tasks| tasks.iter().sum::<f64>() / tasks.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::super::clip::Clip;
    use super::super::item::{Asked, Item, Prompt};
    use super::*;

    fn item(task: &str, truth: Truth) -> Item {
        Item {
            id: task.into(),
            task: task.into(),
            groups: vec![("half", if task < "b" { "first" } else { "second" }.into())],
            clip: Clip::first_of([]),
            prompt: Prompt::Text("?".into()),
            max_tokens: 1,
            truth,
        }
    }

    fn outcome(by: By, right: Option<bool>, score: Option<i64>) -> Outcome {
        let text = String::new;
        Outcome {
            id: text(),
            task: text(),
            expected: text(),
            reply: text(),
            by,
            right,
            score,
            judge: None,
            error: None,
        }
    }

    fn scored(cases: Vec<(Item, Outcome)>) -> (Vec<Row>, Option<f64>) {
        let (items, outcomes): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
        let benchmark = Benchmark { name: "", published: "", items };
        let rows = rows(&benchmark, &outcomes);
        let headline = headline(&benchmark, &rows);
        (rows, headline)
    }

    #[test]
    fn mvbench_is_the_mean_over_tasks_without_empty_replies() {
        let letter = || Truth::MvBench("A".into());
        let rule = |right| outcome(By::Rule, Some(right), None);
        let (rows, headline) = scored(vec![
            (item("a", letter()), rule(true)),
            (item("b", letter()), rule(true)),
            (item("a", letter()), outcome(By::LeftOut, None, None)),
            (item("b", letter()), rule(false)),
            (item("b", letter()), rule(false)),
            (item("b", letter()), rule(false)),
        ]);
        assert_eq!(
            rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(),
            ["all questions", "a", "b", "first", "second"]
        );
        assert_eq!(
            rows.iter().map(|row| row.accuracy).collect::<Vec<_>>(),
            [40.0, 100.0, 25.0, 100.0, 25.0].map(Some)
        );
        assert_eq!((headline, rows[1].left_out), (Some(62.5), 1));
    }

    #[test]
    fn what_waits_for_a_judge_leaves_the_score_open() {
        let asked = || Truth::YesNo(Asked { question: "?".into(), answer: "yes".into() });
        let (rows, headline) = scored(vec![
            (item("a", asked()), outcome(By::Rule, Some(true), None)),
            (item("b", asked()), outcome(By::Rule, Some(true), None)),
            (item("b", asked()), outcome(By::Waiting, None, None)),
        ]);
        assert_eq!((headline, rows[0].accuracy, rows[0].waiting), (None, None, 1));
        assert_eq!((rows[0].by_rule, rows[1].accuracy), (Count { right: 2, n: 2 }, Some(100.0)));
    }

    #[test]
    fn activitynet_adds_up_as_the_reference_does() {
        for case in super::super::golden("activitynet_scores") {
            let outcomes = case["results"].as_array().unwrap().iter().map(|result| {
                let right = match result[0].as_str().unwrap() {
                    "yes" => Some(true),
                    "no" => Some(false),
                    _ => None,
                };
                let asked = Asked { question: "?".into(), answer: "x".into() };
                (item("a", Truth::Open(asked)), outcome(By::Judge, right, result[1].as_i64()))
            });
            let (rows, headline) = scored(outcomes.collect());
            let near = |ours: Option<f64>, theirs: &serde_json::Value| {
                (ours.unwrap() - theirs.as_f64().unwrap()).abs() < 1e-9
            };
            assert!(
                near(headline, &case["accuracy"]) && near(rows[0].score, &case["score"]),
                "{case}: {rows:?}"
            );
        }
    }
}
