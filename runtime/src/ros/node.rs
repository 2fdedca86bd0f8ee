//! The node itself: one thread that speaks DDS.
//!
//! Comes in: images, requests, and from the other threads, through the outbox, what is to be sent. Goes out: pictures into the feed, questions to
//! [`Asked`], messages, each topic at the pace of its own readers.
//! What cannot be read is counted and named, and the node goes on. It knows nothing of windows and models.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use futures::channel::oneshot;
use futures::{FutureExt, StreamExt};
use ros2_client::service::RmwRequestId;
use ros2_client::{
    Context, ContextOptions, MessageTypeName, Name, Node, NodeName, NodeOptions, Publisher, QosProfile,
    ReadError, Server, ServiceMapping, ServiceTypeName, Subscription, qos::History, qos::WhenFull,
};
use serde::Serialize;

use super::messages::{Ask, DiagnosticArray, Image, Reply, Text, Unread};
use super::outbox::{Lane, Sender};
use crate::capture::Feed;
use crate::cli::{Ros, ServiceKind};
use crate::error::{Error, Result};

/// Messages of a topic that are kept for readers who are slow.
const KEPT: usize = 10;
/// Names of encodings that are counted one by one.
const NAMES: usize = 16;
/// Characters of such a name.
const NAME_LENGTH: usize = 32;

/// Images so far.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Images {
    /// Taken.
    pub taken: u64,
    /// Not taken.
    pub refused: u64,
    /// Of these, by the encoding's name, `wrong sizes` or `unreadable`.
    pub refused_as: BTreeMap<String, u64>,
}

/// The counters, shared.
pub type Counters = Arc<Mutex<Images>>;

/// Gets every request; the reply is put into the outbox later.
pub type Asked = Box<dyn Fn(RmwRequestId, String) + Send>;

/// A running node. Dropping it ends it.
pub struct Running {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Running {
    /// Starts the node and waits until its topics exist.
    ///
    /// # Errors
    /// [`Error::Argument`] where DDS refuses; [`Error::Io`] where the system gives no thread.
    pub fn start(ros: &Ros, counters: Counters, outbox: Sender, asked: Asked) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = sync_channel(1);
        let ros = ros.clone();
        let body = move || match Ends::open(&ros) {
            Ok(ends) => {
                let _ = tell.send(Ok(()));
                futures::executor::block_on(ends.run(&counters, &outbox, &asked, stopped))
            }
            Err(error) => {
                let _ = tell.send(Err(error));
                Ok(())
            }
        };
        let thread = std::thread::Builder::new().name("utr-ros".into()).spawn(body);
        let thread = thread.map_err(Error::io("a thread for the ROS node"))?;
        told.recv().unwrap_or_else(|_| Err(broke()))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }

    /// Why the node ended by itself, if it did.
    ///
    /// # Errors
    /// [`Error::Argument`].
    pub fn check(&mut self) -> Result<()> {
        match self.thread.take_if(|thread| thread.is_finished()) {
            Some(thread) => thread.join().unwrap_or_else(|_| Err(broke())).and(Err(broke())),
            None => Ok(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn broke() -> Error {
    Error::Argument("the ROS node ended unasked; please report this".into())
}

fn refused(what: &str) -> impl Fn(String) -> Error {
    move |reason| Error::Argument(format!("ROS 2: {what}: {reason}"))
}

/// The node and what it reads and writes.
struct Ends {
    node: Node,
    image: Option<(Subscription<Image>, Feed)>,
    ask: Server<Ask, Reply>,
    answer: Publisher<Text>,
    alerts: Publisher<Text>,
    diagnostics: Publisher<DiagnosticArray>,
}

impl Ends {
    fn open(ros: &Ros) -> Result<Self> {
        let options = ContextOptions::new().domain_id(ros.domain_id);
        let context = Context::with_options(options).map_err(|error| {
            refused("DDS does not start; is there a network, even if only loopback?")(error.to_string())
        })?;
        let name = NodeName::new(&ros.namespace, &ros.name)
            .map_err(|error| refused("the node's name")(format!("{error:?}")))?;
        let options = NodeOptions::new().enable_rosout(false).start_parameter_services(false);
        let mut node = context
            .new_node(name, options)
            .map_err(|error| refused("the node does not start")(format!("{error:?}")))?;
        let image = match &ros.image {
            Some((topic, feed)) => Some((subscribe(&mut node, topic)?, feed.clone())),
            None => None,
        };
        let mapping = match ros.services {
            ServiceKind::Enhanced => ServiceMapping::Enhanced,
            ServiceKind::Cyclone => ServiceMapping::Cyclone,
            ServiceKind::Basic => ServiceMapping::Basic,
        };
        let path = ros.private("ask");
        let kind = ServiceTypeName::new("utr_msgs", "Ask");
        let ask = node
            .create_server(mapping, &name_of(&path)?, &kind, reliable(), reliable())
            .map_err(|error| refused(&path)(error.to_string()))?;
        let text = ("std_msgs", "String");
        let answer = publish(&mut node, &ros.private("answer"), text)?;
        let alerts = publish(&mut node, &ros.private("alerts"), text)?;
        let diagnostics = publish(&mut node, "/diagnostics", ("diagnostic_msgs", "DiagnosticArray"))?;
        Ok(Self { node, image, ask, answer, alerts, diagnostics })
    }

    /// Reads and writes until it is told to stop.
    async fn run(
        mut self,
        counters: &Counters,
        outbox: &Sender,
        asked: &Asked,
        stopped: oneshot::Receiver<()>,
    ) -> Result<()> {
        let spinner = self.node.spinner().map_err(|error| refused("the node")(error.to_string()))?;
        let mut spin = pin!(spinner.spin().fuse());
        let mut images = pin!(self.images(counters).fuse());
        let mut requests = pin!(self.requests(asked).fuse());
        let mut replies = pin!(self.reply(outbox).fuse());
        let mut answers = pin!(send(&self.answer, &outbox.answers).fuse());
        let mut alerts = pin!(send(&self.alerts, &outbox.alerts).fuse());
        let mut diagnostics = pin!(send(&self.diagnostics, &outbox.diagnostics).fuse());
        let mut stopped = stopped.fuse();
        futures::select! {
            ended = spin => ended.map_err(|error| refused("the node")(error.to_string())),
            ended = images => ended,
            ended = requests => ended,
            () = replies => Ok(()),
            () = answers => Ok(()),
            () = alerts => Ok(()),
            () = diagnostics => Ok(()),
            _ = stopped => Ok(()),
        }
    }

    async fn images(&self, counters: &Counters) -> Result<()> {
        let Some((subscription, feed)) = &self.image else { return std::future::pending().await };
        let mut stream = pin!(subscription.async_stream());
        while let Some(read) = stream.next().await {
            let taken = match read {
                Ok((image, _)) => image.into_picture(),
                Err(error) => Err(Unread::Broken(unreadable(error)?)),
            };
            match taken {
                Ok(picture) => {
                    counters.lock().unwrap_or_else(PoisonError::into_inner).taken += 1;
                    feed.put(picture);
                }
                Err(unread) => count(counters, &unread),
            }
        }
        Err(broke())
    }

    async fn requests(&self, asked: &Asked) -> Result<()> {
        let mut stream = pin!(self.ask.receive_request_stream());
        while let Some(read) = stream.next().await {
            match read {
                Ok((id, ask)) => asked(id, ask.question),
                Err(error) => eprintln!("utr: a request could not be read: {}", unreadable(error)?),
            }
        }
        Err(broke())
    }

    async fn reply(&self, outbox: &Sender) {
        loop {
            let (id, reply) = outbox.replies.next().await;
            if let Err(error) = self.ask.async_send_response(id, reply).await {
                outbox.replies.lose(&error);
            }
        }
    }
}

/// Publishes what comes through a lane, as fast as the topic's readers confirm it.
async fn send<T: Serialize>(publisher: &Publisher<T>, lane: &Lane<T>) {
    loop {
        if let Err(error) = publisher.async_publish(lane.next().await).await {
            lane.lose(&error);
        }
    }
}

/// What of one message was wrong; an error where reading itself has ended.
fn unreadable(error: ReadError) -> Result<String> {
    match error {
        ReadError::Closed | ReadError::Poisoned { .. } => Err(refused("reading")(error.to_string())),
        other => Ok(other.to_string()),
    }
}

/// Counts an image that was not taken, and tells the first of a kind.
fn count(counters: &Counters, unread: &Unread) {
    let (name, reason) = match unread {
        Unread::Encoding(name) => {
            let short: String = name.chars().take(NAME_LENGTH).collect();
            (short, "only rgb8, bgr8 and mono8 are read")
        }
        Unread::Sizes(reason) => ("wrong sizes".to_string(), reason.as_str()),
        Unread::Broken(reason) => ("unreadable".to_string(), reason.as_str()),
    };
    let mut images = counters.lock().unwrap_or_else(PoisonError::into_inner);
    images.refused += 1;
    if let Some(times) = images.refused_as.get_mut(&name) {
        *times += 1;
    } else if images.refused_as.len() < NAMES {
        eprintln!("utr: an image is left out ({name:?}: {reason}); further ones like it are counted only");
        images.refused_as.insert(name, 1);
    }
}

fn name_of(path: &str) -> Result<Name> {
    Name::parse(path).map_err(|error| refused(path)(format!("{error:?}")))
}

/// Where readers do not confirm, the outbox waits, and counts what it has no room for.
fn reliable() -> QosProfile {
    let profile = QosProfile::publisher_default().reliability_reliable(WhenFull::Block);
    profile.history(History::KeepLast { depth: KEPT })
}

/// As ROS 2's sensor data is read, but the newest alone: what is older than that is not wanted.
fn subscribe(node: &mut Node, path: &str) -> Result<Subscription<Image>> {
    let newest = QosProfile::subscription_default().reliability_best_effort();
    let newest = newest.history(History::KeepLast { depth: 1 });
    node.create_topic(&name_of(path)?, MessageTypeName::new("sensor_msgs", "Image"), &newest)
        .and_then(|topic| node.create_subscription(&topic, None))
        .map_err(|error| refused(path)(error.to_string()))
}

fn publish<T: Serialize>(node: &mut Node, path: &str, (package, kind): (&str, &str)) -> Result<Publisher<T>> {
    node.create_topic(&name_of(path)?, MessageTypeName::new(package, kind), &reliable())
        .and_then(|topic| node.create_publisher(&topic, None))
        .map_err(|error| refused(path)(error.to_string()))
}
