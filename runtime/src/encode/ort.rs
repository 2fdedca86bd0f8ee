//! The vision encoder through ONNX Runtime, whose library is loaded only when this encoder is chosen.
//!
//! Comes in: `vision.onnx`, and the library that `ORT_DYLIB_PATH` (resolved once by the program) or the system's loader
//! finds. Goes out: tokens, on the CPU provider. A missing library is an error with the remedy, never a fallback.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;
use utr_models::preprocess::Preprocessor;

use super::{VisionEncoder, check_pixels};
use crate::error::{Error, Result};

const NAME: &str = "ort";

/// What to do where the library is missing.
const REMEDY: &str = "run `make onnxruntime` in the repository, which fetches one and says what to set; elsewhere \
     `pip install onnxruntime` and set ORT_DYLIB_PATH to its libonnxruntime.so (in site-packages/onnxruntime/capi); \
     the vision encoder needs none with --encoder tract";

/// A session of ONNX Runtime.
pub struct OrtEncoder {
    session: Session,
    newline: Vec<f32>,
    tokens: usize,
    hidden: usize,
    preprocessor: Preprocessor,
}

/// The library that would be loaded: `ORT_DYLIB_PATH`, or the name the system's loader looks for.
pub fn library() -> PathBuf {
    match std::env::var_os("ORT_DYLIB_PATH") {
        Some(path) if !path.is_empty() => path.into(),
        _ => format!("{}onnxruntime{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX).into(),
    }
}

/// The library's environment; there can be one in a process, and it stays.
static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

/// Loads the library, once per process; its own description of its build.
///
/// # Errors
/// [`Error::Encoder`] with the remedy where it is missing or too old.
pub fn load() -> Result<String> {
    environment().map(|_| ort::info().to_string())
}

fn environment() -> Result<Environment> {
    let mut slot = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = slot.as_ref() {
        return Ok(environment.clone());
    }
    let path = library();
    let builder = ort::init_from(&path).map_err(|error| {
        Error::encoder(NAME, format!("cannot load {}: {error}; {REMEDY}", path.display()))
    })?;
    let environment = builder.with_telemetry(false).build().map_err(|error| Error::encoder(NAME, error))?;
    Ok(slot.insert(environment).clone())
}

/// A graph on the CPU, ready to run; any graph, the host's experts use it too.
///
/// # Errors
/// [`Error::Encoder`] where the library is missing or the graph is refused.
pub fn session(onnx: &Path) -> Result<Session> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Session::builder(&environment()?)
        .and_then(|builder| Ok(builder.with_optimization_level(GraphOptimizationLevel::Level3)?))
        .and_then(|builder| Ok(builder.with_intra_threads(threads)?))
        .and_then(|mut builder| builder.commit_from_file(onnx))
        .map_err(|error| Error::encoder(NAME, format!("{}: {error}", onnx.display())))
}

impl OrtEncoder {
    /// Loads the library and the graph, and runs it once: the session is warm and its newline known.
    ///
    /// # Errors
    /// [`Error::Encoder`] where the library is missing or the graph is refused.
    pub fn open(onnx: &Path, preprocessor: Preprocessor) -> Result<Self> {
        let fail =
            |error: &dyn std::fmt::Display| Error::encoder(NAME, format!("{}: {error}", onnx.display()));
        let session = session(onnx)?;
        let mut encoder = Self { session, newline: Vec::new(), tokens: 0, hidden: 0, preprocessor };
        let blank = vec![0.0; 3 * encoder.preprocessor.height * encoder.preprocessor.width];
        let (shape, _, newline) = encoder.run(&blank, 1)?;
        let &[1, tokens, hidden] = shape.as_slice() else {
            return Err(fail(&format!("the output tokens has the shape {shape:?}, not [1, tokens, hidden]")));
        };
        if newline.len() != hidden {
            return Err(fail(&format!("newline has {} values, tokens has {hidden} columns", newline.len())));
        }
        (encoder.newline, encoder.tokens, encoder.hidden) = (newline, tokens, hidden);
        Ok(encoder)
    }

    /// The shape of `tokens`, its values, and `newline`.
    fn run(&mut self, pixels: &[f32], n: usize) -> Result<(Vec<usize>, Vec<f32>, Vec<f32>)> {
        let fail = |error: ort::Error| Error::encoder(NAME, error);
        let shape = [n, 3, self.preprocessor.height, self.preprocessor.width];
        let input = TensorRef::from_array_view((shape, pixels)).map_err(fail)?;
        let outputs = self.session.run(ort::inputs!["pixels" => input]).map_err(fail)?;
        let (Some(tokens), Some(newline)) = (outputs.get("tokens"), outputs.get("newline")) else {
            return Err(Error::encoder(NAME, "the graph needs the outputs tokens and newline"));
        };
        let (shape, tokens) = tokens.try_extract_tensor::<f32>().map_err(fail)?;
        let (_, newline) = newline.try_extract_tensor::<f32>().map_err(fail)?;
        let shape = shape.iter().map(|side| usize::try_from(*side).unwrap_or(0)).collect();
        Ok((shape, tokens.to_vec(), newline.to_vec()))
    }
}

impl VisionEncoder for OrtEncoder {
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
        Ok(self.run(pixels, n)?.1)
    }
}
