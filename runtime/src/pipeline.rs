//! The pipeline, and the file to read first: camera → capture → window → encode → prefill → decode → answer.
//!
//! Comes in: a model, a source, questions. Goes out: answers. It owns the window and the decoder's state and calls the
//! stages in order; frames are encoded once and read once, and further questions about the same window cost only their
//! own tokens. It prints nothing: text leaves through a callback.

use std::sync::Arc;
use std::time::Instant;

use utr_models::generate::{Sampler, Sampling as TokenSampling};
use utr_models::prompt::Kind;
use utr_models::text::TokenStream;

use crate::answer::{Answer, BundleName, FrameUsed, Timings};
use crate::capture::{CaptureOptions, Frame};
use crate::decode;
use crate::encode::encode_frames;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::load::Model;
use crate::prefill::{self, Prefix};
use crate::sample::{Sampling, sample};
use crate::source::Source;
use crate::window::Window;

/// Longest question, in bytes.
pub const MAX_QUESTION_BYTES: usize = 64 << 10;

/// What is asked, and how to answer.
#[derive(Clone, Debug)]
pub struct Question {
    /// 1 byte to [`MAX_QUESTION_BYTES`].
    pub text: String,
    /// Which chat template carries it.
    pub prompt: Kind,
    /// Temperature, top-p, seed and the limit on tokens.
    pub sampling: TokenSampling,
    /// When the question was known.
    pub asked: Instant,
}

/// A model, its window, and what the decoder has read of it.
pub struct Pipeline {
    model: Model,
    window: Window,
    prefix: Option<Prefix>,
    interrupt: Interrupt,
    capture_ms: f64,
    encode_ms: f64,
    dropped: u64,
}

impl Pipeline {
    /// A pipeline with an empty window of `frames` (1 to 32).
    pub fn new(model: Model, frames: usize, interrupt: Interrupt) -> Self {
        let window = Window::new(frames);
        Self { model, window, prefix: None, interrupt, capture_ms: 0.0, encode_ms: 0.0, dropped: 0 }
    }

    /// Captures the source's chosen frames into the window, replacing what it held.
    ///
    /// # Errors
    /// Whatever capture and encoding report.
    pub fn watch(&mut self, source: &Source, sampling: Sampling, options: &CaptureOptions) -> Result<()> {
        let began = Instant::now();
        let sampled = sample(source, sampling, options)?;
        self.capture_ms += ms(began);
        self.dropped = sampled.dropped;
        self.window.clear();
        self.see(&sampled.frames)
    }

    /// Encodes frames, in order, into the window; the oldest slide out.
    ///
    /// # Errors
    /// Whatever encoding reports; the window is then unchanged.
    pub fn see(&mut self, frames: &[Arc<Frame>]) -> Result<()> {
        let began = Instant::now();
        let encoded = encode_frames(self.model.encoder.as_mut(), frames, &self.interrupt)?;
        self.encode_ms += ms(began);
        for frame in encoded {
            self.window.push(frame);
        }
        Ok(())
    }

    /// Answers one question about the window; `on_text` gets the text piece by piece as it is made.
    ///
    /// # Errors
    /// [`Error::Argument`] for a question outside its limits or an empty window, [`Error::Context`] where the model
    /// cannot read that much, [`Error::Interrupted`], and whatever the stages and `on_text` report.
    pub fn ask(
        &mut self,
        question: &Question,
        on_text: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Answer> {
        check_question(&question.text)?;
        if self.window.is_empty() {
            return Err(Error::Argument("the window is empty: no frame was seen yet".into()));
        }
        let model = &mut self.model;
        let (before, after) =
            model.template(question.prompt).video_prompt(&model.tokenizer, &question.text)?;
        let visual = self.window.len() * model.encoder.tokens_per_frame() + 1;
        let prompt_tokens = before.len() + visual + after.len();
        let limit = model.decoder.max_positions();
        if prompt_tokens >= limit {
            let text = before.len() + after.len();
            return Err(Error::Context { needed: prompt_tokens + 1, limit, visual, text });
        }

        let began = Instant::now();
        let decoder = model.decoder.as_mut();
        let newline = model.encoder.newline();
        let (prefix, reused_tokens) =
            prefill::prefix(decoder, self.prefix.take(), &before, &self.window, newline, &self.interrupt)?;
        self.prefix = Some(prefix);
        let rows = decoder.embed(&after)?;
        let logits = prefill::read(decoder, &rows, &self.interrupt)?;
        let prefill_ms = ms(began);

        let mut sampler = Sampler::new(question.sampling.clone())?;
        let mut stream = TokenStream::new();
        let (mut tokens, mut text, mut first) = (Vec::new(), String::new(), None);
        let tokenizer = &model.tokenizer;
        let max_tokens = question.sampling.max_tokens;
        let mut on_token = |token: u32| -> Result<()> {
            first.get_or_insert_with(Instant::now);
            tokens.push(token);
            let piece = stream.push(tokenizer, token)?;
            text.push_str(&piece);
            if piece.is_empty() { Ok(()) } else { on_text(&piece) }
        };
        let finish = decode::generate(
            decoder,
            logits,
            &mut sampler,
            &model.stop,
            max_tokens,
            &self.interrupt,
            &mut on_token,
        )?;
        let ended = Instant::now();
        let rest = stream.finish(tokenizer)?;
        if !rest.is_empty() {
            text.push_str(&rest);
            on_text(&rest)?;
        }

        let first = first.unwrap_or(ended);
        let decode_s = ended.duration_since(first).as_secs_f64();
        let later_tokens = tokens.len().saturating_sub(1);
        let timings = Timings {
            capture_ms: std::mem::take(&mut self.capture_ms),
            encode_ms: std::mem::take(&mut self.encode_ms),
            prefill_ms,
            ttft_ms: first.duration_since(question.asked).as_secs_f64() * 1e3,
            decode_ms: decode_s * 1e3,
            prompt_tokens,
            reused_tokens,
            output_tokens: tokens.len(),
            tokens_per_s: if later_tokens == 0 || decode_s <= 0.0 {
                0.0
            } else {
                later_tokens as f64 / decode_s
            },
        };
        Ok(self.answer(text, tokens, finish, timings, first))
    }

    fn answer(
        &self,
        text: String,
        tokens: Vec<u32>,
        finish: decode::Finish,
        timings: Timings,
        first: Instant,
    ) -> Answer {
        let frames: Vec<FrameUsed> = self.window.iter().map(|frame| frame.stamp.into()).collect();
        let newest = self.window.iter().last().map_or(first, |frame| frame.captured);
        let newest_age_ms =
            u64::try_from(first.saturating_duration_since(newest).as_millis()).unwrap_or(u64::MAX);
        Answer {
            text,
            tokens,
            finish,
            frames,
            dropped: self.dropped,
            window_span_ms: self.window.span_ms(),
            newest_age_ms,
            timings,
            bundle: BundleName { name: self.model.name.clone(), hash: self.model.hash.clone() },
        }
    }

    /// The window, to look at.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// The model, to look at.
    pub fn model(&self) -> &Model {
        &self.model
    }
}

/// Refuses an empty or oversized question.
///
/// # Errors
/// [`Error::Argument`] that names the limit.
pub fn check_question(text: &str) -> Result<()> {
    if text.trim().is_empty() {
        return Err(Error::Argument("the question is empty; write one after --question".into()));
    }
    if text.len() > MAX_QUESTION_BYTES {
        return Err(Error::Argument(format!(
            "the question has {} bytes; at most {MAX_QUESTION_BYTES} (64 KiB) are accepted",
            text.len()
        )));
    }
    Ok(())
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
