//! What conversations say about tracks: short names, places in words, boxes on the grid, actions as sentences.
//!
//! Comes in: tracks. Goes out: phrases and the facts whether a phrase names exactly one object.
//! No question is posed here.

use super::conversation::Listing;
use super::tracks::{ClipTracks, Track, TrackAction, TrackBox};
use super::trajectory::{Trajectory, format_box, quantize_box};

/// The nine places of a frame, rows from the top.
const PLACES: [[&str; 3]; 3] = [
    ["top left", "top", "top right"],
    ["left", "middle", "right"],
    ["bottom left", "bottom", "bottom right"],
];

/// How far, in shares of a side, a centre keeps from a line between two places to be named by a place.
const PLACE_MARGIN: f32 = 0.04;

/// The shortest ending of the track's full name that no other track shares: at least the category with the word
/// before it (`red ball`). Two tracks with equal names both keep the full one.
pub fn short_name(clip: &ClipTracks, track: &Track) -> String {
    let full = track.name();
    let words: Vec<&str> = full.split(' ').collect();
    let others: Vec<String> = clip.tracks.iter().filter(|t| t.id != track.id).map(Track::name).collect();
    let shared = |ending: &str| {
        let rest =
            |name: &String| name.strip_suffix(ending).is_some_and(|r| r.is_empty() || r.ends_with(' '));
        others.iter().any(rest)
    };
    let shortest = (track.category.split(' ').count() + 1).min(words.len());
    (shortest..=words.len())
        .map(|n| words[words.len() - n..].join(" "))
        .find(|ending| !shared(ending))
        .unwrap_or(full)
}

/// What stands still is told, but is no hint: scenery stands still too.
pub const STILL: &str = "stands still";

/// Whether one could be called by the other's name: the same category, and the looks of one hold those of the other.
pub fn could_be(a: &Track, b: &Track) -> bool {
    let holds = |text: &str, part: &str| {
        part.split_whitespace().all(|word| text.split_whitespace().any(|other| same_word(word, other)))
    };
    let both = |a: &str, b: &str| [holds(a, b), holds(b, a)];
    both(&a.category, &b.category) == [true; 2] && both(&a.appearance, &b.appearance) != [false; 2]
}

/// Letter case does not matter.
fn same_word(a: &str, b: &str) -> bool {
    a.chars().flat_map(char::to_lowercase).eq(b.chars().flat_map(char::to_lowercase))
}

/// Whether no other track could be called by the full name.
pub fn has_own_name(clip: &ClipTracks, track: &Track) -> bool {
    clip.tracks.iter().all(|t| t.id == track.id || !could_be(t, track))
}

/// `a small dotted red ball`, with the article its first letter wants.
pub fn with_article(name: &str) -> String {
    let vowel = name.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {name}", if vowel { "an" } else { "a" })
}

/// Centre of a box in shares of the frame's sides.
pub fn centre(clip: &ClipTracks, b: &TrackBox) -> [f32; 2] {
    let [x1, y1, x2, y2] = b.xyxy;
    [(x1 + x2) / 2.0 / clip.width as f32, (y1 + y2) / 2.0 / clip.height as f32]
}

/// The place in words, unless the centre is too near a line between two places.
pub fn place(clip: &ClipTracks, b: &TrackBox) -> Option<&'static str> {
    let [x, y] = centre(clip, b);
    let clear = |v: f32| [1.0 / 3.0, 2.0 / 3.0].iter().all(|line| (v - line).abs() >= PLACE_MARGIN);
    let third = |v: f32| ((v * 3.0) as usize).min(2);
    (clear(x) && clear(y)).then(|| PLACES[third(y)][third(x)])
}

/// The box as text on the listing's grid.
pub fn box_text(clip: &ClipTracks, b: &TrackBox, listing: &Listing) -> String {
    format_box(&quantize_box(b.xyxy, clip.width, clip.height, listing.grid))
}

/// The boxes that a listing takes.
pub fn listed<'t>(
    clip: &ClipTracks,
    track: &'t Track,
    listing: &Listing,
) -> impl Iterator<Item = &'t TrackBox> + use<'t> {
    let every = listing.every(clip.frames);
    track.boxes.iter().filter(move |b| (b.frame - 1).is_multiple_of(every))
}

/// The track's boxes in frames 1, 1+k, 1+2k, …, under the name and id it goes by in a conversation.
pub fn trajectory(clip: &ClipTracks, track: &Track, id: u32, listing: &Listing) -> Trajectory {
    let points = listed(clip, track, listing)
        .map(|b| (b.frame, quantize_box(b.xyxy, clip.width, clip.height, listing.grid)))
        .collect();
    Trajectory { name: short_name(clip, track), id, points }
}

/// Whether an action fills (nearly) the whole clip, so that its span is not worth saying.
pub fn lasts(clip: &ClipTracks, action: &TrackAction) -> bool {
    action.start <= 2 && action.end + 1 >= clip.frames
}

/// `moves left` or `hops from frame5: to frame8:`.
pub fn action_text(clip: &ClipTracks, action: &TrackAction) -> String {
    if lasts(clip, action) {
        return action.text.clone();
    }
    format!("{} {}", action.text, span_text(action))
}

/// `from frame5: to frame8:`, or `in frame5:`.
pub fn span_text(action: &TrackAction) -> String {
    if action.start == action.end {
        return format!("in frame{}:", action.start);
    }
    format!("from frame{}: to frame{}:", action.start, action.end)
}

/// `from 2.0 to 3.5 s` and how long the clip is: an action lasts from the time of its first frame to that of its last.
pub fn seconds_text(clip: &ClipTracks, action: &TrackAction) -> (String, String) {
    let [start, end, last] = [action.start, action.end, clip.frames].map(|f| clip.seconds(f));
    (format!("from {start:.1} to {end:.1} s"), format!("{last:.1} s"))
}

/// With more actions than this, a track's are told without their spans.
const MOST_SPANS: usize = 4;

/// All actions of a track as one phrase: `hops from …, then blinks from …`. Many of them are told once each, in the order
/// in which they first happen: `hops, then blinks, again and again`.
pub fn actions_text(clip: &ClipTracks, track: &Track) -> Option<String> {
    if track.actions.len() > MOST_SPANS {
        let mut distinct: Vec<&str> = Vec::new();
        for action in &track.actions {
            if !distinct.contains(&action.text.as_str()) {
                distinct.push(&action.text);
            }
        }
        let again = if distinct.len() < track.actions.len() { ", again and again" } else { "" };
        return Some(format!("{}{again}", distinct.join(", then ")));
    }
    let phrases: Vec<String> = track.actions.iter().map(|a| action_text(clip, a)).collect();
    (!phrases.is_empty()).then(|| phrases.join(", then "))
}

/// Tracks seen in `frame` with their boxes there, from left to right.
pub fn seen_in(clip: &ClipTracks, frame: u32) -> Vec<(&Track, &TrackBox)> {
    let mut seen: Vec<_> = clip.tracks.iter().filter_map(|t| t.at(frame).map(|b| (t, b))).collect();
    seen.sort_by(|a, b| (a.1.xyxy[0] + a.1.xyxy[2]).total_cmp(&(b.1.xyxy[0] + b.1.xyxy[2])));
    seen
}

/// Intersection over union of two pixel boxes.
pub fn iou(a: [f32; 4], b: [f32; 4]) -> f32 {
    let side = |lo: f32, hi: f32| (hi - lo).max(0.0);
    let area = |r: [f32; 4]| side(r[0], r[2]) * side(r[1], r[3]);
    let overlap = side(a[0].max(b[0]), a[2].min(b[2])) * side(a[1].max(b[1]), a[3].min(b[3]));
    overlap / (area(a) + area(b) - overlap).max(f32::EPSILON)
}
