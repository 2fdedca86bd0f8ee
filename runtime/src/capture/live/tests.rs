//! A source that is kept alive: drawn clips, files, and an opener that fails on purpose.

use super::*;

const LONG: Duration = Duration::from_secs(60);

fn live(uri: &str, options: LiveOptions) -> Live {
    Live::start(&Source::parse(uri).unwrap(), options).unwrap()
}

fn unpaced(fps: Option<f64>) -> LiveOptions {
    LiveOptions { pacing: Pacing::Unpaced, fps, ..LiveOptions::default() }
}

/// Every frame to the end.
fn all(live: &Live) -> Vec<Arc<Frame>> {
    let mut frames = Vec::new();
    loop {
        match live.next(LONG) {
            Next::Frame(frame) => frames.push(frame),
            Next::Ended => return frames,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn waits_double_up_to_the_longest() {
    let backoff = Backoff::default();
    let waits: Vec<u128> = (1..9).map(|attempt| backoff.wait(attempt).as_millis()).collect();
    assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 8000, 8000]);
    assert_eq!(backoff.wait(u32::MAX), backoff.longest);
}

#[test]
fn a_clip_read_as_fast_as_possible_loses_nothing() {
    let live = live("pattern://noise?frames=300&width=8&height=6&fps=10", unpaced(None));
    std::thread::sleep(Duration::from_millis(30));
    let frames = all(&live);
    assert_eq!(frames.iter().map(|f| f.stamp.index).collect::<Vec<_>>(), (0..300).collect::<Vec<_>>());
    assert_eq!(frames[299].stamp.pts_ms, 29_900);
    let status = live.status();
    assert_eq!((status.state, status.captured, status.delivered), (LiveState::Ended, 300, 300));
    assert!(matches!(live.next(LONG), Next::Ended), "the end is told every time");
}

#[test]
fn frames_that_are_not_due_are_passed_over_and_not_lost() {
    let live = live("pattern://noise?frames=100&width=8&height=6&fps=10", unpaced(Some(2.0)));
    let taken: Vec<usize> = all(&live).iter().map(|frame| frame.stamp.index).collect();
    assert_eq!(taken, (0..20).map(|n| 5 * n).collect::<Vec<_>>());
    let status = live.status();
    assert_eq!((status.captured, status.not_due, status.dropped_handover), (100, 80, 0));
}

#[test]
fn a_clip_in_real_time_takes_its_time_and_a_slow_reader_misses_frames() {
    let began = Instant::now();
    let live = live("pattern://noise?frames=20&width=8&height=6&fps=50", LiveOptions::default());
    let mut taken = Vec::new();
    while let Next::Frame(frame) = live.next(LONG) {
        taken.push(frame.stamp.index);
        std::thread::sleep(Duration::from_millis(90));
    }
    assert!(began.elapsed() >= Duration::from_millis(380), "20 frames at 50 a second last 380 ms");
    assert!(taken.is_sorted_by(|a, b| a < b) && taken.last() == Some(&19), "{taken:?}");
    let status = live.status();
    assert_eq!((status.captured, status.waiting), (20, 0));
    assert!(status.dropped_handover > 0);
    assert_eq!(status.delivered + status.dropped_handover, 20);
    assert_eq!(status.delivered, taken.len() as u64);
}

#[test]
fn a_folder_that_loops_goes_on_and_pictures_may_change_their_size() {
    let folder = tempfile::tempdir().unwrap();
    for (n, width) in [4, 4, 6].into_iter().enumerate() {
        image::RgbImage::new(width, 3).save(folder.path().join(format!("{n}.png"))).unwrap();
    }
    let live = Live::start(&Source::Loop(folder.path().into()), unpaced(None)).unwrap();
    let mut frames = Vec::new();
    while frames.len() < 8 {
        let Next::Frame(frame) = live.next(LONG) else { panic!("the loop ended") };
        frames.push((frame.stamp.index, frame.stamp.pts_ms, frame.image.width));
    }
    let expected: Vec<_> = (0..8usize).map(|n| (n, 40 * n as u64, [4, 4, 6][n % 3])).collect();
    assert_eq!(frames, expected);
    let status = live.status();
    assert_eq!(status.reconnects, 0);
    assert!(status.caps_changes >= 4, "{status:?}");
}

#[test]
fn what_no_retry_cures_fails_at_once() {
    for uri in ["/no/such/clip.mp4", "pattern://spiral", "replay://a.mcap", "file:///no/such?loop=true"] {
        let live = live(uri, LiveOptions::default());
        let Next::Failed(first) = live.next(LONG) else { panic!("{uri} did not fail") };
        let Next::Failed(second) = live.next(LONG) else { panic!("{uri} forgot that it failed") };
        assert!(second.to_string().contains(&first.reason()), "{first} {second}");
        assert_eq!(live.status().state, LiveState::Failed);
    }
    let source = Source::parse("pattern://noise").unwrap();
    assert!(Live::start(&source, unpaced(Some(0.0))).is_err());
    assert!(Live::start(&source, unpaced(Some(f64::NAN))).is_err());
}

#[test]
fn a_camera_that_is_not_there_is_waited_for_and_an_interrupt_is_heard() {
    let options =
        LiveOptions { backoff: Backoff { first: LONG, longest: LONG, steady: LONG }, ..Default::default() };
    let interrupt = options.capture.interrupt.clone();
    let live = live("/dev/video987", options);
    let state = loop {
        match live.status().state {
            LiveState::Opening => std::thread::sleep(Duration::from_millis(5)),
            state => break state,
        }
    };
    if cfg!(feature = "gst") {
        assert!(matches!(&state, LiveState::Waiting { attempt: 1, reason, .. } if !reason.is_empty()));
        assert!(matches!(live.next(Duration::ZERO), Next::Quiet));
        interrupt.request();
        assert!(matches!(live.next(LONG), Next::Failed(Error::Interrupted)));
        assert!(matches!(live.next(LONG), Next::Failed(Error::Interrupted)));
    } else {
        assert_eq!(state, LiveState::Failed);
    }
}

#[test]
fn dropping_it_ends_a_thread_that_waits() {
    // In a hand-over that nobody takes, and in a pause before the next frame.
    for options in [unpaced(None), LiveOptions::default()] {
        let live = live("pattern://noise?frames=1000&fps=1&width=8&height=8", options);
        assert!(matches!(live.next(LONG), Next::Frame(_)));
        let began = Instant::now();
        drop(live);
        assert!(began.elapsed() < LONG);
    }
}

#[test]
fn a_status_is_one_flat_json_object() {
    let live = live("pattern://noise?frames=3&width=8&height=8", unpaced(None));
    all(&live);
    let json = serde_json::to_value(live.status()).unwrap();
    assert_eq!((json["state"].as_str(), json["captured"].as_u64()), (Some("ended"), Some(3)));
}
