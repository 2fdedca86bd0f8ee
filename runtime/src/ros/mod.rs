//! `utr ros`: the live window as a ROS 2 node.
//!
//! Comes in: images of a topic (or any other source), questions as service requests, standing questions. Goes out: responses, every answer on
//! `~/answer`, those of standing questions that count on `~/alerts`, all as the JSON that `utr watch` prints, with the senders' times of the window's
//! oldest and newest frame. A [`Session`] sees and answers; DDS has a thread of its own. No ROS installation is needed.

pub mod messages;
pub mod node;

use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ros2_client::service::RmwRequestId;
use serde::Serialize;
use utr_models::generate::Sampling as TokenSampling;

use self::messages::{Reply, Time};
use self::node::{Counters, Images, Running, Sender};
use crate::answer::{Answer, Question, check_question};
use crate::capture::live::{Backoff, LiveOptions};
use crate::capture::{CaptureOptions, Feed};
use crate::cli::Ros;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::load::Model;
use crate::session::{Job, Refused, Session, SessionOptions};
use crate::watch::{Gate, Teller};

/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_millis(20);
/// A topic costs nothing to wait for: a sender that comes back is read at once.
const WAIT: Duration = Duration::from_millis(50);

/// One answer, as it is sent.
#[derive(Serialize)]
struct Line<'a> {
    /// Milliseconds since 1970.
    time_ms: u64,
    question: &'a str,
    /// The senders' times of the oldest and the newest frame, where the images had any.
    oldest: Option<Time>,
    newest: Option<Time>,
    /// What came on the topic; none where the source is another.
    images: Option<Images>,
    #[serde(flatten)]
    answer: &'a Answer,
}

/// Makes lines.
#[derive(Clone)]
struct Scribe {
    feed: Option<Feed>,
    counters: Counters,
}

impl Scribe {
    fn line(&self, question: &str, answer: &Answer) -> Result<String> {
        let time = |frame: Option<&crate::report::FrameUsed>| {
            let time = self.feed.as_ref()?.time_ns(frame?.index)?;
            Some(Time::from_nanos(time))
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let images = || self.counters.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let line = Line {
            time_ms: u64::try_from(now).unwrap_or(u64::MAX),
            question,
            oldest: time(answer.frames.first()),
            newest: time(answer.frames.last()),
            images: self.feed.as_ref().map(|_| images()),
            answer,
        };
        serde_json::to_string(&line).map_err(|error| Error::Argument(format!("writing the answer: {error}")))
    }
}

/// What answers, for the node's thread and this one.
#[derive(Clone)]
struct Desk {
    session: Arc<Session>,
    sender: Sender,
    scribe: Scribe,
    ros: Ros,
    sampling: TokenSampling,
}

/// Runs the command; `bundle` is the folder to load.
///
/// # Errors
/// Whatever loading, the source and DDS report. What is wrong with one question or one image stays there.
pub fn run(ros: &Ros, bundle: &Path, interrupt: &Interrupt) -> anyhow::Result<()> {
    let model = Model::open(bundle, ros.stream.encoder)?;
    let defaults = model.language.defaults;
    let capture = CaptureOptions {
        timeout: ros.stream.timeout,
        interrupt: interrupt.clone(),
        ..CaptureOptions::default()
    };
    let backoff = match ros.image {
        Some(_) => Backoff { first: WAIT, longest: WAIT, steady: WAIT },
        None => Backoff::default(),
    };
    let fps = Some(ros.stream.fps.unwrap_or(defaults.fps));
    let options = SessionOptions {
        settings: ros.stream.settings(&defaults, defaults.mode)?,
        live: LiveOptions { capture, fps, backoff, ..LiveOptions::default() },
        // Standing questions are asked one after the other.
        queue: ros.queue + 1,
        observers: Vec::new(),
    };
    let counters = Counters::default();
    let (sender, outbox) = node::outbox();
    let feed = ros.image.as_ref().map(|(_, feed)| feed.clone());
    let desk = Desk {
        session: Arc::new(Session::start(model, &ros.stream.source, options, interrupt)?),
        sender,
        scribe: Scribe { feed, counters: Arc::clone(&counters) },
        ros: ros.clone(),
        sampling: ros.tokens.over(defaults.tokens),
    };
    let answering = desk.clone();
    let asked = Box::new(move |id, text| answering.answer(id, text));
    let mut node = Running::start(ros, counters, outbox, asked)?;
    eprintln!(
        "utr: node {} in domain {} reads {}",
        ros.private("").trim_end_matches('/'),
        ros.domain_id,
        ros.stream.source
    );
    match desk.follow(&mut node, interrupt) {
        Err(Error::Interrupted) => Ok(()),
        other => Ok(other?),
    }
}

impl Desk {
    fn question(&self, text: &str) -> Question {
        let question = Question::new(text).with_system(self.ros.stream.system.clone());
        Question { prompt: self.ros.stream.prompt, ..question.with_sampling(self.sampling) }
    }

    /// Takes a request; the response goes out when it is there. Never waits.
    fn answer(&self, id: RmwRequestId, text: String) {
        let no = |reason: String| Reply { ok: false, answer: reason, json: String::new() };
        if let Err(error) = check_question(&text) {
            return self.sender.reply(id, no(error.to_string()));
        }
        let (sender, scribe) = (self.sender.clone(), self.scribe.clone());
        let job = Job {
            question: self.question(&text),
            cancel: self.session.cancel_flag(),
            on_text: Box::new(|_| Ok(())),
            done: Box::new(move |outcome, _| {
                let told = outcome.and_then(|answer| Ok((scribe.line(&text, &answer)?, answer.text)));
                match told {
                    Ok((json, answer)) => {
                        sender.answer(json.clone());
                        sender.reply(id, Reply { ok: true, answer, json });
                    }
                    Err(error) => sender.reply(id, no(error.to_string())),
                }
            }),
        };
        if let Err((refused, _)) = self.session.submit(job) {
            let reason = match refused {
                Refused::Busy => "too many questions are waiting; ask again later",
                Refused::Ended => "the session has ended",
            };
            self.sender.reply(id, no(reason.into()));
        }
    }

    /// Asks the standing questions until a stop is asked for.
    fn follow(&self, node: &mut Running, interrupt: &Interrupt) -> Result<()> {
        let mut gates: Vec<Gate> = self.ros.question.iter().map(|_| self.ros.schedule.gate()).collect();
        let mut teller = Teller::default();
        let mut due = Instant::now();
        loop {
            interrupt.check()?;
            node.check()?;
            teller.tell(&self.session);
            if self.session.view().is_none() {
                if self.session.ended() {
                    let status = self.session.status();
                    let reason = status.last_error.or(status.live.last_error);
                    let reason = reason.unwrap_or_else(|| "it ended without a frame".into());
                    return Err(Error::capture(self.ros.stream.source.to_string(), reason));
                }
            } else if Instant::now() >= due {
                // A turn that was missed is not made up for.
                due = Instant::now().max(due + self.ros.schedule.every);
                self.ask_all(&mut gates, interrupt)?;
            }
            std::thread::sleep(TICK);
        }
    }

    fn ask_all(&self, gates: &mut [Gate], interrupt: &Interrupt) -> Result<()> {
        for (text, gate) in self.ros.question.iter().zip(gates) {
            interrupt.check()?;
            let answer = match self.session.ask(self.question(text)) {
                Ok((answer, _)) => answer,
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => {
                    eprintln!("utr: {text:?} was not answered: {error}");
                    continue;
                }
            };
            let line = self.scribe.line(text, &answer)?;
            if gate.counts(&answer.text, Instant::now()) {
                self.sender.alert(line.clone());
            }
            self.sender.answer(line);
        }
        Ok(())
    }
}
