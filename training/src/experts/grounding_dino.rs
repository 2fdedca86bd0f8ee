//! Grounding DINO: boxes for whatever is named, from an ONNX graph.
//!
//! Comes in: clips, class names, a graph with its `tokenizer.json` and, where there is one, its `preprocessor_config.json`. Goes out: named boxes. The
//! graph runs in ONNX Runtime, loaded dynamically. Frames that go through together are of one clip and so of one size: nothing is ever padded. No
//! weights are fetched.

mod graph;
mod picture;
mod post;
mod text;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use utr_models::RgbFrame;

pub use graph::Answer;
pub use picture::Rounding;
pub use post::{Found, PhraseRule, Thresholds};
pub use text::Caption;

use super::Expert;
use super::clip::{Clip, Shape};
use crate::tracks::detections::Object;
use graph::Graph;
use picture::{Picture, Target};
use text::Words;

/// Options of the expert.
#[derive(Clone, Debug, clap::Args)]
pub struct DinoArgs {
    /// The graph (`.onnx`), such as one of onnx-community/grounding-dino-tiny-ONNX
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// BERT's `tokenizer.json`; looked for beside the graph and one folder up where absent, as is `preprocessor_config.json` always
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// What to look for, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub classes: Vec<String>,
    /// Whose rounding of the picture's longer side
    #[arg(long, value_enum, default_value_t)]
    pub rounding: Rounding,
    /// Frames in one run of the graph, where it takes several; more are faster and need more memory
    #[arg(long, value_name = "FRAMES", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub batch: u8,
    /// What counts as found.
    #[command(flatten)]
    pub thresholds: Thresholds,
}

/// The expert.
pub struct GroundingDino {
    graph: Graph,
    words: Words,
    caption: Caption,
    picture: Picture,
    args: DinoArgs,
    settings: String,
}

impl GroundingDino {
    /// Loads library, graph, tokenizer and the picture's settings.
    ///
    /// # Errors
    /// What is missing, with the remedy: the library, the graph, the tokenizer, a class.
    pub fn open(args: &DinoArgs) -> Result<Self> {
        let model = args.model.clone().context("the expert grounding-dino needs --model FILE.onnx")?;
        ensure!(model.is_file(), "--model {} is not a file", model.display());
        let tokenizer = match &args.tokenizer {
            Some(path) => path.clone(),
            None => near(&model, "tokenizer.json").with_context(|| {
                format!(
                    "no tokenizer.json beside {} or one folder up; name it with --tokenizer",
                    model.display()
                )
            })?,
        };
        let words = Words::load(&tokenizer)?;
        let caption = words.caption(&args.classes)?;
        let mut picture = Picture::load(near(&model, "preprocessor_config.json").as_deref())?;
        let graph = Graph::open(&model)?;
        if let Some((height, width)) = graph.size {
            picture.target = Target::Exact(height, width);
        }
        if let Some(fits) = graph.tokens {
            ensure!(
                caption.ids.len() <= fits,
                "the classes make {} tokens and this graph takes {fits}: name fewer at once, or export it with a free length",
                caption.ids.len()
            );
        }
        // The number of frames in a run changes no result and so is not part of it.
        let settings = format!(
            "grounding-dino {} {} {:?} {:?} {:?} {:?}",
            model.display(),
            tokenizer.display(),
            args.classes,
            picture,
            args.rounding,
            args.thresholds
        );
        Ok(Self { graph, words, caption, picture, args: args.clone(), settings })
    }

    /// Frames in one run.
    pub fn batch(&self) -> usize {
        if self.graph.batches { usize::from(self.args.batch.max(1)) } else { 1 }
    }

    /// What the user should know before the work begins.
    pub fn remark(&self) -> Option<String> {
        let wanted = self.args.batch;
        (usize::from(wanted) > self.batch()).then(|| {
            format!("--batch {wanted}: this graph takes one frame at a time, so frames go through one by one")
        })
    }

    /// The caption that every frame is asked with.
    pub fn caption(&self) -> &Caption {
        &self.caption
    }

    /// A frame as the graph sees it: (height, width) and (3, height, width) pixels.
    ///
    /// # Errors
    /// A size of zero.
    pub fn pixels(&self, frame: &RgbFrame) -> Result<((usize, usize), Vec<f32>)> {
        let size = self.picture.size((frame.height, frame.width), self.args.rounding);
        Ok((size, self.picture.pixels(frame, size)?))
    }

    /// The graph's raw numbers for frames of one size, in one run; one frame where the graph takes no more.
    ///
    /// # Errors
    /// Frames of several sizes, outputs of other shapes, and what ONNX Runtime says.
    pub fn answers(&mut self, frames: &[RgbFrame]) -> Result<Vec<Answer>> {
        let mut together: Option<((usize, usize), Vec<f32>)> = None;
        for frame in frames {
            let (size, pixels) = self.pixels(frame)?;
            match &mut together {
                None => together = Some((size, pixels)),
                Some((first, all)) => {
                    ensure!(*first == size, "frames of several sizes do not go through together");
                    all.extend(pixels);
                }
            }
        }
        let Some(((height, width), pixels)) = together else { return Ok(Vec::new()) };
        self.graph.run(pixels, (frames.len(), height, width), &self.caption)
    }

    /// What an answer for a frame of (height, width) means, the best first.
    ///
    /// # Errors
    /// An answer that is not a number.
    pub fn found(
        &self,
        answer: &Answer,
        (height, width): (usize, usize),
        limits: &Thresholds,
    ) -> Result<Vec<Found>> {
        post::found(answer, (height as u32, width as u32), &self.caption, &self.words, limits)
    }

    /// The objects of frames of one size, frame by frame.
    fn look(&mut self, frames: &[RgbFrame]) -> Result<Vec<Vec<Object>>> {
        let answers = self.answers(frames)?;
        let objects = |(answer, frame): (&Answer, &RgbFrame)| {
            let found = self.found(answer, (frame.height, frame.width), &self.args.thresholds)?;
            Ok(found.into_iter().filter_map(|f| object(f, frame)).collect())
        };
        answers.iter().zip(frames).map(objects).collect()
    }
}

/// A file near the graph: models come as `onnx/model.onnx` with the rest one folder up.
fn near(model: &Path, name: &str) -> Option<PathBuf> {
    let folders = model.ancestors().skip(1).take(2);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

impl Expert for GroundingDino {
    fn settings(&self) -> String {
        self.settings.clone()
    }

    fn annotate(&mut self, clip: &Clip, found: &mut dyn FnMut(Vec<Object>)) -> Result<Shape> {
        let mut footage = clip.open()?;
        let most = self.batch();
        let mut frames: Vec<RgbFrame> = Vec::with_capacity(most);
        let mut done = 0;
        loop {
            let next = footage.next_frame()?;
            let ended = next.is_none();
            frames.extend(next);
            if frames.len() == most || (ended && !frames.is_empty()) {
                let seen = self.look(&frames);
                let (first, last) = (done + 1, done + frames.len());
                seen.with_context(|| format!("frames {first} to {last}"))?.into_iter().for_each(&mut *found);
                done = last;
                frames.clear();
            }
            if ended {
                return footage.shape();
            }
        }
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
