//! `utr watch`: standing questions about a live source.
//!
//! Comes in: a source, questions, a schedule. Goes out: one JSON line per answer that counts, and where asked for a command or a webhook that gets the
//! same line. What counts is said by [`Gate`]: every answer, or only changes, only after several alike, not again within a cool-down. What
//! happens to the source is told on standard error. It ends with a clip or at Ctrl-C.

mod act;
mod gate;
mod turns;

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::Serialize;
use utr_models::generate::Sampling as TokenSampling;

use crate::answer::{Answer, Question, check_question};
use crate::capture::live::LiveOptions;
use crate::cli::{self, Stream, StreamArgs, TokenArgs};
use crate::error::{Error, Result};
use crate::evidence::Wanted;
use crate::interrupt::Interrupt;
use crate::load::Model;
use crate::pipeline::Settings;
use crate::session::{Session, SessionOptions};

use act::{Actor, Command};
use gate::Rules;

pub(crate) use gate::Gate;
#[cfg(feature = "ros2")]
pub(crate) use turns::turn_after;
pub(crate) use turns::{Teller, Turns};

/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_millis(20);

/// `utr watch`, as typed.
#[derive(Clone, Debug, clap::Args)]
pub struct WatchArgs {
    /// The source and the model.
    #[command(flatten)]
    pub stream: StreamArgs,
    /// How answers are drawn.
    #[command(flatten)]
    pub tokens: TokenArgs,
    /// A standing question; give it several times to watch for several things
    #[arg(long, value_name = "TEXT", required = true)]
    pub question: Vec<String>,
    /// When it is asked, and which answers count.
    #[command(flatten)]
    pub schedule: ScheduleArgs,
    /// Run this through the shell with the JSON line on its standard input
    #[arg(long, value_name = "CMD", conflicts_with = "webhook")]
    pub exec: Option<String>,
    /// POST the JSON line there (http://; for https use --exec with curl)
    #[arg(long, value_name = "URL")]
    pub webhook: Option<String>,
    /// Say with each answer which frames it stands on
    #[arg(long)]
    pub evidence: bool,
}

/// When a standing question is asked and which of its answers count, as typed.
#[derive(Clone, Debug, clap::Args)]
pub struct ScheduleArgs {
    /// Time between two times that a question is asked, such as 500ms, 2s, 1m
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = cli::period)]
    pub every: Duration,
    /// Only answers that differ from the last one that counted
    #[arg(long)]
    pub on_change: bool,
    /// Only answers that begin with this, whatever the case, such as yes
    #[arg(long, value_name = "TEXT")]
    pub when: Option<String>,
    /// How often in a row a new answer must be given before it counts
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub hysteresis: u32,
    /// Time after an answer that counted in which no other one of that question does
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = cli::time)]
    pub cool_down: Duration,
}

impl ScheduleArgs {
    /// A gate for one question.
    pub(crate) fn gate(&self) -> Gate {
        Gate::new(Rules {
            on_change: self.on_change,
            when: self.when.clone(),
            in_a_row: self.hysteresis,
            cool_down: self.cool_down,
        })
    }
}

/// One printed line.
#[derive(Serialize)]
struct Line<'a> {
    /// Milliseconds since 1970.
    time_ms: u64,
    question: &'a str,
    /// The last answer that counted; none for the first.
    before: Option<&'a str>,
    #[serde(flatten)]
    answer: &'a Answer,
}

/// Runs the command; `bundle` is the folder to load.
///
/// # Errors
/// Whatever loading, the source and standard output report. A question that cannot be answered is told on standard error and asked again.
pub fn run(
    arguments: &WatchArgs,
    bundle: &Path,
    interrupt: &Interrupt,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    arguments.question.iter().try_for_each(|question| check_question(question))?;
    let stream = arguments.stream.clone().resolve()?;
    let choice = arguments.tokens.clone().resolve()?;
    let action = action(arguments)?;
    let model = Model::open_for(bundle, stream.engines, stream.wish(None))?;
    let options = options(arguments, &stream, &model, interrupt)?;
    let settings = options.settings.clone();
    let session = Session::start(model, &stream.source, options, interrupt)?;
    let mut watch = Watch {
        arguments,
        turns: Turns::new(arguments.schedule.every, settings.frames),
        teller: Teller::default(),
        settings,
        sampling: choice.over(session.language().defaults.tokens),
        session,
        gates: arguments.question.iter().map(|_| arguments.schedule.gate()).collect(),
        actor: action.map(Actor::start).transpose()?,
    };
    match watch.follow(interrupt, out) {
        Err(error) if matches!(error.downcast_ref(), Some(Error::Interrupted)) => Ok(()),
        other => other,
    }
}

fn action(arguments: &WatchArgs) -> Result<Option<Command>> {
    if let Some(command) = &arguments.exec {
        return Ok(Some(Command::Exec(command.clone())));
    }
    match &arguments.webhook {
        None => Ok(None),
        Some(url) if url.starts_with("http://") => Ok(Some(Command::Webhook(url.clone()))),
        Some(url) => Err(Error::Argument(format!(
            "--webhook {}: only http:// is spoken here; for https use --exec \"curl --json @- URL\"",
            url.split(['?', '@']).next().unwrap_or_default()
        ))),
    }
}

fn options(
    arguments: &WatchArgs,
    stream: &Stream,
    model: &Model,
    interrupt: &Interrupt,
) -> Result<SessionOptions> {
    let defaults = &model.language.defaults;
    let settings = stream.settings(defaults, defaults.mode)?;
    let capture = stream.capture(interrupt);
    let fps = Some(stream.fps.unwrap_or(defaults.fps));
    let live = LiveOptions { capture, fps, ..LiveOptions::lasting(&stream.source) };
    Ok(SessionOptions { settings, live, queue: arguments.question.len(), observers: Vec::new() })
}

/// A running watch.
struct Watch<'a> {
    arguments: &'a WatchArgs,
    settings: Settings,
    sampling: TokenSampling,
    turns: Turns,
    teller: Teller,
    session: Session,
    gates: Vec<Gate>,
    actor: Option<Actor>,
}

impl Watch<'_> {
    fn follow(&mut self, interrupt: &Interrupt, out: &mut dyn Write) -> anyhow::Result<()> {
        loop {
            interrupt.check()?;
            self.teller.tell(&self.session);
            // Asked for first: a frame that comes in between is in the window.
            let ended = self.session.ended();
            let held = self.session.status().window;
            let turn = self.turns.comes(held, ended, Instant::now());
            if held > 0 && (turn || ended) {
                self.ask_all(interrupt, out)?;
            }
            if ended {
                return self.session.failure().map_or(Ok(()), |error| Err(error.into()));
            }
            interrupt.sleep_until(Instant::now() + TICK)?;
        }
    }

    fn ask_all(&mut self, interrupt: &Interrupt, out: &mut dyn Write) -> anyhow::Result<()> {
        for (place, text) in self.arguments.question.iter().enumerate() {
            interrupt.check()?;
            let evidence = if self.arguments.evidence { Wanted::Frames } else { Wanted::Nothing };
            let question =
                Question { evidence, sampling: self.sampling, ..self.settings.question(text.clone()) };
            let answer = match self.session.ask(question) {
                Ok((answer, _)) => answer,
                Err(Error::Interrupted) => return Err(Error::Interrupted.into()),
                Err(error) => {
                    eprintln!("utr: {text:?} was not answered: {error}");
                    continue;
                }
            };
            let Some(gate) = self.gates.get_mut(place) else { continue };
            let before = gate.last().map(str::to_string);
            if gate.counts(&answer.text, Instant::now()) {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
                let time_ms = u64::try_from(now).unwrap_or(u64::MAX);
                let line = serde_json::to_string(&Line {
                    time_ms,
                    question: text,
                    before: before.as_deref(),
                    answer: &answer,
                })?;
                writeln!(out, "{line}").and_then(|()| out.flush()).context("writing the answer")?;
                if let Some(actor) = &self.actor {
                    actor.act(line);
                }
            }
        }
        Ok(())
    }
}
