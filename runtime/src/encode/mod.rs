//! Encode: pictures to visual tokens.
//!
//! Comes in: captured frames. Goes out: each frame's tokens, made once, whatever engine computes them: `tract` (the
//! default: nothing to install), `ort` (an ONNX Runtime library of the user's), or `candle` (the reference network).
//! All three read the same `vision.onnx`; there is no silent change from one to another.

mod candle;
#[cfg(feature = "ort")]
mod engine;
#[cfg(feature = "ort")]
mod ort;
#[cfg(feature = "tract")]
mod tract;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use utr_models::DeviceChoice;
use utr_models::preprocess::Preprocessor;

use crate::capture::Frame;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::window::EncodedFrame;

pub use candle::CandleEncoder;
#[cfg(feature = "ort")]
pub use ort::{
    OrtEncoder, library as onnxruntime_library, load as load_onnxruntime, session as onnxruntime_session,
};
#[cfg(feature = "tract")]
pub use tract::TractEncoder;

/// Frames encoded by one call; also how often an interrupt is noticed.
const BATCH: usize = 8;

/// Pixels to visual tokens: tower, projector and pool.
pub trait VisionEncoder: Send {
    /// `tract`, `ort`, `ort-cuda`, `ort-tensorrt` or `candle`.
    fn name(&self) -> &'static str;

    /// T: visual tokens of one frame.
    fn tokens_per_frame(&self) -> usize;

    /// The decoder's width.
    fn hidden(&self) -> usize;

    /// (hidden) the vector that closes a clip.
    fn newline(&self) -> &[f32];

    /// How a picture becomes pixels.
    fn preprocessing(&self) -> &Preprocessor;

    /// (n, 3, S, S) normalized pixels to (n, T, hidden) tokens.
    ///
    /// # Errors
    /// [`Error::Encoder`] where the number of values is wrong or the engine fails.
    fn encode(&mut self, pixels: &[f32], n: usize) -> Result<Vec<f32>>;
}

/// Which engine encodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum EncoderKind {
    /// Pure Rust, nothing to install.
    Tract,
    /// ONNX Runtime, loaded when asked for (ORT_DYLIB_PATH names the library).
    Ort,
    /// The reference network.
    Candle,
    /// ONNX Runtime with --provider cuda.
    #[value(hide = true)]
    OrtCuda,
    /// ONNX Runtime with --provider tensorrt.
    #[value(hide = true)]
    OrtTensorrt,
}

/// What ONNX Runtime computes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Provider {
    /// The processor
    Cpu,
    /// An NVIDIA GPU, in single precision
    Cuda,
    /// An NVIDIA GPU through TensorRT, in half precision; `utr prepare` builds its engine
    Tensorrt,
}

impl EncoderKind {
    /// ONNX Runtime on a provider.
    ///
    /// # Errors
    /// [`Error::Argument`] for another engine.
    pub fn on(self, provider: Provider) -> Result<Self> {
        match (self, provider) {
            (Self::Ort, Provider::Cpu) => Ok(self),
            (Self::Ort, Provider::Cuda) => Ok(Self::OrtCuda),
            (Self::Ort, Provider::Tensorrt) => Ok(Self::OrtTensorrt),
            _ => Err(Error::Argument("--provider is ONNX Runtime's: give --encoder ort with it".into())),
        }
    }
}

/// What computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Engines {
    /// What encodes the frames; none: tract for a bundle, candle for a Hugging Face folder.
    pub encoder: Option<EncoderKind>,
    /// What the decoder computes on, and with it the tower of a Hugging Face folder.
    pub device: DeviceChoice,
}

impl From<EncoderKind> for Engines {
    fn from(encoder: EncoderKind) -> Self {
        Some(encoder).into()
    }
}

impl From<Option<EncoderKind>> for Engines {
    fn from(encoder: Option<EncoderKind>) -> Self {
        Self { encoder, ..Self::default() }
    }
}

/// What had to be built for this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// The engine runs the graph as it is.
    Nothing,
    /// An engine that fits lay in this folder.
    Found(PathBuf),
    /// One was built into this folder.
    Built(PathBuf),
}

/// Builds what an engine needs of a `vision.onnx` on this machine, which can take minutes; nothing else builds it.
///
/// # Errors
/// As [`open`]; [`Error::Io`] where the cache cannot be written.
pub fn prepare(kind: EncoderKind, onnx: &Path, preprocessor: &Preprocessor) -> Result<Prepared> {
    match kind {
        #[cfg(feature = "ort")]
        EncoderKind::OrtTensorrt => ort::prepare(onnx, preprocessor),
        #[cfg(not(feature = "ort"))]
        EncoderKind::OrtTensorrt => open(kind, onnx, preprocessor.clone()).map(|_| Prepared::Nothing),
        _ => Ok(Prepared::Nothing),
    }
}

/// Opens an engine on a `vision.onnx`.
///
/// # Errors
/// [`Error::Encoder`] where the engine is not in this build, refuses the graph, or is not prepared for it.
pub fn open(kind: EncoderKind, onnx: &Path, preprocessor: Preprocessor) -> Result<Box<dyn VisionEncoder>> {
    match kind {
        EncoderKind::Tract => open_tract(onnx, preprocessor),
        EncoderKind::Ort => open_ort(onnx, preprocessor, Provider::Cpu),
        EncoderKind::OrtCuda => open_ort(onnx, preprocessor, Provider::Cuda),
        EncoderKind::OrtTensorrt => open_ort(onnx, preprocessor, Provider::Tensorrt),
        EncoderKind::Candle => Ok(Box::new(CandleEncoder::open(onnx, preprocessor)?)),
    }
}

#[cfg(feature = "tract")]
fn open_tract(onnx: &Path, preprocessor: Preprocessor) -> Result<Box<dyn VisionEncoder>> {
    Ok(Box::new(TractEncoder::open(onnx, preprocessor)?))
}

#[cfg(not(feature = "tract"))]
fn open_tract(_onnx: &Path, _preprocessor: Preprocessor) -> Result<Box<dyn VisionEncoder>> {
    Err(Error::encoder(
        "tract",
        "not in this build; choose --encoder candle, or build with the feature `tract`",
    ))
}

#[cfg(feature = "ort")]
fn open_ort(onnx: &Path, preprocessor: Preprocessor, provider: Provider) -> Result<Box<dyn VisionEncoder>> {
    Ok(Box::new(OrtEncoder::open(onnx, preprocessor, provider)?))
}

#[cfg(not(feature = "ort"))]
fn open_ort(_: &Path, _: Preprocessor, _: Provider) -> Result<Box<dyn VisionEncoder>> {
    Err(Error::encoder("ort", "not in this build; choose another --encoder, or build with the feature `ort`"))
}

/// Encodes frames in order; a frame that stands several times in a row is encoded once and shared.
///
/// # Errors
/// Whatever preprocessing or the engine reports; [`Error::Interrupted`] between batches.
pub fn encode_frames(
    encoder: &mut dyn VisionEncoder,
    frames: &[Arc<Frame>],
    interrupt: &Interrupt,
) -> Result<Vec<Arc<EncodedFrame>>> {
    let mut distinct: Vec<&Arc<Frame>> = frames.iter().collect();
    distinct.dedup_by(|a, b| Arc::ptr_eq(a, b));
    let mut encoded = Vec::with_capacity(distinct.len());
    for batch in distinct.chunks(BATCH) {
        interrupt.check()?;
        let (mut pixels, mut pictures) = (Vec::new(), Vec::new());
        for frame in batch {
            let picture = encoder.preprocessing().picture(&frame.image)?;
            pixels.extend(encoder.preprocessing().pixels(&picture));
            pictures.push(picture);
        }
        let tokens = encoder.encode(&pixels, batch.len())?;
        let per_frame = encoder.tokens_per_frame() * encoder.hidden();
        if tokens.len() != per_frame * batch.len() {
            let reason =
                format!("returned {} values for {} frames of {per_frame}", tokens.len(), batch.len());
            return Err(Error::encoder(encoder.name(), reason));
        }
        for ((frame, picture), tokens) in
            batch.iter().zip(pictures).zip(tokens.chunks_exact(per_frame.max(1)))
        {
            let (stamp, captured, tokens) = (frame.stamp, frame.captured, tokens.to_vec());
            encoded.push(Arc::new(EncodedFrame { stamp, captured, picture, tokens }));
        }
    }
    // Spread the distinct frames over the repeats.
    let mut out = Vec::with_capacity(frames.len());
    let mut at = 0;
    for (i, frame) in frames.iter().enumerate() {
        let repeats =
            i.checked_sub(1).and_then(|i| frames.get(i)).is_some_and(|last| Arc::ptr_eq(last, frame));
        at += usize::from(i > 0 && !repeats);
        out.extend(encoded.get(at).cloned());
    }
    Ok(out)
}

/// Checks the number of pixel values of a call.
fn check_pixels(name: &'static str, pixels: &[f32], n: usize, preprocessor: &Preprocessor) -> Result<()> {
    let expected = n * 3 * preprocessor.height * preprocessor.width;
    if n == 0 || pixels.len() != expected {
        let reason =
            format!("{n} frames need {expected} pixel values (and at least one frame), got {}", pixels.len());
        return Err(Error::encoder(name, reason));
    }
    Ok(())
}
