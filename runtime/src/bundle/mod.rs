//! `utr bundle`: what a bundle holds, whether it still answers as it did when it was made, and which one is in use.
//!
//! Comes in: a bundle's folder. Goes out: a summary, or the replayed golden questions with their tokens compared one by
//! one. Hashes are checked in both, by opening the bundle; nothing is changed here. Installing and rolling back are in [`store`].

pub mod store;

use std::io::Write;
use std::path::Path;

use utr_models::bundle::{Bundle, GoldenQuestion};
use utr_models::generate::Sampling as TokenSampling;

use crate::answer::Question;
use crate::budget::Wish;
use crate::capture::CaptureOptions;
use crate::encode::Engines;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::load::{self, Model};
use crate::pipeline::{Pipeline, Settings};
use crate::sample::Sampling;
use crate::source::Source;
use crate::window;

/// How much less likely than this machine's own answer the manifest's may be, in nats a token: where two words are all but equally likely, the rounding of another
/// processor decides. Answers of other weights lie nats apart.
const TIE: f64 = 0.05;

/// Prints a summary, or the whole manifest as JSON.
///
/// # Errors
/// Whatever is wrong with the bundle, and a closed standard output.
pub fn inspect(folder: &Path, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    anyhow::ensure!(folder.is_dir(), "{} is not a folder; a bundle is one", folder.display());
    let bundle = Bundle::open(folder)?;
    let manifest = bundle.manifest();
    if json {
        serde_json::to_writer_pretty(&mut *out, manifest)?;
        writeln!(out)?;
        return Ok(());
    }
    let (vision, decoder) = (&manifest.network.vision, &manifest.network.decoder);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    writeln!(out, "{} (format {})", manifest.name, manifest.format_version)?;
    writeln!(out, "hash      {}", bundle.hash())?;
    writeln!(
        out,
        "vision    {} layers, {} channels, {}x{} pixels, {} tokens a frame",
        vision.num_layers,
        vision.hidden_size,
        vision.image_size,
        vision.image_size,
        vision.tokens()
    )?;
    writeln!(
        out,
        "decoder   {} layers, {} channels, {}/{} heads, {} tokens of vocabulary, {} positions, {}",
        decoder.num_layers,
        decoder.hidden_size,
        decoder.num_heads,
        decoder.num_kv_heads,
        decoder.vocab_size,
        decoder.context_length,
        manifest.quantization.format.as_str()
    )?;
    writeln!(out, "window    {} frames, {} a second when live", manifest.window.frames, manifest.window.fps)?;
    let memory = &manifest.memory;
    writeln!(
        out,
        "memory    {:.1} MiB: weights {:.1}, window {:.1}, keys and values {:.1}, scratch {:.1}",
        mib(memory.weights + memory.window + memory.kv + memory.scratch),
        mib(memory.weights),
        mib(memory.window),
        mib(memory.kv),
        mib(memory.scratch)
    )?;
    for (name, file) in &manifest.files {
        writeln!(out, "file      {:<24} {:>9} bytes  {}", name, file.bytes, file.sha256)?;
    }
    for (name, score) in &manifest.scores {
        writeln!(out, "score     {name:<24} {score:.1}")?;
    }
    writeln!(out, "golden    {} questions", manifest.golden.len())?;
    let provenance = &manifest.provenance;
    writeln!(out, "made by   {}, {:.1} hours of training", provenance.exporter, provenance.hours)?;
    Ok(())
}

/// Checks hashes and asks the golden questions again; false where the bundle was altered or answers otherwise.
///
/// # Errors
/// What keeps the questions from being asked: an encoder or a device that is missing, a source that cannot be read, an interrupt.
pub fn verify(
    folder: &Path,
    engines: impl Into<Engines>,
    interrupt: &Interrupt,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    anyhow::ensure!(
        folder.is_dir(),
        "{} is not a folder; a bundle is one, such as models/bundles/utr-nano",
        folder.display()
    );
    let engines = engines.into();
    // By the manifest alone, before anything is hashed; a manifest that cannot be read is told about below.
    if Bundle::manifest_of(folder).is_ok() {
        load::admit(folder, engines, Wish::golden())?;
    }
    let Some(bundle) = files(folder, out)? else { return Ok(false) };
    let model = Model::open_bundle(&bundle, engines, Wish::golden())?;
    let mut pipeline = Pipeline::new(model, &Settings::exact(window::CAPACITY), interrupt.clone())?;
    ask_golden(&mut pipeline, &bundle, interrupt, out)
}

/// As [`verify`], but where the golden questions need more memory than there is, hashes alone decide, and the output says so.
///
/// # Errors
/// As [`verify`].
pub fn accept(
    folder: &Path,
    engines: Engines,
    interrupt: &Interrupt,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let Some(reason) = golden_too_large(folder, engines)? else {
        return verify(folder, engines, interrupt, out);
    };
    let whole = files(folder, out)?.is_some();
    if whole {
        writeln!(out, "golden    not asked: {reason}")?;
    }
    Ok(whole)
}

/// Why the golden questions cannot be asked here: their window (all frames, f32, read at once) can need more memory than the one that serves. None where
/// they can.
///
/// # Errors
/// A manifest that cannot be read.
pub fn golden_too_large(folder: &Path, engines: Engines) -> Result<Option<Error>> {
    match load::admit(folder, engines, Wish::golden()) {
        Ok(()) => Ok(None),
        Err(error @ Error::Memory { .. }) => Ok(Some(error)),
        Err(error) => Err(error),
    }
}

/// Checks every file; none where one was altered, which the output then says.
fn files(folder: &Path, out: &mut dyn Write) -> anyhow::Result<Option<Bundle>> {
    let bundle = match Bundle::open(folder) {
        Ok(bundle) => bundle,
        Err(error @ (utr_models::Error::Bundle { .. } | utr_models::Error::Format { .. })) => {
            writeln!(out, "no: {error}")?;
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let count = bundle.manifest().files.len();
    writeln!(out, "files     {count} with the hashes of the manifest {}", bundle.hash())?;
    Ok(Some(bundle))
}

/// Asks the bundle's golden questions of its loaded model; false where an answer differs and is not [`TIE`] as likely here as this machine's own.
///
/// # Errors
/// A source that cannot be read, an interrupt.
pub fn ask_golden(
    pipeline: &mut Pipeline,
    bundle: &Bundle,
    interrupt: &Interrupt,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let golden = &bundle.manifest().golden;
    if golden.is_empty() {
        writeln!(out, "golden    none to ask")?;
        return Ok(true);
    }
    let options = CaptureOptions { interrupt: interrupt.clone(), ..CaptureOptions::default() };
    let (mut seen, mut equal, mut near) = (None, 0, 0);
    for golden in golden {
        let clip = (golden.source.clone(), golden.frames);
        if seen.as_ref() != Some(&clip) {
            let source = golden_source(bundle.folder(), &golden.source)?;
            pipeline.watch(&source, Sampling::Uniform { frames: golden.frames }, &options)?;
            seen = Some(clip);
        }
        let (text, tokens) = replay(pipeline, golden)?;
        if tokens == golden.tokens {
            equal += 1;
            continue;
        }
        let question = Question::new(golden.question.clone());
        let mut nll = |tokens: &[u32]| match tokens {
            [] => Ok(f64::INFINITY),
            tokens => pipeline.likelihood(&question, tokens),
        };
        let (told, own) = (nll(&golden.tokens)?, nll(&tokens)?);
        let holds = own.is_finite() && told - own <= TIE;
        near += usize::from(holds);
        writeln!(
            out,
            "{}: {:?} on {} gives {text:?}, the manifest says {:?}, which is {} likely here: {told:.3} and {own:.3} nats a token",
            if holds { "tie" } else { "no" },
            golden.question,
            golden.source,
            golden.answer,
            if holds { "as" } else { "less" },
        )?;
    }
    let count = golden.len();
    writeln!(out, "golden    {equal} of {count} answers equal, token for token")?;
    if near > 0 {
        writeln!(
            out,
            "          {near} as likely within {TIE} nats a token: other processors and engines round otherwise"
        )?;
    }
    Ok(equal + near == count)
}

/// The golden question's answer, greedy.
fn replay(pipeline: &mut Pipeline, golden: &GoldenQuestion) -> Result<(String, Vec<u32>)> {
    // A golden answer may have been cut at a limit, so that what would come after it is not looked at.
    let max_tokens = golden.tokens.len().max(1);
    let sampling = TokenSampling { max_tokens, ..TokenSampling::default() };
    let question = Question::new(golden.question.clone()).with_sampling(sampling);
    let answer = pipeline.ask(&question, &mut |_| Ok(()))?;
    Ok((answer.text, answer.tokens))
}

/// A golden source: with a scheme as it stands, without one a path inside the bundle.
fn golden_source(folder: &Path, text: &str) -> Result<Source> {
    match Source::parse(text)? {
        Source::Path(path)
            if path.components().all(|part| matches!(part, std::path::Component::Normal(_))) =>
        {
            Ok(Source::Path(folder.join(path)))
        }
        Source::Path(path) => {
            Err(Error::Bundle(format!("a golden question points outside the bundle, to {}", path.display())))
        }
        Source::Test(spec) if spec.live => {
            Err(Error::Bundle("a golden question names a live picture, which never ends".into()))
        }
        other @ (Source::Pattern(_) | Source::Test(_)) => Ok(other),
        Source::Gst(_) => {
            Err(Error::Bundle("a golden question names a pipeline, which no bundle may run".into()))
        }
        Source::Feed(_)
        | Source::Loop(_)
        | Source::V4l2 { .. }
        | Source::Csi { .. }
        | Source::Rtsp(_)
        | Source::Replay(_) => Err(Error::Bundle(
            "a golden question needs a clip of the bundle or a drawn one, which is the same everywhere"
                .into(),
        )),
    }
}
