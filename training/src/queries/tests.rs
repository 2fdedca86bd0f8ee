//! Conversations over a hand-made clip: every statement is checked against the tracks.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::trajectory::{parse_all, quantize_box};
use super::*;

/// A ball crossing to the right, a box that hops twice, and a far star that blinks once and is not seen meanwhile.
fn clip() -> ClipTracks {
    let boxes = |at: &dyn Fn(f32) -> [f32; 2], skip: std::ops::Range<u32>| {
        (1..=32u32)
            .filter(|f| !skip.contains(f))
            .map(|frame| {
                let [x, y] = at(frame as f32);
                TrackBox { frame, xyxy: [x, y, x + 12.0, y + 12.0], score: 1.0 }
            })
            .collect()
    };
    let action = |start, end, text: &str| TrackAction { start, end, text: text.into() };
    let track = |id, category: &str, appearance: &str, boxes, actions| Track {
        id,
        category: category.into(),
        appearance: appearance.into(),
        boxes,
        actions,
    };
    let tracks = vec![
        track(1, "ball", "small red", boxes(&|f| [f, 4.0], 0..0), vec![action(1, 32, "moves right")]),
        track(
            2,
            "box",
            "large blue",
            boxes(&|_| [20.0, 44.0], 0..0),
            vec![action(5, 6, "hops"), action(20, 21, "hops")],
        ),
        track(3, "star", "large red", boxes(&|_| [50.0, 26.0], 12..14), vec![action(12, 13, "blinks")]),
    ];
    ClipTracks { video: "c".into(), fps: 4.0, width: 64, height: 64, frames: 32, times_ms: vec![], tracks }
}

fn all_turns(query: QueryFrame) -> Vec<UtrTurn> {
    let clip = clip();
    let listing = Listing::default();
    (0..200).flat_map(|s| utr_turns(&clip, query, &listing, &mut ChaCha8Rng::seed_from_u64(s))).collect()
}

#[test]
fn every_answer_holds_the_whole_trajectory_of_the_object_asked_about() {
    let clip = clip();
    for utr in all_turns(QueryFrame::Random) {
        let track = clip.tracks.iter().find(|t| t.id == utr.track).unwrap();
        let found = parse_all(&utr.turn.answer).unwrap();
        let [t] = found.as_slice() else { panic!("one trajectory: {}", utr.turn.answer) };
        assert_eq!(t.name, scene::short_name(&clip, track));
        let listed: Vec<u32> = t.points.iter().map(|(f, _)| *f).collect();
        let expected: Vec<u32> = (1..=32).step_by(4).filter(|f| track.at(*f).is_some()).collect();
        assert_eq!(listed, expected, "{}", utr.turn.answer);
        for (frame, b) in &t.points {
            assert_eq!(*b, quantize_box(track.at(*frame).unwrap().xyxy, 64, 64, 20));
        }
        for action in &track.actions {
            assert!(utr.turn.answer.contains(&action.text), "{}", utr.turn.answer);
        }
    }
}

#[test]
fn every_attribute_is_asked_and_frames_are_spread_over_the_clip() {
    let turns = all_turns(QueryFrame::Random);
    for attribute in Attribute::OF_FRAMES {
        assert!(turns.iter().any(|t| t.attribute == attribute), "{attribute:?}");
    }
    let late = turns.iter().filter(|t| t.frame > 16).count() as f64 / turns.len() as f64;
    assert!((late - 0.5).abs() < 0.1, "{late}");
}

#[test]
fn a_first_frame_query_looks_only_ahead() {
    assert!(all_turns(QueryFrame::First).iter().all(|t| t.frame == 1));
}

#[test]
fn an_identity_keeps_its_number_and_others_are_called_one() {
    for utr in all_turns(QueryFrame::Random) {
        let id = parse_all(&utr.turn.answer).unwrap()[0].id;
        let expected = if utr.attribute == Attribute::Identity { utr.track } else { 1 };
        assert_eq!(id, expected, "{:?}", utr.turn);
        assert!(utr.turn.question.contains(&format!("<id{id}>")), "{}", utr.turn.question);
    }
}

#[test]
fn a_hint_that_two_objects_share_is_not_given() {
    let mut clip = clip();
    // The star now stands on the box and hops with it.
    let twin = clip.tracks[1].clone();
    clip.tracks[2].boxes = twin.boxes;
    clip.tracks[2].actions = twin.actions;
    for seed in 0..100 {
        for utr in
            utr_turns(&clip, QueryFrame::Random, &Listing::default(), &mut ChaCha8Rng::seed_from_u64(seed))
        {
            assert!(utr.track == 1 || utr.attribute == Attribute::Appearance, "{utr:?}");
        }
    }
}

#[test]
fn captions_tell_objects_and_events_in_order() {
    let clip = clip();
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let told = caption::clip_caption(&clip, rng).unwrap().answer;
    assert_eq!(
        told,
        "A small red ball moves right. A large blue box hops from frame5: to frame6:, then hops from frame20: to \
         frame21:. A large red star blinks from frame12: to frame13:."
    );
    let events = caption::events(&clip, rng).unwrap().answer;
    assert_eq!(events, "The blue box hops, then the red star blinks, then the blue box hops.");
    let frame = caption::frame_caption(&clip, 12, &Listing::default(), rng).answer;
    assert!(!frame.contains("star") && frame.contains("a small red ball at [180,60,380,260]"), "{frame}");
}

#[test]
fn instructions_agree_with_the_tracks() {
    let clip = clip();
    let mut sides = [0, 0];
    for seed in 0..300 {
        for turn in caption::instructions(&clip, &Listing::default(), &mut ChaCha8Rng::seed_from_u64(seed)) {
            let frame: u32 = turn
                .question
                .split("frame")
                .nth(1)
                .and_then(|s| s.split(':').next()?.parse().ok())
                .unwrap_or(1);
            if turn.question.contains("How many") || turn.question.contains("Count") {
                let seen = clip.tracks.iter().filter(|t| t.at(frame).is_some()).count();
                assert_eq!(turn.answer, ["zero", "one", "two", "three"][seen]);
            }
            if turn.question.starts_with("Is the red star right of the blue box") {
                assert_eq!(turn.answer, "yes");
            }
            if turn.question.starts_with("Is the") {
                sides[usize::from(turn.answer == "yes")] += 1;
            }
            if turn.question.contains("star") && turn.question.contains("In which frames?") {
                assert_eq!(turn.answer, "From frame12: to frame13:.");
            }
            assert!(!(turn.question.contains("hops") && turn.question.contains("In which frames?")));
        }
    }
    let share = f64::from(sides[1]) / f64::from(sides[0] + sides[1]);
    assert!((share - 0.5).abs() < 0.12, "{sides:?}");
}

#[test]
fn names_are_as_short_as_they_can_be() {
    let mut clip = clip();
    assert_eq!(scene::short_name(&clip, &clip.tracks[0]), "red ball");
    clip.tracks[2].category = "ball".into();
    assert_eq!(scene::short_name(&clip, &clip.tracks[0]), "small red ball");
    assert!(scene::has_own_name(&clip, &clip.tracks[0]));
    clip.tracks[2].appearance = "small red".into();
    assert!(!scene::has_own_name(&clip, &clip.tracks[0]));
    assert_eq!(scene::with_article("orange box"), "an orange box");
}

#[test]
fn a_single_picture_has_one_box_a_track_and_only_what_covers_it() {
    let still = clip().sampled(1);
    let rng = &mut ChaCha8Rng::seed_from_u64(2);
    assert!(still.tracks.iter().flat_map(|t| &t.actions).all(|a| (a.start, a.end) == (1, 1)));
    for utr in utr_turns(&still, QueryFrame::Random, &Listing::default(), rng) {
        assert_eq!(parse_all(&utr.turn.answer).unwrap()[0].points.len(), 1);
    }
}
