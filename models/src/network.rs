//! Video-UTR as one piece: tower and decoder, fed with examples, giving losses.
//!
//! Comes in: a Hugging Face folder, or tensors under training; then [`Example`]s, token ids with one placeholder where the clip stands. Goes
//! out: hidden rows, losses with gradients, negative log-likelihoods of single answers. The video path is the reference's (§1.3): T tokens
//! per frame in time order, one newline vector at the end of the clip. Pictures keep all their tokens, in tiles where they are of any resolution (§2.6).
//! No tokenizer and no sampling here.

use crate::anyres::Packed;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::ops::{self, Label, Sequence};
use crate::qwen2::Qwen2;
use crate::vision::VisionTower;
use crate::weights::{self, Weights};
use candle_core::{DType, Device, Tensor};
use std::path::Path;

mod attention;
mod plan;

pub use attention::{Attention, Looks};
pub(crate) use plan::Plan;

/// Tower and decoder.
pub struct Network {
    /// Sizes.
    pub config: Config,
    /// Pixels to visual tokens.
    pub vision: VisionTower,
    /// Embeddings to logits.
    pub decoder: Qwen2,
}

/// Token ids with, for each, whether it is a training target.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Span {
    /// Token ids; the video placeholder stands for the whole clip.
    pub ids: Vec<u32>,
    /// Loss weight of predicting `ids[i]` from what precedes it; zero: not a target.
    pub weights: Vec<f32>,
}

impl Span {
    /// Ids that are read but not predicted.
    pub fn context(ids: Vec<u32>) -> Self {
        Self { weights: vec![0.0; ids.len()], ids }
    }

    /// Appends ids with one weight.
    pub fn push(&mut self, ids: &[u32], weight: f32) {
        self.ids.extend_from_slice(ids);
        self.weights.extend(std::iter::repeat_n(weight, ids.len()));
    }
}

/// A picture in a prompt: one placeholder of images stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Picture {
    /// Seen once, at the tower's size.
    Single {
        /// The newline vector closes it.
        newline: bool,
    },
    /// Seen whole and in tiles (see [`crate::anyres::tiles`]); the newline vector closes each row.
    AnyRes {
        /// Pixels from top to bottom of the original.
        height: usize,
        /// Pixels per row of the original.
        width: usize,
    },
}

impl Picture {
    fn packed(&self, config: &Config) -> Option<Packed> {
        let (side, grid) = (config.vision.image_size, config.vision.grid());
        match *self {
            Self::Single { .. } => None,
            Self::AnyRes { height, width } => Some(Packed::new(height, width, side, grid)),
        }
    }

    /// Pictures that the tower sees of it.
    pub fn tiles(&self, config: &Config) -> usize {
        1 + self.packed(config).map_or(0, |p| p.tiling.rows * p.tiling.columns)
    }

    /// Rows that the decoder reads of it.
    pub fn tokens(&self, config: &Config) -> usize {
        let grid = config.vision.grid();
        match (self, self.packed(config)) {
            (_, Some(packed)) => packed.tokens(grid),
            (Self::Single { newline }, None) => grid * grid + usize::from(*newline),
            (Self::AnyRes { .. }, None) => grid * grid,
        }
    }
}

/// One clip, or pictures, and the text around.
#[derive(Clone, Debug, Default)]
pub struct Example {
    /// Rows of patches (frames or tiles * grid², 3 * patch²), or none for text alone.
    pub patches: Option<Tensor>,
    /// What the patches show, in order; where empty they are the frames of a clip.
    pub pictures: Vec<Picture>,
    /// The prompt; holds the video placeholder once for a clip, and that of images once for each picture.
    pub trunk: Span,
    /// Continuations that each see the trunk but not each other.
    pub branches: Vec<Span>,
    /// Frames in view at a time: a longer clip is read as a stream through a rolling window (see [`Stream`]). None: all of them.
    pub window: Option<usize>,
}

/// How much a batch makes the network read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Rows of the tower.
    pub patches: usize,
    /// Rows of the decoder, visual and text.
    pub rows: usize,
    /// Pairs of the decoder's rows that attend (see [`Sequence::pairs`]).
    pub pairs: usize,
    /// Rows whose logits are wanted.
    pub targets: usize,
}

impl Network {
    /// Builds the network over `weights`, which may be variables under training.
    pub fn new(config: Config, weights: &Weights) -> Result<Self> {
        Ok(Self {
            vision: VisionTower::new(&config.vision, &config.feature_layers, weights)?,
            decoder: Qwen2::new(&config.text, weights)?,
            config,
        })
    }

    /// Loads a Hugging Face folder.
    pub fn load(folder: impl AsRef<Path>, dtype: DType, device: &Device) -> Result<Self> {
        let folder = folder.as_ref();
        let mut config = Config::load(folder)?;
        let weights = weights::load(folder, &mut config, dtype, device)?;
        Self::new(config, &weights)
    }

    /// Visual rows of one clip, (frames * T + 1, hidden): frames in order, then the newline.
    pub fn clip_rows(&self, patches: &Tensor) -> Result<Tensor> {
        let tokens = self.vision.encode_patches(patches)?;
        let (n, t, hidden) = tokens.dims3()?;
        Ok(Tensor::cat(&[tokens.reshape((n * t, hidden))?, self.vision.newline().unsqueeze(0)?], 0)?)
    }

    pub(crate) fn plan(&self, examples: &[Example]) -> Result<Plan> {
        Plan::new(examples, &self.config)
    }

    /// What [`Network::loss`] will read of these examples.
    pub fn work(&self, examples: &[Example]) -> Result<Work> {
        let plan = self.plan(examples)?;
        let patches = examples.iter().filter_map(|e| e.patches.as_ref()).map(|p| p.dim(0));
        Ok(Work {
            patches: patches.sum::<candle_core::Result<usize>>()?,
            rows: plan.rows,
            pairs: plan.sequences.iter().map(Sequence::pairs).sum(),
            targets: plan.labels.iter().map(Vec::len).sum(),
        })
    }

    /// Rows of patches of all examples, the frames of clips first and then the tiles of pictures, so that the tower runs once over the whole batch.
    pub(crate) fn shown(&self, examples: &[Example]) -> Result<Option<Tensor>> {
        let (pictures, clips): (Vec<_>, Vec<_>) = examples.iter().partition(|e| !e.pictures.is_empty());
        let patches: Vec<&Tensor> =
            clips.into_iter().chain(pictures).filter_map(|e| e.patches.as_ref()).collect();
        if patches.is_empty() {
            return Ok(None);
        }
        Ok(Some(Tensor::cat(&patches, 0)?.to_device(self.decoder.device())?))
    }

    /// The rows that enter the decoder's first block, from those of the text and the features of what is shown (in the order of [`Network::shown`]).
    pub(crate) fn assemble(
        &self,
        plan: &Plan,
        embedded: &Tensor,
        features: Option<&Tensor>,
    ) -> Result<Tensor> {
        let mut sources = vec![embedded.clone()];
        if let Some(features) = features {
            let projected = self.vision.project(features)?;
            let tiles = projected.dim(0)? - plan.frames;
            let part = |from: usize, count: usize| match count == projected.dim(0)? {
                true => Ok(projected.clone()),
                false => projected.narrow(0, from, count)?.contiguous(),
            };
            if plan.frames > 0 {
                let tokens = self.vision.pool(&part(0, plan.frames)?)?;
                let (n, t, hidden) = tokens.dims3()?;
                sources.push(tokens.reshape((n * t, hidden))?);
            }
            sources.push(self.vision.newline().unsqueeze(0)?);
            if tiles > 0 {
                let cells = part(plan.frames, tiles)?;
                let (n, t, hidden) = cells.dims3()?;
                let cells = cells.reshape((n * t, hidden))?;
                let shrunk = plan.shrinks.iter().map(|s| s.apply(&cells)).collect::<Result<Vec<_>>>()?;
                sources.push(cells);
                sources.extend(shrunk);
            }
        }
        let order = Tensor::new(plan.order.as_slice(), self.decoder.device())?;
        Ok(Tensor::cat(&sources, 0)?.index_select(&order, 0)?)
    }

    /// Final-normed hidden rows of all examples one after the other, and the label of each target in them; with gradients.
    pub fn hidden(&self, examples: &[Example]) -> Result<(Tensor, Vec<Vec<Label>>)> {
        self.hidden_through(examples, |x| x)
    }

    /// The same without gradients: over variables too, no more than one block's intermediate results live at a time.
    fn read(&self, examples: &[Example]) -> Result<(Tensor, Vec<Vec<Label>>)> {
        self.hidden_through(examples, |x| x.detach())
    }

    fn hidden_through(
        &self,
        examples: &[Example],
        between: impl Fn(Tensor) -> Tensor,
    ) -> Result<(Tensor, Vec<Vec<Label>>)> {
        let (x, plan) = self.packed(examples, &between)?;
        Ok((between(self.decoder.forward_through(&x, plan.sequences, &between)?), plan.labels))
    }

    /// What enters the decoder, (rows, hidden), and how it is packed; `between` over what goes from block to block.
    fn packed(&self, examples: &[Example], between: impl Fn(Tensor) -> Tensor) -> Result<(Tensor, Plan)> {
        let plan = self.plan(examples)?;
        let shown = self.shown(examples)?;
        let features = shown.map(|patches| self.vision.features_through(&patches, &between)).transpose()?;
        let x = between(self.assemble(&plan, &self.decoder.embed(&plan.ids)?, features.as_ref())?);
        Ok((x, plan))
    }

    /// The weighted sum of the losses of all targets (a scalar with gradients) and the sum of the weights.
    pub fn loss(&self, examples: &[Example]) -> Result<(Tensor, f64)> {
        let (hidden, labels) = self.hidden(examples)?;
        let labels: Vec<Label> = labels.into_iter().flatten().collect();
        if labels.is_empty() {
            return Err(Error::Argument("a batch without a single target token has no loss".into()));
        }
        let total = labels.iter().map(|l| f64::from(l.weight)).sum();
        Ok((ops::cross_entropy(&hidden, self.decoder.head()?, &labels)?, total))
    }

    /// Mean negative log-likelihood of the targets of each span: for every example its trunk's, then its branches'. Spans without
    /// targets give NaN.
    pub fn nll(&self, examples: &[Example]) -> Result<Vec<f64>> {
        let (hidden, labels) = self.read(examples)?;
        let head = self.decoder.head()?;
        labels
            .into_iter()
            .map(|labels| {
                if labels.is_empty() {
                    return Ok(f64::NAN);
                }
                let total: f64 = labels.iter().map(|l| f64::from(l.weight)).sum();
                let sum =
                    ops::cross_entropy(&hidden, head, &labels)?.to_dtype(DType::F32)?.to_scalar::<f32>()?;
                Ok(f64::from(sum) / total)
            })
            .collect()
    }

    /// For every span as in [`Network::nll`]: whether each target is the likeliest token given the targets before it, which is whether
    /// greedy decoding would say exactly this.
    pub fn says(&self, examples: &[Example]) -> Result<Vec<bool>> {
        let (hidden, labels) = self.read(examples)?;
        labels
            .into_iter()
            .map(|labels| {
                if labels.is_empty() {
                    return Ok(true);
                }
                let rows: Vec<u32> = labels.iter().map(|l| l.row as u32).collect();
                let rows = hidden.index_select(&Tensor::from_vec(rows, labels.len(), hidden.device())?, 0)?;
                let said = self.decoder.logits(&rows)?.argmax(candle_core::D::Minus1)?.to_vec1::<u32>()?;
                Ok(said.iter().zip(&labels).all(|(said, label)| *said == label.target))
            })
            .collect()
    }

    /// Logits (rows, vocab) of one example without branches, every position.
    pub fn logits(&self, example: &Example) -> Result<Tensor> {
        let (hidden, _) = self.read(std::slice::from_ref(example))?;
        self.decoder.logits(&hidden)
    }
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
