//! Where each row of a packed batch comes from.
//!
//! Comes in: [`Example`]s. Goes out: [`Plan`]: the text ids, the order in which rows of text, frames, newlines and tiles stand, the sequences that attend, and what
//! each row must predict. Placeholders that do not fit what is shown are an error. Nothing is computed but what shrinks a picture.

use super::{Example, Picture};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::onnx::bilinear_axis;
use crate::ops::{self, Label, Sequence, Stream};
use candle_core::Tensor;

/// Where each row of the packed batch comes from, and what it must predict.
pub(crate) struct Plan {
    pub ids: Vec<u32>,
    /// Among the text ids, then all visual tokens, then the newline.
    pub order: Vec<u32>,
    pub rows: usize,
    pub shrinks: Vec<Shrink>,
    /// Frames of clips; what is shown beyond them are tiles of pictures.
    pub frames: usize,
    pub sequences: Vec<Sequence>,
    pub labels: Vec<Vec<Label>>,
}

/// A row: a text id (index among all text ids), a visual token of a clip (index among all), the newline, a cell of a picture's tiles (index among
/// all), or a cell of a picture that was shrunk (index among all).
enum Row {
    Text(u32),
    Visual(u32),
    Newline,
    Cell(u32),
    Shrunk(u32),
}

/// A grid of cells that is shrunk bilinearly.
pub(crate) struct Shrink {
    cells: Vec<u32>,
    from: (usize, usize),
    to: (usize, usize),
}

impl Shrink {
    /// Rows (to.0 * to.1, hidden) of all pictures' cells (n, hidden); one axis after the other, which is the same as both at once.
    pub fn apply(&self, all: &Tensor) -> Result<Tensor> {
        let ((rows, columns), (tall, wide)) = (self.from, self.to);
        let device = all.device();
        let axis = |from, to| {
            let weights: Vec<f32> = bilinear_axis(from, to).into_iter().flatten().collect();
            Tensor::from_vec(weights, (to, from), device)
        };
        let cells = Tensor::from_vec(self.cells.clone(), self.cells.len(), device)?;
        let x = all.index_select(&cells, 0)?;
        let hidden = x.dim(1)?;
        let x = ops::mix_rows(&x.reshape((1, rows, columns * hidden))?, &axis(rows, tall)?)?;
        let x = ops::mix_rows(&x.reshape((tall, columns, hidden))?, &axis(columns, wide)?)?;
        Ok(x.reshape((tall * wide, hidden))?)
    }
}

/// Counters of what was placed so far, over all examples.
#[derive(Default)]
struct Placed {
    visual: usize,
    cells: usize,
    shrunk: usize,
}

impl Plan {
    /// The rows of one picture.
    fn picture(
        picture: &Picture,
        config: &Config,
        placed: &mut Placed,
        rows: &mut Vec<Row>,
    ) -> Option<Shrink> {
        let (grid, first) = (config.vision.grid(), placed.cells);
        placed.cells += picture.tiles(config) * grid * grid;
        rows.extend((first..first + grid * grid).map(|cell| Row::Cell(cell as u32)));
        let Some(packed) = picture.packed(config) else {
            if matches!(picture, Picture::Single { newline: true }) {
                rows.push(Row::Newline);
            }
            return None;
        };
        let cells: Vec<u32> = packed.cells(grid).map(|cell| (first + cell) as u32).collect();
        let Some(to) = packed.shrunk else {
            for line in cells.chunks(packed.width.max(1)) {
                rows.extend(line.iter().map(|cell| Row::Cell(*cell)));
                rows.push(Row::Newline);
            }
            return None;
        };
        for _ in 0..to.0 {
            rows.extend((placed.shrunk..placed.shrunk + to.1).map(|cell| Row::Shrunk(cell as u32)));
            rows.push(Row::Newline);
            placed.shrunk += to.1;
        }
        Some(Shrink { cells, from: (packed.height, packed.width), to })
    }

    /// How many frames or tiles an example shows; an error where its placeholders say otherwise.
    fn shown(example: &Example, config: &Config) -> Result<usize> {
        let shown =
            example.patches.as_ref().map_or(Ok(0), |p| p.dim(0))? / config.vision.grid().pow(2).max(1);
        let places = |token| example.trunk.ids.iter().filter(|id| **id == token).count();
        let (clips, images) = (places(config.video_token), places(config.image_token));
        let pictures = &example.pictures;
        let clip = usize::from(example.patches.is_some() && pictures.is_empty());
        if (clips, images) != (clip, pictures.len()) {
            return Err(Error::Argument(format!(
                "a prompt with {clips} video placeholders and {images} of images came with {shown} frames or tiles of {} pictures",
                pictures.len()
            )));
        }
        let wanted: usize = pictures.iter().map(|picture| picture.tiles(config)).sum();
        if !pictures.is_empty() && wanted != shown {
            return Err(Error::Argument(format!("{} pictures of {wanted} tiles came with {shown}", images)));
        }
        Ok(shown)
    }

    pub fn new(examples: &[Example], config: &Config) -> Result<Self> {
        let (mut ids, mut rows, mut shrinks) = (Vec::new(), Vec::new(), Vec::new());
        let (mut sequences, mut labels) = (Vec::new(), Vec::new());
        let (tokens_per_frame, mut placed) = (config.tokens_per_frame(), Placed::default());
        let mut clips = 0;
        for example in examples {
            let start = rows.len();
            let frames = Self::shown(example, config)?;
            let mut pictures = example.pictures.iter().peekable();
            let (mut targets, mut stream) = (Vec::new(), None);
            for (id, weight) in example.trunk.ids.iter().zip(&example.trunk.weights) {
                if *id == config.video_token {
                    let of = |window| Stream {
                        prefix: rows.len() - start,
                        frame: tokens_per_frame,
                        frames,
                        window,
                    };
                    stream = example.window.filter(|window| frames > *window).map(of);
                    clips += frames;
                    let next = placed.visual + frames * tokens_per_frame;
                    rows.extend((placed.visual..next).map(|v| Row::Visual(v as u32)));
                    rows.push(Row::Newline);
                    placed.visual = next;
                    continue;
                }
                if let Some(picture) = pictures.next_if(|_| *id == config.image_token) {
                    shrinks.extend(Self::picture(picture, config, &mut placed, &mut rows));
                    continue;
                }
                if *weight != 0.0 && rows.len() > start {
                    targets.push(Label { row: rows.len() - 1, target: *id, weight: *weight });
                }
                rows.push(Row::Text(ids.len() as u32));
                ids.push(*id);
            }
            labels.push(targets);
            let trunk_end = rows.len();
            for branch in &example.branches {
                let mut previous = trunk_end - 1;
                let mut targets = Vec::new();
                for (id, weight) in branch.ids.iter().zip(&branch.weights) {
                    if *weight != 0.0 {
                        targets.push(Label { row: previous, target: *id, weight: *weight });
                    }
                    previous = rows.len();
                    rows.push(Row::Text(ids.len() as u32));
                    ids.push(*id);
                }
                labels.push(targets);
            }
            let branches = example.branches.iter().map(|b| b.ids.len()).collect();
            sequences.push(Sequence { trunk: trunk_end - start, branches, stream });
        }
        let newline = (ids.len() + placed.visual) as u32;
        let place = |row: &Row| match row {
            Row::Text(i) => *i,
            Row::Visual(i) => ids.len() as u32 + i,
            Row::Newline => newline,
            Row::Cell(i) => newline + 1 + i,
            Row::Shrunk(i) => newline + 1 + placed.cells as u32 + i,
        };
        let order = rows.iter().map(place).collect();
        Ok(Self { order, rows: rows.len(), ids, shrinks, frames: clips, sequences, labels })
    }
}
