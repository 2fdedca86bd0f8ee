//! `utr ros` in a process of its own, and a camera and a client in this one, over DDS on this machine. The messages are written down here a second
//! time, so that both ends cannot be wrong alike. Where no interface carries multicast there is no DDS: the tests are left out, with a word, unless
//! `UTR_TEST_ROS=required`.
#![cfg(feature = "ros2")]

#[path = "ros/multicast.rs"]
mod multicast;
#[path = "ros/robot.rs"]
mod robot;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use robot::*;

/// Between two messages that must both be read.
const APART: Duration = Duration::from_millis(100);
/// Requests at once; both ends keep the newest ten of a topic.
const BURST: usize = 8;
/// Tells a process that it is to listen, and in which domain.
const LISTENER: &str = "UTR_TEST_ROS_LISTENER";
/// What it prints when it hears something.
const HEARD: &str = "an answer came";

#[test]
fn a_camera_and_a_client_in_another_process_are_served_and_rubbish_is_survived() {
    if !multicast::works() {
        return;
    }
    let domain = domain(0);
    let mut utr = Utr::start(
        domain,
        &[
            "--frames",
            "4",
            "--fps",
            "20",
            "--question",
            "What is this?",
            "--every",
            "300ms",
            "--on-change",
            "--max-tokens",
            "4",
            "--capture-timeout",
            "1",
        ],
    );
    let mut robot = Robot::new(domain);
    let early = robot.ask("Is anything there?", false, &utr);
    assert!(
        !early.ok && early.answer.contains("no frame has come yet") && early.json.is_empty(),
        "{early:?}"
    );

    // What cannot be read: another encoding, rows that are too short, no pixels at all, no image at all.
    // The newest alone is kept, so that each is given time to be read.
    for _ in 0..5 {
        robot.camera.publish(image(1, "16UC1", (8, 8), 2)).unwrap();
        std::thread::sleep(APART);
        robot.camera.publish(Image { step: 7, ..image(1, "rgb8", (8, 8), 3) }).unwrap();
        std::thread::sleep(APART);
        robot.camera.publish(image(1, "mono8", (0, 8), 1)).unwrap();
        std::thread::sleep(APART);
        robot.rubbish.publish(Rubbish(1, u64::MAX)).unwrap();
        std::thread::sleep(APART);
    }

    let reply = ask_until_answered(&mut robot, "What is shown?", true, &utr);
    let json: Value = serde_json::from_str(&reply.json).unwrap();
    assert_eq!((&json["text"], &json["question"]), (&reply.answer.clone().into(), &"What is shown?".into()));
    let full = |json: &Value| json["frames"].as_array().unwrap().len() == 4;
    let mut show = |robot: &mut Robot| robot.show("bgr8", (64, 48));
    let json = hear(&mut robot, "a full window", &utr, false, &mut show, &full);
    assert_eq!(json["question"], "What is this?");
    // The window's times are the camera's own.
    let (oldest, newest) = (json["oldest"]["sec"].as_i64().unwrap(), json["newest"]["sec"].as_i64().unwrap());
    assert!(0 < oldest && oldest < newest && newest <= i64::from(robot.second), "{json}");
    assert_eq!((&json["oldest"]["nanosec"], &json["newest"]["nanosec"]), (&7.into(), &7.into()));
    let refused: BTreeSet<&str> =
        json["images"]["refused_as"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(refused, ["16UC1", "unreadable", "wrong sizes"].into(), "{json}");
    assert!(json["images"]["refused"].as_u64().unwrap() >= 4 && utr.log().contains("16UC1"), "{json}");
    let alert = hear(&mut robot, "an alert", &utr, true, &mut show, &|_| true);
    assert_eq!(alert["question"], "What is this?");

    let known = |report: &Diagnostics| report.part("window").count("frames") == 4;
    let report = diagnosed(&mut robot, "a full window in the diagnostics", &utr, &mut show, &known);
    let (source, window, answers) = (report.part("source"), report.part("window"), report.part("answers"));
    assert_eq!((source.value("state"), source.hardware_id.as_str()), ("running", "the topic /utr/image"));
    assert!(source.count("images taken") >= 4 && source.count("images left out: 16UC1") >= 1, "{source:?}");
    assert!(window.message.starts_with("4 of 4 frames") && window.count("frames seen") >= 4, "{window:?}");
    assert!(
        answers.count("given") >= 2 && answers.value("last error").contains("no frame has come yet"),
        "{answers:?}"
    );
    assert_eq!((answers.value("replies not sent"), answers.value("answers not sent")), ("0", "0"));

    let empty = robot.ask("  ", true, &utr);
    assert!(!empty.ok && empty.answer.contains("empty"), "{empty:?}");

    // A large picture travels in many pieces. What came before it may still be in the window.
    let taken = json["images"]["taken"].as_u64().unwrap();
    let began = robot.second;
    let mut show = |robot: &mut Robot| robot.show("mono8", (640, 480));
    let large = |json: &Value| json["oldest"]["sec"].as_i64().unwrap() > i64::from(began);
    let json = hear(&mut robot, "a window of large pictures", &utr, false, &mut show, &large);
    assert!(json["images"]["taken"].as_u64().unwrap() > taken, "{json}");

    // The camera falls silent past the timeout, and comes back.
    std::thread::sleep(Duration::from_secs(2));
    assert!(utr.log().contains("no picture came for 1.0 s"), "{}", utr.log());
    let away = |report: &Diagnostics| report.part("source").value("state") == "waiting";
    let report = diagnosed(&mut robot, "the silence in the diagnostics", &utr, &mut |_| (), &away);
    let source = report.part("source");
    assert!(source.level == 2 && source.message.contains("no picture came for 1.0 s"), "{source:?}");
    let began = robot.second;
    let mut show = |robot: &mut Robot| robot.show("rgb8", (32, 32));
    let back = |json: &Value| json["oldest"]["sec"].as_i64().unwrap() > i64::from(began);
    hear(&mut robot, "a window after the silence", &utr, false, &mut show, &back);

    Command::new("kill").args(["-TERM", &utr.child.id().to_string()]).status().unwrap();
    let end = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = utr.child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < end, "it does not end: {}", utr.log());
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success(), "{status}: {}", utr.log());
}

#[test]
fn another_source_is_answered_about_too() {
    if !multicast::works() {
        return;
    }
    let domain = domain(1) + 1;
    let utr = Utr::start(
        domain,
        &["--source", "pattern://squares?frames=1000000&width=64&height=64", "--fps", "10", "--frames", "2"],
    );
    let mut robot = Robot::new(domain);
    let reply = ask_until_answered(&mut robot, "What moves?", false, &utr);
    let json: Value = serde_json::from_str(&reply.json).unwrap();
    assert!(json["oldest"].is_null() && json["images"].is_null() && json["frames"].is_array(), "{json}");

    // Once a second, by the reports' own times.
    let mut times = BTreeSet::new();
    while times.len() < 4 {
        let any = |_: &Diagnostics| true;
        let report = diagnosed(&mut robot, "a report", &utr, &mut |_| (), &any);
        assert!(report.part("source").hardware_id.starts_with("pattern://squares"), "{report:?}");
        times.insert(report.sec);
    }
    let (first, last) = (times.first().unwrap(), times.last().unwrap());
    assert!(last - first >= 3, "{times:?}");
}

/// Sends requests faster than they can be answered; every one must get its reply.
fn burst(robot: &Robot, utr: &Utr) -> Vec<Reply> {
    let ask = |_| robot.client.send_request(Ask { question: "What is shown?".into() }).unwrap();
    let sent: Vec<_> = (0..BURST).map(ask).collect();
    let mut replies = Vec::new();
    let end = Instant::now() + PATIENCE;
    while replies.len() < sent.len() {
        assert!(Instant::now() < end, "{} of {BURST} replies: {replies:?}; {}", replies.len(), utr.log());
        match robot.client.receive_response().unwrap() {
            Some((id, reply)) if sent.contains(&id) => replies.push(reply),
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    replies
}

#[test]
fn the_first_round_sees_a_full_window_and_a_full_queue_says_so() {
    if !multicast::works() {
        return;
    }
    let domain = domain(2);
    let arguments = "--frames 4 --fps 20 --queue 0 --question Where? --every 30s --capture-timeout 60";
    let utr = Utr::start(domain, &arguments.split(' ').collect::<Vec<_>>());
    let mut robot = Robot::new(domain);
    let empty = |report: &Diagnostics| report.part("window").count("frames") == 0;
    let report = diagnosed(&mut robot, "an empty window", &utr, &mut |_| (), &empty);
    assert_eq!((report.part("window").level, report.part("source").value("images taken")), (1, "0"));
    let early = robot.ask("Is anything there?", false, &utr);
    assert!(!early.ok && early.answer.contains("no frame has come yet"), "{early:?}");

    let mut show = |robot: &mut Robot| robot.show("rgb8", (64, 48));
    let first = hear(&mut robot, "an answer", &utr, false, &mut show, &|_| true);
    assert_eq!((&first["question"], first["frames"].as_array().unwrap().len()), (&"Where?".into(), 4));

    let end = Instant::now() + PATIENCE;
    let mut answered = 0;
    loop {
        let replies = burst(&robot, &utr);
        let (yes, no): (Vec<_>, Vec<_>) = replies.into_iter().partition(|reply| reply.ok);
        answered += yes.len() as u64;
        assert!(no.iter().all(|reply| reply.answer.contains("too many questions are waiting")), "{no:?}");
        if answered > 0 && !no.is_empty() {
            break;
        }
        assert!(Instant::now() < end, "the queue was never full: {}", utr.log());
    }
    let counted = |report: &Diagnostics| {
        let answers = report.part("answers");
        answers.count("given") > answered && answers.count("refused") > 0
    };
    let report = diagnosed(&mut robot, "the refusals", &utr, &mut |_| (), &counted);
    let answers = report.part("answers");
    assert!(answers.value("last error").contains("too many questions"), "{answers:?}");
    assert_eq!((answers.value("pending"), answers.value("replies not sent")), ("0", "0"));
}

/// Stops a process, which then holds what it owns but confirms nothing, until it is dropped.
struct Stopped(Child);

impl Stopped {
    fn listener(domain: u16) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "listens_until_it_is_ended", "--ignored", "--nocapture"])
            .env(LISTENER, domain.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line.contains(HEARD)), "the listener heard nothing");
        let stopped = Command::new("kill").args(["-STOP", &child.id().to_string()]).status().unwrap();
        assert!(stopped.success());
        Self(child)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not a test: the process that [`Stopped::listener`] starts.
#[test]
#[ignore = "runs in a process of its own, started by another test"]
fn listens_until_it_is_ended() {
    let Ok(domain) = std::env::var(LISTENER) else { return };
    let robot = Robot::new(domain.parse().unwrap());
    let end = Instant::now() + 2 * PATIENCE;
    while Instant::now() < end {
        if robot.answers.take().unwrap().is_some() {
            println!("{HEARD}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
#[ignore = "takes most of a minute: DDS itself keeps 8192 answers that nobody confirms before one waits here"]
fn a_listener_that_stops_costs_answers_but_no_reply() {
    if !multicast::works() {
        return;
    }
    let domain = domain(3) + 1;
    let arguments = "--source pattern://squares?frames=1000000&width=64&height=64 --fps 2 --frames 1 --queue 8 \
                     --max-tokens 1 --question Where? --every 20ms";
    let utr = Utr::start(domain, &arguments.split_whitespace().collect::<Vec<_>>());
    let mut robot = Robot::new(domain);
    ask_until_answered(&mut robot, "What is shown?", false, &utr);
    let _stopped = Stopped::listener(domain);
    let mut step = |robot: &mut Robot| {
        for _ in 0..20 {
            let replies = burst(robot, &utr);
            assert!(replies.iter().all(|reply| reply.ok), "{replies:?}");
        }
    };
    let lost = |report: &Diagnostics| report.part("answers").count("answers not sent") > 0;
    let report = diagnosed(&mut robot, "answers that are not sent", &utr, &mut step, &lost);
    let answers = report.part("answers");
    assert_eq!((answers.level, answers.value("replies not sent")), (1, "0"), "{answers:?}");
    assert!(utr.log().contains("of the answers to be sent over ROS 2"), "{}", utr.log());
    step(&mut robot);
}
