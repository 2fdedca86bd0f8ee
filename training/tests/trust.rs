//! Training that goes wrong: no number, a loss that runs away, a full disk, kills at random moments.
//!
//! In: the binary that cargo built. Out: what it said, what the run folder held afterwards, and whether a resumed run ends where an unbroken
//! one does.

mod tiny;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tiny::{done, losses, recipe, train};

/// Trains until so many updates are logged, then kills it.
fn until(updates: usize, recipe: &Path, run: &Path) {
    let mut child = train("tune", recipe, run, "2").stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while losses(run).len() < updates && began.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

fn latest(run: &Path) -> PathBuf {
    run.join(std::fs::read_to_string(run.join("latest")).unwrap())
}

/// What a command that must fail said.
fn failed(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    said
}

fn change(recipe: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(recipe).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::write(recipe, text.replace(from, to)).unwrap();
}

#[test]
fn a_loss_that_is_no_number_names_update_samples_and_group() {
    let folder = tempfile::tempdir().unwrap();
    let (recipe, run) = (recipe(folder.path(), 0, 12), folder.path().join("run"));
    until(5, &recipe, &run);
    let good = latest(&run);
    let file = good.join("model.safetensors");
    let mut tensors: HashMap<String, Tensor> = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    let name = "language_model.model.layers.1.mlp.down_proj.weight";
    let huge = (tensors[name].ones_like().unwrap() * 3e38).unwrap();
    tensors.insert(name.into(), huge);
    candle_core::safetensors::save(&tensors, &file).unwrap();
    let before = std::fs::read(&file).unwrap();
    let said = failed(&train("tune", &recipe, &run, "2").output().unwrap());
    let done = good.file_name().unwrap().to_string_lossy().into_owned();
    let update: usize = done.split('-').nth(1).unwrap().parse().unwrap();
    for words in [
        format!("update {} of the run", update + 1),
        format!("last good checkpoint is {}", good.display()),
        "the loss is NaN on the samples world-".into(),
        "gradients are not finite in".into(),
        "the largest weight is 3.0e38 in language_model.layers.1.mlp.down_proj.weight".into(),
    ] {
        assert!(said.contains(&words), "{words}: {said}");
    }
    assert_eq!(latest(&run), good);
    assert!(std::fs::read(&file).unwrap() == before);
    assert_eq!(losses(&run).len(), update);
}

#[test]
fn a_loss_that_runs_away_stops_before_its_weights_are_saved() {
    let folder = tempfile::tempdir().unwrap();
    let (recipe, run) = (recipe(folder.path(), 0, 100), folder.path().join("run"));
    change(
        &recipe,
        "lr = 3e-3, muon = true",
        "lr = 1.0, muon = false, warmup = 0.5, floor = 1.0, clip = 1e9",
    );
    change(&recipe, "checkpoint_every = 4", "checkpoint_every = 1");
    let said = failed(&train("tune", &recipe, &run, "2").output().unwrap());
    for words in ["run away", "of the squared gradient is in", "The samples of this update: world-"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let losses: Vec<f64> = losses(&run).into_values().collect();
    let name = latest(&run).file_name().unwrap().to_string_lossy().into_owned();
    let good: usize = name.split('-').nth(1).unwrap().parse().unwrap();
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let best = losses.windows(8).map(mean).fold(f64::INFINITY, f64::min);
    // A checkpoint at every update, until the mean of eight losses had risen too far.
    let (kept, after) = (mean(&losses[good - 8..good]), mean(&losses[good - 7..=good]));
    let limit = 3.0 * best + 1.0;
    assert!(kept <= limit && limit < after, "kept {good} of {}: {kept}, then {after}", losses.len());
}

#[test]
fn a_full_disk_is_an_error_and_costs_nothing_that_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    let (recipe, run) = (recipe(folder.path(), 0, 10), folder.path().join("run"));
    until(5, &recipe, &run);
    let good = latest(&run);
    let size = |name: &str| std::fs::metadata(good.join(name)).unwrap().len();
    let room = (size("model.safetensors") + size("optimizer.safetensors")) / 2;
    // No file may grow beyond `room` bytes: the model fits and its moments do not.
    let mut limited = Command::new("bash");
    limited.args(["-c", "trap '' XFSZ; ulimit -f $0; exec \"$@\""]).arg((room / 1024).to_string());
    let command = train("tune", &recipe, &run, "2");
    limited.arg(command.get_program()).args(command.get_args());
    let said = failed(&limited.output().unwrap());
    for words in ["optimizer.tmp", "File too large", &format!("last good checkpoint is {}", good.display())] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(latest(&run), good);
    let left =
        std::fs::read_dir(&run).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
    let left: Vec<String> =
        left.filter(|name| name.contains("step-") || name.starts_with(".writing")).collect();
    assert_eq!(left, [good.file_name().unwrap().to_string_lossy()]);
    done(train("tune", &recipe, &run, "2").output().unwrap());
    let whole = folder.path().join("whole");
    done(train("tune", &recipe, &whole, "2").output().unwrap());
    assert_eq!(losses(&run), losses(&whole));
}

/// `UTR_KILLS=50` for more of them.
#[test]
fn kills_at_random_moments_change_nothing() {
    let kills: usize = std::env::var("UTR_KILLS").map_or(4, |n| n.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), 2, 16);
    change(&recipe, "checkpoint_every = 4", "checkpoint_every = 2");
    // `tune` runs all stages that are left.
    let (whole, began) = (folder.path().join("whole"), Instant::now());
    done(train("tune", &recipe, &whole, "2").output().unwrap());
    let (want, span) = (losses(&whole), began.elapsed());
    assert_eq!(want.len(), 18);
    let bytes = |run: &Path, name: &str| std::fs::read(latest(run).join(name)).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(kills as u64);
    let (mut killed, mut runs) = (0, 0);
    while killed < kills || runs == 0 {
        let run = folder.path().join(format!("broken-{runs}"));
        loop {
            let mut child = train("tune", &recipe, &run, "2")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let end = Instant::now()
                + if killed < kills {
                    span.mul_f64(rng.random_range(0.0..0.9))
                } else {
                    Duration::from_secs(300)
                };
            let mut ended = child.try_wait().unwrap();
            while ended.is_none() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
                ended = child.try_wait().unwrap();
            }
            match ended {
                Some(status) => {
                    assert!(status.success(), "{status} after {killed} kills");
                    break;
                }
                None => {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    killed += 1;
                }
            }
        }
        assert_eq!(losses(&run), want, "run {runs} after {killed} kills");
        for name in ["model.safetensors", "optimizer.safetensors"] {
            assert!(bytes(&run, name) == bytes(&whole, name), "{name} of run {runs} after {killed} kills");
        }
        runs += 1;
    }
    eprintln!("{killed} kills, {runs} runs, all as the unbroken one");
}
