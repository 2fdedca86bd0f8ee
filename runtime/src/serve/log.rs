//! The server's log: one line an event, on standard error.
//!
//! Comes in: a level and a line. Goes out: under systemd the line behind its priority (`<4>`), which the journal understands and stamps
//! itself; elsewhere the seconds since the start, the level, the line. Credentials are blanked, control characters escaped. A thread of its own
//! writes: where nobody reads standard error, lines are dropped and counted, and the server goes on.

use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::source::secret::scrub;

/// Lines that may wait to be written.
const WAITING: usize = 256;
/// Longest line, in characters.
const LONGEST: usize = 2000;
/// How long the last lines may take at the end.
const FLUSH: Duration = Duration::from_millis(300);

static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    started: Instant,
    /// Whether the journal reads standard error.
    journal: bool,
    lines: Option<SyncSender<String>>,
    waiting: AtomicU64,
    dropped: AtomicU64,
}

/// Begins to count the seconds; `journal` says whether systemd's journal reads the lines.
pub fn start(journal: bool) {
    let (lines, waiting) = sync_channel(WAITING);
    let thread = std::thread::Builder::new().name("utr-log".into());
    let lines = thread.spawn(move || write_all(&waiting)).is_ok().then_some(lines);
    LOG.get_or_init(|| Log {
        started: Instant::now(),
        journal,
        lines,
        waiting: AtomicU64::new(0),
        dropped: AtomicU64::new(0),
    });
}

/// What happened as it should.
pub fn info(line: &str) {
    write(6, "info", line);
}

/// What somebody should look at.
pub fn warn(line: &str) {
    write(4, "warn", line);
}

/// Waits a moment for what was logged to be written.
pub fn flush() {
    let end = Instant::now() + FLUSH;
    while LOG.get().is_some_and(|log| log.waiting.load(Ordering::SeqCst) > 0) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn write(priority: u8, level: &str, line: &str) {
    // Before the start there is no server.
    let Some(log) = LOG.get() else { return };
    let line = printable(&scrub(line));
    let line = if log.journal {
        format!("<{priority}>{line}")
    } else {
        format!("utr {:8.2} {level} {line}", log.started.elapsed().as_secs_f64())
    };
    log.waiting.fetch_add(1, Ordering::SeqCst);
    if log.lines.as_ref().is_none_or(|lines| lines.try_send(line).is_err()) {
        log.waiting.fetch_sub(1, Ordering::SeqCst);
        log.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

fn write_all(lines: &Receiver<String>) {
    for line in lines {
        let Some(log) = LOG.get() else { continue };
        let mut out = std::io::stderr().lock();
        let dropped = log.dropped.swap(0, Ordering::SeqCst);
        // Standard error that is closed is no reason to stop.
        if dropped > 0 {
            let _ = writeln!(out, "{dropped} lines were dropped here: nobody read them");
        }
        let _ = writeln!(out, "{line}");
        log.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One line, whatever it holds, and no longer than need be.
fn printable(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    for (place, c) in line.chars().enumerate() {
        match c {
            _ if place >= LONGEST => {
                out.push('…');
                break;
            }
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line() {
        assert_eq!(printable("a\nutr 0.00 info b\u{1b}[0m"), "a\\nutr 0.00 info b\\u{1b}[0m");
        assert_eq!(printable(&"x".repeat(5000)).chars().count(), LONGEST + 1);
    }
}
