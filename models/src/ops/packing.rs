//! How rows of several sequences lie one after the other, and which rows see which.
//!
//! Comes in: lengths of trunks and branches and, for streams, where the frames lie and how many stay in view ([`Stream`]). Goes out: rotary positions and
//! the rectangles of scores that attention computes ([`Block`]). A stream is attention as a rolling window does it: the oldest frame leaves when a
//! new one comes, what stays keeps the keys and values it had, and the prefix moves up to the oldest frame. No arithmetic on rows here.

use super::rope::Rope;
use std::ops::Range;

/// A clip longer than the window that it was watched through: `prefix` rows of text, `frames * frame` rows of frames, then text.
///
/// Frame t sees itself and the `window - 1` frames before it; text after the frames sees the newest `window` frames. To both, the prefix
/// stands right before the oldest frame they see, so that distances never exceed those of a clip of `window` frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Rows before the first frame.
    pub prefix: usize,
    /// Rows of each frame.
    pub frame: usize,
    /// Frames.
    pub frames: usize,
    /// Frames in view.
    pub window: usize,
}

impl Stream {
    /// Rows of frames that have left when the row at `position` is read.
    fn evicted(&self, position: usize) -> usize {
        let newest = position.saturating_sub(self.prefix) / self.frame.max(1);
        let newest = newest.min(self.frames.saturating_sub(1));
        (newest + 1).saturating_sub(self.window) * self.frame
    }
}

/// One clip with its questions: `trunk` rows, then each branch's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Rows that everything after them sees.
    pub trunk: usize,
    /// Rows of each branch.
    pub branches: Vec<usize>,
    /// Where frames of the trunk leave the view.
    pub stream: Option<Stream>,
}

impl Sequence {
    /// A trunk with branches, nothing of which leaves the view.
    pub fn new(trunk: usize, branches: Vec<usize>) -> Self {
        Self { trunk, branches, stream: None }
    }

    /// A sequence without branches.
    pub fn plain(rows: usize) -> Self {
        Self::new(rows, Vec::new())
    }

    /// All rows.
    pub fn rows(&self) -> usize {
        self.trunk + self.branches.iter().sum::<usize>()
    }

    /// Positions of the rows: the trunk counts from zero, each branch goes on from the trunk's end.
    pub fn positions(&self) -> impl Iterator<Item = u32> + '_ {
        let branch = move |rows: &usize| (self.trunk..self.trunk + rows).map(|p| p as u32);
        (0..self.trunk as u32).chain(self.branches.iter().flat_map(branch))
    }

    /// Positions of the rows as seen from the prefix: less the rows that have left, since turning a query back is turning the keys forth.
    pub fn prefix_positions(&self) -> impl Iterator<Item = u32> + '_ {
        self.positions().map(|p| p.saturating_sub(self.gap(p as usize).len() as u32))
    }

    /// Pairs of rows of which the one sees the other, each row itself included: the scores that count.
    pub fn pairs(&self) -> usize {
        self.positions().map(|p| p as usize + 1 - self.gap(p as usize).len()).sum()
    }

    /// Trunk rows that have left when the row at `position` is read; empty (and at the start) where there is no stream.
    pub(super) fn gap(&self, position: usize) -> Range<usize> {
        self.stream.map_or(0..0, |s| s.prefix..s.prefix + s.evicted(position))
    }

    /// What is wrong with it, in words.
    pub(super) fn fault(&self) -> Option<String> {
        let s = self.stream.as_ref()?;
        let fits = s.frame > 0 && s.frames > 0 && s.window > 0 && s.prefix + s.frame * s.frames <= self.trunk;
        (!fits).then(|| format!("a trunk of {} rows does not hold the stream {s:?}", self.trunk))
    }

    /// The rectangles that hold every score that counts, the trunk's before the branches', and the room they take.
    pub(super) fn blocks(&self) -> (Vec<Block>, usize) {
        let (all, trunk) = (self.rows(), self.trunk);
        let within =
            |rows: Range<usize>, columns: Range<usize>, prefix| Block::new(rows, columns, prefix, trunk);
        let mut blocks = Vec::new();
        match &self.stream {
            None => blocks.push(within(0..all, 0..trunk, false)),
            Some(s) => {
                let row = |frame: usize| s.prefix + frame * s.frame;
                blocks.push(within(0..all, 0..s.prefix, true));
                // A band of some frames: more of them at once are faster products, but more scores that nobody sees.
                let band = (s.window / 4).max(1);
                for first in (0..s.frames).step_by(band) {
                    let rows = row(first)..row((first + band).min(s.frames));
                    blocks.push(within(rows.clone(), self.gap(rows.start).end..rows.end, false));
                }
                let suffix = row(s.frames);
                blocks.push(within(suffix..all, self.gap(suffix).end..trunk, false));
            }
        }
        let (mut row, mut room) = (trunk, all * trunk);
        for &n in &self.branches {
            blocks.push(Block {
                rows: row..row + n,
                columns: row..row + n,
                prefix: false,
                at: room,
                stride: n,
            });
            row += n;
            room += n * n;
        }
        blocks.retain(|b| !b.rows.is_empty() && !b.columns.is_empty());
        (blocks, room)
    }
}

/// A rectangle of scores of one sequence.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// Rows that look.
    pub rows: Range<usize>,
    /// Rows that are looked at.
    pub columns: Range<usize>,
    /// Looks at the prefix of a stream: queries are at [`Sequence::prefix_positions`].
    pub prefix: bool,
    /// Place of its first score.
    pub at: usize,
    /// From one row's scores to the next row's.
    pub stride: usize,
}

impl Block {
    /// A part of the matrix (rows of the sequence, trunk).
    fn new(rows: Range<usize>, columns: Range<usize>, prefix: bool, trunk: usize) -> Self {
        Self { at: rows.start * trunk + columns.start, rows, columns, prefix, stride: trunk }
    }
}

/// How rows fall into sequences, and how they may attend.
#[derive(Clone, Debug)]
pub struct Packing {
    /// Sequences in row order.
    pub sequences: Vec<Sequence>,
    /// Rows see only themselves and earlier rows (decoder); otherwise all rows of their sequence (tower).
    pub causal: bool,
    /// Rotary positions, applied to queries and keys.
    pub rope: Option<Rope>,
    /// Rotary positions of queries that look at a stream's prefix; needed where there is a stream.
    pub prefix_rope: Option<Rope>,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// What the kernels for CUDA are told of it.
    #[cfg(any(test, feature = "cuda"))]
    pub(super) tables: super::kernels::Cache,
}

impl Packing {
    /// A decoder's: causal, rotated by the sequences' own positions.
    pub fn decoder(
        sequences: Vec<Sequence>,
        [heads, kv_heads]: [usize; 2],
        head_dim: usize,
        theta: f64,
    ) -> Self {
        let own: Vec<u32> = sequences.iter().flat_map(Sequence::positions).collect();
        let rope = Some(Rope::new(own.into_iter(), head_dim, theta));
        let streams = sequences.iter().any(|s| s.stream.is_some());
        let prefix_rope = streams.then(|| {
            let turned: Vec<u32> = sequences.iter().flat_map(Sequence::prefix_positions).collect();
            Rope::new(turned.into_iter(), head_dim, theta)
        });
        Self {
            sequences,
            causal: true,
            rope,
            prefix_rope,
            heads,
            kv_heads,
            #[cfg(any(test, feature = "cuda"))]
            tables: Default::default(),
        }
    }

    /// A tower's: all rows of a sequence see each other, nothing is rotated.
    pub fn tower(sequences: Vec<Sequence>, heads: usize) -> Self {
        Self {
            sequences,
            causal: false,
            rope: None,
            prefix_rope: None,
            heads,
            kv_heads: heads,
            #[cfg(any(test, feature = "cuda"))]
            tables: Default::default(),
        }
    }

    /// All rows.
    pub fn rows(&self) -> usize {
        self.sequences.iter().map(Sequence::rows).sum()
    }

    /// What is wrong with it, in words.
    pub(super) fn fault(&self) -> Option<String> {
        let streams = self.sequences.iter().any(|s| s.stream.is_some());
        if streams && !(self.causal && self.rope.is_some() == self.prefix_rope.is_some()) {
            return Some("a stream is causal, and its prefix is rotated where the rest is".into());
        }
        self.sequences.iter().find_map(Sequence::fault)
    }
}
