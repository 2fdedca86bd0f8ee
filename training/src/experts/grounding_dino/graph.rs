//! The graph: what it wants and what it answers.
//!
//! Comes in: an ONNX file; then prepared pictures of one size and a caption. Goes out: the raw numbers of every query, picture by picture. Exports of
//! `transformers` and of the original code are told apart by the names of their inputs; what an export has fixed (batch, picture size, caption
//! length) is read from it (reference.md §4.3). Nothing is resized and nothing is thresholded here.

use std::borrow::Cow;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use ort::session::{Session, SessionInputValue};
use ort::value::{Tensor, TensorElementType};

use super::text::Caption;

/// An input, by what it is fed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Feed {
    /// Pictures, [n, 3, H, W].
    Pixels,
    /// Which pixels are picture, [n, H, W]: all, since nothing is padded.
    PixelMask,
    /// Token ids, [n, T].
    Ids,
    /// Segments of the text, [n, T]: there is one.
    Types,
    /// Which tokens are caption, [n, T], as integers.
    Attention,
    /// The same as truth values.
    AttentionBool,
    /// Positions inside the blocks, [n, T].
    Positions,
    /// Which token attends to which, [n, T, T].
    Blocks,
}

/// A loaded graph.
pub struct Graph {
    session: Session,
    inputs: Vec<(String, Feed)>,
    boxes: &'static str,
    /// Whether the graph takes several pictures in one run.
    pub batches: bool,
    /// (height, width) of pictures, where the graph takes no other.
    pub size: Option<(usize, usize)>,
    /// Tokens of the caption, where the graph takes no other number; shorter captions are padded.
    pub tokens: Option<usize>,
}

/// What the graph says of one picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Values per query in `logits`: the caption's tokens first, then what belongs to none.
    pub columns: usize,
    /// Raw values, row by row, one row a query.
    pub logits: Vec<f32>,
    /// Centre x and y, width and height of every query, in shares of the picture.
    pub boxes: Vec<f32>,
}

impl Graph {
    /// Loads the library and the graph.
    ///
    /// # Errors
    /// What is missing or unknown: the library, an input that no known export has, an output, a batch that is neither free nor 1.
    pub fn open(model: &Path) -> Result<Self> {
        let session = utr_runtime::encode::onnxruntime_session(model)
            .with_context(|| format!("loading {} in ONNX Runtime", model.display()))?;
        let named = |input: &ort::value::Outlet| Ok((input.name().to_string(), feed(input)?));
        let inputs: Vec<(String, Feed)> = session.inputs().iter().map(named).collect::<Result<_>>()?;
        let shape = |wanted: Feed| -> Option<Vec<i64>> {
            let at = inputs.iter().position(|(_, feed)| *feed == wanted)?;
            Some(session.inputs().get(at)?.dtype().tensor_shape()?.to_vec())
        };
        let pixels =
            shape(Feed::Pixels).context("the graph has no input for pictures (pixel_values or img)")?;
        let ids = shape(Feed::Ids).context("the graph has no input called input_ids")?;
        let (&[batch, 3 | -1, h, w], &[text_batch, length]) = (&pixels[..], &ids[..]) else {
            bail!("the graph wants pictures of {pixels:?} and ids of {ids:?}, not [n, 3, H, W] and [n, T]")
        };
        ensure!(
            batch <= 1 && text_batch <= 1,
            "the graph takes {} frames in every run; export it with a batch of 1 or a free one",
            batch.max(text_batch)
        );
        let has = |name: &str| session.outputs().iter().any(|output| output.name() == name);
        let Some(boxes) = ["pred_boxes", "boxes"].into_iter().find(|name| has(name) && has("logits")) else {
            let found: Vec<&str> = session.outputs().iter().map(|output| output.name()).collect();
            bail!("the graph has the outputs {found:?}; wanted are logits and pred_boxes (or boxes)")
        };
        let fixed = |side: i64| usize::try_from(side).ok().filter(|side| *side > 0);
        let (batches, size, tokens) = (batch < 1 && text_batch < 1, fixed(h).zip(fixed(w)), fixed(length));
        Ok(Self { session, inputs, boxes, batches, size, tokens })
    }

    /// Runs `n` pictures of (height, width), (n, 3, height, width) in all, with one caption.
    ///
    /// # Errors
    /// Outputs of other shapes, and what ONNX Runtime says.
    pub fn run(
        &mut self,
        pixels: Vec<f32>,
        (n, h, w): (usize, usize, usize),
        caption: &Caption,
    ) -> Result<Vec<Answer>> {
        let inputs = values(&self.inputs, self.tokens, pixels, (n, h, w), caption)?;
        let advice = if n > 1 {
            "; a graph whose batch is fixed inside although its input is free needs --batch 1"
        } else {
            ""
        };
        let outputs = self
            .session
            .run(inputs)
            .with_context(|| format!("running the graph on {n} pictures of {w}x{h}{advice}"))?;
        let output =
            |name: &str| outputs.get(name).with_context(|| format!("the graph has no output called {name}"));
        let (shape, logits) = output("logits")?.try_extract_tensor::<f32>().context("reading logits")?;
        let &[count, queries, columns] = &shape[..] else {
            bail!("logits has the shape {shape:?}, not [n, queries, tokens]")
        };
        ensure!(
            count == n as i64 && columns >= caption.ids.len() as i64,
            "logits has the shape {shape:?} for {n} pictures and {} tokens",
            caption.ids.len()
        );
        let (shape, boxes) = output(self.boxes)?
            .try_extract_tensor::<f32>()
            .with_context(|| format!("reading {}", self.boxes))?;
        ensure!(
            shape[..] == [count, queries, 4],
            "{} has the shape {shape:?}, not [{n}, {queries}, 4]",
            self.boxes
        );
        let (queries, columns) = (queries as usize, columns as usize);
        let rows =
            logits.chunks_exact((queries * columns).max(1)).zip(boxes.chunks_exact((queries * 4).max(1)));
        Ok(rows.map(|(l, b)| Answer { columns, logits: l.to_vec(), boxes: b.to_vec() }).collect())
    }
}

/// The inputs of one run, with captions filled up to `tokens` where that is fixed.
fn values<'a>(
    inputs: &'a [(String, Feed)],
    tokens: Option<usize>,
    pixels: Vec<f32>,
    (n, h, w): (usize, usize, usize),
    caption: &Caption,
) -> Result<Vec<(Cow<'a, str>, SessionInputValue<'static>)>> {
    let length = tokens.unwrap_or(caption.ids.len());
    let mut pixels = Some(pixels);
    let mut made = Vec::with_capacity(inputs.len());
    for (name, feed) in inputs {
        let text = |row: Vec<i64>| Tensor::from_array(([n, length], row.repeat(n)));
        let value: SessionInputValue<'static> = match feed {
            Feed::Pixels => {
                let pixels = pixels.take().context("the graph has two inputs for pictures")?;
                Tensor::from_array(([n, 3, h, w], pixels))?.into()
            }
            Feed::PixelMask => Tensor::from_array(([n, h, w], vec![1i64; n * h * w]))?.into(),
            Feed::Ids => text(caption.padded_ids(length))?.into(),
            Feed::Types => text(vec![0; length])?.into(),
            Feed::Attention => text(caption.real(length).map(i64::from).collect())?.into(),
            Feed::AttentionBool => {
                let row: Vec<bool> = caption.real(length).collect();
                Tensor::from_array(([n, length], row.repeat(n)))?.into()
            }
            Feed::Positions => text(caption.positions(length))?.into(),
            Feed::Blocks => Tensor::from_array(([n, length, length], caption.mask(length).repeat(n)))?.into(),
        };
        made.push((Cow::Borrowed(name.as_str()), value));
    }
    Ok(made)
}

/// What an input wants, by the name that the exports give it.
fn feed(input: &ort::value::Outlet) -> Result<Feed> {
    Ok(match input.name() {
        "pixel_values" | "img" | "images" | "samples" => Feed::Pixels,
        "pixel_mask" => Feed::PixelMask,
        "input_ids" => Feed::Ids,
        "token_type_ids" => Feed::Types,
        "attention_mask" if input.dtype().tensor_type() == Some(TensorElementType::Bool) => {
            Feed::AttentionBool
        }
        "attention_mask" => Feed::Attention,
        "position_ids" => Feed::Positions,
        "text_token_mask" => Feed::Blocks,
        other => bail!(
            "the graph wants an input called {other}; known are pixel_values (or img, images, samples), pixel_mask, input_ids, token_type_ids, \
             attention_mask, position_ids and text_token_mask"
        ),
    })
}
