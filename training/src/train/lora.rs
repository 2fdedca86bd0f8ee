//! Low-rank adapters: the decoder learns through a few numbers per matrix, so that a small host holds its moments.
//!
//! Comes in: which matrices, and of what rank. Goes out: variables `A` (rank, in) and `B` (out, rank) for each, such that
//! `W + alpha / rank * B A` stands for `W` (Hu et al., LoRA, 2021). `B` starts at zero, so that training begins with the model
//! as it was. While it trains, an adapter stands beside its matrix: `x Wᵀ + alpha / rank * x Aᵀ Bᵀ`, so that no gradient of `W`'s size is formed. A checkpoint holds the merged weights, which everything else loads, and beside them what it takes to go on.

use super::gradient::clip_index;
use crate::stats::normal;
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor, Var};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use utr_models::weights::Weights;

/// The file of a checkpoint that holds adapters and the matrices that they sit on.
pub const ADAPTERS: &str = "adapters.safetensors";

/// Which matrices of the decoder get adapters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lora {
    /// Inner width of an adapter.
    pub rank: usize,
    /// Strength: an adapter counts `alpha / rank` times.
    pub alpha: f64,
    /// Matrices of each block of the decoder, such as `q_proj`; all seven where absent.
    #[serde(default = "targets")]
    pub targets: Vec<String>,
}

fn targets() -> Vec<String> {
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"].map(String::from).to_vec()
}

impl Lora {
    /// What is out of range, in words.
    pub fn check(&self) -> Result<(), String> {
        let known = targets();
        match self.targets.iter().find(|target| !known.contains(target)) {
            _ if self.rank == 0 => Err("lora: rank must be above zero".into()),
            _ if !(self.alpha > 0.0 && self.alpha.is_finite()) => {
                Err("lora: alpha must be above zero".into())
            }
            _ if self.targets.is_empty() => Err("lora: targets must not be empty".into()),
            Some(target) => Err(format!("lora: {target:?} is none of {}", known.join(", "))),
            None => Ok(()),
        }
    }

    /// Whether a tensor gets an adapter.
    pub fn hits(&self, name: &str) -> bool {
        let hit = |target: &String| name.ends_with(&format!(".{target}.weight"));
        name.starts_with("language_model.layers.") && self.targets.iter().any(hit)
    }
}

/// An adapter on the matrix `name`.
struct Adapter {
    name: String,
    a: Var,
    b: Var,
}

/// The adapters of a stage.
pub struct Adapters {
    scale: f64,
    list: Vec<Adapter>,
}

impl Adapters {
    /// New adapters on `weights`; everything random follows from `seed`.
    pub fn new(lora: &Lora, weights: &Weights, seed: u64) -> Result<Self> {
        let mut list = Vec::new();
        for (number, (name, weight)) in weights.iter().filter(|(name, _)| lora.hits(name)).enumerate() {
            let (outputs, inputs) = weight.dims2()?;
            // Places that no clip of a stage has.
            let mut rng = ChaCha8Rng::seed_from_u64(clip_index(seed, usize::MAX - 1, number as u64));
            let deviation = (inputs as f32).powf(-0.5);
            let a: Vec<f32> = (0..lora.rank * inputs).map(|_| normal(&mut rng) * deviation).collect();
            let b = vec![0.0f32; outputs * lora.rank];
            list.push(Adapter {
                name: name.clone(),
                a: Var::from_vec(a, (lora.rank, inputs), weight.device())?,
                b: Var::from_vec(b, (outputs, lora.rank), weight.device())?,
            });
        }
        Ok(Self { scale: lora.alpha / lora.rank as f64, list })
    }

    /// Goes on from a checkpoint: adapters from its [`ADAPTERS`], and into `weights` the matrices without them.
    pub fn restore(lora: &Lora, weights: &mut Weights, folder: &Path) -> Result<Self> {
        let path = folder.join(ADAPTERS);
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu)
            .with_context(|| format!("reading {}", path.display()))?;
        let mut list = Vec::new();
        for (name, weight) in weights.iter_mut().filter(|(name, _)| lora.hits(name)) {
            let get = |kind: &str| {
                let key = format!("{kind}.{name}");
                tensors.get(&key).with_context(|| format!("{} has no {key}", path.display()))
            };
            let here = |kind| Ok::<_, anyhow::Error>(get(kind)?.to_device(weight.device())?);
            let (a, b, base) = (here("a")?, here("b")?, here("base")?);
            let ((outputs, inputs), rank) = (weight.dims2()?, lora.rank);
            ensure!(
                a.dims() == [rank, inputs] && b.dims() == [outputs, rank] && base.dims() == weight.dims(),
                "{}: the adapter of {name} has other sizes than the recipe says",
                path.display()
            );
            list.push(Adapter { name: name.clone(), a: Var::from_tensor(&a)?, b: Var::from_tensor(&b)? });
            *weight = base;
        }
        Ok(Self { scale: lora.alpha / lora.rank as f64, list })
    }

    /// The variables with their names.
    pub fn variables(&self) -> impl Iterator<Item = (String, Var)> + '_ {
        self.list.iter().flat_map(|adapter| {
            let stem = adapter.name.trim_end_matches("weight");
            [(format!("{stem}lora_a"), adapter.a.clone()), (format!("{stem}lora_b"), adapter.b.clone())]
        })
    }

    /// The same adapters as variables of another type on another device; themselves where both are theirs.
    pub fn cast(&self, dtype: DType, device: &Device) -> Result<Self> {
        let var = |var: &Var| Var::from_tensor(&var.as_tensor().to_dtype(dtype)?.to_device(device)?);
        self.with(|_, a, b| Ok((var(a)?, var(b)?)))
    }

    /// The same adapters with the values that `wide` has under their variables' names.
    pub fn valued(&self, wide: &Weights) -> Result<Self> {
        self.with(|stem, _, _| {
            let get = |part: &str| {
                let name = format!("{stem}{part}");
                Ok::<_, anyhow::Error>(Var::from_tensor(
                    wide.get(&name).with_context(|| format!("{name} is missing"))?,
                )?)
            };
            Ok((get("lora_a")?, get("lora_b")?))
        })
    }

    fn with(&self, change: impl Fn(&str, &Var, &Var) -> Result<(Var, Var)>) -> Result<Self> {
        let one = |Adapter { name, a, b }: &Adapter| {
            let (a, b) = change(name.trim_end_matches("weight"), a, b)?;
            Ok(Adapter { name: name.clone(), a, b })
        };
        Ok(Self { scale: self.scale, list: self.list.iter().map(one).collect::<Result<_>>()? })
    }

    /// Puts the adapters as of now beside the matrices that they sit on, where the network finds them; gradients flow to the variables, and none to the
    /// matrices.
    pub fn beside(&self, weights: &Weights) -> Result<Weights> {
        let mut weights = weights.clone();
        for Adapter { name, a, b } in &self.list {
            let stem = name.trim_end_matches("weight");
            weights.insert(format!("{stem}lora_a"), a.as_tensor().clone());
            weights.insert(format!("{stem}lora_b"), (b.as_tensor() * self.scale)?);
        }
        Ok(weights)
    }

    /// `weights` with the adapters in them, as of now.
    pub fn merge(&self, weights: &Weights) -> Result<Weights> {
        let mut merged = weights.clone();
        for adapter in &self.list {
            if let Some(weight) = merged.get_mut(&adapter.name) {
                let change = (adapter.b.as_tensor().matmul(adapter.a.as_tensor())? * self.scale)?;
                *weight = (&*weight + change)?;
            }
        }
        Ok(merged)
    }

    /// What [`Adapters::restore`] reads.
    pub fn tensors(&self, weights: &Weights) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = BTreeMap::new();
        for Adapter { name, a, b } in &self.list {
            let base = weights.get(name).with_context(|| format!("{name} is missing"))?;
            tensors.insert(format!("a.{name}"), a.as_detached_tensor());
            tensors.insert(format!("b.{name}"), b.as_detached_tensor());
            tensors.insert(format!("base.{name}"), base.clone());
        }
        Ok(tensors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use utr_models::ops;

    const NAME: &str = "language_model.layers.0.mlp.up_proj.weight";

    fn lora() -> Lora {
        Lora { rank: 2, alpha: 3.0, targets: vec!["up_proj".into()] }
    }

    fn tensor(seed: u64, rows: usize, columns: usize) -> Tensor {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let data: Vec<f32> = (0..rows * columns).map(|_| normal(&mut rng)).collect();
        Tensor::from_vec(data, (rows, columns), &Device::Cpu).unwrap()
    }

    fn adapters(weights: &Weights) -> Adapters {
        let adapters = Adapters::new(&lora(), weights, 1).unwrap();
        assert_eq!(adapters.list.len(), 1);
        adapters
    }

    fn weights() -> Weights {
        let other = "language_model.layers.0.self_attn.q_proj.weight";
        Weights::from([(NAME.to_string(), tensor(1, 5, 4)), (other.to_string(), tensor(2, 4, 4))])
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn the_merged_matrix_does_what_matrix_and_adapter_do_side_by_side() {
        let (weights, x) = (weights(), tensor(3, 6, 4));
        let adapters = adapters(&weights);
        let merged = |adapters: &Adapters| adapters.merge(&weights).unwrap();
        assert!(
            merged(&adapters).iter().all(|(name, w)| values(w) == values(&weights[name])),
            "B starts at zero"
        );
        adapters.list[0].b.set(&tensor(4, 5, 2)).unwrap();
        let down = ops::linear(&x, adapters.list[0].a.as_tensor(), None).unwrap();
        let side = (ops::linear(&down, adapters.list[0].b.as_tensor(), None).unwrap() * 1.5).unwrap();
        let want = (ops::linear(&x, &weights[NAME], None).unwrap() + side).unwrap();
        let got = ops::linear(&x, &merged(&adapters)[NAME], None).unwrap();
        for (got, want) in values(&got).iter().zip(values(&want)) {
            assert!((got - want).abs() < 1e-5, "{got} and {want}");
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let (weights, x) = (weights(), tensor(3, 6, 4));
        let adapters = adapters(&weights);
        adapters.list[0].b.set(&tensor(4, 5, 2)).unwrap();
        let loss = || {
            let merged = adapters.merge(&weights).unwrap();
            ops::linear(&x, &merged[NAME], None).unwrap().sqr().unwrap().mean_all().unwrap()
        };
        let grads = loss().backward().unwrap();
        for (name, var) in adapters.variables() {
            let grad = values(grads.get(&var).unwrap());
            let at = values(var.as_tensor());
            for i in 0..at.len() {
                let moved = |by: f32| {
                    let mut data = at.clone();
                    data[i] += by;
                    var.set(&Tensor::from_vec(data, var.shape(), &Device::Cpu).unwrap()).unwrap();
                    f64::from(loss().to_scalar::<f32>().unwrap())
                };
                let slope = (moved(0.01) - moved(-0.01)) / 0.02;
                moved(0.0);
                assert!(
                    (slope - f64::from(grad[i])).abs() < 2e-3 * (1.0 + slope.abs()),
                    "{name} {i}: {slope} and {}",
                    grad[i]
                );
            }
        }
    }

    #[test]
    fn adapters_survive_a_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let weights = weights();
        let adapters = adapters(&weights);
        adapters.list[0].b.set(&tensor(4, 5, 2)).unwrap();
        let tensors = adapters.tensors(&weights).unwrap();
        super::super::optimizer::save(&tensors, &folder.path().join(ADAPTERS)).unwrap();
        let mut found = adapters.merge(&weights).unwrap();
        let again = Adapters::restore(&lora(), &mut found, folder.path()).unwrap();
        assert_eq!(values(&found[NAME]), values(&weights[NAME]));
        let both = [&adapters, &again].map(|a| values(&a.merge(&weights).unwrap()[NAME]));
        assert_eq!(both[0], both[1]);
    }
}
