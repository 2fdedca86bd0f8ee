//! The built `utr`: recording, killing it, asking again; and other programs that read the file.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use utr_runtime::record::{AnswerNote, RecordWriter, Recording};

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_utr"));
    command.current_dir(repository()).args(arguments);
    command
}

fn utr(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A recording that `utr ask --record` wrote, and its `replay://` spelling.
fn saved(folder: &Path) -> (PathBuf, String) {
    let path = folder.join("saved.mcap");
    let output = utr(&[
        "ask",
        "--source",
        "pattern://squares?frames=40&width=150&height=100",
        "--question",
        "What happens in the clip?",
        "--question",
        "What is at the left?",
        "--record",
        path.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let source = format!("replay://{}", path.display());
    (path, source)
}

#[test]
fn a_saved_answer_comes_again_and_an_altered_one_is_shown_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let (path, source) = saved(folder.path());
    let output = utr(&["ask", "--source", &source]);
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(text(&output.stdout).matches("equal ").count(), 2);
    // The same frames, another question.
    let output = utr(&["ask", "--source", &source, "--question", "How many are there?", "--json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let recording = Recording::open(&path).unwrap();
    let indices: Vec<_> = recording.frames().iter().map(|frame| frame.stamp.index).collect();
    let found =
        answer["frames"].as_array().unwrap().iter().map(|frame| frame["index"].as_u64().unwrap() as usize);
    assert_eq!(found.collect::<Vec<_>>(), indices);

    let altered = folder.path().join("altered.mcap");
    alter(&recording, &altered);
    let source = format!("replay://{}", altered.display());
    let output = utr(&["ask", "--source", &source]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(
        shown.contains("different from token 0 on")
            && shown.contains("recorded  ")
            && shown.contains("now  "),
        "{shown}"
    );
    let output = utr(&["ask", "--source", &source, "--json"]);
    let first = text(&output.stdout).lines().next().unwrap().to_string();
    assert_eq!(serde_json::from_str::<Value>(&first).unwrap()["equal"], Value::Bool(false));
}

/// Copies a recording with another first token in each answer.
fn alter(recording: &Recording, path: &Path) {
    let file = std::fs::File::create(path).unwrap();
    let mut writer = RecordWriter::new(file, path, recording.session().unwrap()).unwrap();
    for place in 0..recording.frames().len() {
        let stamp = recording.frames()[place].stamp;
        writer.frame(Some(&recording.picture(place).unwrap()), crate::studio::expected(stamp)).unwrap();
    }
    for place in 0..recording.answers() {
        let (_, AnswerNote { question, answer, error }) = recording.answer(place).unwrap();
        let mut answer = answer.unwrap();
        answer.tokens[0] ^= 1;
        writer.answer(&AnswerNote { question, answer: Some(answer), error }).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn another_bundle_is_refused_unless_forced_and_odd_wishes_are() {
    let folder = tempfile::tempdir().unwrap();
    let (path, source) = saved(folder.path());
    let recording = Recording::open(&path).unwrap();
    let mut session = recording.session().unwrap().clone();
    session.bundle.hash = Some("1".repeat(64));
    let other = folder.path().join("other.mcap");
    let mut writer = RecordWriter::new(std::fs::File::create(&other).unwrap(), &other, &session).unwrap();
    for place in 0..recording.frames().len() {
        let expected = crate::studio::expected(recording.frames()[place].stamp);
        writer.frame(Some(&recording.picture(place).unwrap()), expected).unwrap();
    }
    (0..2).for_each(|place| writer.answer(&recording.answer(place).unwrap().1).unwrap());
    writer.finish().unwrap();
    let other = format!("replay://{}", other.display());
    let output = utr(&["ask", "--source", &other]);
    let words = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(words.contains(&"1".repeat(64)) && words.contains("--force"), "{words}");
    assert_eq!(utr(&["ask", "--source", &other, "--force"]).status.code(), Some(0));
    for (arguments, says) in [
        (vec!["ask", "--source", "pattern://squares"], "--question"),
        (vec!["ask", "--source", "pattern://squares", "--force"], "--question"),
        (vec!["ask", "--source", "replay://"], "names no recording"),
        (vec!["ask", "--source", "replay:///nowhere.mcap"], "/nowhere.mcap"),
        (vec!["record", "--source", "pattern://squares", "--output", path.to_str().unwrap()], "exists"),
        (vec!["record", "--source", "pattern://squares", "--output", "/nowhere/a.mcap"], "/nowhere/a.mcap"),
        (vec!["record", "--source", "pattern://squares", "--output", "x", "--length=-1"], "--length"),
    ] {
        let output = utr(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(says), "{arguments:?}: {}", text(&output.stderr));
    }
    assert!(utr(&["ask", "--source", &source, "--question", "x", "--force"]).status.code() == Some(2));
    let left = folder.path().join("left.mcap");
    let output = utr(&["record", "--source", "/nowhere.mp4", "--output", left.to_str().unwrap()]);
    assert!(output.status.code() == Some(2) && !left.exists(), "no empty file is left");
}

#[test]
fn a_recorded_session_comes_again_in_its_mode() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("live.mcap");
    let (output, source) = (path.display().to_string(), format!("replay://{}", path.display()));
    let uri = "pattern://squares?frames=2000&fps=50&width=160&height=120";
    let mut arguments = vec!["record", "--source", uri, "--output", &output, "--fps", "50", "--frames", "8"];
    arguments.extend([
        "--window-mode",
        "rolling",
        "--question",
        "What happens in the clip?",
        "--every",
        "0.02",
        "--max-frames",
        "600",
    ]);
    let recorded = utr(&arguments);
    assert!(recorded.status.success(), "{}", text(&recorded.stderr));
    let recording = Recording::open(&path).unwrap();
    assert!(recording.answers() >= 2, "asked on the way and at the end");
    let again = utr(&["ask", "--source", &source, "--json"]);
    let answers: Vec<Value> =
        text(&again.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), recording.answers());
    assert!(answers.iter().all(|answer| answer["equal"] == true), "{answers:?}");
    assert_eq!(again.status.code(), Some(0));
    assert!((600..2000).contains(&recording.frames().len()));
}

#[test]
fn a_killed_recorder_leaves_a_file_that_replays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("killed.mcap");
    let uri = "pattern://squares?frames=100000&fps=20&width=160&height=120";
    let mut child = command(&["record", "--source", uri, "--fps", "20", "--output", path.to_str().unwrap()])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let frames = || Recording::open(&path).map_or(0, |recording| recording.frames().len());
    // A file that is being written can be read too.
    let mut waited = 0;
    while frames() < 20 && waited < 600 {
        std::thread::sleep(Duration::from_millis(50));
        waited += 1;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let recording = Recording::open(&path).unwrap();
    assert!(recording.frames().len() >= 20 && recording.flaw().unwrap().contains("cut off"));
    let source = format!("replay://{}", path.display());
    let output = utr(&["ask", "--source", &source, "--question", "What happens in the clip?", "--json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let newest = recording.frames().last().unwrap().stamp.index;
    assert_eq!(answer["frames"].as_array().unwrap().last().unwrap()["index"], newest);
}

#[test]
fn the_official_python_reader_finds_the_same() {
    let python = std::env::var("UTR_MCAP_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python).args(["-c", "import mcap, mcap_protobuf"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        eprintln!("left out: {python} has no mcap and mcap_protobuf; .ci/mcap fetches them");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = saved(folder.path());
    let script = repository().join("tests/clients/read_mcap.py");
    let output = Command::new(python).args([script.as_path(), path.as_path()]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let recording = Recording::open(&path).unwrap();
    let stamps: Vec<Value> = recording
        .frames()
        .iter()
        .map(|frame| serde_json::json!([frame.stamp.index, frame.stamp.pts_ms]))
        .collect();
    assert_eq!(found["stamps"], Value::from(stamps));
    let crcs: Vec<u32> = (0..recording.frames().len())
        .map(|place| crc32fast::hash(&recording.picture(place).unwrap().data))
        .collect();
    assert_eq!(found["pictures"], serde_json::json!(crcs), "read by another PNG decoder");
    assert_eq!(found["answers"][0], recording.answer(0).unwrap().1.answer.unwrap().text);
    assert_eq!(found["schemas"]["/utr/image"], "foxglove.CompressedImage");
}
