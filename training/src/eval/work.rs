//! Items shared out among threads.
//!
//! Comes in: how many items there are, how a thread begins, what it does with one item. Goes out: the results in the items' order. The first
//! failure ends all threads at their next item; so does a stop. What the work is, and what is kept of work that was stopped, is the caller's business.

use anyhow::{Result, anyhow, ensure};
use indicatif::ProgressBar;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Longest silence without a terminal, as far as items end.
const QUIET: Duration = Duration::from_secs(60);

/// Lets up to `workers` threads do the items `0..count`: each makes its own state with `start`, then calls `each` with it and an item's number.
///
/// # Errors
/// The first that `start` or `each` reported; "stopped" where `stop` was set.
pub fn spread<S, T: Send>(
    count: usize,
    workers: usize,
    stop: &AtomicBool,
    start: impl Fn() -> Result<S> + Sync,
    each: impl Fn(&mut S, usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let panicked = || anyhow!("a scoring thread panicked");
    let bar = ProgressBar::new(count as u64);
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done = Mutex::new(Vec::with_capacity(count));
    let work = || -> Result<()> {
        let (mut state, mut last) = (start()?, Instant::now());
        while !failed.load(Ordering::Relaxed) {
            ensure!(!stop.load(Ordering::Relaxed), "stopped; the same command goes on or begins again");
            let place = next.fetch_add(1, Ordering::Relaxed);
            if place >= count {
                break;
            }
            let result = each(&mut state, place)?;
            let mut done = done.lock().map_err(|_| panicked())?;
            done.push((place, result));
            bar.inc(1);
            // Where nothing is drawn: a line now and then.
            if bar.is_hidden() && last.elapsed() > QUIET {
                eprintln!("{} of {count} done", done.len());
                last = Instant::now();
            }
        }
        Ok(())
    };
    let guarded = || work().inspect_err(|_| failed.store(true, Ordering::Relaxed));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers.clamp(1, count.max(1))).map(|_| scope.spawn(guarded)).collect();
        let ends: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        ends.into_iter().try_for_each(|end| end.map_err(|_| panicked())?)
    })?;
    bar.finish_and_clear();
    let mut done = done.into_inner().map_err(|_| panicked())?;
    done.sort_by_key(|(place, _)| *place);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_order_of_the_items() {
        let stop = AtomicBool::new(false);
        let squares = spread(50, 3, &stop, || Ok(2), |factor, n| Ok(n * *factor)).unwrap();
        assert_eq!(squares, (0..50).map(|n| 2 * n).collect::<Vec<_>>());
        assert!(spread(0, 3, &stop, || Ok(()), |_, n| Ok(n)).unwrap().is_empty());
    }

    #[test]
    fn a_failure_or_a_stop_ends_the_others_soon() {
        let stop = AtomicBool::new(false);
        let seen = AtomicUsize::new(0);
        let each = |_: &mut (), n: usize| {
            seen.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(std::time::Duration::from_millis(1));
            ensure!(n != 3, "item 3");
            Ok(())
        };
        assert_eq!(spread(10_000, 2, &stop, || Ok(()), each).unwrap_err().to_string(), "item 3");
        assert!(seen.load(Ordering::Relaxed) < 1000);
        stop.store(true, Ordering::Relaxed);
        assert!(spread(9, 2, &stop, || Ok(()), |_, n| Ok(n)).unwrap_err().to_string().contains("stopped"));
    }
}
