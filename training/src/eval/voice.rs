//! The model that is scored, as the runtime runs it, on one thread.
//!
//! Comes in: a bundle or Hugging Face folder, frames, questions. Goes out: greedy replies through the tokenizer's chat template. A second
//! question about the same frames costs only its own tokens. Files are decoded and sampled as `utr ask` does it.

use anyhow::Result;
use std::path::Path;
use std::sync::Arc;
use utr_models::generate::Sampling as Decoding;
use utr_runtime::answer::Question;
use utr_runtime::capture::{CaptureOptions, Frame};
use utr_runtime::decode::KvPrecision;
use utr_runtime::interrupt::Interrupt;
use utr_runtime::load::Model;
use utr_runtime::pipeline::{Pipeline, Settings};
use utr_runtime::sample::{Sampled, Sampling, sample};
use utr_runtime::source::Source;

use super::FRAMES;

/// A model with its window and a thread of its own.
pub struct Voice {
    pipeline: Pipeline,
    pool: rayon::ThreadPool,
}

impl Voice {
    /// The whole window is read when a question comes.
    ///
    /// # Errors
    /// A model that cannot be opened or does not fit.
    pub fn open(folder: &Path, kv: KvPrecision) -> Result<Self> {
        Self::with(folder, &Settings { kv, ..Settings::exact(FRAMES) })
    }

    /// With a window of its own kind.
    ///
    /// # Errors
    /// As [`Voice::open`].
    pub fn with(folder: &Path, settings: &Settings) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
        let pipeline = Pipeline::new(Model::open(folder, None)?, settings, Interrupt::default())?;
        Ok(Self { pipeline, pool })
    }

    /// Empties the window.
    pub fn clear(&mut self) {
        self.pipeline.clear();
    }

    /// Shows frames.
    ///
    /// # Errors
    /// Whatever the encoder reports.
    pub fn see(&mut self, frames: &[Arc<Frame>]) -> Result<()> {
        Ok(self.pool.install(|| self.pipeline.see(frames))?)
    }

    /// The greedy reply of at most `tokens` tokens.
    ///
    /// # Errors
    /// A question that is too long for the model, and whatever the stages report.
    pub fn reply(&mut self, text: &str, tokens: usize) -> utr_runtime::error::Result<String> {
        let sampling = Decoding { max_tokens: tokens, ..Decoding::default() };
        let question = Question::new(text).with_sampling(sampling);
        Ok(self.pool.install(|| self.pipeline.ask(&question, &mut |_| Ok(())))?.text)
    }
}

/// A file's frames, spread evenly.
///
/// # Errors
/// A file that cannot be read.
pub fn filmed(path: &Path) -> utr_runtime::error::Result<Sampled> {
    sample(
        &Source::Path(path.to_path_buf()),
        Sampling::Uniform { frames: FRAMES },
        &CaptureOptions::default(),
    )
}
