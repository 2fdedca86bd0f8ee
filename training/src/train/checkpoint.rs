//! Checkpoints: what a run must remember to go on as if it had never stopped.
//!
//! Comes in: weights under training, optimizer, place in the recipe. Goes out: `step-N-stage-S/` folders, each a complete Hugging Face model plus
//! `optimizer.safetensors` (with adapters also `adapters.safetensors`) and `state.json`, and the file `latest` that names the newest whole one. A folder is named in `latest` only
//! after all of it is on disk and stays until another one is named, so that a kill at any moment leaves a checkpoint that loads.

use super::optimizer;
use super::recipe::Stage;
use anyhow::{Context, Result};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use utr_models::atomic;
use utr_models::weights::{self, Weights};

/// Files that belong to a model besides its weights.
pub const MODEL_FILES: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
];

/// The place in the recipe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Stage, from 0.
    pub stage: usize,
    /// Updates done in that stage.
    pub step: usize,
    /// Updates done in all.
    pub total_steps: usize,
    /// Clips seen in all.
    pub samples: u64,
    /// Seconds of training in all.
    pub seconds: f64,
}

impl State {
    /// One more update of a stage, which took so many seconds.
    pub fn advance(&mut self, stage: &Stage, seconds: f64) {
        self.step += 1;
        self.total_steps += 1;
        self.samples += stage.clips();
        self.seconds += seconds;
    }
}

/// A checkpoint's folder under its run.
pub fn name(state: &State) -> String {
    format!("step-{}-stage-{}", state.total_steps, state.stage)
}

/// The newest whole checkpoint under `run`, if any.
pub fn latest(run: &Path) -> Result<Option<PathBuf>> {
    let pointer = run.join("latest");
    if !pointer.exists() {
        return Ok(None);
    }
    let name = std::fs::read_to_string(&pointer).with_context(|| format!("reading {}", pointer.display()))?;
    let folder = run.join(name.trim());
    anyhow::ensure!(folder.is_dir(), "{} names {}, which is not there", pointer.display(), folder.display());
    Ok(Some(folder))
}

/// Copies the files besides the weights from one model folder to another.
pub fn copy_model_files(from: &Path, to: &Path) -> Result<()> {
    anyhow::ensure!(
        from.join("config.json").exists(),
        "{} is not a model folder: it has no config.json",
        from.display()
    );
    for name in MODEL_FILES {
        let source = from.join(name);
        if source.exists() {
            std::fs::copy(&source, to.join(name)).with_context(|| format!("copying {}", source.display()))?;
        }
    }
    Ok(())
}

/// Waits until every file of a folder, and the folder itself, is on disk.
fn sync(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        std::fs::File::open(entry?.path())?.sync_all()?;
    }
    std::fs::File::open(folder)?.sync_all()
}

/// Writes a checkpoint, with further files of `tensors`, and makes it the latest; older ones are removed. A place that is already saved is not saved again. Where it cannot be
/// written, what was there before stays, and what was begun of it is removed.
pub fn save(
    run: &Path,
    model: &Path,
    weights: &Weights,
    tensors: &[(&str, BTreeMap<String, Tensor>)],
    state: &State,
) -> Result<PathBuf> {
    let name = name(state);
    if let Some(newest) = latest(run)?.filter(|newest| newest.ends_with(&name)) {
        return Ok(newest);
    }
    let (folder, partial) = (run.join(&name), run.join(format!("{name}.partial")));
    let clear = |folder: &Path| match folder.exists() {
        true => std::fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display())),
        false => Ok(()),
    };
    clear(&partial)?;
    if let Err(error) = fill(&partial, model, weights, tensors, state) {
        clear(&partial).ok();
        return Err(error.context(format!("saving the checkpoint {}", folder.display())));
    }
    clear(&folder)?;
    std::fs::rename(&partial, &folder).with_context(|| format!("renaming {}", partial.display()))?;
    atomic::write(&run.join("latest"), name.as_bytes())?;
    for entry in std::fs::read_dir(run)?.flatten() {
        let other = entry.file_name().to_string_lossy().into_owned();
        if other.starts_with("step-") && other != name {
            std::fs::remove_dir_all(entry.path()).ok();
        }
    }
    Ok(folder)
}

/// Everything of a checkpoint, on disk.
fn fill(
    folder: &Path,
    model: &Path,
    weights: &Weights,
    tensors: &[(&str, BTreeMap<String, Tensor>)],
    state: &State,
) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    copy_model_files(model, folder)?;
    weights::save(folder, weights)?;
    for (name, tensors) in tensors {
        optimizer::save(tensors, &folder.join(name))?;
    }
    std::fs::write(folder.join("state.json"), serde_json::to_string_pretty(state)?)
        .context("writing state.json")?;
    sync(folder).with_context(|| format!("syncing {}", folder.display()))
}

/// Reads `state.json` of a checkpoint.
pub fn state(folder: &Path) -> Result<State> {
    let path = folder.join("state.json");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("in {}", path.display()))
}
