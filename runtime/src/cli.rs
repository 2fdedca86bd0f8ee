//! The command line: what was typed, and what it resolves to.
//!
//! Comes in: the arguments. Goes out: one struct per subcommand, with the rules between flags applied ([`AskArgs::resolve`]).
//! Nothing below this file reads arguments or environment for settings, and nothing is opened here.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use utr_models::generate::Sampling as TokenSampling;
use utr_models::manifest::WindowMode;
use utr_models::prompt::Kind;

use crate::answer::check_question;
use crate::decode::KvPrecision;
use crate::encode::EncoderKind;
use crate::error::{Error, Result};
use crate::evidence::Wanted;
use crate::load::Defaults;
use crate::pipeline::Settings;
use crate::record::RecordArgs;
use crate::sample::Sampling;
use crate::source::{SOURCES_HELP, Source};
use crate::window::CAPACITY;

/// Ask a camera about its last 32 frames.
#[derive(Debug, Parser)]
#[command(name = "utr", version, about, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands of this version.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Ask one or more questions about a clip, or a recording's questions again
    Ask(AskArgs),
    /// Ask standing questions of a live source: one JSON line per answer
    Watch(crate::watch::WatchArgs),
    /// Ask with the real, the shuffled, the reversed and the single-frame window: was time used?
    Probe(crate::probe::ProbeArgs),
    /// Measure this machine with a model, beside what it could do at most
    Bench(crate::bench::BenchArgs),
    /// Write what a live window sees and answers into a file that reproduces it
    Record(RecordArgs),
    /// Look into a bundle
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// Say what this machine has and lacks
    Doctor(DoctorArgs),
}

/// `utr ask`, as typed.
#[derive(Debug, Args)]
pub struct AskArgs {
    /// Where frames come from: a path or file://, /dev/videoN, csi://N, rtsp://…, test://NAME, pattern://NAME, gst://PIPELINE
    #[arg(long, value_name = "URI")]
    pub source: String,
    /// The question; give it several times to ask several questions of the same frames [a recording is asked its own again]
    #[arg(long, value_name = "TEXT")]
    pub question: Vec<String>,
    /// Write the window with questions and answers into a file that reproduces them
    #[arg(long, value_name = "FILE", requires = "question")]
    pub record: Option<PathBuf>,
    /// Ask a recording's questions again also where another bundle answered them
    #[arg(long, conflicts_with = "question")]
    pub force: bool,
    /// A bundle, or a Hugging Face LLaVA-OneVision folder [default: UTR_BUNDLE, else the one that ships]
    #[arg(long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Frames in the window, 1 to 32 [default: the bundle's]
    #[arg(long, value_name = "N")]
    pub frames: Option<usize>,
    /// Sample at this rate and keep the newest frames
    #[arg(long, value_name = "F", conflicts_with = "uniform")]
    pub fps: Option<f64>,
    /// Spread the frames evenly over the clip [default, except for live sources: the bundle's rate]
    #[arg(long)]
    pub uniform: bool,
    /// What happens when the window slides [default: exact for files, the bundle's for live sources]
    #[arg(long, value_name = "MODE")]
    pub window_mode: Option<Mode>,
    /// How keys and values are stored
    #[arg(long, value_name = "BITS", default_value = "f16")]
    pub kv: KvPrecision,
    /// Instructions before the conversation [default: the chat template's]
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Most tokens of an answer [default: the bundle's]
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<usize>,
    /// 0 takes the likeliest token every time [default: the bundle's]
    #[arg(long, value_name = "T")]
    pub temperature: Option<f32>,
    /// Sample among the likeliest tokens that together reach this probability [default: the bundle's]
    #[arg(long, value_name = "P")]
    pub top_p: Option<f32>,
    /// Seed of the sampling [default: the bundle's]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Whose chat template carries the question
    #[arg(long, value_name = "KIND", default_value = "tokenizer")]
    pub prompt: PromptKind,
    /// What encodes the frames [default: tract for a bundle, candle for a Hugging Face folder]
    #[arg(long, value_name = "ENGINE")]
    pub encoder: Option<EncoderKind>,
    /// Say which frames the answer stands on, and whether it used time (temporal perplexity)
    #[arg(long)]
    pub evidence: bool,
    /// Print one JSON object per question
    #[arg(long)]
    pub json: bool,
    /// Longest wait for a frame before the source counts as hung, in seconds
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub capture_timeout: f64,
}

/// What happens when the window slides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// The whole window is read when a question comes
    Exact,
    /// Two windows, half a window apart, are read as frames come; the older one answers. Exact on the 17 to 32 frames it holds
    Ahead,
    /// Each frame is read once and the oldest one's keys and values are dropped; later frames still carry its influence
    Rolling,
}

impl From<Mode> for WindowMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Exact => Self::Exact,
            Mode::Ahead => Self::Ahead,
            Mode::Rolling => Self::Rolling,
        }
    }
}

/// Whose chat template carries the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PromptKind {
    /// The tokenizer's: as the model was trained and is evaluated
    Tokenizer,
    /// The processor's
    Processor,
}

/// `utr bundle`.
#[derive(Debug, Subcommand)]
pub enum BundleCommand {
    /// Print what a bundle holds
    Inspect {
        /// The bundle
        dir: PathBuf,
        /// Print the manifest as JSON
        #[arg(long)]
        json: bool,
    },
    /// Check every hash and ask the golden questions again
    Verify {
        /// The bundle
        dir: PathBuf,
        /// What encodes the frames
        #[arg(long, value_name = "ENGINE", default_value = "tract")]
        encoder: EncoderKind,
    },
}

/// `utr doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Also read one frame from here
    #[arg(long, value_name = "URI")]
    pub source: Option<String>,
    /// The bundle to look at [default: UTR_BUNDLE, else the one that ships]
    #[arg(long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Longest wait for a frame, in seconds
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub capture_timeout: f64,
}

/// `utr ask`, resolved.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Parsed.
    pub source: Source,
    /// Checked; none where a recording is asked its own.
    pub questions: Vec<String>,
    /// As typed.
    pub record: Option<PathBuf>,
    /// As typed.
    pub force: bool,
    /// As typed.
    pub bundle: Option<PathBuf>,
    /// As typed; what was left open is the model's to say ([`Ask::settle`]).
    frames: Option<usize>,
    rate: Rate,
    tokens: TokenChoice,
    /// Whose template.
    pub prompt: Kind,
    /// As typed.
    pub encoder: Option<EncoderKind>,
    /// As typed; files are read exactly, for live sources it is the model's to say.
    mode: Option<WindowMode>,
    kv: KvPrecision,
    system: Option<String>,
    /// What to say about the frames.
    pub evidence: Wanted,
    /// JSON instead of text.
    pub json: bool,
    /// Longest wait for a frame.
    pub timeout: Duration,
}

impl AskArgs {
    /// Applies the rules between flags and their limits.
    ///
    /// # Errors
    /// [`Error::Source`] or [`Error::Argument`] with the flag, what it got and what it takes.
    pub fn resolve(self) -> Result<Ask> {
        let refuse = |text: String| Err(Error::Argument(text));
        if let Some(frames) = self.frames.filter(|n| !(1..=CAPACITY).contains(n)) {
            return refuse(format!("--frames {frames}: the window holds 1 to {CAPACITY} frames"));
        }
        if self.max_tokens == Some(0) {
            return refuse("--max-tokens 0 leaves no room for an answer; give 1 or more".into());
        }
        let source = Source::parse(&self.source)?;
        let replays = self.question.is_empty() && matches!(source, Source::Replay(_));
        if self.question.is_empty() && !replays {
            return refuse("there is no question; write one after --question".into());
        }
        if self.force && !replays {
            return refuse("--force is for asking a recording's questions again".into());
        }
        self.question.iter().try_for_each(|question| check_question(question))?;
        let rate = match self.fps {
            Some(fps) if fps.is_finite() && fps > 0.0 => Rate::Newest(fps),
            Some(fps) => return refuse(format!("--fps {fps}: the rate must be above zero")),
            None if self.uniform => Rate::Uniform,
            None => Rate::Open,
        };
        let tokens = TokenChoice {
            temperature: self.temperature,
            top_p: self.top_p,
            seed: self.seed,
            max_tokens: self.max_tokens,
        };
        tokens.over(TokenSampling::default()).validate()?;
        Ok(Ask {
            source,
            record: self.record,
            force: self.force,
            questions: self.question,
            bundle: self.bundle,
            frames: self.frames,
            rate,
            tokens,
            prompt: match self.prompt {
                PromptKind::Tokenizer => Kind::Tokenizer,
                PromptKind::Processor => Kind::Processor,
            },
            encoder: self.encoder,
            mode: self.window_mode.map(WindowMode::from),
            kv: self.kv,
            system: self.system,
            evidence: if self.evidence { Wanted::FramesAndTime } else { Wanted::Nothing },
            json: self.json,
            timeout: timeout(self.capture_timeout)?,
        })
    }
}

/// How frames are chosen, as typed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rate {
    Open,
    Uniform,
    Newest(f64),
}

/// How tokens are drawn, as typed.
#[derive(Clone, Copy, Debug)]
struct TokenChoice {
    temperature: Option<f32>,
    top_p: Option<f32>,
    seed: Option<u64>,
    max_tokens: Option<usize>,
}

impl TokenChoice {
    fn over(self, defaults: TokenSampling) -> TokenSampling {
        TokenSampling {
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            seed: self.seed.unwrap_or(defaults.seed),
            max_tokens: self.max_tokens.unwrap_or(defaults.max_tokens),
        }
    }
}

impl Ask {
    /// Frames of the window, which of the source's they are, and how answers are drawn: what was typed, and for the rest what the
    /// model says.
    ///
    /// # Errors
    /// [`Error::Argument`] for more frames than the model was trained for.
    pub fn settle(&self, model: &Defaults) -> Result<(Settings, Sampling, TokenSampling)> {
        let frames = frames(self.frames, model)?;
        let sampling = match self.rate {
            Rate::Open => Sampling::Default { fps: model.fps, frames },
            Rate::Uniform => Sampling::Uniform { frames },
            Rate::Newest(fps) => Sampling::Newest { fps, frames },
        };
        let mode = self.mode.unwrap_or(WindowMode::Exact);
        let settings = Settings { frames, mode, kv: self.kv, system: self.system.clone() };
        Ok((settings, sampling, self.tokens.over(model.tokens)))
    }
}

/// `--frames`, or what the model was trained for.
///
/// # Errors
/// [`Error::Argument`] for none, more than 32, or more than the model was trained for.
pub fn frames(typed: Option<usize>, model: &Defaults) -> Result<usize> {
    let most = model.frames;
    match typed {
        None => Ok(most),
        Some(frames) if (1..=most).contains(&frames) => Ok(frames),
        Some(frames) => {
            Err(Error::Argument(format!("--frames {frames}: this model was trained for 1 to {most} frames")))
        }
    }
}

/// `--capture-timeout` as a duration.
///
/// # Errors
/// [`Error::Argument`] outside 0.1 s to one hour.
pub fn timeout(seconds: f64) -> Result<Duration> {
    if (0.1..=3600.0).contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(Error::Argument(format!("--capture-timeout {seconds}: give 0.1 to 3600 seconds")))
}

/// The sources' spelling, for `--help`.
pub fn sources_help() -> &'static str {
    SOURCES_HELP
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(arguments: &str) -> Result<Ask> {
        let words = format!("utr ask --source test://ball {arguments}");
        let cli = Cli::try_parse_from(words.split_whitespace())
            .map_err(|error| Error::Argument(error.to_string()))?;
        let Command::Ask(arguments) = cli.command else { panic!("not ask") };
        arguments.resolve()
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_not_typed_is_the_models_to_say() {
        let tokens = TokenSampling { temperature: 0.5, top_p: 0.9, seed: 3, max_tokens: 40 };
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
