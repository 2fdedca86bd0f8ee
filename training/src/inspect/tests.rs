//! Tests of what is said, judged and drawn; the pages as files are tested with the program.

use proptest::prelude::*;

use super::audit::{About, Dialogue, Measure, judge};
use super::html::{escape, file_names, number, percent, shortened};
use super::shape::{judge_shape, judge_tracks};
use super::strip::{self, Footage, Tile};
use super::talk::{marked, mentions};
use super::timeline::{self, Label, NARROWEST, Query, rows};
use crate::queries::llava::{Media, Record};
use crate::queries::{ClipTracks, Listing, Track, TrackAction, TrackBox, scene};
use crate::sample::Turn;

fn track(id: u32, frames: std::ops::RangeInclusive<u32>, left: f32) -> Track {
    let boxes = frames
        .map(|frame| {
            let x = left + 2.0 * frame as f32;
            TrackBox { frame, xyxy: [x, 10.0, x + 20.0, 40.0], score: 0.5 }
        })
        .collect();
    Track { id, category: "ball".into(), appearance: String::new(), boxes, actions: Vec::new() }
}

fn clip(tracks: Vec<Track>) -> ClipTracks {
    ClipTracks {
        video: "a.mp4".into(),
        fps: 8.0,
        width: 200,
        height: 100,
        frames: 32,
        times_ms: Vec::new(),
        tracks,
    }
}

fn record(answer: String, meta: serde_json::Value) -> Record {
    let question = "Find it. Track it every 4 frames, then say what it does.".to_owned();
    let turns = vec![Turn { question, answer }];
    Record { id: "a".into(), media: Media::Video("a.mp4".into()), turns, meta: Some(meta) }
}

fn judged(answer: &str, meta: serde_json::Value) -> Dialogue {
    judged_record(&record(answer.to_owned(), meta))
}

/// Judged by a clip with the tracks 3 and 5.
fn judged_record(record: &Record) -> Dialogue {
    let clip = clip(vec![track(3, 1..=32, 0.0), track(5, 9..=20, 90.0)]);
    let source: Vec<u32> = (1..=32).map(|n| 2 * n - 1).collect();
    judge(record, &Measure { clip: Some(&clip), source: &source, frames: 32, tolerance: 11 })
}

fn utr(track: u32, frame: u32) -> serde_json::Value {
    serde_json::json!({"task": "utr", "query_attribute": "action", "query_frame": frame, "track_ids": [track]})
}

/// What the generator answers about track 5.
fn answer() -> String {
    let clip = clip(vec![track(5, 9..=20, 90.0)]);
    format!("{} moves right.", scene::trajectory(&clip, &clip.tracks[0], 1, &Listing::default()))
}

#[test]
fn what_the_generator_says_has_no_finding_and_its_changes_do() {
    assert_eq!(
        answer(),
        "ball<id1>frame9:[540,100,640,400];frame13:[580,100,680,400];frame17:[620,100,720,400]</id1> moves right."
    );
    let good = judged(&answer(), utr(5, 10));
    assert!(good.findings.is_empty() && good.trajectories == 1, "{:?}", good.findings);
    for (from, to, words) in [
        ("frame13", "frame12", "frame13 is left out"),
        ("frame13:[580", "frame13:[500", "frame13 is 80 thousandths off"),
        ("frame9", "frame5", "frame5 has no box"),
        (";frame17:[620,100,720,400]", "", "frame17 is left out"),
        ("</id1>", "", "cannot be read"),
    ] {
        let bad = judged(&answer().replace(from, to), utr(5, 10));
        assert!(bad.disagrees() && bad.findings[0].text.contains(words), "{words}: {:?}", bad.findings);
    }
    let other = judged(&answer(), utr(3, 10));
    assert!(other.disagrees() && other.findings[0].text.contains("track 3"), "{:?}", other.findings);
    assert_eq!(other.wrong.len(), 3);
}

#[test]
fn without_meta_the_track_that_fits_is_found() {
    let good = judged(&answer(), serde_json::Value::Null);
    assert!(good.findings.is_empty() && good.task == "unknown", "{good:?}");
    let bad = judged(&answer().replace("580,100", "380,100"), serde_json::json!({"other": 1.5, "deep": {}}));
    assert!(bad.findings[0].text.contains("any track; the nearest is track 5"), "{:?}", bad.findings);
    assert_eq!(bad.more, [("other".to_owned(), "1.5".to_owned())]);
}

#[test]
fn queries_that_cannot_be_are_found() {
    for (meta, words) in [
        (utr(5, 40), "frames go from 1 to 32"),
        (utr(5, 3), "at frame3, where it has no box"),
        (utr(7, 3), "track 7, which has no box"),
    ] {
        let found = judged("It moves.", meta);
        assert!(!found.disagrees());
        assert!(found.findings.iter().any(|f| f.about == About::Other && f.text.contains(words)), "{words}");
    }
    let mut asked = record("It moves.".into(), utr(5, 10));
    asked.turns[0].question = "What is at frame10:[550,100,650,400]?".into();
    assert!(judged_record(&asked).findings.is_empty());
    asked.turns[0].question = "What is at frame10:[580,100,650,400]?".into();
    let found = judged_record(&asked);
    assert!(found.findings[0].text.contains("frame10 is 30 thousandths off"), "{:?}", found.findings);
}

#[test]
fn turns_about_several_objects_and_absent_ones_are_judged_by_their_tracks() {
    let turn = |question: &str, answer: &str| Turn { question: question.into(), answer: answer.into() };
    let mut both = record(
        answer(),
        serde_json::json!({"query_frame": 10, "track_ids": [5, 3], "turns": ["utr", "place", "utr"]}),
    );
    both.turns.push(turn("Where is <id1> in frame12:?", "frame12:[570,100,670,400]"));
    both.turns.push(turn(
        "What is at frame2:[20,100,120,400]?",
        "ball<id2>frame1:[10,100,110,400];frame2:[20,100,120,400]</id2>.",
    ));
    let good = judged_record(&both);
    assert!(good.findings.is_empty(), "{:?}", good.findings);
    assert_eq!((good.trajectories, good.more[0].1.as_str()), (2, "utr, place, utr"));
    both.turns[1].answer = "frame12:[470,100,570,400]".into();
    let bad = judged_record(&both);
    assert!(
        bad.disagrees() && bad.findings[0].text.contains("frame12 is 100 thousandths off"),
        "{:?}",
        bad.findings
    );

    let absent =
        |frame: u32| serde_json::json!({"task": "absent-in-frame", "query_frame": frame, "track_ids": [5]});
    assert!(judged(&format!("It is not seen in frame3:. {}", answer()), absent(3)).findings.is_empty());
    assert!(
        judged(&answer(), absent(10)).findings[0].text.contains("is absent at frame10, where it has a box")
    );
}

#[test]
fn another_numbering_of_frames_is_found() {
    let meta = |frames: u32, source: u32| {
        let mut meta = utr(5, 10);
        meta["frames"] = frames.into();
        meta["source_frame"] = source.into();
        meta
    };
    assert!(judged(&answer(), meta(32, 19)).findings.is_empty());
    assert!(judged(&answer(), meta(16, 19)).findings[0].text.contains("use --frames 16"));
    assert!(judged(&answer(), meta(32, 20)).findings[0].text.contains("frame 20 of the clip, which is 19"));
}

#[test]
fn tracks_that_cannot_be_are_found() {
    let mut odd = clip(vec![track(1, 1..=3, 0.0), track(1, 30..=33, 0.0)]);
    odd.tracks[0].boxes[1].xyxy = [5.0, 5.0, 5.0, 9.0];
    odd.tracks[0].boxes.swap(0, 2);
    odd.tracks[1].actions.push(TrackAction { start: 5, end: 60, text: "hops".into() });
    let notes = judge_tracks(&odd).join("\n");
    for words in ["two tracks have the id 1", "1 box without area", "1 box outside", "order", "\"hops\""] {
        assert!(notes.contains(words), "{words}: {notes}");
    }
    assert!(judge_tracks(&clip(vec![track(1, 1..=32, 0.0)])).is_empty());
    assert!(judge_shape(&odd, 200, 100, 32, Some(8.0)).is_empty());
    assert_eq!(judge_shape(&odd, 100, 100, 31, Some(25.0)).len(), 3);
}

#[test]
fn frames_are_found_in_texts_and_forms_are_not() {
    let text = "ball<id1>frame1:[0,20,40,60];frame5:[1, 2,3,4]</id1> hops from frame7: on, name<id1>frame1:[box]; frames frame";
    let found: Vec<_> = mentions(text).into_iter().map(|m| (m.frame, m.area)).collect();
    assert_eq!(found, [(1, Some([0, 20, 40, 60])), (5, Some([1, 2, 3, 4])), (7, None)]);
    let again = marked("frame5:[1,2,3,4] in frame7", &[], None);
    assert_eq!(again, "<span class=\"at boxed\">frame5:[1,2,3,4]</span> in <span class=\"at\">frame7</span>");
    let text = "Which object has the box [1,2,3,4] in frame28:? [box] in frame3, [9] in frame4";
    let found: Vec<_> = mentions(text).into_iter().map(|m| (&text[m.range], m.area)).collect();
    assert_eq!(found, [("[1,2,3,4] in frame28", Some([1, 2, 3, 4])), ("frame3", None), ("frame4", None)]);
    let html = marked("<b>frame5:[1,2,3,4]</b>", &[(5, [1, 2, 3, 4])], None);
    assert_eq!(html, "&lt;b&gt;<mark><span class=\"at boxed\">frame5:[1,2,3,4]</span></mark>&lt;/b&gt;");
    let tile = Tile { numbers: (5, 6), source: 1, seconds: None, file: "a.jpg".into() };
    let footage = Footage { width: 1, height: 1, total: 1, fps: None, tiles: vec![tile] };
    let html = marked("frame6 frame7", &[], Some(&footage));
    assert_eq!(html, "<a class=\"at\" href=\"#f6\">frame6</a> <span class=\"at\">frame7</span>");
}

#[test]
fn hostile_text_is_shown_and_does_nothing() {
    let hostile = "<script>alert(\"1\")</script>&'\u{0}\n";
    assert_eq!(escape(hostile), "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#39;\u{fffd}\n");
}

#[test]
fn file_names_are_plain_and_unlike() {
    let names =
        ["clips/a.mp4", "clips-a.mp4", "B.mp4", "b.mp4", "../../etc/passwd", "", "ä \"<x>\"", "plain_1.mp4"];
    let files = file_names(&names.map(str::to_owned));
    assert_eq!(files[7], "plain_1.mp4");
    assert!(files[0].starts_with("clips-a.mp4-") && files[0] != files[1], "{files:?}");
    assert!(files[4].starts_with("etc-passwd-") && files[5].starts_with("clip-"), "{files:?}");
    assert_eq!(file_names(&["clips/a.mp4".to_owned()]), ["clips-a.mp4"]);
}

#[test]
fn numbers_are_short() {
    assert_eq!(["0.5", "0", "3", "-0.25"].map(|n| number(n.parse().unwrap(), 2)), ["0.5", "0", "3", "-0.25"]);
    assert_eq!((number(-0.001, 2), percent(1.0 / 3.0)), ("0".to_owned(), "33.33%".to_owned()));
    assert_eq!((shortened("abcdef", 4), shortened("abc", 4)), ("abc…".to_owned(), "abc".to_owned()));
}

#[test]
fn bars_break_where_boxes_do_and_blocks_stand_where_actions_are() {
    let mut gap = track(2, 1..=10, 0.0);
    gap.boxes.extend(track(2, 20..=32, 0.0).boxes);
    for (start, end, text) in [(1, 32, "moves left"), (5, 7, "hops"), (31, 32, "blinks")] {
        gap.actions.push(TrackAction { start, end, text: text.into() });
    }
    let clip = clip(vec![gap]);
    let row = &rows(&clip)[0];
    assert_eq!(row.segments, [(1, 10), (20, 32)]);
    let placed: Vec<_> = row.blocks.iter().map(|b| (b.lane, b.label)).collect();
    assert_eq!(placed, [(0, Label::On), (1, Label::On), (1, Label::Before)]);
    assert_eq!(row.lanes, 2);
    let query = Query { number: 4, frame: 8, track: Some(2), title: "asks".into() };
    let svg = timeline::svg(&clip, &rows(&clip), &[], &[query]);
    // Frames 1 to 10 of 32, and the middle of frame 8.
    assert!(svg.contains("x=\"0%\" y=\"43\" width=\"31.25%\""), "{svg}");
    assert!(svg.contains("class=\"ask q4 f8 t2\"") && svg.contains("x1=\"23.44%\""), "{svg}");
}

#[test]
fn names_that_leave_the_media_folder_are_refused() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("media")).unwrap();
    std::fs::write(root.path().join("secret.png"), b"x").unwrap();
    std::fs::write(root.path().join("media/a.png"), b"x").unwrap();
    let media = root.path().join("media");
    let absolute = root.path().join("secret.png");
    for name in ["../secret.png", "x/../../secret.png", absolute.to_str().unwrap()] {
        assert!(strip::locate(&media, name).unwrap_err().to_string().contains("leads out"), "{name}");
    }
    assert!(strip::locate(&media, "b.png").unwrap_err().to_string().contains("no such file"));
    assert!(strip::locate(&media, "./a.png").is_ok());
}

proptest! {
    #[test]
    fn escaped_text_has_no_markup(text in any::<String>()) {
        let safe = escape(&text);
        prop_assert!(!safe.contains(['<', '>', '"', '\'']));
        let entities = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"];
        prop_assert_eq!(safe.matches('&').count(), entities.iter().map(|e| safe.matches(e).count()).sum::<usize>());
    }

    #[test]
    fn file_names_are_safe_and_all_different(names in prop::collection::btree_set("[a-bA-B./<ä]{0,6}|.{0,200}", 0..20)) {
        let names: Vec<String> = names.into_iter().collect();
        let files = file_names(&names);
        let mut lower: Vec<String> = files.iter().map(|f| f.to_lowercase()).collect();
        lower.sort();
        lower.dedup();
        prop_assert_eq!(lower.len(), names.len());
        for file in files {
            prop_assert!(!file.is_empty() && !file.starts_with('.') && file.len() <= 100, "{}", file);
            prop_assert!(file.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)), "{}", file);
        }
    }

    #[test]
    fn blocks_and_labels_of_a_lane_never_meet(spans in prop::collection::vec((1u32..=32, 0u32..20, "[a-z ]{1,60}"), 0..24)) {
        let mut one = track(1, 1..=32, 0.0);
        one.actions = spans
            .into_iter()
            .map(|(start, more, text)| TrackAction { start, end: (start + more).min(32), text })
            .collect();
        let clip = clip(vec![one]);
        let row = &rows(&clip)[0];
        let per_frame = NARROWEST / 32.0;
        // Letters are at most 6.6 pixels wide on average and keep 5 pixels from their block.
        let extents = row.blocks.iter().map(|b| {
            let (left, right) = (f64::from(b.start - 1) * per_frame, f64::from(b.end) * per_frame);
            let wide = b.text.chars().count() as f64 * 6.6 + 5.0;
            match b.label {
                Label::On => (b.lane, left, right.max(left + wide)),
                Label::After => (b.lane, left, right + wide),
                Label::Before => (b.lane, left - wide, right),
            }
        });
        let extents: Vec<_> = extents.collect();
        for (n, a) in extents.iter().enumerate() {
            prop_assert!(a.1 >= -1e-6 && a.2 <= NARROWEST + 1e-6, "{:?}", a);
            for b in extents.iter().skip(n + 1).filter(|b| b.0 == a.0) {
                prop_assert!(a.2 <= b.1 + 1e-6 || b.2 <= a.1 + 1e-6, "{:?} {:?}", a, b);
            }
        }
    }
}
