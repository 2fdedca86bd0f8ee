//! `utr ros`: the live window as a ROS 2 node.
//!
//! Comes in: images of a topic (or any other source), questions as service requests, standing questions. Goes out: responses, every answer on
//! `~/answer`, those of standing questions that count on `~/alerts`, all as the JSON that `utr watch` prints, with the senders' times of the window's
//! oldest and newest frame, and how the node is on `/diagnostics`. A [`Session`] sees and answers; DDS has a thread of its own. No ROS installation is
//! needed.

pub mod diagnostics;
pub mod messages;
pub mod node;
pub mod outbox;
pub mod standing;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ros2_client::service::RmwRequestId;
use serde::Serialize;
use utr_models::generate::Sampling as TokenSampling;

use self::diagnostics::{Facts, Lost, Questions, Reporter};
use self::messages::{Reply, Text, Time};
use self::node::{Counters, Images, Running};
use self::outbox::Sender;
use self::standing::{Round, Step};
use crate::answer::{Answer, Question, check_question};
use crate::capture::Feed;
use crate::capture::live::{Backoff, LiveOptions};
use crate::cli::Ros;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::load::Model;
use crate::pipeline::Settings;
use crate::session::{Job, OnDone, Refused, Session, SessionOptions};
use crate::watch::{Gate, Teller, Turns};

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
        let line = Line {
            time_ms: u64::try_from(now).unwrap_or(u64::MAX),
            question,
            oldest: time(answer.frames.first()),
            newest: time(answer.frames.last()),
            images: self.images(),
            answer,
        };
        serde_json::to_string(&line).map_err(|error| Error::Argument(format!("writing the answer: {error}")))
    }

    /// What came on the topic; none where the source is another.
    fn images(&self) -> Option<Images> {
        self.feed.as_ref()?;
        Some(self.counters.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// What answers, for the node's thread and this one.
#[derive(Clone)]
struct Desk {
    session: Arc<Session>,
    sender: Sender,
    scribe: Scribe,
    questions: Arc<Mutex<Questions>>,
    ros: Ros,
    settings: Settings,
    sampling: TokenSampling,
}

/// Runs the command; `bundle` is the folder to load.
///
/// # Errors
/// Whatever loading, the source and DDS report. What is wrong with one question or one image stays there.
pub fn run(ros: &Ros, bundle: &Path, interrupt: &Interrupt) -> anyhow::Result<()> {
    let model = Model::open_for(bundle, ros.stream.engines, ros.stream.wish(None))?;
    let defaults = model.language.defaults;
    let capture = ros.stream.capture(interrupt);
    let backoff = match ros.image {
        Some(_) => Backoff { first: WAIT, longest: WAIT, steady: WAIT },
        None => Backoff::default(),
    };
    let fps = Some(ros.stream.fps.unwrap_or(defaults.fps));
    let settings = ros.stream.settings(&defaults, defaults.mode)?;
    let options = SessionOptions {
        settings: settings.clone(),
        live: LiveOptions { capture, fps, backoff, ..LiveOptions::lasting(&ros.stream.source) },
        // Standing questions are asked one after the other.
        queue: ros.queue + 1,
        observers: Vec::new(),
    };
    let counters = Counters::default();
    let sender = Sender::default();
    let feed = ros.image.as_ref().map(|(_, feed)| feed.clone());
    let desk = Desk {
        session: Arc::new(Session::start(model, &ros.stream.source, options, interrupt)?),
        sender: Arc::clone(&sender),
        scribe: Scribe { feed, counters: Arc::clone(&counters) },
        questions: Arc::default(),
        ros: ros.clone(),
        settings,
        sampling: ros.tokens.over(defaults.tokens),
    };
    let answering = desk.clone();
    let asked = Box::new(move |id, text| answering.answer(id, text));
    let mut node = Running::start(ros, counters, sender, asked)?;
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
        self.settings.question(text).with_sampling(self.sampling)
    }

    /// Takes a request; the response goes out when it is there. Never waits.
    fn answer(&self, id: RmwRequestId, text: String) {
        let (desk, asked) = (self.clone(), text.clone());
        let done: OnDone = Box::new(move |outcome, _| {
            let told = outcome.and_then(|answer| Ok((desk.scribe.line(&asked, &answer)?, answer.text)));
            let reply = match told {
                Ok((json, answer)) => {
                    desk.questions().answered += 1;
                    desk.sender.answers.put(Text { data: json.clone() });
                    Reply { ok: true, answer, json }
                }
                Err(error) => {
                    desk.failed(&error.to_string());
                    no(error.to_string())
                }
            };
            desk.sender.replies.put((id, reply));
        });
        if let Err(error) = check_question(&text).and_then(|()| self.ask(&text, done)) {
            self.refused(&error.to_string());
            self.sender.replies.put((id, no(error.to_string())));
        }
    }

    /// Hands a question to the session, which calls `done` with the outcome.
    fn ask(&self, text: &str, done: OnDone) -> Result<()> {
        let (cancel, on_text) = (self.session.cancel_flag(), Box::new(|_: &str| Ok(())));
        let job = Job { question: self.question(text), cancel, on_text, done };
        self.session.submit(job).map_err(|(refused, _)| {
            Error::Argument(match refused {
                Refused::Busy => "too many questions are waiting; ask again later".into(),
                Refused::Ended => "the session has ended".into(),
            })
        })
    }

    fn questions(&self) -> MutexGuard<'_, Questions> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, reason: &str) {
        let mut questions = self.questions();
        questions.failed += 1;
        questions.last_error = Some(reason.into());
    }

    fn refused(&self, reason: &str) {
        let mut questions = self.questions();
        questions.refused += 1;
        questions.last_error = Some(reason.into());
    }

    /// Asks the standing questions and tells how everything is, until a stop is asked for.
    fn follow(&self, node: &mut Running, interrupt: &Interrupt) -> Result<()> {
        let frames = self.settings.frames;
        let mut gates: Vec<Gate> = self.ros.question.iter().map(|_| self.ros.schedule.gate()).collect();
        let mut turns = Turns::new(self.ros.schedule.every, frames);
        let mut round = Round::new(gates.len());
        let mut teller = Teller::default();
        let mut reporter = Reporter::new(&self.ros.private(""), self.ros.stream.source.to_string(), frames);
        loop {
            interrupt.check()?;
            node.check()?;
            teller.tell(&self.session);
            self.report(&mut reporter);
            let (held, ended) = (self.session.status().window, self.session.ended());
            if ended && held == 0 {
                return self.session.failure().map_or(Ok(()), Err);
            }
            if round.is_over() && turns.comes(held, ended, Instant::now()) {
                round.begin();
            }
            self.turn(&mut round, &mut gates)?;
            std::thread::sleep(TICK);
        }
    }

    /// Goes on with the round as far as that needs no waiting.
    fn turn(&self, round: &mut Round<Result<Answer>>, gates: &mut [Gate]) -> Result<()> {
        loop {
            let (place, outcome) = match round.step() {
                Step::Wait => return Ok(()),
                Step::Ask(place, tell) => {
                    let text = self.ros.question.get(place).map(String::as_str).unwrap_or_default();
                    let told = tell.clone();
                    let done = Box::new(move |outcome: Result<Answer>, _| {
                        let _ = tell.send(outcome);
                    });
                    if let Err(error) = self.ask(text, done) {
                        let _ = told.send(Err(error));
                    }
                    continue;
                }
                Step::Outcome(place, outcome) => (place, outcome),
            };
            let (Some(text), Some(gate)) = (self.ros.question.get(place), gates.get_mut(place)) else {
                continue;
            };
            match outcome {
                None | Some(Err(Error::Interrupted)) => return Err(Error::Interrupted),
                Some(Err(error)) => {
                    self.failed(&error.to_string());
                    eprintln!("utr: {text:?} was not answered: {error}");
                }
                Some(Ok(answer)) => self.publish(text, &answer, gate)?,
            }
        }
    }

    /// Publishes the answer to a standing question.
    fn publish(&self, text: &str, answer: &Answer, gate: &mut Gate) -> Result<()> {
        let data = self.scribe.line(text, answer)?;
        self.questions().answered += 1;
        if gate.counts(&answer.text, Instant::now()) {
            self.sender.alerts.put(Text { data: data.clone() });
        }
        self.sender.answers.put(Text { data });
        Ok(())
    }

    /// Publishes how everything is, where that is due.
    fn report(&self, reporter: &mut Reporter) {
        if reporter.is_due(Instant::now()) {
            let (session, images, questions) =
                (self.session.status(), self.scribe.images(), self.questions().clone());
            let lost = Lost::from(&*self.sender);
            let facts = Facts { session: &session, images: images.as_ref(), questions: &questions, lost };
            self.sender.diagnostics.put(reporter.report(&facts));
        }
    }
}

/// The reply to a question that has no answer.
fn no(reason: String) -> Reply {
    Reply { ok: false, answer: reason, json: String::new() }
}
