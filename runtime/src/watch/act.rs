//! What is done about an answer that counts: a command, or a webhook.
//!
//! Comes in: JSON lines. Goes out: a process with the line on its standard input, or a POST. One after the other, on a thread of its own, so that a slow
//! command holds no question up; what does not fit into the queue is left out and told. A failure is told on standard error and changes nothing. At the
//! end what waits is still done, within the time of one action.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Lines that may wait.
const QUEUE: usize = 16;
/// Longest time a command or a POST may take.
const LONGEST: Duration = Duration::from_secs(30);
/// How often a command is looked at.
const TICK: Duration = Duration::from_millis(20);

/// What to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// A line for `sh -c`.
    Exec(String),
    /// An `http://` address.
    Webhook(String),
}

/// The thread that acts. Dropping it lets what waits be done first, for as long as one action may take.
pub struct Actor {
    lines: Option<SyncSender<String>>,
    thread: Option<JoinHandle<()>>,
}

impl Actor {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`Error::Io`] where the system gives no thread.
    pub fn start(command: Command) -> Result<Self> {
        let (lines, waiting) = sync_channel(QUEUE);
        let body = move || act(&command, &waiting);
        let thread = std::thread::Builder::new()
            .name("utr-act".into())
            .spawn(body)
            .map_err(Error::io("a thread for actions"))?;
        Ok(Self { lines: Some(lines), thread: Some(thread) })
    }

    /// Does what is to be done about a line, later.
    pub fn act(&self, line: String) {
        let full = self.lines.as_ref().is_none_or(|lines| lines.try_send(line).is_err());
        if full {
            eprintln!("utr: {QUEUE} actions are waiting already; this one is left out");
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.lines = None;
        let Some(thread) = self.thread.take() else { return };
        let end = Instant::now() + LONGEST;
        while !thread.is_finished() && Instant::now() < end {
            std::thread::sleep(TICK);
        }
        if !thread.is_finished() {
            eprintln!("utr: actions still wait after {} s and are left out", LONGEST.as_secs());
        }
    }
}

fn act(command: &Command, waiting: &Receiver<String>) {
    for line in waiting {
        let done = match command {
            Command::Exec(command) => execute(command, &line, LONGEST),
            Command::Webhook(url) => post(url, &line),
        };
        if let Err(reason) = done {
            eprintln!("utr: the action failed: {reason}");
        }
    }
}

/// Runs a command with the line on its standard input; it is killed, with all that it started, after `longest`.
fn execute(command: &str, line: &str, longest: Duration) -> Result<(), String> {
    let mut child = std::process::Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        // Standard output is ours: one JSON line per answer.
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("{command}: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        let line = format!("{line}\n");
        // A command that does not read its input is no failure, and holds nobody up: the thread ends with it.
        std::thread::spawn(move || drop(stdin.write_all(line.as_bytes())));
    }
    let end = Instant::now() + longest;
    loop {
        match child.try_wait().map_err(|error| format!("{command}: {error}"))? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("{command}: {status}")),
            None if Instant::now() >= end => {
                kill_group(&mut child);
                return Err(format!(
                    "{command}: it took longer than {} s and was killed",
                    longest.as_secs_f64()
                ));
            }
            None => std::thread::sleep(TICK),
        }
    }
}

/// Ends a process that leads a group, and the group.
fn kill_group(child: &mut Child) {
    let group = format!("kill -KILL -{}", child.id());
    let _ = std::process::Command::new("sh").args(["-c", &group]).stderr(Stdio::null()).status();
    let _ = child.kill();
    let _ = child.wait();
}

/// Posts the line; an address may hold a secret, so that no message shows it.
fn post(url: &str, line: &str) -> Result<(), String> {
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(LONGEST)).build().into();
    let sent = agent.post(url).header("content-type", "application/json").send(line);
    sent.map(drop).map_err(|error| format!("the webhook: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read};

    #[test]
    fn a_command_gets_the_line_and_a_failing_or_endless_one_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("got");
        let actor = Actor::start(Command::Exec(format!("cat >> '{}'", path.display()))).unwrap();
        actor.act(r#"{"text":"yes"}"#.into());
        actor.act(r#"{"text":"no"}"#.into());
        drop(actor);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"text\":\"yes\"}\n{\"text\":\"no\"}\n");
        assert!(execute("exit 3", "", LONGEST).unwrap_err().contains('3'));
        assert!(execute("sleep 60", "", Duration::from_millis(50)).unwrap_err().contains("killed"));
        assert!(execute("true", "x", LONGEST).is_ok());
        // What it started goes with it.
        let late = folder.path().join("late");
        let command = format!("(sleep 1; touch '{}') & sleep 60", late.display());
        assert!(execute(&command, "", Duration::from_millis(100)).is_err());
        std::thread::sleep(Duration::from_millis(1500));
        assert!(!late.exists());
    }

    #[test]
    fn a_webhook_gets_the_line_and_no_message_shows_its_address() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook?key=secret", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                head += &line;
                if line == "\r\n" {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            (head, String::from_utf8(body).unwrap())
        });
        post(&url, r#"{"text":"yes"}"#).unwrap();
        let (head, body) = server.join().unwrap();
        assert!(
            head.starts_with("POST /hook?key=secret") && head.to_lowercase().contains("application/json"),
            "{head}"
        );
        assert_eq!(body, r#"{"text":"yes"}"#);
        let message = post(&url, "x").unwrap_err();
        assert!(!message.contains("secret"), "{message}");
    }
}
