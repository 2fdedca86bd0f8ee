//! The small random model: weights, tokenizer, folder and bundle.
//!
//! Comes in: golden questions to put into the manifest. Goes out: two folders on disk that hold the same weights in f32.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use utr_models::bundle::{DECODER, GoldenQuestion, Manifest, VISION, write_bundle};
use utr_models::config::{Config, TextConfig, VisionConfig};
use utr_models::generate::Sampling as TokenSampling;
use utr_models::gguf::{DecoderExport, Format, write_decoder};
use utr_models::manifest::{Memory, Network, Provenance, Quantization, Window, WindowMode};
use utr_models::onnx::{Storage, VisionExport, write_vision};
use utr_models::preprocess::Preprocessor;
use utr_models::text::{Tokenizer, save_tokenizer, stop_tokens, train_bpe, world_added_tokens};
use utr_models::weights::{self, Init, Weights};
use utr_runtime::interrupt::Interrupt;
use utr_runtime::load::Model;
use utr_runtime::pipeline::{Pipeline, Settings};

/// A folder that holds `hf/` and `bundle/`.
pub struct Tiny {
    root: tempfile::TempDir,
    config: Config,
    weights: Weights,
}

impl Tiny {
    /// A new model; its bundle carries the golden questions.
    pub fn new(golden: Vec<GoldenQuestion>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("hf");
        std::fs::create_dir(&folder).unwrap();
        let corpus =
            (0..200).map(|i| format!("which square moved {i} times to the left before the red one stopped?"));
        let json = train_bpe(corpus, 1024, &world_added_tokens()).unwrap();
        save_tokenizer(&folder, &json).unwrap();
        let tokenizer = Tokenizer::load(&folder).unwrap();
        let id = |token: &str| tokenizer.token_id(token).unwrap();
        let vision = VisionConfig {
            hidden: 24,
            intermediate: 40,
            layers: 2,
            heads: 3,
            image_size: 40,
            patch: 8,
            layer_norm_eps: 1e-6,
        };
        let text = TextConfig {
            hidden: 32,
            intermediate: 64,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 8,
            vocab: tokenizer.vocab_size(),
            rope_theta: 1e4,
            rms_norm_eps: 1e-6,
            max_positions: 600,
            tied: false,
        };
        let config = Config {
            vision,
            text,
            feature_layers: vec![2],
            image_token: id("<image>"),
            video_token: id("<video>"),
        };
        let weights = random_weights(&config);
        weights::save(&folder, &weights).unwrap();
        std::fs::write(folder.join("config.json"), config.to_hf().to_string()).unwrap();
        let tiny = Self { root, config, weights };
        tiny.export(&tokenizer, golden);
        tiny
    }

    pub fn hf(&self) -> PathBuf {
        self.root.path().join("hf")
    }

    pub fn bundle(&self) -> PathBuf {
        self.root.path().join("bundle")
    }

    fn tensor(&self, published: &str) -> utr_models::Result<(Vec<usize>, Vec<f32>)> {
        let name = weights::canonical(published).unwrap();
        let tensor = self.weights.get(&name).unwrap_or_else(|| panic!("no tensor {published}"));
        Ok((tensor.dims().to_vec(), tensor.flatten_all()?.to_vec1()?))
    }

    fn export(&self, tokenizer: &Tokenizer, golden: Vec<GoldenQuestion>) {
        let (v, t) = (&self.config.vision, &self.config.text);
        let vision = VisionExport {
            image_size: v.image_size,
            patch_size: v.patch,
            hidden_size: v.hidden,
            intermediate_size: v.intermediate,
            num_layers: v.layers,
            num_heads: v.heads,
            layer_norm_eps: v.layer_norm_eps as f32,
            text_hidden_size: t.hidden,
            storage: Storage::F32,
        };
        let decoder = DecoderExport {
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
        };
        let manifest = Manifest {
            format_version: 0,
            name: "tiny".into(),
            network: Network {
                preprocess: Preprocessor::siglip(v.image_size),
                vision: vision.clone(),
                decoder: decoder.clone(),
                stop_tokens: stop_tokens(&self.hf(), tokenizer).unwrap(),
            },
            window: Window { frames: 32, fps: 2.0, live_mode: WindowMode::Exact, accuracy: BTreeMap::new() },
            sampling: TokenSampling::default(),
            quantization: Quantization { format: Format::F32, tensors: vec![] },
            memory: Memory { weights: 0, window: 0, kv: 0, scratch: 0 },
            golden,
            provenance: Provenance {
                exporter: "test".into(),
                recipe: String::new(),
                seeds: BTreeMap::new(),
                data: BTreeMap::new(),
                hours: 0.0,
            },
            scores: BTreeMap::new(),
            files: BTreeMap::new(),
        };
        let _ = std::fs::remove_dir_all(self.bundle());
        write_bundle(&self.bundle(), manifest, |folder| {
            for entry in std::fs::read_dir(self.hf()).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap();
                if name.starts_with("tokenizer") || name.ends_with(".jinja") {
                    std::fs::copy(&path, folder.join(name)).unwrap();
                }
            }
            write_vision(&folder.join(VISION), &vision, &|name| self.tensor(name))?;
            write_decoder(&folder.join(DECODER), "tiny", &decoder, Format::F32, &self.hf(), &|name| {
                self.tensor(name)
            })?;
            Ok(())
        })
        .unwrap();
    }

    pub fn pipeline(&self, folder: &Path, frames: usize) -> Pipeline {
        Pipeline::new(Model::open(folder, None).unwrap(), &Settings::exact(frames), Interrupt::default())
            .unwrap()
    }
}

/// Uniform values with the spread that the table asks for; a linear congruential generator, the same every time.
fn random_weights(config: &Config) -> Weights {
    let mut state = 7u64;
    let mut unit = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let mut draw = |(name, shape, init): (String, Vec<usize>, Init)| {
        let count = shape.iter().product();
        let (base, spread) = match init {
            Init::Normal(deviation) => (0.0, deviation.max(0.1) * 3f32.sqrt()),
            Init::One => (1.0, 0.2),
            Init::Zero => (0.0, 0.2),
        };
        let values: Vec<f32> = (0..count).map(|_| base + spread * unit()).collect();
        (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    weights::table(config).into_iter().map(&mut draw).collect()
}
