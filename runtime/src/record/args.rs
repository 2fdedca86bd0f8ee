//! `utr record` as typed.
//!
//! Comes in: the arguments. Goes out: the same with their rules applied ([`RecordArgs::resolve`]). Nothing is opened here.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use utr_models::manifest::WindowMode;

use crate::answer::check_question;
use crate::cli::{Mode, timeout};
use crate::decode::KvPrecision;
use crate::encode::EncoderKind;
use crate::error::{Error, Result};
use crate::load::Defaults;
use crate::pipeline::Settings;
use crate::source::Source;
use crate::window::CAPACITY;

/// `utr record`, as typed.
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// Where frames come from, as for utr ask
    #[arg(long, value_name = "URI")]
    pub source: String,
    /// The file to write; it must not be there yet
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// A bundle, or a Hugging Face LLaVA-OneVision folder [default: UTR_BUNDLE, else the one that ships]
    #[arg(long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Frames in the window, 1 to 32 [default: the bundle's]
    #[arg(long, value_name = "N")]
    pub frames: Option<usize>,
    /// Frames taken per second [default: the bundle's]
    #[arg(long, value_name = "F")]
    pub fps: Option<f64>,
    /// What happens when the window slides [default: the bundle's for live sources]
    #[arg(long, value_name = "MODE")]
    pub window_mode: Option<Mode>,
    /// How keys and values are stored
    #[arg(long, value_name = "BITS", default_value = "f16")]
    pub kv: KvPrecision,
    /// Instructions before the conversation [default: the chat template's]
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// What encodes the frames [default: tract for a bundle, candle for a Hugging Face folder]
    #[arg(long, value_name = "ENGINE")]
    pub encoder: Option<EncoderKind>,
    /// A question to ask; give it several times to ask several [default: none is asked]
    #[arg(long, value_name = "TEXT")]
    pub question: Vec<String>,
    /// Ask every so many seconds, not only at the end
    #[arg(long, value_name = "S", requires = "question")]
    pub every: Option<f64>,
    /// Record the pictures as the encoder saw them: smaller, and they give the same answers
    #[arg(long)]
    pub model_size: bool,
    /// Stop after so many seconds [default: at the end of a clip, or at Ctrl-C]
    #[arg(long, value_name = "S")]
    pub seconds: Option<f64>,
    /// Stop after so many recorded frames; those that come while the last questions are answered are recorded too
    #[arg(long, value_name = "N")]
    pub max_frames: Option<u64>,
    /// Longest wait for a frame before the source counts as hung, in seconds
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub capture_timeout: f64,
}

/// `utr record`, resolved.
#[derive(Clone, Debug)]
pub struct Record {
    /// Parsed.
    pub source: Source,
    /// As typed.
    pub output: PathBuf,
    /// As typed.
    pub bundle: Option<PathBuf>,
    frames: Option<usize>,
    fps: Option<f64>,
    mode: Option<WindowMode>,
    kv: KvPrecision,
    /// As typed.
    pub system: Option<String>,
    /// As typed.
    pub encoder: Option<EncoderKind>,
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
    /// Longest wait for a frame.
    pub timeout: Duration,
}

impl RecordArgs {
    /// Applies the limits.
    ///
    /// # Errors
    /// [`Error::Source`] or [`Error::Argument`] with the flag, what it got and what it takes.
    pub fn resolve(self) -> Result<Record> {
        let refuse = |text: String| Err(Error::Argument(text));
        if let Some(frames) = self.frames.filter(|n| !(1..=CAPACITY).contains(n)) {
            return refuse(format!("--frames {frames}: the window holds 1 to {CAPACITY} frames"));
        }
        if let Some(fps) = self.fps.filter(|fps| !(fps.is_finite() && *fps > 0.0)) {
            return refuse(format!("--fps {fps}: the rate must be above zero"));
        }
        if self.max_frames == Some(0) {
            return refuse("--max-frames 0 would record nothing; give 1 or more".into());
        }
        self.question.iter().try_for_each(|question| check_question(question))?;
        Ok(Record {
            source: Source::parse(&self.source)?,
            output: self.output,
            bundle: self.bundle,
            frames: self.frames,
            fps: self.fps,
            mode: self.window_mode.map(WindowMode::from),
            kv: self.kv,
            system: self.system,
            encoder: self.encoder,
            questions: self.question,
            every: self.every.map(|seconds| duration("--every", seconds)).transpose()?,
            model_size: self.model_size,
            length: self.seconds.map(|seconds| duration("--seconds", seconds)).transpose()?,
            max_frames: self.max_frames,
            timeout: timeout(self.capture_timeout)?,
        })
    }
}

impl Record {
    /// How the window is followed, and the rate: what was typed, and for the rest what the model says.
    ///
    /// # Errors
    /// [`Error::Argument`] for more frames than the model was trained for.
    pub fn settle(&self, model: &Defaults) -> Result<(Settings, f64)> {
        let frames = self.frames.unwrap_or(model.frames);
        if frames > model.frames {
            let most = model.frames;
            return Err(Error::Argument(format!(
                "--frames {frames}: this model was trained for 1 to {most} frames"
            )));
        }
        let mode = self.mode.unwrap_or(model.mode);
        let settings = Settings { frames, mode, kv: self.kv, system: self.system.clone() };
        Ok((settings, self.fps.unwrap_or(model.fps)))
    }
}

fn duration(flag: &str, seconds: f64) -> Result<Duration> {
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(Error::Argument(format!("{flag} {seconds}: give seconds above zero"))),
    }
}
