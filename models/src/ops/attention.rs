//! Attention over packed rows, with gradients.
//!
//! Comes in: queries (n, heads * dim), keys and values (n, kv_heads * dim) of several sequences one after the other ([`Packing`]); queries and
//! keys not yet rotated. Goes out: (n, heads * dim). Nothing is padded: a sequence costs its own length. A sequence is a *trunk*
//! (a prompt with its frames) followed by *branches* (questions) that see the trunk and themselves, but not each other, so that
//! many questions share one pass over the frames. Scores are recomputed in the backward pass, never stored.

use super::activation::exp;
use super::gemm::{View, gemm};
#[cfg(any(test, feature = "cuda"))]
use super::kernels;
use super::packing::{Block, Packing, Sequence};
use super::{fused, plain, slice, with};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use std::sync::Arc;

/// `softmax(q kᵀ / sqrt(dim)) v` within each sequence of the packing.
pub fn attend_packed(q: &Tensor, k: &Tensor, v: &Tensor, packing: &Arc<Packing>) -> Result<Tensor> {
    let (rows, width) = q.dims2()?;
    let expected = packing.rows();
    if rows != expected
        || !width.is_multiple_of(packing.heads)
        || !packing.heads.is_multiple_of(packing.kv_heads)
    {
        bail!(
            "attention: {rows} rows of {width} channels do not fit a packing of {expected} rows and {} heads",
            packing.heads
        )
    }
    if let Some(fault) = packing.fault() {
        bail!("attention: {fault}")
    }
    #[cfg(any(test, feature = "cuda"))]
    if kernels::apply(&[q, k, v])
        && let Some(out) = kernels::attend_packed(q, k, v, packing)?
    {
        return Ok(out);
    }
    if !fused(q) {
        return plain::attend_packed(q, k, v, packing);
    }
    q.contiguous()?.apply_op3(&k.contiguous()?, &v.contiguous()?, PackedAttention(packing.clone()))
}

struct PackedAttention(Arc<Packing>);

/// The sizes of one call and the rotated operands.
struct Operands<'a> {
    packing: &'a Packing,
    q: Vec<f32>,
    /// Queries as they look at the prefix of a stream; empty without streams.
    prefix_q: Vec<f32>,
    k: Vec<f32>,
    v: &'a [f32],
    width: usize,
    kv_width: usize,
    dim: usize,
}

/// One head of one sequence: where it lies and which scores count.
struct Head<'a> {
    sequence: &'a Sequence,
    blocks: &'a [Block],
    /// Room of its scores.
    room: usize,
    /// Row of its start.
    start: usize,
    /// Offset of the query head within a row.
    q: usize,
    /// Offset of the key head that it shares.
    kv: usize,
}

impl<'a> Operands<'a> {
    fn new(packing: &'a Packing, q: &[f32], k: &[f32], v: &'a [f32]) -> Self {
        let rows = packing.rows();
        let (width, kv_width) = (q.len() / rows.max(1), k.len() / rows.max(1));
        let prefix_q = packing.prefix_rope.as_ref().map(|rope| {
            let mut q = q.to_vec();
            rope.apply(&mut q, width, 1.0);
            q
        });
        let (mut q, mut k) = (q.to_vec(), k.to_vec());
        if let Some(rope) = &packing.rope {
            rope.apply(&mut q, width, 1.0);
            rope.apply(&mut k, kv_width, 1.0);
        }
        let prefix_q = prefix_q.unwrap_or_default();
        Self { packing, q, prefix_q, k, v, width, kv_width, dim: width / packing.heads }
    }

    fn scale(&self) -> f32 {
        (self.dim as f32).powf(-0.5)
    }

    /// Runs `f` on every head of every sequence.
    fn each_head(&self, mut f: impl FnMut(&Head)) {
        let mut start = 0;
        for sequence in &self.packing.sequences {
            let (blocks, room) = sequence.blocks();
            for head in 0..self.packing.heads {
                let kv = head / (self.packing.heads / self.packing.kv_heads) * self.dim;
                f(&Head { sequence, blocks: &blocks, room, start, q: head * self.dim, kv });
            }
            start += sequence.rows();
        }
    }

    fn q_at(&self, head: &Head, row: usize) -> usize {
        (head.start + row) * self.width + head.q
    }

    fn kv_at(&self, head: &Head, row: usize) -> usize {
        (head.start + row) * self.kv_width + head.kv
    }

    /// The queries of a block, from its first row on.
    fn queries(&self, head: &Head, block: &Block) -> View<'_> {
        let prefix = block.prefix && !self.prefix_q.is_empty();
        let queries = if prefix { &self.prefix_q } else { &self.q };
        View::rows(&queries[self.q_at(head, block.rows.start)..], self.width)
    }

    fn keys(&self, head: &Head, block: &Block) -> View<'_> {
        View::rows(&self.k[self.kv_at(head, block.columns.start)..], self.kv_width)
    }

    fn values(&self, head: &Head, block: &Block) -> View<'_> {
        View::rows(&self.v[self.kv_at(head, block.columns.start)..], self.kv_width)
    }

    /// Probabilities of one head in the places of its blocks; zero in a block where a row does not see.
    fn probabilities(&self, head: &Head, p: &mut Vec<f32>) {
        let sequence = head.sequence;
        let trunk = sequence.trunk;
        p.resize(head.room, 0.0);
        for block in head.blocks {
            let (m, n) = (block.rows.len(), block.columns.len());
            let (q, k) = (self.queries(head, block), self.keys(head, block));
            gemm(&mut p[block.at..], block.stride, m, n, self.dim, q, k.t(), self.scale(), false);
        }
        let (over_trunk, mut own) = p.split_at_mut(sequence.rows() * trunk);
        let seen = |row: usize| if self.packing.causal { (row + 1).min(trunk) } else { trunk };
        for (row, scores) in over_trunk.chunks_exact_mut(trunk).take(trunk).enumerate() {
            let [prefix, rest] = visible(scores, sequence, row, seen(row));
            softmax([prefix, rest]);
        }
        let mut at = trunk;
        for &n in &sequence.branches {
            let (block, others) = std::mem::take(&mut own).split_at_mut(n * n);
            own = others;
            for (i, mine) in block.chunks_exact_mut(n).enumerate() {
                let scores = &mut over_trunk[(at + i) * trunk..(at + i + 1) * trunk];
                let [prefix, rest] = visible(scores, sequence, trunk + i, trunk);
                softmax([prefix, rest, &mut mine[..i + 1]]);
                mine[i + 1..].fill(0.0);
            }
            at += n;
        }
        for block in head.blocks.iter().filter(|b| b.columns.end <= trunk) {
            for row in block.rows.clone() {
                let gap = sequence.gap(row.min(trunk));
                let mut clear = |from: usize, to: usize| {
                    let (from, to) = (from.max(block.columns.start), to.min(block.columns.end));
                    if from < to {
                        over_trunk[row * trunk + from..row * trunk + to].fill(0.0);
                    }
                };
                clear(gap.start, gap.end);
                clear(seen(row), trunk);
            }
        }
    }
}

/// The scores that the row at `position` sees, those over the prefix and the others; `seen` columns are not in its future.
fn visible<'a>(
    scores: &'a mut [f32],
    sequence: &Sequence,
    position: usize,
    seen: usize,
) -> [&'a mut [f32]; 2] {
    let gap = sequence.gap(position);
    let (prefix, rest) = scores[..seen].split_at_mut(gap.start.min(seen));
    [prefix, &mut rest[gap.len()..]]
}

/// One softmax over the pieces of a row, in place.
pub fn softmax<const N: usize>(mut pieces: [&mut [f32]; N]) {
    let max = pieces.iter().fold(f32::NEG_INFINITY, |m, piece| piece.iter().fold(m, |m, x| m.max(*x)));
    let mut sum = 0.0;
    for piece in &mut pieces {
        piece.iter_mut().for_each(|x| *x = exp(*x - max));
        sum += piece.iter().sum::<f32>();
    }
    let scale = 1.0 / sum;
    pieces.iter_mut().for_each(|piece| piece.iter_mut().for_each(|x| *x *= scale));
}

impl CustomOp3 for PackedAttention {
    fn name(&self) -> &'static str {
        "packed-attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        lq: &Layout,
        k: &CpuStorage,
        lk: &Layout,
        v: &CpuStorage,
        lv: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let operands = Operands::new(&self.0, slice(q, lq)?, slice(k, lk)?, slice(v, lv)?);
        let (width, dim) = (operands.width, operands.dim);
        let mut out = vec![0.0; operands.q.len()];
        let mut p = Vec::new();
        operands.each_head(|head| {
            operands.probabilities(head, &mut p);
            for block in head.blocks {
                let (m, n) = (block.rows.len(), block.columns.len());
                let out = &mut out[operands.q_at(head, block.rows.start)..];
                let p = View::rows(&p[block.at..], block.stride);
                gemm(out, width, m, dim, n, p, operands.values(head, block), 1.0, true);
            }
        });
        Ok((CpuStorage::F32(out), lq.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let [dq, dk, dv] = with(q, |q| {
            with(k, |k| {
                with(v, |v| with(out, |out| with(&grad, |grad| Ok(self.backward(q, k, v, out, grad)))))
            })
        })?;
        let tensor = |data, like: &Tensor| Tensor::from_vec(data, like.shape(), like.device());
        Ok((Some(tensor(dq, q)?), Some(tensor(dk, k)?), Some(tensor(dv, v)?)))
    }
}

/// Gradients of the rotated operands.
struct Gradients {
    q: Vec<f32>,
    prefix_q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl PackedAttention {
    fn backward(&self, q: &[f32], k: &[f32], v: &[f32], out: &[f32], grad: &[f32]) -> [Vec<f32>; 3] {
        let operands = Operands::new(&self.0, q, k, v);
        let zeros = |like: &[f32]| vec![0.0; like.len()];
        let mut d = Gradients { q: zeros(q), prefix_q: zeros(&operands.prefix_q), k: zeros(k), v: zeros(v) };
        let (mut p, mut scratch) = (Vec::new(), Vec::new());
        operands.each_head(|head| {
            operands.probabilities(head, &mut p);
            operands.head_backward(head, &p, &mut scratch, out, grad, &mut d);
        });
        let (width, kv_width) = (operands.width, operands.kv_width);
        if let Some(rope) = &self.0.rope {
            rope.apply(&mut d.q, width, -1.0);
            rope.apply(&mut d.k, kv_width, -1.0);
        }
        if let Some(rope) = &self.0.prefix_rope {
            rope.apply(&mut d.prefix_q, width, -1.0);
        }
        d.q.iter_mut().zip(&d.prefix_q).for_each(|(a, b)| *a += b);
        [d.q, d.k, d.v]
    }
}

impl Operands<'_> {
    /// Adds one head's gradients: dV += Pᵀ dO, dS = P ∘ (dO Vᵀ - rowsum(dO ∘ O)), dQ += dS K, dK += dSᵀ Q.
    fn head_backward(
        &self,
        head: &Head,
        p: &[f32],
        scratch: &mut Vec<f32>,
        out: &[f32],
        grad: &[f32],
        d: &mut Gradients,
    ) {
        let (dim, width, kv_width, scale) = (self.dim, self.width, self.kv_width, self.scale());
        let inner = |row: usize| -> f32 {
            let at = self.q_at(head, row);
            out[at..at + dim].iter().zip(&grad[at..at + dim]).map(|(o, g)| o * g).sum()
        };
        let inner: Vec<f32> = (0..head.sequence.rows()).map(inner).collect();
        for block in head.blocks {
            let (m, n) = (block.rows.len(), block.columns.len());
            let (q_at, kv_at) = (self.q_at(head, block.rows.start), self.kv_at(head, block.columns.start));
            let g = View::rows(&grad[q_at..], width);
            scratch.resize(m * n, 0.0);
            gemm(scratch, n, m, n, dim, g, self.values(head, block).t(), 1.0, false);
            let rows = scratch.chunks_exact_mut(n).zip(p[block.at..].chunks(block.stride));
            for ((ds, p), inner) in rows.zip(&inner[block.rows.clone()]) {
                ds.iter_mut().zip(p).for_each(|(ds, p)| *ds = p * (*ds - inner) * scale);
            }
            let ds = View::rows(scratch, n);
            let dq = if block.prefix && !d.prefix_q.is_empty() { &mut d.prefix_q } else { &mut d.q };
            gemm(&mut dq[q_at..], width, m, dim, n, ds, self.keys(head, block), 1.0, true);
            gemm(&mut d.k[kv_at..], kv_width, n, dim, m, ds.t(), self.queries(head, block), 1.0, true);
            let p = View::rows(&p[block.at..], block.stride);
            gemm(&mut d.v[kv_at..], kv_width, n, dim, m, p.t(), g, 1.0, true);
        }
    }
}
