//! What waits to be sent, one lane for each topic and one for replies.
//!
//! Comes in: messages, from any thread, never waiting. Goes out: the same in their order, to the node's thread. Each lane is bounded; where it is full
//! its oldest message gives way, is counted and told. Whoever does not take from one lane holds none of the others back: answers never take a
//! reply's place.

use std::collections::VecDeque;
use std::fmt::Display;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use futures::task::AtomicWaker;
use ros2_client::service::RmwRequestId;

use super::messages::{DiagnosticArray, Reply, Text};

/// Messages of one lane that may wait, beside those that DDS has taken already.
const WAITING: usize = 64;
/// Diagnostics that may wait: the newest say all.
const NEWEST: usize = 1;

/// Messages of one kind on their way out. Any thread puts, one takes.
pub struct Lane<T> {
    /// What they are, in the plural, for people.
    what: &'static str,
    room: usize,
    waiting: Mutex<VecDeque<T>>,
    reader: AtomicWaker,
    lost: AtomicU64,
}

impl<T> Lane<T> {
    fn new(what: &'static str, room: usize) -> Self {
        let (waiting, reader, lost) = (Mutex::default(), AtomicWaker::new(), AtomicU64::new(0));
        Self { what, room, waiting, reader, lost }
    }

    /// Takes a message; where the lane is full its oldest one is lost.
    pub fn put(&self, message: T) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let full = waiting.len() >= self.room;
        if full {
            waiting.pop_front();
        }
        waiting.push_back(message);
        drop(waiting);
        self.reader.wake();
        if full {
            self.lose(&"nobody takes them fast enough");
        }
    }

    /// The next message, as soon as there is one.
    pub async fn next(&self) -> T {
        poll_fn(|context| {
            // Registered before looking: what is put in between wakes.
            self.reader.register(context.waker());
            let next = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            next.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Counts a message that does not go out, and says so: every time at first, then ever more seldom.
    pub fn lose(&self, reason: &dyn Display) {
        let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
        if lost.is_power_of_two() {
            eprintln!("utr: of the {} to be sent over ROS 2, {lost} were lost so far: {reason}", self.what);
        }
    }

    /// Messages that were lost.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Messages that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// All lanes.
pub struct Outbox {
    /// Replies to requests.
    pub replies: Lane<(RmwRequestId, Reply)>,
    /// Answers, as JSON.
    pub answers: Lane<Text>,
    /// Those that count.
    pub alerts: Lane<Text>,
    /// How the node is.
    pub diagnostics: Lane<DiagnosticArray>,
}

/// Sends from any thread.
pub type Sender = Arc<Outbox>;

impl Default for Outbox {
    fn default() -> Self {
        Self {
            replies: Lane::new("replies", WAITING),
            answers: Lane::new("answers", WAITING),
            alerts: Lane::new("alerts", WAITING),
            diagnostics: Lane::new("diagnostics", NEWEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn all<T>(lane: &Lane<T>) -> Vec<T> {
        std::iter::from_fn(|| lane.next().now_or_never()).collect()
    }

    #[test]
    fn a_full_lane_loses_its_oldest_and_counts_them() {
        let lane = Lane::new("numbers", 4);
        (0..4).for_each(|i| lane.put(i));
        assert_eq!((lane.waiting(), lane.lost()), (4, 0));
        (4..1000).for_each(|i| lane.put(i));
        assert_eq!((lane.waiting(), lane.lost()), (4, 996));
        assert_eq!(all(&lane), [996, 997, 998, 999]);
        assert_eq!((lane.waiting(), lane.lost()), (0, 996));
    }

    #[test]
    fn many_threads_share_one_bound_and_nothing_is_lost_uncounted() {
        let lane = Lane::new("numbers", 64);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..500).for_each(|i| lane.put(i)));
            }
        });
        assert_eq!((lane.waiting(), lane.lost()), (64, 8 * 500 - 64));
    }

    #[test]
    fn who_waits_is_woken() {
        let lane = Lane::new("numbers", 4);
        std::thread::scope(|scope| {
            let taker =
                scope.spawn(|| futures::executor::block_on(async { [lane.next().await, lane.next().await] }));
            for i in 0..2 {
                std::thread::sleep(std::time::Duration::from_millis(50));
                lane.put(i);
            }
            assert_eq!(taker.join().unwrap(), [0, 1]);
        });
    }

    #[test]
    fn answers_and_diagnostics_that_nobody_takes_cost_no_reply() {
        let outbox = Outbox::default();
        let text = || Text { data: "{}".into() };
        for _ in 0..10 * WAITING {
            outbox.answers.put(text());
            outbox.alerts.put(text());
            outbox.diagnostics.put(DiagnosticArray::default());
        }
        for number in 0..WAITING {
            let id = RmwRequestId::default();
            outbox.replies.put((id, Reply { ok: true, answer: number.to_string(), json: String::new() }));
        }
        assert_eq!((outbox.answers.waiting(), outbox.answers.lost()), (WAITING, 9 * WAITING as u64));
        assert_eq!((outbox.diagnostics.waiting(), outbox.alerts.lost()), (1, 9 * WAITING as u64));
        assert_eq!(outbox.replies.lost(), 0);
        let replies: Vec<String> = all(&outbox.replies).into_iter().map(|(_, reply)| reply.answer).collect();
        assert_eq!(replies, (0..WAITING).map(|i| i.to_string()).collect::<Vec<_>>());
    }
}
