//! Conversations as bubbles: badges for what each was made from, the frames it names, a small strip of them, and its warnings.
//!
//! Comes in: judged conversations. Goes out: HTML. [`mentions`] finds `frame7` and `frame7:[1,2,3,4]` in a text; the judging is in `audit`.

use std::collections::BTreeSet;
use std::ops::Range;

use super::audit::Dialogue;
use super::html::{escape, shortened};
use super::strip::{self, Footage, shares};
use crate::queries::ClipTracks;
use crate::queries::trajectory::GridBox;

/// Longest badge made from what a data set says, in letters.
const LONGEST_BADGE: usize = 40;
/// Most pictures under one conversation.
const MOST_PICTURES: usize = 12;

/// A frame named in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// Where it stands, in bytes.
    pub range: Range<usize>,
    /// The frame, from 1.
    pub frame: u32,
    /// The box that goes with it.
    pub area: Option<GridBox>,
}

/// All frames named in a text, in order; `[1,2,3,4] in frame7` is a box too. `frame1:[box]`, the description of a form, names none.
pub fn mentions(text: &str) -> Vec<Mention> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = text.get(from..).and_then(|rest| rest.find("frame")) {
        let start = from + at;
        from = start + "frame".len();
        let rest = text.get(from..).unwrap_or_default();
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let Some(frame) = rest.get(..digits).and_then(|number| number.parse().ok()) else { continue };
        let (after, mut end) = (rest.get(digits..).unwrap_or_default(), from + digits);
        let mut area = None;
        if let Some(inner) = after.strip_prefix(":[") {
            let Some((numbers, _)) = inner.split_once(']') else { continue };
            area = read_box(numbers);
            if area.is_none() {
                continue;
            }
            end += ":[]".len() + numbers.len();
        }
        let mut start = start;
        // What stands between the frame named before and this one.
        let last = found.last().map_or(0, |mention: &Mention| mention.range.end);
        if let (None, Some((at, before))) = (area, box_before(text.get(last..start).unwrap_or_default())) {
            (start, area) = (last + at, Some(before));
        }
        found.push(Mention { range: start..end, frame, area });
        from = end;
    }
    found
}

/// The box that ends a text which leads to a frame (`… [1,2,3,4] in `), and where it begins.
fn box_before(text: &str) -> Option<(usize, GridBox)> {
    let inner = text.strip_suffix("] in ")?;
    let at = inner.rfind('[')?;
    Some((at, read_box(inner.get(at + 1..)?)?))
}

fn read_box(numbers: &str) -> Option<GridBox> {
    let numbers: Option<Vec<u16>> = numbers.split(',').map(|n| n.trim().parse().ok()).collect();
    numbers?.try_into().ok()
}

/// A frame's name as a link to its place in the strip, where it has one.
fn linked(class: &str, frame: u32, words: &str, footage: Option<&Footage>) -> String {
    match footage.and_then(|footage| footage.tile(frame)) {
        Some(_) => format!("<a class=\"{class}\" href=\"#f{frame}\">{words}</a>"),
        None => format!("<span class=\"{class}\">{words}</span>"),
    }
}

/// A text with its frames as links to the strip; boxes that contradict the tracks stand out.
pub fn marked(text: &str, wrong: &[(u32, GridBox)], footage: Option<&Footage>) -> String {
    let (mut out, mut from) = (String::new(), 0);
    for mention in mentions(text) {
        out.push_str(&escape(text.get(from..mention.range.start).unwrap_or_default()));
        let words = escape(text.get(mention.range.clone()).unwrap_or_default());
        let bad = mention.area.is_some_and(|area| wrong.contains(&(mention.frame, area)));
        let class = if mention.area.is_some() { "at boxed" } else { "at" };
        let link = linked(class, mention.frame, &words, footage);
        out.push_str(&if bad { format!("<mark>{link}</mark>") } else { link });
        from = mention.range.end;
    }
    out.push_str(&escape(text.get(from..).unwrap_or_default()));
    out
}

/// One conversation as HTML. `number` is its place on the page, from 1.
pub fn html(number: usize, talk: &Dialogue, clip: Option<&ClipTracks>, footage: Option<&Footage>) -> String {
    let frames = talk_frames(talk);
    let words = |list: Vec<String>| list.join(" ");
    let lit = match talk.frame {
        Some(frame) => vec![frame],
        None => frames.clone(),
    };
    let warned = if talk.findings.is_empty() { "" } else { " warned" };
    let mut out = format!(
        "<article class=\"talk{warned}\" id=\"q{number}\" tabindex=\"0\" data-query=\"{number}\" data-tracks=\"{}\" data-frames=\"{}\">\n",
        words(talk.tracks.iter().map(u32::to_string).collect()),
        words(lit.iter().map(u32::to_string).collect()),
    );
    out.push_str(&badges(number, talk, footage));
    for turn in &talk.turns {
        for (who, class, text) in [("Question", "asks", &turn.question), ("Answer", "says", &turn.answer)] {
            out.push_str(&format!(
                "<div class=\"bubble {class}\"><span class=\"who\">{who}</span><p dir=\"auto\">{}</p></div>\n",
                marked(text, &talk.wrong, footage)
            ));
        }
    }
    for finding in &talk.findings {
        out.push_str(&format!("<p class=\"warning\">{}</p>\n", escape(&finding.text)));
    }
    if let Some(footage) = footage {
        out.push_str(&pictures(talk, &frames, clip, footage));
    }
    out.push_str("</article>\n");
    out
}

fn badges(number: usize, talk: &Dialogue, footage: Option<&Footage>) -> String {
    let mut out = format!("<header><a class=\"number\" href=\"#q{number}\">{number}</a>");
    let mut badge = |class: &str, text: &str| {
        let (whole, short) = (escape(text), escape(&shortened(text, LONGEST_BADGE)));
        out.push_str(&format!("<span class=\"badge {class}\" title=\"{whole}\">{short}</span>"));
    };
    badge("task", &talk.task);
    if let Some(attribute) = &talk.attribute {
        badge("attribute", attribute);
    }
    talk.more.iter().for_each(|(name, value)| badge("more", &format!("{name} {value}")));
    for id in &talk.tracks {
        out.push_str(&format!("<span class=\"chip t{id}\">{id}</span>"));
    }
    if let Some(frame) = talk.frame {
        out.push_str(&linked("badge queried", frame, &format!("asks at frame{frame}"), footage));
    }
    out.push_str(&format!("<span class=\"id\">{}</span></header>\n", escape(&talk.id)));
    out
}

/// Frames that the conversation names or was made from, in order.
fn talk_frames(talk: &Dialogue) -> Vec<u32> {
    let texts = talk.turns.iter().flat_map(|t| [&t.question, &t.answer]);
    let mut frames: Vec<u32> = texts.flat_map(|text| mentions(text)).map(|m| m.frame).collect();
    frames.extend(talk.frame);
    frames.sort_unstable();
    frames.dedup();
    frames
}

/// The frames of a conversation with the tracks' boxes (of its own tracks where it names some) and, dashed, those of its text.
fn pictures(talk: &Dialogue, frames: &[u32], clip: Option<&ClipTracks>, footage: &Footage) -> String {
    let texts = talk.turns.iter().flat_map(|t| [&t.question, &t.answer]);
    let said: BTreeSet<(u32, GridBox)> =
        texts.flat_map(|text| mentions(text)).filter_map(|m| Some((m.frame, m.area?))).collect();
    let picture = |(frame, tile)| {
        let mut over = String::new();
        if let Some(clip) = clip {
            let wanted = |id: u32| talk.tracks.is_empty() || talk.tracks.contains(&id);
            let seen = clip.tracks.iter().filter(|t| wanted(t.id)).filter_map(|t| Some((t.id, t.at(frame)?)));
            seen.for_each(|(id, seen)| over.push_str(&strip::track_box(id, shares(seen.xyxy, clip))));
        }
        for point in said.iter().filter(|(at, _)| *at == frame) {
            over.push_str(&strip::said_box(&point.1, talk.wrong.contains(point)));
        }
        strip::small(frame, tile, &over, talk.frame == Some(frame))
    };
    let tiles = frames.iter().filter_map(|frame| Some((*frame, footage.tile(*frame)?)));
    let shown: String = tiles.take(MOST_PICTURES).map(picture).collect();
    if shown.is_empty() { String::new() } else { format!("<div class=\"few\">\n{shown}</div>\n") }
}
