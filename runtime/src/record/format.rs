//! What a recording holds, as JSON: one struct for each channel, and the channels' names.
//!
//! Comes in and goes out: values of the session, in types whose spelling in a file does not change when the session's types do. No file is
//! touched here.
//!
//! | topic | message | one for |
//! |---|---|---|
//! | `/utr/session` | [`SessionNote`] | the file, first |
//! | `/utr/image` | `foxglove.CompressedImage` | each frame of the window |
//! | `/utr/frame` | [`FrameNote`] | each frame, behind its picture; frames that were dropped have no picture |
//! | `/utr/answer` | [`AnswerNote`] | each question |
//! | `/utr/event` | [`EventNote`] | an empty window, frames lost on the way into the file, the end |

use std::time::Instant;

use serde::{Deserialize, Serialize};
use utr_models::generate::Sampling;
use utr_models::prompt::{Kind, Message};

use crate::answer::{Answer, BundleName, Question};
use crate::evidence::Wanted;
use crate::load::Language;
use crate::pipeline::Settings;

/// Version of everything below; a file of another one is refused.
pub const VERSION: u32 = 1;

/// How the session ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionNote {
    /// [`VERSION`].
    pub version: u32,
    /// The program that wrote the file.
    pub program: String,
    /// Where the frames came from, as `--source` spells it.
    pub source: String,
    /// What answers.
    pub bundle: BundleName,
    /// What encodes: `tract`, `ort` or `candle`.
    pub encoder: String,
    /// How the window is followed.
    pub settings: Settings,
    /// Frames per second that were asked for; none where frames were chosen otherwise.
    pub fps: Option<f64>,
    /// Which pictures the file holds.
    pub pictures: Pictures,
}

/// Which pictures a file holds. Both give the same tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pictures {
    /// At source size.
    #[default]
    Source,
    /// As the encoder saw them.
    Model,
}

impl SessionNote {
    /// For a model and the way it is used.
    pub fn new(language: &Language, encoder: &str, settings: &Settings, source: &str) -> Self {
        Self {
            version: VERSION,
            program: format!("utr {}", env!("CARGO_PKG_VERSION")),
            source: source.into(),
            bundle: BundleName { name: language.name.clone(), hash: language.hash.clone() },
            encoder: encoder.into(),
            settings: settings.clone(),
            fps: None,
            pictures: Pictures::Source,
        }
    }
}

/// A frame that reached the window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrameNote {
    /// Counted from 0 in the file, together with the frames that were dropped; the picture's message has the same number.
    pub sequence: u32,
    /// Counted from 0 in the source.
    pub index: usize,
    /// Since the source's start.
    pub pts_ms: u64,
    /// False where it was dropped because answers pinned the memory.
    pub taken: bool,
    /// Pixels of the source.
    pub width: usize,
    /// Pixels of the source.
    pub height: usize,
    /// Resizing and encoding.
    pub encode_ms: f64,
    /// Reading it in the modes that read ahead.
    pub prefill_ms: f64,
}

/// A question and what became of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AnswerNote {
    /// What was asked, and how to answer.
    pub question: QuestionNote,
    /// The answer, where there is one.
    pub answer: Option<Answer>,
    /// Why there is none.
    pub error: Option<String>,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuestionNote {
    messages: Vec<Message>,
    prompt: Kind,
    sampling: Sampling,
    evidence: Wanted,
}

impl AnswerNote {
    /// A question with its outcome.
    pub fn new(question: &Question, outcome: Result<&Answer, String>) -> Self {
        let (answer, error) = match outcome {
            Ok(answer) => (Some(answer.clone()), None),
            Err(error) => (None, Some(error)),
        };
        Self { question: question.into(), answer, error }
    }
}

impl From<&Question> for QuestionNote {
    fn from(question: &Question) -> Self {
        Self {
            messages: question.messages.clone(),
            prompt: question.prompt,
            sampling: question.sampling,
            evidence: question.evidence,
        }
    }
}

impl QuestionNote {
    /// The question as it was asked, known from now on.
    pub fn to_question(&self) -> Question {
        Question {
            messages: self.messages.clone(),
            prompt: self.prompt,
            sampling: self.sampling,
            asked: Instant::now(),
            evidence: self.evidence,
        }
    }

    /// The newest message: what a reader calls the question.
    pub fn text(&self) -> &str {
        self.messages.last().map_or("", |message| &message.text)
    }
}

/// Something that happened between frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum EventNote {
    /// The window was empty here, and so were its keys and values.
    Reset,
    /// Frames that entered the window here, and answers, are not in the file, because it could not be written so fast.
    Gap {
        /// Frames.
        frames: u64,
        /// Answers.
        answers: u64,
    },
    /// The recording ended as it was meant to.
    End {
        /// Frames in the file.
        frames: u64,
        /// Answers in the file.
        answers: u64,
    },
}

/// The channels of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Topic {
    Session,
    Image,
    Frame,
    Answer,
    Event,
}

impl Topic {
    pub const ALL: [Self; 5] = [Self::Session, Self::Image, Self::Frame, Self::Answer, Self::Event];

    pub fn name(self) -> &'static str {
        match self {
            Self::Session => "/utr/session",
            Self::Image => "/utr/image",
            Self::Frame => "/utr/frame",
            Self::Answer => "/utr/answer",
            Self::Event => "/utr/event",
        }
    }

    pub fn encoding(self) -> &'static str {
        if self == Self::Image { "protobuf" } else { "json" }
    }

    /// Name and JSON schema of the messages; the picture's is a protobuf descriptor instead.
    pub fn json_schema(self) -> (&'static str, &'static str) {
        match self {
            Self::Session => ("utr.Session", include_str!("schemas/session.json")),
            Self::Image => ("foxglove.CompressedImage", ""),
            Self::Frame => ("utr.Frame", include_str!("schemas/frame.json")),
            Self::Answer => ("utr.Answer", include_str!("schemas/answer.json")),
            Self::Event => ("utr.Event", include_str!("schemas/event.json")),
        }
    }
}
