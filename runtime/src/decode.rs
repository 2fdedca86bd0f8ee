//! Decode: the answer, token by token.
//!
//! Comes in: a decoder that has read the prompt, its last logits, a sampler. Goes out: tokens, as they are made, until a
//! stop token, the limit, or an interrupt. [`Decoder`] is the contract every engine meets; [`CandleDecoder`] is the first.
//! No candle type shows in it.

use std::ops::Range;
use std::sync::Arc;

use candle_core::Tensor;
use utr_models::generate::Sampler;
use utr_models::qwen2::{KvCache, Qwen2};

use crate::error::{Error, Result};
use crate::interrupt::Interrupt;

/// A causal language model with its keys and values.
pub trait Decoder: Send {
    /// Width of an embedding row.
    fn hidden(&self) -> usize;

    /// Rows of the output head.
    fn vocab(&self) -> usize;

    /// Largest number of positions.
    fn max_positions(&self) -> usize;

    /// (n, hidden) the embedding rows of tokens.
    fn embed(&self, ids: &[u32]) -> Result<Vec<f32>>;

    /// Positions held.
    fn len(&self) -> usize;

    /// Whether nothing was read.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads (n, hidden) rows at `positions`; the (vocab) logits after the last row.
    fn extend(&mut self, embeds: &[f32], positions: &[u32]) -> Result<Vec<f32>>;

    /// Reads one token at the next position; the (vocab) logits after it.
    fn step(&mut self, id: u32) -> Result<Vec<f32>> {
        let position =
            u32::try_from(self.len()).map_err(|_| Error::Decoder("more than 2^32 positions".into()))?;
        let row = self.embed(&[id])?;
        self.extend(&row, &[position])
    }

    /// Forgets everything from entry `len` on.
    fn truncate(&mut self, len: usize);

    /// Forgets a range of entries. Engines that keep rotated keys can only forget the end.
    fn evict(&mut self, range: Range<usize>) -> Result<()>;

    /// A second decoder that holds the same entries and goes its own way; weights are shared.
    fn fork(&self) -> Result<Box<dyn Decoder>>;
}

/// The reference network, dense or quantized, on the CPU.
pub struct CandleDecoder {
    network: Arc<Qwen2>,
    cache: KvCache,
}

impl CandleDecoder {
    /// An empty cache around a network.
    pub fn new(network: Qwen2) -> Self {
        Self { network: Arc::new(network), cache: KvCache::default() }
    }
}

impl Decoder for CandleDecoder {
    fn hidden(&self) -> usize {
        self.network.config().hidden
    }

    fn vocab(&self) -> usize {
        self.network.config().vocab
    }

    fn max_positions(&self) -> usize {
        self.network.config().max_positions
    }

    fn embed(&self, ids: &[u32]) -> Result<Vec<f32>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        rows(&self.network.embed(ids)?)
    }

    fn len(&self) -> usize {
        self.cache.len()
    }

    fn extend(&mut self, embeds: &[f32], positions: &[u32]) -> Result<Vec<f32>> {
        let (n, hidden) = (positions.len(), self.hidden());
        if n == 0 || embeds.len() != n * hidden {
            return Err(Error::Decoder(format!(
                "{n} positions need {} values, got {}",
                n * hidden,
                embeds.len()
            )));
        }
        let input = Tensor::from_slice(embeds, (n, hidden), self.network.device())
            .map_err(utr_models::Error::from)?;
        let states = self.network.forward(&input, positions, &mut self.cache)?;
        let last = states.narrow(0, n - 1, 1).map_err(utr_models::Error::from)?;
        rows(&self.network.logits(&last)?)
    }

    fn truncate(&mut self, len: usize) {
        self.cache.truncate(len);
    }

    fn evict(&mut self, range: Range<usize>) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        if range.end != self.len() {
            return Err(Error::Decoder(format!(
                "entries {range:?} of {} cannot be forgotten: the keys are held rotated, only the end can go",
                self.len()
            )));
        }
        self.truncate(range.start);
        Ok(())
    }

    fn fork(&self) -> Result<Box<dyn Decoder>> {
        Ok(Box::new(Self { network: Arc::clone(&self.network), cache: self.cache.fork()? }))
    }
}

/// All values of a tensor as f32, row by row.
fn rows(tensor: &Tensor) -> Result<Vec<f32>> {
    let flat = tensor.flatten_all().and_then(|flat| flat.to_dtype(candle_core::DType::F32)?.to_vec1::<f32>());
    Ok(flat.map_err(utr_models::Error::from)?)
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// The model said it is done.
    Stop,
    /// The limit on tokens or positions was reached.
    Length,
}

/// Samples tokens until a stop token or `max_tokens`; each one is handed to `on_token` as it is made. The stop token is
/// not part of the answer.
///
/// # Errors
/// Whatever the decoder or `on_token` reports; [`Error::Interrupted`] between tokens.
pub fn generate(
    decoder: &mut dyn Decoder,
    mut logits: Vec<f32>,
    sampler: &mut Sampler,
    stop: &[u32],
    max_tokens: usize,
    interrupt: &Interrupt,
    on_token: &mut dyn FnMut(u32) -> Result<()>,
) -> Result<Finish> {
    for made in 1..=max_tokens {
        interrupt.check()?;
        let token = sampler.sample(&logits)?;
        if stop.contains(&token) {
            return Ok(Finish::Stop);
        }
        on_token(token)?;
        if made == max_tokens || decoder.len() >= decoder.max_positions() {
            return Ok(Finish::Length);
        }
        logits = decoder.step(token)?;
    }
    Ok(Finish::Length)
}
