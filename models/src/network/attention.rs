//! Where an answer looks: how much attention the rows that choose its tokens give to each frame, to the newline behind the clip and to text.
//!
//! Comes in: a network and an example with a clip and targets. Goes out: shares per layer, means over heads and targets. The scores are computed a second
//! time beside the fused pass, by its readable twin and for the rows that count only, some at a time: no more than
//! heads * [`ROWS`] * rows of them are held. What is much or little is not judged here.

use super::{Example, Network};
use crate::error::{Error, Result};
use crate::ops::{self, Packing, plain};
use candle_core::Tensor;
use std::sync::Arc;

/// Rows whose probabilities are held at once.
const ROWS: usize = 32;

/// Where one layer's attention goes; the shares of frames, newline and text sum to 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Looks {
    /// Share of each frame, oldest first; zero for those that a stream's window has left behind.
    pub frames: Vec<f32>,
    /// Share of the newline behind the last frame.
    pub newline: f32,
    /// Share of the prompt, the question and the answer so far.
    pub text: f32,
}

/// Where an example's answers look.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Layer by layer.
    pub layers: Vec<Looks>,
    /// Targets whose choosing rows were looked at, all alike; targets are what has a weight above zero.
    pub targets: usize,
}

impl Attention {
    /// The mean over layers.
    pub fn mean(&self) -> Looks {
        let n = self.layers.len().max(1) as f32;
        let of = |f: &dyn Fn(&Looks) -> f32| self.layers.iter().map(f).sum::<f32>() / n;
        let frames = self.layers.first().map_or(0, |layer| layer.frames.len());
        Looks {
            frames: (0..frames).map(|frame| of(&|layer| layer.frames[frame])).collect(),
            newline: of(&|layer| layer.newline),
            text: of(&|layer| layer.text),
        }
    }
}

impl Network {
    /// Where the rows look that choose the targets of an example, its trunk's and all its branches' together.
    ///
    /// # Errors
    /// [`Error::Argument`] for an example without clip or without targets; whatever the network reports.
    pub fn attention(&self, example: &Example) -> Result<Attention> {
        let (x, plan) = self.packed(std::slice::from_ref(example), |x| x.detach())?;
        let chosen = plan.labels.iter().flatten().filter(|label| label.weight > 0.0);
        let looking: Vec<usize> = chosen.map(|label| label.row).collect();
        let (texts, per_frame) = (plan.ids.len(), self.config.tokens_per_frame());
        // Without the clip's newline, rows that are no text are visual tokens.
        let frames = (plan.rows - texts).saturating_sub(1) / per_frame.max(1);
        if looking.is_empty() || frames == 0 {
            return Err(Error::Argument(format!(
                "attention over frames needs an answer and a clip; the example has {} target tokens and {frames} frames",
                looking.len()
            )));
        }
        let group = |source: &u32| match (*source as usize).checked_sub(texts) {
            Some(token) => token / per_frame.max(1),
            None => frames + 1,
        };
        let (c, groups) = (self.decoder.config(), frames + 2);
        let mut member = vec![0f32; plan.rows * groups];
        for (row, source) in plan.order.iter().enumerate() {
            member[row * groups + group(source)] = 1.0;
        }
        let member = Tensor::from_vec(member, (plan.rows, groups), self.decoder.device())?;
        let packing =
            Arc::new(Packing::decoder(plan.sequences, [c.heads, c.kv_heads], c.head_dim, c.rope_theta));
        let mut layers = Vec::with_capacity(c.layers);
        self.decoder.forward(&x, |_, q, k, v| {
            let mut sum = Tensor::zeros(groups, candle_core::DType::F32, x.device())?;
            for looking in looking.chunks(ROWS) {
                let p = plain::probabilities(&q.detach(), &k.detach(), &packing, looking)?;
                sum = (sum + p.flatten(0, 1)?.matmul(&member)?.sum(0)?)?;
            }
            let mut shares = (sum / (c.heads * looking.len()) as f64)?.to_vec1::<f32>()?;
            let (text, newline) = (shares.pop().unwrap_or_default(), shares.pop().unwrap_or_default());
            layers.push(Looks { frames: shares, newline, text });
            Ok(ops::attend_packed(&q, &k, &v, &packing)?)
        })?;
        Ok(Attention { layers, targets: looking.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{FRAMES, WINDOW, asked, network, patches, weights};
    use super::*;
    use candle_core::{DType, Device};

    /// A network whose tensors called `name` are changed.
    fn changed(layers: usize, change: impl Fn(&str, &Tensor) -> Option<Tensor>) -> Network {
        let (config, mut weights) = weights(layers);
        for (name, tensor) in &mut weights {
            if let Some(new) = change(name, tensor) {
                *tensor = new;
            }
        }
        Network::new(config, &weights).unwrap()
    }

    #[test]
    fn shares_sum_to_one_and_frames_that_left_have_none() {
        let network = network(2);
        for window in [None, Some(WINDOW)] {
            let attention = network.attention(&asked(patches(&network, 0..FRAMES, None), window)).unwrap();
            assert_eq!((attention.layers.len(), attention.targets), (2, 5));
            for layer in attention.layers.iter().chain([&attention.mean()]) {
                let sum = layer.frames.iter().sum::<f32>() + layer.newline + layer.text;
                assert!((sum - 1.0).abs() < 1e-5, "{layer:?}");
                let seen = |frame: usize| window.is_none_or(|window| frame + window >= FRAMES);
                assert!((0..FRAMES).all(|f| (layer.frames[f] > 0.0) == seen(f)), "{window:?}: {layer:?}");
            }
        }
    }

    #[test]
    fn without_a_query_every_visible_row_gets_the_same() {
        let zero = |name: &str, t: &Tensor| {
            let asks = name.starts_with("language_model") && name.contains("q_proj");
            asks.then(|| t.zeros_like().unwrap())
        };
        let network = changed(2, zero);
        let attention = network.attention(&asked(patches(&network, 0..FRAMES, None), None)).unwrap();
        let tokens = network.config.tokens_per_frame();
        // By hand: two ids, the clip, its newline, an id that chooses a target; then two branches of an id and a target that choose one each. A row at
        // position p sees p + 1 rows.
        let trunk = 2 + FRAMES * tokens + 1 + 2;
        let seen = [trunk - 1, trunk + 1, trunk + 2, trunk + 1, trunk + 2];
        let mean = |f: &dyn Fn(usize) -> f64| seen.iter().map(|n| f(*n)).sum::<f64>() / seen.len() as f64;
        for layer in &attention.layers {
            let near =
                |got: f32, want: f64| assert!((f64::from(got) - want).abs() < 1e-6, "{got}, not {want}");
            layer.frames.iter().for_each(|got| near(*got, mean(&|n| tokens as f64 / n as f64)));
            near(layer.newline, mean(&|n| 1.0 / n as f64));
            near(layer.text, mean(&|n| (n - FRAMES * tokens - 1) as f64 / n as f64));
        }
    }

    #[test]
    fn a_query_that_asks_for_what_one_frame_shows_finds_that_frame() {
        let plain = network(1);
        for shown in [0, 3, FRAMES - 1] {
            // All frames but one are the same picture.
            let same = |f: usize| patches(&plain, if f == shown { 1..2 } else { 0..1 }, None);
            let clip = Tensor::cat(&(0..FRAMES).map(same).collect::<Vec<_>>(), 0).unwrap();
            // The key of a row is how far it points from the others' mean to this frame's.
            let (x, _) = plain.packed(&[asked(clip.clone(), None)], |x| x).unwrap();
            let tokens = plain.config.tokens_per_frame();
            let norm = ops::rms_norm(&x, &Tensor::ones(16, DType::F32, &Device::Cpu).unwrap(), 1e-6).unwrap();
            let mean = |f: usize| norm.narrow(0, 2 + f * tokens, tokens).unwrap().mean(0).unwrap();
            let towards = ((mean(shown) - mean((shown + 1) % FRAMES)).unwrap() * 100.0).unwrap();
            let network = changed(1, |name, t| {
                let rows = t.dim(0).unwrap();
                // The last pair of channels turns least with the position.
                let row = |values: Tensor| {
                    let zeros = |n: usize| Tensor::zeros((n, 16), DType::F32, &Device::Cpu).unwrap();
                    Tensor::cat(&[zeros(3), values.unsqueeze(0).unwrap(), zeros(4)], 0).unwrap()
                };
                let unit = |i: usize| f32::from(u8::from(i % 8 == 3));
                match name {
                    n if !n.starts_with("language_model") => None,
                    n if n.contains("input_layernorm") => Some(t.ones_like().unwrap()),
                    n if n.ends_with("k_proj.weight") => Some(row(towards.clone())),
                    n if n.ends_with("q_proj.bias") => {
                        Some(Tensor::from_iter((0..rows).map(unit), &Device::Cpu).unwrap())
                    }
                    n if n.contains("q_proj") || n.ends_with("k_proj.bias") => Some(t.zeros_like().unwrap()),
                    _ => None,
                }
            });
            let looks = network.attention(&asked(clip, None)).unwrap().mean();
            let share = looks.frames[shown] / looks.frames.iter().sum::<f32>();
            assert!(share > 0.99, "frame {shown} got {share} of {:?}", looks.frames);
        }
    }

    #[test]
    fn without_clip_or_answer_there_is_nothing_to_see() {
        let network = network(1);
        let text = Example {
            trunk: crate::network::Span { ids: vec![1, 2], weights: vec![0.0, 1.0] },
            ..Example::default()
        };
        assert!(network.attention(&text).unwrap_err().to_string().contains("0 frames"));
        let mut silent = asked(patches(&network, 0..2, None), None);
        silent.trunk.weights.fill(0.0);
        silent.branches.clear();
        assert!(network.attention(&silent).unwrap_err().to_string().contains("0 target tokens"));
    }
}
