//! What systemd is told: that the service is up, how it goes, that it lives.
//!
//! Comes in: the server's state, once a second. Goes out: `READY=1` once the model is warm and the port is open; a camera that is not there yet does
//! not hold a boot back, `/readyz` and `STATUS=` say so instead. `WATCHDOG=1` follows the frames: it is sent while they arrive, and while the
//! source says itself that none can (it opens, waits before the next try, has ended or failed), because a camera that vanished is no hung
//! process and a restart would not bring it back. It stays away, and systemd restarts the service, where the source claims to run and yet no
//! frame has entered the window for [`patience`], and where this task itself no longer runs. Without systemd nothing is sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::sync::watch;

use super::status::{health, source_state, stale_after};
use super::{App, log};
use crate::session::Status;

const EVERY: Duration = Duration::from_secs(1);

/// Tells systemd, until `stop` turns true.
pub async fn run(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    tell(&[NotifyState::Ready]);
    let watched = sd_notify::watchdog_enabled();
    let mut said_ready = None;
    while tokio::time::timeout(EVERY, stop.wait_for(|stop| *stop)).await.is_err() {
        let status = app.session.status();
        let health = health(&app, &status);
        if said_ready != Some(health.ready) {
            // Once a change; the log keeps no line a second.
            log::info(&format!("{}: {}", if health.ready { "ready" } else { "not ready" }, health.reason));
            said_ready = Some(health.ready);
        }
        let fps = app.metrics.recent().fps();
        tell(&[NotifyState::Status(&format!(
            "{fps:.1} frames/s, {} of {} in the window, source {}, {} waiting; {}",
            status.window,
            app.settings.frames,
            source_state(&status),
            status.pending,
            health.reason
        ))]);
        if watched.is_some()
            && alive(&status, app.session.ended(), app.started, patience(app.timeout, app.fps))
        {
            tell(&[NotifyState::Watchdog]);
        }
    }
    tell(&[NotifyState::Stopping]);
}

/// How long a source may claim to run without a frame: capture notices a silent source itself after its timeout, so that longer silence
/// means that something hangs.
pub fn patience(capture_timeout: Duration, fps: f64) -> Duration {
    2 * capture_timeout + stale_after(fps)
}

/// Whether the process counts as working.
pub fn alive(status: &Status, ended: bool, started: Instant, patience: Duration) -> bool {
    let frames = status.newest.unwrap_or(started).elapsed() < patience;
    frames || ended || source_state(status) != "running"
}

fn tell(states: &[NotifyState<'_>]) {
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(states);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::live::{LiveState, LiveStatus};

    #[test]
    fn only_a_source_that_claims_to_run_and_brings_nothing_counts_as_hung() {
        let patience = patience(Duration::from_secs(10), 2.0);
        assert_eq!(patience, Duration::from_secs(25));
        let now = Instant::now();
        let old = now.checked_sub(Duration::from_secs(60)).unwrap();
        let status = |state, newest| Status {
            live: LiveStatus {
                state,
                captured: 0,
                dropped_source: 0,
                dropped_handover: 0,
                reconnects: 0,
                caps_changes: 0,
                last_error: None,
                newest: None,
            },
            seen: 0,
            dropped_pinned: 0,
            failed_frames: 0,
            last_error: None,
            window: 0,
            pending: 0,
            newest,
        };
        assert!(alive(&status(LiveState::Running, Some(now)), false, old, patience));
        assert!(!alive(&status(LiveState::Running, Some(old)), false, old, patience));
        assert!(!alive(&status(LiveState::Running, None), false, old, patience));
        assert!(alive(&status(LiveState::Running, None), false, now, patience));
        assert!(alive(&status(LiveState::Opening, None), false, old, patience));
        assert!(alive(&status(LiveState::Ended, Some(old)), false, old, patience));
        assert!(alive(&status(LiveState::Running, Some(old)), true, old, patience));
    }
}
