//! AdamW with the schedule and the parameter groups of the paper's code base (reference.md §2.5).
//!
//! Comes in: named variables and summed gradients in their order. Goes out: updated variables. Moments are f32. The vision tower has its own
//! learning rate; biases, norms and the newline are never decayed.

use anyhow::{Context, Result};
use candle_core::{Device, Tensor, Var};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Learning rates and schedule of one stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Peak learning rate of projector and decoder.
    pub lr: f64,
    /// Peak learning rate of the vision tower; as `lr` where absent.
    pub vision_lr: Option<f64>,
    /// Share of the steps spent on linear warm-up.
    #[serde(default = "warmup")]
    pub warmup: f64,
    /// The learning rate at the end, as a share of the peak; the cosine falls to it.
    #[serde(default)]
    pub floor: f64,
    /// Decoupled weight decay of matrices.
    #[serde(default)]
    pub weight_decay: f64,
    /// Decay of the first and second moment.
    #[serde(default = "betas")]
    pub betas: (f64, f64),
    /// Largest norm of the whole gradient; longer ones are scaled down.
    #[serde(default = "one")]
    pub clip: f64,
}

fn warmup() -> f64 {
    0.03
}

fn betas() -> (f64, f64) {
    (0.9, 0.999)
}

fn one() -> f64 {
    1.0
}

impl Schedule {
    /// Share of the peak learning rate at `step` (from 0) of `steps`: linear warm-up over `ceil(warmup * steps)`, then a cosine.
    pub fn factor(&self, step: usize, steps: usize) -> f64 {
        let warm = (self.warmup * steps as f64).ceil();
        let step = step as f64;
        if step < warm {
            return (step + 1.0) / warm;
        }
        let done = (step - warm) / (steps as f64 - warm).max(1.0);
        self.floor + (1.0 - self.floor) * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
    }
}

/// Variables under training with their moments.
pub struct AdamW {
    names: Vec<String>,
    vars: Vec<Var>,
    first: Vec<Vec<f32>>,
    second: Vec<Vec<f32>>,
    updates: i32,
}

impl AdamW {
    /// Starts with zero moments.
    pub fn new(vars: impl IntoIterator<Item = (String, Var)>) -> Self {
        let (names, vars): (Vec<_>, Vec<Var>) = vars.into_iter().unzip();
        let zeros = || vars.iter().map(|v| vec![0.0; v.elem_count()]).collect::<Vec<_>>();
        Self { first: zeros(), second: zeros(), names, vars, updates: 0 }
    }

    /// The variables, in gradient order.
    pub fn vars(&self) -> &[Var] {
        &self.vars
    }

    /// One update with the gradients `grads` (one flat vector per variable), scaled so that their norm is at most `clip`.
    /// Returns the norm before scaling.
    pub fn step(&mut self, grads: &[Vec<f32>], schedule: &Schedule, factor: f64) -> Result<f64> {
        let norm = grads.iter().flatten().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let scale = if norm > schedule.clip { (schedule.clip / norm) as f32 } else { 1.0 };
        self.updates += 1;
        let (b1, b2) = (schedule.betas.0 as f32, schedule.betas.1 as f32);
        let unbias = |beta: f64| 1.0 / (1.0 - beta.powi(self.updates));
        let (u1, u2) = (unbias(schedule.betas.0) as f32, unbias(schedule.betas.1) as f32);
        for (i, var) in self.vars.iter().enumerate() {
            let name = &self.names[i];
            let peak = if name.starts_with("vision_tower") { schedule.vision_lr.unwrap_or(schedule.lr) } else { schedule.lr };
            let lr = (peak * factor) as f32;
            let decay = if var.rank() >= 2 { lr * schedule.weight_decay as f32 } else { 0.0 };
            let mut data = var.as_detached_tensor().flatten_all()?.to_vec1::<f32>()?;
            let moments = self.first[i].iter_mut().zip(&mut self.second[i]);
            for ((x, g), (m, v)) in data.iter_mut().zip(&grads[i]).zip(moments) {
                let g = g * scale;
                *m = b1 * *m + (1.0 - b1) * g;
                *v = b2 * *v + (1.0 - b2) * g * g;
                *x -= decay * *x + lr * (*m * u1) / ((*v * u2).sqrt() + 1e-8);
            }
            var.set(&Tensor::from_vec(data, var.shape(), &Device::Cpu)?)?;
        }
        Ok(norm)
    }

    /// Writes moments and the number of updates.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut tensors = BTreeMap::new();
        for (i, name) in self.names.iter().enumerate() {
            let tensor = |data: &Vec<f32>| Tensor::from_vec(data.clone(), data.len(), &Device::Cpu);
            tensors.insert(format!("first.{name}"), tensor(&self.first[i])?);
            tensors.insert(format!("second.{name}"), tensor(&self.second[i])?);
        }
        tensors.insert("updates".into(), Tensor::new(&[i64::from(self.updates)], &Device::Cpu)?);
        let temporary = path.with_extension("tmp");
        safetensors::serialize_to_file(tensors.iter().map(|(k, v)| (k.as_str(), v)), None, &temporary)
            .with_context(|| format!("writing {}", temporary.display()))?;
        std::fs::rename(&temporary, path).with_context(|| format!("renaming {}", temporary.display()))
    }

    /// Reads what [`AdamW::save`] wrote for the same variables.
    pub fn restore(&mut self, path: &Path) -> Result<()> {
        let tensors = candle_core::safetensors::load(path, &Device::Cpu).with_context(|| format!("reading {}", path.display()))?;
        let get = |name: String| tensors.get(&name).with_context(|| format!("{} has no {name}", path.display()));
        for (i, name) in self.names.iter().enumerate() {
            let (first, second) = (get(format!("first.{name}"))?.to_vec1()?, get(format!("second.{name}"))?.to_vec1()?);
            anyhow::ensure!(first.len() == self.first[i].len(), "{}: moments of {name} have another size", path.display());
            (self.first[i], self.second[i]) = (first, second);
        }
        self.updates = get("updates".into())?.to_vec1::<i64>()?.first().copied().unwrap_or(0) as i32;
        Ok(())
    }
}
