//! Which answers of a standing question count.
//!
//! Comes in: every answer with its time. Goes out: whether it counts. It knows no clock and does nothing about it.

use std::time::{Duration, Instant};

/// When an answer counts; all rules must hold.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// It differs from the last one that counted.
    pub on_change: bool,
    /// It begins with these words, whatever the case; other answers are then alike, and so are all that begin so.
    pub when: Option<String>,
    /// It was given so many times in a row, at least 1.
    pub in_a_row: u32,
    /// The last one that counted is so long ago.
    pub cool_down: Duration,
}

/// The answers of one question so far.
#[derive(Debug)]
pub struct Gate {
    rules: Rules,
    /// What the newest answer meant, and how often in a row.
    newest: Option<(Meaning, u32)>,
    /// What held when an answer last counted, or has held for long enough since.
    held: Option<Meaning>,
    /// The last answer that counted, as it was given.
    last: Option<(String, Instant)>,
}

/// What two answers are compared by: where something is watched for, whether it is said; else all that is said.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Meaning {
    Watched(bool),
    Said(String),
}

/// Case, spaces and a full stop make no other answer.
fn plain(text: &str) -> String {
    text.trim().trim_end_matches('.').split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// Whether a text begins with the words of another.
fn begins(text: &str, words: &str) -> bool {
    text.strip_prefix(words).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
}

impl Gate {
    /// No answer yet.
    pub fn new(rules: Rules) -> Self {
        Self { rules, newest: None, held: None, last: None }
    }

    /// The last answer that counted.
    pub fn last(&self) -> Option<&str> {
        self.last.as_ref().map(|(text, _)| text.as_str())
    }

    /// Takes the next answer.
    pub fn counts(&mut self, text: &str, now: Instant) -> bool {
        let meaning = match &self.rules.when {
            Some(when) => Meaning::Watched(begins(&plain(text), &plain(when))),
            None => Meaning::Said(plain(text)),
        };
        let repeats = match self.newest.take() {
            Some((before, n)) if before == meaning => n.saturating_add(1),
            _ => 1,
        };
        self.newest = Some((meaning.clone(), repeats));
        if repeats < self.rules.in_a_row {
            return false;
        }
        let meant = meaning != Meaning::Watched(false);
        let changed = self.held.as_ref() != Some(&meaning);
        let cool = self.last.as_ref().is_none_or(|(_, at)| now.duration_since(*at) >= self.rules.cool_down);
        let counts = meant && cool && (changed || !self.rules.on_change);
        if counts {
            self.last = Some((text.to_string(), now));
        }
        if counts || !meant {
            // What was watched for is over: its next beginning is a change.
            self.held = Some(meaning);
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of the answers, one a second, count.
    fn counted(rules: Rules, answers: &[&str]) -> Vec<usize> {
        let (mut gate, start) =
            (Gate::new(Rules { in_a_row: rules.in_a_row.max(1), ..rules }), Instant::now());
        let at = |i: usize| start + Duration::from_secs(i as u64);
        answers.iter().enumerate().filter(|(i, text)| gate.counts(text, at(*i))).map(|(i, _)| i).collect()
    }

    #[test]
    fn without_rules_every_answer_counts() {
        assert_eq!(counted(Rules::default(), &["a", "a", "b"]), [0, 1, 2]);
    }

    #[test]
    fn only_changes() {
        let rules = Rules { on_change: true, ..Rules::default() };
        assert_eq!(counted(rules, &["a", "A.", " a ", "b", "a"]), [0, 3, 4]);
    }

    #[test]
    fn a_flicker_is_no_change() {
        let rules = Rules { on_change: true, in_a_row: 3, ..Rules::default() };
        assert_eq!(counted(rules, &["a", "a", "a", "b", "a", "b", "b", "a", "b", "b", "b", "b"]), [2, 10]);
    }

    #[test]
    fn a_cool_down_lets_time_pass() {
        let rules = Rules { cool_down: Duration::from_secs(3), ..Rules::default() };
        assert_eq!(counted(rules, &["a"; 8]), [0, 3, 6]);
    }

    #[test]
    fn what_is_watched_for_counts_each_time_it_begins() {
        let rules = Rules { on_change: true, when: Some("Yes".into()), ..Rules::default() };
        assert_eq!(
            counted(rules.clone(), &["no", "yes, it fell", "yes, it fell", "no", "yes, it fell"]),
            [1, 4]
        );
        // In other words it is the same; two in a row are asked for before it begins, and before it ends.
        let rules = Rules { in_a_row: 2, ..rules };
        let said = [
            "no",
            "yes, a man fell",
            "yes, someone fell",
            "yes.",
            "no",
            "yes",
            "no",
            "not sure",
            "yes",
            "Yes!",
        ];
        assert_eq!(counted(rules, &said), [2, 9]);
    }

    #[test]
    fn it_begins_with_words_not_with_letters() {
        let rules = Rules { when: Some("no".into()), ..Rules::default() };
        assert_eq!(
            counted(rules, &["nothing", "not sure", "No.", "no, it stands", "north", "no"]),
            [2, 3, 5]
        );
    }
}
