//! The sampled frames as pictures with boxes and ids over them.
//!
//! Comes in: a clip on disk, its tracks in the conversations' numbering. Goes out: JPEG files and HTML. Boxes are SVG over the pictures, in per cent of
//! their sides, so that lines and ids stay sharp at any size and can be switched off. A frame that a short clip repeats is shown once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use image::codecs::jpeg::JpegEncoder;
use utr_models::RgbFrame;
use utr_models::preprocess::{Filter, resize};
use utr_runtime::capture::{CaptureOptions, Frame};
use utr_runtime::sample::{Sampling, sample};
use utr_runtime::source::Source;

use super::html::{escape, number, percent};
use crate::files::write_atomic;
use crate::queries::scene::seen_in;
use crate::queries::trajectory::GridBox;
use crate::queries::{ClipTracks, Track};

/// Height of the pictures in pixels; smaller frames are kept as they are.
const HEIGHT: usize = 160;
/// Widest picture, for panoramas.
const WIDEST: usize = 640;
const QUALITY: u8 = 85;
/// With more boxes than this in one frame, pictures are shown larger.
const CROWD: usize = 10;
/// Size of an id's plate, in pixels: height, width of one digit, room beside the digits.
const PLATE: [f64; 3] = [14.0, 6.6, 7.0];

/// What is known of a clip after it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Footage {
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Frames in the clip.
    pub total: usize,
    /// Frames per second; pictures have none.
    pub fps: Option<f64>,
    /// The sampled frames, each once.
    pub tiles: Vec<Tile>,
}

/// One picture of the strip.
#[derive(Clone, Debug, PartialEq)]
pub struct Tile {
    /// First and last number that conversations give this frame.
    pub numbers: (u32, u32),
    /// Its number in the clip, from 1.
    pub source: usize,
    /// When it is shown, where known.
    pub seconds: Option<f64>,
    /// Its picture, below the folder of the page.
    pub file: String,
}

impl Footage {
    /// The tile of a conversation's frame.
    pub fn tile(&self, frame: u32) -> Option<&Tile> {
        self.tiles.iter().find(|t| (t.numbers.0..=t.numbers.1).contains(&frame))
    }
}

/// Where a clip lies; a name that leads out of the media folder is refused, so that pages show nothing else.
///
/// # Errors
/// Such a name, and one that does not exist.
pub fn locate(root: &Path, name: &str) -> Result<PathBuf> {
    use std::path::Component;
    let inside = Path::new(name).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    ensure!(inside, "the name leads out of --media-root; name clips by their path below it");
    let path = root.join(name);
    ensure!(path.exists(), "there is no such file below --media-root");
    Ok(path)
}

/// Reads a clip and writes the pictures of its sampled frames to `folder/name/`. Where the clip is a folder of pictures, `tracks` say the times.
///
/// # Errors
/// A folder that cannot be written; the inner one where the clip cannot be decoded.
pub fn shoot(
    path: &Path,
    frames: usize,
    tracks: Option<&ClipTracks>,
    folder: &Path,
    name: &str,
) -> Result<Result<Footage>> {
    let source = Source::Path(path.to_path_buf());
    let clip = match sample(&source, Sampling::Uniform { frames }, &CaptureOptions::default()) {
        Ok(clip) => clip,
        Err(error) => return Ok(Err(error.into())),
    };
    let Some(first) = clip.frames.first() else { return Ok(Err(anyhow::anyhow!("the clip has no frame"))) };
    let (width, height) = (first.image.width, first.image.height);
    let shown_at = |frame: &Frame| frame.stamp.pts_ms as f64 / 1000.0;
    let last = clip.frames.last().filter(|last| last.stamp.index + 1 == clip.total && clip.total > 1);
    let measured = last.map(|last| (clip.total - 1) as f64 / shown_at(last)).filter(|fps| fps.is_finite());
    let pictures = path.is_dir() || (clip.total == 1 && measured.is_none());
    let mut footage =
        Footage { width, height, total: clip.total, fps: measured.filter(|_| !pictures), tiles: Vec::new() };
    for (number, frame) in (1u32..).zip(&clip.frames) {
        let source = frame.stamp.index + 1;
        if let Some(tile) = footage.tiles.last_mut().filter(|tile| tile.source == source) {
            tile.numbers.1 = number;
            continue;
        }
        let seconds = match pictures {
            true => tracks.map(|tracks| tracks.seconds(source as u32)),
            false => Some(shown_at(frame)),
        };
        let file = format!("{name}/f{source:06}.jpg");
        write_picture(&folder.join(&file), frame)?;
        footage.tiles.push(Tile { numbers: (number, number), source, seconds, file });
    }
    Ok(Ok(footage))
}

fn write_picture(path: &Path, frame: &Arc<Frame>) -> Result<()> {
    let small = shrunk(&frame.image)?;
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, QUALITY)
        .encode(&small.data, small.width as u32, small.height as u32, image::ExtendedColorType::Rgb8)
        .with_context(|| format!("encoding {}", path.display()))?;
    Ok(write_atomic(path, |out| out.write_all(&bytes))?)
}

/// The picture at [`HEIGHT`] rows, or as it is where it has no more.
fn shrunk(frame: &RgbFrame) -> Result<RgbFrame> {
    let scale = (HEIGHT as f64 / frame.height as f64).min(WIDEST as f64 / frame.width as f64).min(1.0);
    let side = |pixels: usize| ((pixels as f64 * scale).round() as usize).max(1);
    Ok(resize(frame, (side(frame.height), side(frame.width)), Filter::Bicubic)?)
}

/// Left, top, right, bottom in shares of the picture's sides.
pub type Shares = [f64; 4];

/// A box in pixels of the tracks as shares of the sides.
pub fn shares(xyxy: [f32; 4], clip: &ClipTracks) -> Shares {
    let (width, height) = (f64::from(clip.width.max(1)), f64::from(clip.height.max(1)));
    let [x1, y1, x2, y2] = xyxy.map(f64::from);
    [x1 / width, y1 / height, x2 / width, y2 / height]
}

fn rectangle(class: &str, [x1, y1, x2, y2]: Shares) -> String {
    format!(
        "<rect class=\"{class}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>",
        percent(x1),
        percent(y1),
        percent((x2 - x1).max(0.0)),
        percent((y2 - y1).max(0.0))
    )
}

/// A track's box.
pub fn track_box(id: u32, area: Shares) -> String {
    rectangle(&format!("box t{id}"), area)
}

/// A box that a conversation's text gives, dashed.
pub fn said_box(area: &GridBox, wrong: bool) -> String {
    rectangle(if wrong { "said wrong" } else { "said" }, area.map(|v| f64::from(v) / 1000.0))
}

/// Boxes and ids of all tracks in a frame.
fn overlay(clip: &ClipTracks, frame: u32, tile: [f64; 2]) -> String {
    let seen: Vec<(&Track, Shares)> =
        clip.tracks.iter().filter_map(|t| Some((t, shares(t.at(frame)?.xyxy, clip)))).collect();
    let areas: Vec<(u32, Shares)> = seen.iter().map(|(track, area)| (track.id, *area)).collect();
    let boxes = seen.iter().map(|(track, area)| {
        let (id, name) = (track.id, escape(&track.name()));
        format!("<g class=\"trk t{id}\"><title>{id} {name}</title>{}</g>", rectangle("box", *area))
    });
    // Ids come last, so that no box crosses them.
    let ids = areas.iter().zip(plates(&areas, tile)).filter_map(|((id, _), plate)| {
        let [x, y, width] = plate?;
        let (x, y, half, width) = (percent(x), percent(y), number(width / 2.0, 1), number(width, 1));
        Some(format!(
            "<g class=\"trk t{id}\"><rect class=\"plate\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{}\" rx=\"2\"/>\
             <text x=\"{x}\" y=\"{y}\" dx=\"{half}\" dy=\"11\">{id}</text></g>",
            PLATE[0]
        ))
    });
    boxes.chain(ids).collect()
}

/// Where the ids stand on a picture of `tile` pixels (larger ones have more room): left and top in shares, width in pixels. Above the box where there
/// is room, never outside the picture, and off each other as far as five places allow; one that would be mostly hidden is left out.
fn plates(seen: &[(u32, Shares)], [columns, rows]: [f64; 2]) -> Vec<Option<[f64; 3]>> {
    let mut placed: Vec<[f64; 4]> = Vec::new();
    let mut place = |(id, [x1, y1, x2, y2]): &(u32, Shares)| {
        let width = PLATE[1] * id.to_string().len() as f64 + PLATE[2];
        let (w, h) = (width / columns, PLATE[0] / rows);
        let wanted = [(*x1, y1 - h), (x2 - w, y1 - h), (*x1, *y2), (x2 - w, *y2), (*x1, *y1)];
        let inside = wanted.map(|(x, y)| [x.min(1.0 - w).max(0.0), y.min(1.0 - h).max(0.0), w, h]);
        let covered = |a: &[f64; 4]| placed.iter().map(|b| overlap(a, b)).sum::<f64>();
        // The first of the places that are covered least.
        let best = inside.into_iter().reduce(|a, b| if covered(&b) < covered(&a) { b } else { a })?;
        if covered(&best) > 0.2 * w * h {
            return None;
        }
        placed.push(best);
        Some([best[0], best[1], width])
    };
    seen.iter().map(&mut place).collect()
}

/// Common area of two rectangles (left, top, width, height).
fn overlap(a: &[f64; 4], b: &[f64; 4]) -> f64 {
    let side = |i: usize, j: usize| ((a[i] + a[j]).min(b[i] + b[j]) - a[i].max(b[i])).max(0.0);
    side(0, 2) * side(1, 3)
}

/// The strip: every sampled frame with its number as conversations count, its number in the clip and its time. `queried` are the frames asked at
/// with the numbers of the conversations that do.
pub fn html(footage: &Footage, clip: Option<&ClipTracks>, queried: &[(u32, usize)]) -> String {
    let aspect = footage.width as f64 / footage.height.max(1) as f64;
    let most = |clip: &ClipTracks| (1..=clip.frames).map(|n| seen_in(clip, n).len()).max().unwrap_or(0);
    // About the same area for pictures of any shape; crowds want more room.
    let side = if clip.map_or(0, most) > CROWD { 155.0 } else { 96.0 };
    let narrowest = (side * aspect.sqrt()).clamp(64.0, 300.0).round();
    let size = [narrowest, narrowest / aspect];
    let mut out = format!("<div class=\"strip\" style=\"--w:{narrowest}px\">\n");
    for tile in &footage.tiles {
        let (first, last) = tile.numbers;
        let asking: Vec<String> = queried
            .iter()
            .filter(|(frame, _)| (first..=last).contains(frame))
            .map(|(_, number)| format!("<a href=\"#q{number}\">{number}</a>"))
            .collect();
        let classes: String = (first..=last).map(|n| format!(" f{n}")).collect();
        let anchors: String = (first + 1..=last).map(|n| format!("<i id=\"f{n}\"></i>")).collect();
        let over = clip.map(|clip| overlay(clip, first, size)).unwrap_or_default();
        let when = tile.seconds.map(|s| format!(" · {} s", number(s, 2))).unwrap_or_default();
        let asked = match asking.is_empty() {
            true => String::new(),
            false => format!(
                "<span class=\"asked\" title=\"Asked at by conversation\">? {}</span>",
                asking.join(" ")
            ),
        };
        out.push_str(&format!(
            "<figure class=\"tile{}{classes}\" id=\"f{first}\">{anchors}<div class=\"shot\"><img src=\"{}\" alt=\"{}\" loading=\"lazy\">\
             <svg class=\"over\" aria-hidden=\"true\">{over}</svg></div>\
             <figcaption><b>{} {asked}</b><span>{}/{}{when}</span></figcaption></figure>\n",
            if asking.is_empty() { "" } else { " queried" },
            escape(&tile.file),
            label(tile.numbers),
            label(tile.numbers),
            tile.source,
            footage.total,
        ));
    }
    out.push_str("</div>\n");
    out
}

/// `frame7`, or `frame7–9` for a repeated one.
fn label((first, last): (u32, u32)) -> String {
    if first == last { format!("frame{first}") } else { format!("frame{first}–{last}") }
}

/// A small picture for a conversation, with `over` drawn on it.
pub fn small(frame: u32, tile: &Tile, over: &str, queried: bool) -> String {
    let (class, sign) = if queried { (" queried", "? ") } else { ("", "") };
    format!(
        "<figure class=\"bit{class}\"><div class=\"shot\"><img src=\"{}\" alt=\"frame{frame}\" loading=\"lazy\">\
         <svg class=\"over\" aria-hidden=\"true\">{over}</svg></div><figcaption>{sign}frame{frame}</figcaption></figure>\n",
        escape(&tile.file)
    )
}

/// Seconds of the frames 1 to `frames`; empty where they are unknown.
pub fn times(footage: Option<&Footage>, clip: Option<&ClipTracks>, frames: u32) -> Vec<f64> {
    match (footage, clip) {
        (Some(footage), _) => {
            let seconds = (1..=frames).map(|frame| footage.tile(frame)?.seconds);
            seconds.collect::<Option<Vec<f64>>>().unwrap_or_default()
        }
        (None, Some(clip)) => (1..=frames).map(|frame| clip.seconds(frame)).collect(),
        (None, None) => Vec::new(),
    }
}
