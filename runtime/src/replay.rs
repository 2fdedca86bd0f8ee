//! Asking a recording again: whether today's answers are the recorded ones, token for token.
//!
//! Comes in: a recording with answers, and the model. Goes out: for each answer whether it came again. The window is rebuilt as it was: in `exact` and
//! `ahead` from the frames the answer names, in `rolling` from the frames since the window was empty, or from a snapshot. Where the file lacks
//! something that went into an answer, that is said, and nothing is claimed. Frames as a source are `capture`'s part.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use clap::ValueEnum;
use serde::Serialize;
use utr_models::manifest::WindowMode;

use crate::answer::{Answer, Answerer};
use crate::capture::Frame;
use crate::encode::{EncoderKind, Engines};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::load::{Language, Model};
use crate::pipeline::{Seeing, Settings, View};
use crate::record::{AnswerNote, Mark, Recording, SessionNote};
use crate::report::FrameUsed;

/// How far back an answer's frames are looked for: an answer is written while later frames already come.
const LOOK_BACK: usize = 100_000;

/// How a recording is asked again.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplayOptions {
    /// Another encoder than the recorded one, and the decoder's device.
    pub engines: Engines,
    /// Ask another bundle than the recorded one.
    pub force: bool,
    /// JSON instead of text.
    pub json: bool,
}

/// What became of a recorded answer.
#[derive(Debug, Serialize)]
pub struct Replayed {
    /// The newest message of the question.
    pub question: String,
    /// Whether tokens and ending are the recorded ones.
    pub equal: bool,
    /// Why it was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// As recorded.
    pub recorded: Option<Answer>,
    /// As answered now.
    pub now: Option<Answer>,
}

/// Asks a recording's questions again; true where every answer came again. `bundle` is the folder to load.
///
/// # Errors
/// Whatever the file, the bundle and the model report.
pub fn run(
    path: &Path,
    bundle: &Path,
    options: ReplayOptions,
    interrupt: &Interrupt,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let recording = Recording::open(path)?;
    let session = recording.session()?;
    let refuse = |reason: String| Error::capture(path.display().to_string(), reason);
    if recording.answers() == 0 {
        let flaw = recording.flaw().unwrap_or_default();
        return Err(refuse(format!("it holds no question{flaw}; ask one with --question")).into());
    }
    let recorded = options.engines.encoder.map_or_else(|| encoder(session), Ok)?;
    let model = Model::open(bundle, Engines { encoder: Some(recorded), ..options.engines })?;
    if !same_bundle(session, &model.language) && !options.force {
        return Err(refuse(format!(
            "it was answered by {} ({}), and this is {} ({}); give that bundle with --bundle, or --force to ask this one",
            session.bundle.name,
            session.bundle.hash.as_deref().unwrap_or("no hash"),
            model.language.name,
            model.language.hash.as_deref().unwrap_or("no hash")
        ))
        .into());
    }
    let mut all_equal = true;
    Replayer::new(&recording, model, interrupt)?.run(&mut |replayed| {
        all_equal &= replayed.equal;
        show(&replayed, options.json, out).map_err(Error::io("standard output"))
    })?;
    if let (Some(flaw), false) = (recording.flaw(), options.json) {
        writeln!(out, "note      what was whole was read{flaw}")?;
    }
    Ok(all_equal)
}

/// The recorded encoder.
fn encoder(session: &SessionNote) -> Result<EncoderKind> {
    EncoderKind::from_str(&session.encoder, true).map_err(|_| {
        let name = &session.encoder;
        Error::Argument(format!(
            "the recording names the encoder {name:?}, which is unknown; give one with --encoder"
        ))
    })
}

fn same_bundle(session: &SessionNote, language: &Language) -> bool {
    session.bundle.name == language.name && session.bundle.hash == language.hash
}

fn show(replayed: &Replayed, json: bool, out: &mut dyn Write) -> std::io::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, replayed)?;
        return writeln!(out);
    }
    writeln!(out, "? {}", replayed.question)?;
    match (&replayed.recorded, &replayed.now) {
        (Some(recorded), Some(_)) if replayed.equal => {
            writeln!(out, "equal     {} tokens: {}", recorded.tokens.len(), recorded.text)
        }
        (Some(recorded), Some(now)) => {
            let same = recorded.tokens.iter().zip(&now.tokens).take_while(|(a, b)| a == b).count();
            writeln!(out, "different from token {same} on")?;
            writeln!(out, "recorded  {}", recorded.text)?;
            writeln!(out, "now       {}", now.text)
        }
        _ => writeln!(out, "not asked {}", replayed.reason.as_deref().unwrap_or_default()),
    }
}

/// An answer that can be asked again, and the frames it stands on.
struct Due {
    note: AnswerNote,
    /// The first frame and the one behind the last.
    frames: (usize, usize),
}

/// Rebuilds windows from a recording.
pub struct Replayer<'a> {
    recording: &'a Recording,
    settings: Settings,
    seeing: Seeing,
    answerer: Answerer,
    interrupt: &'a Interrupt,
    /// Whether the keys and values are those of the recorded session.
    sound: bool,
    /// The newest view of `exact` or `ahead`.
    last: Option<((usize, usize), View)>,
}

impl<'a> Replayer<'a> {
    /// For a recording and the model that is to answer.
    ///
    /// # Errors
    /// [`Error::Argument`] for settings that this model does not run; whatever reading the prompt reports.
    pub fn new(recording: &'a Recording, model: Model, interrupt: &'a Interrupt) -> Result<Self> {
        let settings = recording.session()?.settings.clone();
        let most = model.language.defaults.frames;
        if !(1..=most).contains(&settings.frames) {
            let frames = settings.frames;
            return Err(Error::Argument(format!(
                "the recording's window has {frames} frames; this model takes 1 to {most}"
            )));
        }
        let mode = match settings.mode {
            WindowMode::Rolling => WindowMode::Rolling,
            // A reading of `ahead` is the same, whenever its frames were read.
            WindowMode::Exact | WindowMode::Ahead => WindowMode::Exact,
        };
        let Model { encoder, language } = model;
        let answerer = Answerer::new(Arc::clone(&language), settings.kv);
        let seen = Settings { mode, ..settings.clone() };
        let seeing = Seeing::new(encoder, &language, &seen, interrupt.clone())?;
        Ok(Self { recording, settings, seeing, answerer, interrupt, sound: false, last: None })
    }

    /// Asks everything again, in the order of the frames it stands on.
    ///
    /// # Errors
    /// Whatever the file, the model and `on_answer` report.
    pub fn run(&mut self, on_answer: &mut dyn FnMut(Replayed) -> Result<()>) -> Result<()> {
        let mut due = Vec::new();
        for place in 0..self.recording.answers() {
            let (before, note) = self.recording.answer(place)?;
            match self.find(before, &note) {
                Ok(frames) => due.push(Due { note, frames }),
                Err(reason) => on_answer(refused(note, reason))?,
            }
        }
        due.sort_by_key(|due| due.frames.1);
        if self.settings.mode == WindowMode::Rolling {
            return self.roll(due, on_answer);
        }
        for due in due {
            let view = self.window(due.frames)?;
            on_answer(self.ask(due.note, &view)?)?;
        }
        Ok(())
    }

    /// Where in the file an answer's frames are.
    fn find(&self, before: usize, note: &AnswerNote) -> std::result::Result<(usize, usize), String> {
        let Some(answer) = &note.answer else {
            return Err(match &note.error {
                Some(error) => format!("it had no answer: {error}"),
                None => "it had no answer".into(),
            });
        };
        let (frames, count) = (self.recording.frames(), answer.frames.len());
        if count == 0 || count > self.settings.frames {
            return Err(format!("it names {count} frames, the window holds {}", self.settings.frames));
        }
        let ends = (count..=before.min(frames.len())).rev().take(LOOK_BACK);
        let same = |end: usize| {
            let run = frames.get(end - count..end).unwrap_or_default();
            run.iter().rev().zip(answer.frames.iter().rev()).all(|(a, b)| FrameUsed::from(a.stamp) == *b)
        };
        ends.into_iter()
            .find(|end| same(*end))
            .map(|end| (end - count, end))
            .ok_or_else(|| "not all frames it stands on are in the file".into())
    }

    /// The window of `exact` or `ahead` that held these frames.
    fn window(&mut self, frames: (usize, usize)) -> Result<View> {
        if let Some((_, view)) = self.last.as_ref().filter(|(known, _)| *known == frames) {
            return Ok(view.clone());
        }
        self.seeing.clear();
        let pictures: Vec<_> = (frames.0..frames.1).map(|place| self.frame(place)).collect::<Result<_>>()?;
        self.seeing.see(&pictures)?;
        let view = self.seeing.view();
        self.last = Some((frames, view.clone()));
        Ok(view)
    }

    /// Follows the frames as the session did, and asks where it was asked.
    fn roll(&mut self, due: Vec<Due>, on_answer: &mut dyn FnMut(Replayed) -> Result<()>) -> Result<()> {
        let (mut marks, mut due) = (self.recording.marks().iter().peekable(), due.into_iter().peekable());
        let mut place = 0;
        while due.peek().is_some() {
            // Where so many frames were seen: first what was kept of them, then what was asked about them, then what came after.
            let here = marks.clone().take_while(|(at, _)| *at == place);
            for (_, mark) in here {
                if let Mark::Snapshot(number) = mark {
                    self.resume(*number, place)?;
                }
            }
            while let Some(due) = due.next_if(|due| due.frames.1 == place) {
                on_answer(self.ask_rolled(due)?)?;
            }
            while let Some((_, mark)) = marks.next_if(|(at, _)| *at == place) {
                match mark {
                    Mark::Reset => {
                        self.seeing.clear();
                        self.sound = true;
                    }
                    Mark::Gap(_) => self.sound = false,
                    Mark::Snapshot(_) => {}
                }
            }
            if self.sound && place < self.recording.frames().len() {
                let frame = self.frame(place)?;
                if !self.seeing.look(&frame)?.taken {
                    self.sound = false;
                }
            }
            place += 1;
        }
        Ok(())
    }

    fn ask_rolled(&mut self, due: Due) -> Result<Replayed> {
        if !self.sound {
            let reason = "frames before it are not in the file, and in rolling they went into it";
            return Ok(refused(due.note, reason.into()));
        }
        let view = self.seeing.view();
        let stamps = view.frames.iter().map(|frame| FrameUsed::from(frame.stamp));
        if !due.note.answer.as_ref().is_some_and(|answer| answer.frames.iter().copied().eq(stamps)) {
            return Ok(refused(due.note, "the window does not hold the frames it stands on".into()));
        }
        self.ask(due.note, &view)
    }

    /// Goes on from a snapshot of the last frames before `place`.
    fn resume(&mut self, number: usize, place: usize) -> Result<()> {
        let count = self.settings.frames.min(place);
        let pictures: Vec<_> = (place - count..place).map(|at| self.frame(at)).collect::<Result<_>>()?;
        let frames = pictures.iter().map(|frame| self.seeing.encode(frame)).collect::<Result<Vec<_>>>()?;
        let language = Arc::clone(self.answerer.language());
        let reading = self.recording.snapshot(number, &language, self.settings.kv, &frames)?;
        self.seeing.resume(reading)?;
        self.sound = true;
        Ok(())
    }

    fn frame(&self, place: usize) -> Result<Arc<Frame>> {
        let Some(found) = self.recording.frames().get(place) else {
            return Err(Error::Argument(format!("the recording has no frame {place}")));
        };
        let image = self.recording.picture(place)?;
        Ok(Arc::new(Frame { stamp: found.stamp, captured: Instant::now(), image }))
    }

    fn ask(&mut self, note: AnswerNote, view: &View) -> Result<Replayed> {
        let question = note.question.to_question();
        let now = self.answerer.answer(view, &question, self.interrupt, &mut |_| Ok(()))?;
        let equal = note
            .answer
            .as_ref()
            .is_some_and(|recorded| recorded.tokens == now.tokens && recorded.finish == now.finish);
        let question = note.question.text().to_string();
        Ok(Replayed { question, equal, reason: None, recorded: note.answer, now: Some(now) })
    }
}

fn refused(note: AnswerNote, reason: String) -> Replayed {
    let question = note.question.text().to_string();
    Replayed { question, equal: false, reason: Some(reason), recorded: note.answer, now: None }
}
