//! `utr record`: a live session, and the file that reproduces it.
//!
//! Comes in: resolved arguments. Goes out: the recording, and one line that says what is in it. It ends with the clip, at a limit, or at Ctrl-C, which is no
//! failure; a disk that is full is one, with everything before it kept.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::args::Record;
use super::format::{Pictures, SessionNote};
use super::recorder::{Limits, Recorder};
use crate::capture::live::{LiveOptions, Pacing};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::load::Model;
use crate::pipeline::Settings;
use crate::session::{Session, SessionOptions};

/// How often it is looked whether to stop.
const TICK: Duration = Duration::from_millis(20);

/// Runs the command; `bundle` is the folder to load.
///
/// # Errors
/// Whatever loading, the source and the file report; the file then holds what came before.
pub fn run(record: &Record, bundle: &Path, interrupt: &Interrupt, out: &mut dyn Write) -> anyhow::Result<()> {
    let model = Model::open_for(bundle, record.stream.engines, record.stream.wish(None))?;
    let (settings, fps) = record.settle(&model.language.defaults)?;
    let encoder = model.encoder.name();
    let mut note = SessionNote::new(&model.language, encoder, &settings, &record.stream.source.to_string());
    note.fps = Some(fps);
    note.pictures = if record.model_size { Pictures::Model } else { Pictures::Source };
    let recorder = Arc::new(Recorder::create(&record.output, &note, Limits::default())?);
    let capture = record.stream.capture(interrupt);
    // A clip is recorded whole, however long that takes.
    let pacing = Pacing::Unpaced;
    let options = SessionOptions {
        settings: settings.clone(),
        live: LiveOptions { capture, fps: Some(fps), pacing, ..LiveOptions::default() },
        queue: record.questions.len().max(1),
        observers: vec![Arc::clone(&recorder) as _],
    };
    let began = Instant::now();
    let followed = Session::start(model, &record.stream.source, options, interrupt)
        .and_then(|session| follow(record, &settings, session, &recorder, interrupt));
    let report = recorder.finish();
    if followed.is_err() && recorder.report().frames == 0 {
        // A source that never delivered leaves no empty file in the way of the next try.
        let _ = std::fs::remove_file(&record.output);
    }
    followed?;
    let report = report?;
    let bytes = std::fs::metadata(&record.output).map(|file| file.len()).unwrap_or_default();
    writeln!(
        out,
        "recorded  {} frames and {} answers in {:.1} s, {:.1} MB, to {}",
        report.frames,
        report.answers,
        began.elapsed().as_secs_f64(),
        bytes as f64 / 1e6,
        record.output.display()
    )?;
    if (report.lost_frames, report.lost_answers) != (0, 0) {
        writeln!(
            out,
            "lost      {} frames and {} answers that the disk was too slow for; record fewer (--fps), smaller ones \
             (--model-size), or to a faster disk",
            report.lost_frames, report.lost_answers
        )?;
    }
    Ok(())
}

/// Until the end, or until it is enough.
fn follow(
    record: &Record,
    settings: &Settings,
    session: Session,
    recorder: &Recorder,
    interrupt: &Interrupt,
) -> Result<()> {
    let began = Instant::now();
    let mut due = record.every.map(|every| began + every);
    loop {
        let long = record.length.is_some_and(|length| began.elapsed() >= length);
        let many = record.max_frames.is_some_and(|most| recorder.report().frames >= most);
        if session.ended() || long || many {
            break;
        }
        if interrupt.requested() || recorder.failed() {
            return Ok(());
        }
        if let (Some(time), Some(every)) = (due, record.every)
            && Instant::now() >= time
            && session.view().is_some()
        {
            ask(record, settings, &session)?;
            due = Some(Instant::now().max(time + every));
        }
        std::thread::sleep(TICK);
    }
    if session.view().is_none() && !interrupt.requested() {
        let nothing = || Error::capture(record.stream.source.to_string(), "no frame came in that time");
        return Err(session.failure().unwrap_or_else(nothing));
    }
    ask(record, settings, &session)
}

/// Asks all questions. One that cannot be answered is in the file with its reason.
fn ask(record: &Record, settings: &Settings, session: &Session) -> Result<()> {
    let sampling = session.language().defaults.tokens;
    for text in &record.questions {
        let question = settings.question(text.clone()).with_sampling(sampling);
        match session.ask(question) {
            Ok(_) | Err(Error::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
