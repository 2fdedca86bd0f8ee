//! What the subcommands that follow a source share: where frames come from, what reads them, how answers are drawn.
//!
//! Comes in: the flags as typed. Goes out: [`Stream`] and [`TokenChoice`], checked; what was left open is settled once the model is known.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use utr_models::DeviceChoice;
use utr_models::generate::Sampling as TokenSampling;
use utr_models::manifest::WindowMode;
use utr_models::prompt::Kind;

use crate::board::Board;
use crate::budget::Wish;
use crate::capture::CaptureOptions;
use crate::decode::KvPrecision;
use crate::encode::{EncoderKind, Engines, Provider};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::load::Defaults;
use crate::pipeline::Settings;
use crate::source::Source;
use crate::window::CAPACITY;

/// The source and the model, as typed.
#[derive(Clone, Debug, Args)]
pub struct StreamArgs {
    /// Where frames come from: a path or file://, /dev/videoN, csi://N, rtsp://…, test://NAME, pattern://NAME, replay://FILE.mcap, gst://PIPELINE
    #[arg(long, value_name = "URI", env = "UTR_SOURCE", hide_env_values = true)]
    pub source: String,
    /// What reads them.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// The model and its window, as typed.
#[derive(Clone, Debug, Args)]
pub struct ModelArgs {
    /// A bundle, or a Hugging Face LLaVA-OneVision folder [default: UTR_BUNDLE, else the store's current one, else the one that ships]
    #[arg(long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Frames in the window, 1 to 32 [default: the bundle's]
    #[arg(long, value_name = "N")]
    pub frames: Option<usize>,
    /// Sample at this rate and keep the newest frames [default for live sources: the bundle's]
    #[arg(long, value_name = "F")]
    pub fps: Option<f64>,
    /// What happens when the window slides [default: the bundle's for whatever is watched, exact for a clip that is asked (ask)]
    #[arg(long, value_name = "MODE")]
    pub window_mode: Option<Mode>,
    /// How keys and values are stored
    #[arg(long, value_name = "BITS", default_value = "f16")]
    pub kv: KvPrecision,
    /// Instructions before the conversation [default: the chat template's]
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// What computes.
    #[command(flatten)]
    pub engine: EngineArgs,
    /// First build what this machine still lacks for that, which can take minutes (utr prepare)
    #[arg(long)]
    pub prepare: bool,
    /// Whose chat template carries the question
    #[arg(long, value_name = "KIND", default_value = "tokenizer")]
    pub prompt: PromptKind,
    /// Longest wait for a frame before the source counts as hung, in seconds
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub capture_timeout: f64,
    /// Whose camera and decoder elements are used [default: the board this runs on, as far as it is known]
    #[arg(long, value_name = "BOARD", value_parser = clap::builder::PossibleValuesParser::new(Board::names()))]
    pub board: Option<String>,
}

/// What computes, as typed.
#[derive(Clone, Copy, Debug, Args)]
pub struct EngineArgs {
    /// What encodes the frames [default: tract for a bundle, candle for a Hugging Face folder]
    #[arg(long, value_name = "ENGINE")]
    pub encoder: Option<EncoderKind>,
    /// What --encoder ort computes on [default: cpu]
    #[arg(long, value_name = "PROVIDER", requires = "encoder")]
    pub provider: Option<Provider>,
    /// What the decoder computes on: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = device)]
    pub device: DeviceChoice,
}

impl EngineArgs {
    /// The encoder on its provider, none where none was typed; and the decoder's device.
    ///
    /// # Errors
    /// [`Error::Argument`] for a provider of another encoder than ONNX Runtime.
    pub fn resolve(self) -> Result<Engines> {
        let encoder = match (self.encoder, self.provider) {
            (Some(encoder), Some(provider)) => Some(encoder.on(provider)?),
            (encoder, _) => encoder,
        };
        Ok(Engines { encoder, device: self.device })
    }
}

/// A device; which one answers is never left open here.
///
/// # Errors
/// What was found, and how it is written.
fn device(text: &str) -> std::result::Result<DeviceChoice, String> {
    match text.parse() {
        Ok(device @ (DeviceChoice::Cpu | DeviceChoice::Cuda(_))) => Ok(device),
        _ => Err(format!("{text:?} is no device here: write cpu, cuda or cuda:N, counted from 0")),
    }
}

/// How answers are drawn, as typed.
#[derive(Clone, Debug, Args)]
pub struct TokenArgs {
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

impl From<PromptKind> for Kind {
    fn from(kind: PromptKind) -> Self {
        match kind {
            PromptKind::Tokenizer => Self::Tokenizer,
            PromptKind::Processor => Self::Processor,
        }
    }
}

/// The source and the model, checked.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Parsed.
    pub source: Source,
    /// As typed.
    pub bundle: Option<PathBuf>,
    /// As typed; what was left open is the model's to say ([`Stream::settings`]).
    pub frames: Option<usize>,
    /// As typed.
    pub fps: Option<f64>,
    /// As typed; files are read exactly, for live sources it is the model's to say.
    pub mode: Option<WindowMode>,
    /// How keys and values are stored.
    pub kv: KvPrecision,
    /// Instructions that all answers share.
    pub system: Option<String>,
    /// As typed.
    pub engines: Engines,
    /// Whose chat template carries the questions.
    pub prompt: Kind,
    /// Longest wait for a frame.
    pub timeout: Duration,
    /// As typed.
    pub board: Option<Board>,
}

impl StreamArgs {
    /// Applies the limits.
    ///
    /// # Errors
    /// [`Error::Source`] or [`Error::Argument`] with the flag, what it got and what it takes.
    pub fn resolve(self) -> Result<Stream> {
        let source = Source::parse(&self.source)?;
        self.model.resolve(source)
    }
}

impl ModelArgs {
    /// Applies the limits.
    ///
    /// # Errors
    /// [`Error::Argument`] with the flag, what it got and what it takes.
    pub fn resolve(self, source: Source) -> Result<Stream> {
        if let Some(frames) = self.frames.filter(|n| !(1..=CAPACITY).contains(n)) {
            return Err(Error::Argument(format!(
                "--frames {frames}: the window holds 1 to {CAPACITY} frames"
            )));
        }
        if let Some(fps) = self.fps.filter(|fps| !(fps.is_finite() && *fps > 0.0)) {
            return Err(Error::Argument(format!("--fps {fps}: the rate must be above zero")));
        }
        Ok(Stream {
            source,
            bundle: self.bundle,
            frames: self.frames,
            fps: self.fps,
            mode: self.window_mode.map(WindowMode::from),
            kv: self.kv,
            system: self.system,
            engines: self.engine.resolve()?,
            prompt: self.prompt.into(),
            timeout: timeout(self.capture_timeout)?,
            board: self.board.as_deref().map(Board::named).transpose()?,
        })
    }
}

impl Stream {
    /// How the window is followed: what was typed, and for the rest what the model says; `mode` where none was typed.
    ///
    /// # Errors
    /// [`Error::Argument`] for more frames than the model was trained for.
    pub fn settings(&self, model: &Defaults, mode: WindowMode) -> Result<Settings> {
        let frames = frames(self.frames, model)?;
        let mode = self.mode.unwrap_or(mode);
        Ok(Settings { frames, mode, kv: self.kv, system: self.system.clone(), prompt: self.prompt })
    }

    /// What the window will need memory for, as far as it was typed; `mode` where none was, and where that is none the model's own.
    pub fn wish(&self, mode: Option<WindowMode>) -> Wish {
        Wish { frames: self.frames, mode: self.mode.or(mode), kv: self.kv }
    }

    /// How the source is read.
    pub fn capture(&self, interrupt: &Interrupt) -> CaptureOptions {
        CaptureOptions { timeout: self.timeout, interrupt: interrupt.clone(), board: self.board.clone() }
    }
}

/// How tokens are drawn, as typed.
#[derive(Clone, Copy, Debug)]
pub struct TokenChoice {
    temperature: Option<f32>,
    top_p: Option<f32>,
    seed: Option<u64>,
    max_tokens: Option<usize>,
}

impl TokenArgs {
    /// Applies the limits.
    ///
    /// # Errors
    /// [`Error::Argument`], or the model crate's for a value outside its limits.
    pub fn resolve(self) -> Result<TokenChoice> {
        if self.max_tokens == Some(0) {
            return Err(Error::Argument(
                "--max-tokens 0 leaves no room for an answer; give 1 or more".into(),
            ));
        }
        let choice = TokenChoice {
            temperature: self.temperature,
            top_p: self.top_p,
            seed: self.seed,
            max_tokens: self.max_tokens,
        };
        choice.over(TokenSampling::default()).validate()?;
        Ok(choice)
    }
}

impl TokenChoice {
    /// What was typed, and for the rest the model's defaults.
    pub fn over(self, defaults: TokenSampling) -> TokenSampling {
        TokenSampling {
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            seed: self.seed.unwrap_or(defaults.seed),
            max_tokens: self.max_tokens.unwrap_or(defaults.max_tokens),
            ..defaults
        }
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

/// `500ms`, `2s`, `1.5m`, `1h`; a bare number is seconds.
///
/// # Errors
/// What was found, and how it is written.
pub fn time(text: &str) -> std::result::Result<Duration, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..).unwrap_or_default() {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        other => return Err(format!("the unit {other:?} is unknown; there are ms, s, m, h")),
    };
    let number: f64 =
        digits.trim().parse().map_err(|_| format!("{text:?} is no time; write 500ms, 2s, 1m"))?;
    let seconds = number * unit;
    if (0.0..=31_536_000.0).contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(format!("{text} lies outside 0 to one year"))
}

/// A [`time`] above zero.
///
/// # Errors
/// As there, and for zero.
pub fn period(text: &str) -> std::result::Result<Duration, String> {
    match time(text)? {
        Duration::ZERO => Err("there must be some time between; write 500ms, 2s, 1m".into()),
        period => Ok(period),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, ms) in
            [("500ms", 500), ("2s", 2000), ("2", 2000), ("1.5m", 90_000), ("1h", 3_600_000), ("0s", 0)]
        {
            assert_eq!(time(text).unwrap().as_millis(), ms, "{text}");
        }
        for bad in ["", "fast", "3 days", "-1s", "infs", "NaN", "9999h9"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
