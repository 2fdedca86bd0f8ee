//! The built `utr`, as a user runs it: exit codes, what goes to which stream, bad input, the bundles that ship.

mod contract;
mod program;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn utr(arguments: &[&str]) -> Output {
    Command::new(program::utr()).current_dir(repository()).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Exit status 2, nothing on standard output, one line of words on standard error.
fn refused(arguments: &[&str]) -> String {
    let output = utr(arguments);
    let words = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {words}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    assert!(words.starts_with("utr: ") && !words.contains("panicked"), "{words}");
    words
}

fn bundles() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(repository().join("models/bundles")).unwrap();
    entries.map(|e| e.unwrap().path()).filter(|p| p.join("manifest.json").exists()).collect()
}

/// A folder with pictures of the given sizes.
fn pictures(sizes: &[(u32, u32)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (place, (width, height)) in sizes.iter().enumerate() {
        let picture = image::RgbImage::from_fn(*width, *height, |x, y| image::Rgb([x as u8, y as u8, 90]));
        picture.save(folder.path().join(format!("{place}.png"))).unwrap();
    }
    folder
}

#[test]
fn an_answer_as_json_has_every_field_of_the_contract() {
    let source = "pattern://squares?frames=40";
    let output = utr(&["ask", "--source", source, "--question", "what moves?", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(!answer["tokens"].as_array().unwrap().is_empty() && answer["text"].is_string());
    let frames = answer["frames"].as_array().unwrap();
    assert_eq!(
        (frames.len(), &frames[0]["index"], &frames[31]["index"]),
        (32, &Value::from(0), &Value::from(39))
    );
    contract::has_every_field(&answer);
}

#[test]
fn questions_that_are_empty_or_huge_are_refused() {
    let ask = |question: &str| refused(&["ask", "--source", "pattern://squares", "--question", question]);
    assert!(ask("  ").contains("empty"));
    assert!(ask(&"why ".repeat(25_000)).contains("65536"));
    // Within the limit on bytes but beyond what this model reads.
    assert!(ask(&"why ".repeat(8_000)).contains("tokens do not fit"));
}

#[test]
fn clips_that_cannot_be_read_are_refused_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let noise: Vec<u8> = (0..4000u32).map(|i| (i * i % 251) as u8).collect();
    let empty = pictures(&[]);
    for (source, words) in [
        (file("empty.mp4", b""), "empty"),
        (file("noise.mp4", &noise), "noise.mp4"),
        (file("noise.png", &noise), "noise.png"),
        ("/nowhere/clip.mp4".to_string(), "/nowhere/clip.mp4"),
        (empty.path().display().to_string(), "picture"),
        ("nonsense://x".to_string(), "nonsense"),
    ] {
        let message = refused(&["ask", "--source", &source, "--question", "what moves?"]);
        assert!(message.contains(words), "{source}: {message}");
    }
}

#[test]
fn one_frame_and_odd_sizes_are_answered() {
    for sizes in [vec![(64, 64)], vec![(37, 61), (37, 61)], vec![(1, 1)], vec![(640, 17), (16, 480)]] {
        let folder = pictures(&sizes);
        let source = folder.path().display().to_string();
        let output = utr(&["ask", "--source", &source, "--question", "what is it?", "--max-tokens", "4"]);
        assert!(output.status.success(), "{sizes:?}: {}", text(&output.stderr));
    }
}

#[test]
fn bundles_that_ship_answer_as_they_did_and_an_altered_one_is_refused() {
    let bundles = bundles();
    assert!(!bundles.is_empty());
    for bundle in bundles {
        let output = utr(&["bundle", "verify", bundle.to_str().unwrap()]);
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(&bundle).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
        let file = copy.path().join("decoder.gguf");
        let mut bytes = std::fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let folder = copy.path().to_str().unwrap().to_string();
        let output = utr(&["bundle", "verify", &folder]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stdout).contains("no: ") && text(&output.stdout).contains("decoder.gguf"));
        let asked =
            ["ask", "--bundle", &folder, "--source", "pattern://squares", "--question", "what moves?"];
        assert!(refused(&asked).contains("decoder.gguf"));
    }
}

#[test]
fn a_folder_that_is_no_model_is_refused_and_the_doctor_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let asked = ["ask", "--bundle", path, "--source", "pattern://squares", "--question", "what moves?"];
    assert!(refused(&asked).contains("manifest.json"));
    let output = utr(&["doctor", "--bundle", path, "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["ok"]), (Some(1), &Value::Bool(false)));
}

#[cfg(not(feature = "ros2"))]
#[test]
fn a_build_without_ros_says_how_to_get_it() {
    let words = refused(&["ros", "--bundle", "models/bundles/utr-nano"]);
    assert!(words.contains("--features ros2"), "{words}");
}
