//! What is judged of a clip and its tracks, before anything is said about them.
//!
//! Comes in: tracks, and what the clip measures. Goes out: in words, what cannot be: ids that occur twice, boxes without area, sizes and lengths that
//! differ. Conversations are judged in `audit`.

use super::html::{counted, number};
use crate::queries::ClipTracks;

/// What does not fit in the tracks of a clip: ids, boxes and spans that cannot be.
pub fn judge_tracks(clip: &ClipTracks) -> Vec<String> {
    let mut notes = Vec::new();
    let mut ids: Vec<u32> = clip.tracks.iter().map(|t| t.id).collect();
    ids.sort_unstable();
    ids.windows(2).filter(|w| matches!(w, [a, b] if a == b)).for_each(|w| {
        notes.extend(w.first().map(|id| format!("two tracks have the id {id}")));
    });
    for track in &clip.tracks {
        let id = track.id;
        let flat = track.boxes.iter().filter(|b| {
            let [x1, y1, x2, y2] = b.xyxy;
            !(x2 > x1 && y2 > y1)
        });
        let flat = flat.count();
        if flat > 0 {
            notes.push(format!("track {id}: {} without area", counted_boxes(flat)));
        }
        let outside = track.boxes.iter().filter(|b| !(1..=clip.frames).contains(&b.frame)).count();
        if outside > 0 {
            notes.push(format!("track {id}: {} outside frames 1 to {}", counted_boxes(outside), clip.frames));
        }
        if track.boxes.windows(2).any(|w| matches!(w, [a, b] if a.frame >= b.frame)) {
            notes.push(format!("track {id}: boxes are not in the order of their frames"));
        }
        for action in track.actions.iter().filter(|a| a.start > a.end || a.start < 1 || a.end > clip.frames) {
            notes.push(format!(
                "track {id}: \"{}\" from frame {} to {} does not lie in frames 1 to {}",
                action.text, action.start, action.end, clip.frames
            ));
        }
    }
    notes
}

fn counted_boxes(n: usize) -> String {
    if n == 1 { "1 box".to_owned() } else { format!("{n} boxes") }
}

/// What does not fit between a clip and its tracks.
pub fn judge_shape(
    tracks: &ClipTracks,
    width: usize,
    height: usize,
    frames: usize,
    fps: Option<f64>,
) -> Vec<String> {
    let mut notes = Vec::new();
    if (tracks.width as usize, tracks.height as usize) != (width, height) {
        notes.push(format!(
            "the tracks are for {}×{} pixels, the clip has {width}×{height}",
            tracks.width, tracks.height
        ));
    }
    if tracks.frames as usize != frames {
        notes.push(format!(
            "the tracks count {}, the clip has {frames}",
            counted(tracks.frames as usize, "frame")
        ));
    }
    if let Some(fps) = fps.filter(|fps| (fps - tracks.fps).abs() > 0.02 * fps) {
        let (theirs, fps) = (number(tracks.fps, 3), number(fps, 3));
        notes.push(format!("the tracks say {theirs} frames a second, the clip has {fps}"));
    }
    notes
}
