//! Tests of [`super`]: samples follow from their seed, and ask only what they show.

use super::*;
use crate::queries::trajectory::parse_all;
use crate::world::{Split, clip_seed};

fn sample(index: u64, frames: usize) -> Sample {
    world_sample(clip_seed(Split::Train, index), false, &Mix::default(), &WorldConfig::full(), frames)
}

#[test]
fn a_seed_gives_the_same_sample_and_another_seed_another() {
    let (a, b, c) = (sample(3, 32), sample(3, 32), sample(4, 32));
    assert_eq!((&a.turns, &a.frames), (&b.turns, &b.frames));
    assert_ne!(a.frames, c.frames);
}

#[test]
fn clips_of_every_length_have_frames_and_questions_that_name_only_their_frames() {
    for index in 0..40 {
        let frames = [1, 2, 7, 16, 32][index as usize % 5];
        let sample = sample(index, frames);
        assert_eq!(sample.frames.len(), frames);
        assert!(sample.frames.iter().all(|f| f.width == 64 && f.height == 64));
        assert!(!sample.turns.is_empty());
        for turn in &sample.turns {
            assert!(!turn.question.is_empty() && !turn.answer.is_empty(), "{turn:?}");
            for trajectory in parse_all(&turn.answer).unwrap() {
                assert!(trajectory.points.iter().all(|(f, _)| (1..=frames as u32).contains(f)), "{turn:?}");
            }
        }
    }
}

#[test]
fn the_mix_decides_how_many_turns_there_are() {
    let mix = Mix { skill_turns: 3, utr_turns: 2, caption_turns: 1, instruction_turns: 1, ..Mix::default() };
    let counts = (0..30u64)
        .map(|i| world_sample(clip_seed(Split::Train, i), false, &mix, &WorldConfig::full(), 32).turns.len());
    let counts: Vec<usize> = counts.collect();
    assert!(counts.iter().all(|&n| (1..=7).contains(&n)), "{counts:?}");
    assert!(counts.iter().sum::<usize>() > 30 * 5, "{counts:?}");
}

#[test]
fn tracks_lie_in_the_frame_and_are_numbered_from_left_to_right() {
    for index in 0..20 {
        let script = generate(clip_seed(Split::Train, index), &WorldConfig::full());
        let clip = world_tracks(&script, "c", 64, 0, STEPS);
        assert_eq!((clip.frames, clip.fps), (32, 4.0));
        assert!(clip.tracks.iter().zip(1..).all(|(t, id)| t.id == id));
        for track in &clip.tracks {
            assert!(track.boxes.windows(2).all(|w| w[0].frame < w[1].frame));
            assert!(track.boxes.iter().all(|b| b.xyxy.iter().all(|v| (0.0..=64.0).contains(v))));
            assert!(track.actions.iter().all(|a| 1 <= a.start && a.start <= a.end && a.end <= 32));
        }
    }
}

#[test]
fn a_mix_refuses_unknown_keys() {
    assert!(toml::from_str::<Mix>("skill_turns = 2").is_ok());
    assert!(toml::from_str::<Mix>("skills_turns = 2").is_err());
}

#[test]
fn twins_are_asked_the_same_and_answer_differently() {
    let mix = Mix { skill_turns: 1, pair_share: 1.0, skills: vec![Skill::EventOrder], ..Mix::default() };
    for i in 0..20 {
        let twin = |twin| world_sample(clip_seed(Split::Train, i), twin, &mix, &WorldConfig::full(), 32);
        let [a, b] = [twin(false), twin(true)].map(|sample| sample.turns[0].clone());
        assert_eq!(a.question, b.question);
        assert_ne!(a.answer, b.answer);
    }
}

#[test]
fn a_short_piece_shows_what_its_clip_was_made_for() {
    let mix = Mix { skill_turns: 1, pair_share: 1.0, skills: vec![Skill::Direction], ..Mix::default() };
    let config = WorldConfig::full();
    let asks = |i| {
        let sample = world_sample(clip_seed(Split::Train, i), false, &mix, &config, 8);
        ["left", "right", "up", "down"]
            .iter()
            .any(|way| sample.turns[0].answer.contains(way) || sample.turns[0].question.contains(way))
    };
    assert!((0..30).filter(|&i| asks(i)).count() >= 29);
}

/// Prints what a sample says and how fast samples are made; run with `--nocapture`.
#[test]
fn samples_are_made_fast() {
    for turn in sample(1, 32).turns.iter().chain(&sample(2, 1).turns) {
        println!("Q: {}\nA: {}", turn.question, turn.answer);
    }
    let started = std::time::Instant::now();
    let turns: usize = (100..200).map(|i| sample(i, 32).turns.len()).sum();
    let seconds = started.elapsed().as_secs_f64();
    println!("{:.0} samples/s on one core, {:.1} turns each", 100.0 / seconds, turns as f64 / 100.0);
}
