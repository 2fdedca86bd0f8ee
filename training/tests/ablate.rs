//! Studies on networks that train in a second: the same numbers however they are run, and what is not done is done.

mod tiny;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tiny::{UTR_TRAIN, done, recipe};

fn ablate(study: &str, output: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(UTR_TRAIN);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command.args(["ablate", "--study", study, "--output"]).arg(output).args(more);
    command
}

/// A study of two arms over a base of four updates.
fn study(folder: &Path) -> PathBuf {
    let base = recipe(folder, 0, 4);
    let text = format!(
        r#"
name = "small"
question = "Does it run?"
base = {base:?}
seeds = [1, 2]
control = "captions"
primary = "order/ranked"
length_power = 1.0
correlate = "pool"
pool = {{ model = "training/checkpoints/utr-nano", clips = 8, frames = 4, draws = 1 }}
[measure]
suite = "training/worlds/studies.toml"
pairs = 2
frames = 8
longer = [16]
pictures = 4
tpl = 2
absent = 2
[stage]
name = "clips"
kind = "tune"
steps = 3
micro_batch = 1
accumulate = 2
frames = [[4, 1.0]]
schedule = {{ lr = 1e-3, muon = true }}
mix = {{ skill_turns = 2, utr_turns = 0, caption_turns = 0, instruction_turns = 0, filler = {{ tokens = 60, weight = 1.0, utr = 0.0 }} }}
world = {{ min_objects = 1, max_objects = 2, max_occluders = 0, camera = false, textures = false, backdrops = false, large_only = true, held_out = "never" }}
[[arms]]
name = "captions"
about = "captions"
pool = [0.0, 0.5]
[[arms]]
name = "utr"
about = "queries over tracks by SORT"
stage = {{ mix = {{ filler = {{ utr = 1.0, absent = 0.2 }}, watched = {{ tracker = "sort", miss = 0.1 }} }} }}
pool = [0.5, 1.0]
"#
    );
    let path = folder.join("small.toml");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_study_gives_the_same_numbers_however_it_is_run() {
    let folder = tempfile::tempdir().unwrap();
    let study = study(folder.path());
    let study = study.to_str().unwrap();
    let results = |name: &str| std::fs::read(folder.path().join(name).join("small/results.json")).unwrap();
    done(ablate(study, &folder.path().join("two"), &["--workers", "2"]).output().unwrap());
    done(ablate(study, &folder.path().join("one"), &["--workers", "1"]).output().unwrap());
    assert_eq!(results("one"), results("two"));

    // What is there is not made again; what is missing is.
    let outcome = |arm: &str| folder.path().join("one/small").join(arm).join("2/outcome.json");
    let made = |arm: &str| std::fs::metadata(outcome(arm)).unwrap().modified().unwrap();
    let before = made("captions");
    std::fs::remove_file(outcome("utr")).unwrap();
    std::fs::remove_file(folder.path().join("one/small/results.json")).unwrap();
    let table = done(ablate(study, &folder.path().join("one"), &["--report"]).output().unwrap());
    assert!(table.contains("1 of 2 seeds") && !outcome("utr").exists(), "{table}");
    let table = done(ablate(study, &folder.path().join("one"), &[]).output().unwrap());
    assert_eq!((results("one"), made("captions")), (results("two"), before));

    let json: serde_json::Value = serde_json::from_slice(&results("one")).unwrap();
    for arm in json["arms"].as_array().unwrap() {
        // Four clips over and over: the lots of their last turns do not even out, and are at most a turn's tokens off.
        let beside = arm["supervised"][1].as_f64().unwrap();
        assert!((20.0..150.0).contains(&beside), "{arm}");
        for name in ["order/ranked", "pictures/ranked", "longer/16", "tpl/utr", "invented", "found", "iou"] {
            assert!(arm["scores"][name]["mean"].as_f64().is_some_and(f64::is_finite), "{name}: {arm}");
            assert!(table.contains(name));
        }
    }
    let [low, high] = [0, 1].map(|n| json["arms"][n]["pool_tpl"].as_f64().unwrap());
    assert!(low < high, "{low} {high}");
    assert!(folder.path().join("one/small/correlation.svg").exists());
}

/// What `training/studies/results` says comes from runs of the very studies, weights and suites that are committed.
#[test]
fn results_that_ship_follow_from_their_outcomes() {
    let results = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/studies/results"));
    for entry in std::fs::read_dir(results).unwrap() {
        let entry = entry.unwrap();
        if !entry.path().is_dir() {
            continue;
        }
        let name = entry.file_name().into_string().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let copied = Command::new("cp").arg("-r").args([&results.join(&name), folder.path()]).status();
        assert!(copied.unwrap().success());
        for told in ["results.md", "results.json"] {
            std::fs::remove_file(folder.path().join(&name).join(told)).unwrap();
        }
        done(ablate(&name, folder.path(), &["--report"]).output().unwrap());
        for told in ["results.md", "results.json"] {
            let [ours, theirs] =
                [folder.path(), results].map(|at| std::fs::read(at.join(&name).join(told)).unwrap());
            assert!(ours == theirs, "{name}: {told} says something else than its outcomes");
        }
    }
}

#[test]
fn the_studies_that_ship_are_sound_and_a_wrong_one_is_refused_with_words() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["components", "tpl-correlation", "mix-ratio", "experts", "frames"] {
        done(ablate(name, folder.path(), &["--dry-run"]).output().unwrap());
    }
    let said = |output: Output| {
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let words = said(ablate("component", folder.path(), &[]).output().unwrap());
    assert!(words.contains("tpl-correlation") && words.contains("component.toml"), "{words}");
    let path = study(folder.path());
    let text = std::fs::read_to_string(&path).unwrap();
    for (from, to, expected) in [
        ("control = \"captions\"", "control = \"nobody\"", "nobody"),
        ("utr = 1.0, absent", "utr = 1.5, absent", "filler"),
        ("filler = { utr = 1.0", "filler = { uttr = 1.0", "uttr"),
        ("pairs = 2", "pairs = 2000", "2000"),
        ("seeds = [1, 2]", "seeds = [1, 1]", "seeds"),
        ("pool = [0.5, 1.0]", "pool = [0.5, 1.5]", "pool"),
    ] {
        assert!(text.contains(from), "{from}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let words = said(ablate(path.to_str().unwrap(), folder.path(), &["--dry-run"]).output().unwrap());
        assert!(words.contains(expected) && words.contains("small.toml"), "{to}: {words}");
    }
}
