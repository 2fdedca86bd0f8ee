//! The decoder: Qwen2, dense or quantized, trained or cached.
//!
//! Comes in: embeddings (n, hidden), either packed sequences (training, with gradients) or new rows whose attention over what was read
//! before is the caller's (inference). Goes out: final-normed hidden rows (n, hidden), and logits (n, vocab) on request. Reference: `modeling_qwen2.py`:
//! pre-norm, grouped queries, biases on q, k and v only, rotate-half positions, SwiGLU. No sampling and no text here.

use crate::config::TextConfig;
use crate::error::{Error, Result};
use crate::ops::{self, Packing, Sequence};
use crate::quantized::{Quantized, moved};
use crate::vision::take;
use crate::weights::Weights;
use candle_core::quantized::QTensor;
use candle_core::{Device, Tensor};
use std::path::Path;
use std::sync::Arc;

/// A map, dense or quantized.
enum Linear {
    Dense { weight: Tensor, bias: Option<Tensor>, adapter: Option<Adapter> },
    Quantized { weight: Quantized, bias: Option<Tensor> },
}

/// What a low-rank adapter adds to a map: `x Aᵀ Bᵀ` for `A` (rank, in) and `B` (out, rank), so that no gradient of the map's own matrix is formed.
struct Adapter {
    a: Tensor,
    b: Tensor,
}

impl Adapter {
    /// Where the weights hold the two beside a matrix.
    fn of(weights: &Weights, name: &str) -> Option<Self> {
        let get = |part: &str| weights.get(&format!("{name}.{part}")).cloned();
        Some(Self { a: get("lora_a")?, b: get("lora_b")? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::linear(&ops::linear(x, &self.a, None)?, &self.b, None)?)
    }
}

impl Linear {
    fn dense(weights: &Weights, name: &str, bias: bool) -> Result<Self> {
        let bias = if bias { Some(take(weights, &format!("{name}.bias"))?) } else { None };
        let weight = take(weights, &format!("{name}.weight"))?;
        Ok(Self::Dense { weight, bias, adapter: Adapter::of(weights, name) })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Dense { weight, bias, adapter } => {
                let y = ops::linear(x, weight, bias.as_ref())?;
                Ok(match adapter {
                    Some(adapter) => (y + adapter.forward(x)?)?,
                    None => y,
                })
            }
            Self::Quantized { weight, bias } => {
                let y = weight.forward(x)?;
                Ok(match bias {
                    Some(bias) => y.broadcast_add(bias)?,
                    None => y,
                })
            }
        }
    }
}

/// Token embeddings, dense or as the file has them.
enum Embedding {
    Dense(Tensor),
    Quantized(Quantized),
}

/// One block.
struct Block {
    input_norm: Tensor,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    post_norm: Tensor,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Block {
    fn new(weights: &Weights, index: usize) -> Result<Self> {
        let at = |part: &str| format!("language_model.layers.{index}.{part}");
        Ok(Self {
            input_norm: take(weights, &at("input_layernorm.weight"))?,
            q: Linear::dense(weights, &at("self_attn.q_proj"), true)?,
            k: Linear::dense(weights, &at("self_attn.k_proj"), true)?,
            v: Linear::dense(weights, &at("self_attn.v_proj"), true)?,
            o: Linear::dense(weights, &at("self_attn.o_proj"), false)?,
            post_norm: take(weights, &at("post_attention_layernorm.weight"))?,
            gate: Linear::dense(weights, &at("mlp.gate_proj"), false)?,
            up: Linear::dense(weights, &at("mlp.up_proj"), false)?,
            down: Linear::dense(weights, &at("mlp.down_proj"), false)?,
        })
    }

    /// `attend` turns queries, keys and values (not rotated) into (n, heads * dim).
    fn forward(
        &self,
        x: &Tensor,
        eps: f64,
        attend: impl FnOnce(Tensor, Tensor, Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let h = ops::rms_norm(x, &self.input_norm, eps)?;
        let mixed = attend(self.q.forward(&h)?, self.k.forward(&h)?, self.v.forward(&h)?)?;
        let x = (x + self.o.forward(&mixed)?)?;
        let h = ops::rms_norm(&x, &self.post_norm, eps)?;
        let h = ops::swiglu(&self.gate.forward(&h)?, &self.up.forward(&h)?)?;
        Ok((x + self.down.forward(&h)?)?)
    }
}

/// A norm's scale or a map's bias as f32.
fn vector(stored: QTensor, device: &Device) -> Result<Tensor> {
    Ok(stored.dequantize(&Device::Cpu)?.to_device(device)?)
}

/// The decoder with its weights.
pub struct Qwen2 {
    config: TextConfig,
    embedding: Embedding,
    blocks: Vec<Block>,
    norm: Tensor,
    head: Linear,
}

impl Qwen2 {
    /// Builds the decoder from checked weights.
    pub fn new(config: &TextConfig, weights: &Weights) -> Result<Self> {
        let embedding = take(weights, "language_model.embed_tokens.weight")?;
        let head = match config.tied {
            true => Linear::Dense { weight: embedding.clone(), bias: None, adapter: None },
            false => Linear::dense(weights, "lm_head", false)?,
        };
        Ok(Self {
            config: config.clone(),
            embedding: Embedding::Dense(embedding),
            blocks: (0..config.layers).map(|i| Block::new(weights, i)).collect::<Result<_>>()?,
            norm: take(weights, "language_model.norm.weight")?,
            head,
        })
    }

    /// Loads a quantized decoder onto a device. Matrices stay as the file has them.
    pub fn from_gguf(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let crate::gguf::DecoderFile { config: e, mut tensors, .. } =
            crate::gguf::read_decoder(path.as_ref(), &Device::Cpu)?;
        let config = TextConfig {
            hidden: e.hidden_size,
            intermediate: e.intermediate_size,
            layers: e.num_layers,
            heads: e.num_heads,
            kv_heads: e.num_kv_heads,
            head_dim: e.hidden_size / e.num_heads,
            vocab: e.vocab_size,
            rope_theta: f64::from(e.rope_theta),
            rms_norm_eps: f64::from(e.rms_norm_eps),
            max_positions: e.context_length,
            tied: e.tied,
        };
        Self::quantized(config, device, |name| {
            let reason = || Error::Tensor {
                name: name.into(),
                file: path.as_ref().to_path_buf(),
                reason: "is missing".into(),
            };
            tensors.remove(name).ok_or_else(reason)
        })
    }

    /// Builds a decoder on a device from quantized matrices in memory; `take` is asked once for each name of the GGUF architecture `qwen2`. The table
    /// of embeddings stays in memory: a few rows of it are read, and they come from there.
    pub fn quantized(
        config: TextConfig,
        device: &Device,
        mut take: impl FnMut(&str) -> Result<QTensor>,
    ) -> Result<Self> {
        let table = take("token_embd.weight")?;
        // On a GPU the output head is a copy of its own.
        let head = if config.tied && !device.is_cpu() { Some(moved(&table, device)?) } else { None };
        let table = Quantized::new(table, &Device::Cpu)?;
        let block = |i: usize, take: &mut dyn FnMut(&str) -> Result<QTensor>| -> Result<Block> {
            let mut wide = |part: &str| vector(take(&format!("blk.{i}.{part}"))?, device);
            let (input_norm, post_norm) = (wide("attn_norm.weight")?, wide("ffn_norm.weight")?);
            let biases = [wide("attn_q.bias")?, wide("attn_k.bias")?, wide("attn_v.bias")?];
            let [bq, bk, bv] = biases.map(Some);
            let mut map = |part: &str, bias| {
                let weight = Quantized::new(take(&format!("blk.{i}.{part}.weight"))?, device)?;
                Ok::<_, Error>(Linear::Quantized { weight, bias })
            };
            Ok(Block {
                input_norm,
                q: map("attn_q", bq)?,
                k: map("attn_k", bk)?,
                v: map("attn_v", bv)?,
                o: map("attn_output", None)?,
                post_norm,
                gate: map("ffn_gate", None)?,
                up: map("ffn_up", None)?,
                down: map("ffn_down", None)?,
            })
        };
        let blocks = (0..config.layers).map(|i| block(i, &mut take)).collect::<Result<_>>()?;
        let norm = vector(take("output_norm.weight")?, device)?;
        let weight = match head {
            Some(head) => Quantized::new(head, device)?,
            None if config.tied => table.clone(),
            None => Quantized::new(take("output.weight")?, device)?,
        };
        let head = Linear::Quantized { weight, bias: None };
        Ok(Self { config, embedding: Embedding::Quantized(table), blocks, norm, head })
    }

    /// Sizes.
    pub fn config(&self) -> &TextConfig {
        &self.config
    }

    /// The device the weights are on.
    pub fn device(&self) -> &Device {
        self.norm.device()
    }

    /// Token embeddings (n, hidden), in memory where they are quantized, else where the weights are. An id outside the vocabulary is an error that names it.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        if let Some(bad) = ids.iter().find(|id| **id as usize >= self.config.vocab) {
            return Err(Error::Argument(format!(
                "token {bad} lies outside the vocabulary of {}",
                self.config.vocab
            )));
        }
        match &self.embedding {
            Embedding::Dense(table) => Ok(table.index_select(&Tensor::new(ids, self.device())?, 0)?),
            Embedding::Quantized(table) => table.rows(ids),
        }
    }

    /// How packed sequences attend; positions as [`Sequence::positions`].
    pub(crate) fn packing(&self, sequences: Vec<Sequence>) -> Arc<Packing> {
        let c = &self.config;
        Arc::new(Packing::decoder(sequences, [c.heads, c.kv_heads], c.head_dim, c.rope_theta))
    }

    /// Blocks.
    pub(crate) fn depth(&self) -> usize {
        self.blocks.len()
    }

    /// One block over packed rows (rows, hidden), with gradients.
    pub(crate) fn block(&self, index: usize, x: &Tensor, packing: &Arc<Packing>) -> Result<Tensor> {
        let attend = |q, k, v| Ok(ops::attend_packed(&q, &k, &v, packing)?);
        self.blocks[index].forward(x, self.config.rms_norm_eps, attend)
    }

    /// The last norm, over the rows that left the last block.
    pub(crate) fn last_norm(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::rms_norm(x, &self.norm, self.config.rms_norm_eps)?)
    }

    /// The table of token embeddings (vocab, hidden) of a dense decoder.
    pub(crate) fn table(&self) -> Option<&Tensor> {
        match &self.embedding {
            Embedding::Dense(table) => Some(table),
            Embedding::Quantized(_) => None,
        }
    }

    /// Packed sequences (rows, hidden) to final-normed hidden rows, with gradients; positions as [`Sequence::positions`].
    pub fn forward_packed(&self, x: &Tensor, sequences: Vec<Sequence>) -> Result<Tensor> {
        self.forward_through(x, sequences, |x| x)
    }

    /// The same, with `between` over what goes from block to block.
    pub(crate) fn forward_through(
        &self,
        x: &Tensor,
        sequences: Vec<Sequence>,
        between: impl Fn(Tensor) -> Tensor,
    ) -> Result<Tensor> {
        let packing = self.packing(sequences);
        let mut x = x.clone();
        for index in 0..self.depth() {
            x = between(self.block(index, &x, &packing)?);
        }
        self.last_norm(&x)
    }

    /// New rows (n, hidden) to final-normed hidden rows (n, hidden), where the caller keeps what was read before:
    /// `attend(layer, q, k, v)` turns a layer's queries (n, heads * dim), keys and values (n, kv_heads * dim), not rotated, into (n, heads * dim).
    pub fn forward(
        &self,
        x: &Tensor,
        mut attend: impl FnMut(usize, Tensor, Tensor, Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mut x = x.clone();
        for (layer, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, self.config.rms_norm_eps, |q, k, v| attend(layer, q, k, v))?;
        }
        Ok(ops::rms_norm(&x, &self.norm, self.config.rms_norm_eps)?)
    }

    /// Logits (n, vocab) of final-normed rows (n, hidden).
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.head.forward(hidden)
    }

    /// The output head (vocab, hidden) of a dense decoder.
    pub fn head(&self) -> Result<&Tensor> {
        match &self.head {
            Linear::Dense { weight, .. } => Ok(weight),
            Linear::Quantized { .. } => {
                Err(Error::Argument("a quantized decoder cannot be trained or scored with gradients".into()))
            }
        }
    }
}
