//! What is judged: whether conversations say what the tracks say.
//!
//! Comes in: conversations and the tracks of their clip, in the conversations' numbering of frames. Goes out: [`Dialogue`]s with what each was made from
//! and a [`Finding`] for each contradiction: a box in an answer that is not the track's, a frame left out, an object asked about that cannot be seen.
//! Words are not judged, and nothing is drawn.

use serde_json::Value;

use super::html::{counted, number};
use super::talk::mentions;
use crate::queries::llava::Record;
use crate::queries::trajectory::{GridBox, Trajectory, parse_all};
use crate::queries::{ClipTracks, Track};
use crate::sample::Turn;

/// Faults of one trajectory that are told one by one.
const MOST_TOLD: usize = 4;

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// An answer's trajectory is not that of its track.
    Answer,
    /// Anything else.
    Other,
}

/// Something that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub about: About,
    /// In words, for people.
    pub text: String,
}

/// A conversation with what it was made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Dialogue {
    /// The record's name.
    pub id: String,
    /// Questions and answers.
    pub turns: Vec<Turn>,
    /// `utr`, `caption`, …; `unknown` where the record does not say.
    pub task: String,
    /// What the question gives away.
    pub attribute: Option<String>,
    /// The queried frame, from 1.
    pub frame: Option<u32>,
    /// Ids of the tracks asked about.
    pub tracks: Vec<u32>,
    /// The rest of `meta` that is a word or a number.
    pub more: Vec<(String, String)>,
    /// Trajectories found in the answers.
    pub trajectories: usize,
    /// Frames and boxes in the text that contradict the tracks.
    pub wrong: Vec<(u32, GridBox)>,
    /// What does not fit.
    pub findings: Vec<Finding>,
}

impl Dialogue {
    /// Whether an answer's trajectory is not that of its track, or cannot be read.
    pub fn disagrees(&self) -> bool {
        self.findings.iter().any(|f| f.about == About::Answer)
    }
}

/// Judges a conversation. `clip` has as many frames as the conversation counts, `tolerance` is in thousandths of a side.
pub fn judge(record: &Record, clip: Option<&ClipTracks>, frames: u32, tolerance: u16) -> Dialogue {
    let mut dialogue = read_meta(record);
    let other = |text: String| Finding { about: About::Other, text };
    if let Some(frame) = dialogue.frame.filter(|frame| !(1..=frames).contains(frame)) {
        dialogue.findings.push(other(format!("asks at frame{frame}, but frames go from 1 to {frames}")));
    }
    let mut trajectories = Vec::new();
    for turn in &record.turns {
        match parse_all(&turn.answer) {
            Ok(found) => trajectories.extend(found.into_iter().map(|t| (t, stride(&turn.question)))),
            Err(error) => {
                let text = format!("an answer cannot be read: {error}");
                dialogue.findings.push(Finding { about: About::Answer, text });
            }
        }
    }
    dialogue.trajectories = trajectories.len();
    if let Some(clip) = clip {
        judge_query(&mut dialogue, clip, tolerance);
        judge_answers(&mut dialogue, clip, &trajectories, tolerance);
    }
    dialogue
}

fn read_meta(record: &Record) -> Dialogue {
    let field = |name: &str| record.meta.as_ref().and_then(|meta| meta.get(name));
    let word = |name: &str| field(name).and_then(Value::as_str).map(str::to_owned);
    let small = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
    let known = ["task", "query_attribute", "query_frame", "track_ids"];
    let rest = record.meta.as_ref().and_then(Value::as_object).into_iter().flatten();
    let more = rest.filter(|(name, _)| !known.contains(&name.as_str())).filter_map(|(name, value)| {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Number(n) => n.as_f64().filter(|_| n.is_f64()).map_or(n.to_string(), |v| number(v, 4)),
            Value::Bool(yes) => yes.to_string(),
            _ => return None,
        };
        Some((name.clone(), value))
    });
    Dialogue {
        id: record.id.clone(),
        turns: record.turns.clone(),
        task: word("task").unwrap_or_else(|| "unknown".into()),
        attribute: word("query_attribute"),
        frame: field("query_frame").and_then(small),
        tracks: field("track_ids")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(small)
            .collect(),
        more: more.collect(),
        trajectories: 0,
        wrong: Vec::new(),
        findings: Vec::new(),
    }
}

/// Whether what is asked about exists, can be seen where it is asked about, and lies where the question says.
fn judge_query(dialogue: &mut Dialogue, clip: &ClipTracks, tolerance: u16) {
    let mut found = Vec::new();
    for id in &dialogue.tracks {
        let Some(track) = clip.tracks.iter().find(|t| t.id == *id) else {
            found.push(format!("asks about track {id}, which has no box in the sampled frames"));
            continue;
        };
        if let Some(frame) = dialogue.frame.filter(|frame| track.at(*frame).is_none()) {
            found.push(format!("asks about track {id} at frame{frame}, where it has no box"));
        }
    }
    if let [id] = dialogue.tracks.as_slice()
        && let Some(track) = clip.tracks.iter().find(|t| t.id == *id)
    {
        for turn in &dialogue.turns {
            for (frame, area) in mentions(&turn.question).into_iter().filter_map(|m| Some((m.frame, m.area?)))
            {
                let Some(fault) = Fault::find(track, clip, frame, &area, tolerance) else { continue };
                found.push(format!("the question's box does not agree with track {id}: {}", fault.words()));
                dialogue.wrong.push((frame, area));
            }
        }
    }
    dialogue.findings.extend(found.into_iter().map(|text| Finding { about: About::Other, text }));
}

/// A frame in which an answer and a track differ.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    /// The answer's box is so many thousandths from the track's.
    Off(u32, u16),
    /// The answer has a box where the track has none.
    Unseen(u32),
    /// The answer has no box where the track has one and it should be listed.
    LeftOut(u32),
}

impl Fault {
    /// What is wrong with saying that the track's box at `frame` is `area`.
    fn find(track: &Track, clip: &ClipTracks, frame: u32, area: &GridBox, tolerance: u16) -> Option<Fault> {
        let Some(seen) = track.at(frame) else { return Some(Fault::Unseen(frame)) };
        let sides = [clip.width, clip.height, clip.width, clip.height];
        let off = seen.xyxy.iter().zip(sides).zip(area).map(|((pixels, side), said)| {
            let exact = (pixels / side.max(1) as f32 * 1000.0).clamp(0.0, 1000.0);
            (exact - f32::from(*said)).abs()
        });
        let off = off.fold(0.0, f32::max);
        (off > f32::from(tolerance)).then_some(Fault::Off(frame, off.round() as u16))
    }

    fn words(&self) -> String {
        match self {
            Fault::Off(frame, off) => format!("frame{frame} is {off} thousandths off"),
            Fault::Unseen(frame) => format!("frame{frame} has no box"),
            Fault::LeftOut(frame) => format!("frame{frame} is left out"),
        }
    }
}

fn judge_answers(
    dialogue: &mut Dialogue,
    clip: &ClipTracks,
    trajectories: &[(Trajectory, Option<u32>)],
    tolerance: u16,
) {
    // One track for each trajectory, where the record says which.
    let named = dialogue.tracks.len() == trajectories.len();
    for (place, (trajectory, stride)) in trajectories.iter().enumerate() {
        let faults = |track: &Track| faults(track, clip, trajectory, *stride, tolerance);
        let id = dialogue.tracks.get(place).filter(|_| named);
        let judged = match id {
            Some(id) => clip.tracks.iter().find(|t| t.id == *id).map(|t| (t.id, faults(t))),
            // Else that of the tracks it agrees with best.
            None => clip.tracks.iter().map(|t| (t.id, faults(t))).min_by_key(|(_, faults)| faults.len()),
        };
        let text = match judged {
            Some((_, faults)) if faults.is_empty() => continue,
            Some((id, faults)) => {
                let wrong = trajectory.points.iter().filter(|(frame, _)| {
                    faults.iter().any(|f| matches!(f, Fault::Off(at, _) | Fault::Unseen(at) if at == frame))
                });
                dialogue.wrong.extend(wrong.copied());
                let which = if named { "track" } else { "any track; the nearest is track" };
                format!("the answer's trajectory does not agree with {which} {id}: {}", told(&faults))
            }
            None => "the answer's trajectory belongs to no track of this clip".to_owned(),
        };
        dialogue.findings.push(Finding { about: About::Answer, text });
    }
}

fn faults(
    track: &Track,
    clip: &ClipTracks,
    trajectory: &Trajectory,
    stride: Option<u32>,
    tolerance: u16,
) -> Vec<Fault> {
    let listed = |frame: u32| trajectory.points.iter().any(|(at, _)| *at == frame);
    let wrong = trajectory
        .points
        .iter()
        .filter_map(|(frame, area)| Fault::find(track, clip, *frame, area, tolerance));
    let mut faults: Vec<Fault> = wrong.collect();
    if let Some(stride) = stride {
        let due = track.boxes.iter().map(|b| b.frame).filter(|frame| frame.saturating_sub(1) % stride == 0);
        faults.extend(due.filter(|frame| !listed(*frame)).map(Fault::LeftOut));
    }
    faults
}

fn told(faults: &[Fault]) -> String {
    let words: Vec<String> = faults.iter().take(MOST_TOLD).map(Fault::words).collect();
    match faults.len().saturating_sub(MOST_TOLD) {
        0 => words.join(", "),
        more => format!("{}, and {more} more", words.join(", ")),
    }
}

/// The k of "every k frames" that a question asks for; 1 for "in each frame".
fn stride(question: &str) -> Option<u32> {
    if question.contains("in each frame") {
        return Some(1);
    }
    let (_, after) = question.split_once("every ")?;
    let (k, _) = after.split_once(" frames")?;
    k.parse().ok().filter(|k| *k > 0)
}

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
