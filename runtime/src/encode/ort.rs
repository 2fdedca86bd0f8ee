//! The vision encoder through ONNX Runtime, whose library is loaded only when this encoder is chosen.
//!
//! Comes in: `vision.onnx`, the provider that computes, and the library that `ORT_DYLIB_PATH` (resolved once by the program) or the system's
//! loader finds. Goes out: tokens. A library or a provider that is missing, or that leaves a part of the graph to the processor, is an error with
//! the remedy, never a fallback. TensorRT runs an engine that [`prepare`] built before (see [`engine`]); opening builds none.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use ort::ep::{self, ExecutionProvider, ExecutionProviderDispatch};
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::TensorRef;
use utr_models::bundle::hash_file;
use utr_models::preprocess::Preprocessor;

use super::engine::{self, Identity};
use super::{BATCH, Prepared, Provider, VisionEncoder, check_pixels};
use crate::board::Root;
use crate::error::{Error, Result};

const NAME: &str = "ort";

/// What to do where the library is missing.
const REMEDY: &str = "run `make onnxruntime` in the repository, which fetches one and says what to set; elsewhere \
     `pip install onnxruntime` and set ORT_DYLIB_PATH to its libonnxruntime.so (in site-packages/onnxruntime/capi); \
     the vision encoder needs none with --encoder tract";

/// What to do where a provider is missing.
const PROVIDER_REMEDY: &str = "set ORT_DYLIB_PATH to a libonnxruntime.so that has it, with its libonnxruntime_providers_*.so beside it: on a Jetson from \
     the onnxruntime-gpu wheel for its JetPack, elsewhere from `pip install onnxruntime-gpu`; --provider cpu needs none";

/// Folders that TensorRT works with.
struct Folders<'a> {
    engine: &'a Path,
    /// What building learned about kernels; none where nothing may be built.
    timing: Option<&'a Path>,
}

/// A session of ONNX Runtime.
pub struct OrtEncoder {
    name: &'static str,
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
    commit(builder()?, onnx)
}

fn builder() -> Result<SessionBuilder> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Session::builder(&environment()?)
        .and_then(|builder| Ok(builder.with_optimization_level(GraphOptimizationLevel::Level3)?))
        .and_then(|builder| Ok(builder.with_intra_threads(threads)?))
        .map_err(|error| Error::encoder(NAME, error))
}

fn commit(mut builder: SessionBuilder, onnx: &Path) -> Result<Session> {
    let session = builder.commit_from_file(onnx);
    session.map_err(|error| Error::encoder(NAME, format!("{}: {error}", onnx.display())))
}

/// Registers providers in order. All of the graph must run on them: what none of them takes is refused, not left to the processor.
fn on_providers(providers: &[ExecutionProviderDispatch]) -> Result<SessionBuilder> {
    let cannot = |reason: &dyn std::fmt::Display| {
        let names: Vec<&str> = providers.iter().map(ExecutionProviderDispatch::name).collect();
        let libraries = "install the libraries it names (on a Jetson: apt install nvidia-jetpack)";
        let (names, reason) = (names.join(" with "), reason.to_string());
        let what = format!("{names} cannot start: {}; {libraries}, or {PROVIDER_REMEDY}", reason.trim());
        Error::encoder(NAME, what)
    };
    let builder = builder()?.with_execution_providers(providers).map_err(|error| cannot(&error))?;
    builder.with_config_entry("session.disable_cpu_ep_fallback", "1").map_err(|error| cannot(&error))
}

/// That the library was built with a provider; whether it starts, its registration says.
fn has<P: ExecutionProvider>() -> Result<()> {
    environment()?;
    match P::is_available() {
        Ok(true) => Ok(()),
        Ok(false) => {
            let library = library();
            let text = format!("{} was built without {}; {PROVIDER_REMEDY}", library.display(), P::NAME);
            Err(Error::encoder(NAME, text))
        }
        Err(error) => Err(Error::encoder(NAME, error)),
    }
}

fn cuda() -> ExecutionProviderDispatch {
    ep::CUDA::default().build().error_on_failure()
}

/// TensorRT in half precision (layer normalization in single), with CUDA for what it leaves; for 1 to [`BATCH`] frames, fastest for one.
fn tensorrt(preprocessor: &Preprocessor, folders: &Folders<'_>) -> [ExecutionProviderDispatch; 2] {
    let shape = |n: usize| format!("pixels:{n}x3x{}x{}", preprocessor.height, preprocessor.width);
    let mut provider = ep::TensorRT::default()
        .with_fp16(true)
        .with_layer_norm_fp32_fallback(true)
        .with_profile_min_shapes(shape(1))
        .with_profile_opt_shapes(shape(1))
        .with_profile_max_shapes(shape(BATCH))
        .with_engine_cache(true)
        .with_engine_cache_path(folders.engine.display());
    if let Some(timing) = folders.timing {
        provider = provider.with_timing_cache(true).with_timing_cache_path(timing.display());
    }
    [provider.build().error_on_failure(), cuda()]
}

/// What an engine of this graph depends on here. Starts TensorRT, to ask what was loaded.
fn identity(onnx: &Path, preprocessor: &Preprocessor) -> Result<Identity> {
    has::<ep::TensorRT>()?;
    has::<ep::CUDA>()?;
    on_providers(&[ep::TensorRT::default().build().error_on_failure()])?;
    let loaded = |library| engine::loaded_version(library).unwrap_or_else(|| "unknown".into());
    let shapes = format!("1..{BATCH}x3x{}x{}", preprocessor.height, preprocessor.width);
    let parts = [
        ("onnxruntime", ort::info().to_string()),
        ("tensorrt", loaded("libnvinfer")),
        ("cudart", loaded("libcudart")),
        ("gpu", engine::gpu(&Root::here())),
        ("precision", "f16".into()),
        ("shapes", shapes),
    ];
    Ok(Identity { graph: hash_file(onnx)?, parts: parts.into() })
}

/// Builds TensorRT's engine of a graph, unless one is there for exactly this graph, these libraries and this GPU. It takes minutes.
///
/// # Errors
/// [`Error::Encoder`] where the library or the provider is missing or refuses the graph; [`Error::Io`] where no cache can be written.
pub fn prepare(onnx: &Path, preprocessor: &Preprocessor) -> Result<Prepared> {
    let (places, identity) = (engine::places(), identity(onnx, preprocessor)?);
    if let Some(folder) = engine::find(&places, &identity) {
        return Ok(Prepared::Found(folder));
    }
    let built = engine::build(&places, &identity, |folder, timing| {
        let folders = Folders { engine: folder, timing: Some(timing) };
        let session = commit(on_providers(&tensorrt(preprocessor, &folders))?, onnx)?;
        OrtEncoder::warm("ort-tensorrt", session, onnx, preprocessor.clone()).map(drop)
    });
    built.map(Prepared::Built)
}

impl OrtEncoder {
    /// Loads the library and the graph, and runs it once: the session is warm and its newline known.
    ///
    /// # Errors
    /// [`Error::Encoder`] where the library or the provider is missing, the graph is refused, or no engine was prepared for TensorRT.
    pub fn open(onnx: &Path, preprocessor: Preprocessor, provider: Provider) -> Result<Self> {
        match provider {
            Provider::Cpu => Self::warm(NAME, session(onnx)?, onnx, preprocessor),
            Provider::Cuda => {
                has::<ep::CUDA>()?;
                Self::warm("ort-cuda", commit(on_providers(&[cuda()])?, onnx)?, onnx, preprocessor)
            }
            Provider::Tensorrt => {
                let (places, identity) = (engine::places(), identity(onnx, &preprocessor)?);
                let engine = engine::find(&places, &identity).ok_or_else(|| unprepared(&places))?;
                let folders = Folders { engine: &engine, timing: None };
                let session = commit(on_providers(&tensorrt(&preprocessor, &folders))?, onnx)?;
                let encoder = Self::warm("ort-tensorrt", session, onnx, preprocessor)?;
                // ONNX Runtime builds another one without a word where it does not take this one.
                let taken = engine::find(&places, &identity).is_some();
                if taken { Ok(encoder) } else { Err(unprepared(&places)) }
            }
        }
    }

    fn warm(name: &'static str, session: Session, onnx: &Path, preprocessor: Preprocessor) -> Result<Self> {
        let fail =
            |error: &dyn std::fmt::Display| Error::encoder(NAME, format!("{}: {error}", onnx.display()));
        let mut encoder = Self { name, session, newline: Vec::new(), tokens: 0, hidden: 0, preprocessor };
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

/// Which engine is missing, and how to get it.
fn unprepared(places: &[PathBuf]) -> Error {
    let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    Error::encoder(
        NAME,
        format!(
            "no TensorRT engine was built for this graph, these libraries and this GPU (looked in {}); run `utr prepare --encoder ort \
             --provider tensorrt` once, with the same --bundle (it takes minutes), or give --prepare here",
            places.join(" and ")
        ),
    )
}

impl VisionEncoder for OrtEncoder {
    fn name(&self) -> &'static str {
        self.name
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
