//! Models whose sizes are public: what they are called, how large they are, and what they need.
//!
//! Comes in: a name such as `qwen2-0.5b+siglip-b16`, and the bits of the decoder's matrices. Goes out: configurations, bytes, and the [`Sizes`] that the
//! memory budget asks for. It is arithmetic: nothing is made, read or measured here (`bench` makes random weights of them).

use std::str::FromStr;

use candle_core::quantized::GgmlDType;
use clap::ValueEnum;
use serde::Deserialize;
use utr_models::Config;
use utr_models::config::{TextConfig, VisionConfig};
use utr_models::gguf::Format;
use utr_models::manifest::Memory;
use utr_models::onnx::{Storage, VisionExport};
use utr_models::weights::{self, Init};

use crate::budget::Sizes;
use crate::window::CAPACITY;

/// Tokens of an answer that memory is reckoned with.
const ANSWER: usize = 256;

/// What the shapes for tests are called.
const TINY: &str = "tiny";

/// Decoders whose sizes are public (their `config.json`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// Qwen2-0.5B, the decoder of the smallest LLaVA-OneVision
    #[value(name = "qwen2-0.5b")]
    Qwen2Half,
    /// Qwen2-1.5B
    #[value(name = "qwen2-1.5b")]
    Qwen2OneAndHalf,
    /// Qwen2-7B, the decoder of Video-UTR-7B
    #[value(name = "qwen2-7b")]
    Qwen2Seven,
    /// Two small blocks, for tests: `tiny`, not listed
    #[value(skip)]
    Tiny,
}

impl Shape {
    /// Sizes.
    pub fn config(self) -> TextConfig {
        let (hidden, intermediate, layers, heads, kv_heads, vocab, tied) = match self {
            Self::Qwen2Half => (896, 4864, 24, 14, 2, 151_936, true),
            Self::Qwen2OneAndHalf => (1536, 8960, 28, 12, 2, 151_936, true),
            Self::Qwen2Seven => (3584, 18_944, 28, 28, 4, 152_064, false),
            Self::Tiny => (64, 128, 2, 2, 1, 256, false),
        };
        TextConfig {
            hidden,
            intermediate,
            layers,
            heads,
            kv_heads,
            head_dim: hidden / heads,
            vocab,
            rope_theta: 1e6,
            rms_norm_eps: 1e-6,
            max_positions: 32_768,
            tied,
        }
    }
}

/// Vision towers whose sizes are public; `siglip-so400m` is what all released LLaVA-OneVision models have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tower {
    /// siglip-base-patch16-224: 49 tokens a frame
    #[value(name = "siglip-b16")]
    SiglipB16,
    /// siglip-so400m-patch14-384 without its last block: 196 tokens a frame
    #[value(name = "siglip-so400m")]
    SiglipSo400m,
    /// One small block, 4 tokens a frame, for tests: `tiny`, not listed
    #[value(skip)]
    Tiny,
}

impl Tower {
    /// Sizes.
    pub fn config(self) -> VisionConfig {
        let (hidden, intermediate, layers, heads, image_size, patch) = match self {
            Self::SiglipB16 => (768, 3072, 12, 12, 224, 16),
            Self::SiglipSo400m => (1152, 4304, 26, 16, 384, 14),
            Self::Tiny => (32, 64, 1, 2, 56, 14),
        };
        VisionConfig { hidden, intermediate, layers, heads, image_size, patch, layer_norm_eps: 1e-6 }
    }
}

/// A decoder, and the tower before it where there is one: `qwen2-0.5b`, `qwen2-0.5b+siglip-b16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Model {
    /// Reads and speaks.
    pub decoder: Shape,
    /// Sees.
    pub tower: Option<Tower>,
}

impl FromStr for Model {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (decoder, tower) = text.split_once('+').map_or((text, None), |(left, right)| (left, Some(right)));
        let decoder = named(decoder, Shape::Tiny);
        // None: a tower that is not known.
        let tower = tower.map_or(Some(None), |tower| named(tower, Tower::Tiny).map(Some));
        decoder.zip(tower).map(|(decoder, tower)| Self { decoder, tower }).ok_or_else(|| {
            let (decoders, towers) = (names::<Shape>(), names::<Tower>());
            format!("shape {text:?} is unknown; give DECODER or DECODER+TOWER, decoders: {decoders}, towers: {towers}")
        })
    }
}

impl TryFrom<String> for Model {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl std::fmt::Display for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&name(self.decoder))?;
        self.tower.map_or(Ok(()), |tower| write!(f, "+{}", name(tower)))
    }
}

fn named<T: ValueEnum>(word: &str, tiny: T) -> Option<T> {
    if word == TINY { Some(tiny) } else { T::from_str(word, false).ok() }
}

fn name<T: ValueEnum>(value: T) -> String {
    value.to_possible_value().map_or(TINY.into(), |value| value.get_name().into())
}

fn names<T: ValueEnum>() -> String {
    T::value_variants().iter().map(|value| name(value.clone())).collect::<Vec<_>>().join(", ")
}

/// Bits of the decoder's matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bits {
    /// 8.5 bits a weight
    #[value(name = "q8_0")]
    Q8,
    /// 4.5 bits a weight
    #[value(name = "q4_0")]
    Q4,
}

impl Bits {
    /// As candle names it.
    pub(crate) fn dtype(self) -> GgmlDType {
        match self {
            Self::Q8 => GgmlDType::Q8_0,
            Self::Q4 => GgmlDType::Q4_0,
        }
    }

    /// As manifests name it.
    pub fn format(self) -> Format {
        match self {
            Self::Q8 => Format::Q8_0,
            Self::Q4 => Format::Q4_0,
        }
    }

    /// Bytes of this many weights.
    pub fn bytes(self, weights: usize) -> u64 {
        (weights / self.dtype().block_size() * self.dtype().type_size()) as u64
    }
}

impl Model {
    /// Side of the pictures that the tower sees, in pixels.
    pub fn image_size(self) -> usize {
        self.tower.map_or(1, |tower| tower.config().image_size)
    }

    /// Visual tokens of one frame; none without a tower.
    pub fn frame_tokens(self) -> Option<usize> {
        self.tower.map(|_| self.network().tokens_per_frame())
    }

    /// What it needs in memory for windows of `frames` frames, the tower held as f32.
    pub fn needs(self, bits: Bits, frame_tokens: usize, frames: usize) -> Memory {
        let network = self.network();
        let c = &network.text;
        let tables = if c.tied { 1 } else { 2 } * c.vocab * c.hidden;
        let bytes = bits.bytes(tables + matrices(c)) + self.tower_bytes() as u64;
        // The tower that stands in for none gives one token a frame.
        let frames = if self.tower.is_some() { frames } else { frames * frame_tokens };
        Memory::needs(&network, bytes, frames, ANSWER)
    }

    /// What decides how much memory it needs. With `tower_alone` only the tower is made: held twice, while it is written and while an engine lays it
    /// out.
    pub fn sizes(self, bits: Bits, frame_tokens: usize, tower_alone: bool) -> Sizes {
        let mut needs = self.needs(bits, frame_tokens, CAPACITY);
        let text = self.decoder.config();
        if tower_alone {
            needs.weights = 2 * self.tower_bytes() as u64;
            return Sizes::of_decoder(&self.to_string(), &text, needs, frame_tokens);
        }
        let sizes = Sizes::of_decoder(&self.to_string(), &text, needs, frame_tokens);
        sizes.with_matrices(bits.bytes(matrices(&text) + text.vocab * text.hidden), bits.format())
    }

    fn tower_bytes(self) -> usize {
        let table = if self.tower.is_some() { weights::table(&self.network()) } else { Vec::new() };
        4 * table.iter().filter(|(name, ..)| sees(name)).map(elements).sum::<usize>()
    }

    /// The whole network; without a tower with the smallest one.
    pub fn network(self) -> Config {
        let vision = self.tower.map(Tower::config).unwrap_or(VisionConfig {
            hidden: 1,
            intermediate: 1,
            layers: 1,
            heads: 1,
            image_size: 1,
            patch: 1,
            layer_norm_eps: 1e-6,
        });
        Config {
            feature_layers: vec![vision.layers],
            vision,
            text: self.decoder.config(),
            image_token: 0,
            video_token: 0,
        }
    }

    /// Sizes of the tower as its file states them; none without a tower.
    pub fn export(self) -> Option<VisionExport> {
        let v = self.tower?.config();
        Some(VisionExport {
            image_size: v.image_size,
            patch_size: v.patch,
            hidden_size: v.hidden,
            intermediate_size: v.intermediate,
            num_layers: v.layers,
            num_heads: v.heads,
            layer_norm_eps: v.layer_norm_eps as f32,
            text_hidden_size: self.decoder.config().hidden,
            storage: Storage::F32,
        })
    }
}

fn elements((_, shape, _): &(String, Vec<usize>, Init)) -> usize {
    shape.iter().product()
}

/// Whether a tensor is of the side that sees.
fn sees(name: &str) -> bool {
    !name.starts_with("language_model.") && !name.starts_with("lm_head.")
}

/// Elements of the matrices that every row goes through.
pub fn matrices(c: &TextConfig) -> usize {
    let kv = c.kv_heads * c.head_dim;
    c.layers * c.hidden * (2 * c.heads * c.head_dim + 2 * kv + 3 * c.intermediate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Wish;
    use crate::encode::Engines;

    #[test]
    fn shapes_are_spelled_as_they_are_read() {
        for name in ["qwen2-0.5b", "qwen2-0.5b+siglip-b16", "qwen2-7b+siglip-so400m", "tiny+tiny"] {
            assert_eq!(name.parse::<Model>().unwrap().to_string(), name);
        }
        for wrong in ["", "+", "qwen2-0.5b+", "qwen3", "qwen2-7b+clip", "siglip-b16+qwen2-7b", "a+b+c"] {
            let message = wrong.parse::<Model>().unwrap_err();
            assert!(message.contains("qwen2-7b") && message.contains("siglip-so400m"), "{message}");
        }
        let tokens = |name: &str| name.parse::<Model>().unwrap().frame_tokens();
        assert_eq!(tokens("qwen2-7b+siglip-so400m"), Some(196));
        assert_eq!((tokens("qwen2-0.5b+siglip-b16"), tokens("qwen2-0.5b")), (Some(49), None));
    }

    #[test]
    fn needs_are_those_of_the_published_sizes() {
        let needs = |name: &str, bits, tower_alone| {
            let model = name.parse::<Model>().unwrap();
            let sizes = model.sizes(bits, model.frame_tokens().unwrap_or(49), tower_alone);
            let need = sizes.need(sizes.choice(Wish::exact()), Engines::default());
            [need.weights, need.window, need.kv].map(|bytes| bytes as f64 / 1e9)
        };
        // 7.6e9 parameters at 4.5 bits, and 0.41e9 of tower and projector at 32; 7041 rows of 57344 bytes.
        let [weights, window, kv] = needs("qwen2-7b+siglip-so400m", Bits::Q4, false);
        assert!((5.8..6.1).contains(&weights) && (0.39..0.42).contains(&kv), "{weights} {kv}");
        assert!((window - 32.0 * 196.0 * 3584.0 * 4.0 / 1e9).abs() < 1e-6, "{window}");
        let [tower, ..] = needs("qwen2-7b+siglip-so400m", Bits::Q4, true);
        assert!((3.2..3.4).contains(&tower), "{tower}");
        let [small, window, _] = needs("qwen2-0.5b", Bits::Q8, false);
        assert!((0.52..0.53).contains(&small), "{small}");
        assert!((window - 32.0 * 49.0 * 896.0 * 4.0 / 1e9).abs() < 1e-6, "{window}");
        let [both, ..] = needs("qwen2-0.5b+siglip-b16", Bits::Q8, false);
        assert!((0.34..0.36).contains(&(both - small)), "{both}");
    }
}
