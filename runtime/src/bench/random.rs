//! A decoder of a known shape with random weights: how fast a model would be, without having it.
//!
//! Comes in: the name of a shape and a quantization. Goes out: a decoder that computes as a trained one does and says nothing. Values are drawn
//! from a fixed seed. Nothing is read or written.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use utr_models::config::TextConfig;
use utr_models::qwen2::Qwen2;

use crate::error::Result;

/// Decoders whose sizes are public (their `config.json`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
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
}

impl Shape {
    /// Sizes.
    pub fn config(self) -> TextConfig {
        let (hidden, intermediate, layers, heads, kv_heads, vocab, tied) = match self {
            Self::Qwen2Half => (896, 4864, 24, 14, 2, 151_936, true),
            Self::Qwen2OneAndHalf => (1536, 8960, 28, 12, 2, 151_936, true),
            Self::Qwen2Seven => (3584, 18_944, 28, 28, 4, 152_064, false),
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

/// Bits of the matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Bits {
    /// 8.5 bits a weight
    #[value(name = "q8_0")]
    Q8,
    /// 4.5 bits a weight
    #[value(name = "q4_0")]
    Q4,
}

/// A decoder with random weights, and the bytes of its matrices.
///
/// # Errors
/// Whatever candle reports, such as too little memory.
pub fn decoder(shape: Shape, bits: Bits) -> Result<(Qwen2, u64)> {
    let config = shape.config();
    let c = config.clone();
    let (wide, narrow) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut bytes = 0;
    let network = Qwen2::quantized(config, |name| {
        let part =
            name.rsplit_once("blk.").map_or(name, |(_, rest)| rest.split_once('.').map_or(rest, |p| p.1));
        let sizes: Vec<usize> = match part {
            "token_embd.weight" | "output.weight" => vec![c.vocab, c.hidden],
            "attn_q.weight" => vec![wide, c.hidden],
            "attn_k.weight" | "attn_v.weight" => vec![narrow, c.hidden],
            "attn_output.weight" => vec![c.hidden, wide],
            "ffn_gate.weight" | "ffn_up.weight" => vec![c.intermediate, c.hidden],
            "ffn_down.weight" => vec![c.hidden, c.intermediate],
            "attn_q.bias" => vec![wide],
            "attn_k.bias" | "attn_v.bias" => vec![narrow],
            _ => vec![c.hidden],
        };
        let matrix = sizes.len() == 2;
        let spread = if matrix { (3.0 / c.hidden as f32).sqrt() } else { 0.0 };
        let base = if part.ends_with("norm.weight") { 1.0 } else { 0.0 };
        let values = (0..sizes.iter().product::<usize>())
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                base + spread * ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
            })
            .collect();
        let dtype = match (matrix, bits) {
            (false, _) => GgmlDType::F32,
            (true, Bits::Q8) => GgmlDType::Q8_0,
            (true, Bits::Q4) => GgmlDType::Q4_0,
        };
        let tensor = QTensor::quantize(&Tensor::from_vec(values, sizes, &Device::Cpu)?, dtype)?;
        bytes += tensor.storage_size_in_bytes() as u64;
        Ok(tensor)
    })?;
    Ok((network, bytes))
}
