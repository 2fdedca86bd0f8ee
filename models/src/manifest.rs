//! What a bundle says about itself.
//!
//! Comes in and goes out: `manifest.json`, every field required and no other allowed, so that a misspelt or dropped entry
//! is an error. Types only: reading, hashing and checking are in `bundle`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::generate::Sampling;
use crate::gguf::{DecoderExport, Format, StoredTensor};
use crate::onnx::VisionExport;
use crate::preprocess::Preprocessor;

/// The version this program writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// The content of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format; a reader refuses every other one.
    pub format_version: u32,
    /// The model's name.
    pub name: String,
    /// Sizes of the network.
    pub network: Network,
    /// How many frames it sees, and how the window moves.
    pub window: Window,
    /// How answers are drawn unless the user says otherwise.
    pub sampling: Sampling,
    /// How the weights are stored.
    pub quantization: Quantization,
    /// What it needs in memory.
    pub memory: Memory,
    /// Questions with the answers this very bundle gave when it was exported.
    pub golden: Vec<GoldenQuestion>,
    /// Where it comes from.
    pub provenance: Provenance,
    /// Measured scores by name, in percent unless the name says otherwise.
    pub scores: BTreeMap<String, f64>,
    /// Every file but the manifest and its hash, by relative path.
    pub files: BTreeMap<String, FileEntry>,
}

/// Sizes of the network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// How a frame becomes pixels.
    pub preprocess: Preprocessor,
    /// Tower, projector and pool; equal to the configuration inside `vision.onnx`.
    pub vision: VisionExport,
    /// Decoder; equal to the metadata of `decoder.gguf`.
    pub decoder: DecoderExport,
    /// Ids that end an answer.
    pub stop_tokens: Vec<u32>,
}

/// How the window follows a stream (design.md §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WindowMode {
    /// The window is prefilled when a question comes.
    Exact,
    /// Two caches half a window apart are extended as frames come.
    Ahead,
    /// The oldest frame is evicted from one cache.
    Rolling,
}

/// The frame window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Most frames it was trained for, at most 32.
    pub frames: usize,
    /// Frames per second for live sources.
    pub fps: f64,
    /// Mode for live sources.
    pub live_mode: WindowMode,
    /// Accuracy in percent by mode, for the modes that were measured.
    pub accuracy: BTreeMap<WindowMode, f64>,
}

/// How the weights are stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantization {
    /// The format that was asked for.
    pub format: Format,
    /// How each decoder tensor was stored in the end.
    pub tensors: Vec<StoredTensor>,
}

/// Memory needs in bytes, for a full window and the longest answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Weights as loaded.
    pub weights: u64,
    /// Encoded frames of one window.
    pub window: u64,
    /// Keys and values of one cache.
    pub kv: u64,
    /// Largest intermediate results.
    pub scratch: u64,
}

impl Memory {
    /// What a network needs for `frames` frames and an answer of `answer` tokens with a question of up to 512, in f32, beside the
    /// `weights` bytes that its weights take as loaded.
    pub fn needs(config: &Config, weights: u64, frames: usize, answer: usize) -> Self {
        let (vision, text) = (&config.vision, &config.text);
        let visual = frames * config.tokens_per_frame();
        let positions = (visual + 1 + answer + 512).min(text.max_positions);
        let patches = vision.grid() * vision.grid();
        // Frames go through the tower eight at a time, one per core or one after the other; the first is the most.
        let tower = 8 * patches * (vision.hidden * 6 + vision.intermediate + patches);
        // The prompt is read in pieces of 256 rows.
        let reading = 256 * (positions + text.intermediate * 2 + text.hidden * 6) + text.vocab;
        Self {
            weights,
            window: (visual * text.hidden * 4) as u64,
            kv: (text.layers * positions * text.kv_heads * text.head_dim * 2 * 4) as u64,
            scratch: (tower.max(reading) * 4) as u64,
        }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        [self.weights, self.window, self.kv, self.scratch]
            .iter()
            .fold(0, |sum, part| sum.saturating_add(*part))
    }
}

/// A question to replay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenQuestion {
    /// The clip: a folder of frames inside the bundle, or a `test://` source.
    pub source: String,
    /// Frames taken uniformly from it.
    pub frames: usize,
    /// The question.
    pub question: String,
    /// The greedy answer.
    pub answer: String,
    /// The answer's token ids, without the end token.
    pub tokens: Vec<u32>,
}

/// Where a bundle comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Program and version that exported it.
    pub exporter: String,
    /// The recipe, as text.
    pub recipe: String,
    /// Seeds by what they seeded.
    pub seeds: BTreeMap<String, u64>,
    /// Training samples by data set.
    pub data: BTreeMap<String, u64>,
    /// Hours of training.
    pub hours: f64,
}

/// Size and hash of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Length.
    pub bytes: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
}
