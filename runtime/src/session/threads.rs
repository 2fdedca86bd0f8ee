//! The two threads of a session: one that sees, one that answers.
//!
//! Comes in: frames from the source and frames encoded beside the window, and questions. Goes out: the view, published after every frame, and
//! outcomes to those who asked. Whatever fails or panics is counted and named, and both go on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use utr_models::manifest::WindowMode;

use super::{About, Job, Observer, Shared, TICK};
use crate::answer::Answerer;
use crate::aside::Asides;
use crate::capture::Frame;
use crate::capture::live::{Live, Next};
use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::pipeline::{Seeing, View};

/// The seeing thread.
pub(super) fn look(
    live: &Live,
    mut seeing: Seeing,
    mut asides: Asides,
    shared: &Shared,
    observers: &[Arc<dyn Observer>],
    stop: &Interrupt,
) {
    let mut ended = false;
    while !stop.requested() {
        let step = catch_unwind(AssertUnwindSafe(|| asides.step(&mut seeing)));
        let wait = if step.unwrap_or(false) { Duration::ZERO } else { TICK };
        let next = if ended { Next::Quiet } else { live.next(wait) };
        match next {
            Next::Frame(frame) => take(live, &mut seeing, shared, observers, frame),
            Next::Quiet if ended => std::thread::sleep(wait),
            Next::Quiet => {}
            Next::Ended => ended = end(shared, None),
            Next::Failed(error) => ended = end(shared, Some(error)),
        }
    }
    end(shared, None);
}

/// Notes that no more frames will come.
fn end(shared: &Shared, error: Option<Error>) -> bool {
    let mut seen = shared.seen();
    seen.ended = true;
    if let Some(error) = error {
        seen.last_error = Some(error.to_string());
    }
    drop(seen);
    shared.changed.notify_all();
    true
}

/// Encodes and reads one frame; what fails is counted.
fn take(
    live: &Live,
    seeing: &mut Seeing,
    shared: &Shared,
    observers: &[Arc<dyn Observer>],
    frame: Arc<Frame>,
) {
    let looked = catch_unwind(AssertUnwindSafe(|| seeing.look(&frame)));
    match looked.unwrap_or_else(|_| Err(Error::Decoder("encoding or reading a frame panicked".into()))) {
        Ok(look) => {
            if !look.taken {
                shared.dropped_pinned.fetch_add(1, Ordering::Relaxed);
            }
            observers.iter().for_each(|observer| observer.frame(&frame, &look));
            publish(live, seeing, shared, frame, look.taken);
        }
        // The session ends; the loop notices.
        Err(Error::Interrupted) => {}
        Err(error) => {
            shared.failed_frames.fetch_add(1, Ordering::Relaxed);
            shared.seen().last_error = Some(error.to_string());
        }
    }
}

fn publish(live: &Live, seeing: &mut Seeing, shared: &Shared, frame: Arc<Frame>, taken: bool) {
    let mut view = seeing.view();
    let status = live.status();
    view.dropped += status.dropped_source + status.dropped_handover;
    let mut seen = shared.seen();
    if let Some(before) = &seen.view {
        // Times go with the next answer.
        view.capture_ms += before.capture_ms;
        view.encode_ms += before.encode_ms;
    }
    seen.count += u64::from(taken);
    seen.view = Some(view);
    seen.newest = Some(Instant::now());
    seen.newest_frame = Some(frame);
    drop(seen);
    shared.changed.notify_all();
}

/// The answering thread.
pub(super) fn speak(
    waiting: &Receiver<(Job, About)>,
    mut answerer: Answerer,
    shared: &Shared,
    observers: &[Arc<dyn Observer>],
    stop: &Interrupt,
) {
    while !stop.requested() {
        let (mut job, about) = match waiting.recv_timeout(TICK) {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let view = pin(shared, about);
        let outcome = match &view {
            None => Err(Error::Argument(nothing_seen(shared))),
            Some(view) => catch_unwind(AssertUnwindSafe(|| {
                answerer.answer(view, &job.question, &job.cancel, &mut *job.on_text)
            }))
            .unwrap_or_else(|_| Err(Error::Decoder("answering panicked; the session goes on".into()))),
        };
        observers.iter().for_each(|observer| observer.answer(&job.question, &outcome));
        // Counted down first: who has the answer finds no question of its own pending.
        shared.pending.fetch_sub(1, Ordering::SeqCst);
        (job.done)(outcome, view);
    }
}

/// The view that a question stands on.
fn pin(shared: &Shared, about: About) -> Option<View> {
    let newest = match about {
        About::Window => usize::MAX,
        About::Newest(n) => n,
        About::Frames(frames) => {
            let (mode, nothing) = (WindowMode::Exact, 0.0);
            let (capture_ms, encode_ms) = (nothing, nothing);
            return Some(View { frames, reading: None, mode, dropped: 0, capture_ms, encode_ms });
        }
    };
    let mut seen = shared.seen();
    let mut view = seen.view.clone()?;
    if let Some(shown) = seen.view.as_mut() {
        (shown.capture_ms, shown.encode_ms) = (0.0, 0.0);
    }
    drop(seen);
    if newest < view.frames.len() {
        view.frames.drain(..view.frames.len() - newest);
        (view.reading, view.mode) = (None, WindowMode::Exact);
    }
    Some(view)
}

fn nothing_seen(shared: &Shared) -> String {
    match &shared.seen().last_error {
        Some(error) => format!("no frame has come yet: {error}"),
        None => "no frame has come yet; ask again once the source delivers".into(),
    }
}
