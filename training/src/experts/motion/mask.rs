//! Masks: smoothing, and connected parts as runs of pixels.
//!
//! Comes in: one byte per pixel, 0 or 1. Goes out: the mask without single pixels, and its connected parts. What a part shows is not looked at.

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
    for index in 0..runs.len() {
        let top = root(&mut parent, index);
        if place[top] == usize::MAX {
            place[top] = found.len();
            found.push(Part::default());
        }
        found[place[top]].runs.push(runs[index]);
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
