//! AdamW with the schedule and the parameter groups of the paper's code base (reference.md §2.5), and Muon for short budgets. The warm-up is one update
//! ahead of Hugging Face's, whose first update has a rate of zero.
//!
//! Comes in: named variables and summed gradients in their order. Goes out: updated variables. Moments are f32 and lie with the rank that moves
//! the variable, as do the f32 values (masters) of variables of a narrower type, which are those values rounded. The vision tower has its own
//! learning rate; biases, norms and the newline are never decayed. Muon (momentum, orthogonalized by Newton and Schulz's iteration) moves the
//! matrices inside the blocks where a stage asks for it; everything else stays with AdamW.

use super::ranks::{Transport, owners};
use anyhow::{Context, Result};
use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor, Var};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use utr_models::weights::Weights;

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
    /// Matrices of blocks and projector move by Muon, scaled so that the same learning rate serves.
    #[serde(default)]
    pub muon: bool,
}

impl Schedule {
    /// What is out of range, in words.
    pub fn check(&self) -> Result<(), String> {
        let share = |v: f64| (0.0..=1.0).contains(&v);
        let rate = |v: f64| v > 0.0 && v <= 1.0;
        let Self { lr, vision_lr, warmup, floor, weight_decay, betas, clip, .. } = *self;
        let checks = [
            ("lr must be above 0 and at most 1", rate(lr) && vision_lr.is_none_or(rate)),
            ("warmup and floor must lie between 0 and 1", share(warmup) && share(floor)),
            ("weight_decay must lie between 0 and 1", share(weight_decay)),
            (
                "betas must be at least 0 and below 1",
                [betas.0, betas.1].iter().all(|b| (0.0..1.0).contains(b)),
            ),
            ("clip must be above 0", clip > 0.0 && clip.is_finite()),
        ];
        checks.iter().find(|(_, fine)| !fine).map_or(Ok(()), |(what, _)| Err((*what).to_string()))
    }
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

/// Matrices that Muon may move: not the tables of tokens, positions and patches, nor vectors.
fn is_block_matrix(name: &str) -> bool {
    let inside = name.contains(".layers.") || name.starts_with("multi_modal_projector.");
    // Adapters (`….lora_a`) are no matrices of their own.
    inside && name.ends_with(".weight") && !name.contains("norm")
}

/// One update of one variable.
struct Rule<'a> {
    schedule: &'a Schedule,
    factor: f64,
    scale: f32,
    updates: i32,
}

impl Rule<'_> {
    fn lr(&self, name: &str) -> f32 {
        let vision = name.starts_with("vision_tower");
        let peak =
            if vision { self.schedule.vision_lr.unwrap_or(self.schedule.lr) } else { self.schedule.lr };
        (peak * self.factor) as f32
    }

    /// Decoupled weight decay and Adam's quotient of unbiased moments (Loshchilov and Hutter, 2019).
    fn adamw(
        &self,
        (name, matrix): (&str, bool),
        data: &mut [f32],
        grad: &[f32],
        first: &mut [f32],
        second: &mut [f32],
    ) {
        let (b1, b2) = (self.schedule.betas.0 as f32, self.schedule.betas.1 as f32);
        let unbias = |beta: f64| (1.0 / (1.0 - beta.powi(self.updates))) as f32;
        let (u1, u2) = (unbias(self.schedule.betas.0), unbias(self.schedule.betas.1));
        let lr = self.lr(name);
        let decay = if matrix { lr * self.schedule.weight_decay as f32 } else { 0.0 };
        for ((x, g), (m, v)) in data.iter_mut().zip(grad).zip(first.iter_mut().zip(second)) {
            let g = g * self.scale;
            *m = b1 * *m + (1.0 - b1) * g;
            *v = b2 * *v + (1.0 - b2) * g * g;
            *x -= decay * *x + lr * (*m * u1) / ((*v * u2).sqrt() + 1e-8);
        }
    }

    /// Nesterov momentum of 0.95, orthogonalized (Jordan et al., 2024), with the size that AdamW's updates have: `0.2 sqrt(max(rows, columns))`
    /// (Liu et al., 2025).
    fn muon(
        &self,
        (name, device): (&str, &Device),
        (rows, columns): (usize, usize),
        data: Vec<f32>,
        grad: &[f32],
        first: &mut [f32],
    ) -> Result<Vec<f32>> {
        let ahead: Vec<f32> = first
            .iter_mut()
            .zip(grad)
            .map(|(m, g)| {
                let g = g * self.scale;
                *m = 0.95 * *m + g;
                g + 0.95 * *m
            })
            .collect();
        let direction =
            orthogonal(&Tensor::from_vec(ahead, (rows, columns), device)?)?.to_device(&Device::Cpu)?;
        let lr = f64::from(self.lr(name));
        let size = 0.2 * (rows.max(columns) as f64).sqrt();
        let data = Tensor::from_vec(data, (rows, columns), &Device::Cpu)?;
        let kept = (data * (1.0 - lr * self.schedule.weight_decay))?;
        Ok((kept - (direction * (lr * size))?)?.flatten_all()?.to_vec1()?)
    }

    /// Moves one variable, in f32.
    fn apply(&self, moving: Moving<'_>) -> Result<()> {
        let Moving { var, name, grad, master, first, second } = moving;
        let mut data = match &master {
            Some(master) => master.to_vec(),
            None => values(var)?,
        };
        match self.schedule.muon && is_block_matrix(name) {
            true => data = self.muon((name, var.device()), var.dims2()?, data, grad, first)?,
            false => self.adamw((name, var.rank() >= 2), &mut data, grad, first, second),
        }
        if let Some(master) = master {
            master.copy_from_slice(&data);
        }
        set(var, data)
    }
}

/// A variable's values in f32.
pub(super) fn values(var: &Var) -> Result<Vec<f32>> {
    Ok(var.as_detached_tensor().to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

/// Gives a variable values, rounded to its type.
fn set(var: &Var, data: Vec<f32>) -> Result<()> {
    let data = Tensor::from_vec(data, var.shape(), &Device::Cpu)?;
    Ok(var.set(&data.to_dtype(var.dtype())?.to_device(var.device())?)?)
}

/// Five steps of the quintic Newton-Schulz iteration: singular values of `x` go near one, its singular vectors stay.
fn orthogonal(x: &Tensor) -> Result<Tensor> {
    let (rows, columns) = x.dims2()?;
    let wide = if rows > columns { x.t()?.contiguous()? } else { x.clone() };
    let norm = f64::from(wide.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>()?);
    let mut x = (wide / (norm + 1e-7))?;
    for _ in 0..5 {
        let a = x.matmul(&x.t()?)?;
        let b = ((&a * -4.775)? + (a.matmul(&a)? * 2.0315)?)?;
        x = ((&x * 3.4445)? + b.matmul(&x)?)?;
    }
    Ok(if rows > columns { x.t()?.contiguous()? } else { x })
}

/// A variable with all that moves it.
struct Moving<'a> {
    var: &'a Var,
    name: &'a str,
    grad: &'a [f32],
    master: Option<&'a mut [f32]>,
    first: &'a mut [f32],
    second: &'a mut [f32],
}

/// Sum of squares of each gradient.
pub fn squares(grads: &[Vec<f32>]) -> Vec<f64> {
    grads.iter().map(|grad| grad.iter().map(|g| f64::from(*g).powi(2)).sum()).collect()
}

/// Variables under training, with the moments of those that this rank moves.
pub struct AdamW {
    names: Vec<String>,
    vars: Vec<Var>,
    owners: Vec<usize>,
    own: Range<usize>,
    /// Of this rank's variables; empty where all are f32 themselves.
    masters: Vec<Vec<f32>>,
    first: Vec<Vec<f32>>,
    second: Vec<Vec<f32>>,
    updates: i32,
}

impl AdamW {
    /// Starts with zero moments on rank `rank` of `ranks`; each variable is moved by one of them.
    pub fn new(vars: impl IntoIterator<Item = (String, Var)>, rank: usize, ranks: usize) -> Self {
        let (names, vars): (Vec<_>, Vec<Var>) = vars.into_iter().unzip();
        let owners = owners(&vars.iter().map(|v| v.elem_count()).collect::<Vec<_>>(), ranks);
        let own =
            owners.partition_point(|owner| *owner < rank)..owners.partition_point(|owner| *owner <= rank);
        let zeros = || vars[own.clone()].iter().map(|v| vec![0.0; v.elem_count()]).collect::<Vec<_>>();
        Self { first: zeros(), second: zeros(), names, vars, owners, own, masters: Vec::new(), updates: 0 }
    }

    /// Where the variables are of a narrower type: keeps the f32 values of this rank's, which `wide` has by name.
    pub fn with_masters(mut self, wide: &Weights) -> Result<Self> {
        if self.vars.iter().all(|var| var.dtype() == DType::F32) {
            return Ok(self);
        }
        let master = |name: &String| {
            let tensor = wide.get(name).with_context(|| format!("{name} has no f32 values"))?;
            Ok(tensor.flatten_all()?.to_vec1()?)
        };
        self.masters = self.names[self.own.clone()].iter().map(master).collect::<Result<_>>()?;
        Ok(self)
    }

    /// The variables, in gradient order.
    pub fn vars(&self) -> &[Var] {
        &self.vars
    }

    /// Their names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The rank that moves each.
    pub fn owners(&self) -> &[usize] {
        &self.owners
    }

    /// Moves this rank's variables with their gradients `grads` (one flat vector each); `norm` is that of the whole gradient, which is
    /// scaled down to the schedule's `clip`. Variables are spread over one-thread `pools`; without any, this thread does all.
    pub fn step(
        &mut self,
        grads: &[Vec<f32>],
        norm: f64,
        schedule: &Schedule,
        factor: f64,
        pools: &[rayon::ThreadPool],
    ) -> Result<()> {
        let scale = if norm > schedule.clip { (schedule.clip / norm) as f32 } else { 1.0 };
        self.updates += 1;
        let rule = Rule { schedule, factor, scale, updates: self.updates };
        let mut masters = self.masters.iter_mut();
        let moments = self.first.iter_mut().zip(&mut self.second);
        let own = self.vars[self.own.clone()].iter().zip(&self.names[self.own.clone()]);
        let mut shares: Vec<Vec<_>> = pools.iter().map(|_| Vec::new()).collect();
        let places = shares.len().max(1);
        shares.resize_with(places, Vec::new);
        for (i, (((var, name), grad), (first, second))) in own.zip(grads).zip(moments).enumerate() {
            let master = masters.next().map(Vec::as_mut_slice);
            shares[i % places].push(Moving { var, name, grad, master, first, second });
        }
        let update = |share: Vec<Moving<'_>>| share.into_iter().try_for_each(|moving| rule.apply(moving));
        if pools.is_empty() {
            return shares.into_iter().try_for_each(update);
        }
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for (pool, share) in pools.iter().zip(shares) {
                let update = &update;
                threads.push(scope.spawn(move || pool.install(|| update(share))));
            }
            threads
                .into_iter()
                .try_for_each(|t| t.join().map_err(|_| anyhow::anyhow!("an optimizer thread panicked"))?)
        })
    }

    /// Gives every rank the variables as their owners moved them.
    pub fn spread(&self, ranks: &mut dyn Transport) -> Result<()> {
        if ranks.size() == 1 {
            return Ok(());
        }
        for (var, owner) in self.vars.iter().zip(&self.owners) {
            let mut data = values(var)?;
            ranks.broadcast(*owner, &mut data)?;
            if *owner != ranks.rank() {
                set(var, data)?;
            }
        }
        Ok(())
    }

    /// All variables in f32, by name: on rank 0, nothing elsewhere.
    pub fn wide(&self, ranks: &mut dyn Transport) -> Result<Weights> {
        let mut wide = Weights::new();
        let narrow = self.vars.iter().any(|var| var.dtype() != DType::F32);
        for (i, ((name, var), owner)) in self.names.iter().zip(&self.vars).zip(&self.owners).enumerate() {
            let tensor = match narrow {
                false => var.as_detached_tensor().to_device(&Device::Cpu)?,
                true => {
                    let master = i.checked_sub(self.own.start).and_then(|i| self.masters.get(i));
                    let mut data = master.cloned().unwrap_or_else(|| vec![0.0; var.elem_count()]);
                    ranks.broadcast(*owner, &mut data)?;
                    Tensor::from_vec(data, var.shape(), &Device::Cpu)?
                }
            };
            if ranks.rank() == 0 {
                wide.insert(name.clone(), tensor);
            }
        }
        Ok(wide)
    }

    /// Moments of all variables and the number of updates, by name: on rank 0, nothing elsewhere.
    pub fn moments(&self, ranks: &mut dyn Transport) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = BTreeMap::new();
        for (i, (name, owner)) in self.names.iter().zip(&self.owners).enumerate() {
            for (kind, own) in [("first", &self.first), ("second", &self.second)] {
                let mut data = match i.checked_sub(self.own.start).and_then(|i| own.get(i)) {
                    Some(data) => data.clone(),
                    None => vec![0.0; self.vars[i].elem_count()],
                };
                ranks.broadcast(*owner, &mut data)?;
                if ranks.rank() == 0 {
                    let count = data.len();
                    tensors.insert(format!("{kind}.{name}"), Tensor::from_vec(data, count, &Device::Cpu)?);
                }
            }
        }
        tensors.insert("updates".into(), Tensor::new(&[i64::from(self.updates)], &Device::Cpu)?);
        Ok(tensors)
    }

    /// Reads this rank's part of what [`save`] wrote of the same variables, whatever the number of ranks then.
    pub fn restore(&mut self, path: &Path) -> Result<()> {
        // SAFETY: the map is read and dropped here; a checkpoint is never changed once it is named.
        let tensors =
            unsafe { MmapedSafetensors::new(path) }.with_context(|| format!("reading {}", path.display()))?;
        let get = |name: &str| {
            tensors.load(name, &Device::Cpu).with_context(|| format!("{}: reading {name}", path.display()))
        };
        for (i, name) in self.names[self.own.clone()].iter().enumerate() {
            let first = get(&format!("first.{name}"))?.to_vec1::<f32>()?;
            let second = get(&format!("second.{name}"))?.to_vec1()?;
            anyhow::ensure!(
                first.len() == self.first[i].len(),
                "{}: moments of {name} have another size",
                path.display()
            );
            (self.first[i], self.second[i]) = (first, second);
        }
        self.updates = get("updates")?.to_vec1::<i64>()?.first().copied().unwrap_or(0) as i32;
        Ok(())
    }
}

/// Writes named tensors, such as [`AdamW::moments`].
pub fn save(tensors: &BTreeMap<String, Tensor>, path: &Path) -> Result<()> {
    let temporary = path.with_extension("tmp");
    safetensors::serialize_to_file(tensors.iter().map(|(k, v)| (k.as_str(), v)), None, &temporary)
        .with_context(|| format!("writing {}", temporary.display()))?;
    std::fs::rename(&temporary, path).with_context(|| format!("renaming {}", temporary.display()))
}

#[cfg(test)]
#[path = "optimizer_tests.rs"]
mod tests;
