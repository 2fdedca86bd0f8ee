//! A live session: one source, one window, any number of questions, for months.
//!
//! Comes in: a model, a source, questions from any thread. Goes out: answers, and what is going on. One thread takes the
//! newest frame, encodes it and reads it; another answers, one question at a time, about the view that the window had when the question's turn came, so
//! that neither waits for the other. Questions wait in a bounded queue. What breaks stays in its frame or its question: it is counted and named, and
//! the session goes on. Nothing is printed, and no network is known here.

mod desk;
mod threads;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::answer::{Answer, Answerer, Question};
use crate::aside::{Requests, asides};
use crate::capture::Frame;
use crate::capture::live::{Live, LiveOptions, LiveState, LiveStatus};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::load::{Language, Model};
use crate::pipeline::{Look, Seeing, Settings, View};
use crate::source::Source;
use crate::window::EncodedFrame;

use desk::Desk;

/// Longest wait before a thread looks whether it should end.
const TICK: Duration = Duration::from_millis(50);

/// Told of everything that happens, on the thread where it happens; must be quick.
pub trait Observer: Send + Sync {
    /// A frame was encoded, and taken into the window or dropped.
    fn frame(&self, _frame: &Arc<Frame>, _look: &Look) {}

    /// A question was answered, or not.
    fn answer(&self, _question: &Question, _outcome: &Result<Answer>) {}
}

/// How a session runs.
#[derive(Clone)]
pub struct SessionOptions {
    /// How the window is followed.
    pub settings: Settings,
    /// How the source is kept alive.
    pub live: LiveOptions,
    /// Questions that may wait beside the one being answered.
    pub queue: usize,
    /// Told of everything.
    pub observers: Vec<Arc<dyn Observer>>,
}

/// Takes an answer's text piece by piece.
pub type OnText = Box<dyn FnMut(&str) -> Result<()> + Send>;

/// Takes an outcome, and the view it stands on.
pub type OnDone = Box<dyn FnOnce(Result<Answer>, Option<View>) + Send>;

/// A question on its way.
pub struct Job {
    /// What is asked.
    pub question: Question,
    /// From [`Session::cancel_flag`]; raised when nobody waits for the answer any more, it ends it between two tokens.
    pub cancel: Interrupt,
    /// Gets the text piece by piece.
    pub on_text: OnText,
    /// Gets the outcome and the view it stands on.
    pub done: OnDone,
}

/// What a question is about.
#[derive(Clone, Debug, Default)]
pub enum About {
    /// The window, as it is when the question's turn comes.
    #[default]
    Window,
    /// Its newest frames only; fewer than it holds are read exactly.
    Newest(usize),
    /// Other frames, read exactly.
    Frames(Vec<Arc<EncodedFrame>>),
}

/// Why a question was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// As many wait as may.
    Busy,
    /// The session has ended.
    Ended,
}

/// What a session counts.
#[derive(Clone, Debug)]
pub struct Status {
    /// The source, and what was lost before the window.
    pub live: LiveStatus,
    /// Frames that entered the window.
    pub seen: u64,
    /// Frames dropped because answers pinned the memory.
    pub dropped_pinned: u64,
    /// Frames that could not be encoded or read.
    pub failed_frames: u64,
    /// The newest failure of a frame.
    pub last_error: Option<String>,
    /// Frames in the window.
    pub window: usize,
    /// Questions waiting or being answered.
    pub pending: u64,
    /// When the newest frame entered the window.
    pub newest: Option<Instant>,
    /// When a frame was last looked at, also one that answers left no memory for.
    pub looked: Option<Instant>,
}

#[derive(Default)]
struct Shared {
    view: Mutex<Seen>,
    changed: Condvar,
    dropped_pinned: AtomicU64,
    failed_frames: AtomicU64,
}

/// What the seeing thread has to show.
#[derive(Default)]
struct Seen {
    view: Option<View>,
    count: u64,
    newest: Option<Instant>,
    looked: Option<Instant>,
    newest_frame: Option<Arc<Frame>>,
    /// Whether the newest frame had to be dropped: the window then lags behind.
    behind: bool,
    /// Set once no more frames will come.
    ended: bool,
    last_error: Option<String>,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running session. Dropping it ends its threads.
pub struct Session {
    live: Arc<Live>,
    language: Arc<Language>,
    shared: Arc<Shared>,
    desk: Arc<Desk>,
    observers: Vec<Arc<dyn Observer>>,
    requests: Requests,
    stop: Interrupt,
    threads: Vec<JoinHandle<()>>,
}

impl Session {
    /// Begins to look. The source is opened on a thread of its own: [`Session::failure`] has what is wrong with it.
    ///
    /// # Errors
    /// What the model reports about the prompt; a rate that is not above zero.
    pub fn start(
        model: Model,
        source: &Source,
        options: SessionOptions,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let stop = interrupt.child();
        let Model { encoder, language } = model;
        let answerer = Answerer::new(Arc::clone(&language), options.settings.kv);
        let seeing = Seeing::new(encoder, &language, &options.settings, stop.clone())?;
        let mut live_options = options.live;
        live_options.capture.interrupt = stop.clone();
        let live = Arc::new(Live::start(source, live_options)?);
        let shared = Arc::new(Shared::default());
        let desk = Arc::new(Desk::new(options.queue));
        let (requests, asides) = asides();
        let look = {
            let (live, shared, stop) = (Arc::clone(&live), Arc::clone(&shared), stop.clone());
            let observers = options.observers.clone();
            move || threads::look(&live, seeing, asides, &shared, &observers, &stop)
        };
        let speak = {
            let (desk, shared, stop) = (Arc::clone(&desk), Arc::clone(&shared), stop.clone());
            let observers = options.observers.clone();
            move || threads::speak(&desk, answerer, &shared, &observers, &stop)
        };
        let thread = |name: &str, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.into())
                .spawn(body)
                .map_err(Error::io("a thread of the session"))
        };
        let threads = vec![thread("utr-look", Box::new(look))?, thread("utr-speak", Box::new(speak))?];
        Ok(Self { live, language, shared, desk, observers: options.observers, requests, stop, threads })
    }

    /// The model that answers.
    pub fn language(&self) -> &Arc<Language> {
        &self.language
    }

    /// The source, for messages; without secrets.
    pub fn origin(&self) -> &str {
        self.live.origin()
    }

    /// A flag that stops one answer; the end of the session raises it too.
    pub fn cancel_flag(&self) -> Interrupt {
        self.stop.child()
    }

    /// Takes a question about the window.
    ///
    /// # Errors
    /// [`Refused`], with the job.
    #[allow(clippy::result_large_err)]
    pub fn submit(&self, job: Job) -> Result<(), (Refused, Job)> {
        self.submit_about(job, About::Window)
    }

    /// Has the seeing thread encode frames of another clip, one between two live frames, and waits for them.
    ///
    /// # Errors
    /// [`Error::Argument`] where others wait for the same; [`Error::Interrupted`]; whatever encoding reports.
    pub fn encode(&self, frames: &[Arc<Frame>], cancel: &Interrupt) -> Result<Vec<Arc<EncodedFrame>>> {
        self.requests.encode(frames, cancel)
    }

    /// Takes a question.
    ///
    /// # Errors
    /// [`Refused`], with the job.
    #[allow(clippy::result_large_err)]
    pub fn submit_about(&self, job: Job, about: About) -> Result<(), (Refused, Job)> {
        for gone in self.desk.given_up() {
            threads::conclude(gone, Err(Error::Interrupted), None, &self.observers);
        }
        self.desk.submit(job, about).map_err(|refused| *refused)
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// As [`Answerer::answer`]; [`Error::Argument`] where too many questions wait.
    pub fn ask(&self, question: Question) -> Result<(Answer, Option<View>)> {
        let (told, outcome) = sync_channel(1);
        let job = Job {
            question,
            cancel: self.cancel_flag(),
            on_text: Box::new(|_| Ok(())),
            done: Box::new(move |outcome, view| {
                let _ = told.send((outcome, view));
            }),
        };
        self.submit(job).map_err(|(refused, _)| match refused {
            Refused::Busy => Error::Argument("too many questions are waiting; ask again later".into()),
            Refused::Ended => Error::Interrupted,
        })?;
        let (answer, view) = outcome.recv().map_err(|_| Error::Interrupted)?;
        Ok((answer?, view))
    }

    /// The window now; none before the first frame.
    pub fn view(&self) -> Option<View> {
        self.shared.seen().view.clone()
    }

    /// The newest frame at source size, before any resizing.
    pub fn newest_frame(&self) -> Option<Arc<Frame>> {
        self.shared.seen().newest_frame.clone()
    }

    /// Waits until the window holds `frames`, or as many as will ever come; whether it does.
    pub fn wait_for(&self, frames: usize, most: Duration) -> bool {
        let end = Instant::now() + most;
        let mut seen = self.shared.seen();
        loop {
            let held = seen.view.as_ref().map_or(0, |view| view.frames.len());
            let left = end.saturating_duration_since(Instant::now());
            if held >= frames || seen.ended || left.is_zero() || self.stop.requested() {
                return held >= frames;
            }
            seen = self
                .shared
                .changed
                .wait_timeout(seen, left.min(TICK))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Whether no more frames will come: a clip's end, or a source that cannot be cured. Questions are still answered.
    pub fn ended(&self) -> bool {
        self.shared.seen().ended
    }

    /// Why the source cannot be read, once nothing more is tried; also where it ended without a frame.
    pub fn failure(&self) -> Option<Error> {
        if !self.ended() {
            return None;
        }
        let status = self.status();
        if status.live.state != LiveState::Failed && status.newest.is_some() {
            return None;
        }
        let reason = status.live.last_error.or(status.last_error);
        let reason = reason.unwrap_or_else(|| "it ended without a frame".into());
        Some(Error::capture(self.live.origin(), reason))
    }

    /// What is going on.
    pub fn status(&self) -> Status {
        let live = self.live.status();
        let seen = self.shared.seen();
        Status {
            live,
            seen: seen.count,
            dropped_pinned: self.shared.dropped_pinned.load(Ordering::Relaxed),
            failed_frames: self.shared.failed_frames.load(Ordering::Relaxed),
            last_error: seen.last_error.clone(),
            window: seen.view.as_ref().map_or(0, |view| view.frames.len()),
            pending: self.desk.pending(),
            newest: seen.newest,
            looked: seen.looked,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop.request();
        for job in self.desk.close() {
            threads::conclude(job, Err(Error::Interrupted), None, &self.observers);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
