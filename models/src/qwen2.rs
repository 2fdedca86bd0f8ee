//! The decoder: Qwen2, dense or quantized, trained or cached.
//!
//! Comes in: embeddings (n, hidden), either packed sequences (training, with gradients) or new rows behind a key-value cache
//! (inference). Goes out: final-normed hidden rows (n, hidden), and logits (n, vocab) on request. Reference: `modeling_qwen2.py`:
//! pre-norm, grouped queries, biases on q, k and v only, rotate-half positions, SwiGLU. No sampling and no text here.

use crate::config::TextConfig;
use crate::error::{Error, Result};
use crate::ops::{self, Packing, Rope, Sequence};
use crate::vision::take;
use crate::weights::Weights;
use candle_core::quantized::{QMatMul, QTensor};
use candle_core::{Device, Module, Tensor};
use std::path::Path;
use std::sync::Arc;

/// A map, dense or quantized.
enum Linear {
    Dense { weight: Tensor, bias: Option<Tensor> },
    Quantized { weight: QMatMul, bias: Option<Tensor> },
}

impl Linear {
    fn dense(weights: &Weights, name: &str, bias: bool) -> Result<Self> {
        let bias = if bias { Some(take(weights, &format!("{name}.bias"))?) } else { None };
        Ok(Self::Dense { weight: take(weights, &format!("{name}.weight"))?, bias })
    }

    fn quantized(weight: QTensor, bias: Option<Tensor>) -> Result<Self> {
        Ok(Self::Quantized { weight: QMatMul::from_qtensor(weight)?, bias })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Dense { weight, bias } => Ok(ops::linear(x, weight, bias.as_ref())?),
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

/// Rotated keys and values of everything read so far, per layer (capacity, kv_heads * dim).
#[derive(Default)]
pub struct KvCache {
    layers: Vec<Option<(Tensor, Tensor)>>,
    len: usize,
}

impl KvCache {
    /// Rows held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has been read.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all rows from `len` on; longer than held is no change.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// An independent copy: later rows of one are not seen by the other.
    pub fn fork(&self) -> Result<Self> {
        let copy = |pair: &Option<(Tensor, Tensor)>| match pair {
            Some((k, v)) => Ok(Some((k.copy()?, v.copy()?))),
            None => Ok(None),
        };
        Ok(Self { layers: self.layers.iter().map(copy).collect::<Result<_>>()?, len: self.len })
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        let size = |t: &Tensor| t.elem_count() * t.dtype().size_in_bytes();
        self.layers.iter().flatten().map(|(k, v)| size(k) + size(v)).sum()
    }

    /// Writes rows behind the held ones of a layer; returns all keys and values, the new ones included.
    fn append(&mut self, layer: usize, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
        if self.layers.len() <= layer {
            self.layers.resize_with(layer + 1, || None);
        }
        let (rows, width) = k.dims2()?;
        let need = self.len + rows;
        let slot =
            self.layers.get_mut(layer).ok_or_else(|| Error::Argument("cache layer out of range".into()))?;
        let (keys, values) = match slot.take() {
            Some((keys, values)) if keys.dim(0)? >= need => (keys, values),
            old => {
                let capacity = need.next_multiple_of(256).max(2 * self.len);
                let fresh = |like: &Tensor| Tensor::zeros((capacity, width), like.dtype(), like.device());
                let (keys, values) = (fresh(k)?, fresh(v)?);
                if let Some((old_keys, old_values)) = old.filter(|_| self.len > 0) {
                    keys.slice_set(&old_keys.narrow(0, 0, self.len)?.contiguous()?, 0, 0)?;
                    values.slice_set(&old_values.narrow(0, 0, self.len)?.contiguous()?, 0, 0)?;
                }
                (keys, values)
            }
        };
        keys.slice_set(&k.contiguous()?, 0, self.len)?;
        values.slice_set(&v.contiguous()?, 0, self.len)?;
        let seen = (keys.narrow(0, 0, need)?, values.narrow(0, 0, need)?);
        *slot = Some((keys, values));
        Ok(seen)
    }
}

/// The decoder with its weights.
pub struct Qwen2 {
    config: TextConfig,
    embedding: Tensor,
    blocks: Vec<Block>,
    norm: Tensor,
    head: Linear,
}

impl Qwen2 {
    /// Builds the decoder from checked weights.
    pub fn new(config: &TextConfig, weights: &Weights) -> Result<Self> {
        let embedding = take(weights, "language_model.embed_tokens.weight")?;
        let head = match config.tied {
            true => Linear::Dense { weight: embedding.clone(), bias: None },
            false => Linear::dense(weights, "lm_head", false)?,
        };
        Ok(Self {
            config: config.clone(),
            embedding,
            blocks: (0..config.layers).map(|i| Block::new(weights, i)).collect::<Result<_>>()?,
            norm: take(weights, "language_model.norm.weight")?,
            head,
        })
    }

    /// Loads a quantized decoder. Matrices stay as the file has them; the embedding table is widened to f32.
    pub fn from_gguf(path: impl AsRef<Path>) -> Result<Self> {
        let device = Device::Cpu;
        let crate::gguf::DecoderFile { config: e, mut tensors, .. } =
            crate::gguf::read_decoder(path.as_ref(), &device)?;
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
        let mut take = |name: String| {
            let reason = || Error::Tensor {
                name: name.clone(),
                file: path.as_ref().to_path_buf(),
                reason: "is missing".into(),
            };
            tensors.remove(&name).ok_or_else(reason)
        };
        let table = take("token_embd.weight".into())?;
        let embedding = table.dequantize(&device)?;
        let block = |i: usize, take: &mut dyn FnMut(String) -> Result<QTensor>| -> Result<Block> {
            let mut wide = |part: &str| Ok::<_, Error>(take(format!("blk.{i}.{part}"))?.dequantize(&device)?);
            let (input_norm, post_norm) = (wide("attn_norm.weight")?, wide("ffn_norm.weight")?);
            let biases = [wide("attn_q.bias")?, wide("attn_k.bias")?, wide("attn_v.bias")?];
            let [bq, bk, bv] = biases.map(Some);
            let mut map = |part: &str, bias| Linear::quantized(take(format!("blk.{i}.{part}.weight"))?, bias);
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
        let norm = take("output_norm.weight".into())?.dequantize(&device)?;
        let head = if config.tied { table } else { take("output.weight".into())? };
        Ok(Self { config, embedding, blocks, norm, head: Linear::quantized(head, None)? })
    }

    /// Sizes.
    pub fn config(&self) -> &TextConfig {
        &self.config
    }

    /// The device the weights are on.
    pub fn device(&self) -> &Device {
        self.embedding.device()
    }

    /// Token embeddings (n, hidden). An id outside the vocabulary is an error that names it.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        if let Some(bad) = ids.iter().find(|id| **id as usize >= self.config.vocab) {
            return Err(Error::Argument(format!(
                "token {bad} lies outside the vocabulary of {}",
                self.config.vocab
            )));
        }
        Ok(self.embedding.index_select(&Tensor::new(ids, self.device())?, 0)?)
    }

    /// Packed sequences (rows, hidden) to final-normed hidden rows, with gradients; positions as [`Sequence::positions`].
    pub fn forward_packed(&self, x: &Tensor, sequences: Vec<Sequence>) -> Result<Tensor> {
        let c = &self.config;
        let packing = Arc::new(Packing::decoder(sequences, [c.heads, c.kv_heads], c.head_dim, c.rope_theta));
        let mut x = x.clone();
        for block in &self.blocks {
            x = block.forward(&x, c.rms_norm_eps, |q, k, v| Ok(ops::attend_packed(&q, &k, &v, &packing)?))?;
        }
        Ok(ops::rms_norm(&x, &self.norm, c.rms_norm_eps)?)
    }

    /// New rows (n, hidden) at `positions` behind the cache, to final-normed hidden rows (n, hidden); the cache grows by n.
    pub fn forward(&self, x: &Tensor, positions: &[u32], cache: &mut KvCache) -> Result<Tensor> {
        let c = &self.config;
        let rows = x.dim(0)?;
        if positions.len() != rows {
            return Err(Error::Argument(format!("{rows} rows came with {} positions", positions.len())));
        }
        let rope = Rope::new(positions.iter().copied(), c.head_dim, c.rope_theta);
        let mut x = x.clone();
        for (layer, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, c.rms_norm_eps, |q, k, v| {
                let (q, k) = (ops::rotate(&q, &rope)?, ops::rotate(&k, &rope)?);
                let (k, v) = cache.append(layer, &k, &v)?;
                Ok(ops::attend_cached(&q, &k, &v, c.heads, c.kv_heads)?)
            })?;
        }
        cache.len += rows;
        Ok(ops::rms_norm(&x, &self.norm, c.rms_norm_eps)?)
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
