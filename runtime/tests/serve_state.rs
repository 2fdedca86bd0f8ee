//! What `utr serve` says of itself: readiness, metrics, pictures, files, its end, systemd.

#![cfg(feature = "serve")]

mod server;

use std::io::Read;
use std::time::Duration;

use serde_json::json;
use server::{MOVING, Server, long_question, question, repository, wait_for};

#[test]
fn readiness_follows_the_frames() {
    let blind = Server::start("gst://videotestsrc is-live=true ! valve drop=true ! videoconvert", &[]);
    let reply = blind.get("/readyz");
    assert_eq!((reply.status, reply.json()["ready"].clone()), (503, json!(false)), "{}", reply.text());
    assert!(reply.json()["reason"].as_str().unwrap().contains("no frame has come yet"));
    assert_eq!(blind.get("/healthz").status, 200);
    let refused = blind.post(&question("what moves?", &json!({})));
    assert_eq!((refused.status, refused.error().1), (503, json!("no_frame")));
    assert_eq!(blind.get("/api/frame.jpg").status, 503);

    let seeing = Server::with_frames(MOVING, 1, &["--fps", "10"]);
    let reply = seeing.get("/readyz");
    assert_eq!(reply.status, 200, "{}", reply.text());

    let over = Server::still(&[]);
    assert!(over.get("/readyz").status == 503 && over.get("/readyz").text().contains("ended"));
}

#[test]
fn metrics_are_open_metrics_with_the_names_dashboards_know() {
    let server = Server::still(&[]);
    server.post(&question("Describe the video.", &json!({})));
    let reply = server.get("/metrics");
    assert!(reply.head.contains("openmetrics-text"), "{}", reply.head);
    let text = reply.text();
    assert!(text.ends_with("# EOF\n"));
    let value = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(left, _)| left == name));
        line.unwrap_or_else(|| panic!("{name} is missing:\n{text}"))
            .rsplit_once(' ')
            .unwrap()
            .1
            .parse()
            .unwrap()
    };
    assert!((32.0..=64.0).contains(&value("utr_frames_captured_total")));
    for stage in ["source", "handover", "pinned", "failed"] {
        value(&format!("utr_frames_dropped_total{{stage=\"{stage}\"}}"));
    }
    for histogram in ["utr_prefill_seconds", "utr_ttft_seconds", "utr_answer_age_seconds"] {
        assert_eq!(value(&format!("{histogram}_count")), 1.0);
        assert_eq!(value(&format!("{histogram}_bucket{{le=\"+Inf\"}}")), 1.0);
    }
    assert!(value("utr_encode_seconds_count") >= 32.0 && value("utr_decode_tokens_total") > 5.0);
    assert!(value("utr_memory_bytes{kind=\"resident\"}") > 1e6);
    assert_eq!(value("utr_requests_total{outcome=\"answered\"}"), 1.0);
    assert_eq!((value("utr_queue_pending"), value("utr_reconnects_total")), (0.0, 0.0));
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, number) = line.rsplit_once(' ').unwrap();
        assert!(number.parse::<f64>().is_ok() && name.starts_with("utr_"), "{line}");
    }
}

#[test]
fn pictures_are_small_and_the_strip_carries_the_last_answers_evidence() {
    let server = Server::still(&[]);
    let jpeg = server.get("/api/frame.jpg");
    assert!(jpeg.head.contains("x-utr-index: 63"), "{}", jpeg.head);
    assert_eq!(image::load_from_memory(&jpeg.body).unwrap().width(), 64);
    let answer = server.post(&question("Describe the video.", &json!({"evidence": true}))).json();
    let strip = server.get("/api/strip").json();
    let window = strip["window"].as_array().unwrap();
    assert_eq!(window.len(), 32);
    assert!(
        window
            .iter()
            .all(|frame| frame["picture"].as_str().unwrap().starts_with("data:image/jpeg;base64,/9j/"))
    );
    for (place, frame) in strip["answer"].as_array().unwrap().iter().enumerate() {
        assert_eq!(frame["share"], answer["utr"]["evidence"]["per_frame"][place]);
        assert_eq!(frame["index"], answer["utr"]["frames"][place]["index"]);
    }
    let known = server.get("/api/strip?have=63").json();
    assert!(known["window"].as_array().unwrap().iter().all(|frame| frame["picture"].is_null()));
}

#[test]
fn files_are_read_only_where_they_are_allowed() {
    let clips = repository().join("models/demo/clips");
    let clip = std::fs::read_dir(&clips).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
    let ask = |server: &Server, url: &str| {
        let content = json!([{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": "what moves?"}]);
        server.post(&json!({"messages": [{"role": "user", "content": content}], "temperature": 0}))
    };
    let closed = Server::still(&[]);
    let url = format!("file://{}", clip.display());
    assert_eq!(ask(&closed, &url).error().1, json!("files_not_allowed"));
    let open = Server::with_frames(MOVING, 1, &["--allow-files", clips.to_str().unwrap()]);
    let answer = ask(&open, &url);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(
        (&answer["utr"]["window_mode"], answer["utr"]["frames"].as_array().unwrap().len()),
        (&json!("exact"), 32)
    );
    let outside = ask(&open, &format!("file://{}/Cargo.toml", repository().display()));
    let missing = ask(&open, &format!("file://{}/none.mp4", clips.display()));
    assert_eq!((outside.status, outside.error()), (400, missing.error()));
    // The window went on meanwhile.
    assert!(open.status()["window"]["frames"].as_u64().unwrap() >= 1);
}

#[test]
fn a_stop_ends_the_server_in_order_with_an_answer_in_flight() {
    let mut idle = Server::with_frames(MOVING, 1, &[]);
    let (status, took) = idle.terminate();
    assert!(status.success() && took < Duration::from_secs(5), "{status} {took:?}");
    let mut busy = Server::still(&[]);
    let body = long_question(&json!({"stream": true})).to_string();
    // One is being answered and others wait: more than a fast machine ends in the time that a stop gives.
    let mut asked: Vec<_> =
        (0..5).map(|_| busy.open("POST", "/v1/chat/completions", &[], body.as_bytes())).collect();
    asked[0].read_exact(&mut [0; 300]).unwrap();
    wait_for("the others to wait", || {
        busy.status()["queue"]["pending"].as_u64().is_some_and(|n| n > 2).then_some(())
    });
    let (status, took) = busy.terminate();
    assert!(status.success() && took < Duration::from_secs(6), "{status} {took:?}");
    let ends: Vec<String> = asked
        .iter_mut()
        .map(|connection| {
            let mut rest = Vec::new();
            let _ = connection.read_to_end(&mut rest);
            String::from_utf8_lossy(&rest).into_owned()
        })
        .collect();
    for end in &ends {
        assert!(end.contains("[DONE]") != end.contains("\"code\":\"stopped\""), "{end}");
    }
    assert!(ends.iter().any(|end| end.contains("\"code\":\"stopped\"")), "{ends:?}");
    assert!(busy.log.lock().unwrap().contains("stopped"));
}

#[test]
fn systemd_is_told_that_it_runs_how_it_goes_and_that_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let variables =
        [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "30000000"), ("JOURNAL_STREAM", "8:1")];
    let mut server = Server::start_in(MOVING, &["--fps", "10"], &variables);
    let hear = || {
        let mut bytes = [0; 4096];
        let n = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    };
    let until = |word: &str| wait_for(word, || Some(hear()).filter(|said| said.contains(word)));
    assert_eq!(hear().trim(), "READY=1");
    until("WATCHDOG=1");
    let status = until("STATUS=");
    assert!(status.contains("frames/s") && status.contains("of 32 in the window"), "{status}");
    server.terminate();
    until("STOPPING=1");
    // The journal stamps and colours lines itself.
    let log = server.log.lock().unwrap();
    assert!(log.lines().all(|line| line.starts_with("<6>") || line.starts_with("<4>")), "{log}");
}
