//! Prefill: the prompt and the frames into the decoder, as frames come.
//!
//! Comes in: the prompt's tokens before the frames, then encoded frames one by one. Goes out: a [`Reading`], which is what an answer
//! continues: the prompt's span and one span a frame, shared, so that a copy of it is a pinned view that later frames do not
//! change. What happens when the window slides is the mode's to say (design.md §5): `exact` reads nothing until a question comes, `ahead` keeps
//! two readings half a window apart, `rolling` lets the oldest frame's span go. It encodes nothing and samples nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use heapless::Deque;
use utr_models::manifest::WindowMode;

use crate::capture::Stamp;
use crate::decode::{Decoder, KvPrecision, Lease, Past, Place, Pool, Span};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::window::{CAPACITY, EncodedFrame};

/// Rows read per step: bounds the scores held at once, and how late an interrupt is noticed.
const CHUNK: usize = 256;

/// Frames that may arrive while an answer pins the window, before the next one has to be dropped; `ahead` keeps each of them twice.
const SPARE: usize = 8;

/// The prompt before the frames, read once.
#[derive(Debug)]
pub struct Prefix {
    tokens: Vec<u32>,
    span: Span,
}

impl Prefix {
    /// Reads the prompt's tokens from position 0.
    ///
    /// # Errors
    /// [`Error::Interrupted`] between pieces; whatever the decoder reports.
    pub fn read(
        decoder: &dyn Decoder,
        tokens: &[u32],
        kv: KvPrecision,
        interrupt: &Interrupt,
    ) -> Result<Arc<Self>> {
        let mut span = Span::new(decoder.shape(), kv, tokens.len());
        let rows = decoder.embed(tokens)?;
        read(decoder, &[], Place { own: &mut span, start: 0 }, &rows, interrupt)?;
        Ok(Arc::new(Self { tokens: tokens.to_vec(), span }))
    }

    /// A prompt that was read before, from its keys and values.
    pub fn restored(tokens: Vec<u32>, span: Span) -> Arc<Self> {
        Arc::new(Self { tokens, span })
    }

    /// The prompt's tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Their keys and values.
    pub fn span(&self) -> &Span {
        &self.span
    }
}

/// A frame with its keys and values.
#[derive(Clone, Debug)]
struct ReadFrame {
    frame: Arc<EncodedFrame>,
    span: Arc<Lease>,
}

/// What the decoder has read: the prompt, then frames at the positions behind it.
#[derive(Clone, Debug)]
pub struct Reading {
    prefix: Arc<Prefix>,
    frames: Deque<ReadFrame, CAPACITY>,
    /// The frames that were let go, the newest last, as many as can still have an influence.
    gone: VecDeque<Stamp>,
}

impl Reading {
    /// Only the prompt.
    pub fn new(prefix: Arc<Prefix>) -> Self {
        Self { prefix, frames: Deque::new(), gone: VecDeque::new() }
    }

    /// What was read before, from its keys and values; `gone` are the frames let go, the newest last.
    ///
    /// # Errors
    /// [`Error::Decoder`] for more than 32 frames.
    pub fn restored(
        prefix: Arc<Prefix>,
        frames: Vec<(Arc<EncodedFrame>, Lease)>,
        gone: Vec<Stamp>,
    ) -> Result<Self> {
        let mut reading = Self { prefix, frames: Deque::new(), gone: gone.into() };
        for (frame, span) in frames {
            let read = ReadFrame { frame, span: Arc::new(span) };
            reading.hold(read)?;
        }
        Ok(reading)
    }

    fn hold(&mut self, read: ReadFrame) -> Result<()> {
        self.frames
            .push_back(read)
            .map_err(|_| Error::Decoder(format!("a reading holds at most {CAPACITY} frames")))
    }

    /// Reads the next frame into `span`.
    ///
    /// # Errors
    /// [`Error::Decoder`] where there are 32 already or its width is another; [`Error::Interrupted`]. The reading is then as before.
    pub fn push(
        &mut self,
        decoder: &dyn Decoder,
        mut span: Lease,
        frame: &Arc<EncodedFrame>,
        interrupt: &Interrupt,
    ) -> Result<()> {
        let start = self.end();
        read(decoder, &self.past(), Place { own: &mut span, start }, &frame.tokens, interrupt)?;
        self.hold(ReadFrame { frame: Arc::clone(frame), span: Arc::new(span) })
    }

    /// Lets the oldest frame go; the others move up by its positions. Its influence on them stays, at most `remember` frames back.
    pub fn evict(&mut self, remember: usize) {
        if let Some(oldest) = self.frames.pop_front() {
            self.gone.push_back(oldest.frame.stamp);
            while self.gone.len() > remember {
                self.gone.pop_front();
            }
        }
    }

    /// Everything read, each span at its present position.
    pub fn past(&self) -> Vec<Past<'_>> {
        let mut at = 0;
        let frames = self.frames.iter().map(|read| &**read.span);
        std::iter::once(&self.prefix.span)
            .chain(frames)
            .map(|span| {
                let start = at;
                at += span.len();
                Past { span, start }
            })
            .collect()
    }

    /// The position behind the newest frame.
    pub fn end(&self) -> usize {
        self.prefix.span.len() + self.frames.iter().map(|read| read.span.len()).sum::<usize>()
    }

    /// The prompt before the frames.
    pub fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// The frames, oldest first.
    pub fn frames(&self) -> impl Iterator<Item = &Arc<EncodedFrame>> {
        self.frames.iter().map(|read| &read.frame)
    }

    /// The frames' keys and values, oldest first.
    pub fn spans(&self) -> impl Iterator<Item = &Span> {
        self.frames.iter().map(|read| &**read.span)
    }

    /// The frames let go that can still have an influence, the newest last.
    pub fn gone(&self) -> impl Iterator<Item = Stamp> {
        self.gone.iter().copied()
    }

    /// Frames read.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there is no frame.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The oldest frame that can have had an influence on what is read here: one that was let go, or the oldest one held.
    pub fn history_reaches(&self) -> Option<Stamp> {
        self.gone.front().copied().or_else(|| self.frames.front().map(|read| read.frame.stamp))
    }
}

/// Reads (n, hidden) rows in pieces; the states of the last piece.
///
/// # Errors
/// Whatever the decoder reports; [`Error::Interrupted`] between pieces.
pub fn read(
    decoder: &dyn Decoder,
    past: &[Past<'_>],
    place: Place<'_>,
    rows: &[f32],
    interrupt: &Interrupt,
) -> Result<Vec<f32>> {
    let mut states = Vec::new();
    for piece in rows.chunks(CHUNK * decoder.hidden().max(1)) {
        interrupt.check()?;
        states = decoder.read(past, Place { own: &mut *place.own, start: place.start }, piece, None)?;
    }
    Ok(states)
}

/// Spans that a window of `frames` needs in a mode, spare ones included.
pub fn spans(mode: WindowMode, frames: usize) -> usize {
    match mode {
        WindowMode::Exact => 0,
        WindowMode::Ahead => frames + frames / 2 + 2 * SPARE,
        WindowMode::Rolling => frames + SPARE,
    }
}

/// Follows a stream in one of the three modes.
pub struct Prefill {
    mode: WindowMode,
    limit: usize,
    decoder: Arc<dyn Decoder>,
    pool: Pool,
    /// None until the prompt was read; `exact` needs none.
    prefix: Option<Arc<Prefix>>,
    older: Option<Reading>,
    younger: Option<Reading>,
}

impl Prefill {
    /// For windows of `limit` frames of `tokens` rows each. `before` is the prompt that live answers share; `exact` reads none.
    ///
    /// # Errors
    /// Whatever reading the prompt reports.
    pub fn new(
        decoder: Arc<dyn Decoder>,
        mode: WindowMode,
        kv: KvPrecision,
        (limit, tokens): (usize, usize),
        before: &[u32],
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let pool = Pool::new(decoder.shape(), kv, tokens, spans(mode, limit));
        let prefix = match mode {
            WindowMode::Exact => None,
            _ => Some(Prefix::read(decoder.as_ref(), before, kv, interrupt)?),
        };
        Ok(Self { mode, limit, decoder, pool, prefix, older: None, younger: None })
    }

    /// Reads a frame; false where answers pin so much of the memory that it has to be dropped.
    ///
    /// # Errors
    /// Whatever the decoder reports, and [`Error::Interrupted`]; what was read before stays.
    pub fn see(&mut self, frame: &Arc<EncodedFrame>, interrupt: &Interrupt) -> Result<bool> {
        let Some(prefix) = self.prefix.clone() else { return Ok(true) };
        match self.mode {
            WindowMode::Exact => Ok(true),
            WindowMode::Rolling => self.roll(frame, prefix, interrupt),
            WindowMode::Ahead => self.run_ahead(frame, prefix, interrupt),
        }
    }

    /// One reading; the oldest frame goes before the new one is read, which therefore sees the window's frames and itself.
    fn roll(
        &mut self,
        frame: &Arc<EncodedFrame>,
        prefix: Arc<Prefix>,
        interrupt: &Interrupt,
    ) -> Result<bool> {
        let mut reading = self.older.clone().unwrap_or_else(|| Reading::new(prefix));
        if reading.len() >= self.limit {
            let layers = self.decoder.shape().layers;
            reading.evict(layers.saturating_sub(1) * self.limit.saturating_sub(1));
        }
        // The reading held before keeps the evicted span alive until the new one has taken its place.
        let Some(span) = self.pool.take() else { return Ok(false) };
        reading.push(self.decoder.as_ref(), span, frame, interrupt)?;
        self.older = Some(reading);
        Ok(true)
    }

    /// Two readings: a full one is retired, and the younger one begins behind the first half of the older.
    fn run_ahead(
        &mut self,
        frame: &Arc<EncodedFrame>,
        prefix: Arc<Prefix>,
        interrupt: &Interrupt,
    ) -> Result<bool> {
        let full = self.older.as_ref().is_some_and(|reading| reading.len() >= self.limit);
        let (older, younger) =
            if full { (self.younger.clone(), None) } else { (self.older.clone(), self.younger.clone()) };
        let mut older = older.unwrap_or_else(|| Reading::new(Arc::clone(&prefix)));
        let mut younger = match younger {
            None if older.len() >= self.limit.div_ceil(2) => Some(Reading::new(prefix)),
            other => other,
        };
        if self.pool.free() < 1 + usize::from(younger.is_some()) {
            return Ok(false);
        }
        for reading in std::iter::once(&mut older).chain(younger.as_mut()) {
            let Some(span) = self.pool.take() else { return Ok(false) };
            reading.push(self.decoder.as_ref(), span, frame, interrupt)?;
        }
        (self.older, self.younger) = (Some(older), younger);
        Ok(true)
    }

    /// What an answer may continue now; none in `exact` and before the first frame.
    pub fn reading(&self) -> Option<&Reading> {
        self.older.as_ref()
    }

    /// The mode.
    pub fn mode(&self) -> WindowMode {
        self.mode
    }

    /// Goes on from what was read before; only `rolling` can, because it holds one reading.
    ///
    /// # Errors
    /// [`Error::Decoder`] in another mode, for another prompt, or for more frames than the window holds.
    pub fn resume(&mut self, reading: Reading) -> Result<()> {
        let same = self.prefix.as_ref().is_some_and(|own| own.tokens() == reading.prefix().tokens());
        if self.mode != WindowMode::Rolling || !same || reading.len() > self.limit {
            return Err(Error::Decoder(format!(
                "a reading of {} frames cannot go on in a {:?} window of {} with its prompt",
                reading.len(),
                self.mode,
                self.limit
            )));
        }
        self.older = Some(reading);
        Ok(())
    }

    /// Forgets all frames; the prompt stays.
    pub fn clear(&mut self) {
        (self.older, self.younger) = (None, None);
    }
}
