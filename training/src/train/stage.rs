//! What a stage trains: which weights move, what the network computes with, and whether all ranks have the same.
//!
//! Comes in: weights in f32 and a stage. Goes out: weights of the type to compute in, the variables among them, and the network over them with its adapters.
//! Nothing is trained here.

use super::checkpoint::State;
use super::lora::Adapters;
use super::recipe::{Kind, Stage};
use anyhow::Result;
use candle_core::{DType, Device, Var};
use sha2::{Digest, Sha256};
use utr_models::Config;
use utr_models::network::Network;
use utr_models::weights::Weights;

/// The network over what it computes with, and adapters as they are now.
pub fn network(config: &Config, computed: &Weights, adapters: Option<&Adapters>) -> Result<Network> {
    let network = |weights: &Weights| Network::new(config.clone(), weights);
    Ok(match adapters {
        Some(adapters) => network(&adapters.beside(computed)?)?,
        None => network(computed)?,
    })
}

/// Weights to compute with, in `dtype` on `device`, and the variables among them: the tensors that a stage moves. The others are constants and cost no gradient.
pub fn variables(
    weights: &Weights,
    stage: &Stage,
    dtype: DType,
    device: &Device,
) -> Result<(Weights, Vec<(String, Var)>)> {
    let (mut computed, mut vars) = (Weights::new(), Vec::new());
    for (name, tensor) in weights {
        let projector = name.starts_with("multi_modal_projector");
        let moves = match stage.kind {
            Kind::Align => projector,
            Kind::Tune if stage.lora.is_some() => projector || name == "image_newline",
            // The tower's last norm is saved for others but never used.
            Kind::Tune => !name.contains("post_layernorm"),
        };
        let mut tensor = tensor.to_dtype(dtype)?.to_device(device)?;
        if moves {
            let var = Var::from_tensor(&tensor)?;
            tensor = var.as_tensor().clone();
            vars.push((name.clone(), var));
        }
        computed.insert(name.clone(), tensor);
    }
    Ok((computed, vars))
}

/// A digest of weights and of a place in the recipe.
pub fn digest(weights: &Weights, state: &State) -> Result<Vec<u8>> {
    let mut hasher = Sha256::new();
    hasher.update(format!("{} {} {}", state.stage, state.step, state.total_steps));
    for (name, tensor) in weights {
        hasher.update(name);
        for x in tensor.flatten_all()?.to_vec1::<f32>()? {
            hasher.update(x.to_le_bytes());
        }
    }
    Ok(hasher.finalize().to_vec())
}
