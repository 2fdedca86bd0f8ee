//! `utr-train track` as a user meets it who brings files of all sorts.
//!
//! In: the binary that cargo built, detections written by hand. Out: a failure that shows what was said. How well it tracks is judged in the library.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use utr_training::queries::tracks::read_tracks;

const UTR_TRAIN: &str = env!("CARGO_BIN_EXE_utr-train");

/// Exit status and what was said on standard error.
fn track(detections: &Path, output: &Path, more: &[&str]) -> (i32, String) {
    let done = Command::new(UTR_TRAIN)
        .args(["track".as_ref(), "--detections".as_ref(), detections.as_os_str()])
        .args(["--output".as_ref(), output.as_os_str()])
        .args(more)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    (done.status.code().unwrap_or(-1), said)
}

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Runs text to text; the lines of the result.
    fn text(&self, detections: &str, more: &[&str]) -> Vec<String> {
        let (input, output) = (self.file("det.txt", detections), self.path("out.txt"));
        let (status, said) = track(&input, &output, more);
        assert_eq!(status, 0, "{said}");
        std::fs::read_to_string(output).unwrap().lines().map(String::from).collect()
    }
}

/// A box that moves by two pixels a frame.
fn line(frame: u32, score: f64) -> String {
    format!("{frame},-1,{},50,40,80,{score},-1,-1,-1\n", 100 + 2 * frame)
}

#[test]
fn lines_come_in_any_order_and_a_file_may_be_empty() {
    let bench = Bench::new();
    let lines: Vec<String> = (1..=30).map(|frame| line(frame, 0.9)).collect();
    let sorted = bench.text(&lines.concat(), &[]);
    assert_eq!(sorted.len(), 30);
    let backwards: String = lines.iter().rev().cloned().collect();
    assert_eq!(bench.text(&backwards, &[]), sorted);
    assert!(bench.text("", &[]).is_empty());
    let (input, output) = (bench.file("det.jsonl", ""), bench.path("out.jsonl"));
    assert_eq!(track(&input, &output, &[]).0, 0);
    assert!(std::fs::read(output).unwrap().is_empty());
}

#[test]
fn patience_is_counted_in_seconds_at_odd_rates() {
    let bench = Bench::new();
    let ids = |gap: u32, rate: &str| {
        let frames = (1..=10).chain(11 + gap..=20 + gap);
        let text: String =
            frames.map(|frame| line(frame, 0.9).replace(&format!("{}", 100 + 2 * frame), "100")).collect();
        let lines = bench.text(&text, &["--frame-rate", rate]);
        let ids: std::collections::BTreeSet<&str> =
            lines.iter().filter_map(|line| line.split(',').nth(1)).collect();
        ids.len()
    };
    // As the original: it waits int(rate / 30 * 30) frames and leaves the list one frame late (at 0.2, two).
    for (rate, longest) in [("29.97", 30), ("30", 31), ("0.2", 2), ("59.94", 60)] {
        assert_eq!((ids(longest, rate), ids(longest + 1, rate)), (1, 2), "{rate}");
    }
}

#[test]
fn what_cannot_be_tracked_is_an_error_that_names_it() {
    let bench = Bench::new();
    let good = line(1, 0.9);
    let object =
        |x: &str, score: &str| format!(r#"{{"xyxy":[{x},10,50,60],"score":{score},"category":"ball"}}"#);
    let json = |frame: &str, rest: &str, objects: &str| {
        format!(r#"{{"video":"a","frame":{frame},"width":640,"height":480,{rest}"objects":[{objects}]}}"#)
            + "\n"
    };
    let cases = [
        ("det.txt", format!("{good}2,-1,nan,50,40,80,0.9\n"), "line 2"),
        ("det.txt", format!("{good}-2,-1,10,50,40,80,0.9\n"), "frame -2"),
        ("det.txt", format!("{good}4294967297,-1,10,50,40,80,0.9\n"), "frame 4294967297"),
        ("det.txt", format!("{good}2,-1,10,50,40\n"), "5 numbers"),
        ("det.txt", "frame,id,x,y,w,h,score\n".into(), "\"frame\" is no number"),
        ("det.jsonl", json("0", "", ""), "a, frame 0"),
        ("det.jsonl", json("-1", "", ""), "line 1"),
        ("det.jsonl", json("4294967295", "", ""), "from 1 to 10000000"),
        ("det.jsonl", json("1", "", "") + &json("1", "", ""), "twice"),
        ("det.jsonl", json("1", r#""fps":0,"#, ""), "above zero"),
        ("det.jsonl", json("1", "", &object("NaN", "0.5")), "line 1"),
        ("det.jsonl", json("1", "", &object("1e39", "0.5")), "finite"),
        ("det.jsonl", json("1", "", &object("50", "0.5")), "no area"),
        ("det.jsonl", json("1", "", &object("10", "7")), "score 7"),
        ("det.jsonl", good.clone(), "line 1"),
    ];
    for (name, text, words) in cases {
        let input = bench.file(name, &text);
        let output = bench.path(&name.replace("det", "out"));
        let (status, said) = track(&input, &output, &[]);
        assert!(status == 2 && said.contains(name) && said.contains(words), "{text}: {status} {said}");
        assert!(!output.exists());
    }
    let input = bench.file("det.txt", [0xff, 0xfe, b'1']);
    let (status, said) = track(&input, &bench.path("out.txt"), &[]);
    assert!(status == 2 && said.contains("UTF-8"), "{said}");

    let input = bench.file("det.txt", &good);
    for (more, words) in [
        (["--frame-rate", "0"], "--frame-rate"),
        (["--frame-rate", "nan"], "--frame-rate"),
        (["--match-thresh", "2"], "--match-thresh"),
        (["--track-thresh", "nan"], "--track-thresh"),
        (["--min-box-area", "nan"], "--min-box-area"),
        (["--shard", "0/2"], "--shard"),
    ] {
        let (status, said) = track(&input, &bench.path("out.txt"), &more);
        assert!(status == 2 && said.contains(words), "{more:?}: {status} {said}");
    }
    let (status, said) = track(&input, &bench.path("out.jsonl"), &[]);
    assert!(status == 2 && said.contains("both"), "{said}");
    let (status, said) = track(&input, &input, &[]);
    assert!(status == 2 && said.contains("is an input"), "{said}");
}

/// Clips with gaps, cuts and rates of their own.
fn detections(clips: u32) -> String {
    let mut text = String::new();
    for clip in 0..clips {
        for frame in (1..=40u32).filter(|frame| (frame + clip) % 5 != 0) {
            let x = 10 + 3 * frame;
            let cut = if frame == 20 + u32::from(clip % 5 == 0) { r#""cut":true,"# } else { "" };
            let fps = if clip % 2 == 0 { r#""fps":29.97,"# } else { "" };
            writeln!(
                text,
                r#"{{"video":"clip {clip}","frame":{frame},"width":640,"height":480,{fps}{cut}"objects":[{{"xyxy":[{x},10,{},60],"score":0.9,"category":"ball"}}]}}"#,
                x + 30
            )
            .unwrap();
        }
    }
    text
}

#[test]
fn shards_joined_are_the_bytes_of_the_whole_and_gaps_are_frames() {
    let bench = Bench::new();
    let input = bench.file("det.jsonl", detections(7));
    let whole = bench.path("whole.jsonl");
    assert_eq!(track(&input, &whole, &[]).0, 0);
    let mut joined = Vec::new();
    for part in ["0/3", "1/3", "2/3"] {
        let output = bench.path("part.jsonl");
        assert_eq!(track(&input, &output, &["--shard", part]).0, 0);
        joined.extend(std::fs::read(&output).unwrap());
    }
    assert_eq!(joined, std::fs::read(&whole).unwrap());
    let tracks = read_tracks(&whole).unwrap();
    assert_eq!(tracks.len(), 7);
    for (clip, fps) in tracks.iter().zip([29.97, 30.0].into_iter().cycle()) {
        // The last line of every fifth clip is frame 39.
        let frames = if ["clip 0", "clip 5"].contains(&clip.video.as_str()) { 39 } else { 40 };
        assert_eq!((clip.frames, clip.fps, clip.tracks.len()), (frames, fps, 2), "{}", clip.video);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_far_frame_takes_no_memory() {
    let bench = Bench::new();
    let clip = |n: u32| {
        format!(
            r#"{{"video":"{n}","frame":10000000,"width":640,"height":480,"objects":[{{"xyxy":[1,1,50,60],"score":0.9,"category":"ball"}}]}}"#
        )
    };
    let text: String = (0..2).map(|n| clip(n) + "\n").collect();
    let input = bench.file("det.jsonl", text);
    // Kilobytes of address space; 24 bytes a frame would be half a gigabyte more.
    let limited = format!(
        "ulimit -v 400000; exec {UTR_TRAIN} track --detections {} --output {}",
        input.display(),
        bench.path("out.jsonl").display()
    );
    let done = Command::new("sh").args(["-c", &limited]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success() && said.contains("20000000 frames"), "{said}");
}
