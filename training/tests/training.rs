//! The trainer as a user meets it: the built program, killed and restarted, its stages, its scores, its bundle.
//!
//! In: the binary that cargo built. Out: a failure that shows what a run folder held. Networks are as small as they can be; nothing here says
//! how well they answer.

mod tiny;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use candle_core::Device;
use utr_models::bundle::Bundle;
use utr_runtime::interrupt::Interrupt;

use tiny::{UTR_TRAIN, done, losses, recipe, recipe_of, train};

#[test]
fn a_run_killed_at_any_moment_goes_on_to_the_same_losses() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), 0, 14);
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    done(train("tune", &recipe, &whole, "2").output().unwrap());
    for updates in [3, 6, 11] {
        let mut child =
            train("tune", &recipe, &broken, "1").stderr(std::process::Stdio::null()).spawn().unwrap();
        let began = Instant::now();
        while losses(&broken).len() < updates && began.elapsed() < Duration::from_secs(120) {
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    done(train("tune", &recipe, &broken, "2").output().unwrap());
    let (want, got) = (losses(&whole), losses(&broken));
    assert_eq!(want.len(), 14);
    assert_eq!(want, got, "the interrupted run took another way");
}

#[test]
fn the_first_stage_moves_the_projector_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), 3, 2);
    let run = folder.path().join("run");
    let model = done(train("align", &recipe, &run, "2").output().unwrap());
    let load = |folder: &Path| {
        candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu).unwrap()
    };
    let (before, after) = (load(&run.join("start")), load(Path::new(model.trim())));
    let values = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (name, tensor) in &before {
        let moved = values(tensor) != values(&after[name]);
        assert_eq!(moved, name.contains("multi_modal_projector"), "{name}");
    }
    // A script that is repeated finds it done.
    let again = train("align", &recipe, &run, "2").output().unwrap();
    assert!(String::from_utf8_lossy(&again.stderr).contains("already done"), "{again:?}");
    assert_eq!(done(again), model);
    let tuned = done(train("tune", &recipe, &run, "2").output().unwrap());
    let tuned = load(Path::new(tuned.trim()));
    let same: Vec<_> =
        before.iter().filter(|(name, t)| values(t) == values(&tuned[*name])).map(|(name, _)| name).collect();
    assert!(same.iter().all(|name| name.contains("post_layernorm")), "not moved by stage 2: {same:?}");
    assert_eq!(losses(&run).len(), 5);
}

#[test]
fn a_run_on_streams_begins_from_a_model_and_learns() {
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("first");
    let model = done(train("tune", &recipe(folder.path(), 0, 2), &first, "2").output().unwrap());
    // Streams of 10 frames through a window of 4, beside clips that fit.
    let recipe = recipe_of(folder.path(), 0, 40, "frames = [[4, 1.0], [10, 2.0]]\nwindow = 4");
    let text = std::fs::read_to_string(&recipe).unwrap();
    std::fs::write(&recipe, format!("from = {:?}\n{text}", model.trim())).unwrap();
    let run = folder.path().join("streams");
    done(train("tune", &recipe, &run, "2").output().unwrap());
    let weights = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
    assert!(weights(&run.join("start")) == weights(Path::new(model.trim())), "it began elsewhere");
    let losses: Vec<f64> = losses(&run).into_values().collect();
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (early, late) = (mean(&losses[..5]), mean(&losses[35..]));
    assert!(late < 0.75 * early, "the loss went from {early} to {late}");
    let other = text.replace("decoder = [64, 96, 2, 4, 2]", "decoder = [64, 96, 3, 4, 2]");
    std::fs::write(&recipe, format!("from = {:?}\n{other}", model.trim())).unwrap();
    let refused = train("tune", &recipe, &folder.path().join("other"), "2").output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("other sizes"));
}

#[test]
fn a_trained_model_is_scored_exported_and_refused_once_altered() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let model = done(train("tune", &recipe(folder.path(), 0, 2), &run, "2").output().unwrap());
    let (model, clips) = (PathBuf::from(model.trim()), folder.path().join("clips"));
    let mut world = Command::new(UTR_TRAIN);
    world
        .args(["world", "--clips", "2", "--split", "val", "--size", "32", "--encode", "frames", "--output"])
        .arg(&clips);
    done(world.output().unwrap());
    let scores = folder.path().join("tpl.jsonl");
    let mut tpl = Command::new(UTR_TRAIN);
    tpl.args(["tpl", "--frames", "6", "--draws", "2", "--seed", "9", "--select", "top:50%", "--model"])
        .arg(&model);
    tpl.arg("--data")
        .arg(clips.join("data.jsonl"))
        .arg("--media-root")
        .arg(&clips)
        .arg("--output")
        .arg(&scores);
    done(tpl.output().unwrap());
    let lines: Vec<serde_json::Value> =
        std::fs::read_to_string(&scores).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(lines.len() >= 4);
    for line in &lines {
        let get = |key: &str| line[key].as_f64().unwrap();
        assert!(
            (get("tpl") - (get("nll_single").exp() - get("nll_full").exp())).abs()
                < 1e-9 * get("nll_single").exp()
        );
        assert_eq!(line["single_frames"].as_array().unwrap().len(), 2);
    }
    let selected = std::fs::read_to_string(folder.path().join("tpl.selected.jsonl")).unwrap();
    assert_eq!(selected.lines().count(), lines.len().div_ceil(2));

    let bundle = folder.path().join("bundle");
    let mut export = Command::new(UTR_TRAIN);
    export.args(["export", "--quant", "q8_0", "--model"]).arg(&model).arg("--output").arg(&bundle);
    done(export.output().unwrap());
    let mut said = Vec::new();
    let verified = utr_runtime::bundle::verify(
        &bundle,
        utr_runtime::encode::EncoderKind::Tract,
        &Interrupt::default(),
        &mut said,
    );
    assert!(verified.unwrap(), "{}", String::from_utf8_lossy(&said));
    let file = bundle.join("decoder.gguf");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let error = Bundle::open(&bundle).unwrap_err().to_string();
    assert!(error.contains("decoder.gguf"), "{error}");
}

#[test]
fn wrong_arguments_end_with_status_2_and_a_reason() {
    for (arguments, reason) in [
        (vec!["tune", "--recipe", "nowhere.toml", "--output", "x"], "nowhere.toml"),
        (vec!["export", "--model", "nowhere", "--output", "x"], "nowhere"),
        (vec!["eval", "--bundle", "nowhere", "--data", "nowhere.toml", "--output", "x"], "nowhere.toml"),
    ] {
        let output = Command::new(UTR_TRAIN).args(&arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(reason), "{said}");
    }
}

#[test]
fn adapters_change_their_matrices_by_a_product_of_low_rank_and_survive_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), 0, 10);
    let text = std::fs::read_to_string(&recipe).unwrap();
    let lora = "lora = { rank = 2, alpha = 4.0, targets = [\"q_proj\", \"down_proj\"] }\nschedule";
    std::fs::write(&recipe, text.replace("schedule", lora)).unwrap();
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let model = done(train("tune", &recipe, &whole, "2").output().unwrap());
    let mut child = train("tune", &recipe, &broken, "2").spawn().unwrap();
    let began = Instant::now();
    while losses(&broken).len() < 6 && began.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let again = done(train("tune", &recipe, &broken, "2").output().unwrap());
    assert_eq!(losses(&whole), losses(&broken));
    let load = |folder: &str, file: &str| {
        candle_core::safetensors::load(Path::new(folder.trim()).join(file), &Device::Cpu).unwrap()
    };
    let start = load(&whole.join("start").to_string_lossy(), "model.safetensors");
    let (end, resumed) = (load(&model, "model.safetensors"), load(&again, "model.safetensors"));
    let adapters = load(&model, "adapters.safetensors");
    let values = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (name, before) in &start {
        assert_eq!(values(&end[name]), values(&resumed[name]), "{name}");
        let adapted = name.ends_with("q_proj.weight") && name.starts_with("language_model")
            || name.ends_with("down_proj.weight");
        let moves = adapted || name.contains("multi_modal_projector") || name == "image_newline";
        assert_eq!(values(&end[name]) != values(before), moves, "{name}");
        if adapted {
            let key = name.replace("language_model.model.", "language_model.");
            let [a, b] = ["a", "b"].map(|kind| &adapters[&format!("{kind}.{key}")]);
            assert_eq!((a.dims()[0], b.dims()[1]), (2, 2));
            let change = values(&(b.matmul(a).unwrap() * 2.0).unwrap());
            for ((end, before), change) in values(&end[name]).iter().zip(values(before)).zip(change) {
                assert!((end - before - change).abs() < 1e-6, "{name}: {before} + {change} is not {end}");
            }
        }
    }
}

/// How far losses in bf16 may lie from those in f32: 8 bits of mantissa, over 30 updates that each build on the one before.
const BF16: f64 = 0.005;

/// A recipe with further lines at its head.
fn with(recipe: &Path, lines: &str) {
    let text = std::fs::read_to_string(recipe).unwrap();
    std::fs::write(recipe, format!("{lines}\n{text}")).unwrap();
}

#[test]
fn checkpointing_changes_no_bit_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe_of(folder.path(), 2, 6, "frames = [[4, 1.0], [10, 2.0]]\nwindow = 4");
    let (plain, again) = (folder.path().join("plain"), folder.path().join("again"));
    let kept = done(train("tune", &recipe, &plain, "2").output().unwrap());
    with(&recipe, "checkpointing = true");
    let less = done(train("tune", &recipe, &again, "2").output().unwrap());
    assert_eq!(losses(&plain), losses(&again));
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let bytes = |model: &str| std::fs::read(Path::new(model.trim()).join(file)).unwrap();
        assert!(bytes(&kept) == bytes(&less), "{file} differs");
    }
}

#[test]
fn in_bf16_a_run_follows_the_one_in_f32_and_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), 2, 30);
    let run = |name: &str| folder.path().join(name);
    done(train("tune", &recipe, &run("wide"), "2").output().unwrap());
    with(&recipe, "precision = \"bf16\"\ncheckpointing = true");
    let model = done(train("tune", &recipe, &run("narrow"), "2").output().unwrap());
    let (wide, narrow) = (losses(&run("wide")), losses(&run("narrow")));
    let gaps: Vec<f64> = wide.iter().map(|(step, loss)| (narrow[step] / loss - 1.0).abs()).collect();
    let most = gaps.iter().copied().fold(0.0, f64::max);
    assert!(most < BF16 && most > 0.0, "losses differ by up to {most}: {gaps:?}");
    let fall = narrow[&32] / narrow[&3];
    assert!(fall < 0.8, "the loss fell to {fall} of what it was");

    let mut child = train("tune", &recipe, &run("broken"), "1").spawn().unwrap();
    let began = Instant::now();
    while losses(&run("broken")).len() < 11 && began.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let again = done(train("tune", &recipe, &run("broken"), "2").output().unwrap());
    assert_eq!(narrow, losses(&run("broken")));
    let load = |model: &str| {
        candle_core::safetensors::load(Path::new(model.trim()).join("model.safetensors"), &Device::Cpu)
            .unwrap()
    };
    let (end, resumed) = (load(&model), load(&again));
    let values = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let finer = |x: &f32| x.to_bits() & 0xffff != 0;
    for (name, tensor) in &end {
        assert!(values(tensor) == values(&resumed[name]), "{name}");
        // What is saved are the values in f32, not those that were computed with.
        assert!(name.contains("post_layernorm") || values(tensor).iter().any(finer), "{name} is rounded");
    }
}

#[test]
fn features_from_a_cache_change_no_bit_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), 4, 0);
    let (plain, cached, again) =
        (folder.path().join("plain"), folder.path().join("cached"), folder.path().join("again"));
    done(train("align", &recipe, &plain, "2").output().unwrap());
    let text = std::fs::read_to_string(&recipe).unwrap();
    let features = folder.path().join("features");
    let cache = format!("feature_cache = {{ memory_mb = 1, folder = {features:?} }}\nschedule");
    std::fs::write(&recipe, text.replace("schedule", &cache)).unwrap();
    done(train("align", &recipe, &cached, "2").output().unwrap());
    let files = || std::fs::read_dir(&features).unwrap().count();
    assert_eq!(files(), 8, "four updates of two clips");
    // The same clips again: all of them are found.
    done(train("align", &recipe, &again, "2").output().unwrap());
    assert_eq!(files(), 8);
    assert_eq!(losses(&plain), losses(&cached));
    assert_eq!(losses(&plain), losses(&again));
}
