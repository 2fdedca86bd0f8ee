//! Standing questions: when they are asked, and one round of them after the other.
//!
//! Comes in: the time, how full the window is, outcomes. Goes out: the question that is to be asked next. It waits for nothing, so that whoever
//! drives it can do other things meanwhile, and it asks no session itself.

use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

/// When a round begins: first once the window is full or its first frame is one turn old, whichever comes first, then once a turn. A turn that was
/// missed is not made up for.
#[derive(Debug)]
pub struct Turns {
    every: Duration,
    /// Frames that the window can hold.
    full: usize,
    /// When the first frame was there.
    first_frame: Option<Instant>,
    next: Option<Instant>,
}

impl Turns {
    /// A turn each `every`, for a window that can hold `full` frames.
    pub fn new(every: Duration, full: usize) -> Self {
        Self { every, full, first_frame: None, next: None }
    }

    /// Whether a round begins now; the window holds `frames`, and where `ended` no more will come.
    pub fn comes(&mut self, frames: usize, ended: bool, now: Instant) -> bool {
        if frames == 0 {
            return false;
        }
        let since = *self.first_frame.get_or_insert(now);
        let due = match self.next {
            None => frames >= self.full || ended || now.duration_since(since) >= self.every,
            Some(next) => now >= next,
        };
        if due {
            self.next = Some(turn_after(self.next.unwrap_or(now), self.every, now));
        }
        due
    }
}

/// The turn after this one: what is long due begins a new series.
pub fn turn_after(turn: Instant, every: Duration, now: Instant) -> Instant {
    let next = turn + every;
    if next > now { next } else { now + every }
}

/// A round: one question after the other, each once the one before has its outcome.
#[derive(Debug)]
pub struct Round<T> {
    questions: usize,
    /// The one that is asked next; `questions` where the round is over.
    next: usize,
    asked: Option<Receiver<T>>,
}

/// What is to be done now.
#[derive(Debug)]
pub enum Step<T> {
    /// Ask this one, and send its outcome there.
    Ask(usize, SyncSender<T>),
    /// This one has its outcome; none where nobody will send it.
    Outcome(usize, Option<T>),
    /// Nothing.
    Wait,
}

impl<T> Round<T> {
    /// No round yet, for so many questions.
    pub fn new(questions: usize) -> Self {
        Self { questions, next: questions, asked: None }
    }

    /// Whether a new round can begin.
    pub fn is_over(&self) -> bool {
        self.asked.is_none() && self.next >= self.questions
    }

    /// Begins one.
    pub fn begin(&mut self) {
        self.next = 0;
    }

    /// What is to be done now.
    pub fn step(&mut self) -> Step<T> {
        if let Some(asked) = &self.asked {
            let outcome = match asked.try_recv() {
                Ok(outcome) => Some(outcome),
                Err(TryRecvError::Empty) => return Step::Wait,
                Err(TryRecvError::Disconnected) => None,
            };
            self.asked = None;
            self.next += 1;
            return Step::Outcome(self.next - 1, outcome);
        }
        if self.is_over() {
            return Step::Wait;
        }
        let (tell, told) = sync_channel(1);
        self.asked = Some(told);
        Step::Ask(self.next, tell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds at which rounds begin, looked for each 100 ms, with a frame each 500 ms from 1000 on.
    fn rounds(every_ms: u64, full: usize, ended_at: u64) -> Vec<u64> {
        let mut turns = Turns::new(Duration::from_millis(every_ms), full);
        let start = Instant::now();
        let frames =
            |ms: u64| if ms < 1000 { 0 } else { full.min(1 + (ms.min(ended_at) as usize - 1000) / 500) };
        let comes = |ms: &u64| turns.comes(frames(*ms), *ms >= ended_at, start + Duration::from_millis(*ms));
        (0..10_000).step_by(100).filter(comes).collect()
    }

    #[test]
    fn the_first_round_waits_for_a_full_window_or_one_turn() {
        // Full after 2500 ms; then each 4 s.
        assert_eq!(rounds(4000, 4, u64::MAX), [2500, 6500]);
        // One turn before it is full.
        assert_eq!(rounds(3000, 32, u64::MAX), [4000, 7000]);
        // A clip that is over gives no more.
        assert_eq!(rounds(4000, 32, 1700), [1700, 5700, 9700]);
        // A turn of no length waits for nothing but the first frame.
        assert_eq!(rounds(0, 32, u64::MAX).len(), 90);
    }

    #[test]
    fn a_missed_turn_is_not_made_up_for() {
        let mut turns = Turns::new(Duration::from_secs(1), 1);
        let start = Instant::now();
        let mut at = |seconds: f64| turns.comes(1, false, start + Duration::from_secs_f64(seconds));
        assert!(at(0.0) && !at(0.5) && at(1.1) && !at(1.9) && at(2.0));
        assert!(at(7.5) && !at(7.6) && !at(8.4) && at(8.5));
    }

    #[test]
    fn questions_of_a_round_follow_each_other() {
        let mut round = Round::new(2);
        assert!(round.is_over() && matches!(round.step(), Step::Wait));
        round.begin();
        let Step::Ask(0, tell) = round.step() else { panic!("{round:?}") };
        assert!(matches!(round.step(), Step::Wait) && !round.is_over());
        tell.send("yes").unwrap();
        assert!(matches!(round.step(), Step::Outcome(0, Some("yes"))));
        let Step::Ask(1, tell) = round.step() else { panic!("{round:?}") };
        drop(tell);
        assert!(matches!(round.step(), Step::Outcome(1, None)) && round.is_over());
        assert!(matches!(round.step(), Step::Wait));
    }
}
