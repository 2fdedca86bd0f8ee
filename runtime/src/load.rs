//! Loading: a bundle, or a Hugging Face LLaVA-OneVision folder, into the parts the pipeline calls.
//!
//! Comes in: a folder, what is to compute, and how the window is wished for. Goes out: a [`Model`]. The memory budget is asked before anything but the
//! manifest is read, and a bundle is verified against its manifest before anything is loaded; a Hugging Face folder runs unquantized through the candle
//! tower, because it holds no ONNX file. Nothing is downloaded, converted or written.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::DType;
use utr_models::bundle::{Bundle, DECODER, VISION};
use utr_models::generate::Sampling;
use utr_models::manifest::WindowMode;
use utr_models::network::Network;
use utr_models::preprocess::Preprocessor;
use utr_models::prompt::{ChatTemplate, Kind};
use utr_models::qwen2::Qwen2;
use utr_models::text::{Tokenizer, stop_tokens};
use utr_models::{Config, weights};

use crate::answer::Question;
use crate::budget::{Available, Sizes, Wish};
use crate::bundle::store::{self, Store};
use crate::decode::{CandleDecoder, Decoder};
use crate::encode::{self, CandleEncoder, EncoderKind, Engines, VisionEncoder};
use crate::error::{Error, Result};
use crate::refuse;
use crate::sample::LIVE_FPS;
use crate::window::CAPACITY;

/// How a model is asked unless the user says otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Defaults {
    /// Frames of the window, and the most that the model was trained for.
    pub frames: usize,
    /// Frames per second of a live source.
    pub fps: f64,
    /// How the window of a live source slides.
    pub mode: WindowMode,
    /// How answers are drawn.
    pub tokens: Sampling,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { frames: CAPACITY, fps: LIVE_FPS, mode: WindowMode::Exact, tokens: Sampling::default() }
    }
}

/// Everything a pipeline needs of a model: the part that sees, and the part that reads and speaks.
pub struct Model {
    /// Pixels to visual tokens.
    pub encoder: Box<dyn VisionEncoder>,
    /// Visual tokens and text to text.
    pub language: Arc<Language>,
}

/// The part that reads and speaks; shared between threads, it never changes.
pub struct Language {
    /// Rows to logits.
    pub decoder: Arc<dyn Decoder>,
    /// T: visual tokens of one frame.
    pub tokens_per_frame: usize,
    /// (hidden) the vector that closes a clip.
    pub newline: Vec<f32>,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// Tokens that end an answer.
    pub stop: Vec<u32>,
    /// From the manifest, or the folder's name.
    pub name: String,
    /// SHA-256 of the manifest; none for a Hugging Face folder.
    pub hash: Option<String>,
    /// What the manifest says where the user says nothing.
    pub defaults: Defaults,
    tokenizer_template: ChatTemplate,
    processor_template: ChatTemplate,
}

impl Model {
    /// Opens a bundle (a folder with `manifest.json`) or a Hugging Face folder (one with `config.json`) for windows that are read when a question comes.
    ///
    /// # Errors
    /// [`Error::Bundle`] where the folder is neither; [`Error::Memory`] where it does not fit; [`Error::Encoder`] where the
    /// encoder cannot read it; whatever the model crate finds wrong with the device or the files.
    pub fn open(folder: &Path, engines: impl Into<Engines>) -> Result<Self> {
        Self::open_for(folder, engines, Wish::exact())
    }

    /// As [`Model::open`], for a window as wished for.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn open_for(folder: &Path, engines: impl Into<Engines>, wish: Wish) -> Result<Self> {
        let engines = engines.into();
        admit(folder, engines, wish)?;
        if Bundle::is_bundle(folder) {
            Self::assemble(&Bundle::open(folder)?, engines)
        } else {
            Self::open_hugging_face(folder, engines)
        }
    }

    /// Opens a bundle that was verified, for a window as wished for.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn open_bundle(bundle: &Bundle, engines: Engines, wish: Wish) -> Result<Self> {
        refuse::admit(&Sizes::of_manifest(bundle.manifest()), engines, wish, Available::here())?;
        Self::assemble(bundle, engines)
    }

    fn assemble(bundle: &Bundle, engines: Engines) -> Result<Self> {
        let manifest = bundle.manifest();
        let folder = bundle.folder();
        let preprocessor = manifest.network.preprocess.clone();
        // Before the encoder: a device that is not there is told at once.
        let (device, _) = engines.device.open(0)?;
        let encoder = engines.encoder.unwrap_or(EncoderKind::Tract);
        let encoder = encode::open(encoder, &bundle.path(VISION)?, preprocessor)?;
        let language = Language {
            decoder: Arc::new(CandleDecoder::new(Qwen2::from_gguf(bundle.path(DECODER)?, &device)?)),
            tokens_per_frame: encoder.tokens_per_frame(),
            newline: encoder.newline().to_vec(),
            tokenizer: Tokenizer::load(folder)?,
            stop: manifest.network.stop_tokens.clone(),
            name: manifest.name.clone(),
            hash: Some(bundle.hash().to_string()),
            defaults: Defaults {
                frames: manifest.window.frames.clamp(1, CAPACITY),
                fps: manifest.window.fps,
                mode: manifest.window.live_mode,
                tokens: manifest.sampling,
            },
            tokenizer_template: ChatTemplate::load(folder, Kind::Tokenizer)?,
            processor_template: ChatTemplate::load(folder, Kind::Processor)?,
        };
        Ok(Self { encoder, language: Arc::new(language) })
    }

    fn open_hugging_face(folder: &Path, engines: Engines) -> Result<Self> {
        let encoder = engines.encoder.unwrap_or(EncoderKind::Candle);
        if encoder != EncoderKind::Candle {
            return Err(Error::Encoder {
                name: if encoder == EncoderKind::Tract { "tract" } else { "ort" },
                reason: format!(
                    "{} is a Hugging Face folder and holds no vision.onnx; leave --encoder away (candle), or export a \
                     bundle with `utr-train export`",
                    folder.display()
                ),
            });
        }
        let name = folder_name(folder);
        let (device, _) = engines.device.open(0)?;
        let Network { config, vision, decoder } = Network::load(folder, DType::F32, &device)?;
        let preprocessor = Preprocessor::load(folder, config.vision.image_size)?;
        let tokenizer = Tokenizer::load(folder)?;
        let encoder = CandleEncoder::new(vision, preprocessor)?;
        let language = Language {
            decoder: Arc::new(CandleDecoder::new(decoder)),
            tokens_per_frame: encoder.tokens_per_frame(),
            newline: encoder.newline().to_vec(),
            stop: stop_tokens(folder, &tokenizer)?,
            tokenizer,
            name,
            hash: None,
            defaults: Defaults::default(),
            tokenizer_template: ChatTemplate::load(folder, Kind::Tokenizer)?,
            processor_template: ChatTemplate::load(folder, Kind::Processor)?,
        };
        Ok(Self { encoder: Box::new(encoder), language: Arc::new(language) })
    }
}

impl Language {
    /// The prompt's tokens before and after the frames.
    ///
    /// # Errors
    /// Whatever the chat template reports.
    pub fn prompt(&self, question: &Question) -> Result<(Vec<u32>, Vec<u32>)> {
        Ok(self.template(question.prompt).split_prompt(&self.tokenizer, &question.messages)?)
    }

    /// The chat template of a kind; the processor's falls back to the tokenizer's where a folder has one only.
    pub fn template(&self, kind: Kind) -> &ChatTemplate {
        match kind {
            Kind::Tokenizer => &self.tokenizer_template,
            Kind::Processor => &self.processor_template,
        }
    }
}

/// Refuses a model that does not fit, with what computes it, into what this machine has left, before its files are hashed, copied or made an engine of.
///
/// # Errors
/// [`Error::Memory`], and as [`sizes`].
pub fn admit(folder: &Path, engines: Engines, wish: Wish) -> Result<()> {
    refuse::admit(&sizes(folder)?, engines, wish, Available::here()).map(drop)
}

/// What decides how much memory the model in a folder needs: of a bundle only the manifest is read, of a Hugging Face folder only the configuration.
///
/// # Errors
/// [`Error::Bundle`] where the folder is neither, and what is wrong with that file.
pub fn sizes(folder: &Path) -> Result<Sizes> {
    if Bundle::is_bundle(folder) {
        return Ok(Sizes::of_manifest(&Bundle::manifest_of(folder)?.0));
    }
    if !folder.join("config.json").exists() {
        let found =
            if folder.is_dir() { "holds neither manifest.json nor config.json" } else { "is not a folder" };
        let asked = "give a bundle or a Hugging Face LLaVA-OneVision folder with --bundle";
        return Err(Error::Bundle(format!("{} {found}; {asked}", folder.display())));
    }
    let config = Config::load(folder)?;
    let elements =
        weights::table(&config).iter().map(|(_, shape, _)| shape.iter().product::<usize>()).sum::<usize>();
    Ok(Sizes::of_config(&folder_name(folder), &config, 4 * elements as u64))
}

fn folder_name(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The bundle to use where none was named: `named` (the value of `UTR_BUNDLE`), else the only one found beside the
/// executable or in the repository around it or around the working folder.
///
/// # Errors
/// [`Error::Bundle`] that says where was looked, or which of several to choose from.
pub fn default_bundle(
    named: Option<PathBuf>,
    executable: Option<&Path>,
    working: Option<&Path>,
) -> Result<PathBuf> {
    if let Some(folder) = named {
        return Ok(folder);
    }
    let around_executable = executable.into_iter().flat_map(|path| path.ancestors().skip(1));
    let around_working = working.into_iter().flat_map(Path::ancestors);
    let places = around_executable
        .flat_map(|folder| ["bundles", "share/utr/bundles", "models/bundles"].map(|inner| folder.join(inner)))
        .chain(around_working.map(|folder| folder.join("models/bundles")));
    for place in places {
        if let Some(folder) = only_bundle(&place)? {
            return Ok(folder);
        }
    }
    Err(Error::Bundle(
        "none was named and none found in models/bundles of the repository or beside the program; give one with \
         --bundle DIR or UTR_BUNDLE"
            .into(),
    ))
}

/// The bundle that a root file system which is not running would use: its store's current one, else the one that its package brought.
///
/// # Errors
/// [`Error::Bundle`] where it has none, or several came with it.
pub fn bundle_of_root(root: &Path) -> Result<PathBuf> {
    let store = Store::at(root.join(store::DEFAULT.trim_start_matches('/')));
    if let Some(folder) = store.current()? {
        return Ok(folder);
    }
    let place = root.join("usr/share/utr/bundles");
    let none = || Error::Bundle(format!("{} has none (no {})", root.display(), place.display()));
    only_bundle(&place)?.ok_or_else(none)
}

/// The only bundle in a folder, where there is one.
fn only_bundle(place: &Path) -> Result<Option<PathBuf>> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(place)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|folder| folder.join("manifest.json").is_file())
        .collect();
    found.sort();
    if found.len() > 1 {
        let names: Vec<String> = found.iter().map(|folder| folder.display().to_string()).collect();
        let names = names.join(", ");
        return Err(Error::Bundle(format!("there are several, choose one with --bundle: {names}")));
    }
    Ok(found.pop())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(root: &Path, name: &str) -> PathBuf {
        let folder = root.join("models/bundles").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("manifest.json"), "{}").unwrap();
        folder
    }

    #[test]
    fn the_default_bundle_is_the_named_one_then_the_only_one_around_the_program() {
        let root = tempfile::tempdir().unwrap();
        let executable = root.path().join("target/release/utr");
        let find = |named: Option<PathBuf>| default_bundle(named, Some(&executable), None);
        assert!(find(None).unwrap_err().to_string().contains("UTR_BUNDLE"));
        let nano = bundle(root.path(), "nano");
        assert_eq!(find(None).unwrap(), nano);
        assert_eq!(find(Some("elsewhere".into())).unwrap(), Path::new("elsewhere"));
        bundle(root.path(), "micro");
        let message = find(None).unwrap_err().to_string();
        assert!(message.contains("nano") && message.contains("micro"), "{message}");
    }

    #[test]
    fn a_root_has_its_stores_bundle_or_its_packages_and_nothing_of_the_host() {
        let outer = tempfile::tempdir().unwrap();
        bundle(outer.path(), "of-the-host");
        let root = outer.path().join("rootfs");
        let message = bundle_of_root(&root).unwrap_err().to_string();
        assert!(message.contains("usr/share/utr/bundles"), "{message}");
        let packed = root.join("usr/share/utr/bundles/nano");
        std::fs::create_dir_all(&packed).unwrap();
        std::fs::write(packed.join("manifest.json"), "{}").unwrap();
        assert_eq!(bundle_of_root(&root).unwrap(), packed);
        let store = root.join("var/lib/utr/bundles");
        std::fs::create_dir_all(store.join("big-0123456789ab")).unwrap();
        std::os::unix::fs::symlink("big-0123456789ab", store.join("current")).unwrap();
        assert_eq!(bundle_of_root(&root).unwrap(), store.join("big-0123456789ab"));
    }

    #[test]
    fn a_folder_that_is_no_model_says_what_it_lacks() {
        let folder = tempfile::tempdir().unwrap();
        let message = Model::open(folder.path(), None).err().unwrap().to_string();
        assert!(message.contains("manifest.json"), "{message}");
        let message = Model::open(&folder.path().join("none"), None).err().unwrap().to_string();
        assert!(message.contains("not a folder"), "{message}");
    }
}
