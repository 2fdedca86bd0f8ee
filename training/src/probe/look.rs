//! One model on one sample.
//!
//! Comes in: a Hugging Face folder, a sample. Goes out: a [`Look`]: how the attention of the rows that choose its answers' tokens divides among frames and
//! text, on the whole and in every layer. Means over samples are made elsewhere.

use crate::sample::Sample;
use crate::train::encode::{Encoder, Masking};
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use utr_models::Network;
use utr_models::network::Attention;
use utr_runtime::evidence::Evidence;

/// Where a model looks when it says a sample's answers: means over answer tokens, heads and layers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// The sample.
    pub id: String,
    /// The model's name in the report.
    pub model: String,
    /// Tokens of the answers with their end-of-turn tokens.
    pub answer_tokens: usize,
    /// Share of all attention on the frames' visual tokens.
    pub visual: f32,
    /// On the newline vector behind the clip.
    pub newline: f32,
    /// On prompt, question and answer so far; the three sum to 1.
    pub text: f32,
    /// On each frame, in time order; sums to `visual`.
    pub mass: Vec<f32>,
    /// Each frame's share of what went to frames, as `utr ask --evidence` tells it; sums to 1.
    pub per_frame: Vec<f32>,
    /// Effective number of frames: the exponential of the shares' entropy, 1 to the number of frames.
    pub breadth: f32,
    /// The same by layer.
    pub layers: Vec<Layer>,
}

/// One layer of a [`Look`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// Share of all attention on each frame.
    pub mass: Vec<f32>,
    /// Effective number of frames.
    pub breadth: f32,
}

impl Look {
    /// From the attention of a network.
    pub fn new(model: &str, id: &str, attention: Attention) -> Self {
        let mean = attention.mean();
        let evidence = Evidence::from_mass(&mean.frames);
        let layer = |mass: Vec<f32>| Layer { breadth: Evidence::from_mass(&mass).breadth, mass };
        Self {
            id: id.into(),
            model: model.into(),
            answer_tokens: attention.targets,
            visual: mean.frames.iter().sum(),
            newline: mean.newline,
            text: mean.text,
            mass: mean.frames,
            per_frame: evidence.per_frame,
            breadth: evidence.breadth,
            layers: attention.layers.into_iter().map(|looks| layer(looks.frames)).collect(),
        }
    }
}

/// A model ready to be looked into.
pub struct Model {
    name: String,
    network: Network,
    encoder: Encoder,
}

impl Model {
    /// Loads a Hugging Face folder in f32.
    ///
    /// # Errors
    /// Names the folder and what is missing.
    pub fn load(name: String, folder: &Path) -> Result<Self> {
        let network = Network::load(folder, DType::F32, &Device::Cpu)
            .with_context(|| format!("loading the model {}", folder.display()))?;
        let encoder = Encoder::load(folder, &network.config, Masking::Answer, 0.0)?;
        Ok(Self { name, network, encoder })
    }

    /// Where it looks when it says the sample's answers.
    ///
    /// # Errors
    /// A sample that cannot be encoded; attention that is not finite.
    pub fn look(&self, sample: &Sample) -> Result<Look> {
        let example = self.encoder.example(sample, &self.network.vision)?;
        let look = Look::new(&self.name, &sample.id, self.network.attention(&example)?);
        ensure!(
            look.breadth.is_finite() && (look.visual + look.newline + look.text).is_finite(),
            "model {} gives no finite attention for sample {}",
            self.name,
            sample.id
        );
        Ok(look)
    }
}

/// A name for each folder: its last part where that tells them apart, else the whole path, numbered where even that is the same.
pub fn names(folders: &[PathBuf]) -> Vec<String> {
    let last = |folder: &PathBuf| folder.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = |(place, folder): (usize, &PathBuf)| {
        let whole = folder.display().to_string();
        let alike = |f: &dyn Fn(&PathBuf) -> bool| folders.iter().filter(|other| f(other)).count();
        match last(folder) {
            Some(name) if alike(&|other| last(other).as_ref() == Some(&name)) == 1 => name,
            _ if alike(&|other| other == folder) == 1 => whole,
            _ => format!("{whole} ({})", place + 1),
        }
    };
    folders.iter().enumerate().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use utr_models::network::Looks;

    #[test]
    fn breadth_is_one_for_one_frame_and_all_for_even_frames_in_every_layer() {
        let looks = |frames: &[f32]| {
            let visual: f32 = frames.iter().sum();
            Looks { frames: frames.to_vec(), newline: 0.1, text: 0.9 - visual }
        };
        let layers = vec![looks(&[0.0, 0.3, 0.0, 0.0]), looks(&[0.1; 4])];
        let look = Look::new("m", "s", Attention { layers, targets: 3 });
        assert!((look.layers[0].breadth - 1.0).abs() < 1e-5 && (look.layers[1].breadth - 4.0).abs() < 1e-4);
        // On the whole: 0.05, 0.2, 0.05, 0.05 of all attention.
        assert!((look.visual - 0.35).abs() < 1e-6 && (look.text - 0.55).abs() < 1e-6);
        let shares = [1.0 / 7.0, 4.0 / 7.0, 1.0 / 7.0, 1.0 / 7.0f32];
        assert!(look.per_frame.iter().zip(shares).all(|(a, b)| (a - b).abs() < 1e-5), "{look:?}");
        let entropy: f32 = shares.iter().map(|p| -p * p.ln()).sum();
        assert!((look.breadth - entropy.exp()).abs() < 1e-4);
    }

    #[test]
    fn models_have_names_that_tell_them_apart() {
        let of = |paths: &[&str]| names(&paths.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(of(&["runs/base", "runs/utr"]), ["base", "utr"]);
        assert_eq!(of(&["base/model", "utr/model", "x/y"]), ["base/model", "utr/model", "y"]);
        assert_eq!(of(&["a", "a"]), ["a (1)", "a (2)"]);
    }
}
