//! Pictures of any resolution: which tiles a picture is cut into, and which rows the decoder reads of them.
//!
//! Comes in: a picture, or its size alone. Goes out: the pictures that the tower sees (the whole, then tiles, each of the tower's side), and the plan
//! of the rows that are kept of their features (reference.md §2.6; `mm_utils.process_anyres_image` and `prepare_inputs_labels_for_multimodal` in
//! LLaVA-NeXT, `pack_image_features` in transformers). Grids of 1x1 to 6x6 tiles, and about nine tiles' worth of rows at most (`anyres_max_9`).
//! No weights here; nothing is normalised.

use crate::error::{Error, Result};
use crate::frame::RgbFrame;
use crate::preprocess::{Filter, resize};

/// Most tiles along a side.
pub const MOST_SIDE: usize = 6;

/// Tiles whose rows are kept as they are; more are shrunk to about as many rows.
const MOST_TILES: f64 = 9.0;

/// A grid of tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// Tiles from top to bottom.
    pub rows: usize,
    /// Tiles from left to right.
    pub columns: usize,
}

/// The grid for a picture of `height` x `width`: the one that keeps most of its pixels, and of several the one that wastes least.
pub fn tiling(height: usize, width: usize, side: usize) -> Tiling {
    let mut best = (Tiling { rows: 1, columns: 1 }, 0, usize::MAX);
    for rows in 1..=MOST_SIDE {
        for columns in 1..=MOST_SIDE {
            let (tall, wide) = (rows * side, columns * side);
            let scale = (wide as f64 / width as f64).min(tall as f64 / height as f64);
            let kept = (width as f64 * scale) as usize * (height as f64 * scale) as usize;
            let kept = kept.min(width * height);
            let wasted = tall * wide - kept;
            if kept > best.1 || (kept == best.1 && wasted < best.2) {
                best = (Tiling { rows, columns }, kept, wasted);
            }
        }
    }
    best.0
}

/// What the tower sees of a picture, each `side` x `side`: the whole picture squashed, then its tiles row by row. For the tiles the picture keeps its
/// aspect ratio and stands in the middle of black.
pub fn tiles(picture: &RgbFrame, side: usize) -> Result<Vec<RgbFrame>> {
    let Tiling { rows, columns } = tiling(picture.height, picture.width, side);
    let (tall, wide) = (rows * side, columns * side);
    let (across, down) = (wide as f64 / picture.width as f64, tall as f64 / picture.height as f64);
    let fit =
        |length: usize, scale: f64, most: usize| ((length as f64 * scale).ceil() as usize).clamp(1, most);
    let (height, width) = if across < down {
        (fit(picture.height, across, tall), wide)
    } else {
        (tall, fit(picture.width, down, wide))
    };
    let scaled = resize(picture, (height, width), Filter::Bicubic)?;
    let canvas = pasted(&scaled, (tall, wide), [0; 3])?;
    let mut all = vec![resize(picture, (side, side), Filter::Bicubic)?];
    for row in 0..rows {
        for column in 0..columns {
            let mut data = Vec::with_capacity(side * side * 3);
            for line in canvas.data.chunks_exact(wide * 3).skip(row * side).take(side) {
                data.extend(line.iter().skip(column * side * 3).take(side * 3));
            }
            all.push(RgbFrame::new(side, side, data)?);
        }
    }
    Ok(all)
}

/// A picture in the middle of a square of one colour, as sides as its longer one: how pictures of a list are shown.
pub fn squared(picture: &RgbFrame, colour: [u8; 3]) -> Result<RgbFrame> {
    let side = picture.width.max(picture.height);
    if picture.width == picture.height {
        return Ok(picture.clone());
    }
    pasted(picture, (side, side), colour)
}

/// A picture in the middle of a canvas that is not smaller.
fn pasted(picture: &RgbFrame, (height, width): (usize, usize), colour: [u8; 3]) -> Result<RgbFrame> {
    let (top, left) = (height.checked_sub(picture.height), width.checked_sub(picture.width));
    let (Some(top), Some(left)) = (top.map(|n| n / 2), left.map(|n| n / 2)) else {
        return Err(Error::Argument(format!("{picture:?} does not fit a canvas of {width}x{height}")));
    };
    let mut data: Vec<u8> = colour.iter().copied().cycle().take(height * width * 3).collect();
    let lines = data.chunks_exact_mut(width * 3).skip(top);
    for (line, source) in lines.zip(picture.data.chunks_exact(picture.width * 3)) {
        for (to, from) in line.iter_mut().skip(left * 3).zip(source) {
            *to = *from;
        }
    }
    RgbFrame::new(width, height, data)
}

/// Which cells of a picture's tiles the decoder reads, besides those of the whole picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Tiles.
    pub tiling: Tiling,
    /// Cells from the top of the tiles' grid that are left out as padding.
    pub top: usize,
    /// Cells from its left.
    pub left: usize,
    /// Rows of cells that are kept.
    pub height: usize,
    /// Columns of cells that are kept.
    pub width: usize,
    /// Rows and columns that they are shrunk to, bilinearly, where they are too many.
    pub shrunk: Option<(usize, usize)>,
}

impl Packed {
    /// The plan for a picture of `height` x `width`, seen through a tower of `side` pixels and `grid` x `grid` cells.
    pub fn new(height: usize, width: usize, side: usize, grid: usize) -> Self {
        let tiling = tiling(height, width, side);
        let (tall, wide) = (tiling.rows * grid, tiling.columns * grid);
        let (original, current) = (width as f64 / height as f64, wide as f64 / tall as f64);
        // Whole numbers that binary fractions miss by a hair are not cut by one.
        let whole = |length: f64| ((length * 1e7).round_ties_even() / 1e7) as usize;
        let (mut top, mut left) = (0, 0);
        if original > current {
            top = (tall - whole(height as f64 * (wide as f64 / width as f64)).min(tall)) / 2;
        } else {
            left = (wide - whole(width as f64 * (tall as f64 / height as f64)).min(wide)) / 2;
        }
        let (height, width) = (tall - 2 * top, wide - 2 * left);
        let ratio = ((height * width) as f64 / (MOST_TILES * (grid * grid) as f64)).sqrt();
        let shrink = |length: usize| (length as f64 / ratio) as usize;
        let shrunk = (ratio > 1.1).then(|| (shrink(height).max(1), shrink(width).max(1)));
        Self { tiling, top, left, height, width, shrunk }
    }

    /// Rows of cells as the decoder reads them, each with a newline behind it.
    pub fn rows(&self) -> usize {
        self.shrunk.map_or(self.height, |(rows, _)| rows)
    }

    /// Cells of each row.
    pub fn columns(&self) -> usize {
        self.shrunk.map_or(self.width, |(_, columns)| columns)
    }

    /// Rows of the decoder in all: those of the whole picture, then those of the tiles with their newlines.
    pub fn tokens(&self, grid: usize) -> usize {
        grid * grid + self.rows() * (self.columns() + 1)
    }

    /// For each kept cell, row by row, its place among the features of the tiles (tile, row, column), the whole picture's first.
    pub fn cells(&self, grid: usize) -> impl Iterator<Item = usize> + use<> {
        let Self { tiling, top, left, height, width, .. } = *self;
        (top..top + height).flat_map(move |row| {
            (left..left + width).map(move |column| {
                let tile = 1 + row / grid * tiling.columns + column / grid;
                (tile * grid + row % grid) * grid + column % grid
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_tokens_are_the_references() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/misc_golden.json");
        let golden: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let cases = golden["image_tokens"].as_array().unwrap();
        assert!(cases.len() >= 9);
        for case in cases {
            let n = |key: &str| case[key].as_u64().unwrap() as usize;
            let packed = Packed::new(n("h"), n("w"), 384, 27);
            let best = [packed.tiling.rows * 384, packed.tiling.columns * 384];
            assert_eq!(serde_json::json!(best), case["best"], "{case}");
            assert_eq!(packed.tokens(27), n("tokens"), "{case}");
            assert_eq!(packed.cells(27).count(), packed.height * packed.width);
        }
    }

    #[test]
    fn tiles_show_the_picture_in_the_middle_of_black() {
        // 8 wide and 3 high in tiles of 4: one row of two tiles, half a line of black above and one and a half below.
        let data: Vec<u8> = (0..24u8).flat_map(|i| [10 + i, 100 + i, 200]).collect();
        let picture = RgbFrame::new(8, 3, data.clone()).unwrap();
        assert_eq!(tiling(3, 8, 4), Tiling { rows: 1, columns: 2 });
        let tiles = tiles(&picture, 4).unwrap();
        assert_eq!(tiles.len(), 3);
        assert_eq!(tiles[0], resize(&picture, (4, 4), Filter::Bicubic).unwrap());
        assert_eq!(tiles[1].data[..12], data[..12]);
        assert_eq!(tiles[2].data[..12], data[12..24]);
        assert!(tiles[1].data[36..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_square_is_filled_up_with_the_colour() {
        let picture = RgbFrame::new(1, 3, vec![9; 9]).unwrap();
        let square = squared(&picture, [1, 2, 3]).unwrap();
        assert_eq!(square.data[..9], [1, 2, 3, 9, 9, 9, 1, 2, 3]);
        assert_eq!((square.width, square.height), (3, 3));
    }

    #[test]
    fn cells_walk_over_the_tiles_row_by_row() {
        // Two tiles side by side, of two cells a side: the first row of both, then the second.
        let packed = Packed::new(4, 8, 4, 2);
        assert_eq!(packed.cells(2).collect::<Vec<_>>(), [4, 5, 8, 9, 6, 7, 10, 11]);
    }
}
