//! What a published benchmark asks: one question about one clip, with its truth.
//!
//! Comes in: what the benchmarks' loaders read. Goes out: [`Item`]s in the order of the files. How a reply is graded against the
//! truth is in `grade`.

use super::clip::{Clip, Seen};
use super::subtitles;
use anyhow::Result;
use std::path::PathBuf;

/// A benchmark as it lies on disk.
pub struct Benchmark {
    /// What its users call it.
    pub name: &'static str,
    /// Where its annotations and videos are published.
    pub published: &'static str,
    /// All its items.
    pub items: Vec<Item>,
}

/// One question about one clip.
pub struct Item {
    /// Unique in the benchmark.
    pub id: String,
    /// The benchmark's task.
    pub task: String,
    /// Further groups that are scored apart: the group's kind, the group.
    pub groups: Vec<(&'static str, String)>,
    /// What is shown.
    pub clip: Clip,
    /// What is asked.
    pub prompt: Prompt,
    /// Longest reply in tokens.
    pub max_tokens: usize,
    /// What is right.
    pub truth: Truth,
}

/// The text of a question.
pub enum Prompt {
    /// As it stands.
    Text(String),
    /// After the subtitles that are shown with the sampled frames.
    Subtitled {
        /// SubRip file, where the clip has one.
        file: Option<PathBuf>,
        /// What follows them.
        rest: String,
    },
}

impl Prompt {
    /// The question about a clip that was seen.
    ///
    /// # Errors
    /// Subtitles that cannot be read.
    pub fn text(&self, seen: &Seen) -> Result<String> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::Subtitled { file, rest } => {
                let lines = match file {
                    Some(file) => subtitles::shown(file, seen)?,
                    None => "No subtitles available".to_string(),
                };
                Ok(format!("This video's subtitles are listed below: \n{lines}\n{rest}"))
            }
        }
    }
}

/// What is right, and by which benchmark's rule a reply is held against it.
pub enum Truth {
    /// MVBench: the letter of the right candidate.
    MvBench(String),
    /// Video-MME: the letter of the right option.
    VideoMme(String),
    /// TempCompass, multiple choice: question with its options, right option.
    MultiChoice(Asked),
    /// TempCompass: `yes` or `no`.
    YesNo(Asked),
    /// TempCompass: question with two sentences, the right one.
    Matching(Asked),
    /// TempCompass: the question that a judge answers from the reply, and its right option.
    Captioning(Asked),
    /// ActivityNet-QA: for a judge.
    Open(Asked),
}

/// A question as a judge sees it, and its right answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The benchmark's text, without what the prompt adds.
    pub question: String,
    /// The right answer.
    pub answer: String,
}

impl Truth {
    /// The right answer in words.
    pub fn answer(&self) -> &str {
        match self {
            Self::MvBench(letter) | Self::VideoMme(letter) => letter,
            Self::MultiChoice(asked)
            | Self::YesNo(asked)
            | Self::Matching(asked)
            | Self::Captioning(asked)
            | Self::Open(asked) => &asked.answer,
        }
    }
}
