//! Which answers of a standing question count.
//!
//! Comes in: every answer with its time. Goes out: whether it counts. It knows no clock and does nothing about it.

use std::time::{Duration, Instant};

/// When an answer counts; all rules must hold.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// It differs from the last one that counted.
    pub on_change: bool,
    /// It begins with this, whatever the case.
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
    /// The newest answer and how often it was given in a row.
    newest: Option<(String, u32)>,
    /// The last one that counted, as it was given.
    last: Option<(String, Instant)>,
}

/// Case, spaces and a full stop make no other answer.
fn plain(text: &str) -> String {
    text.trim().trim_end_matches('.').split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

impl Gate {
    /// No answer yet.
    pub fn new(rules: Rules) -> Self {
        Self { rules, newest: None, last: None }
    }

    /// The last answer that counted.
    pub fn last(&self) -> Option<&str> {
        self.last.as_ref().map(|(text, _)| text.as_str())
    }

    /// Takes the next answer.
    pub fn counts(&mut self, text: &str, now: Instant) -> bool {
        let said = plain(text);
        let repeats = match self.newest.take() {
            Some((before, n)) if before == said => n.saturating_add(1),
            _ => 1,
        };
        self.newest = Some((said.clone(), repeats));
        let changed = self.last.as_ref().is_none_or(|(last, _)| plain(last) != said);
        let meant = self.rules.when.as_ref().is_none_or(|when| said.starts_with(&plain(when)));
        let cool = self.last.as_ref().is_none_or(|(_, at)| now.duration_since(*at) >= self.rules.cool_down);
        let counts = (changed || !self.rules.on_change) && meant && cool && repeats >= self.rules.in_a_row;
        if counts {
            self.last = Some((text.to_string(), now));
        } else if self.rules.on_change
            && self.rules.when.is_some()
            && !meant
            && repeats >= self.rules.in_a_row
        {
            // What was watched for is over: its next beginning is a change.
            if let Some((last, _)) = self.last.as_mut() {
                last.clear();
            }
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
        assert_eq!(counted(rules, &["no", "yes, it fell", "yes, it fell", "no", "yes, it fell"]), [1, 4]);
    }
}
