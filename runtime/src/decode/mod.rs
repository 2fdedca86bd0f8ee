//! Decode: the answer, token by token.
//!
//! Comes in: embedding rows and the spans of what was read before. Goes out: hidden rows, logits, and from them tokens until a
//! stop token, the limit, or an interrupt. [`Decoder`] is the contract every engine meets: it holds weights only, all state is in
//! the callers' spans, so that frames can be read while an answer is spoken. [`CandleDecoder`] is the first engine; no candle type shows here.

mod attend;
mod attend_device;
mod candle;
mod span;

use utr_models::generate::Sampler;

pub use attend::Past;
pub use candle::CandleDecoder;
pub use span::{KvPrecision, KvShape, Lease, Pool, Span};

use crate::error::Result;
use crate::interrupt::Interrupt;

/// Where new rows go: behind the rows of `own`, whose first row stands at position `start`.
pub struct Place<'a> {
    /// Gets the new rows' keys and values.
    pub own: &'a mut Span,
    /// Position of its first row.
    pub start: usize,
}

/// A causal language model; weights only.
pub trait Decoder: Send + Sync {
    /// Width of an embedding row.
    fn hidden(&self) -> usize;

    /// Rows of the output head.
    fn vocab(&self) -> usize;

    /// Largest number of positions.
    fn max_positions(&self) -> usize;

    /// Sizes of its keys and values.
    fn shape(&self) -> KvShape;

    /// (n, hidden) the embedding rows of tokens.
    fn embed(&self, ids: &[u32]) -> Result<Vec<f32>>;

    /// Reads (n, hidden) rows; the (n, hidden) final-normed states. New rows see all of `past`, and of their own span what is not after them.
    /// With `mass` (as many values as `past`), adds the attention each span got, summed over rows, heads and layers.
    ///
    /// # Errors
    /// [`crate::Error::Decoder`] where widths, sizes or positions do not fit; the span then holds what it held.
    fn read(
        &self,
        past: &[Past<'_>],
        place: Place<'_>,
        rows: &[f32],
        mass: Option<&mut [f32]>,
    ) -> Result<Vec<f32>>;

    /// (n, vocab) logits of (n, hidden) states.
    fn logits(&self, states: &[f32]) -> Result<Vec<f32>>;
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// The model said it is done.
    Stop,
    /// The limit on tokens or positions was reached.
    Length,
}

/// Samples tokens until a stop token or `max_tokens`; each one is handed to `on_token` as it is made, and read with `step` for the next logits.
/// The stop token is not part of the answer.
///
/// # Errors
/// Whatever `step` or `on_token` reports; [`crate::Error::Interrupted`] between tokens.
pub fn generate(
    mut logits: Vec<f32>,
    sampler: &mut Sampler,
    stop: &[u32],
    max_tokens: usize,
    interrupt: &Interrupt,
    step: &mut dyn FnMut(u32) -> Result<Vec<f32>>,
    on_token: &mut dyn FnMut(u32) -> Result<()>,
) -> Result<Finish> {
    for made in 1..=max_tokens {
        interrupt.check()?;
        let token = sampler.sample(&logits)?;
        if stop.contains(&token) {
            return Ok(Finish::Stop);
        }
        on_token(token)?;
        if made == max_tokens {
            break;
        }
        logits = step(token)?;
    }
    Ok(Finish::Length)
}
