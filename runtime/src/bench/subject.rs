//! What is measured, ready: a decoder with the window before it, or a vision encoder.
//!
//! Comes in: the flags of one measuring process. Goes out: a [`Subject`] that fills windows with random frames and asks, through the same prefill and the
//! same spans as an answer, because time does not depend on what is seen; and an [`Eye`]. Only what a case needs is loaded. A random decoder fills windows
//! without reading every frame ([`Filling`]).

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, ensure};
use utr_models::RgbFrame;
use utr_models::bundle::{Bundle, DECODER};
use utr_models::manifest::WindowMode;
use utr_models::onnx::VisionExport;
use utr_models::preprocess::Preprocessor;

use super::{BenchArgs, random};
use crate::answer::Question;
use crate::capture::{Frame, Stamp};
use crate::decode::{CandleDecoder, Decoder, KvShape, Past, Place, Pool, Span};
use crate::encode::{self, EncoderKind, VisionEncoder};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::load;
use crate::prefill::{self, Prefill, Prefix, Reading};
use crate::shape::matrices;
use crate::window::{CAPACITY, EncodedFrame};

/// Tokens of the answer.
pub const ANSWER: usize = 128;
/// Tokens of the prompt before the frames where no template says.
const PROMPT: usize = 14;
/// A camera's picture, in pixels.
pub const PICTURE: [usize; 2] = [640, 480];

/// A vision encoder and its arithmetic.
pub struct Eye {
    /// Pixels to tokens.
    pub encoder: Box<dyn VisionEncoder>,
    /// Multiplications and additions of one frame; 0 where it does not say.
    pub flop: f64,
}

/// A random decoder that, while it fills, reads one frame and gives all others its keys and values: they mean nothing anyway, and a large decoder
/// takes minutes for a window.
struct Filling {
    decoder: CandleDecoder,
    fills: AtomicBool,
    /// Rows of the frame that was read, and its keys and values.
    first: Mutex<Option<(usize, Vec<u8>)>>,
}

impl Decoder for Filling {
    fn hidden(&self) -> usize {
        self.decoder.hidden()
    }

    fn vocab(&self) -> usize {
        self.decoder.vocab()
    }

    fn max_positions(&self) -> usize {
        self.decoder.max_positions()
    }

    fn shape(&self) -> KvShape {
        self.decoder.shape()
    }

    fn embed(&self, ids: &[u32]) -> Result<Vec<f32>> {
        self.decoder.embed(ids)
    }

    fn read(
        &self,
        past: &[Past<'_>],
        place: Place<'_>,
        rows: &[f32],
        mass: Option<&mut [f32]>,
    ) -> Result<Vec<f32>> {
        // Only a frame read in one piece behind the prompt is repeated.
        if !self.fills.load(Relaxed) || past.is_empty() || !place.own.is_empty() {
            return self.decoder.read(past, place, rows, mass);
        }
        let failed = |error: std::io::Error| Error::Decoder(error.to_string());
        let count = rows.len() / self.hidden().max(1);
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bytes)) = first.as_ref().filter(|(known, _)| *known == count) {
            place.own.read_from(&mut bytes.as_slice(), count).map_err(failed)?;
            return Ok(vec![0.0; rows.len()]);
        }
        let Place { own, start } = place;
        let states = self.decoder.read(past, Place { own: &mut *own, start }, rows, mass)?;
        let mut bytes = Vec::with_capacity(own.stored_bytes());
        own.write_to(&mut bytes).map_err(failed)?;
        *first = Some((count, bytes));
        Ok(states)
    }

    fn logits(&self, states: &[f32]) -> Result<Vec<f32>> {
        self.decoder.logits(states)
    }
}

/// A decoder and what stands before its answers.
pub struct Subject {
    /// Reads and speaks.
    pub decoder: Arc<dyn Decoder>,
    /// The prompt before the frames.
    pub before: Vec<u32>,
    /// Visual tokens of one frame.
    pub tokens: usize,
    /// Bytes of the matrices that one token must read.
    pub weight_bytes: u64,
    /// Multiplications and additions of one row through the matrices; 0 where the folder does not say.
    pub row_flop: f64,
    /// What sees before it.
    pub eye: Option<Eye>,
    /// The decoder again, where it is random.
    filling: Option<Arc<Filling>>,
}

impl Eye {
    /// The encoder of a shape's tower, from the file that was made of it, or of a bundle.
    pub fn open(arguments: &BenchArgs, bundle: &Path) -> anyhow::Result<Self> {
        if arguments.entry.shape.is_some() {
            return Self::of_shape(arguments)?.context("the shape has no tower");
        }
        Ok(Self {
            encoder: load::Model::open(bundle, arguments.engine.resolve()?)?.encoder,
            flop: bundle_flop(bundle)[0],
        })
    }

    fn of_shape(arguments: &BenchArgs) -> anyhow::Result<Option<Self>> {
        let Some((shape, export)) = arguments.entry.shape.and_then(|shape| Some((shape, shape.export()?)))
        else {
            return Ok(None);
        };
        let file = arguments.vision_file.as_deref().context("--vision-file is missing")?;
        let kind = arguments.engine.resolve()?.encoder.unwrap_or(EncoderKind::Tract);
        let encoder = encode::open(kind, file, Preprocessor::siglip(shape.image_size()))?;
        Ok(Some(Self { encoder, flop: tower_flop(&export) }))
    }

    /// Resizes and encodes a camera's picture.
    pub fn see(&mut self, frame: &Arc<Frame>, interrupt: &Interrupt) -> anyhow::Result<()> {
        encode::encode_frames(self.encoder.as_mut(), std::slice::from_ref(frame), interrupt)?;
        Ok(())
    }
}

/// A camera's picture.
pub fn picture() -> anyhow::Result<Arc<Frame>> {
    let [width, height] = PICTURE;
    let image = RgbFrame::new(width, height, (0..width * height * 3).map(|i| (i * 7 % 251) as u8).collect())?;
    Ok(Arc::new(Frame { stamp: Stamp { index: 0, pts_ms: 0 }, captured: Instant::now(), image }))
}

/// Multiplications and additions of one frame through tower and projector.
fn tower_flop(v: &VisionExport) -> f64 {
    let (patches, d) = ((v.grid() * v.grid()) as f64, v.hidden_size as f64);
    let (wide, text) = (v.intermediate_size as f64, v.text_hidden_size as f64);
    let block = patches * (4.0 * d * d + 2.0 * d * wide) + 2.0 * patches * patches * d;
    let embed = patches * 3.0 * (v.patch_size * v.patch_size) as f64 * d;
    let projector = patches * d * text + v.tokens() as f64 * (patches * text + text * text);
    2.0 * (v.num_layers as f64 * block + embed + projector)
}

/// Multiplications and additions of one frame through a bundle's tower, and of one row through its decoder; 0 for what is no bundle.
fn bundle_flop(folder: &Path) -> [f64; 2] {
    let Ok(bundle) = Bundle::open(folder) else { return [0.0; 2] };
    let network = &bundle.manifest().network;
    let d = &network.decoder;
    let kv = d.num_kv_heads * (d.hidden_size / d.num_heads.max(1));
    let matrices = d.num_layers * d.hidden_size * (2 * d.hidden_size + 2 * kv + 3 * d.intermediate_size);
    [tower_flop(&network.vision), 2.0 * matrices as f64]
}

impl Subject {
    /// Loads a bundle, or makes a shape; with a shape what sees is loaded only where `with_eye`.
    pub fn open(arguments: &BenchArgs, bundle: &Path, with_eye: bool) -> anyhow::Result<Self> {
        if let Some(shape) = arguments.entry.shape {
            let eye = if with_eye { Eye::of_shape(arguments)? } else { None };
            let (network, weight_bytes) =
                random::decoder(shape.decoder, arguments.entry.bits, arguments.engine.device)?;
            let row_flop = 2.0 * matrices(network.config()) as f64;
            let (fills, first) = (AtomicBool::new(false), Mutex::new(None));
            let filling = Arc::new(Filling { decoder: CandleDecoder::new(network), fills, first });
            return Ok(Self {
                row_flop,
                decoder: filling.clone(),
                filling: Some(filling),
                before: (0..PROMPT as u32).collect(),
                tokens: arguments.entry.tokens(),
                weight_bytes,
                eye,
            });
        }
        let load::Model { encoder, language } = load::Model::open(bundle, arguments.engine.resolve()?)?;
        let (before, _) = language.prompt(&Question::new("?"))?;
        let [flop, row_flop] = bundle_flop(bundle);
        Ok(Self {
            decoder: Arc::clone(&language.decoder),
            before,
            tokens: language.tokens_per_frame,
            weight_bytes: std::fs::metadata(bundle.join(DECODER)).map_or(0, |file| file.len()),
            row_flop,
            eye: Some(Eye { encoder, flop }),
            filling: None,
        })
    }

    /// A random frame.
    pub fn frame(&self, index: usize) -> anyhow::Result<Arc<EncodedFrame>> {
        let mut state = index as u64 + 1;
        let tokens = (0..self.tokens * self.decoder.hidden()).map(|_| random::draw(&mut state)).collect();
        let stamp = Stamp { index, pts_ms: index as u64 * 500 };
        let picture = RgbFrame::new(1, 1, vec![0; 3])?;
        Ok(Arc::new(EncodedFrame { stamp, captured: Instant::now(), picture, tokens }))
    }

    /// A full window's random frames.
    pub fn frames(&self) -> anyhow::Result<Vec<Arc<EncodedFrame>>> {
        (0..CAPACITY).map(|index| self.frame(index)).collect()
    }

    /// Does something with a window whose frames need not be read, where the decoder is random.
    pub fn filled<T>(&self, body: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let fill = |on| self.filling.iter().for_each(|filling| filling.fills.store(on, Relaxed));
        fill(true);
        let done = body();
        fill(false);
        done
    }

    /// A window in a mode, after the frames that went by.
    pub fn window(
        &self,
        mode: WindowMode,
        arguments: &BenchArgs,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Prefill> {
        let (sizes, kv) = ((CAPACITY, self.tokens), arguments.entry.kv);
        let mut prefill = Prefill::new(Arc::clone(&self.decoder), mode, kv, sizes, &self.before, interrupt)?;
        self.filled(|| {
            for index in 0..arguments.entry.seen as usize {
                ensure!(prefill.see(&self.frame(index)?, interrupt)?, "a frame found no room");
            }
            Ok(prefill)
        })
    }

    /// All of a window read anew.
    pub fn read_window(
        &self,
        frames: &[Arc<EncodedFrame>],
        arguments: &BenchArgs,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Reading> {
        let kv = arguments.entry.kv;
        let pool = Pool::new(self.decoder.shape(), kv, self.tokens, 0);
        let mut reading = Reading::new(Prefix::read(self.decoder.as_ref(), &self.before, kv, interrupt)?);
        for frame in frames {
            reading.push(self.decoder.as_ref(), pool.take_or_grow(), frame, interrupt)?;
        }
        Ok(reading)
    }

    /// The question's rows behind a reading: the newline and its tokens; the logits after them.
    pub fn ask(
        &self,
        reading: &Reading,
        own: &mut Span,
        arguments: &BenchArgs,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Vec<f32>> {
        let vocab = self.decoder.vocab() as u32;
        let ids: Vec<u32> = (0..=arguments.entry.question_tokens).map(|i| i * 37 % vocab.max(1)).collect();
        let rows = self.decoder.embed(&ids)?;
        own.truncate(0);
        let place = Place { own, start: reading.end() };
        let states = prefill::read(self.decoder.as_ref(), &reading.past(), place, &rows, interrupt)?;
        let last = states.len().saturating_sub(self.decoder.hidden());
        Ok(self.decoder.logits(states.get(last..).unwrap_or_default())?)
    }

    /// Room for a question and its answer.
    pub fn own(&self, arguments: &BenchArgs) -> Span {
        let rows = arguments.entry.question_tokens as usize + 1 + ANSWER;
        Span::new(self.decoder.shape(), arguments.entry.kv, rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::KvPrecision;
    use crate::shape::{Bits, Shape};

    #[test]
    fn a_filled_window_holds_what_a_read_one_holds() {
        let (network, _) = random::decoder(Shape::Tiny, Bits::Q4, utr_models::DeviceChoice::Cpu).unwrap();
        let (fills, first) = (AtomicBool::new(true), Mutex::new(None));
        let filling = Arc::new(Filling { decoder: CandleDecoder::new(network), fills, first });
        let interrupt = Interrupt::default();
        let frame = |index| {
            let mut state = index as u64;
            let tokens = (0..4 * filling.hidden()).map(|_| random::draw(&mut state)).collect();
            let (stamp, picture) = (Stamp { index, pts_ms: 0 }, RgbFrame::new(1, 1, vec![0; 3]).unwrap());
            Arc::new(EncodedFrame { stamp, captured: Instant::now(), picture, tokens })
        };
        let sizes = (CAPACITY, 4);
        let mode = WindowMode::Rolling;
        let mut prefill =
            Prefill::new(filling.clone(), mode, KvPrecision::F16, sizes, &[1, 2, 3], &interrupt).unwrap();
        for index in 0..40 {
            assert!(prefill.see(&frame(index), &interrupt).unwrap());
        }
        let held = |prefill: &Prefill, at: usize| {
            let mut bytes = Vec::new();
            prefill.reading().unwrap().spans().nth(at).unwrap().write_to(&mut bytes).unwrap();
            bytes
        };
        let reading = prefill.reading().unwrap();
        assert_eq!((reading.len(), reading.end()), (CAPACITY, 3 + CAPACITY * 4));
        assert!(held(&prefill, 0) == held(&prefill, 31) && held(&prefill, 0).iter().any(|byte| *byte != 0));
        // What is read from now on is really read.
        filling.fills.store(false, Relaxed);
        assert!(prefill.see(&frame(40), &interrupt).unwrap());
        assert!(held(&prefill, 31) != held(&prefill, 0));
    }
}
