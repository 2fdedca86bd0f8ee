//! A stop request, shared between the signal handler and the loops that must notice it.
//!
//! Comes in: Ctrl-C, or any caller's [`Interrupt::request`]. Goes out: [`Error::Interrupted`] from the next check.
//! It installs no signal handler itself; the program does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Longest time a wait takes to notice a request.
const TICK: Duration = Duration::from_millis(20);

/// A flag that capture, encoding, prefill and decoding look at between steps. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<Flag>);

#[derive(Debug, Default)]
struct Flag {
    asked: AtomicBool,
    above: Option<Interrupt>,
}

impl Interrupt {
    /// A flag of its own that also counts as raised where this one is: what it stops is a part of what this one stops.
    pub fn child(&self) -> Self {
        Self(Arc::new(Flag { asked: AtomicBool::new(false), above: Some(self.clone()) }))
    }

    /// Asks every holder to stop; true where it had been asked before.
    pub fn request(&self) -> bool {
        self.0.asked.swap(true, Ordering::SeqCst)
    }

    /// Whether a stop was asked for.
    pub fn requested(&self) -> bool {
        self.0.asked.load(Ordering::SeqCst) || self.0.above.as_ref().is_some_and(Interrupt::requested)
    }

    /// [`Error::Interrupted`] once a stop was asked for.
    pub fn check(&self) -> Result<()> {
        if self.requested() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Waits until then, or until a stop is asked for.
    ///
    /// # Errors
    /// [`Error::Interrupted`] once a stop was asked for.
    pub fn sleep_until(&self, end: Instant) -> Result<()> {
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(TICK));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reaches_what_is_below_and_not_what_is_above() {
        let program = Interrupt::default();
        let (camera, other) = (program.child(), program.child());
        camera.request();
        assert!(camera.requested() && camera.check().is_err());
        assert!(!program.requested() && !other.requested());
        program.request();
        assert!(other.requested() && other.child().requested());
        let far = Instant::now() + Duration::from_secs(3600);
        assert!(matches!(other.sleep_until(far), Err(Error::Interrupted)));
        assert!(Interrupt::default().sleep_until(Instant::now() + Duration::from_millis(30)).is_ok());
    }
}
