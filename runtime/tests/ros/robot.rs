//! The two ends of the tests over DDS: the process under test, and a camera, a client and a listener in this one.

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
pub const PATIENCE: Duration = Duration::from_secs(90);
/// After this long a request is sent again: the first may leave before the node is known.
pub const AGAIN: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Serialize)]
pub struct Image {
    pub sec: i32,
    pub nanosec: u32,
    pub frame_id: String,
    pub height: u32,
    pub width: u32,
    pub encoding: String,
    pub is_bigendian: u8,
    pub step: u32,
    pub data: Vec<u8>,
}

/// What no image is.
#[derive(Debug, Serialize)]
pub struct Rubbish(pub u32, pub u64);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Text(pub String);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ask {
    pub question: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reply {
    pub ok: bool,
    pub answer: String,
    pub json: String,
}

/// diagnostic_msgs/msg/DiagnosticArray.
#[derive(Clone, Debug, Deserialize)]
pub struct Diagnostics {
    pub sec: i32,
    pub _nanosec: u32,
    pub _frame_id: String,
    pub status: Vec<DiagnosticStatus>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct DiagnosticStatus {
    pub level: u8,
    pub name: String,
    pub message: String,
    pub hardware_id: String,
    pub values: Vec<(String, String)>,
}

impl Diagnostics {
    /// The part of the node with this name.
    pub fn part(&self, name: &str) -> &DiagnosticStatus {
        let name = format!("utr: {name}");
        self.status
            .iter()
            .find(|status| status.name == name)
            .unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }
}

impl DiagnosticStatus {
    pub fn value(&self, key: &str) -> &str {
        let found = self.values.iter().find(|(name, _)| name == key);
        &found.unwrap_or_else(|| panic!("no {key:?} in {self:?}")).1
    }

    pub fn count(&self, key: &str) -> u64 {
        self.value(key).parse().unwrap()
    }
}

impl Message for Ask {}
impl Message for Reply {}

pub fn image(sec: i32, encoding: &str, (width, height): (u32, u32), bytes: u32) -> Image {
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
pub struct Utr {
    pub child: Child,
    pub log: Arc<Mutex<String>>,
}

impl Utr {
    pub fn start(domain: u16, arguments: &[&str]) -> Self {
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

    pub fn log(&self) -> String {
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
pub struct Robot {
    pub _node: Node,
    pub camera: Publisher<Image>,
    pub rubbish: Publisher<Rubbish>,
    pub client: Client<Ask, Reply>,
    pub answers: Subscription<Text>,
    pub alerts: Subscription<Text>,
    pub diagnostics: Subscription<Diagnostics>,
    pub second: i32,
}

impl Robot {
    pub fn new(domain: u16) -> Self {
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
    pub fn show(&mut self, encoding: &str, size: (u32, u32)) {
        self.second += 1;
        let bytes = if encoding == "mono8" { 1 } else { 3 };
        self.camera.publish(image(self.second, encoding, size, bytes)).unwrap();
    }

    /// Asks until somebody answers; goes on showing pictures where `seen`.
    pub fn ask(&mut self, question: &str, seen: bool, utr: &Utr) -> Reply {
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
pub fn ask_until_answered(robot: &mut Robot, question: &str, seen: bool, utr: &Utr) -> Reply {
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
pub fn hear(
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
pub fn diagnosed(
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
pub fn domain(offset: u16) -> u16 {
    1 + (std::process::id() as u16).wrapping_add(offset) % 100 * 2
}
