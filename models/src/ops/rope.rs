//! Rotary position embedding, "rotate half" form (Qwen2).
//!
//! Comes in: positions, then rows (n, heads * dim). Goes out: the rotated rows. Gradients are the rotation undone, which the attention kernel
//! asks for.

use candle_core::{Result, Tensor};

/// Cosines and sines of the rotary position embedding, "rotate half" form (Qwen2): (rows, dim / 2) each.
#[derive(Clone, Debug)]
pub struct Rope {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    /// For the given positions; frequencies are `theta^(-2i/dim)`.
    pub fn new(positions: impl Iterator<Item = u32>, dim: usize, theta: f64) -> Self {
        let half = dim / 2;
        // As the originals: inverse frequencies rounded to f32, angles formed in f32.
        let frequencies: Vec<f32> =
            (0..half).map(|i| 1.0 / (theta as f32).powf(2.0 * i as f32 / dim as f32)).collect();
        let angles: Vec<f32> =
            positions.flat_map(|p| frequencies.iter().map(move |f| p as f32 * f)).collect();
        Self {
            half,
            cos: angles.iter().map(|a| a.cos()).collect(),
            sin: angles.iter().map(|a| a.sin()).collect(),
        }
    }

    /// Rotates every head of every row in place; `direction` is 1 to rotate, -1 to undo (and for gradients).
    pub(super) fn apply(&self, rows: &mut [f32], width: usize, direction: f32) {
        let half = self.half;
        for (row, (cos, sin)) in
            rows.chunks_exact_mut(width).zip(self.cos.chunks_exact(half).zip(self.sin.chunks_exact(half)))
        {
            for head in row.chunks_exact_mut(2 * half) {
                let (a, b) = head.split_at_mut(half);
                for ((a, b), (cos, sin)) in a.iter_mut().zip(b).zip(cos.iter().zip(sin)) {
                    let s = sin * direction;
                    (*a, *b) = (*a * cos - *b * s, *b * cos + *a * s);
                }
            }
        }
    }

    /// The (rows, half) tables as tensors, cosine first.
    pub(super) fn tables(&self, device: &candle_core::Device) -> Result<(Tensor, Tensor)> {
        let rows = self.cos.len() / self.half;
        let table = |v: &[f32]| Tensor::from_slice(v, (rows, self.half), device);
        Ok((table(&self.cos)?, table(&self.sin)?))
    }
}
