//! Quantize and export: a checkpoint becomes the bundle that the device runs.
//!
//! Comes in: a Hugging Face folder, a number format, what is known of its making. Goes out: `decoder.gguf` alone (`quantize`), or a bundle: ONNX, GGUF,
//! tokenizer, template and manifest, with golden questions answered by the very files that were written. A bundle that cannot be loaded
//! and asked is never left behind.

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use utr_models::bundle::{DECODER, VISION, write_bundle};
use utr_models::generate::Sampling;
use utr_models::gguf::{DecoderExport, Format, StoredTensor, write_decoder};
use utr_models::manifest::{
    GoldenQuestion, Manifest, Memory, Network, Provenance, Quantization, Window, WindowMode,
};
use utr_models::onnx::{Storage, VisionExport, write_vision};
use utr_models::preprocess::Preprocessor;
use utr_models::prompt::{ChatTemplate, Kind};
use utr_models::text::{Tokenizer, stop_tokens};
use utr_models::weights::{self, Weights, canonical};
use utr_models::{Config, Error, atomic};
use utr_runtime::answer::Question;
use utr_runtime::capture::CaptureOptions;
use utr_runtime::encode::EncoderKind;
use utr_runtime::interrupt::Interrupt;
use utr_runtime::load::Model;
use utr_runtime::pipeline::{Pipeline, Settings};
use utr_runtime::sample::Sampling as FrameSampling;
use utr_runtime::source::Source;

/// Frames of a full window.
const WINDOW: usize = 32;
/// Longest answer of a shipped model, in tokens.
const ANSWER_TOKENS: usize = 256;
/// A moving pattern that every machine draws alike.
const GOLDEN_SOURCE: &str = "pattern://squares?frames=32";
/// Tokens of a golden answer.
const GOLDEN_TOKENS: usize = 48;

/// What a manifest says of a model's making.
#[derive(Clone, Debug, Default)]
pub struct Making {
    /// Its name.
    pub name: String,
    /// The recipe's text.
    pub recipe: String,
    /// Seeds by use.
    pub seeds: BTreeMap<String, u64>,
    /// Clips by data set.
    pub data: BTreeMap<String, u64>,
    /// Hours of training.
    pub hours: f64,
    /// Scores by name, in percent.
    pub scores: BTreeMap<String, f64>,
}

struct Checkpoint {
    config: Config,
    weights: Weights,
}

impl Checkpoint {
    fn load(folder: &Path) -> Result<Self> {
        let mut config = Config::load(folder)?;
        let weights = weights::load(folder, &mut config, DType::F32, &Device::Cpu)?;
        Ok(Self { config, weights })
    }

    /// A tensor by its published name, as shape and values.
    fn tensor(&self, name: &str) -> utr_models::Result<(Vec<usize>, Vec<f32>)> {
        let key = canonical(name).unwrap_or_default();
        let missing = || Error::Tensor {
            name: name.into(),
            file: "the checkpoint".into(),
            reason: "is missing".into(),
        };
        let tensor = self.weights.get(&key).ok_or_else(missing)?;
        Ok((tensor.dims().to_vec(), tensor.flatten_all()?.to_vec1::<f32>()?))
    }

    fn vision(&self) -> Result<VisionExport> {
        let v = &self.config.vision;
        let [layers] = self.config.feature_layers[..] else {
            anyhow::bail!("the tower joins several feature layers; only one can be exported");
        };
        Ok(VisionExport {
            image_size: v.image_size,
            patch_size: v.patch,
            hidden_size: v.hidden,
            intermediate_size: v.intermediate,
            num_layers: layers,
            num_heads: v.heads,
            layer_norm_eps: v.layer_norm_eps as f32,
            text_hidden_size: self.config.text.hidden,
            storage: Storage::F32,
        })
    }

    fn decoder(&self) -> DecoderExport {
        let t = &self.config.text;
        DecoderExport {
            hidden_size: t.hidden,
            intermediate_size: t.intermediate,
            num_layers: t.layers,
            num_heads: t.heads,
            num_kv_heads: t.kv_heads,
            vocab_size: t.vocab,
            context_length: t.max_positions,
            rms_norm_eps: t.rms_norm_eps as f32,
            rope_theta: t.rope_theta as f32,
            tied: t.tied,
        }
    }
}

/// Writes `decoder.gguf` of a Hugging Face folder.
pub fn quantize(model: &Path, format: Format, file: &Path) -> Result<Vec<StoredTensor>> {
    if let (Ok(file), Ok(model)) = (file.canonicalize(), model.canonicalize()) {
        ensure!(
            !file.starts_with(&model),
            "{} is a file of the model; name another --output",
            file.display()
        );
    }
    let checkpoint = Checkpoint::load(model)?;
    let name = model.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(write_decoder(file, &name, &checkpoint.decoder(), format, model, &|name| checkpoint.tensor(name))?)
}

/// Writes a bundle; `folder` must not exist.
pub fn export(model: &Path, format: Format, making: Making, folder: &Path) -> Result<()> {
    let checkpoint = Checkpoint::load(model)?;
    let preprocess = Preprocessor::load(model, checkpoint.config.vision.image_size)?;
    let tokenizer = Tokenizer::load(model)?;
    let (vision, decoder) = (checkpoint.vision()?, checkpoint.decoder());
    let staging = tempfile::tempdir().context("making a temporary folder")?;
    let stored = fill(&checkpoint, &vision, &decoder, format, &making.name, model, staging.path())?;
    let stop = stop_tokens(model, &tokenizer)?;
    let mut manifest = Manifest {
        format_version: utr_models::manifest::FORMAT_VERSION,
        name: making.name.clone(),
        memory: memory(&checkpoint.config, staging.path())?,
        network: Network { preprocess, vision, decoder, stop_tokens: stop },
        window: Window { frames: WINDOW, fps: 2.0, live_mode: WindowMode::Exact, accuracy: BTreeMap::new() },
        sampling: Sampling { max_tokens: ANSWER_TOKENS, ..Sampling::default() },
        quantization: Quantization { format, tensors: stored },
        golden: Vec::new(),
        provenance: Provenance {
            exporter: format!("utr-train {}", env!("CARGO_PKG_VERSION")),
            recipe: making.recipe,
            seeds: making.seeds,
            data: making.data,
            hours: making.hours,
        },
        scores: making.scores,
        files: BTreeMap::new(),
    };
    let copy = |to: &Path| {
        for entry in std::fs::read_dir(staging.path()).map_err(Error::io(staging.path()))?.flatten() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).map_err(Error::io(entry.path()))?;
        }
        Ok(())
    };
    // A first bundle without golden questions is opened and asked; its answers go into the one that stays.
    let trial = staging.path().with_extension("trial");
    write_bundle(&trial, manifest.clone(), copy)?;
    let golden = golden(&trial);
    std::fs::remove_dir_all(&trial).with_context(|| format!("removing {}", trial.display()))?;
    manifest.golden = golden?;
    write_bundle(folder, manifest, copy)?;
    Ok(())
}

fn fill(
    checkpoint: &Checkpoint,
    vision: &VisionExport,
    decoder: &DecoderExport,
    format: Format,
    name: &str,
    model: &Path,
    to: &Path,
) -> Result<Vec<StoredTensor>> {
    write_vision(&to.join(VISION), vision, &|name| checkpoint.tensor(name))?;
    let stored =
        write_decoder(&to.join(DECODER), name, decoder, format, model, &|name| checkpoint.tensor(name))?;
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        let from = model.join(file);
        if from.exists() {
            std::fs::copy(&from, to.join(file)).with_context(|| format!("copying {}", from.display()))?;
        }
    }
    // Wherever the model keeps its templates, the bundle keeps the tokenizer's in one file and the processor's, where it is another, in
    // the file that only processors write.
    let [tokenizers, processors] =
        [Kind::Tokenizer, Kind::Processor].map(|kind| ChatTemplate::load(model, kind));
    let (tokenizers, processors) = (tokenizers?, processors?);
    atomic::write(&to.join("chat_template.jinja"), tokenizers.source().as_bytes())?;
    if processors.source() != tokenizers.source() {
        let json = serde_json::json!({"chat_template": processors.source()});
        atomic::write(&to.join("chat_template.json"), json.to_string().as_bytes())?;
    }
    Ok(stored)
}

/// Bytes that a full window and the longest answer need; the tower is held twice while an engine lays it out.
fn memory(config: &Config, files: &Path) -> Result<Memory> {
    let size = |name: &str| {
        std::fs::metadata(files.join(name)).map(|m| m.len()).with_context(|| format!("reading {name}"))
    };
    let weights = 2 * size(VISION)? + size(DECODER)?;
    Ok(Memory::needs(config, weights, WINDOW, ANSWER_TOKENS))
}

/// Asks the questions that every later copy of this bundle must answer token for token alike.
fn golden(bundle: &Path) -> Result<Vec<GoldenQuestion>> {
    let mut pipeline = Pipeline::new(
        Model::open(bundle, Some(EncoderKind::Tract))?,
        &Settings::exact(WINDOW),
        Interrupt::default(),
    )?;
    let source = Source::parse(GOLDEN_SOURCE)?;
    pipeline.watch(&source, FrameSampling::Uniform { frames: WINDOW }, &CaptureOptions::default())?;
    let questions = ["Which way does the white ball move?", "What happens in the clip?", "Describe frame1."];
    questions
        .into_iter()
        .map(|text| {
            let sampling = Sampling { max_tokens: GOLDEN_TOKENS, ..Sampling::default() };
            let question = Question::new(text).with_sampling(sampling);
            let answer = pipeline.ask(&question, &mut |_| Ok(()))?;
            Ok(GoldenQuestion {
                source: GOLDEN_SOURCE.into(),
                frames: WINDOW,
                question: text.into(),
                answer: answer.text,
                tokens: answer.tokens,
            })
        })
        .collect()
}

/// Where `run` puts its bundle.
pub fn bundle_folder(run: &Path, name: &str) -> PathBuf {
    run.join("bundle").join(name)
}
