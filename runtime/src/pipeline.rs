//! The pipeline, and the file to read first: camera → capture → window → encode → prefill → decode → answer.
//!
//! Comes in: a model, frames, questions. Goes out: answers. [`Seeing`] takes frames in: each is encoded once, on arrival, and read
//! once where the window's mode says so. [`Answerer`] answers a question about a [`View`], which is what Seeing held at one moment and
//! no later frame changes, so that both can run at the same time. [`Pipeline`] is the two one after the other, for clips; a live source has
//! each on a thread of its own ([`crate::session`]), fed by [`crate::capture::live`]. Nothing is printed: text leaves through a callback.

use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use utr_models::RgbFrame;
use utr_models::manifest::WindowMode;
use utr_models::prompt::Kind;

use crate::answer::{Answer, Answerer, Question};
use crate::budget::Available;
use crate::capture::{self, CaptureOptions, Frame};
use crate::decode::KvPrecision;
use crate::encode::{VisionEncoder, encode_frames};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::load::{Language, Model};
use crate::prefill::{self, Prefill, Reading};
use crate::refuse;
use crate::sample::{Sampling, each_due, sample_with};
use crate::source::Source;
use crate::window::{EncodedFrame, Window};

/// How a stream is followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Frames of the window, 1 to 32.
    pub frames: usize,
    /// What happens when it slides.
    pub mode: WindowMode,
    /// How keys and values are stored.
    pub kv: KvPrecision,
    /// Instructions that all answers share; the chat template's own where none are given.
    pub system: Option<String>,
    /// Whose chat template carries the questions.
    #[serde(default)]
    pub prompt: Kind,
}

impl Settings {
    /// The reference: a window of `frames` that is read when a question comes, in f32.
    pub fn exact(frames: usize) -> Self {
        Self { frames, mode: WindowMode::Exact, kv: KvPrecision::F32, system: None, prompt: Kind::default() }
    }

    /// A question as this stream's prompt begins: what was read ahead can then be continued.
    pub fn question(&self, text: impl Into<String>) -> Question {
        Question { prompt: self.prompt, ..Question::new(text).with_system(self.system.clone()) }
    }
}

/// What an answer can stand on: the window at one moment, pinned.
#[derive(Clone, Debug)]
pub struct View {
    /// The frames, oldest first.
    pub frames: Vec<Arc<EncodedFrame>>,
    /// Their keys and values, where they were read already.
    pub reading: Option<Reading>,
    /// How the window is followed.
    pub mode: WindowMode,
    /// Frames lost before they reached the window, since the start.
    pub dropped: u64,
    /// Time spent on capturing since the previous view; in the modes that read ahead, on reading too. Of a live session: how long the newest
    /// frame waited.
    pub capture_ms: f64,
    /// Time spent on encoding since the previous view; of a live session: on its newest frame.
    pub encode_ms: f64,
}

impl View {
    /// Frames that nothing has read yet; they are read when a question comes, exactly.
    pub fn unread(frames: Vec<Arc<EncodedFrame>>) -> Self {
        let (capture_ms, encode_ms) = (0.0, 0.0);
        Self { frames, reading: None, mode: WindowMode::Exact, dropped: 0, capture_ms, encode_ms }
    }
}

/// What became of a frame.
#[derive(Clone, Debug)]
pub struct Look {
    /// Encoded.
    pub frame: Arc<EncodedFrame>,
    /// False where it was dropped because answers pin the memory.
    pub taken: bool,
    /// Resizing and encoding.
    pub encode_ms: f64,
    /// Reading it in the modes that read ahead.
    pub prefill_ms: f64,
}

/// The side that takes frames in: encoder, window, prefill.
pub struct Seeing {
    encoder: Box<dyn VisionEncoder>,
    window: Window,
    prefill: Prefill,
    interrupt: Interrupt,
    capture_ms: f64,
    encode_ms: f64,
    dropped: u64,
}

impl Seeing {
    /// An empty window. In the modes that read ahead the prompt is read here, and all memory for keys and values taken.
    ///
    /// # Errors
    /// Whatever the chat template and the decoder report.
    pub fn new(
        encoder: Box<dyn VisionEncoder>,
        language: &Language,
        settings: &Settings,
        interrupt: Interrupt,
    ) -> Result<Self> {
        let window = Window::new(settings.frames);
        let (before, _) = language.prompt(&settings.question("?"))?;
        let sizes = (window.limit(), encoder.tokens_per_frame());
        let rows = prefill::spans(settings.mode, sizes.0) * sizes.1;
        let bytes = language.decoder.shape().bytes(settings.kv, rows) as u64;
        refuse::check_window(&language.name, bytes, Available::here())?;
        let decoder = Arc::clone(&language.decoder);
        let prefill = Prefill::new(decoder, settings.mode, settings.kv, sizes, &before, &interrupt)?;
        Ok(Self { encoder, window, prefill, interrupt, capture_ms: 0.0, encode_ms: 0.0, dropped: 0 })
    }

    /// Captures the source's chosen frames into the window, replacing what it held.
    ///
    /// # Errors
    /// Whatever capture, encoding and prefill report.
    pub fn watch(&mut self, source: &Source, sampling: Sampling, options: &CaptureOptions) -> Result<()> {
        self.clear();
        self.dropped = 0;
        let began = Instant::now();
        if let (Sampling::Newest { fps, .. }, true) = (sampling, self.prefill.mode() != WindowMode::Exact) {
            return self.follow(source, fps, options);
        }
        let preprocessor = self.encoder.preprocessing();
        let keep = |picture: RgbFrame| Ok(preprocessor.picture(&picture)?);
        let sampled = sample_with(source, sampling, options, &keep)?;
        self.capture_ms += ms(began);
        self.dropped += sampled.dropped;
        self.see(&sampled.frames)
    }

    /// Takes every frame that is due, as a live window does: a clip to its end, a live source until the window is full.
    fn follow(&mut self, source: &Source, fps: f64, options: &CaptureOptions) -> Result<()> {
        let began = Instant::now();
        let encoded_before = self.encode_ms;
        let mut clip = capture::open(source, options)?;
        each_due(clip.as_mut(), fps, &mut |frame, live| {
            self.see(&[frame])?;
            Ok(!(live && self.window.len() == self.window.limit()))
        })?;
        self.capture_ms += ms(began) - (self.encode_ms - encoded_before);
        self.dropped += clip.dropped();
        Ok(())
    }

    /// Encodes frames, in order, into the window, and reads them where the mode says so; the oldest slide out.
    ///
    /// # Errors
    /// Whatever encoding and prefill report; the window then holds the frames before the failing one.
    pub fn see(&mut self, frames: &[Arc<Frame>]) -> Result<()> {
        let began = Instant::now();
        let encoded = encode_frames(self.encoder.as_mut(), frames, &self.interrupt)?;
        self.encode_ms += ms(began);
        encoded.into_iter().try_for_each(|frame| self.take(frame).map(drop))
    }

    /// Encodes one frame and leaves the window as it is.
    ///
    /// # Errors
    /// Whatever encoding reports.
    pub fn encode(&mut self, frame: &Arc<Frame>) -> Result<Arc<EncodedFrame>> {
        let encoded = encode_frames(self.encoder.as_mut(), std::slice::from_ref(frame), &self.interrupt)?;
        let none = || Error::encoder(self.encoder.name(), "gave no tokens for a frame");
        encoded.into_iter().next().ok_or_else(none)
    }

    /// Takes one frame as it comes, and says what that cost.
    ///
    /// # Errors
    /// As [`Seeing::see`]; the window is then as before.
    pub fn look(&mut self, frame: &Arc<Frame>) -> Result<Look> {
        let began = Instant::now();
        let encoded = self.encode(frame)?;
        let encode_ms = ms(began);
        self.encode_ms += encode_ms;
        let began = Instant::now();
        let taken = self.take(Arc::clone(&encoded))?;
        Ok(Look { frame: encoded, taken, encode_ms, prefill_ms: ms(began) })
    }

    /// Takes an encoded frame; false where it had to be dropped because answers pin the memory.
    ///
    /// # Errors
    /// Whatever prefill reports; nothing is then taken.
    pub fn take(&mut self, frame: Arc<EncodedFrame>) -> Result<bool> {
        let read = self.prefill.see(&frame, &self.interrupt)?;
        if read {
            self.window.push(frame);
        } else {
            self.dropped += 1;
        }
        Ok(read)
    }

    /// Goes on from a window that was read before, in `rolling`.
    ///
    /// # Errors
    /// As [`Prefill::resume`]; nothing is then changed.
    pub fn resume(&mut self, reading: Reading) -> Result<()> {
        let frames: Vec<_> = reading.frames().cloned().collect();
        self.prefill.resume(reading)?;
        self.window.clear();
        frames.into_iter().for_each(|frame| drop(self.window.push(frame)));
        Ok(())
    }

    /// Forgets all frames.
    pub fn clear(&mut self) {
        self.window.clear();
        self.prefill.clear();
    }

    /// The window now; the times since the last view go with it.
    pub fn view(&mut self) -> View {
        let reading = self.prefill.reading().cloned();
        let frames = match &reading {
            Some(reading) => reading.frames().cloned().collect(),
            None => self.window.iter().cloned().collect(),
        };
        View {
            frames,
            reading,
            mode: self.prefill.mode(),
            dropped: self.dropped,
            capture_ms: std::mem::take(&mut self.capture_ms),
            encode_ms: std::mem::take(&mut self.encode_ms),
        }
    }
}

/// Both sides, one after the other.
pub struct Pipeline {
    seeing: Seeing,
    answerer: Answerer,
    interrupt: Interrupt,
}

impl Pipeline {
    /// A pipeline with an empty window.
    ///
    /// # Errors
    /// As [`Seeing::new`].
    pub fn new(model: Model, settings: &Settings, interrupt: Interrupt) -> Result<Self> {
        let Model { encoder, language } = model;
        let answerer = Answerer::new(Arc::clone(&language), settings.kv);
        let seeing = Seeing::new(encoder, &language, settings, interrupt.clone())?;
        Ok(Self { seeing, answerer, interrupt })
    }

    /// As [`Seeing::watch`].
    ///
    /// # Errors
    /// As [`Seeing::watch`].
    pub fn watch(&mut self, source: &Source, sampling: Sampling, options: &CaptureOptions) -> Result<()> {
        self.seeing.watch(source, sampling, options)
    }

    /// As [`Seeing::see`].
    ///
    /// # Errors
    /// As [`Seeing::see`].
    pub fn see(&mut self, frames: &[Arc<Frame>]) -> Result<()> {
        self.seeing.see(frames)
    }

    /// As [`Seeing::clear`].
    pub fn clear(&mut self) {
        self.seeing.clear();
    }

    /// Answers one question about the window; `on_text` gets the text piece by piece as it is made.
    ///
    /// # Errors
    /// As [`Answerer::answer`].
    pub fn ask(
        &mut self,
        question: &Question,
        on_text: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Answer> {
        let view = self.view();
        self.answer(&view, question, on_text)
    }

    /// As [`Seeing::view`].
    pub fn view(&mut self) -> View {
        self.seeing.view()
    }

    /// As [`Answerer::answer`].
    ///
    /// # Errors
    /// As [`Answerer::answer`].
    pub fn answer(
        &mut self,
        view: &View,
        question: &Question,
        on_text: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Answer> {
        self.answerer.answer(view, question, &self.interrupt, on_text)
    }

    /// Mean negative log-likelihood, in nats a token, of an answer about the window.
    ///
    /// # Errors
    /// As [`Answerer::likelihood`].
    pub fn likelihood(&mut self, question: &Question, tokens: &[u32]) -> Result<f64> {
        let view = self.view();
        self.answerer.likelihood(&view.frames, question, tokens, &self.interrupt)
    }

    /// The side that sees, the side that answers.
    pub fn split(self) -> (Seeing, Answerer) {
        (self.seeing, self.answerer)
    }
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
