//! Which box belongs to which track.
//!
//! Comes in: boxes in pixels, or a matrix of costs. Goes out: overlaps and the cheapest partial matching. Overlap counts pixels the way
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

/// Costs of all pairs, row by row.
#[derive(Clone, Debug)]
pub struct Costs {
    rows: usize,
    columns: usize,
    values: Vec<f64>,
}

impl Costs {
    /// Asks `cost` for every pair.
    pub fn new(rows: usize, columns: usize, mut cost: impl FnMut(usize, usize) -> f64) -> Self {
        let values =
            (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c))).map(|(r, c)| cost(r, c)).collect();
        Self { rows, columns, values }
    }

    fn at(&self, row: usize, column: usize) -> f64 {
        self.values[row * self.columns + column]
    }
}

/// A partial matching.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matching {
    /// Pairs, by row.
    pub pairs: Vec<(usize, usize)>,
    /// Rows left over, in order.
    pub rows: Vec<usize>,
    /// Columns left over, in order.
    pub columns: Vec<usize>,
}

/// The partial matching with the least sum of `cost - limit`, which is what `lap.lapjv(extend_cost=True, cost_limit=limit)` finds
/// (reference.md §3.4). A pair above the limit is never taken, a pair at the limit is.
///
/// Rows and columns that no admissible pair joins cannot influence each other, so each connected group is solved alone: on real frames
/// most groups are one track and one detection.
pub fn match_within(costs: &Costs, limit: f64) -> Matching {
    let mut row_of = vec![None; costs.rows];
    for (rows, columns) in groups(costs, limit) {
        solve_group(costs, limit, &rows, &columns, &mut row_of);
    }
    let mut free = vec![true; costs.columns];
    row_of.iter().flatten().for_each(|&column| free[column] = false);
    let pairs = row_of.iter().enumerate().filter_map(|(row, column)| Some((row, (*column)?))).collect();
    let rows = (0..costs.rows).filter(|&row| row_of[row].is_none()).collect();
    Matching { pairs, rows, columns: (0..costs.columns).filter(|&column| free[column]).collect() }
}

/// The connected groups of rows and columns that pairs within the limit join; rows without any such pair are in none.
fn groups(costs: &Costs, limit: f64) -> Vec<(Vec<usize>, Vec<usize>)> {
    let admissible = |row: usize, column: usize| costs.at(row, column) <= limit;
    let (mut row_seen, mut column_seen) = (vec![false; costs.rows], vec![false; costs.columns]);
    let mut found = Vec::new();
    for first in 0..costs.rows {
        if std::mem::replace(&mut row_seen[first], true) {
            continue;
        }
        let (mut rows, mut columns, mut looked_at) = (vec![first], Vec::new(), 0);
        while let Some(&row) = rows.get(looked_at) {
            looked_at += 1;
            for column in (0..costs.columns).filter(|&column| admissible(row, column)) {
                if !std::mem::replace(&mut column_seen[column], true) {
                    columns.push(column);
                    for other in (0..costs.rows).filter(|&other| admissible(other, column)) {
                        if !std::mem::replace(&mut row_seen[other], true) {
                            rows.push(other);
                        }
                    }
                }
            }
        }
        if !columns.is_empty() {
            rows.sort_unstable();
            columns.sort_unstable();
            found.push((rows, columns));
        }
    }
    found
}

fn solve_group(costs: &Costs, limit: f64, rows: &[usize], columns: &[usize], row_of: &mut [Option<usize>]) {
    if let (&[row], &[column]) = (rows, columns) {
        row_of[row] = Some(column);
        return;
    }
    // A row stays free at no cost in a column of its own; the little more than nothing makes a pair at the limit win.
    const FREE: f64 = 1e-12;
    let wide = columns.len() + rows.len();
    let mut extended = vec![FREE; rows.len() * wide];
    for (line, &row) in extended.chunks_exact_mut(wide).zip(rows) {
        for (place, &column) in line.iter_mut().zip(columns) {
            let cost = costs.at(row, column);
            // What is above the limit can never pay: no better than staying free.
            *place = if cost > limit { 2.0 * FREE } else { cost - limit };
        }
    }
    let Ok((matched_rows, matched_columns)) = solve(rows.len(), wide, &extended, false) else { return };
    for (row, column) in matched_rows.into_iter().zip(matched_columns) {
        if let Some(&column) = columns.get(column).filter(|&&column| costs.at(rows[row], column) <= limit) {
            row_of[rows[row]] = Some(column);
        }
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
        assert_eq!(match_within(&Costs::new(1, 1, |_, _| 0.5), 0.5).pairs, [(0, 0)]);
        let none = match_within(&Costs::new(1, 2, |_, _| 0.500001), 0.5);
        assert_eq!((none.pairs, none.rows, none.columns), (vec![], vec![0], vec![0, 1]));
        assert_eq!(match_within(&Costs::new(0, 3, |_, _| 0.0), 1.0).columns, [0, 1, 2]);
    }

    /// The best sum over all partial matchings, by trying all.
    fn best(costs: &Costs, limit: f64, row: usize, used: &mut Vec<bool>) -> f64 {
        if row == costs.rows {
            return 0.0;
        }
        let mut least = best(costs, limit, row + 1, used);
        for column in 0..costs.columns {
            if !used[column] {
                used[column] = true;
                let here = costs.at(row, column) - limit;
                least = least.min(here + best(costs, limit, row + 1, used));
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
            let costs = Costs::new(rows, columns, |r, c| values[r * 4 + c]);
            let found = match_within(&costs, limit);
            let sum: f64 = found.pairs.iter().map(|&(r, c)| values[r * 4 + c] - limit).sum();
            prop_assert!((sum - best(&costs, limit, 0, &mut vec![false; columns])).abs() < 1e-9);
            prop_assert_eq!(found.pairs.len() + found.rows.len(), rows);
            prop_assert_eq!(found.pairs.len() + found.columns.len(), columns);
        }
    }
}
