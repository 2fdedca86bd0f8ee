//! The readable twins: every operation of this folder spelled out in plain candle operations that have gradients.
//!
//! Comes in and goes out: as the fused kernels. Runs on any device and type. Beware of candle's own fused operations
//! (`softmax_last_dim`, `rms_norm`, `rope`): they drop gradients silently, so none of them is used here.

use super::cross_entropy::Label;
use super::packing::{Packing, Sequence};
use super::rope::Rope;
use candle_core::{D, DType, Result, Tensor};
use candle_nn::ops::softmax;

/// See [`super::linear`].
pub fn linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    let y = x.matmul(&w.t()?)?;
    b.map_or(Ok(y.clone()), |b| y.broadcast_add(b))
}

/// See [`super::mix_rows`].
pub fn mix_rows(x: &Tensor, matrix: &Tensor) -> Result<Tensor> {
    matrix.to_dtype(x.dtype())?.broadcast_matmul(x)
}

/// See [`super::rms_norm`].
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let mean = wide.sqr()?.mean_keepdim(D::Minus1)?;
    wide.broadcast_div(&(mean + eps)?.sqrt()?)?.to_dtype(x.dtype())?.broadcast_mul(weight)
}

/// See [`super::layer_norm`].
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let unit = centred.broadcast_div(&(variance + eps)?.sqrt()?)?.to_dtype(x.dtype())?;
    unit.broadcast_mul(weight)?.broadcast_add(bias)
}

/// See [`super::gelu_tanh`].
pub fn gelu_tanh(x: &Tensor) -> Result<Tensor> {
    x.gelu()
}

/// See [`super::swiglu`].
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.silu()? * up
}

/// Rotates (rows, heads * dim) by the positions in `rope`.
fn rotate(x: &Tensor, rope: &Rope) -> Result<Tensor> {
    let (cos, sin) = rope.tables(x.device())?;
    let (rows, half) = cos.dims2()?;
    let heads = x.elem_count() / (rows * 2 * half);
    let (cos, sin) = (cos.to_dtype(x.dtype())?.unsqueeze(1)?, sin.to_dtype(x.dtype())?.unsqueeze(1)?);
    let x3 = x.reshape((rows, heads, 2 * half))?;
    let (a, b) = (x3.narrow(2, 0, half)?, x3.narrow(2, half, half)?);
    let left = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let right = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    Tensor::cat(&[left, right], 2)?.reshape(x.shape())
}

/// (rows, heads * dim) to (heads, rows, dim), key heads repeated to match the query heads.
fn split(x: &Tensor, heads: usize, repeat: usize) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    let x = x.reshape((rows, heads, width / heads))?.transpose(0, 1)?.contiguous()?;
    match repeat {
        1 => Ok(x),
        n => x.unsqueeze(1)?.repeat((1, n, 1, 1))?.reshape((heads * n, rows, width / heads)),
    }
}

/// `q kᵀ / sqrt(dim)` for (heads, rows, dim).
fn scores(q: &Tensor, k: &Tensor) -> Result<Tensor> {
    let scale = (q.dim(2)? as f64).powf(-0.5);
    (q.matmul(&k.t()?)? * scale)?.to_dtype(DType::F32)
}

/// See [`super::attend_packed`].
pub fn attend_packed(q: &Tensor, k: &Tensor, v: &Tensor, packing: &Packing) -> Result<Tensor> {
    let v = split(v, packing.kv_heads, packing.heads / packing.kv_heads)?;
    let all: Vec<usize> = (0..packing.rows()).collect();
    let out = probabilities(q, k, packing, &all)?.to_dtype(v.dtype())?.matmul(&v)?;
    let (heads, rows, dim) = out.dims3()?;
    out.transpose(0, 1)?.contiguous()?.reshape((rows, heads * dim))
}

/// How much the rows `looking` attend to each row: (heads, looking, rows) in f32, summing to 1 over the last; zero where a row does not see. Queries and
/// keys as in [`super::attend_packed`].
pub fn probabilities(q: &Tensor, k: &Tensor, packing: &Packing, looking: &[usize]) -> Result<Tensor> {
    let turn = |x: &Tensor, rope: &Option<Rope>| rope.as_ref().map_or(Ok(x.clone()), |r| rotate(x, r));
    let places = places(&packing.sequences);
    let (m, n) = (looking.len(), places.len());
    let rows = Tensor::from_iter(looking.iter().map(|row| *row as u32), q.device())?;
    let all = looking.iter().copied().eq(0..n);
    let queries = |rope| {
        let q = turn(q, rope)?;
        split(&if all { q } else { q.index_select(&rows, 0)? }, packing.heads, 1)
    };
    let k = split(&turn(k, &packing.rope)?, packing.kv_heads, packing.heads / packing.kv_heads)?;
    let table = |f: &dyn Fn(usize, usize) -> f32| {
        Tensor::from_vec((0..m * n).map(|x| f(looking[x / n], x % n)).collect(), (m, n), k.device())
    };
    let bias = table(&|i, j| {
        let (a, b) = (&places[i], &places[j]);
        let inside = a.sequence == b.sequence && (b.branch == 0 || a.branch == b.branch);
        let left = packing.sequences[a.sequence].gap(a.position).contains(&b.position);
        if inside && !left && (!packing.causal || j <= i) { 0.0 } else { f32::NEG_INFINITY }
    })?;
    if packing.sequences.iter().all(|s| s.stream.is_none()) {
        return softmax(&scores(&queries(&packing.rope)?, &k)?.broadcast_add(&bias)?, D::Minus1);
    }
    // Two blocks of scores: over the prefixes of streams, which move up with the window, and over everything else.
    let in_prefix = |j: usize| {
        let stream = packing.sequences[places[j].sequence].stream;
        places[j].branch == 0 && stream.is_some_and(|s| places[j].position < s.prefix)
    };
    let prefix = table(&|_, j| f32::from(u8::from(in_prefix(j))))?;
    let others = (1.0 - &prefix)?;
    let over_prefix = scores(&queries(&packing.prefix_rope)?, &k)?.broadcast_mul(&prefix)?;
    let over_others = scores(&queries(&packing.rope)?, &k)?.broadcast_mul(&others)?;
    softmax(&(over_prefix + over_others)?.broadcast_add(&bias)?, D::Minus1)
}

/// Where a row stands: its sequence, its branch (0: the trunk) and its position.
struct Place {
    sequence: usize,
    branch: usize,
    position: usize,
}

fn places(sequences: &[Sequence]) -> Vec<Place> {
    let of = |(sequence, s): (usize, &Sequence)| {
        let branches = s.branches.iter().enumerate().flat_map(|(b, n)| std::iter::repeat_n(b + 1, *n));
        let branches = std::iter::repeat_n(0, s.trunk).chain(branches);
        let place = |(position, branch)| Place { sequence, branch, position: position as usize };
        s.positions().zip(branches).map(place).collect::<Vec<_>>()
    };
    sequences.iter().enumerate().flat_map(of).collect()
}

/// See [`super::cross_entropy`].
pub fn cross_entropy(hidden: &Tensor, head: &Tensor, labels: &[Label]) -> Result<Tensor> {
    let device = hidden.device();
    let rows = Tensor::from_vec(labels.iter().map(|l| l.row as u32).collect(), labels.len(), device)?;
    let targets = Tensor::from_vec(labels.iter().map(|l| l.target).collect(), (labels.len(), 1), device)?;
    let weights = Tensor::from_vec(labels.iter().map(|l| l.weight).collect(), (labels.len(), 1), device)?;
    let logits = hidden.index_select(&rows, 0)?.matmul(&head.t()?)?.to_dtype(DType::F32)?;
    let picked = candle_nn::ops::log_softmax(&logits, D::Minus1)?.gather(&targets, 1)?;
    (picked * weights)?.sum_all()?.neg()
}
