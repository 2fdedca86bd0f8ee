//! The run folder: where a run begins or goes on, and the recipe that it is tied to.
//!
//! Comes in: a recipe and a folder. Goes out: `lock` (one process at a time), `start/` (the model that the run begins with), `recipe.toml`, `amendments.txt`, and the place to go on
//! from. Checkpoints are written elsewhere; nothing is trained here.

use super::checkpoint::{self, State};
use super::recipe::Recipe;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use utr_models::atomic;

/// Makes the folder, where it is new, and keeps every other process out of it until the returned file is dropped or this process ends.
///
/// # Errors
/// Another process trains there.
pub fn claim(run: &Path) -> Result<File> {
    std::fs::create_dir_all(run).with_context(|| format!("creating {}", run.display()))?;
    let path = run.join("lock");
    let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    // A process that was just started from one that held the lock holds it until it runs its own program.
    for _ in 0..CLAIM_TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(CLAIM_PAUSE),
            // Also on a file system without locks, such as some network mounts.
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(file),
        }
    }
    bail!(
        "{} is being trained by another process, which holds {}; stop it, or name another folder with --output",
        run.display(),
        path.display()
    )
}

/// How often a claimed folder is tried again.
const CLAIM_TRIES: usize = 10;
const CLAIM_PAUSE: Duration = Duration::from_millis(50);

/// The model that a run began with; its files besides the weights belong to every checkpoint.
pub fn start(run: &Path) -> PathBuf {
    run.join("start")
}

/// The recipe that the run was last trained with, its `epochs` settled to updates.
pub fn recipe_file(run: &Path) -> PathBuf {
    run.join("recipe.toml")
}

/// The newest checkpoint, or the model that the run begins with, and its place in the recipe.
pub fn place(run: &Path) -> Result<(PathBuf, State)> {
    match checkpoint::latest(run)? {
        Some(folder) => Ok((folder.clone(), checkpoint::state(&folder)?)),
        None => Ok((start(run), State::default())),
    }
}

/// Waits until a checkpoint that another machine wrote is seen here: network file systems tell of new files up to a minute later.
///
/// # Errors
/// It does not come.
pub fn shows(model: &Path) -> Result<()> {
    let last = Instant::now() + SHOWN_WITHIN;
    while !model.join("config.json").exists() {
        ensure!(
            Instant::now() < last,
            "{} is not seen here after {} s, though rank 0 wrote it; all ranks must see the run folder",
            model.display(),
            SHOWN_WITHIN.as_secs()
        );
        std::thread::sleep(CLAIM_PAUSE);
    }
    Ok(())
}

const SHOWN_WITHIN: Duration = Duration::from_secs(90);

/// Ties a folder to its recipe, so that a bundle names the recipe that made it. Another recipe is refused as
/// far as the run has come, or taken with `amend` and the change written down.
pub fn begin(recipe: &Recipe, run: &Path, amend: bool) -> Result<()> {
    let (_, state) = place(run)?;
    let path = recipe_file(run);
    let begun = start(run).join("model.safetensors").exists();
    if begun && path.exists() {
        let change = Recipe::load(&path)?.departs(recipe, state.stage);
        if let Some(what) = change {
            ensure!(
                amend,
                "{} was made with another recipe: {what} differs. Go on with {}, name another folder with --output, or, for a change on the way, take it with --amend",
                run.display(),
                path.display()
            );
            let line = format!("after update {}: {what} changed\n", state.total_steps);
            let known = amendments(run)?;
            atomic::write(&run.join(AMENDMENTS), (known + &line).as_bytes())?;
        }
    }
    atomic::write(&path, toml::to_string(recipe)?.as_bytes())?;
    // After its recipe: a kill in between leaves a run that has not begun.
    if !begun {
        super::start::start(recipe, &start(run))?;
    }
    Ok(())
}

/// What was changed of a run's recipe on the way; lines of text.
const AMENDMENTS: &str = "amendments.txt";

/// The changes that a run's recipe went through, empty where there were none.
pub fn amendments(run: &Path) -> Result<String> {
    let path = run.join(AMENDMENTS);
    if !path.exists() {
        return Ok(String::new());
    }
    std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_trainer_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run");
        let first = claim(&run).unwrap();
        let refused = claim(&run).unwrap_err().to_string();
        assert!(refused.contains("another process") && refused.contains("--output"), "{refused}");
        drop(first);
        claim(&run).unwrap();
    }
}
