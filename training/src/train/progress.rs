//! One live line for a person: where training is, how well it goes, how fast, how long the stage still takes.
//!
//! Comes in: a record per update. Goes out, on standard error: a line that is redrawn on a terminal, or else a plain line every so many
//! updates, so that a job's log stays short. Standard output is left to results. Nothing here decides anything.

use super::curves::Record;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::VecDeque;
use std::io::Write;
use std::time::{Duration, Instant};

/// Updates whose mean pace the estimate follows.
const PACE: usize = 50;

/// The line of one stage.
pub struct Progress {
    bar: ProgressBar,
    stage: String,
    steps: usize,
    done: usize,
    every: usize,
    ends: VecDeque<Instant>,
}

impl Progress {
    /// A stage of `steps` updates, of which `done` are done; every so many updates there is a plain line where there is no terminal, or where
    /// the line has the label of one run among several.
    pub fn new(stage: &str, [steps, done, every]: [usize; 3], label: Option<&str>) -> Self {
        let stage = label.map_or_else(|| stage.to_string(), |label| format!("{label}, {stage}"));
        let bar = if label.is_some() { ProgressBar::hidden() } else { ProgressBar::new(steps as u64) };
        let bar = bar.with_position(done as u64);
        if let Ok(style) = ProgressStyle::with_template("{prefix:>10} {wide_bar} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(stage.clone());
        let ends = VecDeque::from([Instant::now()]);
        Self { bar, stage, steps, done, every: every.max(1), ends }
    }

    /// Shows one more update.
    pub fn show(&mut self, record: &Record) {
        self.done += 1;
        self.ends.push_back(Instant::now());
        if self.ends.len() > PACE + 1 {
            self.ends.pop_front();
        }
        let line = line(record, self.left());
        if !record.validation.is_empty() {
            let share = |(skill, share): (&String, &f64)| format!("{skill} {:.0}", share * 100.0);
            let skills: Vec<String> = record.validation.iter().map(share).collect();
            self.say(&format!("{} {}: validation % {}", self.stage, self.done, skills.join(", ")));
        }
        if self.bar.is_hidden() {
            if self.done.is_multiple_of(self.every) || self.done == self.steps {
                self.say(&format!("{} {}/{} {line}", self.stage, self.done, self.steps));
            }
        } else {
            self.bar.inc(1);
            self.bar.set_message(line);
        }
    }

    /// Time to the end of the stage at the pace of the last updates.
    fn left(&self) -> Duration {
        let (Some(first), Some(last)) = (self.ends.front(), self.ends.back()) else { return Duration::ZERO };
        let updates = (self.ends.len() - 1).max(1);
        last.duration_since(*first).mul_f64(self.steps.saturating_sub(self.done) as f64 / updates as f64)
    }

    fn say(&self, text: &str) {
        match self.bar.is_hidden() {
            // A closed pipe must not end the training.
            true => drop(writeln!(std::io::stderr(), "{text}")),
            false => self.bar.println(text),
        }
    }

    /// Leaves the line as it is.
    pub fn finish(&self) {
        self.bar.abandon();
    }
}

fn line(record: &Record, left: Duration) -> String {
    let Record { loss, lr, tokens_per_s, utilization, .. } = record;
    let (minutes, seconds) = (left.as_secs() / 60, left.as_secs() % 60);
    let eta = match minutes {
        0 => format!("{seconds}s"),
        1..60 => format!("{minutes}m{seconds:02}s"),
        _ => format!("{}h{:02}m", minutes / 60, minutes % 60),
    };
    format!(
        "loss {loss:.3} lr {lr:.1e} {tokens_per_s:.0} tok/s mfu {:.1}% eta {eta} of the stage",
        utilization * 100.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_one_wants_to_know() {
        let record =
            Record { loss: 1.25, lr: 2e-3, tokens_per_s: 4321.4, utilization: 0.345, ..Record::default() };
        let text = line(&record, Duration::from_secs(3725));
        assert_eq!(text, "loss 1.250 lr 2.0e-3 4321 tok/s mfu 34.5% eta 1h02m of the stage");
        assert!(line(&record, Duration::from_secs(65)).ends_with("eta 1m05s of the stage"));
    }

    #[test]
    fn the_estimate_follows_the_last_updates() {
        let mut progress = Progress::new("tune", [100, 90, 20], Some("alone"));
        let now = Instant::now();
        // The first update took an hour, the last fifty a second each.
        progress.ends = (0..=PACE as u64).map(|i| now + Duration::from_secs(3600 + i)).collect();
        assert_eq!(progress.left(), Duration::from_secs(10));
    }
}
