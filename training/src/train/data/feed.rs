//! Micro-batches of data on disk, prepared ahead of the trainer.
//!
//! Comes in: a corpus, an order, an encoder, and the place where a run goes on. Goes out: the examples of each micro-batch of this rank, when it is asked for. A
//! bounded number of them is read and composed in the background, in their order, so that a slow trainer stops the reading and a slow disk is covered as far as
//! the queue goes; how many threads do it changes nothing of the result. A sample that cannot be read is named, counted and replaced by the next one of the
//! corpus. Dropping the feed stops its threads, also in the middle of a clip.

use super::corpus::Corpus;
use super::order::Order;
use super::{Average, Data, media};
use crate::train::encode::Encoder;
use anyhow::{Result, anyhow, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use utr_models::network::Example;
use utr_runtime::interrupt::Interrupt;

/// How the reading is done; none of it changes the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Threads.
    pub workers: usize,
    /// Micro-batches that are ready or on the way at most.
    pub queue: usize,
}

impl Default for Reading {
    fn default() -> Self {
        Self { workers: 2, queue: 8 }
    }
}

/// Samples in a row that cannot be read before a run is given up.
const MOST_UNREADABLE: usize = 100;

/// A stage's samples.
pub struct Source {
    /// What is read.
    pub data: Data,
    /// The conversations.
    pub corpus: Arc<Corpus>,
    /// Which of them come when.
    pub order: Order,
    /// Text and pictures to numbers.
    pub encoder: Arc<Encoder>,
}

/// One micro-batch.
#[derive(Debug)]
pub struct Ready {
    /// Its examples.
    pub examples: Vec<Example>,
    /// Their names.
    pub ids: Vec<String>,
}

/// What the threads share.
struct Shared {
    source: Source,
    /// The micro-batches of this rank in each update.
    range: Range<usize>,
    /// The update that the feed began with.
    first: usize,
    queue: usize,
    interrupt: Interrupt,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The next job that nobody has begun.
    next: usize,
    /// Jobs that were handed over, from `floor` on.
    taken: BTreeSet<usize>,
    /// All jobs below were handed over.
    floor: usize,
    ready: BTreeMap<usize, Result<Ready>>,
    closed: bool,
    /// Records that could not be read.
    unreadable: BTreeSet<usize>,
}

/// The running threads.
pub struct Feed {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Feed {
    /// Starts to prepare the micro-batches `range` of each update from `step` on.
    ///
    /// # Errors
    /// A thread that cannot be started.
    pub fn start(source: Source, step: usize, range: Range<usize>, reading: Reading) -> Result<Self> {
        let shared = Arc::new(Shared {
            source,
            range,
            first: step,
            queue: reading.queue.max(1),
            interrupt: Interrupt::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let mut feed = Self { shared, threads: Vec::new() };
        for number in 0..reading.workers.max(1) {
            let shared = feed.shared.clone();
            let thread = std::thread::Builder::new().name(format!("read-{number}"));
            feed.threads.push(thread.spawn(move || shared.work())?);
        }
        Ok(feed)
    }

    /// The micro-batch `index` of update `step`, each once; waits for it.
    ///
    /// # Errors
    /// Too many samples in a row that cannot be read.
    pub fn take(&self, step: usize, index: usize) -> Result<Ready> {
        let shared = &self.shared;
        let job = shared.job(step, index)?;
        let mut state = shared.lock();
        loop {
            if let Some(ready) = state.ready.remove(&job) {
                state.taken.insert(job);
                loop {
                    let floor = state.floor;
                    if !state.taken.remove(&floor) {
                        break;
                    }
                    state.floor += 1;
                }
                shared.changed.notify_all();
                return ready;
            }
            if state.closed {
                bail!("the reading of samples was stopped");
            }
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The records of some micro-batches as the order has them: one that could not be read stands for the one that took its place.
    pub fn ids(&self, step: usize, range: Range<usize>) -> String {
        let Source { corpus, order, .. } = &self.shared.source;
        let records = range.flat_map(|index| order.micro_batch(step, index));
        records.map(|record| corpus.records[record].id.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// How many records of the corpus could not be read so far, on this rank.
    pub fn unreadable(&self) -> usize {
        self.shared.lock().unreadable.len()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.interrupt.request();
        self.shared.changed.notify_all();
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn job(&self, step: usize, index: usize) -> Result<usize> {
        let place = step.checked_sub(self.first).filter(|_| self.range.contains(&index));
        let place =
            place.ok_or_else(|| anyhow!("micro-batch {index} of update {step} is not of this feed"))?;
        Ok(place * self.range.len() + index - self.range.start)
    }

    /// One thread: takes the next job while the queue has room.
    fn work(&self) {
        loop {
            let job = {
                let mut state = self.lock();
                while !state.closed && state.next >= state.floor + self.queue {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                if state.closed {
                    return;
                }
                state.next += 1;
                state.next - 1
            };
            let each = self.range.len().max(1);
            let (step, index) = (self.first + job / each, self.range.start + job % each);
            let work = std::panic::AssertUnwindSafe(|| self.prepare(step, index));
            let done = std::panic::catch_unwind(work).unwrap_or_else(|_| {
                Err(anyhow!("a reader panicked at micro-batch {index} of update {step}"))
            });
            self.lock().ready.insert(job, done);
            self.changed.notify_all();
        }
    }

    fn prepare(&self, step: usize, index: usize) -> Result<Ready> {
        let (mut examples, mut ids) = (Vec::new(), Vec::new());
        for record in self.source.order.micro_batch(step, index) {
            let (example, id) = self.readable(record)?;
            examples.push(example);
            ids.push(id);
        }
        if self.source.data.average == Average::MicroBatch {
            // Only what is predicted counts: never the first row.
            let weights = |e: &Example| e.trunk.weights.iter().skip(1).map(|w| f64::from(*w)).sum::<f64>();
            let total: f64 = examples.iter().map(weights).sum();
            let all = examples.iter_mut().flat_map(|e| &mut e.trunk.weights);
            all.for_each(|weight| *weight = (f64::from(*weight) / total) as f32);
        }
        Ok(Ready { examples, ids })
    }

    /// The example of a record, or of the next one that can be read.
    fn readable(&self, first: usize) -> Result<(Example, String)> {
        let Source { data, corpus, encoder, .. } = &self.source;
        let count = corpus.records.len();
        let mut last = anyhow!("there is none");
        for place in 0..count.min(MOST_UNREADABLE) {
            let number = (first + place) % count;
            let record = &corpus.records[number];
            let read = media::read(record, data, &encoder.preprocessor, &self.interrupt);
            match read.and_then(|shown| encoder.conversation(record, &shown, data)) {
                Ok(example) => return Ok((example, record.id.clone())),
                Err(_) if self.interrupt.requested() => bail!("the reading of samples was stopped"),
                Err(error) => {
                    let mut state = self.lock();
                    if state.unreadable.insert(number) {
                        let so_far = state.unreadable.len();
                        drop(state);
                        eprintln!("sample {} is left out ({so_far} so far): {error:#}", record.id);
                    }
                    last = error.context(format!("sample {}", record.id));
                }
            }
        }
        Err(last.context(format!(
            "{} samples in a row cannot be read; look at image_root and video_root of the recipe, and at the last of them",
            count.min(MOST_UNREADABLE)
        )))
    }
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
