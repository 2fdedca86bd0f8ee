//! The server's log: one line an event, on standard error.
//!
//! Comes in: a level and a line. Goes out: under systemd the line behind its priority (`<4>`), which the journal understands and stamps
//! itself; elsewhere the seconds since the start, the level, the line. Credentials in addresses are blanked.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::OnceLock;
use std::time::Instant;

static START: OnceLock<Instant> = OnceLock::new();

/// Begins to count the seconds.
pub fn start() {
    START.get_or_init(Instant::now);
}

/// What happened as it should.
pub fn info(line: &str) {
    write(6, "info", line);
}

/// What somebody should look at.
pub fn warn(line: &str) {
    write(4, "warn", line);
}

fn write(priority: u8, level: &str, line: &str) {
    let since = START.get_or_init(Instant::now).elapsed().as_secs_f64();
    let line = without_credentials(line);
    let mut out = std::io::stderr().lock();
    // Standard error that is closed is no reason to stop.
    let _ = if std::env::var_os("JOURNAL_STREAM").is_some() {
        // Every line of the journal carries its own priority.
        line.lines().try_for_each(|line| writeln!(out, "<{priority}>{line}"))
    } else {
        writeln!(out, "utr {since:8.2} {level} {line}")
    };
}

/// Blanks `user:password@` in addresses, and the values of properties named for passwords and tokens in pipelines.
pub fn without_credentials(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        let end = after.find(|c: char| c == '/' || c.is_whitespace() || c == '"').unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                let _ = write!(out, "…@{host}");
            }
            None => out.push_str(authority),
        }
        rest = tail;
    }
    out.push_str(rest);
    for name in ["user-pw=", "user-id=", "password=", "passwd=", "token="] {
        let mut from = 0;
        while let Some(at) = out.get(from..).and_then(|tail| tail.find(name)) {
            let start = from + at + name.len();
            let tail = out.get(start..).unwrap_or_default();
            let end = start + tail.find(|c: char| c.is_whitespace() || c == '&').unwrap_or(tail.len());
            out.replace_range(start..end, "…");
            from = start;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_blanked_and_the_rest_stays() {
        for (text, shown) in [
            ("rtsp://me:secret@cam/x", "rtsp://…@cam/x"),
            ("a rtsp://m:s@c, b rtsp://u@d:1/y?z=1", "a rtsp://…@c, b rtsp://…@d:1/y?z=1"),
            (
                "gst://rtspsrc location=rtsp://a:b@c/d user-pw=top ! x",
                "gst://rtspsrc location=rtsp://…@c/d user-pw=… ! x",
            ),
            ("http://h/q?token=abc&x=1", "http://h/q?token=…&x=1"),
            ("test://ball?frames=3", "test://ball?frames=3"),
            ("plain", "plain"),
        ] {
            assert_eq!(without_credentials(text), shown);
        }
        assert!(!without_credentials("rtsp://a:p@ss@c/d").contains("p@ss"));
    }
}
