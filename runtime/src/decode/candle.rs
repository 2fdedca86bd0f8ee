//! The decoder as the reference network: candle's matrix products, dense or quantized, around attention over spans.
//!
//! Comes in: a loaded [`Qwen2`], on the CPU or a GPU. Goes out: a [`Decoder`] that any number of threads may use at once, because all state is in
//! their spans, which stay in memory: a GPU gets of them what a pass needs. No candle type leaves it.

use candle_core::{DType, Device, Tensor};
use utr_models::qwen2::Qwen2;

use super::attend::{Attention, Past, Rotations};
use super::attend_device;
use super::span::KvShape;
use super::{Decoder, Place};
use crate::error::{Error, Result};

/// New rows from which on a GPU does the attention too; fewer are left to the processor, which has the window's keys and values at hand. A guess, not
/// measured.
const DEVICE_ROWS: usize = 16;

/// The reference network.
pub struct CandleDecoder {
    network: Qwen2,
    shape: KvShape,
    rotations: Rotations,
}

impl CandleDecoder {
    /// Wraps a loaded network.
    pub fn new(network: Qwen2) -> Self {
        let c = network.config();
        let shape = KvShape { layers: c.layers, kv_heads: c.kv_heads, dim: c.head_dim };
        let rotations = Rotations::new(c.head_dim, c.rope_theta);
        Self { network, shape, rotations }
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

    fn shape(&self) -> KvShape {
        self.shape
    }

    fn embed(&self, ids: &[u32]) -> Result<Vec<f32>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        values(&self.network.embed(ids)?)
    }

    fn read(
        &self,
        past: &[Past<'_>],
        place: Place<'_>,
        rows: &[f32],
        mut mass: Option<&mut [f32]>,
    ) -> Result<Vec<f32>> {
        let Place { own, start } = place;
        let (hidden, heads) = (self.hidden(), self.network.config().heads);
        let n = rows.len() / hidden.max(1);
        if n == 0 || rows.len() != n * hidden || own.shape() != self.shape {
            return Err(Error::Decoder(format!(
                "{} values are no rows of {hidden}, or the span belongs to another model",
                rows.len()
            )));
        }
        let held = own.len();
        let last = start + held + n;
        if last > self.max_positions()
            || past.iter().any(|past| past.start > start || past.span.shape() != self.shape)
        {
            return Err(Error::Decoder(format!(
                "rows up to position {last} of {}, or a span that begins after them",
                self.max_positions()
            )));
        }
        let rotations = self.rotations.up_to(last);
        let (kv_width, width) = (self.shape.kv_heads * self.shape.dim, heads * self.shape.dim);
        let device = self.network.device();
        let input = on(rows, n, device)?;
        let total = past.iter().map(|past| past.span.len()).sum::<usize>() + held + n;
        let by_device = !device.is_cpu() && n >= DEVICE_ROWS;
        let unseen = by_device.then(|| attend_device::hidden(total, n, device)).transpose()?;
        let states = self.network.forward(&input, |layer, q, k, v| {
            let keys = rotations.rotate_rows(&values_of(&k)?, kv_width, held);
            own.write(layer, &keys, &values_of(&v)?)
                .map_err(|e| utr_models::Error::Argument(e.to_string()))?;
            let attention = Attention { layer, heads, past, own, held, start, rotations: &rotations };
            if let Some(unseen) = &unseen {
                return attend_device::run(&attention, &values_of(&q)?, n, unseen, mass.as_deref_mut());
            }
            let mixed = attention.run(&values_of(&q)?, n, mass.as_deref_mut());
            Ok(Tensor::from_vec(mixed, (n, width), device)?)
        })?;
        own.advance(n);
        values(&states)
    }

    fn logits(&self, states: &[f32]) -> Result<Vec<f32>> {
        let hidden = self.hidden();
        let n = states.len() / hidden.max(1);
        let device = self.network.device();
        // More rows than one may take the whole head in f32 on a GPU (2 GB at 7B).
        let at_once = if device.is_cpu() { n.max(1) } else { 1 };
        let mut all = Vec::with_capacity(n * self.vocab());
        for rows in states.chunks(at_once * hidden.max(1)) {
            all.extend(values(&self.network.logits(&on(rows, rows.len() / hidden.max(1), device)?)?)?);
        }
        Ok(all)
    }
}

/// (n, width) rows on a device.
fn on(rows: &[f32], n: usize, device: &Device) -> Result<Tensor> {
    let shape = (n, rows.len() / n.max(1));
    Ok(Tensor::from_slice(rows, shape, device).map_err(utr_models::Error::from)?)
}

/// All values of a tensor as f32, row by row.
fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(values_of(tensor)?)
}

fn values_of(tensor: &Tensor) -> utr_models::Result<Vec<f32>> {
    Ok(tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?)
}
