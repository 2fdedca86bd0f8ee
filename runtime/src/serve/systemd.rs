//! What systemd is told: that the service is up, how it goes, that it lives.
//!
//! Comes in: the server's state, once a second. Goes out: `READY=1` once the model is warm and the port is open; a camera that is not there yet does
//! not hold a boot back, `/readyz` and `STATUS=` say so instead. `WATCHDOG=1` follows the frames: it is sent while they arrive, and while the
//! source says itself that none can (it opens, waits before the next try, has ended or failed), because a camera that vanished is no hung
//! process and a restart would not bring it back. It stays away, and systemd restarts the service, where the source claims to run and yet no
//! frame was looked at for [`patience`], where none has entered the window for so long though no question is pending ([`ANSWER`] where one is: it may hold the
//! memory that frames need), and where this task itself no longer runs. Without systemd nothing is sent.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::sync::watch;

use super::status::{health, source_state, stale_after};
use super::{App, log};

const EVERY: Duration = Duration::from_secs(1);
/// Longest time that answers may keep frames out of the window: thousands of tokens on a slow board.
const ANSWER: Duration = Duration::from_secs(30 * 60);
/// How often it is looked for a stop.
const TICK: Duration = Duration::from_millis(50);

/// Tells systemd, until `stop` turns true. On a thread of its own: whoever listens may be slow, and the network must not wait.
pub fn run(app: &App, stop: &watch::Receiver<bool>) {
    tell(&[NotifyState::Ready]);
    let watched = sd_notify::watchdog_enabled().is_some();
    let mut said_ready = None;
    let mut due = Instant::now() + EVERY;
    loop {
        if *stop.borrow() {
            break;
        }
        if Instant::now() < due {
            std::thread::sleep(TICK);
            continue;
        }
        due = Instant::now() + EVERY;
        let status = app.session.status();
        let health = health(app, &status);
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
        let state = if app.session.ended() { "ended".into() } else { source_state(&status) };
        let patience = patience(app.capture.timeout, app.fps);
        let longest = if status.pending > 0 { ANSWER } else { patience };
        let lives = |newest, patience| alive(newest, &state, app.started, patience);
        if watched && lives(status.looked, patience) && lives(status.newest, longest) {
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

/// Whether the process counts as working, from the time of a frame and the word of the source's state.
pub fn alive(newest: Option<Instant>, state: &str, started: Instant, patience: Duration) -> bool {
    newest.unwrap_or(started).elapsed() < patience || state != "running"
}

fn tell(states: &[NotifyState<'_>]) {
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(states);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_source_that_claims_to_run_and_brings_nothing_counts_as_hung() {
        let patience = patience(Duration::from_secs(10), 2.0);
        assert_eq!(patience, Duration::from_secs(25));
        let now = Instant::now();
        let old = now.checked_sub(Duration::from_secs(60)).unwrap();
        for (newest, state, started, expected) in [
            (Some(now), "running", old, true),
            (Some(old), "running", old, false),
            (None, "running", old, false),
            (None, "running", now, true),
            (None, "opening", old, true),
            (Some(old), "waiting", old, true),
            (Some(old), "ended", old, true),
            (Some(old), "failed", old, true),
        ] {
            assert_eq!(alive(newest, state, started, patience), expected, "{newest:?} {state}");
        }
    }
}
