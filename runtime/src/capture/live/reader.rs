//! The thread of a live source: open, read, hand over, and again.
//!
//! Comes in: a source and its options. Goes out: frames and reports, through what it shares with its handle. It ends when the
//! source does, when trying again does not help, or when it is asked to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::timeline::{Gap, Timeline};
use super::{LiveOptions, LiveState, Pacing, Shared};
use crate::capture::{self, Capture, Frame, Stamp};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::sample::RateClock;
use crate::source::Source;

/// How often a hand-over that waits for the reader looks for a stop.
const TICK: Duration = Duration::from_millis(50);

/// How far a source without a clock may run ahead of real time where it is opened again whatever happens.
pub const LEAD: Duration = Duration::from_secs(5);

pub struct Reader {
    source: Source,
    options: LiveOptions,
    shared: Arc<Shared>,
    stop: Interrupt,
    clock: Option<RateClock>,
    timeline: Timeline,
    /// Whether the open source runs on its own clock.
    live: bool,
    /// Whether a frame ever came, and when the first one of this opening did.
    ever: bool,
    since: Option<Instant>,
    /// Width and height of the last picture.
    size: Option<(usize, usize)>,
    /// When the file's time 0 is shown, in real time.
    shown: Option<Instant>,
    /// Frames lost in earlier openings.
    dropped_before: u64,
}

impl Reader {
    pub fn new(source: Source, mut options: LiveOptions, shared: Arc<Shared>, stop: Interrupt) -> Self {
        options.capture.interrupt = stop.clone();
        let clock = options.fps.map(RateClock::new);
        Self {
            source,
            options,
            shared,
            stop,
            clock,
            timeline: Timeline::default(),
            live: false,
            ever: false,
            since: None,
            size: None,
            shown: None,
            dropped_before: 0,
        }
    }

    /// Reads until the end; a panic below (in a library's callback, say) ends the source and not the program.
    pub fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let origin = self.source.to_string();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.keep_alive()));
        let outcome = outcome.unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<&str>().map(ToString::to_string);
            let words = words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(Error::capture(origin, format!("the reading thread broke ({words}); please report this")))
        });
        let mut report = shared.report();
        match outcome {
            Ok(()) => report.state = LiveState::Ended,
            Err(error) => {
                report.state = LiveState::Failed;
                report.last_error = Some(error.reason());
                report.failure = Some(error);
            }
        }
        drop(report);
        shared.frames.close();
    }

    /// Opens the source again and again; returns at the end of one that ends.
    fn keep_alive(&mut self) -> Result<()> {
        let mut attempt = 0;
        loop {
            self.since = None;
            let outcome = self.read();
            self.dropped_before = self.shared.report().dropped_source;
            let endless = self.endless();
            let reason = match outcome {
                Ok(()) if endless => "the source ended".to_string(),
                Ok(()) if matches!(self.source, Source::Loop(_)) => {
                    self.timeline.reopened();
                    continue;
                }
                Ok(()) => return Ok(()),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                // Once it ran, everything it needs was there: whatever happened may pass.
                Err(error) if !endless || !(self.ever || matches!(error, Error::Lost { .. })) => {
                    return Err(error);
                }
                Err(error) => error.reason(),
            };
            attempt = if self.ran() >= self.options.backoff.steady { 1 } else { attempt + 1 };
            self.wait(attempt, reason)?;
            self.timeline.reopened();
        }
    }

    /// How long this opening gave frames; the silence that ended it does not count.
    fn ran(&self) -> Duration {
        match (self.since, self.shared.report().newest) {
            (Some(first), Some(newest)) => newest.saturating_duration_since(first),
            _ => Duration::ZERO,
        }
    }

    fn endless(&self) -> bool {
        self.options.endless.unwrap_or(self.live || self.source.never_ends())
    }

    /// Waits before the next opening.
    fn wait(&self, attempt: u32, reason: String) -> Result<()> {
        let wait = self.options.backoff.wait(attempt);
        let mut report = self.shared.report();
        report.last_error = Some(reason.clone());
        report.state = LiveState::Waiting { attempt, retry_in_ms: wait.as_millis() as u64, reason };
        drop(report);
        self.stop.sleep_until(Instant::now() + wait)?;
        self.shared.report().state = LiveState::Opening;
        Ok(())
    }

    /// One opening, to its end.
    fn read(&mut self) -> Result<()> {
        let mut capture = capture::open(&self.source, &self.options.capture)?;
        self.live = capture.live();
        if self.endless() {
            self.shown = None;
        }
        loop {
            let stamp = capture.advance();
            self.shared.report().dropped_source = self.dropped_before + capture.dropped();
            match stamp? {
                Some(stamp) => self.frame(capture.as_mut(), stamp)?,
                None => return Ok(()),
            }
        }
    }

    /// Takes one frame, or passes it over.
    fn frame(&mut self, capture: &mut dyn Capture, stamp: Stamp) -> Result<()> {
        let captured = Instant::now();
        let gap = if self.endless() { Gap::Wall } else { Gap::Step };
        let stamp = self.timeline.place(stamp.pts_ms, captured, gap);
        self.running(captured);
        if self.clock.as_mut().is_some_and(|clock| !clock.due(stamp.pts_ms)) {
            self.shared.report().not_due += 1;
            return self.stop.check();
        }
        let image = capture.image()?;
        let size = (image.width, image.height);
        if self.size.replace(size).is_some_and(|last| last != size) {
            self.shared.report().caps_changes += 1;
        }
        self.hand_over(Arc::new(Frame { stamp, captured, image }))
    }

    /// Notes that frames come.
    fn running(&mut self, captured: Instant) {
        let mut report = self.shared.report();
        report.newest = Some(captured);
        if self.since.is_none() {
            self.since = Some(captured);
            report.state = LiveState::Running;
            // A file that starts again was never lost.
            report.reconnects += u64::from(self.ever && !matches!(self.source, Source::Loop(_)));
            self.ever = true;
        }
    }

    /// Shows a frame when it is due: at once from a live source, at its time from any other, or when the reader is ready.
    fn hand_over(&mut self, mut frame: Arc<Frame>) -> Result<()> {
        if !self.endless() && self.options.pacing == Pacing::Unpaced {
            while let Err(back) = self.shared.frames.offer(frame, TICK) {
                self.stop.check()?;
                frame = back;
            }
            return Ok(());
        }
        if !self.live && self.options.pacing == Pacing::RealTime {
            self.pace(&frame)?;
        }
        self.shared.frames.put(frame);
        Ok(())
    }

    /// Waits until a frame's time has come; a time that lies further ahead than a source may be silent is taken for a jump. A user's pipeline may run
    /// ahead by [`LEAD`]: one that reads a network has a backlog, and would never catch up if it were held to its own times from the first frame on.
    fn pace(&mut self, frame: &Frame) -> Result<()> {
        let at = Duration::from_millis(frame.stamp.pts_ms);
        let now = frame.captured;
        let lead = if self.endless() { LEAD } else { Duration::ZERO };
        let due = self.shown.and_then(|shown| shown.checked_add(at)?.checked_sub(lead));
        match due.filter(|due| due.saturating_duration_since(now) <= self.options.capture.timeout) {
            Some(due) => self.stop.sleep_until(due),
            None => {
                self.shown = now.checked_sub(at);
                self.stop.check()
            }
        }
    }
}
