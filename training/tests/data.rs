//! A folder of anyone's videos to a data set, as a user meets it: one command, killed and started again, and clips of every bad sort among the good.
//!
//! In: the binaries that cargo built, world clips in H.264, clips that `gst-launch-1.0` makes. Out: a failure that shows what was found. What the motion
//! expert finds is judged elsewhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use utr_training::experts::command::Skipped;
use utr_training::files::read_jsonl;
use utr_training::queries::tracks::read_tracks;
use utr_training::train::recipe::Recipe;

const UTR_TRAIN: &str = env!("CARGO_BIN_EXE_utr-train");
/// Test pictures of GStreamer as H.264.
const ENCODE: &str = "x264enc speed-preset=ultrafast ! mp4mux ! filesink";

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(UTR_TRAIN);
    command.args(args).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    let output = command(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Three world clips.
fn world(folder: &Path) {
    let made = folder.with_extension("made");
    let fixed = ["world", "--clips", "3", "--split", "val", "--size", "160", "--frames-per-step", "4"];
    run(&[&fixed[..], &["--output", text(&made)]].concat());
    std::fs::rename(made.join("clips"), folder).unwrap();
}

/// A clip of a moving ball; `source` and `between` are pieces of a pipeline.
fn ball(path: &Path, source: &str, caps: &str, between: &str) {
    let pipeline = format!(
        "videotestsrc pattern=ball {source} ! video/x-raw,{caps},framerate=25/1 ! {between} {ENCODE} location={}",
        path.display()
    );
    let words: Vec<&str> = pipeline.split_whitespace().collect();
    let output = Command::new("gst-launch-1.0").arg("-q").args(words).output().unwrap();
    assert!(output.status.success() && path.exists(), "{pipeline}: {output:?}");
}

/// Every file below a folder with its bytes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => drop(
                    found.insert(path.strip_prefix(folder).unwrap().into(), std::fs::read(&path).unwrap()),
                ),
            }
        }
    }
    found
}

#[test]
fn a_folder_becomes_a_data_set_however_often_it_is_killed() {
    let root = tempfile::tempdir().unwrap();
    let videos = root.path().join("videos");
    world(&videos);
    let (whole, again) = (root.path().join("whole"), root.path().join("again"));
    let args =
        |output: &Path| ["data", "--videos", text(&videos), "--output", text(output)].map(String::from);
    let owned = args(&whole);
    run(&owned.each_ref().map(String::as_str));
    let expected = contents(&whole);
    for file in ["detections.jsonl", "tracks.jsonl", "data.jsonl", "data.card.md", "audit/index.html"] {
        assert!(expected.get(Path::new(file)).is_some_and(|bytes| !bytes.is_empty()), "{file}");
    }
    // Killed after ever longer times, until one run gets through.
    let owned = args(&again);
    let words = owned.each_ref().map(String::as_str);
    let mut killed = 0;
    for wait_ms in (0..).map(|n| 20 + 60 * n) {
        let mut child = command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(wait_ms));
        match child.try_wait().unwrap() {
            Some(status) => {
                assert!(status.success());
                break;
            }
            None => {
                child.kill().unwrap();
                child.wait().unwrap();
                killed += 1;
            }
        }
    }
    assert!(killed > 0, "no run was killed");
    // What a killed writer left under a temporary name is no result.
    let mut found = contents(&again);
    found.retain(|path, _| expected.contains_key(path));
    assert!(found == expected, "after {killed} kills: {:?}", found.keys().collect::<Vec<_>>());

    let other = command(&words).args(["--seed", "5"]).output().unwrap();
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(other.status.code() == Some(2) && said.contains("other settings"), "{said}");
}

#[test]
fn bad_and_odd_clips_are_handled_or_named_one_by_one() {
    let root = tempfile::tempdir().unwrap();
    let videos = root.path().join("videos");
    world(&videos);
    let at = |name: &str| videos.join(name);
    let small = "width=320,height=240";
    ball(&at("plain.mp4"), "num-buffers=60", small, "");
    ball(&at("one.mp4"), "num-buffers=1", small, "");
    ball(&at("uneven.mp4"), "num-buffers=90", small, "identity drop-probability=0.4 !");
    ball(&at("large.mp4"), "num-buffers=10", "width=3840,height=2160", "");
    let plain = std::fs::read(at("plain.mp4")).unwrap();
    std::fs::write(at("copy.mp4"), &plain).unwrap();
    std::fs::write(at("empty.mp4"), b"").unwrap();
    std::fs::write(at("noise.mp4"), [7u8; 4000]).unwrap();
    std::fs::write(at("cut.mp4"), &plain[..plain.len() / 2]).unwrap();
    let position = |kind: &[u8]| plain.windows(4).position(|w| w == kind).unwrap();
    // The track header's matrix, turned by 90 degrees.
    let mut rotated = plain.clone();
    let matrix = [0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x4000_0000i32];
    let place = position(b"tkhd") + 44;
    matrix.iter().enumerate().for_each(|(i, v)| {
        rotated[place + 4 * i..place + 4 * i + 4].copy_from_slice(&v.to_be_bytes());
    });
    std::fs::write(at("rotated.mp4"), &rotated).unwrap();
    let mut garbled = plain.clone();
    // To the end of the pictures: where the last ones can be read, a clip counts as whole.
    let end = if position(b"moov") > position(b"mdat") { position(b"moov") - 4 } else { plain.len() };
    let (from, to) = (position(b"mdat") + 2000, end);
    garbled[from..to].iter_mut().for_each(|byte| *byte ^= 0x5a);
    std::fs::write(at("garbled.mp4"), &garbled).unwrap();

    let output = root.path().join("set");
    run(&["data", "--videos", text(&videos), "--output", text(&output), "--audit", "0"]);
    let lost: Vec<Skipped> = read_jsonl(&output.join("detections.skipped.jsonl")).unwrap();
    let reason = |name: &str| lost.iter().find(|s| s.video == name).map_or("", |s| s.reason.as_str());
    for (name, words) in [
        ("empty.mp4", "empty"),
        ("noise.mp4", "reading frames from"),
        ("cut.mp4", "reading frames from"),
        ("garbled.mp4", "damaged or cut short"),
        ("plain.mp4", "same content as copy.mp4"),
    ] {
        assert!(reason(name).contains(words), "{name}: {lost:?}");
    }
    assert_eq!(lost.len(), 5, "{lost:?}");
    let clips = read_tracks(&output.join("tracks.jsonl")).unwrap();
    let clip =
        |name: &str| clips.iter().find(|c| c.video == name).unwrap_or_else(|| panic!("{name} is missing"));
    assert_eq!((clip("rotated.mp4").width, clip("rotated.mp4").height), (240, 320));
    assert_eq!((clip("one.mp4").frames, clip("large.mp4").width), (1, 3840));
    let uneven = clip("uneven.mp4");
    assert_eq!(uneven.times_ms.len(), uneven.frames as usize);
    assert!(uneven.times_ms.windows(2).any(|w| w[1] - w[0] > 41) && clip("copy.mp4").times_ms.is_empty());
    let card = std::fs::read_to_string(output.join("data.card.md")).unwrap();
    assert!(card.contains("garbled.mp4"), "{card}");
}

#[test]
fn an_expert_that_looks_at_every_fourth_frame_gives_nearly_the_same_tracks() {
    let root = tempfile::tempdir().unwrap();
    let made = root.path().join("world");
    let fixed = ["world", "--clips", "2", "--split", "val", "--size", "96", "--frames-per-step", "8"];
    run(&[&fixed[..], &["--encode", "frames", "--output", text(&made)]].concat());
    let tracks = |every: &str| {
        let (found, output) = (root.path().join("d.jsonl"), root.path().join("t.jsonl"));
        let expert = [
            "annotate",
            "--expert",
            "world",
            "--every",
            every,
            "--videos",
            text(&made),
            "--output",
            text(&found),
        ];
        run(&expert);
        run(&["track", "--detections", text(&found), "--output", text(&output)]);
        let lines = std::fs::read_to_string(&found).unwrap().lines().count();
        (read_tracks(&output).unwrap(), lines)
    };
    let ((each, all), (fourth, few)) = (tracks("1"), tracks("4"));
    assert_eq!((all, few), (2 * 249, 2 * 63));
    for (a, b) in each.iter().zip(&fourth) {
        assert_eq!((a.frames, b.frames, a.fps), (249, 249, b.fps));
        let boxes = |clip: &utr_training::queries::ClipTracks| {
            clip.tracks.iter().map(|t| t.boxes.len()).sum::<usize>()
        };
        let (a, b) = (boxes(a), boxes(b));
        assert!(b * 10 > a * 9 && b * 10 < a * 11, "{a} boxes, {b} where every fourth frame was looked at");
    }
}

/// The examples for clusters, without a cluster: three tasks of an array one after the other, then what joins them.
#[test]
fn the_slurm_example_gives_what_one_machine_gives() {
    let root = tempfile::tempdir().unwrap();
    let videos = root.path().join("videos");
    world(&videos);
    std::fs::write(videos.join("noise.mp4"), [7u8; 4000]).unwrap();
    std::fs::write(videos.join("z.mp4"), [7u8; 4001]).unwrap();
    let whole = root.path().join("whole");
    run(&["data", "--videos", text(&videos), "--output", text(&whole), "--audit", "2"]);
    let cluster = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster");
    let shared = root.path().join("shared");
    let bash = |script: &str, task: &str| {
        let path = format!(
            "{}:{}",
            Path::new(UTR_TRAIN).parent().unwrap().display(),
            std::env::var("PATH").unwrap()
        );
        let output = Command::new("bash")
            .arg(cluster.join(script))
            .env("PATH", path)
            .env("VIDEOS", &videos)
            .env("OUT", &shared)
            .env("SHARES", "3")
            .env("SLURM_ARRAY_TASK_ID", task)
            .env("SLURM_ARRAY_TASK_COUNT", "3")
            .env("AUDIT", "2")
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for task in ["2", "0"] {
        let (ok, said) = bash("annotate.sbatch", task);
        assert!(ok, "{said}");
    }
    let (ok, said) = bash("join.sh", "0");
    assert!(!ok && said.contains("share 1"), "{said}");
    assert!(bash("annotate.sbatch", "1").0);
    let (ok, said) = bash("join.sh", "0");
    assert!(ok, "{said}");
    for file in ["detections.jsonl", "detections.skipped.jsonl", "tracks.jsonl", "data.jsonl", "data.card.md"]
    {
        let read = |folder: &Path| std::fs::read(folder.join(file)).unwrap();
        assert!(read(&whole) == read(&shared.join("set")), "{file} differs");
    }
}

/// The example for training: each command in its head starts no more ranks than a stage of its recipe has micro-batches an update.
#[test]
fn the_slurm_example_starts_as_many_ranks_as_its_recipes_can_share() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = std::fs::read_to_string(folder.join("cluster/train.sbatch")).unwrap().replace("\\\n#", "");
    let words = |mark: &str, option: &str| -> Option<String> {
        let lines = script.lines().filter(|line| line.contains(mark));
        lines.flat_map(str::split_whitespace).find_map(|word| word.strip_prefix(option).map(String::from))
    };
    for recipe in ["recipes/nano.toml", "recipes/video-utr-7b.toml"] {
        let command = format!("RECIPE=training/{recipe}");
        assert!(words(&command, "OUT=").is_some(), "no command with {recipe}");
        // What a command does not say is said at the head.
        let number = |option: &str| -> usize {
            words(&command, option).or_else(|| words("#SBATCH", option)).unwrap().parse().unwrap()
        };
        let ranks = number("--nodes=") * number("--ntasks-per-node=");
        let stages = Recipe::load(&folder.join(recipe)).unwrap().stages;
        let most = stages.iter().map(|stage| stage.accumulate).min().unwrap();
        assert!((2..=most).contains(&ranks), "{ranks} ranks for {recipe}, which has work for {most}");
    }
}
