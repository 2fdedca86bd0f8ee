//! The answer: from a view of the window and a question to text.
//!
//! Comes in: a [`View`], a [`Question`]. Goes out: an [`Answer`], streamed piece by piece. What the view has read already is
//! continued; where it has read nothing, or under other instructions, its frames are read here, exactly. The question's and the answer's keys and
//! values live in a span of this request alone. Frames are neither captured nor encoded here.

use std::sync::Arc;
use std::time::Instant;

use utr_models::generate::{Sampler, Sampling as TokenSampling};
use utr_models::manifest::WindowMode;
use utr_models::prompt::{Kind, Message, Role};
use utr_models::text::TokenStream;

use crate::decode::{self, KvPrecision, Past, Place, Pool, Span};
use crate::error::{Error, Result};
use crate::evidence::{self, Evidence, Wanted};
use crate::interrupt::Interrupt;
use crate::load::Language;
use crate::pipeline::View;
use crate::prefill::{self, Prefix, Reading};
use crate::window::{CAPACITY, EncodedFrame};

pub use crate::report::{Answer, BundleName, FrameUsed, Timings};

/// Longest question with its conversation, in bytes.
pub const MAX_QUESTION_BYTES: usize = 64 << 10;

/// What is asked, and how to answer.
#[derive(Clone, Debug)]
pub struct Question {
    /// The conversation; the first message of the user carries the video, the last one is the question.
    pub messages: Vec<Message>,
    /// Which chat template carries it.
    pub prompt: Kind,
    /// Temperature, top-p, seed and the limit on tokens.
    pub sampling: TokenSampling,
    /// When the question was known.
    pub asked: Instant,
    /// What to say about the frames.
    pub evidence: Wanted,
}

impl Question {
    /// One question, answered greedily through the tokenizer's template.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            messages: vec![Message::question(text)],
            prompt: Kind::Tokenizer,
            sampling: TokenSampling::default(),
            asked: Instant::now(),
            evidence: Wanted::Nothing,
        }
    }

    /// Puts instructions before the conversation.
    pub fn with_system(mut self, system: Option<String>) -> Self {
        if let Some(text) = system {
            self.messages.insert(0, Message::text(Role::System, text));
        }
        self
    }

    /// Draws tokens this way.
    pub fn with_sampling(mut self, sampling: TokenSampling) -> Self {
        self.sampling = sampling;
        self
    }
}

/// Answers questions about views, one at a time.
pub struct Answerer {
    language: Arc<Language>,
    kv: KvPrecision,
    /// For frames that are read here.
    pool: Pool,
    /// The last window that was read here: a second question about it costs only its own tokens.
    known: Option<Reading>,
}

/// A question against a reading, before its first token.
struct Asked<'a> {
    reading: &'a Reading,
    after: Vec<u32>,
    reused_tokens: usize,
}

impl Answerer {
    /// Keeps keys and values in the given precision.
    pub fn new(language: Arc<Language>, kv: KvPrecision) -> Self {
        let pool = Pool::new(language.decoder.shape(), kv, language.tokens_per_frame, 0);
        Self { language, kv, pool, known: None }
    }

    /// The model that answers.
    pub fn language(&self) -> &Arc<Language> {
        &self.language
    }

    /// Answers one question about the view; `on_text` gets the text piece by piece as it is made.
    ///
    /// # Errors
    /// [`Error::Argument`] for a question outside its limits or an empty window, [`Error::Context`] where the model
    /// cannot read that much, [`Error::Interrupted`], and whatever the stages and `on_text` report.
    pub fn answer(
        &mut self,
        view: &View,
        question: &Question,
        interrupt: &Interrupt,
        on_text: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Answer> {
        check_messages(&question.messages)?;
        if view.frames.is_empty() {
            return Err(Error::Argument("the window is empty: no frame was seen yet".into()));
        }
        let language = Arc::clone(&self.language);
        let (before, after) = language.prompt(question)?;
        let room = self.room(before.len(), view.frames.len(), after.len())?;
        let began = Instant::now();
        let (reading, reused_tokens, mode) = self.reading(view, &before, interrupt)?;
        let asked = Asked { reading: &reading, after, reused_tokens };
        let max_tokens = question.sampling.max_tokens.min(room);
        let spoken = Speech::new(&language, &asked, self.kv, max_tokens).say(question, interrupt, on_text)?;
        let evidence = self.evidence(&asked, &spoken, question.evidence, interrupt)?;
        let timings = timings(view, question, &asked, &spoken, began);
        Ok(report(&language, mode, view, &asked, spoken, timings, evidence))
    }

    /// Mean negative log-likelihood of `tokens` as the answer to `question` over `frames`, which are read exactly; several answers
    /// can so be compared, or one answer over other frames.
    ///
    /// # Errors
    /// As [`Answerer::answer`].
    pub fn likelihood(
        &mut self,
        frames: &[Arc<EncodedFrame>],
        question: &Question,
        tokens: &[u32],
        interrupt: &Interrupt,
    ) -> Result<f64> {
        let (before, after) = self.language.prompt(question)?;
        self.room(before.len(), frames.len(), after.len() + tokens.len())?;
        let reading = self.read(frames, &before, interrupt)?;
        evidence::nll(&self.language, self.kv, &reading, &after, tokens, interrupt)
    }

    /// Positions left for an answer.
    fn room(&self, before: usize, frames: usize, after: usize) -> Result<usize> {
        let visual = frames * self.language.tokens_per_frame + 1;
        let (text, limit) = (before + after, self.language.decoder.max_positions());
        match limit.checked_sub(text + visual) {
            None | Some(0) => Err(Error::Context { needed: text + visual + 1, limit, visual, text }),
            Some(room) => Ok(room),
        }
    }

    /// The view's own reading where it began with the same prompt, else an exact one; how many positions were read before; the mode.
    fn reading(
        &mut self,
        view: &View,
        before: &[u32],
        interrupt: &Interrupt,
    ) -> Result<(Reading, usize, WindowMode)> {
        if let Some(reading) = view.reading.as_ref().filter(|reading| reading.prefix().tokens() == before) {
            return Ok((reading.clone(), reading.end(), view.mode));
        }
        let same = |known: &Reading| {
            known.prefix().tokens() == before
                && known.len() == view.frames.len()
                && known.frames().zip(&view.frames).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        if let Some(known) = self.known.as_ref().filter(|known| same(known)) {
            return Ok((known.clone(), known.end(), WindowMode::Exact));
        }
        // What was known goes first: its spans are taken again.
        self.known = None;
        let reading = self.read(&view.frames, before, interrupt)?;
        self.known = Some(reading.clone());
        Ok((reading, 0, WindowMode::Exact))
    }

    /// Reads prompt and frames anew.
    fn read(
        &mut self,
        frames: &[Arc<EncodedFrame>],
        before: &[u32],
        interrupt: &Interrupt,
    ) -> Result<Reading> {
        if frames.len() > CAPACITY {
            return Err(Error::Argument(format!(
                "{} frames; a window holds at most {CAPACITY}",
                frames.len()
            )));
        }
        let decoder = self.language.decoder.as_ref();
        let mut reading = Reading::new(Prefix::read(decoder, before, self.kv, interrupt)?);
        for frame in frames {
            interrupt.check()?;
            reading.push(decoder, self.pool.take_or_grow(), frame, interrupt)?;
        }
        Ok(reading)
    }

    fn evidence(
        &mut self,
        asked: &Asked<'_>,
        spoken: &Spoken,
        wanted: Wanted,
        interrupt: &Interrupt,
    ) -> Result<Option<Evidence>> {
        if wanted == Wanted::Nothing {
            return Ok(None);
        }
        let mut evidence = Evidence::from_mass(&spoken.mass);
        let mut tokens = spoken.tokens.clone();
        if spoken.finish == decode::Finish::Stop {
            tokens.extend(self.language.stop.first());
        }
        if wanted == Wanted::FramesAndTime && !tokens.is_empty() {
            let full =
                evidence::nll(&self.language, self.kv, asked.reading, &asked.after, &tokens, interrupt)?;
            let frames: Vec<_> = asked.reading.frames().cloned().collect();
            let mut single = Vec::new();
            for frame in evidence::single_frames(&frames) {
                let reading = self.read(&[frame], asked.reading.prefix().tokens(), interrupt)?;
                single.push(evidence::nll(
                    &self.language,
                    self.kv,
                    &reading,
                    &asked.after,
                    &tokens,
                    interrupt,
                )?);
            }
            evidence.tpl = Some(evidence::tpl(full, &single));
        }
        Ok(Some(evidence))
    }
}

/// An answer's words, and when the first and the last came.
struct Spoken {
    text: String,
    tokens: Vec<u32>,
    finish: decode::Finish,
    first: Instant,
    ended: Instant,
    /// Attention each frame got from the rows that chose the answer's tokens.
    mass: Vec<f32>,
}

/// The request's own part of the decoder's state.
struct Speech<'a> {
    language: &'a Language,
    past: Vec<Past<'a>>,
    after: &'a [u32],
    own: Span,
    start: usize,
    max_tokens: usize,
}

impl<'a> Speech<'a> {
    fn new(language: &'a Language, asked: &'a Asked<'_>, kv: KvPrecision, max_tokens: usize) -> Self {
        let rows = 1 + asked.after.len() + max_tokens;
        let own = Span::new(language.decoder.shape(), kv, rows);
        let (past, start) = (asked.reading.past(), asked.reading.end());
        Self { language, past, after: &asked.after, own, start, max_tokens }
    }

    /// Reads the rest of the prompt, samples the answer, and turns it into text as it grows.
    fn say(
        mut self,
        question: &Question,
        interrupt: &Interrupt,
        on_text: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Spoken> {
        let decoder = self.language.decoder.as_ref();
        let hidden = decoder.hidden();
        let mut rows = self.language.newline.clone();
        rows.extend(decoder.embed(self.after)?);
        // The last row chooses the first token: its attention is evidence, that of the question's other rows is not.
        let (earlier, last) = rows.split_at(rows.len().saturating_sub(hidden));
        let place = Place { own: &mut self.own, start: self.start };
        prefill::read(decoder, &self.past, place, earlier, interrupt)?;
        let mut mass = vec![0.0; self.past.len()];
        let wanted = question.evidence != Wanted::Nothing;
        let logits = self.read_row(last, wanted.then_some(&mut mass))?;

        let mut sampler = Sampler::new(question.sampling)?;
        let mut stream = TokenStream::new();
        let (mut tokens, mut text, mut first) = (Vec::new(), String::new(), None);
        let language = self.language;
        let tokenizer = &language.tokenizer;
        let stop: &[u32] = if question.sampling.ignore_eos { &[] } else { &language.stop };
        let max_tokens = self.max_tokens;
        let mut on_token = |token: u32| -> Result<()> {
            first.get_or_insert_with(Instant::now);
            tokens.push(token);
            let piece = stream.push(tokenizer, token)?;
            text.push_str(&piece);
            if piece.is_empty() { Ok(()) } else { on_text(&piece) }
        };
        let mut step = |token: u32| {
            let row = decoder.embed(&[token])?;
            self.read_row(&row, wanted.then_some(&mut mass))
        };
        let finish =
            decode::generate(logits, &mut sampler, stop, max_tokens, interrupt, &mut step, &mut on_token)?;
        let ended = Instant::now();
        let rest = stream.finish(tokenizer)?;
        if !rest.is_empty() {
            text.push_str(&rest);
            on_text(&rest)?;
        }
        // The prompt before the frames is the first span.
        let mass = mass.split_off(1.min(mass.len()));
        Ok(Spoken { text, tokens, finish, first: first.unwrap_or(ended), ended, mass })
    }

    /// Reads one row; the logits after it.
    fn read_row(&mut self, row: &[f32], mass: Option<&mut Vec<f32>>) -> Result<Vec<f32>> {
        let place = Place { own: &mut self.own, start: self.start };
        let mass = mass.map(Vec::as_mut_slice);
        let state = self.language.decoder.read(&self.past, place, row, mass)?;
        self.language.decoder.logits(&state)
    }
}

fn timings(view: &View, question: &Question, asked: &Asked<'_>, spoken: &Spoken, began: Instant) -> Timings {
    let decode_s = spoken.ended.duration_since(spoken.first).as_secs_f64();
    let later_tokens = spoken.tokens.len().saturating_sub(1);
    Timings {
        capture_ms: view.capture_ms,
        encode_ms: view.encode_ms,
        // Reading the frames where that was left to the question, then the question itself.
        prefill_ms: spoken.first.duration_since(began).as_secs_f64() * 1e3,
        ttft_ms: spoken.first.duration_since(question.asked).as_secs_f64() * 1e3,
        decode_ms: decode_s * 1e3,
        prompt_tokens: asked.reading.end() + 1 + asked.after.len(),
        reused_tokens: asked.reused_tokens,
        output_tokens: spoken.tokens.len(),
        tokens_per_s: if later_tokens == 0 || decode_s <= 0.0 { 0.0 } else { later_tokens as f64 / decode_s },
    }
}

fn report(
    language: &Language,
    window_mode: WindowMode,
    view: &View,
    asked: &Asked<'_>,
    spoken: Spoken,
    timings: Timings,
    evidence: Option<Evidence>,
) -> Answer {
    let Spoken { text, tokens, finish, first, .. } = spoken;
    let frames: Vec<FrameUsed> = asked.reading.frames().map(|frame| frame.stamp.into()).collect();
    let (oldest, newest) = (frames.first().map_or(0, |f| f.pts_ms), frames.last().map_or(0, |f| f.pts_ms));
    let captured = asked.reading.frames().last().map_or(first, |frame| frame.captured);
    let age = first.saturating_duration_since(captured).as_millis();
    Answer {
        text,
        tokens,
        finish,
        frames,
        window_mode,
        history_reaches: asked.reading.history_reaches().map(FrameUsed::from),
        dropped: view.dropped,
        window_span_ms: newest.saturating_sub(oldest),
        newest_age_ms: u64::try_from(age).unwrap_or(u64::MAX),
        timings,
        bundle: BundleName { name: language.name.clone(), hash: language.hash.clone() },
        evidence,
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
    check_length(text.len())
}

fn check_messages(messages: &[Message]) -> Result<()> {
    if messages.iter().filter(|message| message.video).count() != 1 {
        return Err(Error::Argument(
            "a conversation needs exactly one message that carries the video".into(),
        ));
    }
    if messages.last().is_none_or(|message| message.text.trim().is_empty()) {
        return Err(Error::Argument("the question is empty".into()));
    }
    check_length(messages.iter().map(|message| message.text.len()).sum())
}

fn check_length(bytes: usize) -> Result<()> {
    if bytes > MAX_QUESTION_BYTES {
        return Err(Error::Argument(format!(
            "the question has {bytes} bytes; at most {MAX_QUESTION_BYTES} (64 KiB) are accepted"
        )));
    }
    Ok(())
}
