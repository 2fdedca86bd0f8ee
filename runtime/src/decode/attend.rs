//! Attention of new rows over spans.
//!
//! Comes in: a layer's queries (n, heads * dim), not rotated, the spans of what was read before with the position each begins at,
//! and the span that already holds the new rows' keys and values. Goes out: (n, heads * dim), and on request how much attention each
//! earlier span got. A new row sees all of the earlier spans, and of its own span what is not after it. Work is spread over
//! the current rayon pool. No weights here.

use std::sync::{Arc, PoisonError, RwLock};

use rayon::prelude::*;
use utr_models::ops::gemm::{View, gemm};
use utr_models::ops::softmax;

use super::span::Span;

/// Query rows handled at once: bounds the scores held.
const TILE: usize = 128;

/// Multiplications below which one core does all.
const ALONE: usize = 1 << 20;

/// A span read before, and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Past<'a> {
    /// Its keys and values.
    pub span: &'a Span,
    /// Position of its first row.
    pub start: usize,
}

/// Cosines and sines by distance, (distances, dim / 2) each; grows as distances do, up to the longest prompt.
#[derive(Debug)]
pub(super) struct Rotations {
    dim: usize,
    frequencies: Vec<f32>,
    table: RwLock<Arc<Table>>,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rotations {
    /// Frequencies are `theta^(-2i/dim)`, rounded to f32 as the originals do.
    pub fn new(dim: usize, theta: f64) -> Self {
        let half = dim / 2;
        let frequencies = (0..half).map(|i| 1.0 / (theta as f32).powf(2.0 * i as f32 / dim as f32)).collect();
        Self { dim, frequencies, table: RwLock::default() }
    }

    /// The table for distances below `count`.
    pub fn up_to(&self, count: usize) -> Arc<Table> {
        let half = self.dim / 2;
        let known = Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner));
        if known.cos.len() >= count * half && known.half == half {
            return known;
        }
        let angles = || {
            (0..count.next_multiple_of(256)).flat_map(|d| self.frequencies.iter().map(move |f| d as f32 * f))
        };
        let table = Arc::new(Table {
            half,
            cos: angles().map(f32::cos).collect(),
            sin: angles().map(f32::sin).collect(),
        });
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&table);
        table
    }
}

impl Table {
    /// Writes `row` (dim) rotated by `distance`.
    fn rotate(&self, row: &[f32], distance: usize, out: &mut [f32]) {
        let at = distance * self.half..(distance + 1) * self.half;
        let (Some(cos), Some(sin)) = (self.cos.get(at.clone()), self.sin.get(at)) else { return };
        let (a, b) = row.split_at(self.half);
        let (left, right) = out.split_at_mut(self.half);
        for ((((l, r), (a, b)), cos), sin) in
            left.iter_mut().zip(right).zip(a.iter().zip(b)).zip(cos).zip(sin)
        {
            *l = a * cos - b * sin;
            *r = b * cos + a * sin;
        }
    }

    /// Rotates every head of (n, heads * dim) rows by its place, `first` for the first one.
    pub fn rotate_rows(&self, rows: &[f32], width: usize, first: usize) -> Vec<f32> {
        let mut out = vec![0.0; rows.len()];
        let dim = 2 * self.half;
        let pairs = rows.chunks_exact(width.max(1)).zip(out.chunks_exact_mut(width.max(1)));
        for (place, (row, out)) in pairs.enumerate() {
            for (head, out) in row.chunks_exact(dim.max(1)).zip(out.chunks_exact_mut(dim.max(1))) {
                self.rotate(head, first + place, out);
            }
        }
        out
    }
}

/// One layer's attention.
pub(super) struct Attention<'a> {
    pub layer: usize,
    pub heads: usize,
    /// Everything read before, in order of position.
    pub past: &'a [Past<'a>],
    /// The new rows' span: holds `held` rows that are older, then the new ones.
    pub own: &'a Span,
    pub held: usize,
    /// Position of the own span's first row.
    pub start: usize,
    pub rotations: &'a Table,
}

impl Attention<'_> {
    /// What `n` new rows are compared with, in order of position: each span, its rows, and the position of the first.
    pub fn spans(&self, n: usize) -> impl Iterator<Item = (&Span, usize, usize)> {
        let past = self.past.iter().map(|past| (past.span, past.span.len(), past.start));
        past.chain([(self.own, self.held + n, self.start)])
    }

    /// (n, heads * dim) of queries (n, heads * dim); adds to `mass` (spans of the past) the probability each span got, summed over rows and heads.
    pub fn run(&self, queries: &[f32], n: usize, mass: Option<&mut [f32]>) -> Vec<f32> {
        let shape = self.own.shape();
        let (dim, width) = (shape.dim, self.heads * shape.dim);
        let group = self.heads / shape.kv_heads.max(1);
        let rows = group * n;
        let tiles: Vec<(usize, usize)> = (0..shape.kv_heads)
            .flat_map(|head| (0..rows).step_by(TILE).map(move |first| (head, first)))
            .collect();
        let wanted = mass.is_some();
        let tile = |(head, first): &(usize, usize)| {
            self.tile(queries, n, *head, *first..(*first + TILE).min(rows), wanted)
        };
        let seen: usize = self.past.iter().map(|past| past.span.len()).sum();
        let work = self.heads * n * (seen + self.held + n) * dim;
        // A small model's step is done before another core has woken up.
        let done: Vec<(Vec<f32>, Vec<f32>)> = if work < ALONE {
            tiles.iter().map(tile).collect()
        } else {
            tiles.par_iter().map(tile).collect()
        };
        let mut out = vec![0.0; n * width];
        for ((head, first), (mixed, _)) in tiles.iter().zip(&done) {
            for (place, values) in mixed.chunks_exact(dim.max(1)).enumerate() {
                let (g, row) = ((first + place) / n, (first + place) % n);
                let at = row * width + (head * group + g) * dim;
                if let Some(out) = out.get_mut(at..at + dim) {
                    out.copy_from_slice(values);
                }
            }
        }
        if let Some(mass) = mass {
            for (_, shares) in &done {
                mass.iter_mut().zip(shares).for_each(|(sum, share)| *sum += share);
            }
        }
        out
    }

    /// The query rows `tile` of a key head: row `g * n + r` is new row `r` of the head's `g`th query head.
    fn tile(
        &self,
        queries: &[f32],
        n: usize,
        head: usize,
        tile: std::ops::Range<usize>,
        wanted: bool,
    ) -> (Vec<f32>, Vec<f32>) {
        let shape = self.own.shape();
        let (dim, width, group) = (shape.dim, self.heads * shape.dim, self.heads / shape.kv_heads.max(1));
        let own_rows = self.held + n;
        let seen: usize = self.past.iter().map(|past| past.span.len()).sum();
        let (m, total, scale) = (tile.len(), seen + own_rows, (dim as f32).powf(-0.5));
        let at = (self.layer, head);
        let (mut rotated, mut scratch) = (vec![0.0; m * dim], Vec::new());
        let mut scores = vec![0.0; m * total];
        let spans = || {
            self.spans(n).scan(0, |column, (span, rows, start)| {
                let first = *column;
                *column += rows;
                Some((span, rows, start, first))
            })
        };
        for (span, rows, start, column) in spans() {
            for (place, out) in tile.clone().zip(rotated.chunks_exact_mut(dim.max(1))) {
                let (g, row) = (place / n, place % n);
                let from = row * width + (head * group + g) * dim;
                let query = queries.get(from..from + dim).unwrap_or_default();
                self.rotations.rotate(query, self.start + self.held + row - start, out);
            }
            let keys = View::rows(span.keys(at, rows, &mut scratch), dim).t();
            let scores = scores.get_mut(column..).unwrap_or_default();
            gemm(scores, total, m, rows, dim, View::rows(&rotated, dim), keys, scale, false);
        }
        for (place, row) in tile.clone().zip(scores.chunks_exact_mut(total)) {
            let (visible, hidden) = row.split_at_mut(seen + self.held + place % n + 1);
            softmax([visible]);
            hidden.fill(0.0);
        }
        let (mut out, mut shares) = (vec![0.0; m * dim], Vec::new());
        for (i, (span, rows, _, column)) in spans().enumerate() {
            let values = View::rows(span.values(at, rows, &mut scratch), dim);
            let weights = View::rows(scores.get(column..).unwrap_or_default(), total);
            gemm(&mut out, dim, m, dim, rows, weights, values, 1.0, i > 0);
            if wanted && i < self.past.len() {
                let row_share =
                    |row: &[f32]| row.get(column..column + rows).unwrap_or_default().iter().sum::<f32>();
                shares.push(scores.chunks_exact(total).map(row_share).sum());
            }
        }
        (out, shares)
    }
}
