//! A span as bytes, and back: what a snapshot of a window is made of.
//!
//! Comes in: a span, or bytes with the sizes they must have. Goes out: the rows held, keys before values, by layer, head and row, in
//! the span's own precision and little-endian, so that nothing is rounded. Room that no row fills is left out. It knows no file and no header.

use std::io::{Read, Write};

use half::f16;

use super::{BLOCK, KvShape, Span, Store};

/// Values turned into bytes at once.
const PIECE: usize = 4096;

impl Span {
    /// Bytes that [`Span::write_to`] writes: those of the rows held.
    pub fn stored_bytes(&self) -> usize {
        self.shape.bytes(self.precision, self.len)
    }

    /// Writes the rows held.
    ///
    /// # Errors
    /// The writer's.
    pub fn write_to(&self, to: &mut dyn Write) -> std::io::Result<()> {
        for store in [&self.keys, &self.values] {
            for head in 0..self.shape.layers * self.shape.kv_heads {
                store.write_to(head * self.capacity, self.len, self.shape.dim, to)?;
            }
        }
        Ok(())
    }

    /// Takes `rows` rows that [`Span::write_to`] wrote, in the place of those held. `shape` and precision are the span's own.
    ///
    /// # Errors
    /// The reader's, and [`std::io::ErrorKind::InvalidData`] where there is no room; the span is then empty.
    pub fn read_from(&mut self, from: &mut dyn Read, rows: usize) -> std::io::Result<()> {
        self.len = 0;
        if rows > self.capacity {
            let found = format!("{rows} rows for a span of {}", self.capacity);
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, found));
        }
        let (capacity, KvShape { layers, kv_heads, dim }) = (self.capacity, self.shape);
        for store in [&mut self.keys, &mut self.values] {
            for head in 0..layers * kv_heads {
                store.read_from(head * capacity, rows, dim, from)?;
            }
        }
        self.len = rows;
        Ok(())
    }
}

impl Store {
    /// Writes `rows` head rows from `first` on.
    fn write_to(&self, first: usize, rows: usize, dim: usize, to: &mut dyn Write) -> std::io::Result<()> {
        let range = first * dim..(first + rows) * dim;
        match self {
            Self::F32(store) => write_values(store.get(range).unwrap_or_default(), |v| v.to_le_bytes(), to),
            Self::F16(store) => write_values(store.get(range).unwrap_or_default(), |v| v.to_le_bytes(), to),
            Self::Q8 { codes, scales } => {
                let blocks = dim.div_ceil(BLOCK);
                let scales = scales.get(first * blocks..(first + rows) * blocks).unwrap_or_default();
                write_values(scales, |v| v.to_le_bytes(), to)?;
                write_values(codes.get(range).unwrap_or_default(), |v| v.to_le_bytes(), to)
            }
        }
    }

    /// The reverse of [`Store::write_to`].
    fn read_from(
        &mut self,
        first: usize,
        rows: usize,
        dim: usize,
        from: &mut dyn Read,
    ) -> std::io::Result<()> {
        let range = first * dim..(first + rows) * dim;
        match self {
            Self::F32(store) => {
                read_values(store.get_mut(range).unwrap_or_default(), f32::from_le_bytes, from)
            }
            Self::F16(store) => {
                read_values(store.get_mut(range).unwrap_or_default(), f16::from_le_bytes, from)
            }
            Self::Q8 { codes, scales } => {
                let blocks = dim.div_ceil(BLOCK);
                let scales = scales.get_mut(first * blocks..(first + rows) * blocks).unwrap_or_default();
                read_values(scales, f16::from_le_bytes, from)?;
                read_values(codes.get_mut(range).unwrap_or_default(), i8::from_le_bytes, from)
            }
        }
    }
}

fn write_values<T: Copy, const N: usize>(
    values: &[T],
    bytes: impl Fn(T) -> [u8; N],
    to: &mut dyn Write,
) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(PIECE.min(values.len()) * N);
    for piece in values.chunks(PIECE) {
        buffer.clear();
        buffer.extend(piece.iter().flat_map(|value| bytes(*value)));
        to.write_all(&buffer)?;
    }
    Ok(())
}

fn read_values<T, const N: usize>(
    values: &mut [T],
    value: impl Fn([u8; N]) -> T,
    from: &mut dyn Read,
) -> std::io::Result<()> {
    let mut buffer = vec![0; PIECE.min(values.len()) * N];
    for piece in values.chunks_mut(PIECE) {
        let buffer = buffer.get_mut(..piece.len() * N).unwrap_or_default();
        from.read_exact(buffer)?;
        for (place, bytes) in piece.iter_mut().zip(buffer.as_chunks::<N>().0) {
            *place = value(*bytes);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::KvPrecision;
    use proptest::prelude::*;

    const SHAPE: KvShape = KvShape { layers: 2, kv_heads: 3, dim: 40 };

    proptest! {
        #[test]
        fn rows_come_back_bit_for_bit_whatever_the_room_around_them(
            rows in 0usize..7, room in 0usize..4, other in 0usize..4, seed in any::<u32>(), cut in 1usize..50,
        ) {
            let width = SHAPE.kv_heads * SHAPE.dim;
            let value = |i: usize| ((i as u32 ^ seed).wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32 - 0.5) * 9.0;
            for precision in [KvPrecision::F32, KvPrecision::F16, KvPrecision::Q8] {
                let mut span = Span::new(SHAPE, precision, rows + room);
                for layer in 0..SHAPE.layers {
                    let (k, v): (Vec<f32>, Vec<f32>) = (0..rows * width).map(|i| (value(i + layer), value(7 * i))).unzip();
                    span.write(layer, &k, &v).unwrap();
                }
                span.advance(rows);
                let mut bytes = Vec::new();
                span.write_to(&mut bytes).unwrap();
                prop_assert_eq!(bytes.len(), span.stored_bytes());
                let mut again = Span::new(SHAPE, precision, rows + other);
                again.read_from(&mut bytes.as_slice(), rows).unwrap();
                let (mut one, mut two) = (Vec::new(), Vec::new());
                for head in 0..SHAPE.kv_heads {
                    prop_assert_eq!(span.keys((1, head), rows, &mut one), again.keys((1, head), rows, &mut two));
                    prop_assert_eq!(span.values((0, head), rows, &mut one), again.values((0, head), rows, &mut two));
                }
                if rows > 0 {
                    let short = &bytes[..bytes.len().saturating_sub(cut)];
                    prop_assert!(again.read_from(&mut &*short, rows).is_err());
                    prop_assert!(again.is_empty(), "a failed reading leaves nothing");
                }
                prop_assert!(again.read_from(&mut bytes.as_slice(), rows + other + 1).is_err());
            }
        }
    }
}
