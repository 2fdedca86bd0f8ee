//! Spans: the keys and values of consecutive rows, for every layer.
//!
//! Comes in: rows of keys and values as a decoder makes them. Goes out: the same, for attention. A key is stored rotated by
//! its row's place *in the span*; whoever attends rotates its query by the distance to the span's first row. So a span
//! means the same wherever it stands: it can be re-anchored, shared between windows and dropped, and nothing in it is copied,
//! rotated again or moved. Storage is f32, f16, or 8 bits with a scale for every 32 values. No arithmetic on queries here.

mod bytes;

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use half::f16;
use half::slice::HalfFloatSliceExt;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Values that share a scale in 8 bits.
const BLOCK: usize = 32;

/// Sizes of a decoder's keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvShape {
    /// Blocks of the decoder.
    pub layers: usize,
    /// Key heads of each.
    pub kv_heads: usize,
    /// Channels of each head.
    pub dim: usize,
}

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum KvPrecision {
    /// 32 bits: exact
    F32,
    /// 16 bits
    #[default]
    F16,
    /// 8 bits, one scale for every 32 values
    Q8,
}

impl KvPrecision {
    /// Bytes of a stored head row of `dim` values.
    fn row_bytes(self, dim: usize) -> usize {
        match self {
            Self::F32 => 4 * dim,
            Self::F16 => 2 * dim,
            Self::Q8 => dim + 2 * dim.div_ceil(BLOCK),
        }
    }
}

impl KvShape {
    /// Bytes of the keys and values of `rows` rows.
    pub fn bytes(self, precision: KvPrecision, rows: usize) -> usize {
        2 * self.layers * self.kv_heads * rows * precision.row_bytes(self.dim)
    }
}

/// Values by layer, head and row; `dim` values each.
#[derive(Clone, Debug)]
enum Store {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Q8 { codes: Vec<i8>, scales: Vec<f16> },
}

impl Store {
    fn new(precision: KvPrecision, head_rows: usize, dim: usize) -> Self {
        match precision {
            KvPrecision::F32 => Self::F32(vec![0.0; head_rows * dim]),
            KvPrecision::F16 => Self::F16(vec![f16::ZERO; head_rows * dim]),
            KvPrecision::Q8 => Self::Q8 {
                codes: vec![0; head_rows * dim],
                scales: vec![f16::ZERO; head_rows * dim.div_ceil(BLOCK)],
            },
        }
    }

    /// Stores the `dim` values of a head row.
    fn write(&mut self, head_row: usize, values: &[f32]) {
        let dim = values.len();
        let at = head_row * dim..(head_row + 1) * dim;
        match self {
            Self::F32(store) => {
                if let Some(place) = store.get_mut(at) {
                    place.copy_from_slice(values);
                }
            }
            Self::F16(store) => {
                if let Some(place) = store.get_mut(at) {
                    place.convert_from_f32_slice(values);
                }
            }
            Self::Q8 { codes, scales } => {
                let blocks = dim.div_ceil(BLOCK);
                let scales = scales.get_mut(head_row * blocks..(head_row + 1) * blocks);
                let (Some(codes), Some(scales)) = (codes.get_mut(at), scales) else { return };
                for ((codes, scale), values) in codes.chunks_mut(BLOCK).zip(scales).zip(values.chunks(BLOCK))
                {
                    let largest = values.iter().fold(0f32, |most, value| most.max(value.abs()));
                    *scale = f16::from_f32(largest / 127.0);
                    let unit = scale.to_f32();
                    let inverse = if unit > 0.0 { 1.0 / unit } else { 0.0 };
                    for (code, value) in codes.iter_mut().zip(values) {
                        *code = (value * inverse).round().clamp(-127.0, 127.0) as i8;
                    }
                }
            }
        }
    }

    /// (rows, dim) head rows from `first` on, as f32.
    fn read<'a>(&'a self, first: usize, rows: usize, dim: usize, scratch: &'a mut Vec<f32>) -> &'a [f32] {
        let range = first * dim..(first + rows) * dim;
        match self {
            Self::F32(store) => return store.get(range).unwrap_or_default(),
            Self::F16(store) => {
                scratch.resize(rows * dim, 0.0);
                store.get(range).unwrap_or_default().convert_to_f32_slice(scratch);
            }
            Self::Q8 { codes, scales } => {
                scratch.clear();
                let blocks = dim.div_ceil(BLOCK);
                let codes = codes.get(range).unwrap_or_default().chunks_exact(dim.max(1));
                let scales = scales.get(first * blocks..(first + rows) * blocks).unwrap_or_default();
                for (codes, scales) in codes.zip(scales.chunks_exact(blocks.max(1))) {
                    for (codes, scale) in codes.chunks(BLOCK).zip(scales) {
                        let unit = scale.to_f32();
                        scratch.extend(codes.iter().map(|code| f32::from(*code) * unit));
                    }
                }
            }
        }
        scratch
    }
}

/// Keys and values of up to `capacity` consecutive rows.
#[derive(Clone, Debug)]
pub struct Span {
    shape: KvShape,
    precision: KvPrecision,
    capacity: usize,
    len: usize,
    keys: Store,
    values: Store,
}

impl Span {
    /// An empty span; all of its memory is taken here.
    pub fn new(shape: KvShape, precision: KvPrecision, capacity: usize) -> Self {
        let store = || Store::new(precision, shape.layers * shape.kv_heads * capacity, shape.dim);
        Self { shape, precision, capacity, len: 0, keys: store(), values: store() }
    }

    /// Rows held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no row is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Rows there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Sizes.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// How it is stored.
    pub fn precision(&self) -> KvPrecision {
        self.precision
    }

    /// Bytes of its memory.
    pub fn bytes(&self) -> usize {
        self.shape.bytes(self.precision, self.capacity)
    }

    /// Forgets all rows from `len` on; longer than held is no change.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Stores a layer's (n, kv_heads * dim) keys and values behind the rows held; they count once [`Span::advance`] is called.
    pub(super) fn write(&mut self, layer: usize, keys: &[f32], values: &[f32]) -> Result<()> {
        let KvShape { layers, kv_heads, dim } = self.shape;
        let width = (kv_heads * dim).max(1);
        let rows = keys.len() / width;
        if keys.len() != values.len() || layer >= layers || self.len + rows > self.capacity {
            return Err(Error::Decoder(format!(
                "{rows} rows behind {} do not fit into a span of {} (layer {layer} of {layers})",
                self.len, self.capacity
            )));
        }
        for (store, source) in [(&mut self.keys, keys), (&mut self.values, values)] {
            for (row, channels) in source.chunks_exact(width).enumerate() {
                for (head, channels) in channels.chunks_exact(dim.max(1)).enumerate() {
                    store.write((layer * kv_heads + head) * self.capacity + self.len + row, channels);
                }
            }
        }
        Ok(())
    }

    /// Counts `rows` more rows, written in every layer.
    pub(super) fn advance(&mut self, rows: usize) {
        self.len = (self.len + rows).min(self.capacity);
    }

    /// (rows, dim) keys of a head, each rotated by its place in the span.
    pub(super) fn keys<'a>(
        &'a self,
        at: (usize, usize),
        rows: usize,
        scratch: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        self.keys.read(self.first(at), rows, self.shape.dim, scratch)
    }

    /// (rows, dim) values of a head.
    pub(super) fn values<'a>(
        &'a self,
        at: (usize, usize),
        rows: usize,
        scratch: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        self.values.read(self.first(at), rows, self.shape.dim, scratch)
    }

    /// Head row of the first row of a (layer, head).
    fn first(&self, (layer, head): (usize, usize)) -> usize {
        (layer * self.shape.kv_heads + head) * self.capacity
    }
}

/// Spans of one size, all taken from the system at the start and lent out again and again.
#[derive(Clone, Debug)]
pub struct Pool {
    shape: KvShape,
    precision: KvPrecision,
    capacity: usize,
    free: Arc<Mutex<Vec<Span>>>,
}

impl Pool {
    /// `count` spans of `capacity` rows.
    pub fn new(shape: KvShape, precision: KvPrecision, capacity: usize, count: usize) -> Self {
        let spans = (0..count).map(|_| Span::new(shape, precision, capacity)).collect();
        Self { shape, precision, capacity, free: Arc::new(Mutex::new(spans)) }
    }

    /// Spans that can be lent now.
    pub fn free(&self) -> usize {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Lends an empty span; none where all are in use.
    pub fn take(&self) -> Option<Lease> {
        let mut span = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        span.truncate(0);
        Some(Lease { span, home: Arc::clone(&self.free) })
    }

    /// Lends an empty span, a new one where all are in use; it stays in the pool from then on.
    pub fn take_or_grow(&self) -> Lease {
        self.take().unwrap_or_else(|| {
            let span = Span::new(self.shape, self.precision, self.capacity);
            Lease { span, home: Arc::clone(&self.free) }
        })
    }
}

/// A span on loan; it goes back to its pool when the last holder lets go.
#[derive(Debug)]
pub struct Lease {
    span: Span,
    home: Arc<Mutex<Vec<Span>>>,
}

impl Deref for Lease {
    type Target = Span;

    fn deref(&self) -> &Span {
        &self.span
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Span {
        &mut self.span
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // What is left behind has no rows and no memory.
        let nothing = Span::new(self.span.shape, self.span.precision, 0);
        let span = std::mem::replace(&mut self.span, nothing);
        self.home.lock().unwrap_or_else(PoisonError::into_inner).push(span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHAPE: KvShape = KvShape { layers: 2, kv_heads: 3, dim: 40 };

    proptest! {
        #[test]
        fn what_is_written_is_read_back_within_the_precision(rows in 1usize..7, scale in 0.01f32..30.0, seed in 0u32..99) {
            let value = |i: usize| ((i as u32 + seed).wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32 - 0.5) * scale;
            let width = SHAPE.kv_heads * SHAPE.dim;
            let (k, v): (Vec<f32>, Vec<f32>) = (0..rows * width).map(|i| (value(i), value(i + 7))).unzip();
            for (precision, tolerance) in [(KvPrecision::F32, 0.0), (KvPrecision::F16, 1e-3), (KvPrecision::Q8, 5e-3)] {
                let mut span = Span::new(SHAPE, precision, 9);
                for layer in 0..SHAPE.layers {
                    span.write(layer, &k, &v).unwrap();
                }
                span.advance(rows);
                let mut scratch = Vec::new();
                for head in 0..SHAPE.kv_heads {
                    let keys = span.keys((1, head), rows, &mut scratch).to_vec();
                    prop_assert_eq!(keys.len(), rows * SHAPE.dim);
                    for (row, channels) in keys.chunks(SHAPE.dim).enumerate() {
                        for (channel, found) in channels.iter().enumerate() {
                            let wanted = k[row * width + head * SHAPE.dim + channel];
                            prop_assert!((found - wanted).abs() <= tolerance * scale, "{precision:?}: {found} is not {wanted}");
                        }
                    }
                }
                prop_assert!(span.write(0, &vec![0.0; 9 * width], &vec![0.0; 9 * width]).is_err(), "there is no room");
            }
        }
    }

    #[test]
    fn a_pool_lends_what_it_has_and_gets_it_back() {
        let pool = Pool::new(SHAPE, KvPrecision::F16, 4, 2);
        let (a, b) = (pool.take().unwrap(), Arc::new(pool.take().unwrap()));
        assert!(pool.take().is_none());
        let pinned = Arc::clone(&b);
        drop((a, b));
        assert_eq!(pool.free(), 1, "a pinned span is not given back");
        drop(pinned);
        assert_eq!(pool.free(), 2);
        let three = [pool.take_or_grow(), pool.take_or_grow(), pool.take_or_grow()];
        drop(three);
        assert_eq!(pool.free(), 3);
    }

    #[test]
    fn bytes_are_those_of_the_formats() {
        let rows = SHAPE.layers * SHAPE.kv_heads * 5 * 2;
        assert_eq!(SHAPE.bytes(KvPrecision::F32, 5), rows * 160);
        assert_eq!(Span::new(SHAPE, KvPrecision::F16, 5).bytes(), rows * 80);
        assert_eq!(SHAPE.bytes(KvPrecision::Q8, 5), rows * (40 + 4));
    }
}
