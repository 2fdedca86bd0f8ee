//! What was drawn, and how hot it got, while something ran.
//!
//! Comes in: a [`Meter`], at the start. Goes out: [`Usage`] at the end. A thread asks the sensors ten times a second; where there are none, no
//! thread runs. Energy is the sum of each interval's watts, so that a counter's figure is exact and a monitor's is as good as its samples.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Meter, Reading};

/// Between two looks at the sensors.
const EVERY: Duration = Duration::from_millis(100);
/// The part of the time that sensors must have told power for; with less nothing is said.
const COVERED: f64 = 0.5;

/// What was drawn over a time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Mean power.
    pub watts: Option<f64>,
    /// Energy.
    pub joules: Option<f64>,
    /// The hottest zone.
    pub celsius: Option<Celsius>,
}

/// The hottest zone's degrees Celsius.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Celsius {
    /// At the start.
    pub before: f64,
    /// At its most.
    pub peak: f64,
    /// At the end.
    pub after: f64,
}

/// Looks at the sensors until it is stopped.
pub struct Sampler {
    thread: Option<(SyncSender<()>, JoinHandle<Usage>)>,
    power: bool,
}

impl Sampler {
    /// Starts looking.
    pub fn start(mut meter: Meter) -> Self {
        let power = meter.has_power();
        let first = meter.read();
        if !power && first.celsius.is_empty() {
            return Self { thread: None, power };
        }
        let (sender, stopped) = sync_channel(1);
        let work = move || {
            let mut tally = Tally::new(&first);
            let mut last = Instant::now();
            loop {
                let more = matches!(stopped.recv_timeout(EVERY), Err(RecvTimeoutError::Timeout));
                let reading = meter.read();
                let now = Instant::now();
                tally.add(&reading, now.duration_since(last).as_secs_f64());
                last = now;
                if !more {
                    return tally.usage();
                }
            }
        };
        let thread = std::thread::Builder::new().name("power".into()).spawn(work).ok();
        Self { power: power && thread.is_some(), thread: thread.map(|thread| (sender, thread)) }
    }

    /// Whether power is told.
    pub fn sees_power(&self) -> bool {
        self.power
    }

    /// Stops looking.
    pub fn stop(self) -> Usage {
        let Some((sender, thread)) = self.thread else { return Usage::default() };
        // The thread takes one more look and ends.
        drop(sender);
        thread.join().unwrap_or_default()
    }
}

/// The sum so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    seconds: f64,
    covered: f64,
    joules: f64,
    celsius: Option<Celsius>,
}

impl Tally {
    pub(super) fn new(first: &Reading) -> Self {
        let celsius = first.hottest().map(|now| Celsius { before: now, peak: now, after: now });
        Self { celsius, ..Self::default() }
    }

    /// A reading and the seconds since the one before.
    pub(super) fn add(&mut self, reading: &Reading, seconds: f64) {
        self.seconds += seconds;
        if let Some(watts) = reading.total {
            self.covered += seconds;
            self.joules += watts * seconds;
        }
        if let Some(now) = reading.hottest() {
            let seen = self.celsius.get_or_insert(Celsius { before: now, peak: now, after: now });
            (seen.peak, seen.after) = (seen.peak.max(now), now);
        }
    }

    pub(super) fn usage(&self) -> Usage {
        let told = self.covered > 0.0 && self.covered >= COVERED * self.seconds;
        let watts = told.then(|| self.joules / self.covered);
        Usage { watts, joules: watts.map(|watts| watts * self.seconds), celsius: self.celsius }
    }
}
