//! A source that is kept alive: a thread reads it and hands over only its newest frame.
//!
//! Comes in: a [`Source`]. Goes out: frames on request ([`Live::next`]) and a [`LiveStatus`] at any time. A camera that vanishes,
//! ends or hangs is closed and opened again, later each time; indices and times go on. A file ends. What the reader was too
//! slow for is overwritten and counted, except where a file is read as fast as possible: then the thread waits, and nothing is
//! lost. Whatever happens, two frames at most are held here.

mod reader;
mod timeline;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{CaptureOptions, Frame};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::latest::{Latest, Taken};
use crate::source::Source;

use reader::Reader;

/// How a source is kept alive.
#[derive(Clone, Debug, Default)]
pub struct LiveOptions {
    /// How it is opened; its timeout is also the longest silence before the source is opened again.
    pub capture: CaptureOptions,
    /// Frames per second to hand over, above zero; the others are passed over before their picture is copied. None takes every frame.
    pub fps: Option<f64>,
    /// How fast a source that ends is read.
    pub pacing: Pacing,
    /// Whether the source is to be opened again whatever happens; none leaves it to the source: cameras and live pipelines are,
    /// files are not.
    pub endless: Option<bool>,
    /// When it is opened again.
    pub backoff: Backoff,
}

impl LiveOptions {
    /// For a session that is to last: a pipeline of the user's is opened again whatever happens, also where it is not live, because its end can only be a loss.
    pub fn lasting(source: &Source) -> Self {
        Self { endless: matches!(source, Source::Gst(_)).then_some(true), ..Self::default() }
    }
}

/// How fast a source without a clock of its own is read. Live sources have one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pacing {
    /// By its own times, as if it were a camera: a slow reader misses frames.
    #[default]
    RealTime,
    /// As fast as frames are taken; none is lost.
    Unpaced,
}

/// Waits before a source is opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first one; each further one is twice as long.
    pub first: Duration,
    /// The longest.
    pub longest: Duration,
    /// A source that gave frames for this long starts again with the first.
    pub steady: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(250),
            longest: Duration::from_secs(8),
            steady: Duration::from_secs(10),
        }
    }
}

impl Backoff {
    /// The wait before attempt 1, 2, …
    pub fn wait(&self, attempt: u32) -> Duration {
        let factor = 1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.longest)
    }
}

/// What [`Live::next`] found.
#[derive(Debug)]
pub enum Next {
    /// The newest frame.
    Frame(Arc<Frame>),
    /// None came in time; the status says why.
    Quiet,
    /// The source came to its end.
    Ended,
    /// It cannot be read, and trying again does not help; or a stop was asked for.
    Failed(Error),
}

/// Where a source stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum LiveState {
    /// Being opened; no frame yet.
    Opening,
    /// Gives frames.
    Running,
    /// Gave out; waits to be opened again.
    Waiting {
        /// Openings since it last ran well, this one included.
        attempt: u32,
        /// Length of the wait.
        retry_in_ms: u64,
        /// What happened; without secrets.
        reason: String,
    },
    /// Came to its end.
    Ended,
    /// Cannot be read; [`LiveStatus::last_error`] says why.
    Failed,
}

/// What happened so far. At any moment `captured` = `not_due` + `delivered` + `dropped_handover` + `waiting`.
#[derive(Clone, Debug, Serialize)]
pub struct LiveStatus {
    /// Where it stands.
    #[serde(flatten)]
    pub state: LiveState,
    /// Frames read from the source.
    pub captured: u64,
    /// Of these, passed over by the asked rate.
    pub not_due: u64,
    /// Of these, taken by the reader.
    pub delivered: u64,
    /// Of these, overwritten by a newer one before the reader took them.
    pub dropped_handover: u64,
    /// Of these, ready to be taken: 0 or 1.
    pub waiting: u64,
    /// Frames lost before they reached this process, as far as that can be known ([`super::Capture::dropped`]).
    pub dropped_source: u64,
    /// Times the source was lost and gave frames again.
    pub reconnects: u64,
    /// Times the picture's size changed.
    pub caps_changes: u64,
    /// The last thing that went wrong, also where it was overcome; without secrets.
    pub last_error: Option<String>,
}

/// What the thread reports and the handle reads.
#[derive(Debug)]
struct Shared {
    frames: Latest<Arc<Frame>>,
    report: Mutex<Report>,
}

#[derive(Debug)]
struct Report {
    state: LiveState,
    not_due: u64,
    dropped_source: u64,
    reconnects: u64,
    caps_changes: u64,
    last_error: Option<String>,
    newest: Option<Instant>,
    /// Why it failed, for the first that asks.
    failure: Option<Error>,
}

impl Shared {
    fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A source that is kept alive. Dropping it stops and joins its thread.
#[derive(Debug)]
pub struct Live {
    shared: Arc<Shared>,
    origin: String,
    stop: Interrupt,
    thread: Option<JoinHandle<()>>,
}

impl Live {
    /// Starts to read; the source is opened on the thread, and what is wrong with it comes out of [`Live::next`].
    ///
    /// # Errors
    /// [`Error::Argument`] for a rate that is not above zero; [`Error::Capture`] where no thread can be started.
    pub fn start(source: &Source, options: LiveOptions) -> Result<Self> {
        if let Some(fps) = options.fps.filter(|fps| !(fps.is_finite() && *fps > 0.0)) {
            return Err(Error::Argument(format!("--fps {fps}: the rate must be above zero")));
        }
        let report = Report {
            state: LiveState::Opening,
            not_due: 0,
            dropped_source: 0,
            reconnects: 0,
            caps_changes: 0,
            last_error: None,
            newest: None,
            failure: None,
        };
        let shared = Arc::new(Shared { frames: Latest::default(), report: Mutex::new(report) });
        let stop = options.capture.interrupt.child();
        let origin = source.to_string();
        let reader = Reader::new(source.clone(), options, Arc::clone(&shared), stop.clone());
        let thread = std::thread::Builder::new()
            .name("utr-live".into())
            .spawn(move || reader.run())
            .map_err(|error| {
                Error::capture(origin.clone(), format!("no thread could be started to read it: {error}"))
            })?;
        Ok(Self { shared, origin, stop, thread: Some(thread) })
    }

    /// The newest frame that was not taken yet, waiting for one at most this long. A frame that came before the end is handed over
    /// before the end is told; the end is told every time.
    pub fn next(&self, wait: Duration) -> Next {
        match self.shared.frames.take(wait) {
            Taken::Value(frame) => Next::Frame(frame),
            Taken::Nothing => Next::Quiet,
            Taken::Closed => {
                let mut report = self.shared.report();
                if report.state == LiveState::Ended {
                    return Next::Ended;
                }
                let again = || {
                    let reason = report.last_error.clone().unwrap_or_else(|| "it failed".into());
                    Error::capture(self.origin.clone(), reason)
                };
                let error = if self.stop.requested() { Error::Interrupted } else { again() };
                Next::Failed(report.failure.take().unwrap_or(error))
            }
        }
    }

    /// The source, for messages; without secrets.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// What happened so far.
    pub fn status(&self) -> LiveStatus {
        let report = self.shared.report();
        let passage = self.shared.frames.passage();
        LiveStatus {
            state: report.state.clone(),
            captured: report.not_due + passage.put,
            not_due: report.not_due,
            delivered: passage.taken(),
            dropped_handover: passage.overwritten,
            waiting: passage.waiting,
            dropped_source: report.dropped_source,
            reconnects: report.reconnects,
            caps_changes: report.caps_changes,
            last_error: report.last_error.clone(),
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop.request();
        // Nobody takes any more: a hand-over that waits comes back.
        self.shared.frames.close();
        if let Some(thread) = self.thread.take() {
            // The thread catches its own panics; there is nothing to learn here.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
