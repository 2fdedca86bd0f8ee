//! Data sets over random tracks: every answer is read back and compared with the tracks it was made of.

use proptest::prelude::*;

use super::*;
use crate::queries::command::make;
use crate::queries::tracks::TrackAction;
use crate::queries::trajectory::{Trajectory, parse_all};

const WIDTH: u32 = 320;
const HEIGHT: u32 = 240;

fn plan() -> Plan {
    Plan {
        frames: 32,
        query: QueryFrame::Random,
        per_track: 2,
        boxes: vec![8, 16, 32],
        grid: 1,
        turns: 4,
        absent: 25,
        seed: 7,
    }
}

/// A walk with a gap, a name from outside, and an action.
fn any_track() -> impl Strategy<Value = Track> {
    let name = prop_oneof!["[a-z]{1,6}", "[a-z<>:;.\\[\\]{} ]{0,9}"];
    let look = prop_oneof!["", "(small|large) (red|blue|green)", "[a-z;<]{1,8}"];
    let walk = (0.0f32..250.0, 0.0f32..180.0, -2.0f32..2.0, 8.0f32..60.0);
    let span = (1u32..60, 20u32..100, 0u32..20);
    (name, look, walk, span, "[a-z ]{0,12}").prop_map(
        |(category, appearance, (x, y, pace, side), (first, length, gap), deed)| {
            let shown = |f: &u32| !(first + 10..first + 10 + gap).contains(f);
            let boxes = (first..=(first + length).min(100)).filter(shown).map(|frame| {
                let left = (x + pace * (frame - first) as f32).clamp(0.0, WIDTH as f32 - 2.0);
                let xyxy = [left, y, (left + side).min(WIDTH as f32), (y + side).min(HEIGHT as f32)];
                TrackBox { frame, xyxy, score: 0.8 }
            });
            let actions = vec![TrackAction { start: first, end: first + 9, text: deed }];
            Track { id: 0, category, appearance, boxes: boxes.collect(), actions }
        },
    )
}

fn any_clip() -> impl Strategy<Value = ClipTracks> {
    prop::collection::vec(any_track(), 0..6).prop_map(|mut tracks| {
        (1..).zip(&mut tracks).for_each(|(id, t)| t.id = id);
        ClipTracks {
            video: String::new(),
            fps: 25.0,
            width: WIDTH,
            height: HEIGHT,
            frames: 100,
            times_ms: vec![],
            tracks,
        }
    })
}

/// Clips with names of their own.
fn any_clips() -> impl Strategy<Value = Vec<ClipTracks>> {
    prop::collection::vec(any_clip(), 1..6).prop_map(|mut clips| {
        (1..).zip(&mut clips).for_each(|(n, clip)| clip.video = format!("{n}.mp4"));
        clips
    })
}

/// What a trajectory in an answer must be.
fn expected(clip: &ClipTracks, id: u32, listing: &Listing, under: u32) -> Trajectory {
    let mut real = clip.clone();
    real.tracks.iter_mut().for_each(clean);
    filter(&mut real, &Limits::default().of_noise());
    let sampled = real.sampled(32);
    let track = sampled.tracks.iter().find(|t| t.id == id).unwrap();
    scene::trajectory(&sampled, track, under, listing)
}

proptest! {
    #[test]
    fn answers_read_back_as_the_tracks(clips in any_clips()) {
        let (made, report) = make(clips.clone(), &plan(), &Limits::default(), "0/1".parse().unwrap());
        prop_assert_eq!(report.queries + report.absent, made.len());
        for conversation in &made {
            let meta = conversation.meta.as_ref().unwrap();
            let clip = clips.iter().find(|c| Some(&c.video) == conversation.video.as_ref()).unwrap();
            let ids: Vec<u32> = serde_json::from_value(meta["track_ids"].clone()).unwrap();
            let boxes = meta["boxes"].as_u64().unwrap() as u32;
            let answers: Vec<&str> =
                conversation.conversations.iter().filter(|m| m.from == "gpt").map(|m| m.value.as_str()).collect();
            let told: Vec<Trajectory> = answers.iter().flat_map(|a| parse_all(a).unwrap()).filter(|t| !t.points.is_empty()).collect();
            for trajectory in &told {
                let id = ids[trajectory.id as usize - 1];
                // A second object may be listed more or less densely than the first.
                let fits = [boxes, 8, 16, 32].iter().any(|most| {
                    let listing = Listing { grid: 1, max_listed: *most };
                    *trajectory == expected(clip, id, &listing, trajectory.id)
                });
                prop_assert!(fits, "{:?}", trajectory);
            }
            let task = meta["task"].as_str().unwrap();
            if task == "absent-object" {
                prop_assert!(told.is_empty() && answers.len() == 1);
            }
            if task == "utr" {
                let frame = meta["query_frame"].as_u64().unwrap() as u32;
                let source = meta["source_frame"].as_u64().unwrap() as u32;
                let track = clip.tracks.iter().find(|t| t.id == ids[0]).unwrap();
                prop_assert!(track.at(source).is_some());
                prop_assert_eq!(clip.sampled_frames(32)[frame as usize - 1], source);
            }
        }
    }

    #[test]
    fn any_number_of_shares_joins_to_the_same_data(clips in any_clips(), shares in 1usize..5) {
        let part = |i: usize, n: usize| make(clips.clone(), &plan(), &Limits::default(), format!("{i}/{n}").parse().unwrap()).0;
        let joined: Vec<Conversation> = (0..shares).flat_map(|i| part(i, shares)).collect();
        prop_assert_eq!(joined, part(0, 1));
    }
}

#[test]
fn first_frame_queries_stand_on_the_first_sight() {
    let boxes = (11..=90).map(|frame| TrackBox { frame, xyxy: [9.0, 9.0, 60.0, 60.0], score: 0.9 }).collect();
    let track =
        Track { id: 4, category: "dog".into(), appearance: String::new(), boxes, actions: Vec::new() };
    let clip = ClipTracks {
        video: "a.mp4".into(),
        fps: 25.0,
        width: WIDTH,
        height: HEIGHT,
        frames: 100,
        times_ms: vec![],
        tracks: vec![track],
    };
    let first = Plan { query: QueryFrame::First, absent: 0, ..plan() };
    let (made, _) = make(vec![clip], &first, &Limits::default(), "0/1".parse().unwrap());
    assert_eq!(made.len(), 2);
    // Sampled frames 1, 4, 7, 10, 13, …: the fifth is the first that shows it.
    assert!(made.iter().all(|c| c.meta.as_ref().unwrap()["query_frame"] == 5));
}

#[test]
fn world_clips_are_asked_evenly() {
    use crate::world::conversations::world_tracks;
    use crate::world::{STEPS, Split, WorldConfig, clip_seed, generate};
    let clip = |n: u64| {
        let script = generate(clip_seed(Split::Train, n), &WorldConfig::full());
        world_tracks(&script, &format!("{n}"), 256, 0, STEPS)
    };
    let clips: Vec<ClipTracks> = (0..60).map(clip).collect();
    let plan = Plan { per_track: 1, absent: 10, ..plan() };
    let (made, report) = make(clips, &plan, &Limits::default(), "0/1".parse().unwrap());
    let counts: Vec<usize> =
        Attribute::ALL.iter().map(|a| report.balance.attributes.get(a).copied().unwrap_or(0)).collect();
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(most * 10 <= least * 13, "{counts:?}");
    let quarters = report.balance.quarters;
    assert!(quarters.iter().max().unwrap() * 10 <= quarters.iter().min().unwrap() * 13, "{quarters:?}");
    let share = report.absent as f64 / made.len() as f64;
    assert!((share - 0.1).abs() < 0.05, "{share}");
}
