//! placeholder
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::capture::{self, CaptureOptions, Frame};
use crate::error::{Error, Result};
use crate::latest::{Latest, Taken};
use crate::source::Source;

/// State.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum LiveState {
    /** o */
    Opening,
    /** r */
    Running,
    /** e */
    Ended,
    /** f */
    Failed,
}

/// Status.
#[derive(Clone, Debug)]
pub struct LiveStatus {
    /** s */
    pub state: LiveState,
    /** c */
    pub captured: u64,
    /** d */
    pub dropped_source: u64,
    /** d */
    pub dropped_handover: u64,
    /** r */
    pub reconnects: u64,
    /** c */
    pub caps_changes: u64,
    /** e */
    pub last_error: Option<String>,
    /** n */
    pub newest: Option<Instant>,
}

/// Options.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /** c */
    pub capture: CaptureOptions,
    /** f */
    pub fps: f64,
}

/// Next.
pub enum Next {
    /** f */
    Frame(Arc<Frame>),
    /** q */
    Quiet,
    /** e */
    Ended,
    /** f */
    Failed(Error),
}

/// Live.
pub struct Live {
    latest: Arc<Latest<Arc<Frame>>>,
}

impl Live {
    /// Starts.
    pub fn start(source: &Source, options: LiveOptions) -> Result<Live> {
        let latest: Arc<Latest<Arc<Frame>>> = Arc::default();
        let (source, to) = (source.clone(), Arc::clone(&latest));
        std::thread::spawn(move || {
            let run = || -> Result<()> {
                let mut clip = capture::open(&source, &options.capture)?;
                crate::sample::each_due(clip.as_mut(), options.fps, &mut |frame, _| {
                    to.put(frame);
                    std::thread::sleep(Duration::from_secs_f64(1.0 / options.fps));
                    Ok(!options.capture.interrupt.requested())
                })?;
                Ok(())
            };
            let _ = run();
            to.close();
        });
        Ok(Live { latest })
    }
    /// Next.
    pub fn next(&self, wait: Duration) -> Next {
        match self.latest.take(wait) {
            Taken::Value(f) => Next::Frame(f),
            Taken::Nothing => Next::Quiet,
            Taken::Closed => Next::Ended,
        }
    }
    /// Status.
    pub fn status(&self) -> LiveStatus {
        let p = self.latest.passage();
        LiveStatus {
            state: LiveState::Running,
            captured: p.put,
            dropped_source: 0,
            dropped_handover: p.overwritten,
            reconnects: 0,
            caps_changes: 0,
            last_error: None,
            newest: None,
        }
    }
}
