//! How it goes: readiness, and the object the page draws.
//!
//! Comes in: the server's state. Goes out: [`Health`] and JSON. Addresses are shown without their credentials; nothing is changed here.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::App;
use super::metrics::drops;
use crate::answer::{FrameUsed, MAX_QUESTION_BYTES};
use crate::budget;
use crate::session::Status;
use crate::source::secret::scrub;

/// Whether a question would be answered about the present.
pub struct Health {
    /// It would.
    pub ready: bool,
    /// Why, or why not.
    pub reason: String,
}

/// Longest age of the newest frame before the view counts as stale: three frames late, and at least five seconds.
pub fn stale_after(fps: f64) -> Duration {
    Duration::from_secs_f64((3.0 / fps.max(1e-3)).clamp(5.0, 3600.0))
}

/// The word of the source's state: `opening`, `running`, …
pub fn source_state(status: &Status) -> String {
    let state = serde_json::to_value(&status.live.state).unwrap_or_default();
    let word = state.as_str().or_else(|| state.get("state").and_then(Value::as_str));
    word.unwrap_or("unknown").to_string()
}

/// Readiness: the model was warmed up before the server listened, so that only frames are wanting.
pub fn health(app: &App, status: &Status) -> Health {
    let unready = |reason: String| Health { ready: false, reason };
    let state = source_state(status);
    let problem = || match status.live.last_error.as_ref().or(status.last_error.as_ref()) {
        Some(error) => format!("; the newest problem: {}", scrub(error)),
        None => String::new(),
    };
    match status.newest {
        None => unready(format!("no frame has come yet (source {state}){}", problem())),
        Some(_) if app.session.ended() => {
            unready("the source has ended; questions are answered about its last frames".into())
        }
        Some(newest) if newest.elapsed() > stale_after(app.fps) => unready(format!(
            "the newest frame is {:.1} s old (source {state}){}",
            newest.elapsed().as_secs_f64(),
            problem()
        )),
        Some(_) => Health { ready: true, reason: "frames are coming and the model is warm".into() },
    }
}

/// The object of `/api/status`.
pub fn report(app: &App) -> Value {
    let status = app.session.status();
    let health = health(app, &status);
    let recent = app.metrics.recent().clone();
    let language = app.session.language();
    let view = app.session.view();
    let used = |frame: Option<&_>| {
        frame.map(|frame: &std::sync::Arc<crate::window::EncodedFrame>| FrameUsed::from(frame.stamp))
    };
    let oldest = used(view.as_ref().and_then(|view| view.frames.first()));
    let newest = used(view.as_ref().and_then(|view| view.frames.last()));
    let age = |since: Instant| since.elapsed().as_millis() as u64;
    let lost: serde_json::Map<String, Value> =
        drops(&status).into_iter().map(|(stage, n)| (stage.into(), n.into())).collect();
    let held: serde_json::Map<String, Value> =
        budget::used().into_iter().map(|(kind, n)| (kind.into(), n.into())).collect();
    json!({
        "ready": health.ready,
        "reason": health.reason,
        "uptime_s": app.started.elapsed().as_secs(),
        "model": {"name": language.name, "hash": language.hash},
        "source": {
            "uri": app.source,
            "state": source_state(&status),
            "detail": serde_json::to_value(&status.live.state).unwrap_or_default(),
            "ended": app.session.ended(),
            "captured": status.live.captured,
            "not_due": status.live.not_due,
            "delivered": status.live.delivered,
            "dropped_handover": status.live.dropped_handover,
            "waiting": status.live.waiting,
            "dropped_source": status.live.dropped_source,
            "reconnects": status.live.reconnects,
            "caps_changes": status.live.caps_changes,
            "last_error": status.live.last_error.as_deref().or(status.last_error.as_deref()).map(scrub),
        },
        "window": {
            "frames": status.window,
            "limit": app.settings.frames,
            "mode": app.settings.mode,
            "oldest": oldest,
            "newest": newest,
            "newest_age_ms": status.newest.map(age),
            "fps": recent.fps(),
            "fps_asked": app.fps,
            "seen": status.seen,
            "dropped_pinned": status.dropped_pinned,
            "failed": status.failed_frames,
        },
        "dropped": lost,
        "queue": {"pending": status.pending, "limit": app.queue},
        "stages": {"encode_ms": recent.encode_ms, "prefill_ms": recent.prefill_ms},
        "answers": recent.answers,
        "memory_bytes": held,
        "limits": {
            "question_bytes": MAX_QUESTION_BYTES,
            "answer_tokens": super::openai::MAX_ANSWER_TOKENS,
            "default_answer_tokens": app.sampling.max_tokens,
        },
        "files": app.files.is_some(),
    })
}
