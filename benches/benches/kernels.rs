//! `cargo bench -p utr-bench`: the fused kernels against their plain-candle twins, forward and backward, in turn.
//!
//! In: nothing. Out: a table with medians, ratios and the rate of arithmetic beside what a large matrix product reaches on this machine
//! (the ceiling of one run), and one JSON line last. Sizes are those of training the shipped model on 4 clips.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor, Var};
use utr_bench::paired;
use utr_models::ops::{self, Packing, Sequence, plain};

const ROUNDS: usize = 7;

fn var(shape: &[usize]) -> Result<Var> {
    Var::from_tensor(&Tensor::randn(0f32, 1.0, shape, &Device::Cpu)?)
}

/// Forward and backward of a function.
fn step(f: impl Fn() -> Result<Tensor>) {
    let gradients = f().and_then(|y| y.sum_all()?.backward());
    std::hint::black_box(gradients.expect("the kernels run on these sizes"));
}

fn main() -> Result<()> {
    let (clips, width, mlp, heads, kv_heads) = (4, 128, 320, 4, 2);
    let sequences = vec![Sequence::new(136, vec![24; 11]); clips];
    let rows = sequences.iter().map(Sequence::rows).sum();
    let packing = Arc::new(Packing::decoder(sequences, [heads, kv_heads], width / heads, 1e4));
    let (x, w) = (var(&[rows, width])?, var(&[mlp, width])?);
    let (gate, up, scale) = (var(&[rows, mlp])?, var(&[rows, mlp])?, var(&[width])?);
    let (k, v) = (var(&[rows, width / 2])?, var(&[rows, width / 2])?);
    let one = var(&[1024, 1024])?;
    let square = paired(3, || drop(one.matmul(&one)), || drop(one.matmul(&one)));
    let ceiling = 2.0 * 1024f64.powi(3) / square.first_s / 1e9;
    println!("{rows} rows; a 1024 x 1024 matrix product runs at {ceiling:.0} GFLOP/s");
    println!("{:<12} {:>10} {:>10} {:>8}", "kernel", "fused ms", "plain ms", "ratio");
    let mut lines = serde_json::Map::new();
    let mut row = |name: &str, p: utr_bench::Paired| {
        println!("{name:<12} {:>10.2} {:>10.2} {:>7.1}x", p.first_s * 1e3, p.second_s * 1e3, p.ratio);
        lines.insert(
            name.into(),
            serde_json::json!({"fused_ms": p.first_s * 1e3, "plain_ms": p.second_s * 1e3, "ratio": p.ratio}),
        );
    };
    row(
        "linear",
        paired(ROUNDS, || step(|| ops::linear(&x, &w, None)), || step(|| plain::linear(&x, &w, None))),
    );
    row(
        "rms_norm",
        paired(
            ROUNDS,
            || step(|| ops::rms_norm(&x, &scale, 1e-6)),
            || step(|| plain::rms_norm(&x, &scale, 1e-6)),
        ),
    );
    row("swiglu", paired(ROUNDS, || step(|| ops::swiglu(&gate, &up)), || step(|| plain::swiglu(&gate, &up))));
    row("gelu_tanh", paired(ROUNDS, || step(|| ops::gelu_tanh(&gate)), || step(|| plain::gelu_tanh(&gate))));
    let fused = || step(|| ops::attend_packed(&x, &k, &v, &packing));
    row("attention", paired(ROUNDS, fused, || step(|| plain::attend_packed(&x, &k, &v, &packing))));
    println!(
        "{}",
        serde_json::json!({"bench": "kernels", "rows": rows, "ceiling_gflops": ceiling, "kernels": lines})
    );
    Ok(())
}
