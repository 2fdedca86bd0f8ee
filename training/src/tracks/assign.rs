//! Which box belongs to which track.
//!
//! Comes in: boxes in pixels, or the cost of a pair. Goes out: overlaps and the cheapest partial matching. Overlap counts pixels the way
//! `cython_bbox` does (a box reaches from its first to its last pixel: +1), which is what ByteTrack's thresholds are tuned
//! for; boxes must therefore be in pixels. No motion and no identities.

use lsap::solve;

/// Left, top, right, bottom in pixels.
pub type Xyxy = [f64; 4];

/// Intersection over union with inclusive right and bottom edges.
pub fn iou(a: &Xyxy, b: &Xyxy) -> f64 {
    let width = a[2].min(b[2]) - a[0].max(b[0]) + 1.0;
    let height = a[3].min(b[3]) - a[1].max(b[1]) + 1.0;
    if width <= 0.0 || height <= 0.0 {
        return 0.0;
    }
    let area = |c: &Xyxy| (c[2] - c[0] + 1.0) * (c[3] - c[1] + 1.0);
    let both = width * height;
    both / (area(a) + area(b) - both)
}

/// A partial matching.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matching {
    /// The column of every row that has one.
    pub column_of: Vec<Option<usize>>,
    /// Columns left over, in order.
    pub free_columns: Vec<usize>,
}

/// A row and a column that may go together.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// From 0.
    pub row: usize,
    /// From 0.
    pub column: usize,
    /// What it costs.
    pub cost: f64,
}

/// The partial matching with the least sum of `cost - limit`, which is what `lap.lapjv(extend_cost=True, cost_limit=limit)` finds
/// (reference.md §3.4). A pair above the limit is never taken, a pair at the limit is.
pub fn match_within(rows: usize, columns: usize, limit: f64, cost: impl Fn(usize, usize) -> f64) -> Matching {
    let pair = |row, column| Pair { row, column, cost: cost(row, column) };
    let mut pairs = Vec::with_capacity(2 * rows);
    for row in 0..rows {
        pairs.extend((0..columns).map(|column| pair(row, column)).filter(|p| p.cost <= limit));
    }
    match_pairs(rows, columns, limit, pairs)
}

/// The same, where the pairs within the limit are known; each is listed once.
///
/// Rows and columns that no pair joins cannot influence each other, so each connected group is solved alone: on real frames most groups are one track
/// and one detection.
pub fn match_pairs(rows: usize, columns: usize, limit: f64, pairs: Vec<Pair>) -> Matching {
    let mut column_of = vec![None; rows];
    for group in grouped(pairs, rows, columns).chunk_by(|a, b| a.0 == b.0) {
        solve_group(group, limit, &mut column_of);
    }
    let mut free = vec![true; columns];
    column_of.iter().flatten().for_each(|&column: &usize| free[column] = false);
    Matching { column_of, free_columns: (0..columns).filter(|&column| free[column]).collect() }
}

/// The pairs in the order of their groups, each with the number of its group: pairs that share rows or columns, directly or through others, are
/// in one group.
fn grouped(pairs: Vec<Pair>, rows: usize, columns: usize) -> Vec<(usize, Pair)> {
    fn root(parent: &mut [usize], mut node: usize) -> usize {
        while parent[node] != node {
            parent[node] = parent[parent[node]];
            node = parent[node];
        }
        node
    }
    let mut parent: Vec<usize> = (0..rows + columns).collect();
    for pair in &pairs {
        let (a, b) = (root(&mut parent, pair.row), root(&mut parent, rows + pair.column));
        parent[a.max(b)] = a.min(b);
    }
    let mut grouped: Vec<(usize, Pair)> =
        pairs.into_iter().map(|pair| (root(&mut parent, pair.row), pair)).collect();
    grouped.sort_by_key(|(group, _)| *group);
    grouped
}

fn solve_group(group: &[(usize, Pair)], limit: f64, column_of: &mut [Option<usize>]) {
    if let [(_, pair)] = group {
        column_of[pair.row] = Some(pair.column);
        return;
    }
    let distinct = |of: fn(&Pair) -> usize| {
        let mut list: Vec<usize> = group.iter().map(|(_, pair)| of(pair)).collect();
        list.sort_unstable();
        list.dedup();
        list
    };
    let (rows, columns) = (distinct(|pair| pair.row), distinct(|pair| pair.column));
    // A row stays free at no cost in a column of its own; the little more than nothing makes a pair at the limit win. What is above the limit is no
    // better than staying free.
    const FREE: f64 = 1e-12;
    let wide = columns.len() + rows.len();
    let mut extended = vec![FREE; rows.len() * wide];
    for line in extended.chunks_exact_mut(wide) {
        line[..columns.len()].fill(2.0 * FREE);
    }
    let place = |pair: &Pair| {
        Some(rows.binary_search(&pair.row).ok()? * wide + columns.binary_search(&pair.column).ok()?)
    };
    for (_, pair) in group {
        if let Some(cell) = place(pair).and_then(|place| extended.get_mut(place)) {
            *cell = pair.cost - limit;
        }
    }
    let Ok((matched_rows, matched_columns)) = solve(rows.len(), wide, &extended, false) else { return };
    for (row, column) in matched_rows.into_iter().zip(matched_columns) {
        let within = column < columns.len() && extended[row * wide + column] < FREE;
        column_of[rows[row]] = within.then(|| columns[column]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn overlap_counts_pixels_as_cython_bbox_does() {
        assert!((iou(&[0.0, 0.0, 10.0, 10.0], &[5.0, 5.0, 15.0, 15.0]) - 0.174757).abs() < 1e-6);
        assert!((iou(&[0.0, 0.0, 10.0, 10.0], &[10.0, 0.0, 20.0, 10.0]) - 0.047619).abs() < 1e-6);
        assert_eq!(iou(&[0.0, 0.0, 10.0, 10.0], &[11.5, 0.0, 20.0, 10.0]), 0.0);
    }

    #[test]
    fn a_pair_at_the_limit_is_matched_and_one_above_is_not() {
        assert_eq!(match_within(1, 1, 0.5, |_, _| 0.5).column_of, [Some(0)]);
        assert_eq!(match_within(2, 2, 0.5, |_, _| 0.5).column_of, [Some(0), Some(1)]);
        let none = match_within(1, 2, 0.5, |_, _| 0.500001);
        assert_eq!((none.column_of, none.free_columns), (vec![None], vec![0, 1]));
        assert_eq!(match_within(0, 3, 1.0, |_, _| 0.0).free_columns, [0, 1, 2]);
    }

    /// The best sum of the rows from `row` on, by trying all.
    fn best(
        costs: &dyn Fn(usize, usize) -> f64,
        rows: usize,
        limit: f64,
        row: usize,
        used: &mut [bool],
    ) -> f64 {
        if row == rows {
            return 0.0;
        }
        let mut least = best(costs, rows, limit, row + 1, used);
        for column in 0..used.len() {
            if !used[column] {
                used[column] = true;
                least = least.min(costs(row, column) - limit + best(costs, rows, limit, row + 1, used));
                used[column] = false;
            }
        }
        least
    }

    proptest! {
        #[test]
        fn no_partial_matching_is_cheaper(
            rows in 1usize..5, columns in 1usize..5, limit in 0.1f64..1.0, values in prop::collection::vec(0.0f64..1.2, 16)
        ) {
            let costs = |row: usize, column: usize| values[row * 4 + column];
            let found = match_within(rows, columns, limit, costs);
            let pairs: Vec<(usize, usize)> =
                found.column_of.iter().enumerate().filter_map(|(row, column)| Some((row, (*column)?))).collect();
            let sum: f64 = pairs.iter().map(|&(row, column)| costs(row, column) - limit).sum();
            prop_assert!((sum - best(&costs, rows, limit, 0, &mut vec![false; columns])).abs() < 1e-9);
            prop_assert!(pairs.iter().all(|&(row, column)| costs(row, column) <= limit));
            prop_assert_eq!(found.column_of.len(), rows);
            prop_assert_eq!(pairs.len() + found.free_columns.len(), columns);
        }
    }
}
