//! Grounding DINO against its references: tiny graphs in ONNX Runtime, the numbers of `transformers` and the phrases of both (`tests/golden/grounding_dino.py`).
//!
//! In: the graphs, frames and `golden.json` under `tests/golden/grounding_dino`, and the binary that cargo built. Out: a failure that shows what differs.
//! Where no ONNX Runtime is found every test says so and ends; with `ORT_DYLIB_PATH` set it must be found.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use sha2::{Digest, Sha256};
use utr_models::RgbFrame;
use utr_training::experts::Expert;
use utr_training::experts::clip::Clip;
use utr_training::experts::grounding_dino::{
    Answer, DinoArgs, GroundingDino, PhraseRule, Rounding, Thresholds,
};
use utr_training::files::read_jsonl;
use utr_training::tracks::detections::{FrameObjects, Object};

const UTR_TRAIN: &str = env!("CARGO_BIN_EXE_utr-train");
/// Normalised pixels; one grey level is 0.017.
const PIXELS: f32 = 1e-5;
/// Raw logits, which reach a few units, and boxes in shares of the picture.
const NUMBERS: f32 = 1e-4;
/// Scores, and boxes in pixels of frames of up to 500.
const SCORES: f32 = 5e-5;
const BOXES: f32 = 0.02;

fn place(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/grounding_dino").join(path)
}

fn golden() -> Value {
    serde_json::from_str(&std::fs::read_to_string(place("golden.json")).unwrap()).unwrap()
}

/// Whether there is an ONNX Runtime; says so where there is none.
fn runtime() -> bool {
    let Err(error) = utr_runtime::encode::load_onnxruntime() else { return true };
    assert!(std::env::var_os("ORT_DYLIB_PATH").is_none(), "{error}");
    assert!(error.to_string().contains("make onnxruntime"), "{error}");
    say(&format!("not tested, no ONNX Runtime: {error}"));
    false
}

/// To standard error past the harness, which swallows what a passing test prints.
fn say(text: &str) {
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}

fn frame(name: &str) -> RgbFrame {
    let picture = image::open(place(&format!("frames/{name}.png"))).unwrap().into_rgb8();
    RgbFrame::new(picture.width() as usize, picture.height() as usize, picture.into_raw()).unwrap()
}

fn args(model: &Path, golden: &Value, rounding: Rounding) -> DinoArgs {
    DinoArgs {
        model: Some(model.to_path_buf()),
        tokenizer: None,
        classes: serde_json::from_value(golden["classes"].clone()).unwrap(),
        rounding,
        batch: 1,
        thresholds: Thresholds::default(),
    }
}

/// A graph with its tokenizer beside it and no settings, so that the sizes are the usual ones.
fn without_settings(graph: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(place(&format!("{graph}/model.onnx")), folder.path().join("model.onnx")).unwrap();
    std::fs::copy(place("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    folder
}

fn numbers(value: &Value) -> Vec<f32> {
    match value.as_array() {
        Some(values) => values.iter().flat_map(numbers).collect(),
        None => vec![value.as_f64().unwrap() as f32],
    }
}

fn words(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The largest difference, which is at most `tolerance`.
fn assert_close(what: &str, ours: &[f32], theirs: &[f32], tolerance: f32) -> f32 {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let off = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off <= tolerance, "{what}: off by {off}, more than {tolerance}");
    off
}

/// The columns of the caption's tokens.
fn of_tokens(answer: &Answer, tokens: usize) -> Vec<f32> {
    answer.logits.chunks(answer.columns).flat_map(|row| row[..tokens].to_vec()).collect()
}

/// What a reference found, the best first.
fn ranked<T: Clone>(found: &Value, values: &[T]) -> Vec<T> {
    let scores = numbers(&found["scores"]);
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    assert_eq!(scores.len(), values.len());
    order.into_iter().map(|at| values[at].clone()).collect()
}

fn check_pixels(dino: &GroundingDino, case: &Value, frame: &RgbFrame) {
    let ((height, width), pixels) = dino.pixels(frame).unwrap();
    assert_eq!(serde_json::json!([1, 3, height, width]), case["shape"]);
    for pair in case["pixels"]["values"].as_array().unwrap() {
        let at = pair[0].as_u64().unwrap() as usize;
        assert_close("pixels", &pixels[at..=at], &numbers(&pair[1]), PIXELS);
    }
    let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let channels = pixels.chunks(height * width).enumerate();
    let level = |c: usize, v: f32| ((f64::from(v) * std[c] + mean[c]) * 255.0).round() as u8;
    let bytes: Vec<u8> = channels.flat_map(|(c, plane)| plane.iter().map(move |v| level(c, *v))).collect();
    let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, case["pixels"]["sha256"], "some pixel differs by a grey level or more");
}

fn check_found(dino: &GroundingDino, case: &Value, answer: &Answer, size: (usize, usize)) {
    for found in case["found"].as_array().unwrap() {
        let threshold = |key: &str| found[key].as_f64().unwrap() as f32;
        let rules =
            [(PhraseRule::Tokens, "tokens"), (PhraseRule::Block, "combined"), (PhraseRule::Class, "class")];
        for (phrase_rule, key) in rules {
            let limits = Thresholds {
                box_threshold: threshold("box_threshold"),
                text_threshold: threshold("text_threshold"),
                nms: None,
                phrase_rule,
            };
            let ours = dino.found(answer, size, &limits).unwrap();
            let phrases: Vec<String> = ours.iter().map(|one| one.phrase.clone()).collect();
            assert_eq!(phrases, ranked(found, &words(&found[key])), "{limits:?}");
            let scores: Vec<f32> = ours.iter().map(|one| one.score).collect();
            assert_close("scores", &scores, &ranked(found, &numbers(&found["scores"])), SCORES);
            let theirs: Vec<[f32; 4]> = serde_json::from_value(found["boxes"].clone()).unwrap();
            let boxes: Vec<[f32; 4]> = ours.iter().map(|one| one.xyxy).collect();
            assert_close("boxes", boxes.as_flattened(), ranked(found, &theirs).as_flattened(), BOXES);
            if phrase_rule == PhraseRule::Tokens {
                // The original without `remove_combined` is the same without full stops.
                let without: Vec<String> = phrases.iter().map(|phrase| phrase.replace('.', "")).collect();
                assert_eq!(without, ranked(found, &words(&found["original"])), "{limits:?}");
            }
        }
    }
}

#[test]
fn every_graph_equals_transformers_on_every_frame() {
    if !runtime() {
        return;
    }
    let golden = golden();
    let cases = golden["cases"].as_array().unwrap();
    let (mut compared, mut worst) = (0, 0.0f32);
    for (sizes, graphs) in [
        ("dynamic", &["dynamic", "original"][..]),
        ("defaults", &["dynamic", "original"]),
        ("fixed", &["fixed"]),
    ] {
        for graph in graphs {
            let bare = without_settings(graph);
            let model = match sizes {
                "defaults" => bare.path().join("model.onnx"),
                _ => place(&format!("{graph}/model.onnx")),
            };
            for rounding in [Rounding::HuggingFace, Rounding::Original] {
                let name = if rounding == Rounding::Original { "original" } else { "hugging-face" };
                let mut dino = GroundingDino::open(&args(&model, &golden, rounding)).unwrap();
                for case in cases.iter().filter(|case| case["sizes"] == sizes && case["rounding"] == name) {
                    let frame = frame(case["frame"].as_str().unwrap());
                    check_pixels(&dino, case, &frame);
                    let ids = dino.caption().ids.clone();
                    let filled = case["input_ids"].as_array().unwrap().len();
                    assert_eq!(serde_json::json!(dino.caption().padded_ids(filled)), case["input_ids"]);
                    let real: Vec<u8> = dino.caption().real(filled).map(u8::from).collect();
                    assert_eq!(serde_json::json!(real), case["attention_mask"]);
                    let answer = dino.answers(std::slice::from_ref(&frame)).unwrap().remove(0);
                    let what = format!("{graph}, {sizes}, {}", case["frame"]);
                    let logits = of_tokens(&answer, ids.len());
                    let off =
                        assert_close(&format!("{what}: logits"), &logits, &numbers(&case["logits"]), NUMBERS);
                    let boxes = numbers(&case["boxes"]);
                    worst = worst.max(off).max(assert_close(
                        &format!("{what}: boxes"),
                        &answer.boxes,
                        &boxes,
                        NUMBERS,
                    ));
                    check_found(&dino, case, &answer, (frame.height, frame.width));
                    compared += 1;
                }
            }
        }
    }
    // 7 frames and the long one with both roundings through two graphs, 4 frames through the fixed one.
    assert_eq!(compared, 2 * 9 + 4);
    println!("{compared} runs, logits and boxes within {worst:.1e} of transformers");
}

/// The frames of the golden clip as a folder of pictures below `root`.
fn walk(root: &Path) -> PathBuf {
    let folder = root.join("clips");
    let clip = folder.join("walk");
    std::fs::create_dir_all(&clip).unwrap();
    for number in 1..=5 {
        std::fs::copy(place(&format!("frames/walk{number}.png")), clip.join(format!("{number}.png")))
            .unwrap();
    }
    folder
}

fn assert_same_objects(what: &str, ours: &[Vec<Object>], theirs: &[Vec<Object>]) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (ours, theirs) in ours.iter().zip(theirs) {
        let names = |objects: &[Object]| objects.iter().map(|o| o.category.clone()).collect::<Vec<_>>();
        let scores = |objects: &[Object]| objects.iter().map(|o| o.score).collect::<Vec<_>>();
        let boxes = |objects: &[Object]| objects.iter().flat_map(|o| o.xyxy).collect::<Vec<_>>();
        assert_eq!(names(ours), names(theirs), "{what}");
        assert_close(what, &scores(ours), &scores(theirs), SCORES);
        assert_close(what, &boxes(ours), &boxes(theirs), BOXES);
    }
}

#[test]
fn the_number_of_frames_in_a_run_changes_nothing() {
    if !runtime() {
        return;
    }
    let golden = golden();
    let root = tempfile::tempdir().unwrap();
    let clips = Clip::all(&walk(root.path())).unwrap();
    for (graph, batches) in [("dynamic", &[2, 5, 64][..]), ("original", &[3])] {
        let objects = |batch: u8| {
            let args = DinoArgs {
                batch,
                ..args(&place(&format!("{graph}/model.onnx")), &golden, Rounding::HuggingFace)
            };
            let mut dino = GroundingDino::open(&args).unwrap();
            assert_eq!(dino.remark(), None);
            assert_eq!(dino.batch(), usize::from(batch));
            let mut frames = Vec::new();
            let shape = dino.annotate(&clips[0], &mut |objects| frames.push(objects)).unwrap();
            assert_eq!((shape.frames, frames.len()), (5, 5));
            (frames, dino.settings())
        };
        let (one, settings) = objects(1);
        assert!(one.iter().map(Vec::len).sum::<usize>() > 20);
        for &batch in batches {
            let (several, same) = objects(batch);
            assert_same_objects(&format!("{graph}, {batch} frames"), &several, &one);
            assert_eq!(same, settings);
        }
    }
    let mut dino =
        GroundingDino::open(&args(&place("dynamic/model.onnx"), &golden, Rounding::HuggingFace)).unwrap();
    assert!(dino.answers(&[frame("walk1"), frame("odd")]).unwrap_err().to_string().contains("several sizes"));
}

fn annotate(videos: &Path, output: &Path, graph: &str, more: &[&str]) -> Output {
    Command::new(UTR_TRAIN)
        .args(["annotate", "--expert", "grounding-dino", "--videos"])
        .arg(videos)
        .arg("--output")
        .arg(output)
        .arg("--model")
        .arg(place(&format!("{graph}/model.onnx")))
        .args(["--classes", "a cat,Remote Controller, person ,red cup"])
        .args(more)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What the golden data say of a frame at the usual thresholds: named, inside the frame, the best first.
fn expected(case: &Value, (width, height): (f32, f32)) -> Vec<Object> {
    let found = &case["found"][0];
    assert_eq!(numbers(&found["box_threshold"]), [0.25]);
    let boxes: Vec<[f32; 4]> = serde_json::from_value(found["boxes"].clone()).unwrap();
    let (names, scores) = (words(&found["class"]), numbers(&found["scores"]));
    let clip = |b: [f32; 4]| {
        [b[0].clamp(0.0, width), b[1].clamp(0.0, height), b[2].clamp(0.0, width), b[3].clamp(0.0, height)]
    };
    let all: Vec<Object> = boxes
        .iter()
        .zip(names.iter().zip(scores))
        .map(|(b, (name, score))| Object {
            xyxy: clip(*b),
            score,
            category: name.clone(),
            appearance: None,
            action: None,
            caption: None,
        })
        .collect();
    ranked(found, &all).into_iter().filter(|o| !o.category.is_empty()).collect()
}

#[test]
fn the_command_line_finds_what_the_references_find() {
    if !runtime() {
        return;
    }
    let golden = golden();
    let root = tempfile::tempdir().unwrap();
    let videos = walk(root.path());
    for name in ["odd", "portrait"] {
        std::fs::create_dir(videos.join(name)).unwrap();
        std::fs::copy(place(&format!("frames/{name}.png")), videos.join(name).join("1.png")).unwrap();
    }
    let output = root.path().join("d.jsonl");
    let one_by_one = "one by one";
    for (graph, batch) in
        [("dynamic", "1"), ("dynamic", "4"), ("original", "2"), ("fixed", "4"), ("fixed", "1")]
    {
        let done = annotate(&videos, &output, graph, &["--batch", batch]);
        assert!(done.status.success(), "{}", said(&done));
        assert_eq!(said(&done).contains(one_by_one), graph == "fixed" && batch == "4", "{}", said(&done));
        let lines: Vec<FrameObjects> = read_jsonl(&output).unwrap();
        let order: Vec<(&str, u32)> = lines.iter().map(|line| (line.video.as_str(), line.frame)).collect();
        let walked = (1..=5).map(|number| ("walk", number));
        assert_eq!(order, [("odd", 1), ("portrait", 1)].into_iter().chain(walked).collect::<Vec<_>>());
        let mut compared = 0;
        for line in &lines {
            let name = if line.video == "walk" { format!("walk{}", line.frame) } else { line.video.clone() };
            let sizes = if graph == "fixed" { "fixed" } else { "dynamic" };
            let cases = golden["cases"].as_array().unwrap();
            let Some(case) = cases.iter().find(|case| case["sizes"] == sizes && case["frame"] == name) else {
                continue;
            };
            let theirs = expected(case, (line.width as f32, line.height as f32));
            assert!(!theirs.is_empty());
            assert_same_objects(&format!("{graph}, {name}"), std::slice::from_ref(&line.objects), &[theirs]);
            compared += 1;
        }
        assert_eq!(compared, if graph == "fixed" { 3 } else { 7 });
    }
    let fails = |graph: &str, more: &[&str], words: &str| {
        let done = annotate(&videos, &root.path().join("x.jsonl"), graph, more);
        assert!(done.status.code() == Some(2) && said(&done).contains(words), "{more:?}: {}", said(&done));
    };
    fails("dynamic", &["--batch", "0"], "--batch");
    fails("dynamic", &["--batch", "65"], "--batch");
    fails("fixed", &["--classes", "dog,ball,blue box"], "this graph takes 16");
    fails("dynamic", &["--classes", "zebra"], "no word of it");
}

#[test]
fn encoded_clips_go_through_and_can_be_tracked() {
    if !runtime() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let (world, output) = (root.path().join("world"), root.path().join("d.jsonl"));
    let made = Command::new(UTR_TRAIN)
        .args([
            "world",
            "--clips",
            "2",
            "--split",
            "val",
            "--size",
            "96",
            "--frames-per-step",
            "2",
            "--encode",
            "mp4",
            "--output",
        ])
        .arg(&world)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", said(&made));
    let mut lines: Vec<Vec<FrameObjects>> = Vec::new();
    for batch in ["1", "8"] {
        let done = annotate(&world, &output, "dynamic", &["--batch", batch, "--nms", "0.8"]);
        assert!(done.status.success(), "{}", said(&done));
        println!("tiny graph, --batch {batch}: {}", said(&done).trim());
        lines.push(read_jsonl(&output).unwrap());
    }
    assert!(lines[0].len() > 50 && lines[0].iter().any(|line| line.frame > 30));
    let objects = |lines: &[FrameObjects]| lines.iter().map(|line| line.objects.clone()).collect::<Vec<_>>();
    assert_same_objects("--batch 8", &objects(&lines[1]), &objects(&lines[0]));
    for line in &lines[0] {
        for object in &line.objects {
            let [x1, y1, x2, y2] = object.xyxy;
            assert!(0.0 <= x1 && x1 < x2 && x2 <= line.width as f32, "{line:?}");
            assert!(0.0 <= y1 && y1 < y2 && y2 <= line.height as f32, "{line:?}");
        }
    }
    let tracked = Command::new(UTR_TRAIN)
        .args(["track", "--detections", output.to_str().unwrap(), "--output"])
        .arg(root.path().join("tracks.jsonl"))
        .output()
        .unwrap();
    assert!(tracked.status.success(), "{}", said(&tracked));
}

#[test]
fn a_missing_library_is_an_error_with_the_remedy() {
    let root = tempfile::tempdir().unwrap();
    let done = Command::new(UTR_TRAIN)
        .env("ORT_DYLIB_PATH", root.path().join("nowhere.so"))
        .args(["annotate", "--expert", "grounding-dino", "--classes", "person", "--videos"])
        .arg(walk(root.path()))
        .arg("--output")
        .arg(root.path().join("d.jsonl"))
        .arg("--model")
        .arg(place("fixed/model.onnx"))
        .output()
        .unwrap();
    let said = said(&done);
    assert!(done.status.code() == Some(2), "{said}");
    for word in ["nowhere.so", "make onnxruntime", "model.onnx"] {
        assert!(said.contains(word), "no {word} in: {said}");
    }
}

#[test]
fn a_graph_of_another_kind_is_refused_by_name() {
    if !runtime() {
        return;
    }
    let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/bundles/utr-nano/vision.onnx");
    let tokenizer = Some(place("tokenizer.json"));
    let args = DinoArgs { tokenizer, ..args(&bundle, &golden(), Rounding::HuggingFace) };
    let message = GroundingDino::open(&args).err().unwrap().to_string();
    assert!(message.contains("an input called pixels"), "{message}");
}
