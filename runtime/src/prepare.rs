//! `utr prepare`: builds what is specific to this machine, warms the bundle up, and says how long each step took.
//!
//! Comes in: a bundle (or a Hugging Face folder) and what encodes its frames. Goes out: an engine in the cache where the encoder needs one, one line
//! a step with its time, and whether the golden answers are what they were (where memory has room for their window). Only this command and `--prepare` build engines; tract, candle and
//! ONNX Runtime's own kernels need none.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use utr_models::bundle::{Bundle, VISION};
use utr_models::generate::Sampling as TokenSampling;

use crate::answer::Question;
use crate::budget::Wish;
use crate::bundle::{ask_golden, golden_too_large};
use crate::capture::CaptureOptions;
use crate::cli::EngineArgs;
use crate::encode::{self, EncoderKind, Engines, Prepared};
use crate::interrupt::Interrupt;
use crate::load::{self, Model};
use crate::pipeline::{Pipeline, Settings};
use crate::sample::Sampling;
use crate::source::Source;
use crate::window;

/// How often it is said that an engine is still being built.
const TICK: Duration = Duration::from_secs(10);
/// A drawn frame, for warming up.
const FRAME: &str = "pattern://squares?frames=1";

/// `utr prepare`, as typed.
#[derive(Debug, Args)]
pub struct PrepareArgs {
    /// The bundle [default: UTR_BUNDLE, else the store's current one, else the one that ships]
    #[arg(long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// What computes.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Runs the command; `folder` is the bundle. False where it answers otherwise than it did when it was made.
///
/// # Errors
/// Whatever opening, building, loading and answering report.
pub fn run(
    folder: &Path,
    engines: impl Into<Engines>,
    interrupt: &Interrupt,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let engines = engines.into();
    let unasked = if Bundle::is_bundle(folder) { golden_too_large(folder, engines)? } else { None };
    engine(folder, engines, out)?;
    let began = Instant::now();
    let bundle = if Bundle::is_bundle(folder) { Some(Bundle::open(folder)?) } else { None };
    let wish = if unasked.is_some() { Wish::least() } else { Wish::golden() };
    let model = match &bundle {
        Some(bundle) => Model::open_bundle(bundle, engines, wish)?,
        None => Model::open(folder, engines)?,
    };
    let (name, with) = (model.language.name.clone(), model.encoder.name());
    writeln!(out, "loaded    {name} with {with}, files checked: {} ms", began.elapsed().as_millis())?;
    let frames = if unasked.is_some() { 1 } else { window::CAPACITY };
    let mut pipeline = Pipeline::new(model, &Settings::exact(frames), interrupt.clone())?;
    let options = CaptureOptions { interrupt: interrupt.clone(), ..CaptureOptions::default() };
    let one = TokenSampling { max_tokens: 1, ..TokenSampling::default() };
    for time in ["first", "again"] {
        pipeline.watch(&Source::parse(FRAME)?, Sampling::Uniform { frames: 1 }, &options)?;
        let question = Question::new("?").with_sampling(one);
        let timings = pipeline.ask(&question, &mut |_| Ok(()))?.timings;
        writeln!(
            out,
            "{time}     a frame encoded: {:.1} ms, then the first token: {:.1} ms",
            timings.encode_ms, timings.ttft_ms
        )?;
    }
    let began = Instant::now();
    let same = match (&unasked, &bundle) {
        (Some(reason), _) => {
            writeln!(out, "golden    not asked: {reason}")?;
            true
        }
        (None, Some(bundle)) => ask_golden(&mut pipeline, bundle, interrupt, out)?,
        (None, None) => true,
    };
    writeln!(out, "{}     after {} ms", if same { "ready" } else { "no:  " }, began.elapsed().as_millis())?;
    Ok(same)
}

/// Builds the encoder's engine where it needs one that is not there yet, and says what became of it.
///
/// # Errors
/// A bundle that is altered, a library or a provider that is missing, a cache that cannot be written.
pub fn engine(folder: &Path, engines: Engines, out: &mut dyn Write) -> anyhow::Result<()> {
    // A device that is not there is told before an engine is built.
    engines.device.open(0)?;
    let began = Instant::now();
    if !Bundle::is_bundle(folder) {
        writeln!(out, "engine    nothing to build: the folder is no bundle and runs through candle")?;
        return Ok(());
    }
    // No engine is built for what runs here in no window.
    load::admit(folder, engines, Wish::least())?;
    let bundle = Bundle::open(folder)?;
    let encoder = engines.encoder.unwrap_or(EncoderKind::Tract);
    let (onnx, preprocessor) = (bundle.path(VISION)?, &bundle.manifest().network.preprocess);
    if encoder == EncoderKind::OrtTensorrt {
        writeln!(out, "engine    TensorRT's engine is built if there is none that fits; that takes minutes")?;
        out.flush()?;
    }
    let prepared = with_progress(|| encode::prepare(encoder, &onnx, preprocessor))
        .with_context(|| format!("preparing {}", folder.display()))?;
    match prepared {
        Prepared::Nothing => writeln!(out, "engine    nothing to build: {encoder:?} runs the graph as it is"),
        Prepared::Found(place) => writeln!(out, "engine    {} fits", place.display()),
        Prepared::Built(place) => {
            writeln!(out, "engine    built in {} s: {}", began.elapsed().as_secs(), place.display())
        }
    }?;
    Ok(())
}

/// Says on standard error that `work` still goes on, as long as it does.
fn with_progress<T>(work: impl FnOnce() -> T) -> T {
    std::thread::scope(|scope| {
        let (working, done) = channel::<()>();
        scope.spawn(move || {
            let began = Instant::now();
            while done.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                eprintln!("utr: still building the engine, {} s", began.elapsed().as_secs());
            }
        });
        let result = work();
        drop(working);
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/bundles/utr-nano")
    }

    fn prepare(encoder: EncoderKind) -> anyhow::Result<(bool, String)> {
        let mut text = Vec::new();
        let same = run(&shipped(), Some(encoder), &Interrupt::default(), &mut text)?;
        Ok((same, String::from_utf8(text)?))
    }

    #[test]
    fn an_engine_that_needs_nothing_built_says_so_and_is_warmed_up() {
        let (same, text) = prepare(EncoderKind::Candle).unwrap();
        for part in ["nothing to build: Candle", "utr-nano with candle", "first", "again", "golden", "ready"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(same);
    }

    #[test]
    fn onnxruntime_is_prepared_where_it_is_installed() {
        if cfg!(not(feature = "ort")) || std::env::var_os("ORT_DYLIB_PATH").is_none() {
            eprintln!("left out: ORT_DYLIB_PATH names no ONNX Runtime");
            return;
        }
        let (same, text) = prepare(EncoderKind::Ort).unwrap();
        assert!(same && text.contains("with ort,"), "{text}");
    }

    #[test]
    fn a_provider_that_is_missing_is_an_error_that_helps_and_never_the_processor() {
        if ["/dev/nvidiactl", "/dev/nvmap"].iter().any(|node| Path::new(node).exists()) {
            eprintln!(
                "left out: this machine has an NVIDIA GPU; utr prepare --encoder ort --provider cuda is the check there"
            );
            return;
        }
        for encoder in [EncoderKind::OrtCuda, EncoderKind::OrtTensorrt] {
            let error = format!("{:#}", prepare(encoder).unwrap_err());
            assert!(error.contains("encoder ort") && error.contains("ORT_DYLIB_PATH"), "{error}");
        }
    }
}
