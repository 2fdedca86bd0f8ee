//! Cross-entropy of the next token over a large vocabulary, without keeping the logits.
//!
//! Comes in: hidden rows (n, channels), the output head (vocab, channels), labels as (row, target, weight). Goes out: the weighted sum of
//! -log p(target) as a scalar with gradients for rows and head, and the single terms for scoring. Rows without a label cost nothing.

use super::activation::exp;
use super::gemm::{View, gemm};
#[cfg(any(test, feature = "cuda"))]
use super::kernels;
use super::{fused, plain, slice, with};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

/// A row of hidden states, the token it must predict, and the weight of that term in the sum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Label {
    /// Row of the hidden states.
    pub row: usize,
    /// Token id.
    pub target: u32,
    /// Factor of the term.
    pub weight: f32,
}

/// The weighted sum over labels of `-log softmax(hidden[row] · headᵀ)[target]`, a scalar.
pub fn cross_entropy(hidden: &Tensor, head: &Tensor, labels: &[Label]) -> Result<Tensor> {
    #[cfg(any(test, feature = "cuda"))]
    if kernels::apply(&[hidden, head]) {
        return kernels::cross_entropy(hidden, head, labels);
    }
    if !fused(hidden) {
        return plain::cross_entropy(hidden, head, labels);
    }
    let op = CrossEntropy { labels: labels.to_vec(), head_grad: head.track_op() };
    hidden.contiguous()?.apply_op2(&head.contiguous()?, op)
}

struct CrossEntropy {
    labels: Vec<Label>,
    head_grad: bool,
}

impl CrossEntropy {
    /// The labelled rows, packed.
    fn gather(&self, hidden: &[f32], channels: usize) -> Vec<f32> {
        self.labels
            .iter()
            .flat_map(|l| hidden[l.row * channels..(l.row + 1) * channels].iter().copied())
            .collect()
    }

    /// Logits (labels, vocab).
    fn logits(&self, rows: &[f32], head: &[f32], channels: usize) -> Vec<f32> {
        let vocab = head.len() / channels;
        let mut logits = vec![0.0; self.labels.len() * vocab];
        let (rows, head) = (View::rows(rows, channels), View::rows(head, channels).t());
        gemm(&mut logits, vocab, self.labels.len(), vocab, channels, rows, head, 1.0, false);
        logits
    }

    /// Turns a row of logits into probabilities; returns `-log p(target)`.
    fn softmax(row: &mut [f32], target: u32) -> f32 {
        let max = row.iter().fold(f32::NEG_INFINITY, |m, x| m.max(*x));
        let logit = row[target as usize] - max;
        row.iter_mut().for_each(|x| *x = exp(*x - max));
        let sum: f32 = row.iter().sum();
        row.iter_mut().for_each(|x| *x /= sum);
        sum.ln() - logit
    }
}

impl CustomOp2 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(
        &self,
        hidden: &CpuStorage,
        lh: &Layout,
        head: &CpuStorage,
        lw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, channels) = lh.shape().dims2()?;
        let (vocab, _) = lw.shape().dims2()?;
        if let Some(bad) = self.labels.iter().find(|l| l.row >= rows || l.target as usize >= vocab) {
            candle_core::bail!("cross_entropy: {bad:?} lies outside {rows} rows or a vocabulary of {vocab}")
        }
        let packed = self.gather(slice(hidden, lh)?, channels);
        let mut logits = self.logits(&packed, slice(head, lw)?, channels);
        let terms = logits
            .chunks_exact_mut(vocab)
            .zip(&self.labels)
            .map(|(row, l)| l.weight * Self::softmax(row, l.target));
        Ok((CpuStorage::F32(vec![terms.sum()]), Shape::from(())))
    }

    fn bwd(
        &self,
        hidden: &Tensor,
        head: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let upstream = grad.to_scalar::<f32>()?;
        let ((rows, channels), (vocab, _)) = (hidden.dims2()?, head.dims2()?);
        with(hidden, |h| {
            with(head, |w| {
                let packed = self.gather(h, channels);
                let mut d = self.logits(&packed, w, channels);
                for (row, label) in d.chunks_exact_mut(vocab).zip(&self.labels) {
                    Self::softmax(row, label.target);
                    row[label.target as usize] -= 1.0;
                    row.iter_mut().for_each(|x| *x *= label.weight * upstream);
                }
                let n = self.labels.len();
                let mut packed_grad = vec![0.0; n * channels];
                gemm(
                    &mut packed_grad,
                    channels,
                    n,
                    channels,
                    vocab,
                    View::rows(&d, vocab),
                    View::rows(w, channels),
                    1.0,
                    false,
                );
                let mut dh = vec![0.0; rows * channels];
                for (label, g) in self.labels.iter().zip(packed_grad.chunks_exact(channels)) {
                    let row = &mut dh[label.row * channels..(label.row + 1) * channels];
                    row.iter_mut().zip(g).for_each(|(a, b)| *a += b);
                }
                let dh = Tensor::from_vec(dh, (rows, channels), hidden.device())?;
                if !self.head_grad {
                    return Ok((Some(dh), None));
                }
                let mut dw = vec![0.0; vocab * channels];
                gemm(
                    &mut dw,
                    channels,
                    vocab,
                    channels,
                    n,
                    View::rows(&d, vocab).t(),
                    View::rows(&packed, channels),
                    1.0,
                    false,
                );
                Ok((Some(dh), Some(Tensor::from_vec(dw, (vocab, channels), head.device())?)))
            })
        })
    }
}
