//! `utr ros` in a process of its own, and a camera and a client in this one, over DDS on this machine. The messages are written down here a second
//! time, so that both ends cannot be wrong alike. Where no interface carries multicast there is no DDS: the tests are left out, with a word, unless
//! `UTR_TEST_ROS=required`.
#![cfg(feature = "ros2")]

#[path = "ros/multicast.rs"]
mod multicast;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ros2_client::qos::History;
use ros2_client::{
    Client, Context, ContextOptions, Message, MessageTypeName, Name, Node, NodeName, NodeOptions, Publisher,
    QosProfile, ServiceMapping, ServiceTypeName, Subscription,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest wait for anything, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two messages that must both be read.
const APART: Duration = Duration::from_millis(100);
/// Requests at once; both ends keep the newest ten of a topic.
const BURST: usize = 8;
/// Tells a process that it is to listen, and in which domain.
const LISTENER: &str = "UTR_TEST_ROS_LISTENER";
/// What it prints when it hears something.
const HEARD: &str = "an answer came";
/// After this long a request is sent again: the first may leave before the node is known.
const AGAIN: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Serialize)]
struct Image {
    sec: i32,
    nanosec: u32,
    frame_id: String,
    height: u32,
    width: u32,
    encoding: String,
    is_bigendian: u8,
    step: u32,
    data: Vec<u8>,
}

/// What no image is.
#[derive(Debug, Serialize)]
struct Rubbish(u32, u64);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Text(String);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Ask {
    question: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Reply {
    ok: bool,
    answer: String,
    json: String,
}

/// diagnostic_msgs/msg/DiagnosticArray.
#[derive(Clone, Debug, Deserialize)]
struct Diagnostics {
    sec: i32,
    _nanosec: u32,
    _frame_id: String,
    status: Vec<DiagnosticStatus>,
}

#[derive(Clone, Debug, Deserialize)]
struct DiagnosticStatus {
    level: u8,
    name: String,
    message: String,
    hardware_id: String,
    values: Vec<(String, String)>,
}

impl Diagnostics {
    /// The part of the node with this name.
    fn part(&self, name: &str) -> &DiagnosticStatus {
        let name = format!("utr: {name}");
        self.status
            .iter()
            .find(|status| status.name == name)
            .unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }
}

impl DiagnosticStatus {
    fn value(&self, key: &str) -> &str {
        let found = self.values.iter().find(|(name, _)| name == key);
        &found.unwrap_or_else(|| panic!("no {key:?} in {self:?}")).1
    }

    fn count(&self, key: &str) -> u64 {
        self.value(key).parse().unwrap()
    }
}

impl Message for Ask {}
impl Message for Reply {}

fn image(sec: i32, encoding: &str, (width, height): (u32, u32), bytes: u32) -> Image {
    let step = width * bytes;
    let level = sec as u8;
    Image {
        sec,
        nanosec: 7,
        frame_id: "camera".into(),
        height,
        width,
        encoding: encoding.into(),
        is_bigendian: 0,
        step,
        data: vec![level; (step * height) as usize],
    }
}

/// The process under test; ended when dropped.
struct Utr {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Utr {
    fn start(domain: u16, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_utr"))
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap())
            .args(["ros", "--bundle", "models/bundles/utr-nano", "--domain-id", &domain.to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (mut lines, kept) = (child.stderr.take().unwrap(), Arc::clone(&log));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = std::io::Read::read(&mut lines, &mut bytes) {
                kept.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
        });
        Self { child, log }
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Utr {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other side: a camera, somebody who asks, somebody who listens.
struct Robot {
    _node: Node,
    camera: Publisher<Image>,
    rubbish: Publisher<Rubbish>,
    client: Client<Ask, Reply>,
    answers: Subscription<Text>,
    alerts: Subscription<Text>,
    diagnostics: Subscription<Diagnostics>,
    second: i32,
}

impl Robot {
    fn new(domain: u16) -> Self {
        let context = Context::with_options(ContextOptions::new().domain_id(domain)).unwrap();
        let mut node = context.new_node(NodeName::new("/", "robot").unwrap(), NodeOptions::new()).unwrap();
        let reliable = QosProfile::publisher_default().history(History::KeepLast { depth: 10 });
        let sensor = QosProfile::subscription_default();
        let kind = MessageTypeName::new("sensor_msgs", "Image");
        let images = node.create_topic(&Name::new("/utr", "image").unwrap(), kind, &sensor).unwrap();
        let mut listen = |name| {
            let kind = MessageTypeName::new("std_msgs", "String");
            let topic = node.create_topic(&Name::new("/utr", name).unwrap(), kind, &reliable).unwrap();
            node.create_subscription(&topic, None).unwrap()
        };
        let (answers, alerts) = (listen("answer"), listen("alerts"));
        let kind = MessageTypeName::new("diagnostic_msgs", "DiagnosticArray");
        let topic = node.create_topic(&Name::new("/", "diagnostics").unwrap(), kind, &reliable).unwrap();
        let diagnostics = node.create_subscription(&topic, None).unwrap();
        let (camera, rubbish) =
            (node.create_publisher(&images, None).unwrap(), node.create_publisher(&images, None).unwrap());
        let (name, kind) = (Name::new("/utr", "ask").unwrap(), ServiceTypeName::new("utr_msgs", "Ask"));
        let client =
            node.create_client(ServiceMapping::Enhanced, &name, &kind, reliable.clone(), reliable).unwrap();
        Self { _node: node, camera, rubbish, client, answers, alerts, diagnostics, second: 0 }
    }

    /// One picture a second by its own clock, as small or large as told.
    fn show(&mut self, encoding: &str, size: (u32, u32)) {
        self.second += 1;
        let bytes = if encoding == "mono8" { 1 } else { 3 };
        self.camera.publish(image(self.second, encoding, size, bytes)).unwrap();
    }

    /// Asks until somebody answers; goes on showing pictures where `seen`.
    fn ask(&mut self, question: &str, seen: bool, utr: &Utr) -> Reply {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let sent = self.client.send_request(Ask { question: question.into() }).unwrap();
            let again = Instant::now() + AGAIN;
            while Instant::now() < again {
                if let Some((id, reply)) = self.client.receive_response().unwrap()
                    && id == sent
                {
                    return reply;
                }
                if seen {
                    self.show("rgb8", (64, 48));
                }
                std::thread::sleep(Duration::from_millis(30));
            }
        }
        panic!("no reply to {question:?} within {PATIENCE:?}; utr says: {}", utr.log());
    }
}

/// Asks until there is an answer: the first frame may still be on its way.
fn ask_until_answered(robot: &mut Robot, question: &str, seen: bool, utr: &Utr) -> Reply {
    let end = Instant::now() + PATIENCE;
    loop {
        let reply = robot.ask(question, seen, utr);
        if reply.ok {
            return reply;
        }
        assert!(Instant::now() < end, "{reply:?}; utr says: {}", utr.log());
        if seen {
            robot.show("rgb8", (64, 48));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits for a message that is as wished, doing something meanwhile.
fn hear(
    robot: &mut Robot,
    what: &str,
    utr: &Utr,
    alerts: bool,
    step: &mut dyn FnMut(&mut Robot),
    wished: &dyn Fn(&Value) -> bool,
) -> Value {
    let end = Instant::now() + PATIENCE;
    let mut last = Value::Null;
    while Instant::now() < end {
        step(robot);
        let topic = if alerts { &robot.alerts } else { &robot.answers };
        while let Some((text, _)) = topic.take().unwrap() {
            last = serde_json::from_str(&text.0).unwrap();
            if wished(&last) {
                return last;
            }
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    panic!("never {what}; last {last}; utr says: {}", utr.log());
}

/// Waits for a report that is as wished, doing something meanwhile.
fn diagnosed(
    robot: &mut Robot,
    what: &str,
    utr: &Utr,
    step: &mut dyn FnMut(&mut Robot),
    wished: &dyn Fn(&Diagnostics) -> bool,
) -> Diagnostics {
    let end = Instant::now() + PATIENCE;
    let mut last = None;
    while Instant::now() < end {
        step(robot);
        while let Some((report, _)) = robot.diagnostics.take().unwrap() {
            if wished(&report) {
                return report;
            }
            last = Some(report);
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    panic!("never {what}; last {last:?}; utr says: {}", utr.log());
}

/// A domain of this run's own.
fn domain(offset: u16) -> u16 {
    1 + (std::process::id() as u16).wrapping_add(offset) % 100 * 2
}

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
