//! `utr-train probe` as a user meets it, and its readable pass against the runtime's own evidence.
//!
//! In: the checkpoint that ships with the repository, and a copy of it whose queries are zero, which must look at all frames alike. Out: a failure that shows
//! what was looked at.

mod tiny;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use serde_json::Value;
use tiny::{UTR_TRAIN, done};
use utr_runtime::answer::{Answerer, Question};
use utr_runtime::decode::{Finish, KvPrecision};
use utr_runtime::encode::encode_frames;
use utr_runtime::evidence::Wanted;
use utr_runtime::interrupt::Interrupt;
use utr_runtime::load::Model;
use utr_runtime::pipeline::View;
use utr_training::eval::world::frames;
use utr_training::probe;
use utr_training::sample::{Sample, Turn};
use utr_training::world::suite::Suite;

/// Largest difference of a frame's share between the two passes, both in f32.
const TOLERANCE: f32 = 1e-4;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn checkpoint() -> PathBuf {
    repository().join("training/checkpoints/utr-nano")
}

fn suite() -> PathBuf {
    repository().join("training/worlds/val.toml")
}

/// A copy of the checkpoint whose decoder asks for nothing in particular: every row gives all rows it sees the same.
fn even(folder: &Path) -> PathBuf {
    let copy = folder.join("even");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(checkpoint()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
    }
    let file = copy.join("model.safetensors");
    let mut tensors = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    let asks = |name: &str| name.contains("language_model") && name.contains("q_proj");
    let zeroed = tensors.iter_mut().filter(|(name, _)| asks(name));
    let count = zeroed.map(|(_, tensor)| *tensor = Tensor::zeros_like(tensor).unwrap()).count();
    assert!(count >= 2);
    candle_core::safetensors::save(&tensors, &file).unwrap();
    copy
}

fn command(models: &[&Path], data: &Path, output: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(UTR_TRAIN);
    command.arg("probe").arg("--data").arg(data).arg("--output").arg(output).args(more);
    for model in models {
        command.arg("--model").arg(model);
    }
    command
}

/// What a command that must fail said.
fn failed(mut command: Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    said
}

fn lines(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("attention.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn shares_are_those_that_the_runtime_gives_as_evidence() {
    let Model { mut encoder, language } = Model::open(&checkpoint(), None).unwrap();
    let mut answerer = Answerer::new(Arc::clone(&language), KvPrecision::F32);
    let model = probe::Model::load("nano".into(), &checkpoint()).unwrap();
    let suite = Suite::load(&suite()).unwrap();
    let interrupt = Interrupt::default();
    let (mut compared, mut broadest) = (0, 0f32);
    for &skill in &suite.skills {
        let pair = suite.pair(skill, 0);
        let posed = &pair.twins[0];
        let seen = frames(posed);
        let encoded = encode_frames(encoder.as_mut(), &seen, &interrupt).unwrap();
        let question = Question { evidence: Wanted::Frames, ..Question::new(posed.item.question.clone()) };
        let answer = answerer.answer(&View::unread(encoded), &question, &interrupt, &mut |_| Ok(())).unwrap();
        // What the runtime said is what is taught here.
        let turns = vec![Turn { question: posed.item.question.clone(), answer: answer.text.clone() }];
        let images = seen.iter().map(|frame| frame.image.clone()).collect();
        let sample = Sample {
            id: pair.id.clone(),
            frames: images,
            turns,
            fills: Vec::new(),
            linked: true,
            window: None,
        };
        let look = model.look(&sample).unwrap();
        if answer.finish != Finish::Stop || look.answer_tokens != answer.tokens.len() + 1 {
            continue;
        }
        let evidence = answer.evidence.unwrap();
        let pairs = evidence.per_frame.iter().zip(&look.per_frame);
        let gap = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(gap < TOLERANCE, "{}: off by {gap}", pair.id);
        assert!((evidence.breadth - look.breadth).abs() < 1e-2, "{} {}", evidence.breadth, look.breadth);
        broadest = broadest.max(look.breadth);
        compared += 1;
    }
    assert!(compared >= 6, "only {compared} answers could be compared");
    assert!(broadest < 31.5, "shares that are all alike would agree by themselves");
}

#[test]
fn two_models_are_compared_on_the_same_samples() {
    let folder = tempfile::tempdir().unwrap();
    let (nano, even) = (checkpoint(), even(folder.path()));
    let at = |name: &str| folder.path().join(name);
    let probe = |output: &str, seed: &str, workers: &str| {
        let more = ["--samples", "6", "--frames", "8", "--seed", seed, "--workers", workers];
        done(command(&[&nano, &even], &suite(), &at(output), &more).output().unwrap())
    };
    let said = probe("a", "1", "2");
    assert!(said.contains("utr-nano") && said.contains("even less utr-nano"), "{said}");
    let summary: Value =
        serde_json::from_str(&std::fs::read_to_string(at("a").join("attention.json")).unwrap()).unwrap();
    let mean = |model: usize, key: &str| summary["models"][model][key]["mean"].as_f64().unwrap();
    assert!((mean(1, "breadth") - 8.0).abs() < 1e-3 && mean(0, "breadth") < 7.9, "{said}");
    for share in summary["models"][1]["per_frame"].as_array().unwrap() {
        assert!((share["mean"].as_f64().unwrap() - 0.125).abs() < 1e-5);
    }
    let difference = summary["differences"][0]["breadth"]["mean"].as_f64().unwrap();
    assert!((difference - (mean(1, "breadth") - mean(0, "breadth"))).abs() < 1e-6);
    let rows = lines(&at("a"));
    assert_eq!(rows.len(), 12);
    for row in &rows {
        let parts: f64 = ["visual", "newline", "text"].iter().map(|key| row[*key].as_f64().unwrap()).sum();
        let shares = row["per_frame"].as_array().unwrap();
        let sum: f64 = shares.iter().map(|share| share.as_f64().unwrap()).sum();
        assert!((parts - 1.0).abs() < 1e-4 && (sum - 1.0).abs() < 1e-4 && shares.len() == 8, "{row}");
    }
    for pair in rows.chunks(2) {
        assert_eq!(pair[0]["id"], pair[1]["id"]);
    }
    for name in ["frames", "ranks", "layers-1", "layers-2", "breadth-1", "breadth-2"] {
        let svg = std::fs::read_to_string(at("a").join(format!("{name}.svg"))).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{name}");
    }
    let figure = std::fs::read_to_string(at("a/frames.svg")).unwrap();
    assert!(figure.contains("utr-nano") && figure.contains("all alike"));
    // The seed alone decides; threads do not.
    probe("b", "1", "1");
    assert_eq!(lines(&at("b")), rows);
    probe("c", "2", "2");
    assert_ne!(lines(&at("c"))[0]["id"], Value::Null);
    assert_ne!(lines(&at("c")), rows);
}

#[test]
fn conversations_are_read_as_for_tpl_and_what_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (clips, output) = (folder.path().join("clips"), folder.path().join("out"));
    let mut world = Command::new(UTR_TRAIN);
    let options =
        ["world", "--clips", "4", "--split", "val", "--size", "32", "--encode", "frames", "--output"];
    done(world.args(options).arg(&clips).output().unwrap());
    let (nano, data) = (checkpoint(), clips.join("data.jsonl"));
    let root = clips.to_str().unwrap();
    let more = ["--samples", "3", "--frames", "4", "--media-root", root];
    done(command(&[&nano], &data, &output, &more).output().unwrap());
    let rows = lines(&output);
    assert!(
        rows.len() == 3 && rows.iter().all(|row| row["layers"][0]["mass"].as_array().unwrap().len() == 4)
    );

    let text = std::fs::read_to_string(&data).unwrap();
    let lost = r#"{"id":"lost","video":"no/such.mp4","conversations":[{"from":"human","value":"<image>\nWhat?"},{"from":"gpt","value":"No."}]}"#;
    let mixed = clips.join("mixed.jsonl");
    std::fs::write(&mixed, format!("{text}{lost}\n")).unwrap();
    let more = ["--frames", "4", "--media-root", root];
    let said = failed(command(&[&nano], &mixed, &output, &more));
    assert!(
        said.contains("left out") && said.contains("lost") && said.contains("1 samples could not"),
        "{said}"
    );
    // One conversation a video: several would count as independent.
    let video = |line: &str| serde_json::from_str::<Value>(line).unwrap()["video"].to_string();
    let videos: std::collections::BTreeSet<String> = text.lines().map(video).collect();
    assert!(videos.len() < text.lines().count() && said.contains("about the same videos"), "{said}");
    assert_eq!(lines(&output).len(), videos.len());

    assert!(failed(command(&[&nano], &data, &output, &[])).contains("--media-root is missing"));
    let said = failed(command(&[&nano], &suite(), &output, &["--media-root", root]));
    assert!(said.contains("leave --media-root away"), "{said}");
    assert!(failed(command(&[&nano], &suite(), &output, &["--samples", "1"])).contains("from 2 on"));
    let said = failed(command(&[Path::new("no/model")], &suite(), &output, &[]));
    assert!(said.contains("loading the model no/model"), "{said}");
}
