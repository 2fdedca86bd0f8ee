//! The two threads of a session: one that sees, one that answers.
//!
//! Comes in: frames from the source and frames encoded beside the window, and questions. Goes out: the view, published after every frame, and
//! outcomes to those who asked. Whatever fails or panics is counted and named, and both go on; what an observer does wrong stays with it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use utr_models::manifest::WindowMode;

use super::desk::Desk;
use super::{About, Job, Observer, Shared, TICK};
use crate::answer::{Answer, Answerer};
use crate::aside::Asides;
use crate::capture::Frame;
use crate::capture::live::{Live, Next};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::pipeline::{Look, Seeing, View};

/// Longest wait for a frame before an answer whose window lags behind.
const CATCH_UP: Duration = Duration::from_secs(1);

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
        let busy = step.unwrap_or_else(|_| {
            shared.seen().last_error = Some("encoding a file's frame panicked; please report this".into());
            false
        });
        let wait = if busy { Duration::ZERO } else { TICK };
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
        seen.last_error = Some(error.reason());
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
            tell(observers, |observer| observer.frame(&frame, &look));
            publish(live, seeing, shared, frame, &look);
        }
        // The session ends; the loop notices.
        Err(Error::Interrupted) => {}
        Err(error) => {
            shared.failed_frames.fetch_add(1, Ordering::Relaxed);
            shared.seen().last_error = Some(error.to_string());
        }
    }
}

/// Tells the observers.
fn tell(observers: &[Arc<dyn Observer>], what: impl Fn(&dyn Observer)) {
    for observer in observers {
        // The panic's own message is all there is to say.
        let _ = catch_unwind(AssertUnwindSafe(|| what(observer.as_ref())));
    }
}

/// Shows what the window holds now; a frame that was dropped only counts.
fn publish(live: &Live, seeing: &mut Seeing, shared: &Shared, frame: Arc<Frame>, look: &Look) {
    let mut view = seeing.view();
    let status = live.status();
    view.dropped += status.dropped_source + status.dropped_handover;
    // What the newest frame cost: the others were ready long before any question.
    view.encode_ms = look.encode_ms;
    view.capture_ms =
        (frame.captured.elapsed().as_secs_f64() * 1e3 - look.encode_ms - look.prefill_ms).max(0.0);
    let mut seen = shared.seen();
    seen.newest_frame = Some(frame);
    seen.behind = !look.taken;
    seen.looked = Some(Instant::now());
    if look.taken {
        seen.count += 1;
        seen.newest = seen.looked;
        seen.view = Some(view);
    } else if let Some(shown) = seen.view.as_mut() {
        shown.dropped = view.dropped;
    }
    drop(seen);
    shared.changed.notify_all();
}

/// The answering thread.
pub(super) fn speak(
    desk: &Desk,
    mut answerer: Answerer,
    shared: &Shared,
    observers: &[Arc<dyn Observer>],
    stop: &Interrupt,
) {
    while !stop.requested() {
        let Some((mut job, about)) = desk.take(TICK) else { continue };
        catch_up(shared, &job.cancel);
        let view = pin(shared, about);
        let outcome = match &view {
            None => Err(Error::Argument(nothing_seen(shared))),
            Some(view) => catch_unwind(AssertUnwindSafe(|| {
                answerer.answer(view, &job.question, &job.cancel, &mut *job.on_text)
            }))
            .unwrap_or_else(|_| Err(Error::Decoder("answering panicked; the session goes on".into()))),
        };
        // First: who has the answer finds no question of its own pending.
        desk.answered();
        conclude(job, outcome, view, observers);
    }
    // Whoever still waits is told that nothing will come.
    for job in desk.close() {
        conclude(job, Err(Error::Interrupted), None, observers);
    }
}

/// Tells what became of a question.
pub(super) fn conclude(
    job: Job,
    outcome: Result<Answer>,
    view: Option<View>,
    observers: &[Arc<dyn Observer>],
) {
    tell(observers, |observer| observer.answer(&job.question, &outcome));
    let _ = catch_unwind(AssertUnwindSafe(|| (job.done)(outcome, view)));
}

/// Waits a moment for the window to take the newest frame, where the answer before held so much of the memory that frames were dropped: the next
/// answer is about the present.
fn catch_up(shared: &Shared, cancel: &Interrupt) {
    let end = Instant::now() + CATCH_UP;
    let mut seen = shared.seen();
    while seen.behind && !seen.ended && !cancel.requested() && Instant::now() < end {
        seen = shared.changed.wait_timeout(seen, TICK).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// The view that a question stands on.
fn pin(shared: &Shared, about: About) -> Option<View> {
    let newest = match about {
        About::Window => usize::MAX,
        About::Newest(n) => n,
        About::Frames(frames) => return Some(View::unread(frames)),
    };
    let mut view = shared.seen().view.clone()?;
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
