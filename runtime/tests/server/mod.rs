//! A running `utr serve` and a plain HTTP client, for the tests that ask it.

#![allow(dead_code)]

#[path = "../program/mod.rs"]
mod program;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

pub use program::utr;
use serde_json::{Value, json};

/// A clip that ends at once: the window then stands still, and answers repeat.
pub const STILL: &str = "pattern://squares?frames=64&width=64&height=64";
/// A source that runs for longer than any test.
pub const MOVING: &str = "pattern://squares?frames=1000000&width=64&height=64";

/// Whether the program is another than the one that was built with these tests: an emulated one is some 20 times slower.
pub fn emulated() -> bool {
    std::env::var_os("UTR_PROGRAM").is_some()
}

/// Longest wait for anything, on a busy machine.
fn patience() -> Duration {
    Duration::from_secs(if emulated() { 300 } else { 60 })
}

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Waits until `done` gives a value.
pub fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience();
    while Instant::now() < end {
        if let Some(value) = done() {
            return value;
        }
        // What asks too often slows what it waits for.
        std::thread::sleep(Duration::from_millis(if emulated() { 200 } else { 20 }));
    }
    panic!("waited {:?} for {what}", patience());
}

/// A server process; ended when dropped.
pub struct Server {
    pub child: Child,
    pub address: String,
    pub log: Arc<Mutex<String>>,
}

/// A program that ends with this one, however this one ends.
pub fn bound(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]);
    command
}

impl Server {
    /// Starts on a free port and waits until it listens.
    pub fn start(source: &str, arguments: &[&str]) -> Self {
        Self::start_in(source, arguments, &[])
    }

    /// Starts with variables set.
    pub fn start_in(source: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = bound(&utr())
            .current_dir(repository())
            .args([
                "serve",
                "--source",
                source,
                "--bundle",
                "models/bundles/utr-nano",
                "--listen",
                "127.0.0.1:0",
            ])
            .args(arguments)
            .env_remove("JOURNAL_STREAM")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()).lines(), Arc::clone(&log));
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("listening on http://") {
                    let _ = tell.send(rest.split(',').next().unwrap().to_string());
                }
                kept.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let address = told.recv_timeout(patience()).unwrap_or_else(|_| panic!("{}", log.lock().unwrap()));
        Self { child, address, log }
    }

    /// Starts, and waits until the window holds `frames`.
    pub fn with_frames(source: &str, frames: u64, arguments: &[&str]) -> Self {
        let server = Self::start(source, arguments);
        server.wait_frames(frames, &[]);
        server
    }

    pub fn wait_frames(&self, frames: u64, headers: &[(&str, &str)]) {
        wait_for("frames", || {
            let status = self.send("GET", "/api/status", headers, b"").json();
            (status["window"]["frames"].as_u64()? >= frames).then_some(())
        });
    }

    /// With the window of [`STILL`], complete.
    pub fn still(arguments: &[&str]) -> Self {
        let speeds = if emulated() { ["4", "1"] } else { ["30", "4"] };
        let server = speeds.iter().find_map(|fps| {
            let server = Self::start(&format!("{STILL}&fps={fps}"), &[&["--fps", fps], arguments].concat());
            wait_for("the clip's end", || server.status()["source"]["ended"].as_bool()?.then_some(()));
            // More slowly where frames were overtaken: the machine is busy.
            (server.status()["window"]["oldest"]["index"] == 32).then_some(server)
        });
        server.expect("the last 32 of 64 frames, at the slowest speed")
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn status(&self) -> Value {
        self.send("GET", "/api/status", &[], b"").json()
    }

    pub fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], b"")
    }

    pub fn post(&self, body: &Value) -> Reply {
        self.send("POST", "/v1/chat/completions", &[], body.to_string().as_bytes())
    }

    /// One request on a connection of its own.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut stream = self.open(method, path, headers, body);
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        Reply::parse(&bytes)
    }

    /// Sends a request and leaves the response to be read.
    pub fn open(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(patience())).unwrap();
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| *name == "host") {
            head += &format!("host: {}\r\n", self.address);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all((head + "\r\n").as_bytes()).unwrap();
        // A server that refuses a large body need not read it.
        let _ = stream.write_all(body);
        stream
    }

    /// Asks the process to stop, as systemd does, and waits.
    pub fn terminate(&mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        let status = wait_for("the server to end", || self.child.try_wait().unwrap());
        (status, began.elapsed())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A response, whole.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    fn parse(bytes: &[u8]) -> Self {
        let split = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8_lossy(&bytes[..split]).to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut body = bytes[split + 4..].to_vec();
        if head.contains("transfer-encoding: chunked") {
            body = unchunk(&body);
        }
        Self { status, head, body }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {} {}", self.head, self.text()))
    }

    /// The answer's text.
    pub fn answer(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()["choices"][0]["message"]["content"].as_str().unwrap().to_string()
    }

    /// The error's message and code.
    pub fn error(&self) -> (String, Value) {
        let error = &self.json()["error"];
        assert!(error["type"].is_string() && error.get("param").is_some(), "{error}");
        (error["message"].as_str().unwrap().to_string(), error["code"].clone())
    }
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        out.extend(&bytes[end + 2..end + 2 + size]);
        bytes = &bytes[end + 2 + size + 2..];
    }
    out
}

/// A request with one question, and more fields.
pub fn question(text: &str, more: &Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": text}], "temperature": 0});
    for (field, value) in more.as_object().unwrap() {
        body[field] = value.clone();
    }
    body
}

/// A question whose answer takes seconds: as many tokens as there is room for, drawn almost evenly from all.
pub fn long_question(more: &Value) -> Value {
    let mut body =
        question("why", &json!({"temperature": 2, "seed": 1, "max_tokens": 4096, "ignore_eos": true}));
    for (field, value) in more.as_object().unwrap() {
        body[field] = value.clone();
    }
    body
}
