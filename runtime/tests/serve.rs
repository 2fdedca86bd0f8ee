//! `utr serve`, as programs on the network see it: a real process, the bundle that ships, plain HTTP.

#![cfg(feature = "serve")]

mod server;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use server::{MOVING, Server, emulated, long_question, question, repository, utr, wait_for};

/// Events of a stream: the objects, and whether `[DONE]` came last.
fn events(text: &str) -> (Vec<Value>, bool) {
    let data: Vec<&str> = text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect();
    let done = data.last() == Some(&"[DONE]");
    let objects =
        data.iter().filter(|data| **data != "[DONE]").map(|data| serde_json::from_str(data).unwrap());
    (objects.collect(), done)
}

#[test]
fn an_answer_has_openais_shape_and_our_facts() {
    let server = Server::still(&[]);
    let reply = server.post(&question(
        "Describe the video.",
        &json!({"evidence": "time", "model": "anything", "unknown": 1}),
    ));
    let answer = reply.json();
    assert!(!reply.answer().is_empty());
    assert_eq!((&answer["object"], &answer["model"]), (&json!("chat.completion"), &json!("utr-nano")));
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let usage = &answer["usage"];
    let tokens = |name: &str| usage[name].as_u64().unwrap();
    assert_eq!(tokens("total_tokens"), tokens("prompt_tokens") + tokens("completion_tokens"));
    let utr = &answer["utr"];
    // The mode is the one that the bundle recommends.
    assert_eq!((&utr["window_mode"], utr["frames"].as_array().unwrap().len()), (&json!("rolling"), 32));
    assert_eq!(utr["frames"][31]["index"], 63);
    let shares: Vec<f64> =
        utr["evidence"]["per_frame"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect();
    assert!(shares.len() == 32 && (shares.iter().sum::<f64>() - 1.0).abs() < 1e-3);
    assert!(utr["evidence"]["tpl"].is_number());
    for field in ["history_reaches", "dropped", "newest_age_ms", "timings", "bundle", "window_span_ms"] {
        assert!(utr.get(field).is_some_and(|value| !value.is_null()), "{field}");
    }
    let short = server.post(&question("Describe the video.", &json!({"max_tokens": 3}))).json();
    assert_eq!(
        (&short["choices"][0]["finish_reason"], &short["usage"]["completion_tokens"]),
        (&json!("length"), &json!(3))
    );
}

#[test]
fn a_stream_says_the_same_in_pieces() {
    let server = Server::still(&[]);
    let whole = server.post(&question("Describe the video.", &json!({})));
    let more = json!({"stream": true, "stream_options": {"include_usage": true}});
    let streamed = server.post(&question("Describe the video.", &more));
    assert!(streamed.head.contains("content-type: text/event-stream"), "{}", streamed.head);
    let (chunks, done) = events(&streamed.text());
    assert!(done && chunks.len() > 5);
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["object"] == "chat.completion.chunk" && chunk["id"] == chunks[0]["id"])
    );
    let text: String =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, whole.answer());
    let [.., closing, usage] = &chunks[..] else { panic!() };
    assert_eq!(closing["choices"][0]["finish_reason"], "stop");
    assert!(closing["timings"]["predicted_per_second"].is_number() && closing["utr"]["frames"].is_array());
    assert_eq!((&usage["choices"], usage["usage"]["total_tokens"].is_u64()), (&json!([]), true));
    assert!(usage["timings"]["prompt_ms"].is_number());
}

#[test]
fn two_clients_at_once_are_answered_about_the_same_window() {
    let server = Server::still(&[]);
    let ask = || server.post(&question("Describe the video.", &json!({}))).json();
    let (a, b) = std::thread::scope(|scope| {
        let other = scope.spawn(ask);
        (ask(), other.join().unwrap())
    });
    assert_eq!(a["utr"]["frames"], b["utr"]["frames"]);
    assert_eq!(a["choices"], b["choices"]);
    assert_ne!(a["id"], b["id"]);
    let last = json!([{"type": "video_url", "video_url": {"url": "live:default?last=4"}}, {"type": "text", "text": "what moves?"}]);
    let newest = server.post(&json!({"messages": [{"role": "user", "content": last}]})).json();
    assert_eq!(newest["utr"]["frames"].as_array().unwrap()[..], a["utr"]["frames"].as_array().unwrap()[28..]);
}

#[test]
fn the_sessions_instructions_are_read_ahead_and_others_are_answered_exactly() {
    let server = Server::still(&["--window-mode", "ahead", "--system", "Be brief."]);
    let mode = |messages: Value| {
        let answer = server.post(&json!({"messages": messages, "temperature": 0})).json();
        let reused = answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
        (answer["utr"]["window_mode"].as_str().unwrap().to_string(), reused > 0)
    };
    let asked = json!({"role": "user", "content": "what moves?"});
    assert_eq!(mode(json!([asked])), ("ahead".into(), true));
    assert_eq!(mode(json!([{"role": "system", "content": "Be brief."}, asked])), ("ahead".into(), true));
    let other = json!([{"role": "system", "content": "Answer at length."}, asked]);
    assert_eq!(mode(other.clone()), ("exact".into(), false));
    // Earlier turns follow the window: what was read ahead still serves.
    let turns = json!([asked, {"role": "assistant", "content": "A box."}, {"role": "user", "content": "which colour?"}]);
    assert_eq!(mode(turns), ("ahead".into(), true));
}

#[test]
fn a_full_queue_refuses_with_a_time_to_come_back() {
    let server = Server::still(&["--queue", "1"]);
    let replies: Vec<_> = std::thread::scope(|scope| {
        let ask = || server.post(&question("Describe the video.", &json!({"evidence": "time"})));
        let asking: Vec<_> = (0..16).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (answered, refused): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 200);
    assert!(!answered.is_empty() && !refused.is_empty(), "{} answered", answered.len());
    for reply in refused {
        assert_eq!((reply.status, reply.error().1), (429, json!("queue_full")));
        assert!(reply.head.contains("retry-after: "), "{}", reply.head);
    }
    let metrics = server.get("/metrics").text();
    assert!(
        metrics.contains("utr_requests_total{outcome=\"busy\"}") && !metrics.contains("{outcome=\"busy\"} 0")
    );
}

/// Waits until a question is being answered, then until none is; how long the second took.
fn until_idle(server: &Server, leave: impl FnOnce()) -> Duration {
    wait_for("the question to arrive", || (server.status()["queue"]["pending"] == 1).then_some(()));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(server.status()["queue"]["pending"], 1, "the answer was too short for this test");
    leave();
    let left = Instant::now();
    wait_for("the answer to stop", || (server.status()["queue"]["pending"] == 0).then_some(()));
    left.elapsed()
}

#[test]
fn a_client_that_leaves_stops_its_answer() {
    let server = Server::still(&[]);
    for stream in [true, false] {
        let body = long_question(&json!({"stream": stream})).to_string();
        let mut connection = server.open("POST", "/v1/chat/completions", &[], body.as_bytes());
        if stream {
            let mut some = [0; 300];
            connection.read_exact(&mut some).unwrap();
        }
        let took = until_idle(&server, || drop(connection));
        assert!(took < Duration::from_secs(if emulated() { 20 } else { 5 }), "stream {stream}: {took:?}");
    }
    let metrics = server.get("/metrics").text();
    assert!(metrics.contains("utr_requests_total{outcome=\"cancelled\"} 2\n"), "{metrics}");
}

#[test]
fn a_client_that_does_not_read_holds_nobody_back() {
    let server = Server::with_frames(MOVING, 4, &["--fps", if emulated() { "2" } else { "20" }]);
    let streaming = question("Describe the video.", &json!({"stream": true})).to_string();
    let unread: Vec<_> =
        (0..6).map(|_| server.open("POST", "/v1/chat/completions", &[], streaming.as_bytes())).collect();
    let seen = server.status()["window"]["seen"].as_u64().unwrap();
    wait_for("an answer", || (server.post(&question("what moves?", &json!({}))).status == 200).then_some(()));
    wait_for("more frames", || (server.status()["window"]["seen"].as_u64()? > seen + 3).then_some(()));
    // Those who never read were answered all the same.
    wait_for("all answers", || (server.status()["answers"].as_u64()? >= 4).then_some(()));
    drop(unread);
}

#[test]
fn a_client_that_dawdles_over_its_request_is_cut_off() {
    let server = Server::start(MOVING, &[]);
    let cut_off = |sent: &[u8]| {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(sent).unwrap();
        let began = Instant::now();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        (began.elapsed(), String::from_utf8_lossy(&rest).into_owned())
    };
    std::thread::scope(|scope| {
        let head = scope.spawn(|| cut_off(b"GET /healthz HT"));
        let body = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 50\r\n\r\n{\"mess";
        let body = scope.spawn(|| cut_off(body));
        let (head_took, _) = head.join().unwrap();
        let (body_took, reply) = body.join().unwrap();
        assert!(head_took > Duration::from_secs(8) && head_took < Duration::from_secs(25), "{head_took:?}");
        assert!(reply.starts_with("HTTP/1.1 408"), "{reply}");
        assert!(body_took > Duration::from_secs(8) && body_took < Duration::from_secs(25), "{body_took:?}");
    });
}

#[test]
fn more_connections_than_there_is_room_for_are_turned_away() {
    let server = Server::start(MOVING, &[]);
    let held: Vec<_> = (0..64).map(|_| TcpStream::connect(&server.address).unwrap()).collect();
    let health = || {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        // Who is turned away may find the connection closed before all was sent.
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text
    };
    wait_for("a refusal", || health().starts_with("HTTP/1.1 503").then_some(()));
    drop(held);
    wait_for("room", || health().starts_with("HTTP/1.1 200").then_some(()));
}

#[test]
fn bodies_that_make_no_sense_are_refused_by_name() {
    let server = Server::still(&[]);
    let send = |body: &[u8]| server.send("POST", "/v1/chat/completions", &[], body);
    for garbage in [&b""[..], b"{", b"[]", b"\xff\xfe", b"{\"messages\": 3}", b"null"] {
        let reply = send(garbage);
        assert_eq!(reply.status, 400, "{}", reply.text());
        assert!(reply.error().0.contains("chat completion"));
    }
    let deep = [b"{\"messages\": [], \"x\": ".to_vec(), b"[".repeat(100_000)].concat();
    assert_eq!(send(&deep).status, 400);
    let large = send(&vec![b' '; (1 << 20) + 1]);
    assert_eq!((large.status, large.error().1), (413, json!("body_too_large")));
    assert!(large.error().0.contains("1048576"));
    let long = server.post(&question(&"why ".repeat(17_000), &json!({})));
    assert!(long.status == 400 && long.error().0.contains("65536"));
    let unread = server.post(&question(&"why ".repeat(8_000), &json!({})));
    assert_eq!((unread.status, unread.error().1), (400, json!("context_length_exceeded")));
    let streamed = server.post(&question(&"why ".repeat(8_000), &json!({"stream": true})));
    assert_eq!((streamed.status, streamed.error().1), (400, json!("context_length_exceeded")));
    assert_eq!(server.get("/v1/chat/completions").status, 405);
    assert_eq!(server.get("/etc/passwd").status, 404);
    // And it still answers.
    assert!(!server.post(&question("what moves?", &json!({}))).answer().is_empty());
}

#[test]
fn the_token_opens_everything_and_stays_secret() {
    let folder = tempfile::tempdir().unwrap();
    let (file, token) = (folder.path().join("token"), "correct-horse-battery-staple");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    let mut server = Server::start(MOVING, &["--token-file", file.to_str().unwrap()]);
    let (good, bad) = (format!("Bearer {token}"), "Bearer correct-horse-battery-stable");
    server.wait_frames(1, &[("authorization", &good)]);
    let ask = question("what moves?", &json!({})).to_string();
    for (method, path, body) in [
        ("GET", "/v1/models", ""),
        ("POST", "/v1/chat/completions", ask.as_str()),
        ("GET", "/readyz", ""),
        ("GET", "/metrics", ""),
        ("GET", "/api/status", ""),
        ("GET", "/api/frame.jpg", ""),
        ("GET", "/api/strip", ""),
    ] {
        let status = |headers: &[(&str, &str)]| server.send(method, path, headers, body.as_bytes()).status;
        assert_eq!(status(&[]), 401, "{path}");
        assert_eq!(status(&[("authorization", bad)]), 401, "{path}");
        assert_eq!(status(&[("authorization", &good)]), 200, "{path}");
    }
    assert_eq!((server.get("/healthz").status, server.get("/").status), (200, 200));
    let refused = server.get("/v1/models");
    assert!(refused.head.contains("www-authenticate: bearer") && !refused.text().contains(token));
    server.terminate();
    let log = server.log.lock().unwrap();
    assert!(!log.contains(token) && log.contains("chmod 600"), "{log}");
}

#[test]
fn the_network_is_not_opened_without_a_token() {
    let open = Command::new(utr())
        .current_dir(repository())
        .args(["serve", "--source", MOVING, "--listen", "0.0.0.0:0"])
        .output()
        .unwrap();
    assert_eq!(open.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&open.stderr).contains("--token-file"));
}

#[test]
fn pages_of_other_sites_are_refused() {
    let server = Server::with_frames(MOVING, 1, &[]);
    let here = server.url();
    let ask = question("what moves?", &json!({})).to_string();
    for (headers, status) in [
        (vec![("origin", here.as_str())], 200),
        (vec![("origin", "https://evil.example")], 403),
        (vec![("origin", "null")], 403),
        (vec![("host", "evil.example")], 403),
        (vec![("sec-fetch-site", "cross-site")], 403),
    ] {
        let reply = server.send("POST", "/v1/chat/completions", &headers, ask.as_bytes());
        assert_eq!(reply.status, status, "{headers:?}: {}", reply.text());
        assert!(!reply.head.contains("access-control-allow"), "{}", reply.head);
        assert_eq!(server.send("GET", "/api/frame.jpg", &headers, b"").status, status);
    }
    let page = server.get("/");
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
    assert!(!page.text().contains("https://") && page.text().contains("<title>"));
}
