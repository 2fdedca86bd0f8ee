//! Every fused kernel against its readable twin: values and all gradients, on random sizes.

use super::*;
use candle_core::{Device, Var};
use std::sync::Arc;

/// Largest difference between a kernel and its twin, for values of order one.
const TOLERANCE: f32 = 2e-5;

fn var(shape: &[usize], seed: u64) -> Var {
    use rand::{Rng, SeedableRng};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let data = (0..shape.iter().product()).map(|_| rng.random_range(-1.5f32..1.5)).collect::<Vec<_>>();
    Var::from_vec(data, shape, &Device::Cpu).unwrap()
}

fn difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

/// Compares two functions of the same variables, and the gradients of a fixed random projection of their results.
fn compare(name: &str, vars: &[&Var], fast: impl Fn() -> Tensor, slow: impl Fn() -> Tensor) {
    let (a, b) = (fast(), slow());
    let gap = difference(&a, &b);
    assert!(gap < TOLERANCE, "{name}: values differ by {gap}");
    let probe = var(a.dims(), 99);
    let gradients =
        |y: &Tensor| (y * probe.as_detached_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
    let (ga, gb) = (gradients(&a), gradients(&b));
    for (i, v) in vars.iter().enumerate() {
        let (ga, gb) = (ga.get(v).unwrap(), gb.get(v).unwrap());
        let gap = difference(ga, gb);
        assert!(gap < 10.0 * TOLERANCE, "{name}: gradient {i} differs by {gap}");
        assert!(difference(ga, &ga.zeros_like().unwrap()) > 0.0, "{name}: gradient {i} vanishes");
    }
}

#[test]
fn linear_equals_its_twin() {
    let (x, w, b) = (var(&[7, 12], 1), var(&[5, 12], 2), var(&[5], 3));
    compare(
        "with bias",
        &[&x, &w, &b],
        || linear(&x, &w, Some(&b)).unwrap(),
        || plain::linear(&x, &w, Some(&b)).unwrap(),
    );
    compare("without", &[&x, &w], || linear(&x, &w, None).unwrap(), || plain::linear(&x, &w, None).unwrap());
}

#[test]
fn mixing_rows_equals_its_twin() {
    let (x, m) = (var(&[3, 9, 4], 1), var(&[4, 9], 2));
    let m = m.as_detached_tensor();
    compare("mix", &[&x], || mix_rows(&x, &m).unwrap(), || plain::mix_rows(&x, &m).unwrap());
}

#[test]
fn norms_equal_their_twins() {
    let (x, w, b) = (var(&[6, 20], 1), var(&[20], 2), var(&[20], 3));
    compare("rms", &[&x, &w], || rms_norm(&x, &w, 1e-6).unwrap(), || plain::rms_norm(&x, &w, 1e-6).unwrap());
    let fast = || layer_norm(&x, &w, &b, 1e-6).unwrap();
    compare("layer", &[&x, &w, &b], fast, || plain::layer_norm(&x, &w, &b, 1e-6).unwrap());
}

#[test]
fn activations_equal_their_twins() {
    let (x, y) = (var(&[9, 11], 1), var(&[9, 11], 2));
    compare("gelu", &[&x], || gelu_tanh(&x).unwrap(), || plain::gelu_tanh(&x).unwrap());
    compare("swiglu", &[&x, &y], || swiglu(&x, &y).unwrap(), || plain::swiglu(&x, &y).unwrap());
    for x in [-200.0f32, -87.5, -20.0, -1.0, -1e-4, 0.0, 0.3, 1.0, 17.0, 80.0] {
        let (got, want) = (activation::exp(x) as f64, (x.max(-87.0) as f64).exp());
        assert!((got - want).abs() <= 3e-7 * want, "exp({x}) = {got}, not {want}");
    }
}

fn packing(causal: bool, heads: usize, kv_heads: usize, dim: usize) -> Arc<Packing> {
    let sequences = vec![
        Sequence { trunk: 5, branches: vec![3, 1, 4] },
        Sequence::plain(6),
        Sequence { trunk: 2, branches: vec![2] },
    ];
    let rope = causal.then(|| Rope::new(sequences.iter().flat_map(|s| s.positions()), dim, 1e4));
    let sequences = if causal { sequences } else { vec![Sequence::plain(4), Sequence::plain(7)] };
    Arc::new(Packing { sequences, causal, rope, heads, kv_heads })
}

#[test]
fn packed_attention_equals_its_twin() {
    for (causal, heads, kv_heads) in [(true, 4, 2), (true, 3, 3), (false, 2, 2)] {
        let packing = packing(causal, heads, kv_heads, 6);
        let rows = packing.sequences.iter().map(Sequence::rows).sum();
        let (q, k, v) =
            (var(&[rows, heads * 6], 1), var(&[rows, kv_heads * 6], 2), var(&[rows, kv_heads * 6], 3));
        let fast = || attend_packed(&q, &k, &v, &packing).unwrap();
        compare("packed", &[&q, &k, &v], fast, || plain::attend_packed(&q, &k, &v, &packing).unwrap());
    }
}

#[test]
fn cross_entropy_equals_its_twin() {
    let (h, w) = (var(&[6, 8], 1), var(&[10, 8], 2));
    let labels =
        [(0, 3, 1.0), (2, 9, 0.5), (5, 0, 2.0)].map(|(row, target, weight)| Label { row, target, weight });
    let fast = || cross_entropy(&h, &w, &labels).unwrap();
    compare("ce", &[&h, &w], fast, || plain::cross_entropy(&h, &w, &labels).unwrap());
}
