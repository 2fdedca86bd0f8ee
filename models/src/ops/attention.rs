//! Attention over packed rows, with gradients.
//!
//! Comes in: queries (n, heads * dim), keys and values (n, kv_heads * dim) of several sequences one after the other ([`Packing`]); queries and
//! keys not yet rotated. Goes out: (n, heads * dim). Nothing is padded: a sequence costs its own length. A sequence is a *trunk*
//! (a prompt with its frames) followed by *branches* (questions) that see the trunk and themselves, but not each other, so that
//! many questions share one pass over the frames. Scores are recomputed in the backward pass, never stored.

use super::activation::exp;
use super::gemm::{View, gemm};
use super::rope::Rope;
use super::{fused, plain, slice, with};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use std::sync::Arc;

/// One clip with its questions: `trunk` rows, then each branch's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Rows that everything after them sees.
    pub trunk: usize,
    /// Rows of each branch.
    pub branches: Vec<usize>,
}

impl Sequence {
    /// A sequence without branches.
    pub fn plain(rows: usize) -> Self {
        Self { trunk: rows, branches: Vec::new() }
    }

    /// All rows.
    pub fn rows(&self) -> usize {
        self.trunk + self.branches.iter().sum::<usize>()
    }

    /// Positions of the rows: the trunk counts from zero, each branch goes on from the trunk's end.
    pub fn positions(&self) -> impl Iterator<Item = u32> + '_ {
        let branch = move |rows: &usize| (self.trunk..self.trunk + rows).map(|p| p as u32);
        (0..self.trunk as u32).chain(self.branches.iter().flat_map(branch))
    }
}

/// How rows fall into sequences, and how they may attend.
#[derive(Clone, Debug)]
pub struct Packing {
    /// Sequences in row order.
    pub sequences: Vec<Sequence>,
    /// Rows see only themselves and earlier rows (decoder); otherwise all rows of their sequence (tower).
    pub causal: bool,
    /// Rotary positions, applied to queries and keys.
    pub rope: Option<Rope>,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
}

/// `softmax(q kᵀ / sqrt(dim)) v` within each sequence of the packing.
pub fn attend_packed(q: &Tensor, k: &Tensor, v: &Tensor, packing: &Arc<Packing>) -> Result<Tensor> {
    let (rows, width) = q.dims2()?;
    let expected: usize = packing.sequences.iter().map(Sequence::rows).sum();
    if rows != expected
        || !width.is_multiple_of(packing.heads)
        || !packing.heads.is_multiple_of(packing.kv_heads)
    {
        bail!(
            "attention: {rows} rows of {width} channels do not fit a packing of {expected} rows and {} heads",
            packing.heads
        )
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
    k: Vec<f32>,
    v: &'a [f32],
    width: usize,
    kv_width: usize,
    dim: usize,
}

impl<'a> Operands<'a> {
    fn new(packing: &'a Packing, q: &[f32], k: &[f32], v: &'a [f32]) -> Self {
        let rows: usize = packing.sequences.iter().map(Sequence::rows).sum();
        let (width, kv_width) = (q.len() / rows.max(1), k.len() / rows.max(1));
        let (mut q, mut k) = (q.to_vec(), k.to_vec());
        if let Some(rope) = &packing.rope {
            rope.apply(&mut q, width, 1.0);
            rope.apply(&mut k, kv_width, 1.0);
        }
        Self { packing, q, k, v, width, kv_width, dim: width / packing.heads }
    }

    fn scale(&self) -> f32 {
        (self.dim as f32).powf(-0.5)
    }

    /// Offset of the key head that a query head shares.
    fn kv_head(&self, head: usize) -> usize {
        head / (self.packing.heads / self.packing.kv_heads) * self.dim
    }

    /// Probabilities of one head: (rows, trunk) over the trunk, then for each branch (rows, rows) over itself.
    fn probabilities(&self, sequence: &Sequence, start: usize, head: usize, p: &mut Probabilities) {
        let (rows, trunk, dim) = (sequence.rows(), sequence.trunk, self.dim);
        let q = View::rows(&self.q[start * self.width + head * dim..], self.width);
        let keys = |row: usize| {
            View::rows(&self.k[(start + row) * self.kv_width + self.kv_head(head)..], self.kv_width)
        };
        p.trunk.resize(rows * trunk, 0.0);
        p.own.resize(sequence.branches.iter().map(|b| b * b).sum(), 0.0);
        gemm(&mut p.trunk, trunk, rows, trunk, dim, q, keys(0).t(), self.scale(), false);
        for (i, row) in p.trunk.chunks_exact_mut(trunk).take(trunk).enumerate() {
            let seen = if self.packing.causal { i + 1 } else { trunk };
            softmax(&mut row[..seen], &mut []);
            row[seen..].fill(0.0);
        }
        let (mut at, mut own) = (trunk, 0);
        for &n in &sequence.branches {
            let q = View::rows(&self.q[(start + at) * self.width + head * dim..], self.width);
            let block = &mut p.own[own..own + n * n];
            gemm(block, n, n, n, dim, q, keys(at).t(), self.scale(), false);
            for (i, row) in block.chunks_exact_mut(n).enumerate() {
                softmax(&mut p.trunk[(at + i) * trunk..(at + i + 1) * trunk], &mut row[..i + 1]);
                row[i + 1..].fill(0.0);
            }
            at += n;
            own += n * n;
        }
    }
}

/// Scratch of one head.
#[derive(Default)]
struct Probabilities {
    trunk: Vec<f32>,
    own: Vec<f32>,
}

/// One softmax over two pieces of a row, in place.
pub fn softmax(a: &mut [f32], b: &mut [f32]) {
    let max = a.iter().chain(b.iter()).fold(f32::NEG_INFINITY, |m, x| m.max(*x));
    a.iter_mut().chain(b.iter_mut()).for_each(|x| *x = exp(*x - max));
    let scale = 1.0 / (a.iter().sum::<f32>() + b.iter().sum::<f32>());
    a.iter_mut().chain(b.iter_mut()).for_each(|x| *x *= scale);
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
        let (width, kv_width, dim) = (operands.width, operands.kv_width, operands.dim);
        let mut out = vec![0.0; operands.q.len()];
        let (mut p, mut start) = (Probabilities::default(), 0);
        for sequence in &self.0.sequences {
            let (rows, trunk) = (sequence.rows(), sequence.trunk);
            for head in 0..self.0.heads {
                operands.probabilities(sequence, start, head, &mut p);
                let values = |row: usize| {
                    View::rows(&operands.v[(start + row) * kv_width + operands.kv_head(head)..], kv_width)
                };
                let out = &mut out[start * width + head * dim..];
                gemm(out, width, rows, dim, trunk, View::rows(&p.trunk, trunk), values(0), 1.0, false);
                let (mut at, mut own) = (trunk, 0);
                for &n in &sequence.branches {
                    gemm(
                        &mut out[at * width..],
                        width,
                        n,
                        dim,
                        n,
                        View::rows(&p.own[own..], n),
                        values(at),
                        1.0,
                        true,
                    );
                    at += n;
                    own += n * n;
                }
            }
            start += rows;
        }
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

impl PackedAttention {
    fn backward(&self, q: &[f32], k: &[f32], v: &[f32], out: &[f32], grad: &[f32]) -> [Vec<f32>; 3] {
        let operands = Operands::new(&self.0, q, k, v);
        let (width, kv_width) = (operands.width, operands.kv_width);
        let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
        let (mut p, mut d) = (Probabilities::default(), Probabilities::default());
        let mut start = 0;
        for sequence in &self.0.sequences {
            for head in 0..self.0.heads {
                operands.probabilities(sequence, start, head, &mut p);
                let at = HeadAt { sequence, start, head };
                operands.head_backward(&at, &p, &mut d, out, grad, &mut dq, &mut dk, &mut dv);
            }
            start += sequence.rows();
        }
        if let Some(rope) = &self.0.rope {
            rope.apply(&mut dq, width, -1.0);
            rope.apply(&mut dk, kv_width, -1.0);
        }
        [dq, dk, dv]
    }
}

struct HeadAt<'a> {
    sequence: &'a Sequence,
    start: usize,
    head: usize,
}

impl Operands<'_> {
    /// Adds one head's gradients: dV += Pᵀ dO, dS = P ∘ (dO Vᵀ - rowsum(dO ∘ O)), dQ += dS K, dK += dSᵀ Q.
    #[allow(clippy::too_many_arguments)]
    fn head_backward(
        &self,
        at: &HeadAt,
        p: &Probabilities,
        d: &mut Probabilities,
        out: &[f32],
        grad: &[f32],
        dq: &mut [f32],
        dk: &mut [f32],
        dv: &mut [f32],
    ) {
        let (sequence, dim, width, kv_width) = (at.sequence, self.dim, self.width, self.kv_width);
        let (rows, trunk, scale) = (sequence.rows(), sequence.trunk, self.scale());
        let (head, kv_head) = (at.head * dim, self.kv_head(at.head));
        let q_at = |row: usize| (at.start + row) * width + head;
        let kv_at = |row: usize| (at.start + row) * kv_width + kv_head;
        let inner: Vec<f32> = (0..rows)
            .map(|row| {
                out[q_at(row)..q_at(row) + dim]
                    .iter()
                    .zip(&grad[q_at(row)..q_at(row) + dim])
                    .map(|(o, g)| o * g)
                    .sum()
            })
            .collect();
        let score_gradient = |d: &mut [f32], p: &[f32], columns: usize, inner: &[f32]| {
            for ((d, p), inner) in d.chunks_exact_mut(columns).zip(p.chunks_exact(columns)).zip(inner) {
                d.iter_mut().zip(p).for_each(|(d, p)| *d = p * (*d - inner) * scale);
            }
        };
        d.trunk.resize(rows * trunk, 0.0);
        let g = View::rows(&grad[q_at(0)..], width);
        gemm(
            &mut d.trunk,
            trunk,
            rows,
            trunk,
            dim,
            g,
            View::rows(&self.v[kv_at(0)..], kv_width).t(),
            1.0,
            false,
        );
        score_gradient(&mut d.trunk, &p.trunk, trunk, &inner);
        gemm(
            &mut dq[q_at(0)..],
            width,
            rows,
            dim,
            trunk,
            View::rows(&d.trunk, trunk),
            View::rows(&self.k[kv_at(0)..], kv_width),
            1.0,
            true,
        );
        gemm(
            &mut dk[kv_at(0)..],
            kv_width,
            trunk,
            dim,
            rows,
            View::rows(&d.trunk, trunk).t(),
            View::rows(&self.q[q_at(0)..], width),
            1.0,
            true,
        );
        gemm(&mut dv[kv_at(0)..], kv_width, trunk, dim, rows, View::rows(&p.trunk, trunk).t(), g, 1.0, true);
        let (mut row, mut own) = (trunk, 0);
        for &n in &sequence.branches {
            let p = &p.own[own..own + n * n];
            d.own.resize(n * n, 0.0);
            let g = View::rows(&grad[q_at(row)..], width);
            gemm(&mut d.own, n, n, n, dim, g, View::rows(&self.v[kv_at(row)..], kv_width).t(), 1.0, false);
            score_gradient(&mut d.own, p, n, &inner[row..row + n]);
            gemm(
                &mut dq[q_at(row)..],
                width,
                n,
                dim,
                n,
                View::rows(&d.own, n),
                View::rows(&self.k[kv_at(row)..], kv_width),
                1.0,
                true,
            );
            gemm(
                &mut dk[kv_at(row)..],
                kv_width,
                n,
                dim,
                n,
                View::rows(&d.own, n).t(),
                View::rows(&self.q[q_at(row)..], width),
                1.0,
                true,
            );
            gemm(&mut dv[kv_at(row)..], kv_width, n, dim, n, View::rows(p, n).t(), g, 1.0, true);
            row += n;
            own += n * n;
        }
    }
}
