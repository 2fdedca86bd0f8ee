//! Experts as a user meets them: a folder of clips in, detections out, stopped and shared at will.
//!
//! In: the binary that cargo built, world clips. Out: a failure that shows what was found. How good the detections are is measured in `tracking`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const UTR_TRAIN: &str = env!("CARGO_BIN_EXE_utr-train");

/// A still camera, nothing in front.
const OPEN: &str = r#"
min_objects = 2
max_objects = 4
max_occluders = 0
camera = false
textures = true
backdrops = true
large_only = false
held_out = "never"
"#;

fn run(args: &[&str]) -> Output {
    let output = Command::new(UTR_TRAIN).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {text}");
    output
}

fn clips(root: &Path, config: &str, clips: usize, encode: &str) -> PathBuf {
    let (folder, file) = (root.join("world"), root.join("world.toml"));
    std::fs::write(&file, config).unwrap();
    let count = clips.to_string();
    let config = ["--config", file.to_str().unwrap()];
    let rest = [
        "--clips",
        &count,
        "--split",
        "val",
        "--size",
        "192",
        "--frames-per-step",
        "8",
        "--encode",
        encode,
        "--output",
        folder.to_str().unwrap(),
    ];
    run(&[&["world"][..], &config, &rest].concat());
    folder
}

fn annotate(videos: &Path, expert: &str, output: &Path, more: &[&str]) -> Output {
    let fixed =
        ["--videos", videos.to_str().unwrap(), "--expert", expert, "--output", output.to_str().unwrap()];
    run(&[&["annotate"][..], &fixed, more].concat())
}

#[test]
fn a_stopped_or_shared_run_gives_the_same_bytes_and_bad_clips_are_named() {
    let root = tempfile::tempdir().unwrap();
    let folder = clips(root.path(), OPEN, 5, "mp4");
    std::fs::write(folder.join("clips/empty.mp4"), b"").unwrap();
    std::fs::write(folder.join("clips/noise.mp4"), [7u8; 4000]).unwrap();
    let whole = root.path().join("whole.jsonl");
    let said = annotate(&folder, "motion", &whole, &[]);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    let skipped = std::fs::read_to_string(root.path().join("whole.skipped.jsonl")).unwrap();
    assert!(skipped.contains("clips/empty.mp4") && skipped.contains("clips/noise.mp4"), "{skipped}");
    assert!(said.contains("7 clips, 2 left out"), "{said}");
    let expected = std::fs::read(&whole).unwrap();

    let mut joined = Vec::new();
    for part in ["0/3", "1/3", "2/3"] {
        let output = root.path().join("part.jsonl");
        annotate(&folder, "motion", &output, &["--shard", part]);
        joined.extend(std::fs::read(&output).unwrap());
    }
    assert_eq!(joined, expected);

    let again = root.path().join("again.jsonl");
    let mut child = Command::new(UTR_TRAIN)
        .args(["annotate", "--expert", "motion", "--videos"])
        .arg(&folder)
        .arg("--output")
        .arg(&again)
        .spawn()
        .unwrap();
    let parts = root.path().join("again.jsonl.parts");
    while !parts.join("00000001").exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    annotate(&folder, "motion", &again, &[]);
    assert_eq!(std::fs::read(&again).unwrap(), expected);
    assert!(!parts.exists());
}

#[test]
fn a_missing_library_graph_or_truth_is_an_error_with_the_remedy() {
    let root = tempfile::tempdir().unwrap();
    let folder = clips(root.path(), OPEN, 1, "frames");
    let fails = |args: &[&str], words: &str| {
        let output = Command::new(UTR_TRAIN)
            .args(["annotate", "--videos", folder.to_str().unwrap(), "--output"])
            .arg(root.path().join("x.jsonl"))
            .args(args)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && text.contains(words), "{args:?}: {text}");
    };
    fails(&["--expert", "grounding-dino"], "--model");
    fails(&["--expert", "grounding-dino", "--model", "nowhere.onnx"], "not a file");
    fails(&["--expert", "world", "--truth", "nowhere.jsonl"], "nowhere.jsonl");
    fails(&["--expert", "world", "--miss", "2"], "--miss");
}
