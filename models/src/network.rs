//! Video-UTR as one piece: tower and decoder, fed with examples, giving losses.
//!
//! Comes in: a Hugging Face folder, or tensors under training; then [`Example`]s, token ids with one placeholder where the clip stands. Goes
//! out: hidden rows, losses with gradients, negative log-likelihoods of single answers. The video path is the reference's (§1.3): T tokens
//! per frame in time order, one newline vector at the end of the clip. No tokenizer and no sampling here.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::ops::{self, Label, Sequence, Stream};
use crate::qwen2::Qwen2;
use crate::vision::VisionTower;
use crate::weights::{self, Weights};
use candle_core::{DType, Device, Tensor};
use std::path::Path;

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

/// One clip and the text around it.
#[derive(Clone, Debug)]
pub struct Example {
    /// Rows of patches (frames * grid², 3 * patch²), or none for text alone.
    pub patches: Option<Tensor>,
    /// The prompt; holds the video placeholder once where there are patches.
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

    fn plan(&self, examples: &[Example]) -> Result<Plan> {
        let Config { vision, video_token, .. } = &self.config;
        Plan::new(examples, *video_token, vision.grid().pow(2), self.config.tokens_per_frame())
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

    /// Final-normed hidden rows of all examples one after the other, and the label of each target in them.
    pub fn hidden(&self, examples: &[Example]) -> Result<(Tensor, Vec<Vec<Label>>)> {
        let plan = self.plan(examples)?;
        let embedded = self.decoder.embed(&plan.ids)?;
        let mut sources = vec![embedded];
        let patches: Vec<&Tensor> = examples.iter().filter_map(|e| e.patches.as_ref()).collect();
        if !patches.is_empty() {
            // One pass of the tower over the frames of the whole batch.
            let tokens =
                self.vision.encode_patches(&Tensor::cat(&patches, 0)?.to_device(self.decoder.device())?)?;
            let (n, t, hidden) = tokens.dims3()?;
            sources.push(tokens.reshape((n * t, hidden))?);
            sources.push(self.vision.newline().unsqueeze(0)?);
        }
        let order = Tensor::from_vec(plan.order, plan.rows, self.decoder.device())?;
        let x = Tensor::cat(&sources, 0)?.index_select(&order, 0)?;
        Ok((self.decoder.forward_packed(&x, plan.sequences)?, plan.labels))
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
        let (hidden, labels) = self.hidden(examples)?;
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
        let (hidden, labels) = self.hidden(examples)?;
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
        let (hidden, _) = self.hidden(std::slice::from_ref(example))?;
        self.decoder.logits(&hidden)
    }
}

/// Where each row of the packed batch comes from, and what it must predict.
struct Plan {
    ids: Vec<u32>,
    order: Vec<u32>,
    rows: usize,
    sequences: Vec<Sequence>,
    labels: Vec<Vec<Label>>,
}

/// A row: a text id (index among all text ids), a visual token (index among all), or the newline.
enum Row {
    Text(u32),
    Visual(u32),
    Newline,
}

impl Plan {
    fn new(
        examples: &[Example],
        video_token: u32,
        patches_per_frame: usize,
        tokens_per_frame: usize,
    ) -> Result<Self> {
        let (mut ids, mut rows) = (Vec::new(), Vec::new());
        let (mut sequences, mut labels) = (Vec::new(), Vec::new());
        let mut visual = 0;
        for example in examples {
            let start = rows.len();
            let frames = example.patches.as_ref().map_or(Ok(0), |p| p.dim(0))? / patches_per_frame.max(1);
            let places = example.trunk.ids.iter().filter(|id| **id == video_token).count();
            if places != usize::from(example.patches.is_some()) {
                return Err(Error::Argument(format!(
                    "a prompt with {places} video placeholders came with {frames} frames"
                )));
            }
            let (mut targets, mut stream) = (Vec::new(), None);
            for (id, weight) in example.trunk.ids.iter().zip(&example.trunk.weights) {
                if *id == video_token {
                    let of = |window| Stream {
                        prefix: rows.len() - start,
                        frame: tokens_per_frame,
                        frames,
                        window,
                    };
                    stream = example.window.filter(|window| frames > *window).map(of);
                    rows.extend((visual..visual + frames * tokens_per_frame).map(|v| Row::Visual(v as u32)));
                    rows.push(Row::Newline);
                    visual += frames * tokens_per_frame;
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
        let (texts, visuals) = (ids.len() as u32, visual as u32);
        let place = |row: &Row| match row {
            Row::Text(i) => *i,
            Row::Visual(i) => texts + i,
            Row::Newline => texts + visuals,
        };
        Ok(Self { order: rows.iter().map(place).collect(), rows: rows.len(), ids, sequences, labels })
    }
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
