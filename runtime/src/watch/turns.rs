//! When standing questions are asked.
//!
//! Comes in: a session, and the time between two turns. Goes out: whether to ask now. The first turn comes when the window is full, or after one
//! period with frames, whichever is first, so that no first answer stands on a single frame; the last one when the source has ended. What
//! happens to the source is told on standard error. Nothing is asked here.

use std::time::{Duration, Instant};

use crate::capture::live::LiveState;
use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::session::Session;

/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_millis(20);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing yet.
    Wait,
    /// Ask.
    Ask,
    /// Ask for the last time: no more frames will come.
    Last,
}

/// The turns of one session.
#[derive(Debug)]
pub(crate) struct Turns {
    every: Duration,
    /// Frames of a full window.
    full: usize,
    /// None before the first frame.
    due: Option<Instant>,
    asked: bool,
    teller: Teller,
}

impl Turns {
    /// A turn every so often, in a window of `full` frames.
    pub(crate) fn new(every: Duration, full: usize) -> Self {
        Self { every, full, due: None, asked: false, teller: Teller::default() }
    }

    /// What is to be done now; waits a moment where it is nothing.
    ///
    /// # Errors
    /// [`crate::Error::Interrupted`]; what is wrong with a source that gave no frame and will give none.
    pub(crate) fn next(&mut self, session: &Session, interrupt: &Interrupt) -> Result<Turn> {
        interrupt.check()?;
        self.teller.tell(session);
        // Asked for first: a frame that comes in between is in the view.
        let ended = session.ended();
        let turn = match session.view().map(|view| view.frames.len()) {
            None if ended => return session.failure().map_or(Ok(Turn::Last), Err),
            None => Turn::Wait,
            Some(_) if ended => Turn::Last,
            Some(held) => self.at(Instant::now(), held),
        };
        if turn == Turn::Wait {
            interrupt.sleep_until(Instant::now() + TICK)?;
        }
        Ok(turn)
    }

    /// With `held` frames in the window.
    fn at(&mut self, now: Instant, held: usize) -> Turn {
        let due = *self.due.get_or_insert(now + self.every);
        if now < due && (self.asked || held < self.full) {
            return Turn::Wait;
        }
        // A turn that was missed is not made up for.
        let next = due + self.every;
        self.due = Some(if self.asked && next > now { next } else { now + self.every });
        self.asked = true;
        Turn::Ask
    }
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

    /// The seconds at which a window that gains a frame a second is asked about.
    fn asked(every: u64, full: usize, seconds: u64) -> Vec<u64> {
        let (mut turns, start) = (Turns::new(Duration::from_secs(every), full), Instant::now());
        let at =
            |second: &u64| turns.at(start + Duration::from_secs(*second), *second as usize + 1) == Turn::Ask;
        (0..seconds).filter(at).collect()
    }

    #[test]
    fn the_first_turn_waits_for_the_window_or_one_period() {
        assert_eq!(asked(2, 32, 9), [2, 4, 6, 8]);
        assert_eq!(asked(60, 4, 200), [3, 63, 123, 183]);
    }

    #[test]
    fn missed_turns_are_not_made_up_for() {
        let (mut turns, start) = (Turns::new(Duration::from_secs(1), 1), Instant::now());
        let mut at = |ms: u64| turns.at(start + Duration::from_millis(ms), 1) == Turn::Ask;
        assert_eq!([0, 900, 5500, 5600, 6500].map(&mut at), [true, false, true, false, true]);
    }
}
