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
    let sequences = vec![Sequence::new(5, vec![3, 1, 4]), Sequence::plain(6), Sequence::new(2, vec![2])];
    Arc::new(match causal {
        true => Packing::decoder(sequences, [heads, kv_heads], dim, 1e4),
        false => Packing::tower(vec![Sequence::plain(4), Sequence::plain(7)], heads),
    })
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

/// Streams of every shape that matters, beside an ordinary sequence: longer than the window, as long, shorter; no prefix; a window of one frame;
/// text in the trunk after the frames.
fn streams() -> Vec<Sequence> {
    let sequence = |trunk, branches: &[usize], prefix, frame, frames, window| Sequence {
        stream: Some(Stream { prefix, frame, frames, window }),
        ..Sequence::new(trunk, branches.to_vec())
    };
    vec![
        sequence(3 + 2 * 9 + 3, &[3, 1, 4], 3, 2, 9, 3),
        Sequence::new(5, vec![2]),
        sequence(2 + 3 * 7 + 1, &[2, 2], 2, 3, 7, 5),
        sequence(4 * 4 + 1, &[3], 0, 4, 4, 1),
        sequence(4 + 2 * 3 + 2, &[2], 4, 2, 3, 3),
        sequence(1 + 11, &[], 1, 1, 11, 8),
    ]
}

#[test]
fn streaming_attention_equals_its_twin() {
    for (heads, kv_heads) in [(4, 2), (3, 3)] {
        let packing = Arc::new(Packing::decoder(streams(), [heads, kv_heads], 6, 1e4));
        let rows = packing.rows();
        let (q, k, v) =
            (var(&[rows, heads * 6], 1), var(&[rows, kv_heads * 6], 2), var(&[rows, kv_heads * 6], 3));
        let fast = || attend_packed(&q, &k, &v, &packing).unwrap();
        compare("streams", &[&q, &k, &v], fast, || plain::attend_packed(&q, &k, &v, &packing).unwrap());
    }
}

#[test]
fn a_stream_within_its_window_is_an_ordinary_clip() {
    let frames = |window| Stream { prefix: 3, frame: 2, frames: 5, window };
    let sequence = |stream| Sequence { stream, ..Sequence::new(3 + 10 + 2, vec![3, 2]) };
    let packing = |stream| Arc::new(Packing::decoder(vec![sequence(stream)], [4, 2], 6, 1e4));
    let (q, k, v) = (var(&[20, 24], 1), var(&[20, 12], 2), var(&[20, 12], 3));
    let run = |packing: &Arc<Packing>| attend_packed(&q, &k, &v, packing).unwrap();
    let ordinary = packing(None);
    for window in [5, 6, 32] {
        let stream = packing(Some(frames(window)));
        compare("within", &[&q, &k, &v], || run(&stream), || run(&ordinary));
    }
    let rolled = run(&packing(Some(frames(4))));
    assert!(difference(&rolled, &run(&ordinary)) > 1e-2, "an evicted frame is still seen");
}

/// What a row of a stream sees, word for word: the frames in view at their own positions, the prefix moved up to the oldest of them.
#[test]
fn streaming_attention_is_what_a_rolling_window_computes() {
    let (prefix, frame, frames, window, dim) = (3, 2, 9, 4, 8);
    let (trunk, branch) = (prefix + frame * frames + 1, 3);
    let rows = trunk + branch;
    let stream = Some(Stream { prefix, frame, frames, window });
    let sequence = Sequence { stream, ..Sequence::new(trunk, vec![branch]) };
    let packing = Arc::new(Packing::decoder(vec![sequence], [1, 1], dim, 1e4));
    let (q, k, v) = (var(&[rows, dim], 1), var(&[rows, dim], 2), var(&[rows, dim], 3));
    let got = attend_packed(&q, &k, &v, &packing).unwrap().to_vec2::<f32>().unwrap();
    let turn = |x: &[f32], position: usize| {
        let mut x = x.to_vec();
        Rope::new([position as u32].into_iter(), dim, 1e4).apply(&mut x, dim, 1.0);
        x
    };
    let [q, k, v] = [&q, &k, &v].map(|x| x.to_vec2::<f32>().unwrap());
    for row in 0..rows {
        let newest = (row.saturating_sub(prefix) / frame).min(frames - 1);
        let oldest = (newest + 1).saturating_sub(window);
        let moved = (0..prefix).map(|j| (j, j + oldest * frame));
        let seen = moved.chain((prefix + oldest * frame..rows).map(|j| (j, j))).filter(|(j, _)| *j <= row);
        let q = turn(&q[row], row);
        let dot = |key: Vec<f32>| q.iter().zip(&key).map(|(a, b)| a * b).sum::<f32>();
        let weighed: Vec<(f32, usize)> =
            seen.map(|(j, at)| ((dot(turn(&k[j], at)) / (dim as f32).sqrt()).exp(), j)).collect();
        let sum: f32 = weighed.iter().map(|(w, _)| w).sum();
        for channel in 0..dim {
            let want = weighed.iter().map(|(w, j)| w * v[*j][channel]).sum::<f32>() / sum;
            let gap = (got[row][channel] - want).abs();
            assert!(gap < TOLERANCE, "row {row}, channel {channel}: off by {gap}");
        }
    }
}

#[test]
fn probabilities_are_those_by_hand_and_follow_the_rows_they_are_of() {
    let rows = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap().unsqueeze(1).unwrap();
    let packing = |sequence| Packing { causal: true, rope: None, ..Packing::tower(vec![sequence], 1) };
    let of = |packing: &Packing, keys: &[f32], looking: &[usize]| {
        let p = plain::probabilities(&rows(&vec![1.0; keys.len()]), &rows(keys), packing, looking).unwrap();
        p.squeeze(0).unwrap().to_vec2::<f32>().unwrap()
    };
    // Weights 1, 2, 3 in the trunk; 6 in the first branch, 4 in the second.
    let keys = [1f32, 2.0, 3.0, 6.0, 4.0].map(f32::ln);
    let two = packing(Sequence::new(3, vec![1, 1]));
    let near = |got: &[f32], want: [f32; 5]| {
        assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?}, not {want:?}");
    };
    let p = of(&two, &keys, &[4, 1, 3]);
    near(&p[0], [0.1, 0.2, 0.3, 0.0, 0.4]);
    near(&p[1], [1.0 / 3.0, 2.0 / 3.0, 0.0, 0.0, 0.0]);
    near(&p[2], [1.0 / 12.0, 2.0 / 12.0, 3.0 / 12.0, 0.5, 0.0]);
    // Without positions, rows that change places take their shares along.
    let turned = of(&two, &[keys[2], keys[0], keys[1], keys[3], keys[4]], &[4]);
    near(&turned[0], [0.3, 0.1, 0.2, 0.0, 0.4]);
}

#[test]
fn probabilities_of_some_rows_are_those_of_all_and_make_the_fused_result() {
    for sequences in [streams(), vec![Sequence::new(5, vec![3, 1])]] {
        let packing = Arc::new(Packing::decoder(sequences, [4, 2], 6, 1e4));
        let n = packing.rows();
        let (q, k, v) = (var(&[n, 24], 1), var(&[n, 12], 2), var(&[n, 12], 3));
        let all: Vec<usize> = (0..n).collect();
        let whole = plain::probabilities(&q, &k, &packing, &all).unwrap();
        let some = [n - 1, 3, 4];
        let index = Tensor::new(&some.map(|row| row as u32), &Device::Cpu).unwrap();
        let part = plain::probabilities(&q, &k, &packing, &some).unwrap();
        assert!(difference(&part, &whole.index_select(&index, 1).unwrap()) < 1e-6);
        // The first head by its own values: what the fused kernel computes.
        let fused = attend_packed(&q, &k, &v, &packing).unwrap().narrow(1, 0, 6).unwrap();
        let mixed = whole.get(0).unwrap().matmul(&v.narrow(1, 0, 6).unwrap().contiguous().unwrap()).unwrap();
        assert!(difference(&fused, &mixed) < TOLERANCE);
    }
}

#[test]
fn a_stream_that_does_not_fit_its_trunk_is_refused() {
    let stream = Some(Stream { prefix: 3, frame: 2, frames: 5, window: 4 });
    let packing = Packing::decoder(vec![Sequence { stream, ..Sequence::plain(12) }], [1, 1], 4, 1e4);
    let x = var(&[12, 4], 1);
    let error = attend_packed(&x, &x, &x, &Arc::new(packing)).unwrap_err().to_string();
    assert!(error.contains("12 rows"), "{error}");
}

#[test]
fn cross_entropy_equals_its_twin() {
    let (h, w) = (var(&[6, 8], 1), var(&[10, 8], 2));
    let labels =
        [(0, 3, 1.0), (2, 9, 0.5), (5, 0, 2.0)].map(|(row, target, weight)| Label { row, target, weight });
    let fast = || cross_entropy(&h, &w, &labels).unwrap();
    compare("ce", &[&h, &w], fast, || plain::cross_entropy(&h, &w, &labels).unwrap());
}

#[test]
fn a_weight_that_does_not_move_gets_no_gradient_and_changes_none() {
    use candle_core::DType;
    // Of a type that no fused kernel takes.
    let wide = |v: &Var| Var::from_tensor(&v.as_tensor().to_dtype(DType::F64).unwrap()).unwrap();
    let (x, w, b) = (wide(&var(&[7, 12], 1)), wide(&var(&[5, 12], 2)), wide(&var(&[5], 3)));
    let (w, b) = (w.as_detached_tensor(), b.as_detached_tensor());
    let gradient = |y: Tensor| y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    let (frozen, plain) = (linear(&x, &w, Some(&b)).unwrap(), plain::linear(&x, &w, Some(&b)).unwrap());
    let gap = (&frozen - &plain).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
    assert!(gap < 1e-12, "{gap}");
    let (got, want) = (gradient(frozen), gradient(plain));
    let gap = (got.get(&x).unwrap() - want.get(&x).unwrap()).unwrap().abs().unwrap();
    assert!(gap.max_all().unwrap().to_scalar::<f64>().unwrap() < 1e-12);
    // The plain product forms a gradient of the weight, or of its transpose.
    let formed = |store: &candle_core::backprop::GradStore| {
        store.get_ids().filter_map(|id| store.get_id(*id)).filter(|grad| grad.elem_count() == 60).count()
    };
    assert_eq!((formed(&got), formed(&want)), (0, 1));
}
