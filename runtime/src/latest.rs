//! A place for one value between two threads: the newest wins.
//!
//! Comes in: values from one side. Goes out: the newest to the other side; one that was never taken is counted when it
//! is overwritten. [`Latest::offer`] waits for the place instead, for runs that must not lose any. It never holds more
//! than one value.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The place. Share it in an `Arc`.
#[derive(Debug)]
pub struct Latest<T> {
    inside: Mutex<Inside<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Inside<T> {
    value: Option<T>,
    closed: bool,
    put: u64,
    overwritten: u64,
}

/// What [`Latest::take`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken<T> {
    /// The newest value.
    Value(T),
    /// Nothing came in time.
    Nothing,
    /// The place is empty and nothing will come any more.
    Closed,
}

/// What went through: `put` = taken + `overwritten` + `waiting`, at any moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Values put in.
    pub put: u64,
    /// Values nobody took before the next one came.
    pub overwritten: u64,
    /// Values that lie there, 0 or 1.
    pub waiting: u64,
}

impl Passage {
    /// Values taken out.
    pub fn taken(&self) -> u64 {
        self.put - self.overwritten - self.waiting
    }
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        let inside = Inside { value: None, closed: false, put: 0, overwritten: 0 };
        Self { inside: Mutex::new(inside), changed: Condvar::new() }
    }
}

impl<T> Latest<T> {
    /// Puts a value in, in the place of one that still lies there. After [`Latest::close`] it counts as overwritten.
    pub fn put(&self, value: T) {
        let mut inside = self.lock();
        inside.put += 1;
        let lost = if inside.closed { Some(value) } else { inside.value.replace(value) };
        inside.overwritten += u64::from(lost.is_some());
        drop(inside);
        self.changed.notify_all();
    }

    /// Puts a value in once the place is empty; gives it back where it is not within `wait`, or closed.
    pub fn offer(&self, value: T, wait: Duration) -> Result<(), T> {
        let mut inside = self.wait_while(wait, |inside| inside.value.is_some() && !inside.closed);
        if inside.value.is_some() || inside.closed {
            return Err(value);
        }
        inside.put += 1;
        inside.value = Some(value);
        drop(inside);
        self.changed.notify_all();
        Ok(())
    }

    /// Takes the newest value, waiting for one at most this long. What lies there is taken also after closing.
    pub fn take(&self, wait: Duration) -> Taken<T> {
        let mut inside = self.wait_while(wait, |inside| inside.value.is_none() && !inside.closed);
        let taken = match inside.value.take() {
            Some(value) => Taken::Value(value),
            None if inside.closed => Taken::Closed,
            None => Taken::Nothing,
        };
        drop(inside);
        self.changed.notify_all();
        taken
    }

    /// Nothing more will come.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// What went through so far.
    pub fn passage(&self) -> Passage {
        let inside = self.lock();
        Passage {
            put: inside.put,
            overwritten: inside.overwritten,
            waiting: u64::from(inside.value.is_some()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inside<T>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(
        &self,
        wait: Duration,
        mut condition: impl FnMut(&Inside<T>) -> bool,
    ) -> MutexGuard<'_, Inside<T>> {
        let end = Instant::now() + wait.min(Duration::from_secs(24 * 3600));
        let mut inside = self.lock();
        while condition(&inside) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            inside = self.changed.wait_timeout(inside, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        inside
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    const SOON: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn the_newest_wins_and_the_overwritten_are_counted() {
        let place = Latest::default();
        (0..5).for_each(|n| place.put(n));
        assert_eq!(place.passage(), Passage { put: 5, overwritten: 4, waiting: 1 });
        assert_eq!(place.take(SOON), Taken::Value(4));
        assert_eq!(place.take(SOON), Taken::Nothing);
        assert_eq!(place.passage().taken(), 1);
    }

    #[test]
    fn what_lies_there_is_taken_after_closing_and_then_nothing_waits() {
        let place = Latest::default();
        place.put(1);
        place.close();
        assert_eq!(place.take(LONG), Taken::Value(1));
        assert_eq!(place.take(LONG), Taken::Closed);
        place.put(2);
        assert_eq!(place.offer(3, LONG), Err(3));
        assert_eq!(place.take(LONG), Taken::Closed);
        assert_eq!(place.passage(), Passage { put: 2, overwritten: 1, waiting: 0 });
    }

    #[test]
    fn an_offer_loses_nothing() {
        let place = Arc::new(Latest::default());
        let giver = Arc::clone(&place);
        let thread = std::thread::spawn(move || {
            (0..1000).for_each(|n| giver.offer(n, LONG).unwrap());
            giver.close();
        });
        let mut seen = Vec::new();
        while let Taken::Value(n) = place.take(LONG) {
            seen.push(n);
        }
        thread.join().unwrap();
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
        assert_eq!(place.passage(), Passage { put: 1000, overwritten: 0, waiting: 0 });
    }

    #[test]
    fn an_offer_to_a_full_place_comes_back() {
        let place = Latest::default();
        place.put(1);
        assert_eq!(place.offer(2, SOON), Err(2));
        assert_eq!(place.take(SOON), Taken::Value(1));
        assert_eq!(place.passage().put, 1);
    }

    #[test]
    fn values_cross_threads_in_order_and_the_count_comes_out() {
        let place = Arc::new(Latest::default());
        let giver = Arc::clone(&place);
        let thread = std::thread::spawn(move || {
            (0..20_000u64).for_each(|n| giver.put(n));
            giver.close();
        });
        let mut seen = Vec::new();
        while let Taken::Value(n) = place.take(LONG) {
            seen.push(n);
        }
        thread.join().unwrap();
        assert!(seen.is_sorted_by(|a, b| a < b));
        assert_eq!(seen.last(), Some(&19_999));
        let passage = place.passage();
        assert_eq!((passage.put, passage.taken(), passage.waiting), (20_000, seen.len() as u64, 0));
    }

    proptest! {
        #[test]
        fn any_order_of_calls_keeps_the_count(calls in proptest::collection::vec(0u8..4, 0..60)) {
            let place = Latest::default();
            let (mut put, mut taken, mut newest) = (0u64, 0u64, None);
            for (n, call) in calls.into_iter().enumerate() {
                match call {
                    0 | 1 => { place.put(n); put += 1; newest = Some(n); }
                    2 => if place.offer(n, Duration::ZERO).is_ok() { put += 1; newest = Some(n); },
                    _ => match place.take(Duration::ZERO) {
                        Taken::Value(value) => { prop_assert_eq!(Some(value), newest.take()); taken += 1; }
                        other => prop_assert_eq!(other, Taken::Nothing),
                    },
                }
                let passage = place.passage();
                prop_assert_eq!((passage.put, passage.taken()), (put, taken));
            }
        }
    }
}
