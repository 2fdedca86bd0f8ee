//! The decoder as a `qwen2` GGUF file, which llama.cpp loads too.
//!
//! Comes in: sizes, tensors under their Hugging Face names (reference.md §1.6, layout A), a tokenizer folder and a number
//! format. Goes out: one file with exactly the tensors and metadata of the architecture, nothing of the vision side; and
//! back, its configuration and quantized tensors. Queries and keys are not permuted: Qwen2 rotates halves, and so does
//! llama.cpp for this architecture. Norms and biases stay f32. Nothing is computed with the tensors here.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::BufReader;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::error::{Error, Result};
use crate::gguf_vocab::vocabulary;
use crate::onnx::TensorSource;

const ARCHITECTURE: &str = "qwen2";

/// Number format of the matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 8.5 bits per weight: blocks of 32 with one scale.
    Q8_0,
    /// 4.5 bits per weight: blocks of 32 with one scale.
    Q4_0,
    /// 4.5 bits per weight: blocks of 256 with scales and minima.
    Q4K,
}

impl Format {
    /// The name on the command line and in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q4K => "q4_k",
        }
    }

    /// The format's type for ordinary matrices.
    fn matrix(self) -> GgmlDType {
        match self {
            Self::F32 => GgmlDType::F32,
            Self::F16 => GgmlDType::F16,
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q4_0 => GgmlDType::Q4_0,
            Self::Q4K => GgmlDType::Q4K,
        }
    }

    /// How many weights lie in so many bytes.
    pub fn weights(self, bytes: u64) -> u64 {
        let kind = self.matrix();
        (bytes / kind.type_size() as u64).saturating_mul(kind.block_size() as u64)
    }

    /// llama.cpp's `general.file_type`: the kind most tensors have.
    fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 7,
            Self::Q4_0 => 2,
            Self::Q4K => 14,
        }
    }

    /// The type for a tensor: f32 for vectors; six or eight bits for the vocabulary matrices of four-bit formats, which
    /// suffer most; a coarser block or plain f32 where the row does not divide into blocks.
    fn stored(self, name: &str, shape: &[usize]) -> GgmlDType {
        let [_, row] = *shape else { return GgmlDType::F32 };
        let vocabulary = matches!(name, "token_embd.weight" | "output.weight");
        let wanted = match self {
            Self::Q4_0 | Self::Q4K if vocabulary => GgmlDType::Q6K,
            _ => self.matrix(),
        };
        let fits = |dtype: &GgmlDType| row.is_multiple_of(dtype.block_size());
        [wanted, GgmlDType::Q8_0, GgmlDType::F32].into_iter().find(fits).unwrap_or(GgmlDType::F32)
    }
}

impl std::str::FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [Self::F32, Self::F16, Self::Q8_0, Self::Q4_0, Self::Q4K];
        all.into_iter().find(|f| f.as_str() == text).ok_or_else(|| {
            Error::Argument(format!("unknown format {text:?}: choose {}", all.map(Self::as_str).join(", ")))
        })
    }
}

/// Sizes of the decoder (reference.md §1.5).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderExport {
    /// Width.
    pub hidden_size: usize,
    /// Width inside the MLPs.
    pub intermediate_size: usize,
    /// Blocks.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Rows of the embedding, at least the tokenizer's vocabulary.
    pub vocab_size: usize,
    /// Longest sequence the positions were trained for.
    pub context_length: usize,
    /// Epsilon of the RMS norms.
    pub rms_norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// Whether the output matrix is the embedding.
    pub tied: bool,
}

/// One tensor of the architecture under both names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorName {
    /// Layout A of Hugging Face's LLaVA-OneVision.
    pub hugging_face: String,
    /// In the GGUF file.
    pub gguf: String,
    /// Its shape: (out, in) or (size,).
    pub shape: Vec<usize>,
}

impl DecoderExport {
    /// All tensors of the file, in its order.
    pub fn tensor_names(&self) -> Vec<TensorName> {
        let (d, m) = (self.hidden_size, self.intermediate_size);
        let kv = d / self.num_heads.max(1) * self.num_kv_heads;
        let entry = |hugging_face: String, gguf: String, shape: &[usize]| TensorName {
            hugging_face: format!("language_model.{hugging_face}"),
            gguf,
            shape: shape.to_vec(),
        };
        let top = |hf: &str, gguf: &str, shape: &[usize]| entry(hf.into(), gguf.into(), shape);
        let mut names = vec![top("model.embed_tokens.weight", "token_embd.weight", &[self.vocab_size, d])];
        for n in 0..self.num_layers {
            let block: [(&str, &str, &[usize]); 12] = [
                ("input_layernorm.weight", "attn_norm.weight", &[d]),
                ("self_attn.q_proj.weight", "attn_q.weight", &[d, d]),
                ("self_attn.q_proj.bias", "attn_q.bias", &[d]),
                ("self_attn.k_proj.weight", "attn_k.weight", &[kv, d]),
                ("self_attn.k_proj.bias", "attn_k.bias", &[kv]),
                ("self_attn.v_proj.weight", "attn_v.weight", &[kv, d]),
                ("self_attn.v_proj.bias", "attn_v.bias", &[kv]),
                ("self_attn.o_proj.weight", "attn_output.weight", &[d, d]),
                ("post_attention_layernorm.weight", "ffn_norm.weight", &[d]),
                ("mlp.gate_proj.weight", "ffn_gate.weight", &[m, d]),
                ("mlp.up_proj.weight", "ffn_up.weight", &[m, d]),
                ("mlp.down_proj.weight", "ffn_down.weight", &[d, m]),
            ];
            names.extend(block.map(|(hf, gguf, shape)| {
                entry(format!("model.layers.{n}.{hf}"), format!("blk.{n}.{gguf}"), shape)
            }));
        }
        names.push(top("model.norm.weight", "output_norm.weight", &[d]));
        if !self.tied {
            names.push(top("lm_head.weight", "output.weight", &[self.vocab_size, d]));
        }
        names
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let sizes =
            [self.hidden_size, self.intermediate_size, self.num_heads, self.num_kv_heads, self.vocab_size];
        let divides = !sizes.contains(&0)
            && self.hidden_size.is_multiple_of(self.num_heads)
            && (self.hidden_size / self.num_heads).is_multiple_of(2)
            && self.num_heads.is_multiple_of(self.num_kv_heads);
        if !divides {
            return Err(Error::Argument(format!(
                "not a Qwen2 decoder (sizes above zero, heads dividing the width into an even number, key heads dividing the \
                 heads): {self:?}"
            )));
        }
        Ok(())
    }

    fn metadata(&self) -> Vec<(String, Value)> {
        let number = |value: usize| Value::U32(value as u32);
        let entries = [
            ("block_count", number(self.num_layers)),
            ("context_length", number(self.context_length)),
            ("embedding_length", number(self.hidden_size)),
            ("feed_forward_length", number(self.intermediate_size)),
            ("attention.head_count", number(self.num_heads)),
            ("attention.head_count_kv", number(self.num_kv_heads)),
            ("attention.layer_norm_rms_epsilon", Value::F32(self.rms_norm_eps)),
            ("rope.freq_base", Value::F32(self.rope_theta)),
        ];
        entries.into_iter().map(|(key, value)| (format!("{ARCHITECTURE}.{key}"), value)).collect()
    }
}

/// How one tensor was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredTensor {
    /// Its GGUF name.
    pub name: String,
    /// The type in the file, for example `q8_0`.
    pub dtype: String,
}

/// Writes the file and returns how each tensor was stored, so that a manifest can record where a row did not divide.
///
/// `tokenizer` is a folder with `tokenizer.json` and, for the chat template and the end token, `tokenizer_config.json`.
pub fn write_decoder(
    path: &Path,
    model_name: &str,
    config: &DecoderExport,
    format: Format,
    tokenizer: &Path,
    tensors: &TensorSource<'_>,
) -> Result<Vec<StoredTensor>> {
    config.validate()?;
    let text = |value: &str| Value::String(value.to_owned());
    let mut metadata = vec![
        ("general.architecture".to_owned(), text(ARCHITECTURE)),
        ("general.name".to_owned(), text(model_name)),
        ("general.file_type".to_owned(), Value::U32(format.file_type())),
        ("general.quantization_version".to_owned(), Value::U32(2)),
    ];
    metadata.extend(config.metadata());
    metadata.extend(vocabulary(tokenizer, config.vocab_size)?);
    let mut stored = Vec::new();
    let mut quantized = Vec::new();
    for TensorName { hugging_face, gguf, shape } in config.tensor_names() {
        let (found, values) = tensors(&hugging_face)?;
        if found != shape {
            let reason = format!("the configuration asks for shape {shape:?}, the tensor has {found:?}");
            return Err(Error::Tensor { name: hugging_face, file: path.to_path_buf(), reason });
        }
        let dtype = format.stored(&gguf, &shape);
        let tensor = QTensor::quantize(&Tensor::from_vec(values, shape, &Device::Cpu)?, dtype)?;
        stored.push(StoredTensor { name: gguf.clone(), dtype: format!("{dtype:?}").to_lowercase() });
        quantized.push((gguf, tensor));
    }
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let quantized: Vec<(&str, &QTensor)> =
        quantized.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    atomic::write_with(path, |file| gguf_file::write(file, &metadata, &quantized).map_err(Error::from))?;
    Ok(stored)
}

/// A decoder read back.
#[derive(Debug)]
pub struct DecoderFile {
    /// Sizes, from metadata and tensors.
    pub config: DecoderExport,
    /// All metadata of the file.
    pub metadata: HashMap<String, Value>,
    /// Tensors by GGUF name, as they are stored.
    pub tensors: BTreeMap<String, QTensor>,
}

/// Reads a `qwen2` GGUF file onto `device`. A missing, extra or misshapen tensor is an error that names it.
pub fn read_decoder(path: &Path, device: &Device) -> Result<DecoderFile> {
    let bad = |e: candle_core::Error| Error::format(path, format!("not a readable GGUF file: {e}"));
    let mut reader = BufReader::new(File::open(path).map_err(Error::io(path))?);
    // The reader divides by what the header says (`general.alignment`); a hostile one must not end the program.
    let content = catch_unwind(AssertUnwindSafe(|| gguf_file::Content::read(&mut reader)))
        .map_err(|_| Error::format(path, "not a readable GGUF file: its header makes no sense"))?
        .map_err(bad)?;
    let config = read_config(path, &content)?;
    let fail =
        |name: &str, reason: String| Error::Tensor { name: name.into(), file: path.to_path_buf(), reason };
    let mut tensors = BTreeMap::new();
    for TensorName { gguf, shape, .. } in config.tensor_names() {
        let info = content.tensor_infos.get(&gguf).ok_or_else(|| fail(&gguf, "missing".into()))?;
        if info.shape.dims() != shape {
            return Err(fail(&gguf, format!("expected shape {shape:?}, found {:?}", info.shape.dims())));
        }
        let tensor = content.tensor(&mut reader, &gguf, device).map_err(|e| fail(&gguf, e.to_string()))?;
        tensors.insert(gguf, tensor);
    }
    if let Some(extra) = content.tensor_infos.keys().filter(|name| !tensors.contains_key(*name)).min() {
        return Err(fail(extra, "not a tensor of the qwen2 architecture".into()));
    }
    Ok(DecoderFile { config, metadata: content.metadata, tensors })
}

fn read_config(path: &Path, content: &gguf_file::Content) -> Result<DecoderExport> {
    let missing = |key: &str| Error::format(path, format!("metadata {key} is missing or of another type"));
    let architecture = content.metadata.get("general.architecture").and_then(|v| v.to_string().ok());
    if architecture.map(String::as_str) != Some(ARCHITECTURE) {
        let reason = format!("architecture {architecture:?}; only {ARCHITECTURE} decoders are supported");
        return Err(Error::format(path, reason));
    }
    let value = |key: &str| {
        let key = format!("{ARCHITECTURE}.{key}");
        content.metadata.get(&key).ok_or_else(|| missing(&key))
    };
    let number = |key: &str| value(key)?.to_u64().map(|n| n as usize).map_err(|_| missing(key));
    let float = |key: &str| value(key)?.to_f32().map_err(|_| missing(key));
    let embedding = content.tensor_infos.get("token_embd.weight").map(|info| info.shape.dims());
    let config = DecoderExport {
        hidden_size: number("embedding_length")?,
        intermediate_size: number("feed_forward_length")?,
        num_layers: number("block_count")?,
        num_heads: number("attention.head_count")?,
        num_kv_heads: number("attention.head_count_kv")?,
        vocab_size: embedding.and_then(|dims| dims.first().copied()).unwrap_or(0),
        context_length: number("context_length")?,
        rms_norm_eps: float("attention.layer_norm_rms_epsilon")?,
        rope_theta: float("rope.freq_base")?,
        tied: !content.tensor_infos.contains_key("output.weight"),
    };
    // Bounds what a hostile header can make the loops below do.
    if config.num_layers > content.tensor_infos.len() {
        return Err(Error::format(
            path,
            format!("claims {} blocks, more than its tensors", config.num_layers),
        ));
    }
    config.validate().map_err(|e| Error::format(path, e.to_string()))?;
    Ok(config)
}

#[cfg(test)]
#[path = "gguf_tests.rs"]
mod tests;
