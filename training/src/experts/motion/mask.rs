//! Masks: smoothing, growing, and connected parts as runs of pixels.
//!
//! Comes in: one byte per pixel, 0 or 1. Goes out: other masks, and connected parts. What a part shows is not looked at.

/// Pixels of one row: row, first column, and the column after the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Row.
    pub y: u32,
    /// First column.
    pub from: u32,
    /// Column after the last.
    pub to: u32,
}

/// A connected part (eight neighbours), its runs from the top.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// What it is made of.
    pub runs: Vec<Run>,
}

impl Part {
    /// Number of pixels.
    pub fn area(&self) -> usize {
        self.runs.iter().map(|r| (r.to - r.from) as usize).sum()
    }

    /// Left, top, right, bottom; the last two lie outside.
    pub fn bounds(&self) -> [u32; 4] {
        self.runs.iter().fold([u32::MAX, u32::MAX, 0, 0], |b, r| {
            [b[0].min(r.from), b[1].min(r.y), b[2].max(r.to), b[3].max(r.y + 1)]
        })
    }

    /// Every pixel of a picture with `width` pixels a row.
    pub fn pixels(&self, width: usize) -> impl Iterator<Item = usize> + '_ {
        self.runs.iter().flat_map(move |r| {
            let row = r.y as usize * width;
            row + r.from as usize..row + r.to as usize
        })
    }
}

/// Per pixel whether most of it and its eight neighbours are set (pixels outside count as their neighbour inside).
pub fn majority(mask: &[u8], width: usize, height: usize) -> Vec<u8> {
    let mut across = vec![0u8; mask.len()];
    for (line, sums) in mask.chunks_exact(width).zip(across.chunks_exact_mut(width)) {
        for x in 1..width.saturating_sub(1) {
            sums[x] = line[x - 1] + line[x] + line[x + 1];
        }
        sums[0] = 2 * line[0] + line[1.min(width - 1)];
        sums[width - 1] = 2 * line[width - 1] + line[width.saturating_sub(2)];
    }
    let mut out = vec![0u8; mask.len()];
    for (y, line) in out.chunks_exact_mut(width).enumerate() {
        let row = |y: usize| &across[y * width..(y + 1) * width];
        let (above, here, below) = (row(y.saturating_sub(1)), row(y), row((y + 1).min(height - 1)));
        for x in 0..width {
            line[x] = u8::from(above[x] + here[x] + below[x] > 4);
        }
    }
    out
}

/// The connected parts of a mask in the order of their first pixel.
pub fn parts(mask: &[u8], width: usize) -> Vec<Part> {
    let mut runs: Vec<Run> = Vec::new();
    let mut parent: Vec<usize> = Vec::new();
    let (mut above, mut begun) = (0..0, 0);
    for (y, line) in mask.chunks_exact(width).enumerate() {
        let mut x = 0;
        let mut candidate = above.start;
        while let Some(gap) = line[x..].iter().position(|v| *v != 0) {
            let from = x + gap;
            let length = line[from..].iter().position(|v| *v == 0).unwrap_or(width - from);
            let run = Run { y: y as u32, from: from as u32, to: (from + length) as u32 };
            let own = runs.len();
            runs.push(run);
            parent.push(own);
            // Runs of the row above that touch this one, corners included.
            while candidate < above.end && runs[candidate].to < run.from {
                candidate += 1;
            }
            let mut other = candidate;
            while other < above.end && runs[other].from <= run.to {
                let (a, b) = (root(&mut parent, own), root(&mut parent, other));
                parent[a.max(b)] = a.min(b);
                other += 1;
            }
            x = from + length;
            if x >= width {
                break;
            }
        }
        above = begun..runs.len();
        begun = runs.len();
    }
    let mut place = vec![usize::MAX; runs.len()];
    let mut found: Vec<Part> = Vec::new();
    for (index, run) in runs.into_iter().enumerate() {
        let top = root(&mut parent, index);
        if place[top] == usize::MAX {
            place[top] = found.len();
            found.push(Part::default());
        }
        found[place[top]].runs.push(run);
    }
    found
}

fn root(parent: &mut [usize], mut index: usize) -> usize {
    while parent[index] != index {
        parent[index] = parent[parent[index]];
        index = parent[index];
    }
    index
}

/// The pixels left, right, above and below.
pub fn neighbours(p: usize, width: usize, count: usize) -> impl Iterator<Item = usize> {
    let column = p % width;
    let left = (column > 0).then(|| p - 1);
    let right = (column + 1 < width).then_some(p + 1);
    let up = (p >= width).then(|| p - width);
    let down = (p + width < count).then_some(p + width);
    [left, right, up, down].into_iter().flatten()
}

/// The mask without narrow gaps, holes and single pixels.
pub fn enclosed(mask: &[u8], width: usize, height: usize) -> Vec<u8> {
    let mask = majority(mask, width, height);
    let gap = 1 + width.max(height) / 64;
    let turn = |mask: Vec<u8>| -> Vec<u8> { mask.into_iter().map(|m| 1 - m).collect() };
    let mask = turn(grow(&turn(grow(&mask, width, height, gap)), width, height, gap));
    let turned: Vec<u8> = mask.iter().map(|m| 1 - m).collect();
    let mut out = mask;
    for part in parts(&turned, width) {
        let [x1, y1, x2, y2] = part.bounds().map(|v| v as usize);
        let outside = x1 == 0 || y1 == 0 || x2 == width || y2 == height;
        if !outside && part.area() < out.len() / 8 {
            part.pixels(width).for_each(|p| out[p] = 1);
        }
    }
    out
}

/// The mask and everything within `rim` pixels of it.
pub fn grow(mask: &[u8], width: usize, height: usize, rim: usize) -> Vec<u8> {
    let mut out = vec![0u8; mask.len()];
    for (p, _) in mask.iter().enumerate().filter(|(_, m)| **m != 0) {
        let (x, y) = (p % width, p / width);
        for row in y.saturating_sub(rim)..(y + rim + 1).min(height) {
            out[row * width + x.saturating_sub(rim)..row * width + (x + rim + 1).min(width)].fill(1);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(rows: &[&str]) -> (Vec<u8>, usize, usize) {
        let bytes = rows.iter().flat_map(|r| r.bytes().map(|b| u8::from(b == b'#'))).collect();
        (bytes, rows[0].len(), rows.len())
    }

    #[test]
    fn parts_are_joined_at_corners_and_late() {
        let (bytes, width, _) = mask(&["#..#.#", "#..#..", ".##..#", "....#."]);
        let found = parts(&bytes, width);
        assert_eq!(found.iter().map(Part::area).collect::<Vec<_>>(), [6, 1, 2]);
        assert_eq!(found[0].bounds(), [0, 0, 4, 3]);
        assert_eq!(found[2].bounds(), [4, 2, 6, 4]);
        assert_eq!(found[0].pixels(width).count(), 6);
        assert!(parts(&[0; 24], width).is_empty());
        assert_eq!(parts(&[1; 24], width).len(), 1);
    }

    #[test]
    fn the_majority_drops_specks_and_closes_pin_holes() {
        let (bytes, width, height) = mask(&["......", ".#....", "...###", "...#.#", "...###"]);
        let smooth = majority(&bytes, width, height);
        assert_eq!((smooth[width + 1], smooth[3 * width + 4]), (0, 1));
    }

    #[test]
    fn holes_are_filled_and_bays_are_not() {
        let mut bytes = vec![0u8; 40 * 40];
        for p in (0..1600).filter(|p| (5..35).contains(&(p % 40)) && (5..35).contains(&(p / 40))) {
            bytes[p] = 1;
        }
        let at = |x: usize, y: usize| y * 40 + x;
        (10..20).for_each(|x| (10..16).for_each(|y| bytes[at(x, y)] = 0));
        (25..31).for_each(|x| (20..40).for_each(|y| bytes[at(x, y)] = 0));
        let full = enclosed(&bytes, 40, 40);
        assert_eq!((full[at(14, 13)], full[at(28, 30)], full[at(1, 1)]), (1, 0, 0));
        assert_eq!(grow(&bytes, 40, 40, 2)[at(3, 3)..at(3, 3) + 3], [1, 1, 1]);
    }
}
