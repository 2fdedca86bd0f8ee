//! Grounding DINO: boxes for whatever is named, from an ONNX graph.
//!
//! Comes in: clips, class names, a graph with its `tokenizer.json`. Goes out: named boxes. The graph runs in ONNX Runtime, loaded dynamically; frames go
//! through one at a time, so that padding never matters. Exports of `transformers` and of the original code are told apart by the
//! names of their inputs. No weights are fetched.

mod picture;
mod post;
mod text;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use ort::session::{Session, SessionInputValue};
use ort::value::Tensor;
use utr_models::RgbFrame;

pub use picture::Rounding;
pub use post::{Found, PhraseRule, Thresholds};
use text::{Caption, Words};

use super::Expert;
use super::clip::{Clip, Shape};
use crate::tracks::detections::Object;

/// Options of the expert.
#[derive(Clone, Debug, clap::Args)]
pub struct DinoArgs {
    /// The graph (`.onnx`), such as one of onnx-community/grounding-dino-tiny-ONNX
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// BERT's `tokenizer.json`; looked for beside the graph and one folder up where absent
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// What to look for, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub classes: Vec<String>,
    /// Whose rounding of the picture's longer side
    #[arg(long, value_enum, default_value_t)]
    pub rounding: Rounding,
    /// What counts as found.
    #[command(flatten)]
    pub thresholds: Thresholds,
}

/// The expert.
pub struct GroundingDino {
    session: Session,
    words: Words,
    caption: Caption,
    args: DinoArgs,
    /// (height, width), where the graph takes no other.
    fixed: Option<(usize, usize)>,
    settings: String,
}

impl GroundingDino {
    /// Loads library, graph and tokenizer.
    ///
    /// # Errors
    /// What is missing, with the remedy: the library, the graph, the tokenizer, a class.
    pub fn open(args: &DinoArgs) -> Result<Self> {
        let model = args.model.clone().context("the expert grounding-dino needs --model FILE.onnx")?;
        ensure!(model.is_file(), "--model {} is not a file", model.display());
        let tokenizer = match &args.tokenizer {
            Some(path) => path.clone(),
            None => beside(&model)?,
        };
        let words = Words::load(&tokenizer)?;
        let caption = words.caption(&args.classes)?;
        let session = utr_runtime::encode::onnxruntime_session(&model)?;
        let fixed = fixed_size(&session);
        let settings = format!(
            "grounding-dino {} {:?} {:?} {:?}",
            model.display(),
            args.classes,
            args.rounding,
            args.thresholds
        );
        Ok(Self { session, words, caption, args: args.clone(), fixed, settings })
    }

    /// What it finds in one frame, in the graph's order.
    ///
    /// # Errors
    /// A graph with other inputs or outputs, and what ONNX Runtime says.
    pub fn look(&mut self, frame: &RgbFrame) -> Result<Vec<Found>> {
        let size =
            self.fixed.unwrap_or_else(|| picture::target((frame.height, frame.width), self.args.rounding));
        let pixels = picture::pixels(frame, size)?;
        let inputs = self.inputs(size, pixels)?;
        let outputs = self.session.run(inputs).context("running the graph")?;
        let output =
            |name: &str| outputs.get(name).with_context(|| format!("the graph has no output called {name}"));
        let (shape, logits) = output("logits")?.try_extract_tensor::<f32>().context("reading logits")?;
        let &[1, queries, tokens] = &shape[..] else {
            bail!("logits has the shape {shape:?}, not [1, queries, tokens]")
        };
        let (shape, boxes) =
            output("pred_boxes")?.try_extract_tensor::<f32>().context("reading pred_boxes")?;
        ensure!(shape[..] == [1, queries, 4], "pred_boxes has the shape {shape:?}, not [1, {queries}, 4]");
        let source = (frame.height as u32, frame.width as u32);
        let names = (&self.words, &self.args.classes[..]);
        post::found((logits, tokens as usize), boxes, source, &self.caption, names, &self.args.thresholds)
    }

    /// The inputs by the names that exports give them.
    fn inputs(
        &self,
        (h, w): (usize, usize),
        pixels: Vec<f32>,
    ) -> Result<Vec<(Cow<'static, str>, SessionInputValue<'static>)>> {
        let caption = &self.caption;
        let n = caption.ids.len();
        let row = |values: Vec<i64>| Tensor::from_array(([1, n], values));
        let mut pixels = Some(pixels);
        let mut made = Vec::new();
        for input in self.session.inputs() {
            let name = input.name().to_string();
            let value: SessionInputValue<'static> = match name.as_str() {
                "pixel_values" | "img" | "images" => {
                    let pixels = pixels.take().context("the graph has two picture inputs")?;
                    Tensor::from_array(([1, 3, h, w], pixels))?.into()
                }
                "pixel_mask" => Tensor::from_array(([1, h, w], vec![1i64; h * w]))?.into(),
                "input_ids" => row(caption.ids.iter().map(|id| i64::from(*id)).collect())?.into(),
                "token_type_ids" => row(vec![0; n])?.into(),
                "attention_mask"
                    if input.dtype().tensor_type() == Some(ort::value::TensorElementType::Bool) =>
                {
                    Tensor::from_array(([1, n], vec![true; n]))?.into()
                }
                "attention_mask" => row(vec![1; n])?.into(),
                "position_ids" => row(caption.positions())?.into(),
                "text_token_mask" => Tensor::from_array(([1, n, n], caption.mask()))?.into(),
                other => bail!(
                    "the graph wants an input called {other}; known are pixel_values (or img), pixel_mask, input_ids, token_type_ids, \
                     attention_mask, position_ids and text_token_mask"
                ),
            };
            made.push((Cow::Owned(name), value));
        }
        ensure!(pixels.is_none(), "the graph has no input for pictures (pixel_values or img)");
        Ok(made)
    }
}

/// `tokenizer.json` near the graph: models come as `onnx/model.onnx` with the tokenizer one folder up.
fn beside(model: &Path) -> Result<PathBuf> {
    let folders = model.ancestors().skip(1).take(2);
    let mut places = folders.map(|folder| folder.join("tokenizer.json"));
    places.find(|path| path.is_file()).with_context(|| {
        format!("no tokenizer.json beside {} or one folder up; name it with --tokenizer", model.display())
    })
}

/// (height, width) of the picture input where both are fixed.
fn fixed_size(session: &Session) -> Option<(usize, usize)> {
    let pictures = session.inputs().iter().find(|i| matches!(i.name(), "pixel_values" | "img" | "images"))?;
    match &pictures.dtype().tensor_shape()?[..] {
        &[_, _, h, w] if h > 0 && w > 0 => Some((h as usize, w as usize)),
        _ => None,
    }
}

impl Expert for GroundingDino {
    fn settings(&self) -> String {
        self.settings.clone()
    }

    fn annotate(&mut self, clip: &Clip, found: &mut dyn FnMut(Vec<Object>)) -> Result<Shape> {
        let mut footage = clip.open()?;
        let mut number = 0;
        while let Some(frame) = footage.next_frame()? {
            number += 1;
            let seen = self.look(&frame).with_context(|| format!("frame {number}"))?;
            found(seen.into_iter().filter_map(|f| object(f, &frame)).collect());
        }
        footage.shape()
    }
}

/// A box inside the frame, with its name; what has none is left out.
fn object(found: Found, frame: &RgbFrame) -> Option<Object> {
    let (w, h) = (frame.width as f32, frame.height as f32);
    let [x1, y1, x2, y2] = found.xyxy;
    let xyxy = [x1.clamp(0.0, w), y1.clamp(0.0, h), x2.clamp(0.0, w), y2.clamp(0.0, h)];
    let sound = xyxy[2] > xyxy[0] && xyxy[3] > xyxy[1] && !found.phrase.is_empty();
    sound.then_some(Object {
        xyxy,
        score: found.score,
        category: found.phrase,
        appearance: None,
        action: None,
        caption: None,
    })
}
