//! Sources that are kept alive, with real GStreamer: cameras that vanish, hang, change or talk rubbish; files that must not
//! lose a frame. Nothing here asserts speed: waits are generous.
#![cfg(feature = "gst")]

#[path = "live/rtsp_server.rs"]
mod rtsp_server;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use utr_models::manifest::WindowMode;
use utr_runtime::Error;
use utr_runtime::answer::Question;
use utr_runtime::capture::live::{Backoff, Live, LiveOptions, LiveState, LiveStatus, Next, Pacing};
use utr_runtime::capture::{self, CaptureOptions, Frame};
use utr_runtime::interrupt::Interrupt;
use utr_runtime::load::Model;
use utr_runtime::pipeline::Settings;
use utr_runtime::session::{Job, Session, SessionOptions};
use utr_runtime::source::Source;

const LONG: Duration = Duration::from_secs(60);

/// Opens again soon, and gives up silence after `timeout`.
fn eager(timeout: Duration) -> LiveOptions {
    let longest = Duration::from_millis(200);
    LiveOptions {
        capture: CaptureOptions { timeout, ..CaptureOptions::default() },
        backoff: Backoff { first: Duration::from_millis(50), longest, steady: longest },
        ..LiveOptions::default()
    }
}

fn live(uri: &str, options: LiveOptions) -> Live {
    Live::start(&Source::parse(uri).unwrap(), options).unwrap()
}

/// The next so many frames; silence up to [`LONG`] is waited out.
fn frames(live: &Live, count: usize) -> Vec<Arc<Frame>> {
    let mut frames = Vec::new();
    while frames.len() < count {
        match live.next(LONG) {
            Next::Frame(frame) => frames.push(frame),
            other => panic!("{} of {count} frames, then {other:?}: {:?}", frames.len(), live.status()),
        }
    }
    frames
}

/// Every frame to the end.
fn all(live: &Live) -> Vec<Arc<Frame>> {
    let mut frames = Vec::new();
    loop {
        match live.next(LONG) {
            Next::Frame(frame) => frames.push(frame),
            Next::Ended => return frames,
            other => panic!("after {} frames {other:?}", frames.len()),
        }
    }
}

/// Waits until the status is as wished.
fn until(live: &Live, what: &str, wished: impl Fn(&LiveStatus) -> bool) -> LiveStatus {
    let began = Instant::now();
    loop {
        let status = live.status();
        if wished(&status) {
            return status;
        }
        assert!(began.elapsed() < LONG, "never {what}: {status:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn go_on(frames: &[Arc<Frame>]) {
    for pair in frames.windows(2) {
        let [a, b] = [pair[0].stamp, pair[1].stamp];
        assert!(b.index > a.index && b.pts_ms >= a.pts_ms, "{a:?} then {b:?}");
    }
}

fn adds_up(status: &LiveStatus) {
    let parts = status.not_due + status.delivered + status.dropped_handover + status.waiting;
    assert_eq!(status.captured, parts, "{status:?}");
}

/// Runs a pipeline that writes `file` to its end.
fn make(pipeline: &str, file: &Path) {
    gst::init().unwrap();
    let text = format!("{pipeline} ! filesink location=\"{}\"", file.display());
    let pipeline = gst::parse::launch(&text).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let message =
        pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(60), &kinds).unwrap();
    pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(message.type_(), gst::MessageType::Eos, "{text}: {message:?}");
}

/// A server that treats its first, second, … visitor as told; the last way stays. Its address is part of a pipeline.
fn server(visits: Vec<fn(&mut TcpStream, &[u8])>, bytes: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (visit, stream) in listener.incoming().enumerate() {
            let Ok(mut stream) = stream else { return };
            visits[visit.min(visits.len() - 1)](&mut stream, &bytes);
        }
    });
    format!("tcpclientsrc host=127.0.0.1 port={port}")
}

fn send(stream: &mut TcpStream, bytes: &[u8]) {
    // A visitor may leave early.
    let _ = stream.write_all(bytes);
}

/// Sends, and then holds the line in silence until the visitor hangs up.
fn send_and_stall(stream: &mut TcpStream, bytes: &[u8]) {
    send(stream, bytes);
    let _ = stream.read(&mut [0]);
}

fn send_garbage(stream: &mut TcpStream, _: &[u8]) {
    let mut state = 1u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(200_000)
    .collect();
    send(stream, &noise);
}

/// The right bytes with a hole and a burst of noise in the middle.
fn send_damaged(stream: &mut TcpStream, bytes: &[u8]) {
    let (head, tail) = bytes.split_at(bytes.len() / 2);
    send(stream, head);
    send_garbage(stream, &[]);
    send(stream, &tail[tail.len() / 3..]);
}

#[test]
fn a_network_camera_that_is_killed_comes_back_and_its_password_stays_unsaid() {
    let port = rtsp_server::free_port();
    let uri = format!("rtsp://{}:{}@127.0.0.1:{port}/test", rtsp_server::USER, "ge%3Aheim%40");
    // Nobody is there yet: the first opening fails and is repeated.
    let live = live(&uri, eager(Duration::from_secs(10)));
    let status = until(&live, "waiting", |status| matches!(status.state, LiveState::Waiting { .. }));
    let words = format!("{status:?}");
    assert!(words.contains("rtspsrc location=rtsp://***@127.0.0.1") && !words.contains("heim"), "{words}");
    let mut seen = Vec::new();
    for round in 0..3u64 {
        let server = rtsp_server::Server::start(port);
        seen.extend(frames(&live, 10));
        let status = until(&live, "running", |status| status.state == LiveState::Running);
        assert_eq!(status.reconnects, round, "{status:?}");
        adds_up(&status);
        server.kill();
        let lost = |status: &LiveStatus| !matches!(status.state, LiveState::Running | LiveState::Opening);
        let status = until(&live, "lost", lost);
        assert!(!format!("{status:?}").contains("heim"), "{status:?}");
    }
    go_on(&seen);
    let image = &seen[0].image;
    assert_eq!((image.width, image.height), (rtsp_server::WIDTH, rtsp_server::HEIGHT));
    // The picture is SMPTE's bars: its upper left is light grey.
    assert!(image.data[..3].iter().all(|level| (150..230).contains(level)), "{:?}", &image.data[..3]);
}

#[test]
fn a_session_answers_on_while_its_camera_is_away_and_about_new_frames_once_it_is_back() {
    let port = rtsp_server::free_port();
    let uri = format!("rtsp://{}:{}@127.0.0.1:{port}/test", rtsp_server::USER, "ge%3Aheim%40");
    let repository = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let model = Model::open(&repository.join("models/bundles/utr-nano"), None).unwrap();
    let settings = Settings { mode: WindowMode::Rolling, ..Settings::exact(8) };
    let options =
        SessionOptions { settings, live: eager(Duration::from_secs(10)), queue: 1, observers: Vec::new() };
    let server = rtsp_server::Server::start(port);
    let session =
        Session::start(model, &Source::parse(&uri).unwrap(), options, &Interrupt::default()).unwrap();
    let ask = || session.ask(Question::new("what moves?")).unwrap().0;
    assert!(session.wait_for(8, LONG), "{:?}", session.status());
    let before = ask();
    assert_eq!(before.frames.len(), 8);
    server.kill();
    let end = Instant::now() + LONG;
    while !matches!(session.status().live.state, LiveState::Waiting { .. }) {
        assert!(Instant::now() < end, "{:?}", session.status());
        std::thread::sleep(Duration::from_millis(20));
    }
    // Away: answered about the last frames, and their age says so.
    let away = ask();
    assert_eq!(away.frames.len(), 8);
    let newest = away.frames[7].index;
    let _server = rtsp_server::Server::start(port);
    while session.view().unwrap().frames[0].stamp.index <= newest {
        assert!(Instant::now() < end, "{:?}", session.status());
        std::thread::sleep(Duration::from_millis(20));
    }
    let after = ask();
    assert!(after.frames[0].index > newest && after.frames.len() == 8, "{:?}", after.frames);
    // More than once where the server let the client in before it could stream.
    assert!(session.status().live.reconnects >= 1);
}

/// What the watchdog goes by.
#[test]
fn frames_that_an_answer_leaves_no_memory_for_are_still_looked_at() {
    let uri = "gst://videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=50/1";
    let bundle = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/bundles/utr-nano");
    let model = Model::open(Path::new(bundle), None).unwrap();
    let settings = Settings { mode: WindowMode::Rolling, ..Settings::exact(8) };
    let options = SessionOptions { settings, live: eager(LONG), queue: 1, observers: Vec::new() };
    let source = Source::parse(uri).unwrap();
    let session = Session::start(model, &source, options, &Interrupt::default()).unwrap();
    assert!(session.wait_for(8, LONG), "{:?}", session.status());
    let (go_on, held) = channel::<()>();
    let job = Job {
        question: Question::new("what moves?"),
        cancel: session.cancel_flag(),
        // In the middle of its answer, with the window pinned.
        on_text: Box::new(move |_| {
            let _ = held.recv();
            Ok(())
        }),
        done: Box::new(|_, _| ()),
    };
    assert!(session.submit(job).is_ok());
    let end = Instant::now() + LONG;
    while session.status().dropped_pinned < 3 {
        assert!(Instant::now() < end, "{:?}", session.status());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(session.status().looked > session.status().newest, "{:?}", session.status());
    drop(go_on);
}

#[test]
fn a_wrong_password_fails_at_once_and_is_not_repeated() {
    let port = rtsp_server::free_port();
    let _server = rtsp_server::Server::start(port);
    rtsp_server::wait_for(port);
    let live = live(&format!("rtsp://user:geheim@127.0.0.1:{port}/test"), eager(LONG));
    let Next::Failed(error) = live.next(LONG) else { panic!("{:?}", live.status()) };
    let words = format!("{error} {error:?} {:?}", live.status());
    assert!(words.contains("password") && !words.contains("geheim"), "{words}");
}

#[test]
fn a_live_source_that_ends_is_opened_again_and_its_frames_go_on() {
    let uri = "gst://videotestsrc is-live=true num-buffers=5 ! video/x-raw,width=64,height=48,framerate=50/1";
    let live = live(uri, eager(LONG));
    let seen = frames(&live, 14);
    go_on(&seen);
    let status = live.status();
    assert!(status.reconnects >= 2, "{status:?}");
    assert!(status.last_error.as_deref().is_some_and(|reason| reason.contains("ended")), "{status:?}");
    // Over the gap times went on by the clock: three openings with two waits of 50 ms and more between them.
    assert!(seen.last().unwrap().stamp.pts_ms >= 13 * 10 + 100, "{:?}", seen.last().unwrap().stamp);
    adds_up(&status);
}

#[test]
fn a_stream_that_falls_silent_is_opened_again() {
    let frame = 16 * 16 * 3;
    let tcp = server(vec![send_and_stall, send_and_stall, send], vec![7; 4 * frame]);
    let uri = format!("gst://{tcp} ! rawvideoparse format=rgb width=16 height=16 framerate=25/1");
    let options = LiveOptions { endless: Some(true), ..eager(Duration::from_millis(700)) };
    let live = live(&uri, options);
    let status = until(&live, "silent", |status| matches!(status.state, LiveState::Waiting { .. }));
    assert!(status.last_error.as_deref().is_some_and(|reason| reason.contains("hangs")), "{status:?}");
    let status = until(&live, "back", |status| status.reconnects >= 3);
    assert!(status.captured >= 12, "{status:?}");
    adds_up(&live.status());
    assert!(matches!(live.next(LONG), Next::Frame(frame) if frame.image.data == vec![7; 768]));
}

#[test]
fn garbage_is_survived_and_what_follows_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clip.webm");
    let clip = "videotestsrc pattern=ball num-buffers=60 ! video/x-raw,width=64,height=48,framerate=30/1 ! \
                vp8enc deadline=1 ! webmmux streamable=true";
    make(clip, &file);
    let tcp = server(
        vec![send_garbage, send_damaged, send_garbage, send_damaged, send],
        std::fs::read(&file).unwrap(),
    );
    let options = LiveOptions { endless: Some(true), ..eager(Duration::from_secs(5)) };
    let live = live(&format!("gst://{tcp} ! decodebin"), options);
    let status = until(&live, "through all of it", |status| {
        status.reconnects >= 3 || (status.reconnects >= 1 && status.captured >= 120)
    });
    assert!(status.last_error.is_some(), "{status:?}");
    let seen = frames(&live, 3);
    go_on(&seen);
    assert_eq!((seen[0].image.width, seen[0].image.height), (64, 48));
}

#[test]
fn a_picture_that_changes_its_size_is_read_on_and_counted() {
    let part = |width: u32, height: u32| {
        format!(
            "videotestsrc num-buffers=20 ! video/x-raw,format=RGB,width={width},height={height},framerate=30/1 ! c."
        )
    };
    let uri = format!("gst://{} {} {} concat name=c", part(64, 48), part(90, 50), part(64, 48));
    let live = live(&uri, LiveOptions { pacing: Pacing::Unpaced, ..eager(LONG) });
    let seen = all(&live);
    let sizes: Vec<(usize, usize)> = seen.iter().map(|f| (f.image.width, f.image.height)).collect();
    let expected = [(64, 48), (90, 50), (64, 48)].iter().flat_map(|size| [*size; 20]).collect::<Vec<_>>();
    assert_eq!(sizes, expected);
    assert_eq!(live.status().caps_changes, 2);
    go_on(&seen);
    let steps = seen.windows(2).map(|pair| pair[1].stamp.pts_ms - pair[0].stamp.pts_ms);
    assert!(steps.clone().all(|step| (33..=34).contains(&step)), "{:?}", steps.collect::<Vec<_>>());
}

#[test]
fn a_slow_reader_sees_the_newest_frame_and_every_missed_one_is_counted() {
    let live =
        live("gst://videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=100/1", eager(LONG));
    let mut seen = Vec::new();
    while seen.len() < 8 {
        std::thread::sleep(Duration::from_millis(80));
        let before = live.status();
        adds_up(&before);
        seen.extend(frames(&live, 1));
        let newest = seen.last().unwrap().stamp.index as u64;
        assert!(newest + 1 >= before.captured, "frame {newest} of {before:?}");
    }
    go_on(&seen);
    let status = live.status();
    assert_eq!(status.delivered, 8);
    assert!(status.dropped_handover > 8, "{status:?}");
    assert_eq!((status.not_due, status.reconnects, status.caps_changes), (0, 0, 0));
}

#[test]
fn what_a_live_sources_sink_overwrote_is_counted_exactly() {
    let uri =
        "gst://videotestsrc is-live=true num-buffers=60 ! video/x-raw,width=64,height=48,framerate=100/1";
    let mut clip = capture::open(&Source::parse(uri).unwrap(), &CaptureOptions::default()).unwrap();
    let mut read = 0;
    while clip.advance().unwrap().is_some() {
        read += 1;
        std::thread::sleep(Duration::from_millis(70));
    }
    assert!(clip.dropped() > 0 && read < 60, "{read} read, {} dropped", clip.dropped());
    assert_eq!(read + clip.dropped(), 60);
}

#[test]
fn a_file_read_as_fast_as_possible_is_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clip.mp4");
    make(
        "videotestsrc pattern=ball num-buffers=90 ! video/x-raw,width=64,height=48,framerate=30/1 ! \
         x264enc speed-preset=ultrafast ! mp4mux",
        &file,
    );
    let source = Source::Path(file.clone());
    let mut clip = capture::open(&source, &CaptureOptions::default()).unwrap();
    let mut direct = Vec::new();
    while let Some(stamp) = clip.advance().unwrap() {
        direct.push((stamp, clip.image().unwrap()));
    }
    let live = Live::start(&source, LiveOptions { pacing: Pacing::Unpaced, ..eager(LONG) }).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let seen: Vec<_> = all(&live).iter().map(|frame| (frame.stamp, frame.image.clone())).collect();
    assert_eq!(seen.len(), 90);
    assert!(seen == direct, "the live path changed frames or their stamps");

    // The same file, started again at its end.
    let live =
        Live::start(&Source::Loop(file), LiveOptions { pacing: Pacing::Unpaced, ..eager(LONG) }).unwrap();
    let twice = frames(&live, 200);
    go_on(&twice);
    assert_eq!(twice[199].stamp.index, 199);
    assert!(twice[90 + 17].image == direct[17].1 && twice[180 + 19].image == direct[19].1);
    assert_eq!(live.status().reconnects, 0);
}

#[test]
fn a_rate_picks_from_a_live_source_without_losing_count() {
    let options = LiveOptions { fps: Some(10.0), ..eager(LONG) };
    let live = live("test://ball?live=true&fps=100&width=64&height=48", options);
    let seen = frames(&live, 5);
    for pair in seen.windows(2) {
        let step = pair[1].stamp.pts_ms - pair[0].stamp.pts_ms;
        assert!(step >= 90, "{step} ms between frames of a rate of 10");
        assert!(pair[1].stamp.index - pair[0].stamp.index >= 2);
    }
    let status = live.status();
    assert!(status.not_due > status.delivered, "{status:?}");
    adds_up(&status);
}

#[test]
fn a_pipeline_without_a_clock_runs_ahead_a_little_and_then_by_its_times() {
    let source = Source::parse("gst://videotestsrc ! video/x-raw,width=32,height=32,framerate=30/1").unwrap();
    let began = Instant::now();
    let live = Live::start(&source, LiveOptions::lasting(&source)).unwrap();
    // Five seconds of it come at once, the rest takes its time.
    while live.status().captured < 150 {
        assert!(matches!(live.next(LONG), Next::Frame(_)));
    }
    let most = |elapsed: Duration| 30.0 * (elapsed.as_secs_f64() + 5.0) + 8.0;
    while began.elapsed() < Duration::from_secs(2) {
        let _ = live.next(Duration::from_millis(20));
        let captured = live.status().captured as f64;
        assert!(captured <= most(began.elapsed()), "{captured} frames after {:?}", began.elapsed());
    }
}

#[test]
fn a_bad_pipeline_fails_at_once() {
    for uri in ["gst://nosuchelement ! identity", "gst://filesrc location=/no/such ! decodebin", "csi://0"] {
        let live = live(uri, eager(LONG));
        let Next::Failed(error) = live.next(LONG) else { panic!("{uri}: {:?}", live.status()) };
        assert_eq!(live.status().last_error, Some(error.reason()));
        assert_eq!(live.status().state, LiveState::Failed);
    }
}

#[test]
fn an_interrupt_is_heard_while_a_device_is_being_opened() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Opening a pipe that nobody writes to blocks, as a driver may.
    let options = eager(LONG);
    let interrupt = options.capture.interrupt.clone();
    let live = live(&format!("gst://filesrc location={} ! decodebin", pipe.display()), options);
    assert!(matches!(live.next(Duration::from_millis(200)), Next::Quiet));
    assert_eq!(live.status().state, LiveState::Opening);
    interrupt.request();
    assert!(matches!(live.next(Duration::from_secs(20)), Next::Failed(Error::Interrupted)));
    drop(live);
    // Lets the abandoned opening go.
    drop(std::fs::OpenOptions::new().write(true).open(&pipe).unwrap());
}
