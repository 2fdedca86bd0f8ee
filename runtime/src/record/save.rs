//! One window and what was answered about it, as a file that stands for itself.
//!
//! Comes in: a pinned view with questions and answers. Goes out: a recording with the view's frames as the encoder saw them, in `rolling` with
//! the keys and values too, because frames that are long gone went into them. The file appears under its name once it is whole.

use std::io::{Seek, Write};
use std::path::Path;

use super::format::{AnswerNote, EventNote, FrameNote, Pictures, SessionNote};
use super::write::{Expected, RecordWriter};
use crate::answer::{Answer, Question};
use crate::error::{Error, Result};
use crate::pipeline::View;

/// Writes the window of one moment with the questions that were asked about it. A file of that name is replaced.
///
/// # Errors
/// [`Error::Io`].
pub fn save_view(
    path: &Path,
    session: &SessionNote,
    view: &View,
    asked: &[(Question, Answer)],
) -> Result<()> {
    let mut outcome = Ok(());
    utr_models::atomic::write_with(path, |file| {
        outcome = write_view(file, path, session, view, asked);
        match &outcome {
            Ok(()) => Ok(()),
            Err(error) => Err(utr_models::Error::Argument(error.to_string())),
        }
    })
    .map_err(|error| std::mem::replace(&mut outcome, Ok(())).err().unwrap_or(Error::Model(error)))
}

/// As [`save_view`], to any place; errors call it `path`.
///
/// # Errors
/// [`Error::Io`].
pub fn write_view<W: Write + Seek>(
    to: W,
    path: &Path,
    session: &SessionNote,
    view: &View,
    asked: &[(Question, Answer)],
) -> Result<()> {
    let session = SessionNote { pictures: Pictures::Model, ..session.clone() };
    let mut writer = RecordWriter::new(to, path, &session)?;
    let rolled = view.reading.as_ref().filter(|reading| reading.gone().next().is_some());
    if rolled.is_none() {
        // Nothing was let go: the frames alone lead to the same keys and values.
        writer.event(&EventNote::Reset)?;
    }
    for frame in &view.frames {
        let note = FrameNote {
            sequence: 0,
            index: frame.stamp.index,
            pts_ms: frame.stamp.pts_ms,
            taken: true,
            width: frame.picture.width,
            height: frame.picture.height,
            encode_ms: 0.0,
            prefill_ms: 0.0,
        };
        writer.frame(Some(&frame.picture), Expected { note, captured: frame.captured })?;
    }
    if let Some(reading) = rolled {
        writer.snapshot(reading)?;
    }
    for (question, answer) in asked {
        writer.answer(&AnswerNote::new(question, Ok(answer)))?;
    }
    writer.finish()?;
    Ok(())
}
