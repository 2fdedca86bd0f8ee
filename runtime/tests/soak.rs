//! A server that runs for long while everything around it fails: the feed is killed, changes its size, talks rubbish and falls silent; clients leave, read
//! slowly, send garbage, ask too much.
//!
//! In: how many frames enter the window, `UTR_SOAK_FRAMES` (default: a short run); the feed sends a thousand a second, what the window cannot
//! take is overwritten and counted. Out: a failure where the server died, panicked, answered no more, grew, or lost a frame
//! uncounted; else the figures, as one JSON line last. `make soak` runs it over a million frames.
#![cfg(all(feature = "gst", feature = "serve"))]

mod server;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use server::{Server, bound, question, wait_for};

/// Frames that enter the window in the short run.
const SHORT: u64 = 1_500;
/// Times the feed is broken at least.
const FAULTS: u64 = 6;
/// Growth of resident memory after warm-up that counts as none.
const FLAT: f64 = 0.02;
/// Beneath this many frames after warm-up, memory has not settled enough to be judged at [`FLAT`].
const SETTLED: u64 = 100_000;

/// A process that sends a small moving picture a thousand times a second, as Matroska over TCP.
fn feed(port: u16, side: u32, pattern: &str) -> Child {
    let picture = format!("videotestsrc is-live=true pattern={pattern}");
    let caps = format!("video/x-raw,width={side},height={side},framerate=1000/1");
    let sink = format!("tcpserversink host=127.0.0.1 port={port} sync=false recover-policy=keyframe");
    let pipeline = format!("{picture} ! {caps} ! matroskamux streamable=true ! {sink}");
    bound("gst-launch-1.0")
        .arg("-q")
        .args(pipeline.split(' '))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Sends noise, or nothing at all, to whoever connects, for a moment.
fn rubbish(port: u16, silent: bool, stop: &AtomicBool) {
    let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) else { return };
    listener.set_nonblocking(true).unwrap();
    let end = Instant::now() + Duration::from_millis(700);
    let mut held: Vec<TcpStream> = Vec::new();
    let mut state = 7u64;
    while Instant::now() < end && !stop.load(Ordering::Relaxed) {
        if let Ok((stream, _)) = listener.accept() {
            held.push(stream);
        }
        if !silent {
            let noise: Vec<u8> = (0..4096)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 33) as u8
                })
                .collect();
            held.retain_mut(|stream| stream.write_all(&noise).is_ok());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What breaks the feed, over and over: killed, another size, noise, silence.
fn break_feed(port: u16, calm: Duration, stop: &AtomicBool, faults: &AtomicU64) {
    for round in 0.. {
        let side = [64, 48, 80][round % 3];
        let mut process = feed(port, side, ["ball", "smpte", "snow"][round % 3]);
        let end = Instant::now() + calm;
        while Instant::now() < end && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = process.kill();
        let _ = process.wait();
        if stop.load(Ordering::Relaxed) {
            return;
        }
        faults.fetch_add(1, Ordering::Relaxed);
        if round % 2 == 1 {
            rubbish(port, round % 4 == 1, stop);
        }
    }
}

/// What clients do.
fn clients<'s>(
    server: &'s Server,
    stop: &'s AtomicBool,
    done: &'s [AtomicU64; 5],
) -> Vec<Box<dyn Fn() + Send + 's>> {
    let until =
        move |body: Box<dyn Fn() + Send + 's>, place: usize, pause: u64| -> Box<dyn Fn() + Send + 's> {
            Box::new(move || {
                while !stop.load(Ordering::Relaxed) {
                    body();
                    done[place].fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(pause));
                }
            })
        };
    let path = "/v1/chat/completions";
    let ask = move || {
        let reply = server.post(&question("What moves?", &json!({"max_tokens": 8, "evidence": true})));
        assert!([200, 429, 503].contains(&reply.status), "{} {}", reply.status, reply.text());
    };
    let leave = move || {
        let body = question("Describe the clip.", &json!({"stream": true, "max_tokens": 200})).to_string();
        let mut stream = server.open("POST", path, &[], body.as_bytes());
        let _ = stream.read(&mut [0; 64]);
    };
    let slow = move || {
        let body = question("Describe the clip.", &json!({"stream": true, "max_tokens": 40})).to_string();
        let mut stream = server.open("POST", path, &[], body.as_bytes());
        let mut byte = [0; 16];
        for _ in 0..20 {
            if !matches!(stream.read(&mut byte), Ok(n) if n > 0) {
                break;
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    };
    let garble = move || {
        let mut stream = server.open("POST", path, &[], b"{\"messages\": [{]}\x00\xff");
        let _ = stream.read(&mut [0; 256]);
        if let Ok(mut raw) = TcpStream::connect(&server.address) {
            let _ = raw.write_all(b"\x16\x03\x01\x02\x00garbage\r\n\r\n");
            let _ = raw.read(&mut [0; 64]);
        }
    };
    let scrape = move || {
        assert_eq!(server.get("/metrics").status, 200);
        let _ = server.get("/api/frame.jpg");
        let _ = server.get("/api/strip");
    };
    vec![
        until(Box::new(ask), 0, 40),
        until(Box::new(leave), 1, 150),
        until(Box::new(slow), 2, 200),
        until(Box::new(garble), 3, 250),
        until(Box::new(scrape), 4, 500),
    ]
}

fn resident_kb(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the server lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Every captured frame has an end: passed over, overwritten, waiting, or seen; and those seen were kept, dropped or failed.
fn accounted(status: &Value) -> bool {
    let source = &status["source"];
    let of =
        |value: &Value, name: &str| value[name].as_u64().unwrap_or_else(|| panic!("no {name} in {status}"));
    let ends: u64 =
        ["not_due", "delivered", "dropped_handover", "waiting"].iter().map(|name| of(source, name)).sum();
    let window = &status["window"];
    let seen = of(window, "seen") + of(window, "dropped_pinned") + of(window, "failed");
    // A frame on its way is counted at one place and not yet at the next.
    of(source, "captured").abs_diff(ends) <= 1 && of(source, "delivered").abs_diff(seen) <= 2
}

#[test]
fn a_server_outlives_everything_around_it() {
    let asked =
        std::env::var("UTR_SOAK_FRAMES").ok().map(|text| text.parse().expect("UTR_SOAK_FRAMES is a number"));
    let frames: u64 = asked.unwrap_or(SHORT);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let source = format!("gst://tcpclientsrc host=127.0.0.1 port={port} ! matroskademux");
    let mut server = Server::start(
        &source,
        &["--fps", "1000", "--window-mode", "rolling", "--capture-timeout", "2", "--queue", "2"],
    );
    let pid = server.child.id();
    let (stop, faults) = (AtomicBool::new(false), AtomicU64::new(0));
    let done: [AtomicU64; 5] = Default::default();
    let calm = Duration::from_millis(if frames > SHORT { 12_000 } else { 1500 });
    let mut resident = Vec::new();
    let seen = |status: &Value| status["window"]["seen"].as_u64().unwrap_or(0);
    std::thread::scope(|scope| {
        scope.spawn(|| break_feed(port, calm, &stop, &faults));
        for client in clients(&server, &stop, &done) {
            scope.spawn(client);
        }
        let began = Instant::now();
        let (mut last, mut moved) = (0, Instant::now());
        loop {
            let status = server.status();
            let now = seen(&status);
            if now > last {
                (last, moved) = (now, Instant::now());
            }
            assert!(moved.elapsed() < Duration::from_secs(60), "no frame for a minute: {status}");
            resident.push((now, resident_kb(pid)));
            if now >= frames && faults.load(Ordering::Relaxed) >= FAULTS {
                break;
            }
            if frames > SHORT && resident.len() % 300 == 0 {
                eprintln!(
                    "{now} frames in the window after {:.0} s, {:.1} MiB",
                    began.elapsed().as_secs_f64(),
                    resident_kb(pid) / 1024.0
                );
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let status = wait_for("every frame to have its end", || Some(server.status()).filter(accounted));
    let said = server.post(&question("What moves?", &json!({"max_tokens": 8})));
    assert_eq!(said.status, 200, "it answers at the end: {}", said.text());
    let log = Arc::clone(&server.log);
    let (code, _) = server.terminate();
    let log = log.lock().unwrap().clone();
    assert!(!log.contains("panicked"), "{log}");
    assert!(code.success(), "{code}: {log}");

    // The first fifth is warm-up; what is left is compared, its first tenth with its last.
    let settled: Vec<f64> = resident.iter().filter(|(at, _)| *at > frames / 5).map(|(_, kb)| *kb).collect();
    let tenth = (settled.len() / 10).max(1);
    let (early, late) = (median(&settled[..tenth]), median(&settled[settled.len() - tenth..]));
    let growth = late / early - 1.0;
    println!(
        "{}",
        json!({
            "frames": seen(&status), "source": status["source"], "window": status["window"],
            "feeds_killed": faults.load(Ordering::Relaxed),
            "asked": done[0].load(Ordering::Relaxed), "left": done[1].load(Ordering::Relaxed),
            "slow": done[2].load(Ordering::Relaxed), "garbage": done[3].load(Ordering::Relaxed),
            "scraped": done[4].load(Ordering::Relaxed),
            "resident_mib": [early / 1024.0, late / 1024.0], "growth": growth,
        })
    );
    if frames >= SETTLED {
        assert!(growth < FLAT, "resident memory grew by {:.1} %", growth * 100.0);
    }
}
