//! What the network *is*: sizes and options, read from a Hugging Face `config.json` in the 4.x and the 5.x style.
//!
//! Comes in: the JSON of a LLaVA-OneVision checkpoint. Goes out: [`Config`], complete and checked, with every default
//! that the originals leave unwritten filled in (reference: `configuration_llava_onevision.py`, `configuration_siglip.py`,
//! `configuration_qwen2.py`). No weights and no tokenizer here.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;

/// SigLIP vision tower.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionConfig {
    /// Channels inside the tower.
    pub hidden: usize,
    /// Channels inside the MLP of a block.
    pub intermediate: usize,
    /// Blocks in the checkpoint.
    pub layers: usize,
    /// Attention heads; `hidden / heads` channels each.
    pub heads: usize,
    /// Input side in pixels.
    pub image_size: usize,
    /// Patch side in pixels.
    pub patch: usize,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f64,
}

impl VisionConfig {
    /// Patches along one side: `floor(image_size / patch)`.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch
    }
}

/// Qwen2 decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// Channels of the residual stream.
    pub hidden: usize,
    /// Channels inside the SwiGLU.
    pub intermediate: usize,
    /// Blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Channels per head.
    pub head_dim: usize,
    /// Rows of the embedding table.
    pub vocab: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Added to the mean square in RMS norms.
    pub rms_norm_eps: f64,
    /// Longest sequence the positions were made for.
    pub max_positions: usize,
    /// The output head is the embedding table.
    pub tied: bool,
}

/// LLaVA-OneVision: tower, projector, pool, decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The tower.
    pub vision: VisionConfig,
    /// The decoder.
    pub text: TextConfig,
    /// How many blocks run before each selected feature map; several are joined on channels.
    pub feature_layers: Vec<usize>,
    /// Placeholder id of an image in the prompt.
    pub image_token: u32,
    /// Placeholder id of a video in the prompt.
    pub video_token: u32,
}

impl Config {
    /// Reads `config.json` of a Hugging Face folder.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self> {
        let path = folder.as_ref().join("config.json");
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        let value: Value = serde_json::from_str(&text).map_err(|e| Error::format(&path, e.to_string()))?;
        Self::from_hf(&value).map_err(|reason| Error::format(&path, reason))
    }

    /// Reads the JSON of a Hugging Face `config.json`; the error says which field is wrong.
    pub fn from_hf(value: &Value) -> Result<Self, String> {
        let kind = value.get("model_type").and_then(Value::as_str).unwrap_or("");
        if kind != "llava_onevision" {
            return Err(format!(
                "model_type is {kind:?}; only \"llava_onevision\" is supported (convert original LLaVA-NeXT folders \
                 with the transformers script first)"
            ));
        }
        let vision = vision_from_hf(value.get("vision_config").unwrap_or(&Value::Null))?;
        let top_tied = value.get("tie_word_embeddings").and_then(Value::as_bool);
        let text = text_from_hf(value.get("text_config").unwrap_or(&Value::Null), top_tied)?;
        expect(value, "projector_hidden_act", "gelu")?;
        expect(value, "vision_feature_select_strategy", "full")?;
        if value.get("multimodal_projector_bias").and_then(Value::as_bool) == Some(false) {
            return Err(
                "multimodal_projector_bias is false; projectors without bias are not supported".into()
            );
        }
        let feature_layers = match value.get("vision_feature_layer") {
            None => vec![vision.layers],
            Some(Value::Array(list)) => {
                list.iter().map(|v| blocks(v, vision.layers)).collect::<Result<_, _>>()?
            }
            Some(one) => vec![blocks(one, vision.layers)?],
        };
        let token = |old: &str, new: &str, default: u64| {
            let found = value.get(old).or_else(|| value.get(new)).and_then(Value::as_u64);
            u32::try_from(found.unwrap_or(default)).map_err(|_| format!("{old} does not fit 32 bits"))
        };
        let config = Config {
            vision,
            text,
            feature_layers,
            image_token: token("image_token_index", "image_token_id", 151_646)?,
            video_token: token("video_token_index", "video_token_id", 151_647)?,
        };
        config.check()?;
        Ok(config)
    }

    /// Writes the JSON that `transformers` 4.45 and later read.
    pub fn to_hf(&self) -> Value {
        let (v, t) = (&self.vision, &self.text);
        let layer = |n: &usize| *n as i64 - v.layers as i64 - 1;
        let feature = match self.feature_layers.as_slice() {
            [one] => json!(layer(one)),
            many => json!(many.iter().map(layer).collect::<Vec<_>>()),
        };
        json!({
            "architectures": ["LlavaOnevisionForConditionalGeneration"],
            "model_type": "llava_onevision",
            "image_token_index": self.image_token,
            "video_token_index": self.video_token,
            "projector_hidden_act": "gelu",
            "multimodal_projector_bias": true,
            "vision_feature_layer": feature,
            "vision_feature_select_strategy": "full",
            "vision_aspect_ratio": "anyres_max_9",
            "image_grid_pinpoints": [[v.image_size, v.image_size]],
            "tie_word_embeddings": t.tied,
            "torch_dtype": "float32",
            "vision_config": {
                "model_type": "siglip_vision_model", "hidden_size": v.hidden, "intermediate_size": v.intermediate,
                "num_hidden_layers": v.layers, "num_attention_heads": v.heads, "image_size": v.image_size,
                "patch_size": v.patch, "num_channels": 3, "layer_norm_eps": v.layer_norm_eps,
                "hidden_act": "gelu_pytorch_tanh", "vision_use_head": false
            },
            "text_config": {
                "model_type": "qwen2", "hidden_size": t.hidden, "intermediate_size": t.intermediate,
                "num_hidden_layers": t.layers, "num_attention_heads": t.heads, "num_key_value_heads": t.kv_heads,
                "vocab_size": t.vocab, "rope_theta": t.rope_theta, "rms_norm_eps": t.rms_norm_eps,
                "max_position_embeddings": t.max_positions, "tie_word_embeddings": t.tied,
                "hidden_act": "silu", "use_sliding_window": false
            }
        })
    }

    /// Tokens per frame after the 2x pool: `ceil(grid / 2)` squared.
    pub fn tokens_per_frame(&self) -> usize {
        self.vision.grid().div_ceil(2).pow(2)
    }

    /// Channels that enter the projector: selected feature maps side by side.
    pub fn feature_channels(&self) -> usize {
        self.vision.hidden * self.feature_layers.len()
    }

    fn check(&self) -> Result<(), String> {
        let (v, t) = (&self.vision, &self.text);
        let positive = [
            v.hidden,
            v.layers,
            v.heads,
            v.patch,
            v.image_size,
            t.hidden,
            t.layers,
            t.heads,
            t.kv_heads,
            t.vocab,
        ];
        if positive.contains(&0) {
            return Err("a size is zero (hidden, layers, heads, patch_size, image_size or vocab_size)".into());
        }
        if v.hidden % v.heads != 0 {
            return Err(format!(
                "vision hidden_size {} is not a multiple of its {} heads",
                v.hidden, v.heads
            ));
        }
        if t.heads % t.kv_heads != 0 {
            return Err(format!("{} attention heads cannot share {} key heads", t.heads, t.kv_heads));
        }
        if t.head_dim % 2 != 0 || t.head_dim == 0 {
            return Err(format!("head_dim is {}; rotary positions need an even number", t.head_dim));
        }
        if v.grid() == 0 {
            return Err(format!("patch_size {} is larger than image_size {}", v.patch, v.image_size));
        }
        Ok(())
    }
}

/// A `vision_feature_layer` (negative counts from the end of `layers + 1` hidden states) as a number of blocks to run.
fn blocks(value: &Value, layers: usize) -> Result<usize, String> {
    let index = value.as_i64().ok_or_else(|| format!("vision_feature_layer {value} is not an integer"))?;
    let count = if index < 0 { layers as i64 + 1 + index } else { index };
    if count < 0 || count > layers as i64 {
        return Err(format!("vision_feature_layer {index} lies outside a tower of {layers} blocks"));
    }
    Ok(count as usize)
}

fn expect(value: &Value, field: &str, supported: &str) -> Result<(), String> {
    match value.get(field).and_then(Value::as_str) {
        None => Ok(()),
        Some(found) if found == supported => Ok(()),
        Some(found) => Err(format!("{field} is {found:?}; only {supported:?} is supported")),
    }
}

fn size(value: &Value, field: &str, default: Option<usize>) -> Result<usize, String> {
    match value.get(field) {
        None | Some(Value::Null) => default.ok_or_else(|| format!("{field} is missing")),
        Some(v) => {
            v.as_u64().map(|n| n as usize).ok_or_else(|| format!("{field} is {v}, not a whole number"))
        }
    }
}

fn real(value: &Value, field: &str, default: f64) -> f64 {
    value.get(field).and_then(Value::as_f64).unwrap_or(default)
}

fn vision_from_hf(v: &Value) -> Result<VisionConfig, String> {
    expect(v, "model_type", "siglip_vision_model")?;
    expect(v, "hidden_act", "gelu_pytorch_tanh")?;
    let within = |e| format!("vision_config: {e}");
    Ok(VisionConfig {
        hidden: size(v, "hidden_size", Some(1152)).map_err(within)?,
        intermediate: size(v, "intermediate_size", Some(4304)).map_err(within)?,
        layers: size(v, "num_hidden_layers", Some(26)).map_err(within)?,
        heads: size(v, "num_attention_heads", Some(16)).map_err(within)?,
        image_size: size(v, "image_size", Some(384)).map_err(within)?,
        patch: size(v, "patch_size", Some(14)).map_err(within)?,
        layer_norm_eps: real(v, "layer_norm_eps", 1e-6),
    })
}

fn text_from_hf(t: &Value, top_tied: Option<bool>) -> Result<TextConfig, String> {
    expect(t, "model_type", "qwen2")?;
    expect(t, "hidden_act", "silu")?;
    if t.get("use_sliding_window").and_then(Value::as_bool) == Some(true) {
        return Err(
            "text_config: use_sliding_window is true; sliding-window attention is not supported".into()
        );
    }
    let rope = t.get("rope_parameters").unwrap_or(&Value::Null);
    let scaling = t.get("rope_scaling").filter(|v| !v.is_null());
    let rope_type =
        rope.get("rope_type").or_else(|| scaling.and_then(|s| s.get("rope_type").or(s.get("type"))));
    if let Some(kind) = rope_type.and_then(Value::as_str).filter(|k| *k != "default") {
        return Err(format!("text_config: rope type {kind:?} is not supported, only \"default\""));
    }
    let within = |e| format!("text_config: {e}");
    let hidden = size(t, "hidden_size", Some(4096)).map_err(within)?;
    let heads = size(t, "num_attention_heads", Some(32)).map_err(within)?;
    Ok(TextConfig {
        hidden,
        intermediate: size(t, "intermediate_size", Some(22_016)).map_err(within)?,
        layers: size(t, "num_hidden_layers", Some(32)).map_err(within)?,
        heads,
        kv_heads: size(t, "num_key_value_heads", Some(32.min(heads))).map_err(within)?,
        head_dim: size(t, "head_dim", Some(hidden / heads.max(1))).map_err(within)?,
        vocab: size(t, "vocab_size", Some(151_936)).map_err(within)?,
        rope_theta: rope
            .get("rope_theta")
            .and_then(Value::as_f64)
            .unwrap_or_else(|| real(t, "rope_theta", 10_000.0)),
        rms_norm_eps: real(t, "rms_norm_eps", 1e-6),
        max_positions: size(t, "max_position_embeddings", Some(32_768)).map_err(within)?,
        tied: t.get("tie_word_embeddings").and_then(Value::as_bool).or(top_tied).unwrap_or(false),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_and_reading_gives_the_same_config() {
        let config = Config {
            vision: VisionConfig {
                hidden: 96,
                intermediate: 256,
                layers: 3,
                heads: 3,
                image_size: 64,
                patch: 16,
                layer_norm_eps: 1e-6,
            },
            text: TextConfig {
                hidden: 128,
                intermediate: 384,
                layers: 4,
                heads: 4,
                kv_heads: 2,
                head_dim: 32,
                vocab: 1024,
                rope_theta: 1e4,
                rms_norm_eps: 1e-6,
                max_positions: 2048,
                tied: true,
            },
            feature_layers: vec![3],
            image_token: 3,
            video_token: 4,
        };
        assert_eq!(Config::from_hf(&config.to_hf()), Ok(config));
    }

    #[test]
    fn penultimate_layer_of_27_is_the_last_of_26() {
        assert_eq!(blocks(&json!(-2), 27), Ok(26));
        assert_eq!(blocks(&json!(-1), 26), Ok(26));
        assert!(blocks(&json!(-29), 27).is_err());
    }

    #[test]
    fn unsupported_networks_are_named() {
        let error = Config::from_hf(&json!({"model_type": "llava"})).unwrap_err();
        assert!(error.contains("llava_onevision"), "{error}");
    }
}
