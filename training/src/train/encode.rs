//! Samples to examples: the text around a clip as token ids with loss weights, the frames as rows of patches.
//!
//! Comes in: [`Sample`]. Goes out: [`Example`]: one trunk (prompt up to and including the clip) and one branch per turn, so that many
//! questions share one pass over the frames; a branch of linked turns begins with the conversation so far. The prompt is the checkpoint's own chat template, split at the clip, which is exactly
//! what the runtime feeds. Nothing is truncated. Conversations from disk take another way ([`super::data::compose`]).

use crate::parts::generator;
use crate::sample::{Fill, Sample, Turn};
use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use rand::Rng;
use serde::{Deserialize, Serialize};
use std::path::Path;
use utr_models::network::{Example, Span};
use utr_models::preprocess::Preprocessor;
use utr_models::prompt::{ChatTemplate, Kind, Message, Role};
use utr_models::text::Tokenizer;
use utr_models::vision::VisionTower;
use utr_models::{Config, RgbFrame};

/// Which tokens are training targets (reference.md §2.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Masking {
    /// The answer and its end-of-turn token.
    #[default]
    Answer,
    /// As LLaVA-NeXT trains: also the assistant's header, and every newline, turn start and turn end anywhere in the text.
    Reference,
}

/// The clip comes with the first question.
fn messages(history: &[Turn], turn: &Turn) -> Vec<Message> {
    let said = history
        .iter()
        .flat_map(|t| [Message::text(Role::User, &t.question), Message::text(Role::Assistant, &t.answer)]);
    let mut messages: Vec<Message> = said.chain([Message::text(Role::User, &turn.question)]).collect();
    if let Some(first) = messages.first_mut() {
        first.video = true;
    }
    messages
}

/// Everything that turns a sample into numbers.
pub struct Encoder {
    /// Sizes of the network.
    pub config: Config,
    /// Text to ids.
    pub tokenizer: Tokenizer,
    pub(super) template: ChatTemplate,
    /// Frames to pixels.
    pub preprocessor: Preprocessor,
    /// Targets.
    pub masking: Masking,
    /// A turn's targets weigh `n^-p` each, n their number: 0 counts tokens alike, 1 counts turns alike.
    pub length_power: f32,
    pub(super) end_of_turn: u32,
    /// `<|im_start|>`, `<|im_end|>`, the newline.
    pub(super) marks: Vec<u32>,
}

impl Encoder {
    /// Reads tokenizer, template and preprocessing of a checkpoint folder.
    pub fn load(folder: &Path, config: &Config, masking: Masking, length_power: f32) -> Result<Self> {
        let tokenizer = Tokenizer::load(folder)?;
        let id = |token: &str| {
            tokenizer
                .token_id(token)
                .with_context(|| format!("the tokenizer in {} has no {token}", folder.display()))
        };
        let end_of_turn = id("<|im_end|>")?;
        let mut marks = vec![id("<|im_start|>")?, end_of_turn];
        marks.extend(tokenizer.encode("\n")?);
        Ok(Self {
            config: config.clone(),
            template: ChatTemplate::load(folder, Kind::Tokenizer)?,
            preprocessor: Preprocessor::load(folder, config.vision.image_size)?,
            tokenizer,
            masking,
            length_power,
            end_of_turn,
            marks,
        })
    }

    /// The example of a sample; `tower` only lends its patch layout.
    pub fn example(&self, sample: &Sample, tower: &VisionTower) -> Result<Example> {
        if sample.turns.is_empty() || sample.frames.is_empty() {
            bail!(
                "sample {} has {} frames and {} turns; both must be at least one",
                sample.id,
                sample.frames.len(),
                sample.turns.len()
            );
        }
        let (mut trunk, mut branches) = (None, Vec::new());
        for (place, turn) in sample.turns.iter().enumerate() {
            let history = if sample.linked { &sample.turns[..place] } else { &[] };
            let (before, after) = self.template.split_prompt(&self.tokenizer, &messages(history, turn))?;
            trunk.get_or_insert(before);
            branches.push(self.branch(after, turn)?);
        }
        for fill in &sample.fills {
            self.fill(fill, &sample.id, &mut branches)?;
        }
        let mut trunk = Span::context(trunk.unwrap_or_default());
        trunk.push(&[self.config.video_token], 0.0);
        if self.masking == Masking::Reference {
            self.unmask(&mut trunk);
        }
        let patches = Some(self.patches(&sample.frames, tower)?);
        Ok(Example { patches, pictures: Vec::new(), trunk, branches, window: sample.window })
    }

    /// Appends the turns of a fill until its tokens are spent, again from the first where there are too few. The last turn is taken as often as it fits, by a lot that follows from the sample's name.
    fn fill(&self, fill: &Fill, id: &str, branches: &mut Vec<Span>) -> Result<()> {
        let (mut rng, mut left) = (generator(fill.tokens as u64, id), fill.tokens);
        for turn in fill.turns.iter().cycle() {
            let (_, after) = self.template.split_prompt(&self.tokenizer, &messages(&[], turn))?;
            let mut span = self.branch(after, turn)?;
            let tokens = span.weights.iter().filter(|w| **w > 0.0).count();
            if tokens > left && !rng.random_bool(left as f64 / tokens as f64) {
                break;
            }
            let weight = fill.weight / fill.tokens as f32;
            span.weights.iter_mut().filter(|w| **w > 0.0).for_each(|w| *w = weight);
            branches.push(span);
            left = left.saturating_sub(tokens);
            if left == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Frames as rows of patches (frames * grid², 3 * patch²).
    pub fn patches(&self, frames: &[RgbFrame], tower: &VisionTower) -> Result<Tensor> {
        let (h, w) = (self.preprocessor.height, self.preprocessor.width);
        let mut pixels = Vec::with_capacity(frames.len() * 3 * h * w);
        for frame in frames {
            pixels.extend(self.preprocessor.frame_pixels(frame)?);
        }
        Ok(tower.patches(&Tensor::from_vec(pixels, (frames.len(), 3, h, w), &Device::Cpu)?)?)
    }

    fn branch(&self, after: Vec<u32>, turn: &Turn) -> Result<Span> {
        let header = after.len();
        let mut span = Span::context(after);
        let mut answer = self.tokenizer.encode(&turn.answer)?;
        answer.push(self.end_of_turn);
        let weight = (answer.len() as f32).powf(-self.length_power);
        span.push(&answer, weight);
        if self.masking == Masking::Reference {
            self.unmask(&mut span);
            // The assistant's header is copied whole: `<|im_start|>assistant\n`.
            let start = self
                .marks
                .first()
                .and_then(|start| span.ids.get(..header)?.iter().rposition(|id| id == start));
            if let Some(start) = start {
                span.weights[start..header].fill(1.0);
            }
        }
        Ok(span)
    }

    /// Makes every turn start, turn end and newline a target.
    pub(super) fn unmask(&self, span: &mut Span) {
        for (id, weight) in span.ids.iter().zip(&mut span.weights) {
            if self.marks.contains(id) {
                *weight = 1.0;
            }
        }
    }
}
