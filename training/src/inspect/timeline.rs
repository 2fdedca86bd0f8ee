//! Tracks over time as SVG: a row per track with bars where it has boxes, its actions as labelled blocks, and the queried frames as marks.
//!
//! Comes in: tracks in the conversations' numbering, the time of each frame, the queries. Goes out: SVG. Places along the frames are per cent, so that
//! the drawing takes any width from [`NARROWEST`] on; heights are pixels. Where blocks and labels go is decided in [`rows`], drawing adds nothing to it.

use super::html::{escape, number, percent, shortened};
use crate::queries::{ClipTracks, Track, TrackAction};

/// Narrowest drawing, in pixels; below it the page scrolls sideways. Labels are placed so that they do not meet at this width.
pub const NARROWEST: f64 = 600.0;
/// Height of the scale of frames and times, in pixels.
pub const SCALE: u32 = 36;
/// Height of the bar that says where boxes are.
const BAR: u32 = 8;
/// Height of a lane of actions.
const LANE: u32 = 20;
/// Room above and below a row's content.
const ROOM: u32 = 7;
/// Mean width of a letter of a label, and room around a label, in pixels.
const LETTER: f64 = 6.6;
const LABEL_ROOM: f64 = 12.0;

/// Where the label of a block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// On the block.
    On,
    /// Right of it, for the block is too short.
    After,
    /// Left of it, for the block is short and ends near the right border.
    Before,
}

/// An action in its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// First frame, from 1.
    pub start: u32,
    /// Last frame.
    pub end: u32,
    /// Lane, from 0 at the top.
    pub lane: usize,
    /// Where its label stands.
    pub label: Label,
    /// The label: the action's text, cut where there is no room for all of it.
    pub text: String,
}

/// One track's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// First and last frames of stretches with a box in each frame.
    pub segments: Vec<(u32, u32)>,
    /// One for each action of the track, in the track's order.
    pub blocks: Vec<Block>,
    /// Lanes that the blocks take.
    pub lanes: usize,
}

impl Row {
    /// Its height in pixels.
    pub fn height(&self) -> u32 {
        let lanes = self.lanes.max(1) as u32;
        2 * ROOM + BAR + 4 + lanes * LANE
    }
}

/// A query to be marked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Place of its conversation on the page, from 1.
    pub number: usize,
    /// The queried frame, from 1.
    pub frame: u32,
    /// The track asked about, where known.
    pub track: Option<u32>,
    /// What is said when the mark is pointed at.
    pub title: String,
}

/// Lays out the tracks of a clip of `clip.frames` frames.
pub fn rows(clip: &ClipTracks) -> Vec<Row> {
    clip.tracks.iter().map(|track| row(track, clip.frames)).collect()
}

fn row(track: &Track, frames: u32) -> Row {
    let mut segments: Vec<(u32, u32)> = Vec::new();
    for seen in &track.boxes {
        match segments.last_mut() {
            Some((_, last)) if *last + 1 == seen.frame => *last = seen.frame,
            _ => segments.push((seen.frame, seen.frame)),
        }
    }
    // Where each lane is taken up to, in pixels of the narrowest drawing.
    let mut taken: Vec<f64> = Vec::new();
    let per_frame = NARROWEST / f64::from(frames.max(1));
    let place = |action: &TrackAction| {
        let (left, right) =
            (f64::from(action.start.max(1) - 1) * per_frame, f64::from(action.end) * per_frame);
        let (label, text, from, to) = labelled(&action.text, left, right);
        let lane = taken.iter().position(|&until| until <= from).unwrap_or(taken.len());
        match taken.get_mut(lane) {
            Some(until) => *until = to,
            None => taken.push(to),
        }
        Block { start: action.start, end: action.end, lane, label, text }
    };
    let blocks = track.actions.iter().map(place).collect();
    Row { segments, blocks, lanes: taken.len() }
}

/// Where the label of a block from `left` to `right` stands, the label, and what the two take together.
fn labelled(text: &str, left: f64, right: f64) -> (Label, String, f64, f64) {
    let wide = |letters: usize| letters as f64 * LETTER + LABEL_ROOM;
    let all = text.chars().count();
    let rooms = [(Label::On, right - left), (Label::After, NARROWEST - right), (Label::Before, left)];
    let fits = rooms.iter().find(|(_, room)| wide(all) <= *room);
    let largest = rooms.iter().max_by(|a, b| a.1.total_cmp(&b.1));
    let (label, room) = fits.or(largest).copied().unwrap_or((Label::On, 0.0));
    let letters = (((room - LABEL_ROOM) / LETTER).max(0.0) as usize).min(all);
    let text = if letters < all { shortened(text, letters) } else { text.to_owned() };
    let wide = wide(text.chars().count());
    match label {
        Label::On => (label, text, left, right),
        Label::After => (label, text, left, right + wide),
        Label::Before => (label, text, left - wide, right),
    }
}

/// The drawing. `times` are seconds of the frames, empty where unknown.
pub fn svg(clip: &ClipTracks, rows: &[Row], times: &[f64], queries: &[Query]) -> String {
    let height = SCALE + rows.iter().map(Row::height).sum::<u32>();
    let mut out = format!(
        "<svg class=\"timeline\" role=\"img\" aria-label=\"Tracks over the sampled frames\" width=\"100%\" height=\"{height}\">\n"
    );
    out.push_str(&scale(clip.frames, times, height));
    let mut top = SCALE;
    for (track, row) in clip.tracks.iter().zip(rows) {
        out.push_str(&drawn_row(track, row, clip.frames, top));
        let own = queries.iter().filter(|q| q.track == Some(track.id));
        own.for_each(|query| out.push_str(&mark(query, clip.frames, top + ROOM + BAR / 2, height)));
        top += row.height();
    }
    let known = |q: &Query| q.track.is_some_and(|id| clip.tracks.iter().any(|t| t.id == id));
    let lost = queries.iter().filter(|query| !known(query));
    lost.for_each(|query| out.push_str(&mark(query, clip.frames, SCALE, height)));
    out.push_str("</svg>\n");
    out
}

/// Left border of a frame, as a share of the width.
fn left(frame: u32, frames: u32) -> f64 {
    f64::from(frame.max(1) - 1) / f64::from(frames.max(1))
}

fn middle(frame: u32, frames: u32) -> f64 {
    (f64::from(frame) - 0.5) / f64::from(frames.max(1))
}

/// Numbers and times of about eight frames, each with a line down to the bottom.
fn scale(frames: u32, times: &[f64], height: u32) -> String {
    let step = [1, 2, 4, 5, 8, 10]
        .into_iter()
        .find(|step| frames.div_ceil(*step) <= 8)
        .unwrap_or(frames.div_ceil(8));
    let tick = |frame: u32| {
        let x = percent(middle(frame, frames));
        let time = times.get(frame as usize - 1).map_or(String::new(), |seconds| {
            format!("<text class=\"time\" x=\"{x}\" y=\"27\">{} s</text>", number(*seconds, 1))
        });
        format!(
            "<line class=\"grid\" x1=\"{x}\" x2=\"{x}\" y1=\"{SCALE}\" y2=\"{height}\"/>\
             <text class=\"tick\" x=\"{x}\" y=\"13\">{frame}</text>{time}\n"
        )
    };
    (1..=frames).step_by(step.max(1) as usize).map(tick).collect()
}

fn drawn_row(track: &Track, row: &Row, frames: u32, top: u32) -> String {
    let id = track.id;
    let share = |start: u32, end: u32| {
        let from = left(start, frames);
        (percent(from), percent(f64::from(end) / f64::from(frames.max(1)) - from))
    };
    let mut out = format!(
        "<g class=\"trk t{id}\">\n<line class=\"rule\" x1=\"0\" x2=\"100%\" y1=\"{top}\" y2=\"{top}\"/>\n"
    );
    let y = top + ROOM;
    out.push_str(&format!(
        "<rect class=\"lost\" x=\"0\" y=\"{}\" width=\"100%\" height=\"2\"/>\n",
        y + BAR / 2 - 1
    ));
    for &(start, end) in &row.segments {
        let (x, width) = share(start, end);
        out.push_str(&format!(
            "<rect class=\"seen\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{BAR}\" rx=\"3\"><title>track {id}: \
             frame{start} to frame{end}</title></rect>\n"
        ));
    }
    for (block, action) in row.blocks.iter().zip(&track.actions) {
        let (x, width) = share(block.start, block.end);
        let (y, text) = (y + BAR + 4 + block.lane as u32 * LANE, escape(&block.text));
        let end = percent(f64::from(block.end) / f64::from(frames.max(1)));
        let label = match block.label {
            Label::On => format!("<text class=\"deed\" x=\"{x}\" dx=\"6\" y=\"{}\">{text}</text>", y + 13),
            Label::After => {
                format!("<text class=\"deed\" x=\"{end}\" dx=\"5\" y=\"{}\">{text}</text>", y + 13)
            }
            Label::Before => {
                format!(
                    "<text class=\"deed\" text-anchor=\"end\" x=\"{x}\" dx=\"-5\" y=\"{}\">{text}</text>",
                    y + 13
                )
            }
        };
        out.push_str(&format!(
            "<g><title>{}: frame{} to frame{}</title><rect class=\"act\" x=\"{x}\" y=\"{y}\" width=\"{width}\" \
             height=\"{}\" rx=\"4\"/>{label}</g>\n",
            escape(&action.text),
            block.start,
            block.end,
            LANE - 3
        ));
    }
    out.push_str("</g>\n");
    out
}

/// A diamond at the queried frame and a faint line through all rows.
fn mark(query: &Query, frames: u32, y: u32, height: u32) -> String {
    let (x, frame, number) = (percent(middle(query.frame, frames)), query.frame, query.number);
    let track = query.track.map(|id| format!(" t{id}")).unwrap_or_default();
    format!(
        "<g class=\"ask q{number} f{frame}{track}\" data-query=\"{number}\" data-frame=\"{frame}\"><title>{}</title>\
         <line x1=\"{x}\" x2=\"{x}\" y1=\"{}\" y2=\"{height}\"/>\
         <svg x=\"{x}\" y=\"{y}\" width=\"1\" height=\"1\" overflow=\"visible\"><path d=\"M0-7 7 0 0 7-7 0z\"/></svg></g>\n",
        escape(&query.title),
        SCALE - 6,
    )
}
