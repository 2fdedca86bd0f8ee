//! From boxes with ids to tracks: what an object is, how it looks, what it does and when.
//!
//! Comes in: a clip's detections and, per frame, the tracks that stand on them. Goes out: [`ClipTracks`], tracks in the order of their first
//! frame, then from left to right. Category and appearance are what most of the boxes say, weighed by their scores; an action lasts while the boxes
//! say it. Where no expert names looks or deeds they are taken from captions, and deeds at last from the way the boxes go (`deeds`). Which tracks are worth
//! keeping is decided in `filter`.

use std::collections::{BTreeMap, HashMap};

use super::Seen;
use super::caption::{deed, look};
use super::deeds::deeds;
use super::detections::{ClipObjects, Object};
use super::frames::Frames;
use crate::queries::{ClipTracks, Track, TrackAction, TrackBox};

/// Looks without a word about an action that do not end it.
const SILENCE: u32 = 2;
/// Frames that an action must be said in.
const LEAST_SAID: usize = 2;

/// The tracks of a clip; `seen` is what the tracker saw in its frames, `fps` is the clip's.
pub fn merge(clip: &ClipObjects, seen: &Frames<Seen>, fps: f64) -> ClipTracks {
    let mut members: BTreeMap<u32, Vec<(u32, &Seen, &Object)>> = BTreeMap::new();
    for (number, seen) in seen.items() {
        if let Some(object) = clip.frames.at(number).get(seen.detection) {
            members.entry(seen.id).or_default().push((number, seen, object));
        }
    }
    let mut tracks: Vec<Track> = members.into_iter().map(|(id, list)| track(clip, id, &list, fps)).collect();
    tracks.retain(|t| !t.boxes.is_empty());
    let place = |t: &Track| t.boxes.first().map_or((0, 0.0), |b| (b.frame, b.xyxy[0] + b.xyxy[2]));
    tracks.sort_by(|a, b| {
        let (a, b) = (place(a), place(b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    ClipTracks {
        video: clip.video.clone(),
        fps,
        width: clip.width,
        height: clip.height,
        frames: clip.frames.len(),
        times_ms: clip.times_ms.clone(),
        tracks,
    }
}

fn track(clip: &ClipObjects, id: u32, members: &[(u32, &Seen, &Object)], fps: f64) -> Track {
    let (width, height) = (clip.width as f32, clip.height as f32);
    let boxes = members.iter().map(|(frame, seen, _)| {
        let [x, y, w, h] = seen.tlwh.map(|v| v as f32);
        let inside = [
            x.clamp(0.0, width),
            y.clamp(0.0, height),
            (x + w).clamp(0.0, width),
            (y + h).clamp(0.0, height),
        ];
        TrackBox { frame: *frame, xyxy: inside, score: seen.score as f32 }
    });
    // A filtered box may lie outside the frame altogether; such a one shows nothing.
    let boxes = boxes.filter(|b| b.xyxy[2] > b.xyxy[0] && b.xyxy[3] > b.xyxy[1]);
    let boxes = filled(boxes.collect(), clip.every);
    let said = |word: &dyn Fn(&Object) -> Option<String>| {
        let votes = members.iter().filter_map(|(_, seen, object)| Some((word(object)?, seen.score)));
        vote(votes)
    };
    let caption = |o: &Object| look(o.caption.as_deref()?, &o.category);
    let mut actions = runs(members, clip.every, &|o| o.action.clone());
    if actions.is_empty() {
        actions = runs(members, clip.every, &|o| deed(o.caption.as_deref()?, &o.category));
    }
    if actions.is_empty() {
        actions = deeds(&boxes, [width, height], fps);
    }
    Track {
        id,
        category: said(&|o| Some(o.category.clone())).unwrap_or_default(),
        appearance: said(&|o| o.appearance.clone()).or_else(|| said(&caption)).unwrap_or_default(),
        boxes,
        actions,
    }
}

/// Boxes between two that follow each other at a distance of `every` frames lie evenly between them and are as sure as the less sure of the two.
fn filled(boxes: Vec<TrackBox>, every: u32) -> Vec<TrackBox> {
    let mut all: Vec<TrackBox> = Vec::with_capacity(boxes.len() * every as usize);
    for next in boxes {
        if let Some(last) = all.last().copied().filter(|last| next.frame - last.frame <= every) {
            all.extend((last.frame + 1..next.frame).map(|frame| {
                let share = (frame - last.frame) as f32 / (next.frame - last.frame) as f32;
                let between = |i: usize| last.xyxy[i] + share * (next.xyxy[i] - last.xyxy[i]);
                let xyxy = [0, 1, 2, 3].map(between);
                TrackBox { frame, xyxy, score: last.score.min(next.score) }
            }));
        }
        all.push(next);
    }
    all
}

/// The word with the largest sum of scores; of equals the first in the alphabet, so that the order of boxes does not matter.
fn vote(votes: impl Iterator<Item = (String, f64)>) -> Option<String> {
    let mut sums: HashMap<String, f64> = HashMap::new();
    votes.for_each(|(word, score)| *sums.entry(word).or_default() += score);
    sums.into_iter().max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0))).map(|(word, _)| word)
}

/// Runs of frames that say the same; short silences do not end one, a single word makes none.
fn runs(
    members: &[(u32, &Seen, &Object)],
    every: u32,
    word: &dyn Fn(&Object) -> Option<String>,
) -> Vec<TrackAction> {
    let mut found: Vec<(TrackAction, usize)> = Vec::new();
    let mut open: HashMap<String, usize> = HashMap::new();
    for (frame, _, object) in members {
        let Some(text) = word(object).filter(|text| !text.is_empty()) else { continue };
        match open.get(&text).map(|&place| &mut found[place]) {
            Some((action, said)) if frame - action.end <= (SILENCE + 1) * every => {
                (action.end, *said) = (*frame, *said + 1);
            }
            _ => {
                open.insert(text.clone(), found.len());
                found.push((TrackAction { start: *frame, end: *frame, text }, 1));
            }
        }
    }
    found.into_iter().filter(|(_, said)| *said >= LEAST_SAID).map(|(action, _)| action).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(x: f32, category: &str, action: Option<&str>) -> Object {
        Object {
            xyxy: [x, 0.0, x + 10.0, 10.0],
            score: 0.9,
            category: category.into(),
            appearance: Some("red".into()),
            action: action.map(String::from),
            caption: None,
        }
    }

    fn clip(words: &[(&str, Option<&str>)]) -> (ClipObjects, Frames<Seen>) {
        let seen = Seen { id: 7, tlwh: [-4.0, 0.0, 10.0, 10.0], score: 0.9, detection: 0 };
        let frames = (1..).zip(words.iter().map(|(c, a)| object(0.0, c, *a))).collect();
        let seen = (1..).zip(words.iter().map(|_| seen)).collect();
        let clip = ClipObjects {
            video: "v".into(),
            width: 64,
            height: 64,
            fps: None,
            cuts: Vec::new(),
            times_ms: Vec::new(),
            every: 1,
            frames,
        };
        (clip, seen)
    }

    #[test]
    fn frames_that_nobody_looked_at_are_filled_in_and_gaps_are_not() {
        let at = |frame: u32, x: f32| TrackBox { frame, xyxy: [x, 0.0, x + 8.0, 8.0], score: 0.5 };
        let all = filled(vec![at(1, 0.0), at(5, 8.0), at(13, 9.0)], 4);
        let frames: Vec<u32> = all.iter().map(|b| b.frame).collect();
        assert_eq!(frames, [1, 2, 3, 4, 5, 13]);
        assert_eq!((all[1].xyxy[0], all[3].xyxy[2]), (2.0, 14.0));
        assert_eq!(filled(vec![at(1, 0.0), at(3, 1.0)], 1).len(), 2);
    }

    #[test]
    fn the_majority_says_what_it_is() {
        let (clip, seen) = clip(&[("ball", None), ("box", None), ("ball", None)]);
        let tracks = merge(&clip, &seen, 8.0);
        assert_eq!((tracks.tracks[0].category.as_str(), tracks.frames), ("ball", 3));
        assert_eq!(tracks.tracks[0].boxes[0].xyxy, [0.0, 0.0, 6.0, 10.0]);
    }

    #[test]
    fn an_action_lasts_over_a_short_silence_and_a_single_word_is_none() {
        let left = Some("moves left");
        let words = [left, left, None, None, left, None, None, None, Some("stops"), None, left];
        let (clip, seen) = clip(&words.map(|w| ("ball", w)));
        let actions = merge(&clip, &seen, 8.0).tracks.remove(0).actions;
        assert_eq!(actions, [TrackAction { start: 1, end: 5, text: "moves left".into() }]);
    }
}
