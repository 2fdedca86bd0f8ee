//! Questions on their way to the answering thread.
//!
//! Comes in: jobs from any thread. Goes out: the oldest one that somebody still waits for. Beside the one being answered a bounded number may
//! wait; those whose asker has gone make room at once. Nothing is answered here.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{About, Job, Refused};

/// The queue, and whether an answer is being given.
pub(super) struct Desk {
    inside: Mutex<Inside>,
    changed: Condvar,
    limit: usize,
}

#[derive(Default)]
struct Inside {
    waiting: VecDeque<(Job, About)>,
    answering: bool,
    closed: bool,
}

impl Desk {
    /// A queue in which `limit` jobs may wait beside the one being answered.
    pub fn new(limit: usize) -> Self {
        Self { inside: Mutex::default(), changed: Condvar::new(), limit }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a job into the queue.
    ///
    /// # Errors
    /// [`Refused`], with the job.
    pub fn submit(&self, job: Job, about: About) -> Result<(), Box<(Refused, Job)>> {
        let mut inside = self.inside();
        if inside.closed {
            return Err(Box::new((Refused::Ended, job)));
        }
        if inside.waiting.len() + usize::from(inside.answering) > self.limit {
            return Err(Box::new((Refused::Busy, job)));
        }
        inside.waiting.push_back((job, about));
        drop(inside);
        self.changed.notify_one();
        Ok(())
    }

    /// Takes out the jobs that nobody waits for any more.
    pub fn given_up(&self) -> Vec<Job> {
        let mut inside = self.inside();
        let all = std::mem::take(&mut inside.waiting);
        let (gone, waiting): (Vec<_>, Vec<_>) = all.into_iter().partition(|(job, _)| job.cancel.requested());
        inside.waiting = waiting.into();
        gone.into_iter().map(|(job, _)| job).collect()
    }

    /// The next job, waiting for one at most this long; it counts as being answered until [`Desk::answered`].
    pub fn take(&self, wait: Duration) -> Option<(Job, About)> {
        let mut inside = self.inside();
        if inside.waiting.is_empty() {
            inside = self.changed.wait_timeout(inside, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        let job = inside.waiting.pop_front()?;
        inside.answering = true;
        Some(job)
    }

    /// The job that was taken has its outcome.
    pub fn answered(&self) {
        self.inside().answering = false;
    }

    /// Takes no more; those that wait go out.
    pub fn close(&self) -> Vec<Job> {
        let mut inside = self.inside();
        inside.closed = true;
        std::mem::take(&mut inside.waiting).into_iter().map(|(job, _)| job).collect()
    }

    /// Questions waiting or being answered.
    pub fn pending(&self) -> u64 {
        let inside = self.inside();
        inside.waiting.len() as u64 + u64::from(inside.answering)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Question;
    use crate::interrupt::Interrupt;

    fn job(text: &str) -> (Job, Interrupt) {
        let cancel = Interrupt::default();
        let (question, flag) = (Question::new(text), cancel.clone());
        (Job { question, cancel: flag, on_text: Box::new(|_| Ok(())), done: Box::new(|_, _| {}) }, cancel)
    }

    fn submit(desk: &Desk, text: &str) -> Result<Interrupt, Refused> {
        let (job, cancel) = job(text);
        desk.submit(job, About::Window).map(|()| cancel).map_err(|refused| refused.0)
    }

    fn taken(desk: &Desk) -> Option<String> {
        desk.take(Duration::ZERO).map(|(job, _)| job.question.messages[0].text.clone())
    }

    #[test]
    fn an_idle_desk_takes_one_whatever_may_wait() {
        for limit in [0, 2] {
            let desk = Desk::new(limit);
            (0..=limit).for_each(|n| drop(submit(&desk, &n.to_string()).unwrap()));
            assert_eq!(submit(&desk, "x").unwrap_err(), Refused::Busy);
            assert_eq!(taken(&desk).as_deref(), Some("0"));
            assert_eq!(submit(&desk, "x").unwrap_err(), Refused::Busy, "one is being answered");
            desk.answered();
            assert!(submit(&desk, "y").is_ok());
        }
    }

    #[test]
    fn who_left_makes_room_and_the_others_keep_their_order() {
        let desk = Desk::new(2);
        let flags: Vec<_> = ["a", "b", "c"].iter().map(|text| submit(&desk, text).unwrap()).collect();
        flags[1].request();
        let gone = desk.given_up();
        assert_eq!((gone.len(), gone[0].question.messages[0].text.as_str(), desk.pending()), (1, "b", 2));
        assert!(submit(&desk, "d").is_ok());
        assert_eq!(
            [taken(&desk), taken(&desk), taken(&desk), taken(&desk)].map(Option::unwrap_or_default),
            ["a", "c", "d", ""]
        );
        desk.close();
        assert_eq!(submit(&desk, "e").unwrap_err(), Refused::Ended);
    }
}
