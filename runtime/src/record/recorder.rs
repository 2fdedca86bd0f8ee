//! The recorder of a live session: it listens, and a thread of its own writes.
//!
//! Comes in: what a session tells its observers. Goes out: a recording that is flushed every second. The seeing thread never waits for the disk:
//! what the bounded queue cannot hold is left out, counted, and marked in the file as a gap. A disk that fails ends the recording, with everything
//! before it kept, and not the session.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::format::{AnswerNote, EventNote, FrameNote, Pictures, SessionNote};
use super::write::{Expected, RecordWriter};
use crate::answer::{Answer, Question};
use crate::capture::Frame;
use crate::error::{Error, Result};
use crate::pipeline::Look;
use crate::session::Observer;
use crate::window::EncodedFrame;

/// How often the file is flushed: what a killed program loses at most.
const FLUSH: Duration = Duration::from_secs(1);

/// What may wait for the disk.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Frames and answers.
    pub items: usize,
    /// Bytes of pictures.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { items: 64, bytes: 96 << 20 }
    }
}

/// What became of a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Frames in the file.
    pub frames: u64,
    /// Answers in the file.
    pub answers: u64,
    /// Frames of the window that the file could not take in time.
    pub lost_frames: u64,
    /// Answers likewise.
    pub lost_answers: u64,
}

/// Something on its way to the file.
struct Item {
    what: What,
    /// Frames and answers lost before it, since the start.
    lost: (u64, u64),
    bytes: u64,
}

enum What {
    Frame { picture: Option<Picture>, frame: Expected },
    Answer(Box<AnswerNote>),
}

enum Picture {
    Source(Arc<Frame>),
    /// Shared with the window.
    Model(Arc<EncodedFrame>),
}

#[derive(Default)]
struct Shared {
    waiting_bytes: AtomicU64,
    frames: AtomicU64,
    answers: AtomicU64,
    lost_frames: AtomicU64,
    lost_answers: AtomicU64,
    failed: AtomicBool,
    failure: Mutex<Option<Error>>,
}

/// Records a session. Give it to the session as an observer before the first frame, and [`Recorder::finish`] it after the session's end.
pub struct Recorder {
    pictures: Pictures,
    limits: Limits,
    queue: Mutex<Option<SyncSender<Item>>>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Recorder {
    /// Begins a new file.
    ///
    /// # Errors
    /// [`Error::Io`], also where there is a file of that name.
    pub fn create(path: &Path, session: &SessionNote, limits: Limits) -> Result<Self> {
        let file = File::options().write(true).create_new(true).open(path).map_err(|error| {
            let what = match error.kind() {
                ErrorKind::AlreadyExists => "exists already; remove it or name another file".to_string(),
                ErrorKind::NotFound => "its folder does not exist; make it first".to_string(),
                _ => format!("{error}; name another file"),
            };
            Error::Argument(format!("--output {}: {what}", path.display()))
        })?;
        Self::start(BufWriter::with_capacity(1 << 18, file), path, session, limits)
    }

    /// Begins a recording in any writer; `path` is named in errors.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn start<W: Write + Seek + Send + 'static>(
        to: W,
        path: &Path,
        session: &SessionNote,
        limits: Limits,
    ) -> Result<Self> {
        let mut writer = RecordWriter::new(to, path, session)?;
        // A session begins with an empty window.
        writer.event(&EventNote::Reset)?;
        writer.flush()?;
        let (queue, waiting) = sync_channel(limits.items);
        let shared = Arc::new(Shared::default());
        let body = {
            let (shared, path) = (Arc::clone(&shared), path.to_path_buf());
            move || Writing { shared: &shared, writer: Some(writer), lost: (0, 0), path }.run(&waiting)
        };
        let thread = std::thread::Builder::new()
            .name("utr-record".into())
            .spawn(body)
            .map_err(Error::io("the recorder's thread"))?;
        Ok(Self {
            pictures: session.pictures,
            limits,
            queue: Mutex::new(Some(queue)),
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Whether the file cannot be written any more; [`Recorder::finish`] says why.
    pub fn failed(&self) -> bool {
        self.shared.failed.load(Ordering::SeqCst)
    }

    /// What is in the file so far.
    pub fn report(&self) -> Report {
        let count = |count: &AtomicU64| count.load(Ordering::SeqCst);
        let shared = &self.shared;
        Report {
            frames: count(&shared.frames),
            answers: count(&shared.answers),
            lost_frames: count(&shared.lost_frames),
            lost_answers: count(&shared.lost_answers),
        }
    }

    /// Writes what still waits, the end and the index.
    ///
    /// # Errors
    /// [`Error::Io`] with what broke the recording, now or earlier.
    pub fn finish(&self) -> Result<Report> {
        drop(lock(&self.queue).take());
        if let Some(thread) = lock(&self.thread).take()
            && thread.join().is_err()
        {
            return Err(Error::io("the recorder's thread")(std::io::Error::other("it panicked")));
        }
        match lock(&self.shared.failure).take() {
            Some(error) => Err(error),
            None => Ok(self.report()),
        }
    }

    /// Hands something to the writer, made where there is room; whether there was.
    fn send(&self, what: impl FnOnce() -> What, bytes: u64) -> bool {
        let waiting = self.shared.waiting_bytes.fetch_add(bytes, Ordering::SeqCst);
        let lost =
            (self.shared.lost_frames.load(Ordering::SeqCst), self.shared.lost_answers.load(Ordering::SeqCst));
        // A single picture may be larger than all that may wait.
        let room = waiting == 0 || waiting + bytes <= self.limits.bytes;
        let sent = room
            && !self.failed()
            && lock(&self.queue)
                .as_ref()
                .is_some_and(|queue| queue.try_send(Item { what: what(), lost, bytes }).is_ok());
        if !sent {
            self.shared.waiting_bytes.fetch_sub(bytes, Ordering::SeqCst);
        }
        sent
    }
}

impl Observer for Recorder {
    fn frame(&self, frame: &Arc<Frame>, look: &Look) {
        let note = FrameNote {
            sequence: 0,
            index: frame.stamp.index,
            pts_ms: frame.stamp.pts_ms,
            taken: look.taken,
            width: frame.image.width,
            height: frame.image.height,
            encode_ms: look.encode_ms,
            prefill_ms: look.prefill_ms,
        };
        let bytes = match self.pictures {
            _ if !look.taken => 0,
            Pictures::Source => frame.image.data.len(),
            Pictures::Model => look.frame.picture.data.len(),
        };
        let what = || {
            let picture = match self.pictures {
                _ if !look.taken => None,
                Pictures::Source => Some(Picture::Source(Arc::clone(frame))),
                Pictures::Model => Some(Picture::Model(Arc::clone(&look.frame))),
            };
            What::Frame { picture, frame: Expected { note, captured: frame.captured } }
        };
        if !self.send(what, bytes as u64) && look.taken {
            self.shared.lost_frames.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn answer(&self, question: &Question, outcome: &Result<Answer>) {
        let outcome = outcome.as_ref().map_err(ToString::to_string);
        let note = Box::new(AnswerNote::new(question, outcome));
        if !self.send(|| What::Answer(note), 0) {
            self.shared.lost_answers.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The writing thread.
struct Writing<'a, W: Write + Seek> {
    shared: &'a Shared,
    /// None once it failed.
    writer: Option<RecordWriter<W>>,
    /// Losses that the file knows of.
    lost: (u64, u64),
    path: PathBuf,
}

impl<W: Write + Seek> Writing<'_, W> {
    fn run(mut self, waiting: &Receiver<Item>) {
        let mut flushed = Instant::now();
        loop {
            let item = waiting.recv_timeout(FLUSH.saturating_sub(flushed.elapsed()));
            let outcome = match item {
                Ok(item) => {
                    let bytes = item.bytes;
                    let outcome = self.write(item);
                    self.shared.waiting_bytes.fetch_sub(bytes, Ordering::SeqCst);
                    outcome
                }
                Err(RecvTimeoutError::Timeout) => Ok(()),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            self.note(outcome);
            if flushed.elapsed() >= FLUSH {
                let outcome = self.writer.as_mut().map_or(Ok(()), RecordWriter::flush);
                self.note(outcome);
                flushed = Instant::now();
            }
        }
        let lost =
            [&self.shared.lost_frames, &self.shared.lost_answers].map(|count| count.load(Ordering::SeqCst));
        let outcome = self.gap(lost.into());
        self.note(outcome);
        if let Some(writer) = self.writer.take() {
            let path = &self.path;
            let outcome = writer.finish().and_then(|mut to| to.flush().map_err(Error::io(path)));
            self.note(outcome);
        }
    }

    fn write(&mut self, item: Item) -> Result<()> {
        self.gap(item.lost)?;
        let Some(writer) = self.writer.as_mut() else {
            match item.what {
                What::Frame { picture, .. } => {
                    self.shared.lost_frames.fetch_add(u64::from(picture.is_some()), Ordering::SeqCst)
                }
                What::Answer(_) => self.shared.lost_answers.fetch_add(1, Ordering::SeqCst),
            };
            return Ok(());
        };
        match item.what {
            What::Frame { picture, frame } => {
                let picture = picture.as_ref().map(|picture| match picture {
                    Picture::Source(frame) => &frame.image,
                    Picture::Model(frame) => &frame.picture,
                });
                writer.frame(picture, frame)?;
            }
            What::Answer(note) => writer.answer(&note)?,
        }
        let (frames, answers) = writer.written();
        self.shared.frames.store(frames, Ordering::SeqCst);
        self.shared.answers.store(answers, Ordering::SeqCst);
        Ok(())
    }

    /// Notes losses that the file does not know of yet.
    fn gap(&mut self, lost: (u64, u64)) -> Result<()> {
        let new = (lost.0.saturating_sub(self.lost.0), lost.1.saturating_sub(self.lost.1));
        let Some(writer) = self.writer.as_mut().filter(|_| new != (0, 0)) else { return Ok(()) };
        self.lost = lost;
        writer.event(&EventNote::Gap { frames: new.0, answers: new.1 })
    }

    fn note(&mut self, outcome: Result<()>) {
        let Err(error) = outcome else { return };
        self.writer = None;
        self.shared.failed.store(true, Ordering::SeqCst);
        lock(&self.shared.failure).get_or_insert(error);
    }
}
