//! `utr serve` under those who mean it harm, or do not care: lists that lead elsewhere, pictures that are too large, askers who leave, outputs that
//! nobody reads. Each test was once a break.
#![cfg(all(feature = "gst", feature = "serve"))]

mod server;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use server::{MOVING, Server, bound, long_question, question, repository, utr, wait_for};

/// A question about a file.
fn about(url: &str) -> Value {
    let content =
        json!([{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": "what moves?"}]);
    json!({"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 4})
}

#[test]
fn a_list_in_the_folder_leads_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let hits = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&hits);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ =
                stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    let hls = format!(
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10,\nhttp://{address}/a.ts\n\
         #EXT-X-ENDLIST\n"
    );
    let dash = format!(
        "<?xml version=\"1.0\"?><MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" type=\"static\" mediaPresentationDuration=\"PT10S\" \
         minBufferTime=\"PT1S\" profiles=\"urn:mpeg:dash:profile:isoff-on-demand:2011\"><BaseURL>http://{address}/</BaseURL><Period>\
         <AdaptationSet mimeType=\"video/mp4\"><Representation id=\"1\" bandwidth=\"1000\" codecs=\"avc1.4d401e\" width=\"64\" \
         height=\"64\"><BaseURL>a.mp4</BaseURL><SegmentBase indexRange=\"0-100\"/></Representation></AdaptationSet></Period></MPD>"
    );
    std::fs::write(folder.path().join("a.m3u8"), hls).unwrap();
    std::fs::write(folder.path().join("a.mpd"), dash).unwrap();
    let arguments = ["--allow-files", folder.path().to_str().unwrap(), "--capture-timeout", "3"];
    let server = Server::with_frames(MOVING, 1, &arguments);
    for name in ["a.m3u8", "a.mpd"] {
        let began = Instant::now();
        let reply = server.post(&about(&format!("file://{}/{name}", folder.path().display())));
        assert_eq!(reply.status, 400, "{name}: {}", reply.text());
        assert!(began.elapsed() < Duration::from_secs(20), "{name}");
    }
    assert_eq!(hits.load(Ordering::SeqCst), 0, "an address in a list was opened");
}

#[test]
fn large_pictures_take_no_more_memory_than_small_ones() {
    let folder = tempfile::tempdir().unwrap();
    let flat = |name: &str, side: u32| {
        image::GrayImage::new(side, side).save(folder.path().join(name)).unwrap();
    };
    std::fs::create_dir(folder.path().join("many")).unwrap();
    flat("many/00.png", 3000);
    for n in 1..32 {
        std::fs::copy(folder.path().join("many/00.png"), folder.path().join(format!("many/{n:02}.png")))
            .unwrap();
    }
    flat("huge.png", 12_000);
    let server = Server::with_frames(MOVING, 1, &["--allow-files", folder.path().to_str().unwrap()]);
    let ask = |name: &str| server.post(&about(&format!("file://{}/{name}", folder.path().display())));
    let many = ask("many");
    assert_eq!(many.status, 200, "{}", many.text());
    assert_eq!(many.json()["utr"]["frames"].as_array().unwrap().len(), 32);
    // 32 pictures of 27 MB each, were they all held.
    let peak = server.status()["memory_bytes"]["peak"].as_u64().unwrap();
    assert!(peak < 400 << 20, "{} MiB", peak >> 20);
    assert_eq!(ask("huge.png").status, 400);
}

#[test]
fn askers_that_left_make_room() {
    let server = Server::still(&["--queue", "3"]);
    let long = long_question(&json!({"stream": true})).to_string();
    let open = || server.open("POST", "/v1/chat/completions", &[], long.as_bytes());
    let first = open();
    wait_for("the first to be answered", || (server.status()["queue"]["pending"] == 1).then_some(()));
    let waiting: Vec<_> = (0..3).map(|_| open()).collect();
    wait_for("the queue to fill", || (server.status()["queue"]["pending"] == 4).then_some(()));
    assert_eq!(server.post(&question("and I?", &json!({}))).status, 429);
    drop(waiting);
    // Their ends are noticed one after the other.
    std::thread::sleep(Duration::from_millis(300));
    let mut late = server.open(
        "POST",
        "/v1/chat/completions",
        &[],
        question("and I?", &json!({"max_tokens": 2})).to_string().as_bytes(),
    );
    std::thread::sleep(Duration::from_millis(200));
    drop(first);
    let mut reply = String::new();
    late.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
}

#[test]
fn an_idle_server_answers_even_where_nobody_may_wait() {
    let server = Server::still(&["--queue", "0"]);
    for _ in 0..40 {
        assert_eq!(server.post(&question("what?", &json!({"max_tokens": 1}))).status, 200);
    }
}

#[test]
fn a_reader_that_sleeps_does_not_stop_the_network() {
    // Neither standard error nor systemd's socket is ever read.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("x.mp4"), "no video").unwrap();
    let socket = folder.path().join("notify");
    let _deaf = UnixDatagram::bind(&socket).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut child = bound(&utr())
        .current_dir(repository())
        .args(["serve", "--source", MOVING, "--bundle", "models/bundles/utr-nano"])
        .args(["--listen", &format!("127.0.0.1:{port}"), "--allow-files", folder.path().to_str().unwrap()])
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "30000000")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (held, address) = (child.stderr.take(), format!("127.0.0.1:{port}"));
    let server = Server { child, address, log: Arc::default() };
    wait_for("the port", || std::net::TcpStream::connect(&server.address).ok());
    server.wait_frames(1, &[]);
    let body = about(&format!("file://{}/x.mp4", folder.path().display()));
    for _ in 0..300 {
        let reply = server.post(&body);
        assert!([400, 429].contains(&reply.status), "{}", reply.text());
    }
    assert_eq!(server.get("/healthz").status, 200);
    drop(held);
    let mut server = server;
    let (_, took) = server.terminate();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn the_second_question_is_about_the_present() {
    // Thirty frames a second and answers of seconds: the first one pins all spare memory.
    let source = "pattern://squares?frames=1000000&width=64&height=64&fps=30";
    let server = Server::with_frames(source, 32, &["--fps", "30", "--window-mode", "rolling"]);
    let body = long_question(&json!({"evidence": "time"}));
    let ages: Vec<u64> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..3).map(|_| scope.spawn(|| server.post(&body).json())).collect();
        asked
            .into_iter()
            .map(|answer| answer.join().unwrap()["utr"]["newest_age_ms"].as_u64().unwrap())
            .collect()
    });
    let dropped = server.status()["window"]["dropped_pinned"].as_u64().unwrap();
    assert!(dropped > 0, "the answers were too short for this test");
    assert!(ages.iter().all(|age| *age < 1000), "{ages:?}");
}

#[test]
fn a_source_that_cannot_be_read_ends_the_server_with_its_reason() {
    let output = Command::new(utr())
        .current_dir(repository())
        .args([
            "serve",
            "--source",
            "/nowhere.mp4",
            "--bundle",
            "models/bundles/utr-nano",
            "--listen",
            "127.0.0.1:0",
        ])
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(words.contains("/nowhere.mp4") && words.matches("reading frames from").count() == 1, "{words}");
}

#[test]
fn a_kept_answer_comes_again_token_for_token() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::with_frames(MOVING, 32, &["--fps", "30", "--window-mode", "rolling"]);
    std::thread::sleep(Duration::from_secs(2));
    let kept = server.post(&question("What moves?", &json!({"keep": true, "max_tokens": 24}))).json();
    assert_eq!(server.get("/api/answer.mcap?id=chatcmpl-0").status, 404);
    // Others that are not kept leave it alone.
    assert_eq!(server.post(&question("And now?", &json!({}))).status, 200);
    let id = kept["id"].as_str().unwrap();
    let file = server.get(&format!("/api/answer.mcap?id={id}"));
    assert_eq!(file.status, 200);
    let path = folder.path().join("kept.mcap");
    std::fs::write(&path, &file.body).unwrap();
    let replay = |path: &Path| {
        let source = format!("replay://{}", path.display());
        let output = Command::new(utr())
            .current_dir(repository())
            .args(["ask", "--source", &source, "--bundle", "models/bundles/utr-nano", "--json"])
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, said) = replay(&path);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(kept["choices"][0]["message"]["content"].as_str().unwrap().trim()), "{said}");
}

#[test]
fn a_driver_that_hangs_is_told_and_does_not_keep_the_program() {
    let source =
        "gst://videotestsrc is-live=true num-buffers=40 ! identity sleep-time=100000000 ! videoconvert";
    let mut server = Server::start(source, &["--capture-timeout", "1"]);
    wait_for("the silence to be told", || {
        let source = server.status()["source"].clone();
        (source["state"] == "waiting" || source["last_error"].is_string()).then_some(())
    });
    let (_, took) = server.terminate();
    assert!(took < Duration::from_secs(25), "{took:?}");
}
