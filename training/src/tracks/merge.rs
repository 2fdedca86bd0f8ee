//! From boxes with ids to tracks: what an object is, how it looks, what it does and when.
//!
//! Comes in: a clip's detections and, per frame, the tracks that stand on them. Goes out: [`ClipTracks`], tracks in the order of their first
//! frame, then from left to right. Category and appearance are what most of the boxes say, weighed by their scores; an action lasts while the boxes
//! say it. Which tracks are worth keeping is decided in `filter`.

use std::collections::{BTreeMap, HashMap};

use super::Seen;
use super::detections::{ClipObjects, Object};
use super::frames::Frames;
use crate::queries::{ClipTracks, Track, TrackAction, TrackBox};

/// Frames without a word about an action that do not end it.
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
    let mut tracks: Vec<Track> = members.into_iter().map(|(id, list)| track(clip, id, &list)).collect();
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
        tracks,
    }
}

fn track(clip: &ClipObjects, id: u32, members: &[(u32, &Seen, &Object)]) -> Track {
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
    let said = |word: fn(&Object) -> Option<&str>| {
        let votes = members.iter().filter_map(|(_, seen, object)| Some((word(object)?, seen.score)));
        vote(votes).unwrap_or_default().to_owned()
    };
    Track {
        id,
        category: said(|o| Some(o.category.as_str())),
        appearance: said(|o| o.appearance.as_deref()),
        // A filtered box may lie outside the frame altogether; such a one shows nothing.
        boxes: boxes.filter(|b| b.xyxy[2] > b.xyxy[0] && b.xyxy[3] > b.xyxy[1]).collect(),
        actions: actions(members),
    }
}

/// The word with the largest sum of scores; of equals the first in the alphabet, so that the order of boxes does not matter.
fn vote<'a>(votes: impl Iterator<Item = (&'a str, f64)>) -> Option<&'a str> {
    let mut sums: HashMap<&str, f64> = HashMap::new();
    votes.for_each(|(word, score)| *sums.entry(word).or_default() += score);
    sums.into_iter().max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(a.0))).map(|(word, _)| word)
}

/// Runs of frames that say the same; short silences do not end one, a single word makes none.
fn actions(members: &[(u32, &Seen, &Object)]) -> Vec<TrackAction> {
    let mut found: Vec<(TrackAction, usize)> = Vec::new();
    let mut open: HashMap<&str, usize> = HashMap::new();
    for (frame, _, object) in members {
        let Some(text) = object.action.as_deref().filter(|text| !text.is_empty()) else { continue };
        match open.get(text).map(|&place| &mut found[place]) {
            Some((action, said)) if frame - action.end <= SILENCE + 1 => {
                (action.end, *said) = (*frame, *said + 1);
            }
            _ => {
                open.insert(text, found.len());
                found.push((TrackAction { start: *frame, end: *frame, text: text.to_owned() }, 1));
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
        (ClipObjects { video: "v".into(), width: 64, height: 64, fps: None, cuts: Vec::new(), frames }, seen)
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
