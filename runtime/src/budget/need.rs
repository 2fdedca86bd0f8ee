//! What a model needs in memory, by how its window is followed and by what computes.
//!
//! Comes in: a manifest, or a configuration and the bytes of its weights. Goes out: [`Sizes`], from them the
//! [`Need`] of a [`Choice`] with its engines, and the service's limit. Everything saturates: a manifest with
//! absurd sizes needs too much, no more. Nothing is measured or refused here.

use serde::Serialize;
use utr_models::bundle::DECODER;
use utr_models::config::TextConfig;
use utr_models::generate::Sampling;
use utr_models::gguf::Format;
use utr_models::manifest::{Manifest, Memory, WindowMode};
use utr_models::{Config, DeviceChoice};

use super::packed::{self, Second};
use crate::board::Board;
use crate::decode::{KvPrecision, KvShape};
use crate::encode::{EncoderKind, Engines};
use crate::prefill;
use crate::window::CAPACITY;

/// What the program itself takes beside the model: code, GStreamer with one decoder, and frames at source size.
const PROGRAM: u64 = 64 << 20;
/// What a camera of 3840x2160 takes that is decoded in software: the decoder's pictures (12 MB each), a queue
/// of them, and some as RGB (25 MB each).
const SOURCE: u64 = 384 << 20;
/// Tokens of the prompt and the question that are counted on.
const TEXT: usize = 512;
/// No decoder has more blocks, heads or channels than this.
const MOST: usize = 1 << 16;

/// How the window is wished for; what is left open is the model's to say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wish {
    /// Frames of the window.
    pub frames: Option<usize>,
    /// How it slides.
    pub mode: Option<WindowMode>,
    /// How keys and values are stored.
    pub kv: KvPrecision,
}

impl Wish {
    /// The model's own window, read when a question comes.
    pub fn exact() -> Self {
        Self { mode: Some(WindowMode::Exact), ..Self::default() }
    }

    /// As golden questions are asked.
    pub fn golden() -> Self {
        Self { kv: KvPrecision::F32, ..Self::exact() }
    }

    /// The smallest window there is.
    pub fn least() -> Self {
        Self { frames: Some(1), kv: KvPrecision::Q8, ..Self::exact() }
    }
}

/// How the window is followed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// Frames of the window.
    pub frames: usize,
    /// How it slides.
    pub mode: WindowMode,
    /// How keys and values are stored.
    pub kv: KvPrecision,
}

/// Bytes that a choice needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Need {
    /// Weights as loaded.
    pub weights: u64,
    /// The decoder's matrices once more, as the processor multiplies with them; zero where it takes them as they are.
    pub packed: u64,
    /// Encoded frames.
    pub window: u64,
    /// Keys and values of the window, the prompt, the question and the answer.
    pub kv: u64,
    /// Largest intermediate results.
    pub scratch: u64,
    /// The program itself.
    pub program: u64,
    /// What engines take beside the weights: libraries, contexts, workspaces.
    pub engines: u64,
}

impl Need {
    /// All of it.
    pub fn total(&self) -> u64 {
        let Self { weights, packed, window, kv, scratch, program, engines } = *self;
        let parts = [weights, packed, window, kv, scratch, program, engines];
        parts.into_iter().fold(0, u64::saturating_add)
    }
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "weights {}, ", size(self.weights))?;
        if self.packed > 0 {
            write!(f, "once more for the processor's products {}, ", size(self.packed))?;
        }
        let [window, kv, scratch, program] = [self.window, self.kv, self.scratch, self.program].map(size);
        write!(f, "window {window}, keys and values {kv}, scratch {scratch}, program {program}")?;
        if self.engines > 0 {
            write!(f, ", engines {}", size(self.engines))?;
        }
        Ok(())
    }
}

/// What decides how much memory a model needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Sizes {
    name: String,
    memory: Memory,
    shape: KvShape,
    /// T: visual tokens of one frame.
    tokens: usize,
    /// Frames of its own window, for which `memory.window` is meant.
    frames: usize,
    live: WindowMode,
    /// Rows of the prompt, the question and the answer.
    text: usize,
    /// Bytes of the decoder's quantized matrices, and how they are quantized; none where they are not.
    matrices: Option<(u64, Format)>,
    /// The copy of them that the processor works on, and the one that it would of matrices in 4 bits.
    second: Second,
    second_of_q4: Second,
}

impl Sizes {
    /// By a bundle's manifest.
    pub fn of_manifest(manifest: &Manifest) -> Self {
        let decoder = &manifest.network.decoder;
        let dim = decoder.hidden_size / decoder.num_heads.max(1);
        let sizes = Self {
            name: manifest.name.clone(),
            memory: manifest.memory,
            shape: KvShape { layers: decoder.num_layers, kv_heads: decoder.num_kv_heads, dim },
            tokens: manifest.network.vision.tokens(),
            frames: manifest.window.frames.clamp(1, CAPACITY),
            live: manifest.window.live_mode,
            text: TEXT + 1 + manifest.sampling.max_tokens.min(decoder.context_length),
            matrices: None,
            second: Second::None,
            second_of_q4: packed::here(Format::Q4_0),
        };
        let bytes = manifest.files.get(DECODER).map_or(0, |file| file.bytes);
        sizes.with_matrices(bytes, manifest.quantization.format)
    }

    /// By a configuration whose weights take this many bytes as loaded.
    pub fn of_config(name: &str, config: &Config, weights: u64) -> Self {
        let answer = Sampling::default().max_tokens;
        let memory = Memory::needs(config, weights, CAPACITY, answer);
        Self::of_decoder(name, &config.text, memory, config.tokens_per_frame())
    }

    /// By a decoder's configuration, and what the whole model needs for a full window.
    pub fn of_decoder(name: &str, text: &TextConfig, memory: Memory, tokens: usize) -> Self {
        Self {
            name: name.into(),
            memory,
            shape: KvShape { layers: text.layers, kv_heads: text.kv_heads, dim: text.head_dim },
            tokens,
            frames: CAPACITY,
            live: WindowMode::Rolling,
            text: TEXT + 1 + Sampling::default().max_tokens,
            matrices: None,
            second: Second::None,
            second_of_q4: packed::here(Format::Q4_0),
        }
    }

    /// With quantized matrices of this many bytes in the decoder, of which this machine may keep a second copy.
    pub fn with_matrices(self, bytes: u64, format: Format) -> Self {
        Self { matrices: Some((bytes, format)), second: packed::here(format), ..self }
    }

    /// With this copy of the matrices, whatever this machine does.
    pub fn with_second(self, second: Second) -> Self {
        Self { second, ..self }
    }

    /// The same model on a board.
    pub fn on(&self, board: &Board) -> Self {
        let second = self.matrices.map_or(Second::None, |(_, format)| packed::on(board, format));
        Self { second_of_q4: packed::on(board, Format::Q4_0), ..self.clone().with_second(second) }
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The copy of matrices in 4 bits that the processor would work on.
    pub fn second_of_q4(&self) -> Second {
        self.second_of_q4
    }

    /// Sizes of its keys and values.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// A wish with the model's own window where it leaves something open.
    pub fn choice(&self, wish: Wish) -> Choice {
        let frames = wish.frames.unwrap_or(self.frames).clamp(1, CAPACITY);
        Choice { frames, mode: wish.mode.unwrap_or(self.live), kv: wish.kv }
    }

    /// What a choice needs, computed by these engines.
    pub fn need(&self, choice: Choice, engines: Engines) -> Need {
        let Memory { weights, window, scratch, .. } = self.memory;
        let frames = prefill::spans(choice.mode, choice.frames).max(choice.frames);
        let rows = frames.saturating_mul(self.tokens).saturating_add(self.text);
        let window = window.div_ceil(self.frames as u64).saturating_mul(choice.frames as u64);
        let packed = self.matrices.map_or(0, |(bytes, format)| self.second.bytes(bytes, format));
        let (kv, engines) = (self.rows(choice.kv, rows), taken_by(engines));
        Need { weights, packed, window, kv, scratch, program: PROGRAM, engines }
    }

    /// Keys and values of this many rows.
    fn rows(&self, kv: KvPrecision, rows: usize) -> u64 {
        let KvShape { layers, kv_heads, dim } = self.shape;
        let bounded = KvShape { layers: layers.min(MOST), kv_heads: kv_heads.min(MOST), dim: dim.min(MOST) };
        (bounded.bytes(kv, 1) as u64).saturating_mul(rows as u64)
    }
}

/// What engines take beside the weights: libraries, contexts, workspaces. Generous guesses, none of them measured
/// on a board.
fn taken_by(engines: Engines) -> u64 {
    let encoder = match engines.encoder {
        None | Some(EncoderKind::Tract | EncoderKind::Candle) => 0,
        Some(EncoderKind::Ort) => 256 << 20,
        Some(EncoderKind::OrtCuda | EncoderKind::OrtTensorrt) => 2 << 30,
    };
    encoder + if engines.device == DeviceChoice::Cpu { 0 } else { 2 << 30 }
}

/// A limit for systemd's `MemoryMax=`, bytes in whole MiB: what the choice needs with its engines, one more
/// window for a question under other instructions, a source of large pictures, and a quarter above, so that a
/// leak ends in a restart and nothing else does.
pub fn memory_max(sizes: &Sizes, choice: Choice, engines: Engines) -> u64 {
    let again = match choice.mode {
        WindowMode::Exact => 0,
        WindowMode::Ahead | WindowMode::Rolling => {
            sizes.rows(choice.kv, choice.frames.saturating_mul(sizes.tokens))
        }
    };
    let all = sizes.need(choice, engines).total().saturating_add(again).saturating_add(SOURCE);
    all.saturating_add(all / 4) >> 20 << 20
}

/// How a window slides, as the command line spells it.
pub fn mode_name(mode: WindowMode) -> &'static str {
    match mode {
        WindowMode::Exact => "exact",
        WindowMode::Ahead => "ahead",
        WindowMode::Rolling => "rolling",
    }
}

/// Bytes for people: MiB, rounded up, or GiB.
pub fn size(bytes: u64) -> String {
    if bytes < 1 << 30 {
        format!("{} MiB", bytes.div_ceil(1 << 20))
    } else {
        format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
    }
}

#[cfg(test)]
#[path = "need_tests.rs"]
mod tests;
