//! What the attention kernels are told of a packing: which columns each row sees, and which tiles of scores hold any that count.
//!
//! Comes in: a [`Packing`], a tile's side, a device. Goes out: tables on the device, made once for each and kept with the packing, since all layers
//! of a pass share it. `attention.cu` says how the kernels read them.

use crate::ops::packing::{Packing, Sequence};
use candle_core::{Device, DeviceLocation, Result, Tensor};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// Columns that a row sees: of a stream's prefix, of the trunk, of its own branch.
type Sight = [Range<usize>; 3];

/// For each tile, the tiles that it meets: tile `t` meets `list[starts[t]..starts[t + 1]]`, each entry twice a tile plus the kind of queries.
pub struct Meetings {
    pub starts: Tensor,
    pub list: Tensor,
}

/// The tables of one packing.
pub struct Tables {
    /// First and end of each range, six numbers a row.
    pub sight: Tensor,
    /// Tiles of columns for each tile of rows.
    pub rows: Meetings,
    /// The reverse.
    pub columns: Meetings,
    /// Cosines and sines, (rows, half) each.
    pub rope: Option<[Tensor; 2]>,
    /// The same for queries that look at a stream's prefix.
    pub prefix_rope: Option<[Tensor; 2]>,
    /// Whether any row looks at the prefix of a stream.
    pub has_prefixes: bool,
    /// Tiles that the rows fall into.
    pub tiles: usize,
}

/// Tables that were made, with the device and the tile's side.
#[derive(Default)]
pub struct Cache(Mutex<Vec<(DeviceLocation, usize, Arc<Tables>)>>);

impl Clone for Cache {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cache")
    }
}

impl Cache {
    /// The tables of `packing` (which this cache belongs to).
    pub fn get(&self, packing: &Packing, side: usize, device: &Device) -> Result<Arc<Tables>> {
        let poisoned = |_| candle_core::Error::Msg("a thread died while it made tables for attention".into());
        let mut made = self.0.lock().map_err(poisoned)?;
        let place = device.location();
        if let Some((_, _, tables)) = made.iter().find(|(p, s, _)| *p == place && *s == side) {
            return Ok(tables.clone());
        }
        let tables = Arc::new(Tables::new(packing, side, device)?);
        made.push((place, side, tables.clone()));
        Ok(tables)
    }
}

/// What each row of a sequence that starts at row `start` sees.
fn sights(sequence: &Sequence, start: usize, causal: bool) -> Vec<Sight> {
    let trunk = sequence.trunk;
    let prefix = sequence.stream.map_or(0, |s| s.prefix);
    let over_trunk = |position: usize| {
        let seen = if causal { (position + 1).min(trunk) } else { trunk };
        let from = sequence.gap(position).end.max(prefix).min(seen);
        [start..start + prefix.min(seen), start + from..start + seen]
    };
    let mut rows: Vec<Sight> = (0..trunk)
        .map(|position| {
            let [a, b] = over_trunk(position);
            [a, b, 0..0]
        })
        .collect();
    let mut first = start + trunk;
    for &n in &sequence.branches {
        rows.extend((0..n).map(|i| {
            let [a, b] = over_trunk(trunk + i);
            [a, b, first..if causal { first + i + 1 } else { first + n }]
        }));
        first += n;
    }
    rows
}

impl Meetings {
    /// From sets of (kind, tile).
    fn new(sets: &[BTreeSet<(u32, u32)>], device: &Device) -> Result<Self> {
        let (mut starts, mut list) = (vec![0u32], Vec::new());
        for set in sets {
            list.extend(set.iter().map(|(kind, tile)| tile * 2 + kind));
            starts.push(list.len() as u32);
        }
        let table = |v: Vec<u32>| {
            let count = v.len();
            Tensor::from_vec(v, count, device)
        };
        Ok(Self { starts: table(starts)?, list: table(list)? })
    }
}

impl Tables {
    fn new(packing: &Packing, side: usize, device: &Device) -> Result<Self> {
        let mut sight = Vec::new();
        for sequence in &packing.sequences {
            sight.extend(sights(sequence, sight.len(), packing.causal));
        }
        let tiles = sight.len().div_ceil(side);
        let mut rows = vec![BTreeSet::new(); tiles];
        let mut columns = vec![BTreeSet::new(); tiles];
        for (row, ranges) in sight.iter().enumerate() {
            let mine = row / side;
            for (kind, range) in [1, 0, 0].into_iter().zip(ranges).filter(|(_, range)| !range.is_empty()) {
                let first = range.start / side;
                for (tile, column) in (first..).zip(&mut columns[first..=(range.end - 1) / side]) {
                    rows[mine].insert((kind, tile as u32));
                    column.insert((kind, mine as u32));
                }
            }
        }
        let numbers: Vec<u32> = sight.iter().flatten().flat_map(|r| [r.start as u32, r.end as u32]).collect();
        let count = numbers.len();
        let turns = |rope: &Option<super::super::Rope>| {
            rope.as_ref().map(|rope| rope.tables(device).map(|(cosine, sine)| [cosine, sine])).transpose()
        };
        Ok(Self {
            sight: Tensor::from_vec(numbers, count, device)?,
            rows: Meetings::new(&rows, device)?,
            columns: Meetings::new(&columns, device)?,
            rope: turns(&packing.rope)?,
            prefix_rope: turns(&packing.prefix_rope)?,
            has_prefixes: sight.iter().any(|s| !s[0].is_empty()),
            tiles,
        })
    }
}
