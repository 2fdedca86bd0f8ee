//! Every kernel, compiled for the host, against its readable twin: values and all gradients, in f32 and bf16, over random sizes.
//!
//! In bf16 both sides get the same rounded operands and the twin computes in f32, so that a tolerance says what the kernel itself loses.

use super::{apply, emulate};
use crate::ops::packing::{Packing, Sequence, Stream};
use crate::ops::{self, Label, plain};
use candle_core::{DType, Device, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

/// Largest difference between a kernel and its twin, as a share of the largest value: rounding in another order.
const F32: f32 = 2e-5;
/// The same for bf16, which keeps 8 bits: an operand of a product (probabilities, their gradients) is rounded once and the result once more.
const BF16: f32 = 2e-2;

fn random(shape: &[usize], rng: &mut ChaCha8Rng) -> Tensor {
    let data: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-1.5f32..1.5)).collect();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
}

fn wide(x: &Tensor) -> Tensor {
    x.to_dtype(DType::F32).unwrap()
}

fn largest(x: &Tensor) -> f32 {
    let x = wide(x).abs().unwrap().flatten_all().unwrap();
    let values = x.to_vec1::<f32>().unwrap();
    assert!(
        values.iter().all(|v| v.is_finite()),
        "not a number: a part was never written, or read beyond its bounds"
    );
    values.into_iter().fold(0.0, f32::max)
}

fn close(name: &str, got: &Tensor, want: &Tensor, tolerance: f32) {
    assert_eq!(got.dims(), want.dims(), "{name}");
    let (gap, size) = (largest(&(wide(got) - wide(want)).unwrap()), largest(want));
    assert!(gap <= tolerance * size.max(1.0), "{name}: off by {gap} where values go up to {size}");
}

/// The result and the gradients of a random projection of it.
fn results(vars: &[Var], f: &dyn Fn(&[Tensor]) -> Tensor, probe: &mut ChaCha8Rng) -> Vec<Tensor> {
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let y = f(&tensors);
    let weights = random(y.dims(), probe).to_dtype(DType::BF16).unwrap().to_dtype(y.dtype()).unwrap();
    let weights = weights.to_device(y.device()).unwrap();
    let grads = (&y * weights).unwrap().sum_all().unwrap().backward().unwrap();
    let of = |v: &Var| grads.get(v).unwrap_or_else(|| panic!("no gradient")).clone();
    [y.detach()].into_iter().chain(vars.iter().map(of)).collect()
}

/// Compares `fast` by kernels with `slow`, in both types.
fn compare(
    name: &str,
    seed: u64,
    operands: &[Tensor],
    fast: &dyn Fn(&[Tensor]) -> Tensor,
    slow: &dyn Fn(&[Tensor]) -> Tensor,
) {
    for (dtype, tolerance) in [(DType::F32, F32), (DType::BF16, BF16)] {
        let vars: Vec<Var> =
            operands.iter().map(|x| Var::from_tensor(&x.to_dtype(dtype).unwrap()).unwrap()).collect();
        let twins: Vec<Var> = vars.iter().map(|v| Var::from_tensor(&wide(v)).unwrap()).collect();
        let probe = || ChaCha8Rng::seed_from_u64(seed ^ 1);
        let got = emulate::with(seed, || results(&vars, fast, &mut probe()));
        let want = results(&twins, slow, &mut probe());
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let what = if i == 0 { "value".into() } else { format!("gradient {}", i - 1) };
            close(&format!("{name}, {dtype:?}, {what}"), got, want, tolerance);
            assert!(largest(want) > 0.0, "{name}: {what} vanishes");
        }
        // The threads' order is no part of the result, to the bit: no kernel relies on one thread being ahead of another.
        let again = emulate::with(seed ^ 0x5eed, || results(&vars, fast, &mut probe()));
        for (got, again) in got.iter().zip(&again) {
            let bits = |x: &Tensor| wide(x).flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(bits(got) == bits(again), "{name}, {dtype:?}: another order of threads, another result");
        }
    }
}

/// Runs `f` with a generator of random sizes for each of `cases` cases.
fn cases(cases: u64, f: impl Fn(u64, &mut ChaCha8Rng)) {
    if !emulate::available() {
        return;
    }
    (0..cases).for_each(|seed| f(seed, &mut ChaCha8Rng::seed_from_u64(seed)));
}

#[test]
fn pointwise_kernels_equal_their_twins() {
    cases(4, |seed, rng| {
        let shape = [rng.random_range(1..9), rng.random_range(1..200)];
        let x = [random(&shape, rng), random(&shape, rng)];
        compare("swiglu", seed, &x, &|x| ops::swiglu(&x[0], &x[1]).unwrap(), &|x| {
            plain::swiglu(&x[0], &x[1]).unwrap()
        });
        compare("gelu", seed, &x[..1], &|x| ops::gelu_tanh(&x[0]).unwrap(), &|x| {
            plain::gelu_tanh(&x[0]).unwrap()
        });
    });
}

#[test]
fn norm_kernels_equal_their_twins() {
    cases(4, |seed, rng| {
        // More rows than blocks in one case, more channels than threads in another.
        let [rows, channels] = [[5, 7], [300, 20], [3, 777], [1, 64]][seed as usize];
        let x = [random(&[rows, channels], rng), random(&[channels], rng), random(&[channels], rng)];
        compare("rms", seed, &x[..2], &|x| ops::rms_norm(&x[0], &x[1], 1e-6).unwrap(), &|x| {
            plain::rms_norm(&x[0], &x[1], 1e-6).unwrap()
        });
        compare("layer", seed, &x, &|x| ops::layer_norm(&x[0], &x[1], &x[2], 1e-6).unwrap(), &|x| {
            plain::layer_norm(&x[0], &x[1], &x[2], 1e-6).unwrap()
        });
    });
}

#[test]
fn products_with_weights_equal_their_twins() {
    cases(1, |seed, rng| {
        let x = [random(&[7, 12], rng), random(&[5, 12], rng), random(&[5], rng)];
        let twin = |x: &[Tensor]| plain::linear(&x[0], &x[1], x.get(2)).unwrap();
        // The product itself is the CPU's here, which knows f32 only; its gradients are those of a device.
        let f32s = |n: usize| {
            let vars: Vec<Var> = x[..n].iter().map(|x| Var::from_tensor(x).unwrap()).collect();
            let probe = || ChaCha8Rng::seed_from_u64(seed);
            let fast = |x: &[Tensor]| ops::linear(&x[0], &x[1], x.get(2)).unwrap();
            let got = emulate::with(seed, || results(&vars, &fast, &mut probe()));
            for (i, (got, want)) in got.iter().zip(results(&vars, &twin, &mut probe())).enumerate() {
                close(&format!("linear {n}, {i}"), got, &want, F32);
            }
        };
        f32s(2);
        f32s(3);
    });
}

fn labels(rows: usize, vocab: usize, rng: &mut ChaCha8Rng) -> Vec<Label> {
    // A row may have several labels.
    let label = |_| Label {
        row: rng.random_range(0..rows),
        target: rng.random_range(0..vocab as u32),
        weight: rng.random_range(0.1..2.0),
    };
    (0..rows).map(label).collect()
}

#[test]
fn loss_kernels_equal_their_twins_whatever_the_pieces() {
    cases(3, |seed, rng| {
        let (rows, vocab, channels) =
            (rng.random_range(2..9), rng.random_range(2..700), rng.random_range(1..20));
        let labels = labels(rows, vocab, rng);
        let x = [random(&[rows, channels], rng), random(&[vocab, channels], rng)];
        let slow = |x: &[Tensor]| plain::cross_entropy(&x[0], &x[1], &labels).unwrap();
        compare("loss", seed, &x, &|x| ops::cross_entropy(&x[0], &x[1], &labels).unwrap(), &slow);
        let pieces = |x: &[Tensor]| super::loss::by_pieces(&x[0], &x[1], &labels, 2 * vocab).unwrap();
        compare("loss in pieces", seed, &x, &pieces, &slow);
    });
}

/// Compares attention over a packing, heads of `dim` channels.
fn attention(name: &str, seed: u64, packing: Packing, dim: usize, rng: &mut ChaCha8Rng) {
    let rows = packing.rows();
    let (q, kv) = ([rows, packing.heads * dim], [rows, packing.kv_heads * dim]);
    let x = [random(&q, rng), random(&kv, rng), random(&kv, rng)];
    let packing = Arc::new(packing);
    compare(name, seed, &x, &|x| ops::attend_packed(&x[0], &x[1], &x[2], &packing).unwrap(), &|x| {
        plain::attend_packed(&x[0], &x[1], &x[2], &packing).unwrap()
    });
}

/// A sequence with a trunk of at most so many rows, mostly with branches; a stream this often.
fn sequence(rng: &mut ChaCha8Rng, most: usize, streams: f64) -> Sequence {
    let branches = (0..rng.random_range(0..4)).map(|_| rng.random_range(1..most / 4 + 2)).collect();
    let mut sequence = Sequence::new(rng.random_range(1..most), branches);
    if rng.random_bool(streams) {
        let [frame, frames] = [rng.random_range(1..4), rng.random_range(2..9)];
        let (prefix, window) = (rng.random_range(0..5), rng.random_range(1..frames + 1));
        sequence.trunk = prefix + frame * frames + rng.random_range(1..4);
        sequence.stream = Some(Stream { prefix, frame, frames, window });
    }
    sequence
}

#[test]
fn attention_kernels_equal_their_twins() {
    cases(8, |seed, rng| {
        let kv_heads = rng.random_range(1..3);
        let heads = kv_heads * rng.random_range(1..4);
        // Widths of real models and odd ones, some more than the next smaller kernel.
        let dim = [6, 32, 64, 72, 128, 34, 96, 16][seed as usize];
        let count = rng.random_range(1..4);
        let sequences = (0..count).map(|_| sequence(rng, 40, 0.0)).collect();
        attention("branches", seed, Packing::decoder(sequences, [heads, kv_heads], dim, 1e4), dim, rng);
        let frames = vec![Sequence::plain(rng.random_range(1..50)); 2];
        attention("tower", seed, Packing::tower(frames, heads), dim, rng);
    });
}

#[test]
fn attention_kernels_equal_their_twins_on_streams() {
    cases(6, |seed, rng| {
        let dim = [8, 6, 32, 40, 64, 10][seed as usize];
        let sequences = [1.0, 0.0, 0.7].map(|streams| sequence(rng, 30, streams)).to_vec();
        attention("streams", seed, Packing::decoder(sequences, [4, 2], dim, 1e4), dim, rng);
    });
}

#[test]
fn a_longer_sequence_runs_over_many_tiles() {
    cases(1, |seed, rng| {
        let sequences = vec![Sequence::new(150, vec![40, 1, 33]), Sequence::plain(17)];
        attention("long", seed, Packing::decoder(sequences, [2, 1], 64, 1e6), 64, rng);
    });
}

#[test]
fn heads_that_no_kernel_is_made_for_take_the_plain_way() {
    cases(1, |_, rng| {
        let packing = Arc::new(Packing::tower(vec![Sequence::plain(5)], 1));
        let x = random(&[5, 130], rng);
        let got = emulate::with(1, || ops::attend_packed(&x, &x, &x, &packing).unwrap());
        close("wide head", &got, &plain::attend_packed(&x, &x, &x, &packing).unwrap(), F32);
    });
}

#[test]
fn frozen_operands_cost_no_gradient_and_mixed_types_no_kernel() {
    cases(1, |_, rng| {
        let (x, w) = (random(&[4, 6], rng), random(&[6], rng));
        emulate::with(1, || {
            assert!(!ops::rms_norm(&x, &w, 1e-6).unwrap().track_op());
            assert!(apply(&[&x, &w]) && !apply(&[&x, &w.to_dtype(DType::BF16).unwrap()]));
        });
        assert!(!apply(&[&x]), "CPU tensors take the CPU's way");
    });
}

/// Widths of a head that are tried on a device: one for each kernel, two of which are filled up with zeros.
const WIDTHS: [usize; 4] = [24, 64, 72, 128];

type Function<'a> = &'a dyn Fn(&[Tensor]) -> Tensor;

/// Compares `fast` on a device with `slow` on the CPU, in both types.
fn compare_on(device: &Device, name: &str, operands: &[Tensor], fast: Function<'_>, slow: Function<'_>) {
    for (dtype, tolerance) in [(DType::F32, F32), (DType::BF16, BF16)] {
        let to = |x: &Tensor| x.to_dtype(dtype).unwrap();
        let var = |x: Tensor| Var::from_tensor(&x).unwrap();
        let vars: Vec<Var> = operands.iter().map(|x| var(to(x).to_device(device).unwrap())).collect();
        let twins: Vec<Var> = operands.iter().map(|x| var(wide(&to(x)))).collect();
        let probe = || ChaCha8Rng::seed_from_u64(6);
        let got = results(&vars, fast, &mut probe());
        for (i, (got, want)) in got.iter().zip(results(&twins, slow, &mut probe())).enumerate() {
            let got = got.to_device(&Device::Cpu).unwrap();
            close(&format!("{name} on the device, {dtype:?}, {i}"), &got, &want, tolerance);
        }
    }
}

/// On a GPU: what tensors there give, in both types, against the twins on the CPU.
#[test]
fn kernels_on_a_cuda_device_equal_their_twins() {
    let device = match crate::DeviceChoice::Cuda(None).open(0) {
        Ok((device, _)) => device,
        Err(reason) => return crate::device::skipped(&reason),
    };
    let rng = &mut ChaCha8Rng::seed_from_u64(5);
    for dim in WIDTHS {
        let sequences = vec![sequence(rng, 300, 0.0), sequence(rng, 30, 1.0)];
        let packing = Arc::new(Packing::decoder(sequences, [6, 2], dim, 1e4));
        let [wide_rows, narrow_rows] = [6, 2].map(|heads| [packing.rows(), heads * dim]);
        let x = [random(&wide_rows, rng), random(&narrow_rows, rng), random(&narrow_rows, rng)];
        let name = format!("attention, heads of {dim}");
        compare_on(
            &device,
            &name,
            &x,
            &|x| ops::attend_packed(&x[0], &x[1], &x[2], &packing).unwrap(),
            &|x| plain::attend_packed(&x[0], &x[1], &x[2], &packing).unwrap(),
        );
    }
    let labels = labels(20, 500, rng);
    let pair = [random(&[33, 144], rng), random(&[33, 144], rng)];
    let norm = [random(&[300, 777], rng), random(&[777], rng), random(&[777], rng)];
    let loss = [random(&[20, 30], rng), random(&[500, 30], rng)];
    let linear = [random(&[33, 30], rng), random(&[50, 30], rng), random(&[50], rng)];
    let functions: [(&str, &[Tensor], Function<'_>, Function<'_>); 6] = [
        ("rms", &norm[..2], &|x| ops::rms_norm(&x[0], &x[1], 1e-6).unwrap(), &|x| {
            plain::rms_norm(&x[0], &x[1], 1e-6).unwrap()
        }),
        ("layer", &norm, &|x| ops::layer_norm(&x[0], &x[1], &x[2], 1e-6).unwrap(), &|x| {
            plain::layer_norm(&x[0], &x[1], &x[2], 1e-6).unwrap()
        }),
        ("swiglu", &pair, &|x| ops::swiglu(&x[0], &x[1]).unwrap(), &|x| plain::swiglu(&x[0], &x[1]).unwrap()),
        ("gelu", &norm[..1], &|x| ops::gelu_tanh(&x[0]).unwrap(), &|x| plain::gelu_tanh(&x[0]).unwrap()),
        ("loss", &loss, &|x| ops::cross_entropy(&x[0], &x[1], &labels).unwrap(), &|x| {
            plain::cross_entropy(&x[0], &x[1], &labels).unwrap()
        }),
        ("linear", &linear, &|x| ops::linear(&x[0], &x[1], Some(&x[2])).unwrap(), &|x| {
            plain::linear(&x[0], &x[1], Some(&x[2])).unwrap()
        }),
    ];
    for (name, operands, fast, slow) in functions {
        compare_on(&device, name, operands, fast, slow);
    }
}
