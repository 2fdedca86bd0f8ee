//! `utr ask` on the command line.
//!
//! Comes in: its flags. Goes out: [`Ask`], checked, and with the model's defaults [`Ask::settle`] says how frames are chosen and
//! answers drawn.

use std::path::PathBuf;

use clap::Args;
use utr_models::generate::Sampling as TokenSampling;
use utr_models::manifest::WindowMode;

use super::shared::{Stream, StreamArgs, TokenArgs, TokenChoice};
use crate::answer::check_question;
use crate::budget::Wish;
use crate::error::{Error, Result};
use crate::evidence::Wanted;
use crate::load::Defaults;
use crate::pipeline::Settings;
use crate::sample::Sampling;
use crate::source::Source;

/// `utr ask`, as typed.
#[derive(Debug, Args)]
pub struct AskArgs {
    /// The source and the model.
    #[command(flatten)]
    pub stream: StreamArgs,
    /// The question; give it several times to ask several questions of the same frames [a recording is asked its own again]
    #[arg(long, value_name = "TEXT")]
    pub question: Vec<String>,
    /// Write the window with questions and answers into a file that reproduces them
    #[arg(long, value_name = "FILE", requires = "question")]
    pub record: Option<PathBuf>,
    /// Ask a recording's questions again also where another bundle answered them
    #[arg(long, conflicts_with = "question")]
    pub force: bool,
    /// Spread the frames evenly over the clip [default, except for live sources]
    #[arg(long, conflicts_with = "fps")]
    pub uniform: bool,
    /// How answers are drawn.
    #[command(flatten)]
    pub tokens: TokenArgs,
    /// Say which frames the answer stands on, and whether it used time (temporal perplexity)
    #[arg(long)]
    pub evidence: bool,
    /// Print one JSON object per question
    #[arg(long)]
    pub json: bool,
}

/// `utr ask`, resolved.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The source and the model.
    pub stream: Stream,
    /// Checked; none for a recording that is asked its own again.
    pub questions: Vec<String>,
    /// As typed.
    pub record: Option<PathBuf>,
    /// As typed.
    pub force: bool,
    uniform: bool,
    tokens: TokenChoice,
    /// What to say about the frames.
    pub evidence: Wanted,
    /// JSON instead of text.
    pub json: bool,
}

impl AskArgs {
    /// Applies the rules between flags and their limits.
    ///
    /// # Errors
    /// [`crate::Error::Source`] or [`crate::Error::Argument`] with the flag, what it got and what it takes.
    pub fn resolve(self) -> Result<Ask> {
        let stream = self.stream.resolve()?;
        let replays = self.question.is_empty() && matches!(stream.source, Source::Replay(_));
        if self.question.is_empty() && !replays {
            return Err(Error::Argument("there is no question; write one after --question".into()));
        }
        if self.force && !replays {
            return Err(Error::Argument("--force is for asking a recording's questions again".into()));
        }
        let changed = [
            ("--window-mode", stream.mode.is_some()),
            ("--frames", stream.frames.is_some()),
            ("--fps", stream.fps.is_some()),
            ("--system", stream.system.is_some()),
            ("--max-tokens", self.tokens.max_tokens.is_some()),
            ("--temperature", self.tokens.temperature.is_some()),
            ("--evidence", self.evidence),
        ];
        if let (true, Some((flag, _))) = (replays, changed.iter().find(|(_, typed)| *typed)) {
            return Err(Error::Argument(format!(
                "{flag}: a recording is asked its own questions again as they were asked; to ask it anew give --question"
            )));
        }
        self.question.iter().try_for_each(|question| check_question(question))?;
        let tokens = self.tokens.resolve()?;
        Ok(Ask {
            stream,
            questions: self.question,
            record: self.record,
            force: self.force,
            uniform: self.uniform,
            tokens,
            evidence: if self.evidence { Wanted::FramesAndTime } else { Wanted::Nothing },
            json: self.json,
        })
    }
}

impl Ask {
    /// What the window will need memory for, before the model is known.
    pub fn wish(&self) -> Wish {
        self.stream.wish((!self.stream.source.never_ends()).then_some(WindowMode::Exact))
    }

    /// Frames of the window, which of the source's they are, and how answers are drawn: what was typed, and for the rest what the
    /// model says.
    ///
    /// # Errors
    /// As [`Stream::settings`].
    pub fn settle(&self, model: &Defaults) -> Result<(Settings, Sampling, TokenSampling)> {
        let live = self.stream.source.never_ends();
        let settings = self.stream.settings(model, if live { model.mode } else { WindowMode::Exact })?;
        let frames = settings.frames;
        let sampling = match self.stream.fps {
            Some(fps) => Sampling::Newest { fps, frames },
            None if self.uniform => Sampling::Uniform { frames },
            None if live => Sampling::Newest { fps: model.fps, frames },
            None => Sampling::Default { fps: model.fps, frames },
        };
        Ok((settings, sampling, self.tokens.over(model.tokens)))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn ask(arguments: &str) -> Result<Ask> {
        let words = format!("utr ask --source test://ball {arguments}");
        let cli = Cli::try_parse_from(words.split_whitespace())
            .map_err(|error| Error::Argument(error.to_string()))?;
        let Command::Ask(arguments) = cli.command else { panic!("not ask") };
        arguments.resolve()
    }

    #[test]
    fn what_is_not_typed_is_the_models_to_say() {
        let tokens =
            TokenSampling { temperature: 0.5, top_p: 0.9, seed: 3, max_tokens: 40, ignore_eos: false };
        let model = Defaults { frames: 16, fps: 4.0, mode: WindowMode::Exact, tokens };
        let settle = |arguments: &str| {
            ask(arguments)
                .unwrap()
                .settle(&model)
                .map(|(settings, frames, tokens)| (settings.frames, frames, tokens))
        };
        assert_eq!(settle("--question q").unwrap(), (16, Sampling::Default { fps: 4.0, frames: 16 }, tokens));
        let typed = settle("--question q --uniform --frames 8 --temperature 0 --max-tokens 5").unwrap();
        let drawn = TokenSampling { temperature: 0.0, max_tokens: 5, ..tokens };
        assert_eq!(typed, (8, Sampling::Uniform { frames: 8 }, drawn));
        assert_eq!(settle("--question q --fps 3").unwrap().1, Sampling::Newest { fps: 3.0, frames: 16 });
        assert!(settle("--question q --frames 17").unwrap_err().to_string().contains("1 to 16"));
        assert!(ask("--question q --fps 3 --uniform").is_err());
    }

    #[test]
    fn values_outside_their_limits_are_refused_with_the_flag() {
        for (arguments, names) in [
            ("--question q --frames 0", "--frames"),
            ("--question q --frames 33", "--frames"),
            ("--question q --fps 0", "--fps"),
            ("--question q --max-tokens 0", "--max-tokens"),
            ("--question q --capture-timeout 0", "--capture-timeout"),
            ("--question q --temperature=-1", "temperature"),
        ] {
            let message = ask(arguments).unwrap_err().to_string();
            assert!(message.contains(names), "{arguments}: {message}");
        }
    }

    #[test]
    fn empty_and_oversized_questions_are_refused() {
        assert!(check_question(" \n").unwrap_err().to_string().contains("empty"));
        assert!(check_question(&"x".repeat(64 << 10)).is_ok());
        assert!(check_question(&"x".repeat((64 << 10) + 1)).unwrap_err().to_string().contains("65536"));
    }
}
