//! When standing questions are asked, and what is told of the source meanwhile.
//!
//! Comes in: the time, and how full the window is. Goes out: whether a round of questions begins; lines on standard error when the source's state
//! changes. It waits for nothing and asks nothing.

use std::time::{Duration, Instant};

use crate::capture::live::LiveState;
use crate::session::Session;

/// When a round begins: first once the window is full or its first frame is one turn old, whichever comes first, then once a turn. A turn that was
/// missed is not made up for.
#[derive(Debug)]
pub(crate) struct Turns {
    every: Duration,
    /// Frames that the window can hold.
    full: usize,
    /// When the first frame was there.
    first_frame: Option<Instant>,
    next: Option<Instant>,
}

impl Turns {
    /// A turn each `every`, for a window that can hold `full` frames.
    pub(crate) fn new(every: Duration, full: usize) -> Self {
        Self { every, full, first_frame: None, next: None }
    }

    /// Whether a round begins now; the window holds `frames`, and where `ended` no more will come.
    pub(crate) fn comes(&mut self, frames: usize, ended: bool, now: Instant) -> bool {
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
pub(crate) fn turn_after(turn: Instant, every: Duration, now: Instant) -> Instant {
    let next = turn + every;
    if next > now { next } else { now + every }
}

/// Tells what happens to a source.
#[derive(Debug, Default)]
pub(crate) struct Teller {
    /// What was last told of it.
    told: Option<LiveState>,
    /// The last reason that was told in full.
    reason: String,
}

impl Teller {
    /// Says on standard error when the source's state changes.
    pub(crate) fn tell(&mut self, session: &Session) {
        let status = session.status().live;
        if self.told.as_ref() == Some(&status.state) {
            return;
        }
        let origin = session.origin();
        match (&self.told, &status.state) {
            (_, LiveState::Waiting { reason, retry_in_ms, attempt }) => {
                let seconds = *retry_in_ms as f64 / 1e3;
                if *reason == self.reason {
                    eprintln!("utr: {origin} is still away; attempt {attempt} in {seconds:.1} s");
                } else {
                    eprintln!("utr: {origin} is away ({reason}); trying again in {seconds:.1} s");
                    self.reason.clone_from(reason);
                }
            }
            (Some(_), LiveState::Running) if status.reconnects > 0 => {
                eprintln!("utr: {origin} is back");
                self.reason.clear();
            }
            (_, LiveState::Failed) => {
                eprintln!(
                    "utr: {origin} failed: {}",
                    status.last_error.as_deref().unwrap_or("no reason given")
                );
            }
            _ => {}
        }
        self.told = Some(status.state);
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
}
