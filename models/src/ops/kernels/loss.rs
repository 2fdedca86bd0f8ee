//! Cross-entropy by kernels, over logits that cuBLAS makes and nobody keeps.
//!
//! Comes in: hidden rows, the output head, labels; see `cross_entropy.rs` of the parent folder. Labels go in pieces, so that the logits at hand
//! stay bounded however many there are; the backward pass makes them again.

use super::launch::{Launch, Scalar};
use super::tape::{record, tensor};
use crate::ops::Label;
use candle_core::{DType, Result, Storage, Tensor, bail};

/// Logits at hand: half a gigabyte of f32.
const LOGITS: usize = 1 << 27;
const THREADS: u32 = 256;

/// Labels of one piece, on the device.
struct Piece {
    rows: Tensor,
    targets: Tensor,
    weights: Tensor,
    count: usize,
    vocab: usize,
}

impl Piece {
    fn new(labels: &[Label], vocab: usize, like: &Tensor) -> Result<Self> {
        let (count, device) = (labels.len(), like.device());
        let numbers = |of: fn(&Label) -> u32| {
            Tensor::from_vec(labels.iter().map(of).collect::<Vec<u32>>(), count, device)
        };
        let weights = labels.iter().map(|l| l.weight).collect::<Vec<f32>>();
        Ok(Self {
            rows: numbers(|l| l.row as u32)?,
            targets: numbers(|l| l.target)?,
            weights: Tensor::from_vec(weights, count, device)?,
            count,
            vocab,
        })
    }

    /// The labelled rows and their logits.
    fn logits(&self, hidden: &Tensor, head: &Tensor) -> Result<(Tensor, Tensor)> {
        let packed = hidden.index_select(&self.rows, 0)?;
        let logits = packed.matmul(&head.t()?)?;
        Ok((packed, logits))
    }

    fn launch(&self, kernel: &str, inputs: &[&Tensor], output: (usize, DType)) -> Result<Storage> {
        let launch = Launch {
            kernel,
            dtype: inputs[0].dtype(),
            width: None,
            grid: [self.count, 1],
            threads: THREADS,
            inputs,
            outputs: &[output],
            scalars: &[Scalar::int(self.vocab)?],
        };
        Ok(launch.run()?.remove(0))
    }

    /// The terms of the sum, (labels), with gradients.
    fn terms(self, hidden: &Tensor, head: &Tensor) -> Result<Tensor> {
        let (h, w) = (hidden.detach(), head.detach());
        let (_, logits) = self.logits(&h, &w)?;
        let inputs = [&logits, &self.targets, &self.weights];
        let terms = self.launch("loss_terms", &inputs, (self.count, DType::F32))?;
        let (count, wanted) = (self.count, [hidden.track_op(), head.track_op()]);
        record(&[hidden, head], terms, count, move |_, upstream| self.gradients(&h, &w, upstream, wanted))
    }

    fn gradients(
        &self,
        hidden: &Tensor,
        head: &Tensor,
        upstream: &Tensor,
        wanted: [bool; 2],
    ) -> Result<Vec<Option<Tensor>>> {
        let (packed, logits) = self.logits(hidden, head)?;
        let inputs = [&logits, &self.targets, &self.weights, upstream];
        let storage = self.launch("loss_back", &inputs, (self.count * self.vocab, logits.dtype()))?;
        let dlogits = tensor(storage, (self.count, self.vocab));
        let dhidden = match wanted[0] {
            true => Some(hidden.zeros_like()?.index_add(&self.rows, &dlogits.matmul(head)?, 0)?),
            false => None,
        };
        let dhead = match wanted[1] {
            true => Some(dlogits.t()?.matmul(&packed)?),
            false => None,
        };
        Ok(vec![dhidden, dhead])
    }
}

/// See [`crate::ops::cross_entropy`].
pub fn cross_entropy(hidden: &Tensor, head: &Tensor, labels: &[Label]) -> Result<Tensor> {
    by_pieces(hidden, head, labels, LOGITS)
}

/// With at most `logits` logits at hand.
pub fn by_pieces(hidden: &Tensor, head: &Tensor, labels: &[Label], logits: usize) -> Result<Tensor> {
    let ((rows, _), (vocab, _)) = (hidden.dims2()?, head.dims2()?);
    if let Some(bad) = labels.iter().find(|l| l.row >= rows || l.target as usize >= vocab) {
        bail!("cross_entropy: {bad:?} lies outside {rows} rows or a vocabulary of {vocab}")
    }
    let (hidden, head) = (hidden.contiguous()?, head.contiguous()?);
    let mut sum = Tensor::zeros((), DType::F32, hidden.device())?;
    for piece in labels.chunks((logits / vocab.max(1)).max(1)) {
        sum = (sum + Piece::new(piece, vocab, &hidden)?.terms(&hidden, &head)?.sum_all()?)?;
    }
    Ok(sum)
}
