//! The default vision encoder: `vision.onnx` through tract, in pure Rust.
//!
//! Comes in: the file. Goes out: tokens. The graph is specialized for one frame, because a camera brings one at a time;
//! a clip's frames run side by side, one per core. It reads no weights of its own and falls back to nothing.

use std::path::Path;
use std::sync::Arc;

use tract_onnx::prelude::*;
use utr_models::preprocess::Preprocessor;

use super::{VisionEncoder, check_pixels};
use crate::error::{Error, Result};

const NAME: &str = "tract";

/// A `vision.onnx` compiled for one frame.
pub struct TractEncoder {
    plan: Arc<TypedRunnableModel>,
    newline: Vec<f32>,
    tokens: usize,
    hidden: usize,
    preprocessor: Preprocessor,
    threads: usize,
}

impl TractEncoder {
    /// Loads and optimizes the graph.
    ///
    /// # Errors
    /// [`Error::Encoder`] where the file is no ONNX graph with `pixels` → `tokens`, `newline`.
    pub fn open(onnx: &Path, preprocessor: Preprocessor) -> Result<Self> {
        let fail =
            |error: &dyn std::fmt::Display| Error::encoder(NAME, format!("{}: {error}", onnx.display()));
        let wrap = |error: TractError| fail(&format!("{error:#}"));
        let shape = [1, 3, preprocessor.height, preprocessor.width];
        let model = tract_onnx::onnx()
            .model_for_path(onnx)
            .and_then(|model| model.with_input_fact(0, f32::fact(shape).into()))
            .and_then(|model| model.with_outputs_by_name(["tokens", "newline"]))
            .and_then(|model| model.into_typed())
            .map_err(wrap)?;
        let outlets = model.output_outlets().map_err(wrap)?.to_vec();
        let [tokens_outlet, newline_outlet] = outlets.as_slice() else {
            return Err(fail(&"the graph needs the outputs tokens and newline"));
        };
        let fact = model.outlet_fact(*newline_outlet).map_err(wrap)?;
        let Some(constant) = fact.konst.clone() else {
            return Err(fail(&"the output newline is not a constant"));
        };
        let newline = values(&constant).map_err(|error| fail(&error))?;
        let shape =
            model.outlet_fact(*tokens_outlet).map_err(wrap)?.shape.as_concrete().map(<[usize]>::to_vec);
        let Some(&[1, tokens, hidden]) = shape.as_deref() else {
            return Err(fail(&format!("the output tokens has the shape {shape:?}, not [1, tokens, hidden]")));
        };
        if newline.len() != hidden {
            return Err(fail(&format!("newline has {} values, tokens has {hidden} columns", newline.len())));
        }
        let mut model = model;
        model.select_output_outlets(&[*tokens_outlet]).map_err(wrap)?;
        let plan = model.into_optimized().and_then(|model| model.into_runnable()).map_err(wrap)?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self { plan, newline, tokens, hidden, preprocessor, threads })
    }

    fn encode_one(&self, pixels: &[f32]) -> Result<Vec<f32>> {
        let shape = [1, 3, self.preprocessor.height, self.preprocessor.width];
        let input =
            Tensor::from_shape(&shape, pixels).map_err(|error| Error::encoder(NAME, format!("{error:#}")))?;
        let outputs = self
            .plan
            .run(tvec!(input.into_tvalue()))
            .map_err(|error| Error::encoder(NAME, format!("{error:#}")))?;
        let Some(tokens) = outputs.first() else {
            return Err(Error::encoder(NAME, "the graph gave no output"));
        };
        values(tokens).map_err(|error| Error::encoder(NAME, error))
    }
}

impl VisionEncoder for TractEncoder {
    fn name(&self) -> &'static str {
        NAME
    }

    fn tokens_per_frame(&self) -> usize {
        self.tokens
    }

    fn hidden(&self) -> usize {
        self.hidden
    }

    fn newline(&self) -> &[f32] {
        &self.newline
    }

    fn preprocessing(&self) -> &Preprocessor {
        &self.preprocessor
    }

    fn encode(&mut self, pixels: &[f32], n: usize) -> Result<Vec<f32>> {
        check_pixels(NAME, pixels, n, &self.preprocessor)?;
        let frames: Vec<&[f32]> = pixels.chunks_exact(pixels.len() / n).collect();
        let share = n.div_ceil(self.threads.min(n));
        let this = &*self;
        let work = |frames: &[&[f32]]| -> Result<Vec<f32>> {
            let mut tokens = Vec::with_capacity(frames.len() * this.tokens * this.hidden);
            for frame in frames {
                tokens.extend(this.encode_one(frame)?);
            }
            Ok(tokens)
        };
        let parts = std::thread::scope(|scope| {
            let workers: Vec<_> = frames.chunks(share).map(|part| scope.spawn(move || work(part))).collect();
            workers
                .into_iter()
                .map(|worker| {
                    worker.join().unwrap_or_else(|_| Err(Error::encoder(NAME, "a worker thread panicked")))
                })
                .collect::<Result<Vec<_>>>()
        })?;
        Ok(parts.concat())
    }
}

fn values(tensor: &Tensor) -> Result<Vec<f32>, String> {
    let tensor = tensor.cast_to::<f32>().map_err(|error| format!("{error:#}"))?;
    let view = tensor.to_plain_array_view::<f32>().map_err(|error| format!("{error:#}"))?;
    Ok(view.iter().copied().collect())
}
