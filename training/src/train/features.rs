//! What the tower makes of a clip, kept for when the clip comes again.
//!
//! Comes in: a clip's name and patches, and a tower that stays as it is. Goes out: its features, from memory, from a folder, or computed: the same bits
//! each time. An entry's key is made of the clip's name, its patches and the tower's weights, so that nothing stale is ever found. Memory is bounded, the oldest
//! entry leaves first; the folder is not. The tower sees a clip at a time, so that a clip's features do not depend on those beside it; without a cache it sees
//! a micro-batch at once, which in a batch of several clips may round in other places. Clips that never come again gain nothing here: their recipes ask for no cache.

use anyhow::{Context, Result, anyhow};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Mutex;
use utr_models::vision::VisionTower;
use utr_models::weights::Weights;

/// How much is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheLimits {
    /// Features in memory, in MiB.
    pub memory_mb: usize,
    /// Folder that holds all of them, also for later runs; none where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
}

/// The entries in memory, oldest first.
#[derive(Default)]
struct Held {
    bytes: usize,
    order: VecDeque<String>,
    features: HashMap<String, Tensor>,
}

/// Features of one tower.
pub struct Features {
    limits: CacheLimits,
    weights: Vec<u8>,
    held: Mutex<Held>,
}

/// A tensor's values as bytes of f32.
fn hash(hasher: &mut Sha256, tensor: &Tensor) -> Result<()> {
    let data = tensor.to_device(&Device::Cpu)?.to_dtype(candle_core::DType::F32)?;
    data.flatten_all()?.to_vec1::<f32>()?.iter().for_each(|x| hasher.update(x.to_le_bytes()));
    Ok(())
}

impl Features {
    /// A cache for the tower in `weights`; the folder is made where it is missing.
    pub fn new(limits: &CacheLimits, weights: &Weights) -> Result<Self> {
        if let Some(folder) = &limits.folder {
            std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        let mut hasher = Sha256::new();
        for (name, tensor) in weights.iter().filter(|(name, _)| name.starts_with("vision_tower")) {
            hasher.update(format!("{name} {:?}", tensor.dtype()));
            hash(&mut hasher, tensor)?;
        }
        Ok(Self { limits: limits.clone(), weights: hasher.finalize().to_vec(), held: Mutex::default() })
    }

    /// The features (frames, grid², channels) of the clip `id` with these patches.
    pub fn get(&self, id: &str, patches: &Tensor, tower: &VisionTower) -> Result<Tensor> {
        let mut hasher = Sha256::new();
        hasher.update(&self.weights);
        hasher.update(id);
        hash(&mut hasher, patches)?;
        let key: String = crate::files::hexadecimal(&hasher.finalize());
        let poisoned = || anyhow!("a worker panicked while it kept features");
        let known = self.held.lock().map_err(|_| poisoned())?.features.get(&key).cloned();
        if let Some(features) = known {
            return Ok(features);
        }
        let features = match self.read(&key, patches.device())? {
            Some(features) => features,
            None => {
                let features = tower.features(patches)?.detach();
                self.write(&key, &features)?;
                features
            }
        };
        self.keep(&mut *self.held.lock().map_err(|_| poisoned())?, key, &features);
        Ok(features)
    }

    fn keep(&self, held: &mut Held, key: String, features: &Tensor) {
        let size = |tensor: &Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
        let limit = self.limits.memory_mb << 20;
        if size(features) > limit || held.features.contains_key(&key) {
            return;
        }
        held.bytes += size(features);
        held.order.push_back(key.clone());
        held.features.insert(key, features.clone());
        while held.bytes > limit {
            let Some(oldest) = held.order.pop_front() else { break };
            held.bytes -= held.features.remove(&oldest).as_ref().map_or(0, size);
        }
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        self.limits.folder.as_ref().map(|folder| folder.join(format!("{key}.safetensors")))
    }

    fn read(&self, key: &str, device: &Device) -> Result<Option<Tensor>> {
        let Some(path) = self.path(key).filter(|path| path.exists()) else { return Ok(None) };
        let hint = || format!("reading {}; remove it if it is damaged", path.display());
        let mut tensors = candle_core::safetensors::load(&path, device).with_context(hint)?;
        tensors.remove("features").with_context(hint).map(Some)
    }

    /// Written under a name of this process and renamed: ranks may share the folder.
    fn write(&self, key: &str, features: &Tensor) -> Result<()> {
        let Some(path) = self.path(key) else { return Ok(()) };
        let temporary =
            path.with_extension(format!("{}-{:?}", std::process::id(), std::thread::current().id()));
        let tensors = BTreeMap::from([("features", features.to_device(&Device::Cpu)?)]);
        safetensors::serialize_to_file(tensors, None, &temporary)
            .with_context(|| format!("writing {}", temporary.display()))?;
        std::fs::rename(&temporary, &path).with_context(|| format!("renaming {}", temporary.display()))
    }
}

#[cfg(test)]
#[path = "features_tests.rs"]
mod tests;
