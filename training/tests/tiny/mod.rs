//! A training run that takes a second: its recipe, its command, its losses.
//!
//! In: a folder. Out: what the tests of the trainer share. Networks are as small as they can be.

#![allow(dead_code, reason = "each test binary uses its share")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program under test.
pub const UTR_TRAIN: &str = env!("CARGO_BIN_EXE_utr-train");

/// A recipe with one `align` and one `tune` stage of so many updates.
pub fn recipe(folder: &Path, align: usize, tune: usize) -> PathBuf {
    recipe_of(folder, align, tune, "frames = [[1, 1.0], [6, 1.0]]")
}

/// The same, with the lines `frames` in each stage.
pub fn recipe_of(folder: &Path, align: usize, tune: usize, frames: &str) -> PathBuf {
    let stage = |kind: &str, steps: usize| {
        format!(
            r#"
[[stages]]
name = "{kind}"
kind = "{kind}"
steps = {steps}
micro_batch = 1
accumulate = 2
{frames}
schedule = {{ lr = 3e-3, muon = true }}
mix = {{ skill_turns = 2, utr_turns = 1, caption_turns = 0, instruction_turns = 1 }}
world = {{ min_objects = 1, max_objects = 2, max_occluders = 0, camera = false, textures = false, backdrops = false, large_only = true, held_out = "never" }}
"#
        )
    };
    let head = r#"
name = "tiny"
seed = 3
checkpoint_every = 4
validate_every = 1000
quant = "q8_0"
[sizes]
image_size = 32
patch = 8
vision = [32, 64, 1, 2]
decoder = [64, 96, 2, 4, 2]
rope_theta = 10000.0
max_positions = 2048
vocab = 640
"#;
    let stages =
        [("align", align), ("tune", tune)].into_iter().filter(|(_, n)| *n > 0).map(|(k, n)| stage(k, n));
    let path = folder.join("recipe.toml");
    std::fs::write(&path, head.to_string() + &stages.collect::<String>()).unwrap();
    path
}

/// The command that trains `recipe` in the folder `run`.
pub fn train(verb: &str, recipe: &Path, run: &Path, workers: &str) -> Command {
    let mut command = Command::new(UTR_TRAIN);
    command.args([verb, "--workers", workers, "--recipe"]).arg(recipe).arg("--output").arg(run);
    command
}

/// What a command that must succeed wrote to standard output.
pub fn done(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Losses by update.
pub fn losses(run: &Path) -> BTreeMap<u64, f64> {
    let text = std::fs::read_to_string(run.join("log.jsonl")).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines.map(|r| (r["step"].as_u64().unwrap(), r["loss"].as_f64().unwrap())).collect()
}
