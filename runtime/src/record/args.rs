//! `utr record` as typed.
//!
//! Comes in: the arguments. Goes out: the same with their rules applied ([`RecordArgs::resolve`]). Nothing is opened here.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::answer::check_question;
use crate::cli::{self, Stream, StreamArgs};
use crate::error::{Error, Result};
use crate::load::Defaults;
use crate::pipeline::Settings;

/// `utr record`, as typed.
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// The source and the model.
    #[command(flatten)]
    pub stream: StreamArgs,
    /// The file to write; it must not be there yet
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// A question to ask; give it several times to ask several [default: none is asked]
    #[arg(long, value_name = "TEXT")]
    pub question: Vec<String>,
    /// Time between two times that the questions are asked, such as 10s, 1m [default: they are asked once, at the end]
    #[arg(long, value_name = "TIME", requires = "question", value_parser = cli::period)]
    pub every: Option<Duration>,
    /// Record the pictures as the encoder saw them: smaller, and they give the same answers
    #[arg(long)]
    pub model_size: bool,
    /// Stop after this time, such as 30s, 5m [default: at the end of a clip, or at Ctrl-C]
    #[arg(long, value_name = "TIME", alias = "seconds", value_parser = cli::period)]
    pub length: Option<Duration>,
    /// Stop after so many recorded frames; those that come while the last questions are answered are recorded too
    #[arg(long, value_name = "N")]
    pub max_frames: Option<u64>,
}

/// `utr record`, resolved.
#[derive(Clone, Debug)]
pub struct Record {
    /// The source and the model.
    pub stream: Stream,
    /// As typed.
    pub output: PathBuf,
    /// Checked.
    pub questions: Vec<String>,
    /// Above zero.
    pub every: Option<Duration>,
    /// As typed.
    pub model_size: bool,
    /// Above zero.
    pub length: Option<Duration>,
    /// Above zero.
    pub max_frames: Option<u64>,
}

impl RecordArgs {
    /// Applies the limits.
    ///
    /// # Errors
    /// [`Error::Source`] or [`Error::Argument`] with the flag, what it got and what it takes.
    pub fn resolve(self) -> Result<Record> {
        let refuse = |text: String| Err(Error::Argument(text));
        if self.max_frames == Some(0) {
            return refuse("--max-frames 0 would record nothing; give 1 or more".into());
        }
        self.question.iter().try_for_each(|question| check_question(question))?;
        Ok(Record {
            stream: self.stream.resolve()?,
            output: self.output,
            questions: self.question,
            every: self.every,
            model_size: self.model_size,
            length: self.length,
            max_frames: self.max_frames,
        })
    }
}

impl Record {
    /// How the window is followed, and the rate: what was typed, and for the rest what the model says.
    ///
    /// # Errors
    /// [`Error::Argument`] for more frames than the model was trained for.
    pub fn settle(&self, model: &Defaults) -> Result<(Settings, f64)> {
        Ok((self.stream.settings(model, model.mode)?, self.stream.fps.unwrap_or(model.fps)))
    }
}
