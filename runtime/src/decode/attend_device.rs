//! Attention of many new rows over spans, by the matrix products of a device.
//!
//! Comes in: the same [`Attention`] whose readable twin is [`Attention::run`], and its queries. Goes out: the same values, on the device, and on request
//! the same shares. Keys are turned to their places on the way there, so that one product serves all spans. Nothing stays on the device.

use candle_core::{D, Device, Tensor};
use rayon::prelude::*;

use super::attend::Attention;
use super::span::Span;

/// (n, heads * dim) of queries (n, heads * dim), not rotated, on the device of `hidden` ([`hidden`], the same for all layers); adds to `mass` as
/// [`Attention::run`].
///
/// # Errors
/// What the device reports.
pub(super) fn run(
    attention: &Attention<'_>,
    queries: &[f32],
    n: usize,
    hidden: &Tensor,
    mass: Option<&mut [f32]>,
) -> utr_models::Result<Tensor> {
    let (shape, device) = (attention.own.shape(), hidden.device());
    let (dim, kv_heads) = (shape.dim, shape.kv_heads);
    let group = attention.heads / kv_heads.max(1);
    let first = attention.start + attention.held;
    let spans: Vec<(&Span, usize, usize)> = attention.spans(n).collect();
    let total: usize = spans.iter().map(|(_, rows, _)| rows).sum();
    // (kv_heads, total, dim)
    let (keys, values): (Vec<Vec<f32>>, Vec<Vec<f32>>) =
        (0..kv_heads).into_par_iter().map(|head| gather(attention, &spans, head)).unzip();
    let on_device = |heads: Vec<Vec<f32>>| Tensor::from_vec(heads.concat(), (kv_heads, total, dim), device);
    let (keys, values) = (on_device(keys)?, on_device(values)?);
    // (n, kv_heads, group, dim) to (kv_heads, group * n, dim)
    let width = attention.heads * dim;
    let queries = attention.rotations.rotate_rows(queries, width, first);
    let queries = Tensor::from_vec(queries, (n, kv_heads, group, dim), device)?;
    let queries = queries.permute((1, 2, 0, 3))?.contiguous()?.reshape((kv_heads, group * n, dim))?;
    let scores = (queries.matmul(&keys.t()?)? * (dim as f64).powf(-0.5))?;
    let scores = scores.reshape((kv_heads, group, n, total))?.broadcast_add(hidden)?;
    let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    let shares = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?;
    if let Some(mass) = mass {
        let by_row: Vec<f32> = shares.sum((0, 1, 2))?.to_vec1()?;
        let mut at = 0;
        for (sum, (_, rows, _)) in mass.iter_mut().zip(&spans) {
            *sum += by_row.iter().skip(at).take(*rows).sum::<f32>();
            at += rows;
        }
    }
    let mixed = shares.reshape((kv_heads, group * n, total))?.matmul(&values)?;
    let mixed = mixed.reshape((kv_heads, group, n, dim))?.permute((2, 0, 1, 3))?;
    Ok(mixed.contiguous()?.reshape((n, width))?)
}

/// (1, n, total): zero where a new row sees, minus infinity where it does not.
pub(super) fn hidden(total: usize, n: usize, device: &Device) -> utr_models::Result<Tensor> {
    let seen = total - n;
    let row = |row| (0..total).map(move |column| if column <= seen + row { 0.0 } else { f32::NEG_INFINITY });
    Ok(Tensor::from_vec((0..n).flat_map(row).collect::<Vec<f32>>(), (1, n, total), device)?)
}

/// (total, dim) keys of a head, turned to their positions, and its values.
fn gather(attention: &Attention<'_>, spans: &[(&Span, usize, usize)], head: usize) -> (Vec<f32>, Vec<f32>) {
    let (at, mut scratch) = ((attention.layer, head), Vec::new());
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    for (span, rows, start) in spans {
        // As the heads of one row: all by the same distance.
        let placed = span.keys(at, *rows, &mut scratch);
        keys.extend(attention.rotations.rotate_rows(placed, placed.len(), *start));
        values.extend_from_slice(span.values(at, *rows, &mut scratch));
    }
    (keys, values)
}

#[cfg(test)]
mod tests {
    use super::super::attend::{Past, Rotations};
    use super::super::span::{KvPrecision, KvShape};
    use super::*;
    use proptest::prelude::*;

    const SHAPE: KvShape = KvShape { layers: 2, kv_heads: 2, dim: 16 };

    fn drawn(count: usize, seed: u32) -> Vec<f32> {
        (0..count as u32)
            .map(|i| {
                (i.wrapping_mul(747_796_405) ^ seed).wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32
                    - 0.5
            })
            .collect()
    }

    /// A span of rotated random keys.
    fn span(rows: usize, seed: u32, rotations: &Rotations) -> Span {
        let width = SHAPE.kv_heads * SHAPE.dim;
        let mut span = Span::new(SHAPE, KvPrecision::F32, rows);
        let table = rotations.up_to(rows + 1);
        for layer in 0..SHAPE.layers {
            let keys = table.rotate_rows(&drawn(rows * width, seed + layer as u32), width, 0);
            span.write(layer, &keys, &drawn(rows * width, seed + 7 + layer as u32)).unwrap();
        }
        span.advance(rows);
        span
    }

    proptest! {
        #[test]
        fn the_device_gives_what_slices_give(
            lengths in proptest::collection::vec(1usize..9, 0..4), gap in 0usize..5, held in 0usize..4, n in 1usize..20, seed in 0u32..999,
        ) {
            let rotations = Rotations::new(SHAPE.dim, 10_000.0);
            let before: Vec<Span> = lengths.iter().enumerate().map(|(i, rows)| span(*rows, seed + 31 * i as u32, &rotations)).collect();
            let mut at = 0;
            let past: Vec<Past<'_>> = before
                .iter()
                .map(|span| {
                    let start = at;
                    at += span.len() + gap;
                    Past { span, start }
                })
                .collect();
            let mut own = span(held + n, seed + 500, &rotations);
            own.truncate(held);
            let table = rotations.up_to(at + held + n);
            let heads = 6;
            let attention = Attention { layer: 1, heads, past: &past, own: &own, held, start: at, rotations: &table };
            let queries = drawn(n * heads * SHAPE.dim, seed + 900);
            let (mut shares, mut device_shares) = (vec![0.0; past.len()], vec![0.0; past.len()]);
            let expected = attention.run(&queries, n, Some(&mut shares));
            let total = lengths.iter().sum::<usize>() + held + n;
            let hidden = hidden(total, n, &Device::Cpu).unwrap();
            let found = run(&attention, &queries, n, &hidden, Some(&mut device_shares)).unwrap();
            prop_assert_eq!(found.dims(), &[n, heads * SHAPE.dim]);
            let found: Vec<f32> = found.flatten_all().unwrap().to_vec1().unwrap();
            for (found, expected) in found.iter().chain(&device_shares).zip(expected.iter().chain(&shares)) {
                prop_assert!((found - expected).abs() <= 1e-5 * (1.0 + expected.abs()), "{} is not {}", found, expected);
            }
        }
    }
}
