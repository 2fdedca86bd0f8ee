//! Extremely randomized trees (Geurts, Ernst, Wehenkel 2006), the learner behind the ceilings.
//!
//! Comes in: rows of numbers with class labels. Goes out: class probabilities for new rows. Splits are drawn at random
//! and the best of a few is kept, by Gini impurity; every tree sees all rows. Deterministic for a seed. It knows nothing
//! of clips, and no file is read or written.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Rows of equal width, kept by columns, since a split looks at one number of many rows.
#[derive(Clone, Debug, Default)]
pub struct Table {
    columns: Vec<Vec<f32>>,
}

impl Table {
    /// An empty table of rows with `width` numbers.
    pub fn new(width: usize) -> Self {
        Self { columns: vec![Vec::new(); width] }
    }

    /// Adds a row; longer ones are cut and shorter ones padded with zeros.
    pub fn push(&mut self, row: &[f32]) {
        let padded = row.iter().copied().chain(std::iter::repeat(0.0));
        self.columns.iter_mut().zip(padded).for_each(|(column, value)| column.push(value));
    }

    /// Numbers per row.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.columns.first().map_or(0, Vec::len)
    }

    /// No rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> Vec<f32> {
        self.columns.iter().map(|c| c[i]).collect()
    }

    fn at(&self, row: usize, column: usize) -> f32 {
        self.columns[column][row]
    }
}

/// How a forest is grown.
#[derive(Clone, Copy, Debug)]
pub struct Growth {
    /// Number of trees.
    pub trees: usize,
    /// Nodes with fewer rows are not split.
    pub min_split: usize,
    /// Depth limit.
    pub depth: usize,
    /// Seed of the random splits.
    pub seed: u64,
}

impl Default for Growth {
    fn default() -> Self {
        Self { trees: 100, min_split: 8, depth: 16, seed: 1 }
    }
}

enum Node {
    Leaf(Vec<f32>),
    Split { column: usize, at: f32, below: usize, above: usize },
}

/// A fitted forest.
pub struct Forest {
    trees: Vec<Vec<Node>>,
    classes: usize,
}

impl Forest {
    /// Grows a forest on `table`, whose row `i` has class `labels[i] < classes`.
    pub fn fit(table: &Table, labels: &[usize], classes: usize, growth: &Growth) -> Self {
        let grow = |n: usize| {
            let rng = ChaCha8Rng::seed_from_u64(growth.seed.wrapping_add(n as u64 * 0x9e37_79b9));
            let mut rows: Vec<u32> = (0..table.len() as u32).collect();
            let mut tree = Grower { table, labels, classes, growth, rng, nodes: Vec::new() };
            tree.grow(&mut rows, 0);
            tree.nodes
        };
        Self { trees: (0..growth.trees).into_par_iter().map(grow).collect(), classes }
    }

    /// The mean class distribution of the leaves a row falls into.
    pub fn probabilities(&self, row: &[f32]) -> Vec<f32> {
        let mut sum = vec![0.0; self.classes];
        for tree in &self.trees {
            let mut node = 0;
            let leaf = loop {
                match &tree[node] {
                    Node::Leaf(shares) => break shares,
                    Node::Split { column, at, below, above } => {
                        node = if row[*column] < *at { *below } else { *above };
                    }
                }
            };
            sum.iter_mut().zip(leaf).for_each(|(s, p)| *s += p / self.trees.len() as f32);
        }
        sum
    }
}

struct Grower<'a> {
    table: &'a Table,
    labels: &'a [usize],
    classes: usize,
    growth: &'a Growth,
    rng: ChaCha8Rng,
    nodes: Vec<Node>,
}

impl Grower<'_> {
    /// Grows the subtree over `rows` and returns its node's index.
    fn grow(&mut self, rows: &mut [u32], depth: usize) -> usize {
        let counts = self.counts(rows);
        let index = self.nodes.len();
        self.nodes.push(Node::Leaf(counts.iter().map(|&c| c as f32 / rows.len().max(1) as f32).collect()));
        let pure = counts.iter().filter(|&&c| c > 0).count() < 2;
        if pure || rows.len() < self.growth.min_split || depth >= self.growth.depth {
            return index;
        }
        let Some((column, at)) = self.best_split(rows) else { return index };
        let middle = partition(rows, |&r| self.table.at(r as usize, column) < at);
        let (lower, upper) = rows.split_at_mut(middle);
        let below = self.grow(lower, depth + 1);
        let above = self.grow(upper, depth + 1);
        self.nodes[index] = Node::Split { column, at, below, above };
        index
    }

    fn counts(&self, rows: &[u32]) -> Vec<u32> {
        let mut counts = vec![0; self.classes];
        rows.iter().for_each(|&r| counts[self.labels[r as usize]] += 1);
        counts
    }

    /// The best of about sqrt(width) random splits, each on a column that varies over `rows`.
    fn best_split(&mut self, rows: &[u32]) -> Option<(usize, f32)> {
        let wanted = ((self.table.width() as f32).sqrt() as usize * 2).max(2);
        let mut best: Option<(f32, usize, f32)> = None;
        let mut tried = 0;
        for _ in 0..wanted * 4 {
            let column = self.rng.random_range(0..self.table.width());
            let values = rows.iter().map(|&r| self.table.at(r as usize, column));
            let (low, high) = values.fold((f32::MAX, f32::MIN), |(l, h), v| (l.min(v), h.max(v)));
            if low >= high {
                continue;
            }
            // In (low, high], so that both sides hold rows.
            let at = high - self.rng.random::<f32>() * (high - low);
            let at = if at > low { at } else { high };
            let impurity = self.impurity(rows, column, at);
            if best.is_none_or(|(least, ..)| impurity < least) {
                best = Some((impurity, column, at));
            }
            tried += 1;
            if tried == wanted {
                break;
            }
        }
        best.map(|(_, column, at)| (column, at))
    }

    /// Gini impurity of both sides, weighted by their rows.
    fn impurity(&self, rows: &[u32], column: usize, at: f32) -> f32 {
        let mut counts = vec![0u32; 2 * self.classes];
        for &r in rows {
            let side = usize::from(self.table.at(r as usize, column) >= at);
            counts[side * self.classes + self.labels[r as usize]] += 1;
        }
        let weighted = |side: &[u32]| {
            let total: u32 = side.iter().sum();
            let squares: f32 = side.iter().map(|&c| (c as f32) * (c as f32)).sum();
            if total == 0 { 0.0 } else { total as f32 - squares / total as f32 }
        };
        counts.chunks(self.classes).map(weighted).sum()
    }
}

/// Moves the rows that satisfy `first` to the front and returns their number.
fn partition(rows: &mut [u32], first: impl Fn(&u32) -> bool) -> usize {
    let mut middle = 0;
    for i in 0..rows.len() {
        if first(&rows[i]) {
            rows.swap(i, middle);
            middle += 1;
        }
    }
    middle
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of noise whose class is the sign of a product of two columns: no single column tells.
    fn xor(rows: usize, seed: u64) -> (Table, Vec<usize>) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut table = Table::new(6);
        let labels = (0..rows)
            .map(|_| {
                let row: Vec<f32> = (0..6).map(|_| rng.random_range(-1.0..1.0)).collect();
                table.push(&row);
                usize::from(row[1] * row[4] > 0.0)
            })
            .collect();
        (table, labels)
    }

    fn accuracy(forest: &Forest, table: &Table, labels: &[usize]) -> f32 {
        let right = |i: &usize| {
            let p = forest.probabilities(&table.row(*i));
            usize::from(p[1] > p[0]) == labels[*i]
        };
        (0..table.len()).filter(right).count() as f32 / table.len() as f32
    }

    #[test]
    fn an_interaction_of_two_columns_is_learned_and_noise_is_not() {
        let (table, labels) = xor(1500, 1);
        let (fresh, truth) = xor(400, 2);
        let growth = Growth { trees: 40, ..Growth::default() };
        let learned = accuracy(&Forest::fit(&table, &labels, 2, &growth), &fresh, &truth);
        assert!(learned > 0.85, "{learned}");
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let coins: Vec<usize> = labels.iter().map(|_| rng.random_range(0..2)).collect();
        let chance = accuracy(&Forest::fit(&table, &coins, 2, &growth), &fresh, &truth);
        assert!((chance - 0.5).abs() < 0.12, "{chance}");
    }

    #[test]
    fn a_seed_grows_the_same_forest() {
        let (table, labels) = xor(200, 4);
        let growth = Growth { trees: 5, ..Growth::default() };
        let grow = || Forest::fit(&table, &labels, 2, &growth).probabilities(&table.row(0));
        assert_eq!(grow(), grow());
    }
}
