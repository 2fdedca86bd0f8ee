//! `watch`, `probe` and `bench` as a user runs them, with the model that ships: what they print, what they refuse, what they do about the source.
#![cfg(feature = "gst")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const CLIP: &str = "models/demo/clips/demo.mp4";

fn utr(arguments: &[&str]) -> Output {
    run(&[arguments, &["--bundle", "models/bundles/utr-nano"]].concat())
}

fn run(arguments: &[&str]) -> Output {
    let repository = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let mut command = Command::new(env!("CARGO_BIN_EXE_utr"));
    command.current_dir(repository).args(arguments).output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect()
}

#[test]
fn watch_prints_a_line_for_each_answer_that_counts_and_acts() {
    let folder = tempfile::tempdir().unwrap();
    let got = folder.path().join("got.jsonl");
    let command = format!("cat >> '{}'", got.display());
    let questions = ["--question", "which way does the red box move?", "--question", "what moves?"];
    let every = [
        "watch",
        "--source",
        CLIP,
        "--fps",
        "8",
        "--every",
        "200ms",
        "--max-tokens",
        "12",
        "--exec",
        &command,
    ];
    let all = lines(&utr(&[&every[..], &questions[..]].concat()));
    assert!(all.len() >= 4, "both questions, again and again: {all:?}");
    for line in &all {
        assert!(line["time_ms"].as_u64().unwrap() > 1_700_000_000_000 && line["text"].is_string(), "{line}");
        assert!(line["frames"].as_array().is_some_and(|frames| !frames.is_empty()), "{line}");
    }
    let acted = std::fs::read_to_string(&got).unwrap();
    assert_eq!(acted.lines().count(), all.len(), "the command got every line");

    // A clip that stands still is answered alike: only the first answer is a change.
    let still = [
        "watch",
        "--source",
        "pattern://squares?frames=30",
        "--fps",
        "30",
        "--frames",
        "1",
        "--every",
        "100ms",
    ];
    let changes = ["--question", "what moves?", "--on-change", "--hysteresis", "2", "--max-tokens", "4"];
    let changed = lines(&utr(&[&still[..], &changes[..]].concat()));
    assert!(changed.len() < 10, "{changed:?}");
    assert!(changed.windows(2).all(|pair| pair[0]["text"] != pair[1]["text"]), "{changed:?}");
}

#[test]
fn watch_says_what_is_wrong_with_a_source_and_an_address() {
    let output = utr(&["watch", "--source", "no/such/clip.mp4", "--question", "q"]);
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(words.contains("no/such/clip.mp4") && output.stdout.is_empty(), "{words}");
    let hook =
        utr(&["watch", "--source", CLIP, "--question", "q", "--webhook", "https://example.org/?key=secret"]);
    let words = String::from_utf8_lossy(&hook.stderr);
    assert_eq!(hook.status.code(), Some(2), "{words}");
    assert!(words.contains("curl") && !words.contains("secret"), "{words}");
}

#[test]
fn probe_tells_an_answer_that_used_time_from_one_that_did_not() {
    let ask = |source: &str, question: &str, more: &[&str]| {
        let words =
            [&["probe", "--source", source, "--question", question, "--max-tokens", "12", "--json"], more]
                .concat();
        lines(&utr(&words)).remove(0)
    };
    let report = ask(CLIP, "does the red box move down or up?", &[]);
    assert_eq!(report["answer"]["text"], "down");
    let windows: Vec<&str> =
        report["variants"].as_array().unwrap().iter().map(|v| v["window"].as_str().unwrap()).collect();
    assert_eq!(windows, ["real", "shuffled", "reversed", "single"]);
    assert_eq!(report["variants"][2]["text"], "up", "the reversed clip moves the other way");
    assert!(report["tpl"].as_f64().unwrap() > 0.1, "{report}");
    assert!(report["verdict"].as_str().unwrap().starts_with("time was used"), "{report}");
    let shares = report["answer"]["evidence"]["per_frame"].as_array().unwrap();
    assert!((shares.iter().map(|s| s.as_f64().unwrap()).sum::<f64>() - 1.0).abs() < 1e-4);
    // One frame is all there is: no order, no time.
    let still = ask("pattern://squares?frames=1", "what colour is the square?", &["--frames", "1"]);
    assert!(still["verdict"].as_str().unwrap().starts_with("time was not used"), "{still}");
    assert!(still["tpl"].as_f64().unwrap().abs() < 0.1, "{still}");
}

#[test]
fn bench_prints_rows_with_their_ceilings() {
    let rows =
        lines(&utr(&["bench", "--cases", "ttft32,tg128,rss_peak", "-r", "1", "-o", "jsonl", "--seen", "33"]));
    let names: Vec<_> =
        rows.iter().map(|row| (row["case"].as_str().unwrap(), row["mode"].as_str())).collect();
    let modes = ["exact", "ahead", "rolling"].map(Some);
    let expected: Vec<_> = (modes.map(|m| ("ttft32", m)).into_iter())
        .chain([("tg128", None)])
        .chain(modes.map(|m| ("rss_peak", m)))
        .collect();
    assert_eq!(names, expected);
    for row in &rows {
        assert!(row["value"].as_f64().unwrap() > 0.0, "{row}");
        assert_eq!(row["ceiling"].is_null(), row["case"] == "rss_peak", "{row}");
        assert_eq!((&row["model"], row["hash"].as_str().unwrap().len()), (&"utr-nano".into(), 64), "{row}");
        assert!(row["spread"].as_f64() == Some(0.0) && row["machine"]["board"].is_string(), "{row}");
    }
}

#[test]
fn bench_makes_a_model_of_a_shape_and_says_where_it_was_measured() {
    let shape =
        ["bench", "--shape", "tiny+tiny", "--bits", "q4_0", "--window-mode", "rolling", "--seen", "33"];
    let output = run(&[&shape[..], &["--cases", "enc,rss_peak,drop%", "-r", "2", "-o", "json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let cases: Vec<_> = rows.iter().map(|row| row["case"].as_str().unwrap()).collect();
    assert_eq!(cases, ["enc", "rss_peak"], "a shape has no tokenizer to ask questions with");
    for row in rows {
        assert_eq!((&row["model"], &row["bits"]), (&"tiny+tiny".into(), &"q4_0".into()), "{row}");
        assert!(row["value"].as_f64().unwrap() > 0.0, "{row}");
    }
    assert_eq!(rows[0]["samples"].as_array().unwrap().len(), 2);
    assert!(rows[0]["ceiling"].as_f64().unwrap() > 0.0, "{}", rows[0]);
    assert_eq!(report["machine"]["program"].as_str().unwrap().len(), 64);
    assert_eq!((&report["skipped"], &report["verdicts"]), (&serde_json::json!([]), &serde_json::json!([])));
}

#[test]
fn bench_says_what_it_cannot_judge_or_measure() {
    let folder = tempfile::tempdir().unwrap();
    let suite = folder.path().join("suite.toml");
    std::fs::write(&suite, "[[entry]]\nbit = \"q4_0\"\n").unwrap();
    let suite = suite.to_str().unwrap();
    let tiny = ["bench", "--shape", "tiny", "--cases", "rss_peak", "--window-mode", "rolling", "--seen", "1"];
    let asserted = |board| [&tiny[..], &["--assert", "--board", board]].concat();
    for (words, part) in [
        (vec!["bench", "--suite", suite], "bit"),
        (vec!["bench", "--suite", suite, "--shape", "tiny"], "cannot be used with"),
        (vec!["bench", "--shape", "tiny", "--cases", "enc"], "tower"),
        (asserted("generic"), "expects nothing"),
        (asserted("jetson-orin-nano"), "is about what was measured"),
        (asserted("toaster"), "jetson-orin-nano"),
    ] {
        let output = run(&words);
        let found = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && found.contains(part), "{words:?}: {found}");
    }
}
