//! What this machine could do at most: bytes from memory and arithmetic, measured on the spot.
//!
//! Comes in: nothing. Goes out: GB/s of all cores reading a block larger than the caches, and GFLOP/s of a large f32 matrix product. They stand
//! beside every measured number; nothing is judged here.

use std::time::Instant;

use rayon::prelude::*;
use utr_models::ops::gemm::{View, gemm};

/// Bytes read to measure bandwidth: larger than any cache of a board or laptop.
const BLOCK: usize = 256 << 20;
/// Side of the square matrices.
const SIDE: usize = 1024;
/// The best of so many tries counts.
const TRIES: usize = 5;

/// The machine's limits.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Ceiling {
    /// Reading memory, all cores together, in 10^9 bytes a second.
    pub memory_gb_s: f64,
    /// f32 matrix product, all cores together, in 10^9 operations a second.
    pub arithmetic_gflop_s: f64,
}

impl Ceiling {
    /// Measures both; takes about a second.
    pub fn measure() -> Self {
        let block = vec![1u64; BLOCK / 8];
        let read = || {
            let sum: u64 = block.par_chunks(1 << 17).map(|part| part.iter().fold(0u64, |a, b| a ^ b)).sum();
            std::hint::black_box(sum);
        };
        let memory_gb_s = BLOCK as f64 / best(read) / 1e9;
        let (a, b, mut c) = (vec![0.5f32; SIDE * SIDE], vec![0.25f32; SIDE * SIDE], vec![0f32; SIDE * SIDE]);
        let product = || {
            gemm(&mut c, SIDE, SIDE, SIDE, SIDE, View::rows(&a, SIDE), View::rows(&b, SIDE), 1.0, false);
        };
        let arithmetic_gflop_s = 2.0 * (SIDE as f64).powi(3) / best(product) / 1e9;
        Self { memory_gb_s, arithmetic_gflop_s }
    }
}

fn best(mut f: impl FnMut()) -> f64 {
    (0..TRIES)
        .map(|_| {
            let began = Instant::now();
            f();
            began.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}
