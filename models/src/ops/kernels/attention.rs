//! Packed attention by kernels.
//!
//! Comes in: queries, keys and values of packed sequences, not yet rotated; see `attention.rs` of the parent folder. Scores are made tile by tile and
//! never kept; what is kept for the backward pass is one number for each row and head. Heads of more than 128 channels are not covered.

use super::launch::{Launch, Scalar, spread};
use super::pointwise::rotate;
use super::tables::Tables;
use super::tape::{record, tensor};
use crate::ops::packing::Packing;
use candle_core::{DType, Result, Tensor};
use std::sync::Arc;

/// Threads of a block, as the kernels are written for.
const THREADS: u32 = 128;
/// Widths of a head that there are kernels for; others are filled up with zeros inside the kernel.
const WIDTHS: [usize; 4] = [32, 64, 96, 128];

/// The sizes of one call and its tables.
#[derive(Clone)]
struct Call {
    tables: Arc<Tables>,
    dtype: DType,
    rows: usize,
    heads: usize,
    kv_heads: usize,
    dim: usize,
    width: usize,
}

/// The operands as they are multiplied.
struct Rotated {
    q: Tensor,
    prefix_q: Tensor,
    k: Tensor,
}

/// See [`crate::ops::attend_packed`]; `None` where a head is too wide.
pub fn attend_packed(q: &Tensor, k: &Tensor, v: &Tensor, packing: &Packing) -> Result<Option<Tensor>> {
    let (rows, channels) = q.dims2()?;
    let dim = channels / packing.heads;
    let Some(width) = WIDTHS.into_iter().find(|width| dim <= *width) else { return Ok(None) };
    let kv = (rows, packing.kv_heads * dim);
    if k.dims2()? != kv || v.dims2()? != kv {
        candle_core::bail!("attention: keys {:?} and values {:?}, not {kv:?}", k.shape(), v.shape())
    }
    // As `TILE` in `tile.cuh`.
    let side = if q.dtype() == DType::BF16 { 32 } else { 16 };
    let tables = packing.tables.get(packing, side, q.device())?;
    let (heads, kv_heads) = (packing.heads, packing.kv_heads);
    let call = Call { tables, dtype: q.dtype(), rows, heads, kv_heads, dim, width };
    let (q, k, v) = (q.contiguous()?, k.contiguous()?, v.contiguous()?);
    let kept = [q.detach(), k.detach(), v.detach()];
    let mut outputs = call.forward(&kept)?;
    let (out, logsum) = (outputs.remove(0), outputs.remove(0));
    let logsum = tensor(logsum, (heads, rows));
    record(&[&q, &k, &v], out, (rows, channels), move |out, grad| call.backward(&kept, out, &logsum, grad))
        .map(Some)
}

impl Call {
    fn scalars(&self) -> Result<Vec<Scalar>> {
        let scale = (self.dim as f32).powf(-0.5);
        Ok(vec![
            Scalar::int(self.rows)?,
            Scalar::int(self.heads)?,
            Scalar::int(self.kv_heads)?,
            Scalar::int(self.dim)?,
            Scalar::Float(scale),
        ])
    }

    fn rotated(&self, q: &Tensor, k: &Tensor) -> Result<Rotated> {
        let turn = |x: &Tensor, rope: &Option<[Tensor; 2]>| match rope {
            Some(rope) => rotate(x, rope, 1.0),
            None => Ok(x.clone()),
        };
        let Tables { rope, prefix_rope, .. } = &*self.tables;
        let turned = turn(q, rope)?;
        let prefix_q = if prefix_rope.is_some() { turn(q, prefix_rope)? } else { turned.clone() };
        Ok(Rotated { q: turned, prefix_q, k: turn(k, rope)? })
    }

    /// The result and the logarithms of the rows' sums.
    fn forward(&self, [q, k, v]: &[Tensor; 3]) -> Result<Vec<candle_core::Storage>> {
        let (r, t) = (self.rotated(q, k)?, &self.tables);
        Launch {
            kernel: "attend",
            dtype: self.dtype,
            width: Some(self.width),
            grid: [t.tiles, self.heads],
            threads: THREADS,
            inputs: &[&r.q, &r.prefix_q, &r.k, v, &t.sight, &t.rows.starts, &t.rows.list],
            outputs: &[(q.elem_count(), self.dtype), (self.heads * self.rows, DType::F32)],
            scalars: &self.scalars()?,
        }
        .run()
    }

    fn backward(
        &self,
        [q, k, v]: &[Tensor; 3],
        out: &Tensor,
        logsum: &Tensor,
        grad: &Tensor,
    ) -> Result<Vec<Option<Tensor>>> {
        let (r, t) = (self.rotated(q, k)?, &self.tables);
        let delta = self.delta(&out.contiguous()?, grad)?;
        let mut dq = self.back_q(&r.q, &r, v, grad, [logsum, &delta], 0)?;
        let outputs = [(k.elem_count(), self.dtype), (v.elem_count(), self.dtype)];
        let mut keys_values = Launch {
            kernel: "attend_back_kv",
            dtype: self.dtype,
            width: Some(self.width),
            grid: [t.tiles, self.kv_heads],
            threads: THREADS,
            inputs: &[
                &r.q,
                &r.prefix_q,
                &r.k,
                v,
                grad,
                logsum,
                &delta,
                &t.sight,
                &t.columns.starts,
                &t.columns.list,
            ],
            outputs: &outputs,
            scalars: &self.scalars()?,
        }
        .run()?;
        let mut dk = tensor(keys_values.remove(0), k.shape());
        let dv = tensor(keys_values.remove(0), v.shape());
        if let Some(rope) = &t.rope {
            (dq, dk) = (rotate(&dq, rope, -1.0)?, rotate(&dk, rope, -1.0)?);
        }
        if t.has_prefixes {
            let mut over_prefix = self.back_q(&r.prefix_q, &r, v, grad, [logsum, &delta], 1)?;
            if let Some(rope) = &t.prefix_rope {
                over_prefix = rotate(&over_prefix, rope, -1.0)?;
            }
            dq = (dq + over_prefix)?;
        }
        Ok(vec![Some(dq), Some(dk), Some(dv)])
    }

    /// For each head and row, the result times its gradient.
    fn delta(&self, out: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let count = self.heads * self.rows;
        let mut delta = Launch {
            kernel: "attend_delta",
            dtype: self.dtype,
            width: None,
            grid: spread(count),
            threads: 256,
            inputs: &[out, grad],
            outputs: &[(count, DType::F32)],
            scalars: &self.scalars()?[..2]
                .iter()
                .copied()
                .chain([Scalar::int(self.dim)?])
                .collect::<Vec<_>>(),
        }
        .run()?;
        Ok(tensor(delta.remove(0), (self.heads, self.rows)))
    }

    /// Gradient of the rotated queries of one kind.
    fn back_q(
        &self,
        q: &Tensor,
        r: &Rotated,
        v: &Tensor,
        grad: &Tensor,
        [logsum, delta]: [&Tensor; 2],
        kind: i32,
    ) -> Result<Tensor> {
        let t = &self.tables;
        let mut scalars = self.scalars()?;
        scalars.push(Scalar::Int(kind));
        let mut dq = Launch {
            kernel: "attend_back_q",
            dtype: self.dtype,
            width: Some(self.width),
            grid: [t.tiles, self.heads],
            threads: THREADS,
            inputs: &[q, &r.k, v, grad, logsum, delta, &t.sight, &t.rows.starts, &t.rows.list],
            outputs: &[(q.elem_count(), self.dtype)],
            scalars: &scalars,
        }
        .run()?;
        Ok(tensor(dq.remove(0), q.shape()))
    }
}
