//! What is judged: whether conversations say what the tracks say.
//!
//! Comes in: conversations and the tracks of their clip, in the conversations' numbering of frames. Goes out: [`Dialogue`]s with what each was made from
//! and a [`Finding`] for each contradiction: a box in an answer that is not the track's, a frame left out, an object asked about that cannot be seen.
//! Words are not judged, and nothing is drawn.

use serde_json::Value;

use super::html::number;
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
    /// What an answer says is not what its track does.
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
    /// The rest of `meta` that is words or numbers.
    pub more: Vec<(String, String)>,
    /// Trajectories found in the answers.
    pub trajectories: usize,
    /// Frames and boxes in the text that contradict the tracks.
    pub wrong: Vec<(u32, GridBox)>,
    /// What does not fit.
    pub findings: Vec<Finding>,
}

impl Dialogue {
    fn find(&mut self, about: About, text: String) {
        self.findings.push(Finding { about, text });
    }

    /// Whether an answer's boxes are not those of its track, or cannot be read.
    pub fn disagrees(&self) -> bool {
        self.findings.iter().any(|f| f.about == About::Answer)
    }
}

/// What conversations about a clip are judged by.
#[derive(Clone, Copy, Debug)]
pub struct Measure<'a> {
    /// Its tracks in the conversations' numbering.
    pub clip: Option<&'a ClipTracks>,
    /// The clip's number (from 1) of each sampled frame; empty without tracks.
    pub source: &'a [u32],
    /// Frames that conversations count.
    pub frames: u32,
    /// How far a box may be off, in thousandths of a side.
    pub tolerance: u16,
}

/// Judges a conversation.
pub fn judge(record: &Record, by: &Measure) -> Dialogue {
    let mut dialogue = read_meta(record);
    judge_numbering(&mut dialogue, record.meta.as_ref(), by);
    let mut trajectories = Vec::new();
    for turn in &record.turns {
        match parse_all(&turn.answer) {
            Ok(found) => trajectories.extend(found.into_iter().map(|t| (t, stride(&turn.question)))),
            Err(error) => dialogue.find(About::Answer, format!("an answer cannot be read: {error}")),
        }
    }
    dialogue.trajectories = trajectories.len();
    if let Some(clip) = by.clip {
        judge_query(&mut dialogue, clip);
        judge_boxes(&mut dialogue, clip, &trajectories, by.tolerance);
        judge_answers(&mut dialogue, clip, &trajectories, by.tolerance);
    }
    dialogue
}

/// A number of `meta`.
fn small(meta: Option<&Value>, name: &str) -> Option<u32> {
    meta?.get(name)?.as_u64().and_then(|n| u32::try_from(n).ok())
}

/// Whether the record counts frames as these pages do.
fn judge_numbering(dialogue: &mut Dialogue, meta: Option<&Value>, by: &Measure) {
    let frames = by.frames;
    if let Some(counted) = small(meta, "frames").filter(|counted| *counted != frames) {
        let text = format!("counts {counted} frames, these pages {frames}: use --frames {counted}");
        dialogue.find(About::Other, text);
    }
    let Some(frame) = dialogue.frame else { return };
    if !(1..=frames).contains(&frame) {
        dialogue.find(About::Other, format!("asks at frame{frame}, but frames go from 1 to {frames}"));
    }
    let here = by.source.get(frame.wrapping_sub(1) as usize).copied();
    if let (Some(said), Some(here)) = (small(meta, "source_frame"), here)
        && said != here
    {
        let text = format!("takes frame{frame} for frame {said} of the clip, which is {here}");
        dialogue.find(About::Other, text);
    }
}

fn read_meta(record: &Record) -> Dialogue {
    let field = |name: &str| record.meta.as_ref().and_then(|meta| meta.get(name));
    let word = |name: &str| field(name).and_then(Value::as_str).map(str::to_owned);
    let known = ["task", "query_attribute", "query_frame", "track_ids", "frames", "source_frame"];
    let rest = record.meta.as_ref().and_then(Value::as_object).into_iter().flatten();
    let more = rest
        .filter(|(name, _)| !known.contains(&name.as_str()))
        .filter_map(|(name, value)| Some((name.clone(), plain(value)?)));
    let ids = field("track_ids").and_then(Value::as_array).into_iter().flatten();
    Dialogue {
        id: record.id.clone(),
        turns: record.turns.clone(),
        task: word("task").unwrap_or_else(|| "unknown".into()),
        attribute: word("query_attribute"),
        frame: small(record.meta.as_ref(), "query_frame"),
        tracks: ids.filter_map(|id| u32::try_from(id.as_u64()?).ok()).collect(),
        more: more.collect(),
        trajectories: 0,
        wrong: Vec::new(),
        findings: Vec::new(),
    }
}

/// A word or a number, or several, as a person reads it.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(n) => Some(n.as_f64().filter(|_| n.is_f64()).map_or(n.to_string(), |v| number(v, 4))),
        Value::Bool(yes) => Some(yes.to_string()),
        Value::Array(list) => {
            let words: Option<Vec<String>> = list.iter().map(plain).collect();
            words.map(|words| words.join(", "))
        }
        _ => None,
    }
}

/// Whether what is asked about exists, and can be seen at the queried frame; where the record says that it asks for something absent, it must not.
fn judge_query(dialogue: &mut Dialogue, clip: &ClipTracks) {
    for id in dialogue.tracks.clone() {
        if !clip.tracks.iter().any(|t| t.id == id) {
            let text = format!("asks about track {id}, which has no box in the sampled frames");
            dialogue.find(About::Other, text);
        }
    }
    // Later turns may ask about others at other frames.
    let first = dialogue.tracks.first().and_then(|id| clip.tracks.iter().find(|t| t.id == *id));
    let (Some(track), Some(frame)) = (first, dialogue.frame) else { return };
    let (id, seen) = (track.id, track.at(frame).is_some());
    match dialogue.task.starts_with("absent") {
        true if seen => {
            dialogue.find(
                About::Other,
                format!("says that track {id} is absent at frame{frame}, where it has a box"),
            );
        }
        false if !seen => {
            dialogue
                .find(About::Other, format!("asks about track {id} at frame{frame}, where it has no box"));
        }
        _ => {}
    }
}

/// Whether single boxes in questions and answers are those of a track that the record names.
fn judge_boxes(
    dialogue: &mut Dialogue,
    clip: &ClipTracks,
    trajectories: &[(Trajectory, Option<u32>)],
    tolerance: u16,
) {
    let named: Vec<&Track> = clip.tracks.iter().filter(|t| dialogue.tracks.contains(&t.id)).collect();
    let listed = |point: &(u32, GridBox)| trajectories.iter().any(|(t, _)| t.points.contains(point));
    for turn in dialogue.turns.clone() {
        for (about, which, text) in
            [(About::Other, "question", &turn.question), (About::Answer, "answer", &turn.answer)]
        {
            for point in mentions(text).into_iter().filter_map(|m| Some((m.frame, m.area?))) {
                let fault = |track: &&Track| Fault::find(track, clip, point.0, &point.1, tolerance);
                let answered = about == About::Answer && listed(&point);
                if answered || named.iter().any(|track| fault(track).is_none()) {
                    continue;
                }
                let faults = named.iter().filter_map(|track| Some((track.id, fault(track)?)));
                let Some((id, nearest)) = faults.min_by_key(|(_, fault)| fault.size()) else { continue };
                let words = nearest.words();
                dialogue.find(about, format!("the {which}'s box does not agree with track {id}: {words}"));
                dialogue.wrong.push(point);
            }
        }
    }
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

    /// How far off it is, in thousandths; most where there is nothing to compare.
    fn size(&self) -> u16 {
        match self {
            Fault::Off(_, off) => *off,
            Fault::Unseen(_) | Fault::LeftOut(_) => u16::MAX,
        }
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
        dialogue.find(About::Answer, text);
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
    let after = question.match_indices("every ").filter_map(|(at, word)| question.get(at + word.len()..));
    after.filter_map(|rest| rest.split_once(" frames")?.0.parse().ok()).find(|k| *k > 0)
}
