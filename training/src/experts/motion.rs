//! The motion expert: what differs from the resting scene, without any weights.
//!
//! Comes in: a clip of a camera that stands still. Goes out: connected regions that differ from the temporal median of the clip (or, where
//! no value lasts, from what surrounds them), with a colour, a size and a word for how they move. A first pass learns the scene, a second
//! one compares. What never moves or changes is part of the scene; a moving camera makes everything move, and such frames are left empty.

mod regions;
mod scene;

use anyhow::Result;
use utr_models::RgbFrame;

use super::Expert;
use super::clip::{Clip, Shape};
use crate::tracks::detections::Object;
use regions::{Region, regions};
use scene::Scene;

/// How the expert looks.
#[derive(Clone, Copy, Debug, PartialEq, clap::Args)]
pub struct MotionParams {
    /// Longer side of the pictures it works on, in pixels
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(32..=2048))]
    pub motion_side: u32,
    /// Least difference from the scene, in grey levels of the channel that differs most
    #[arg(long, default_value_t = 24)]
    pub motion_threshold: u8,
    /// Least area of a region, as a share of the frame
    #[arg(long, default_value_t = 0.0012)]
    pub motion_min_area: f32,
}

impl Default for MotionParams {
    fn default() -> Self {
        Self { motion_side: 256, motion_threshold: 24, motion_min_area: 0.0012 }
    }
}

/// More than this share of the frame in motion is the camera's doing.
const MOST_MOVING: f32 = 0.6;

/// The expert.
#[derive(Clone, Debug)]
pub struct Motion {
    params: MotionParams,
}

impl Motion {
    /// An expert that looks as `params` say.
    pub fn new(params: MotionParams) -> Self {
        Self { params }
    }
}

impl Expert for Motion {
    fn settings(&self) -> String {
        format!("motion {:?}", self.params)
    }

    fn annotate(&mut self, clip: &Clip, found: &mut dyn FnMut(Vec<Object>)) -> Result<Shape> {
        // First pass: the scene of every shot.
        let mut scenes = Vec::new();
        let mut sampler = scene::Sampler::default();
        let mut footage = clip.open()?;
        while let Some(frame) = footage.next_frame()? {
            if footage.begins_shot() {
                scenes.push(Scene::learn(
                    std::mem::take(&mut sampler).pictures(),
                    self.params.motion_threshold,
                ));
            }
            sampler.offer(|| Picture::of(&frame, self.params.motion_side));
        }
        let shape = footage.shape()?;
        scenes.push(Scene::learn(sampler.pictures(), self.params.motion_threshold));
        // Second pass: what stands before it.
        let mut scenes = scenes.iter();
        let (mut scene, mut watch) = (scenes.next(), Watch::default());
        let mut footage = clip.open()?;
        while let Some(frame) = footage.next_frame()? {
            if footage.begins_shot() {
                (scene, watch) = (scenes.next(), Watch::default());
            }
            found(scene.map(|scene| watch.look(scene, &frame, &self.params)).unwrap_or_default());
        }
        Ok(shape)
    }
}

/// A frame at working size.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// (height, width, 3).
    pub data: Vec<u8>,
}

impl Picture {
    /// Averages blocks of pixels so that the longer side is at most `side`.
    pub fn of(frame: &RgbFrame, side: u32) -> Self {
        let block = frame.width.max(frame.height).div_ceil(side as usize).max(1);
        let (width, height) = ((frame.width / block).max(1), (frame.height / block).max(1));
        let mut data = Vec::with_capacity(width * height * 3);
        for y in 0..height {
            for x in 0..width {
                let mut sum = [0u32; 3];
                let mut count = 0;
                for row in (y * block..(y + 1) * block).take_while(|r| *r < frame.height) {
                    let from = (row * frame.width + x * block) * 3;
                    let to = (row * frame.width + ((x + 1) * block).min(frame.width)) * 3;
                    for pixel in frame.data[from..to].chunks_exact(3) {
                        (0..3).for_each(|c| sum[c] += u32::from(pixel[c]));
                        count += 1;
                    }
                }
                data.extend(sum.map(|s| ((s + count / 2) / count.max(1)) as u8));
            }
        }
        Self { width, height, data }
    }

    /// The colour of a pixel, counted row by row.
    pub fn at(&self, pixel: usize) -> [u8; 3] {
        [self.data[pixel * 3], self.data[pixel * 3 + 1], self.data[pixel * 3 + 2]]
    }
}

/// Largest difference over the channels.
fn difference(a: [u8; 3], b: [u8; 3]) -> u8 {
    (0..3).map(|c| a[c].abs_diff(b[c])).max().unwrap_or(0)
}

/// Where a region was a few frames ago, to tell how it moves.
#[derive(Clone, Debug)]
struct Trail {
    region: Region,
    /// Centre and area of the frames before, oldest first.
    past: Vec<([f32; 2], f32)>,
}

/// Frames that a word about movement looks back.
const MEMORY: usize = 4;

/// The regions of the frame before.
#[derive(Debug, Default)]
struct Watch {
    before: Vec<Trail>,
}

impl Watch {
    fn look(&mut self, scene: &Scene, frame: &RgbFrame, params: &MotionParams) -> Vec<Object> {
        let picture = Picture::of(frame, params.motion_side);
        let mask = scene.foreground(&picture);
        let moving = mask.iter().filter(|m| **m).count() as f32 / mask.len() as f32;
        let least = (params.motion_min_area * mask.len() as f32).max(4.0) as usize;
        let found = if moving > MOST_MOVING { Vec::new() } else { regions(&picture, &mask, least) };
        let trails: Vec<Trail> = found.into_iter().map(|region| self.follow(region)).collect();
        let scale = [frame.width as f32 / picture.width as f32, frame.height as f32 / picture.height as f32];
        let diagonal = (picture.width as f32).hypot(picture.height as f32);
        let objects = trails.iter().map(|trail| object(trail, scale, diagonal, mask.len() as f32)).collect();
        self.before = trails;
        objects
    }

    /// Hands on the past of the region of the frame before that overlaps most.
    fn follow(&self, region: Region) -> Trail {
        let overlap = |t: &&Trail| (t.region.overlap(&region) * 1e6) as i64;
        let ancestor = self.before.iter().max_by_key(overlap).filter(|t| t.region.overlap(&region) > 0.1);
        let mut past = ancestor.map(|t| t.past.clone()).unwrap_or_default();
        past.push((region.centre(), region.box_area()));
        let surplus = past.len().saturating_sub(MEMORY);
        past.drain(..surplus);
        Trail { region, past }
    }
}

fn object(trail: &Trail, scale: [f32; 2], diagonal: f32, pixels: f32) -> Object {
    let Region { xyxy: [x1, y1, x2, y2], colour, fill, .. } = trail.region;
    let share = trail.region.box_area() / pixels;
    let size = if share < 0.01 {
        "small"
    } else if share > 0.06 {
        "large"
    } else {
        "medium"
    };
    Object {
        xyxy: [x1 * scale[0], y1 * scale[1], x2 * scale[0], y2 * scale[1]],
        // A region that fills its box is one thing; a frayed one may be anything.
        score: (0.5 + 0.5 * fill).min(1.0),
        category: "object".into(),
        appearance: Some(format!("{size} {}", colour_word(colour))),
        action: movement(trail, diagonal).map(String::from),
        caption: None,
    }
}

/// Least way of the centre within [`MEMORY`] frames, in shares of the diagonal, to be said to move.
const LEAST_WAY: f32 = 0.012;
/// Least factor of the area within [`MEMORY`] frames to be said to grow.
const LEAST_GROWTH: f32 = 1.12;

fn movement(trail: &Trail, diagonal: f32) -> Option<&'static str> {
    let (first, last) = (trail.past.first()?, trail.past.last()?);
    let [dx, dy] = [last.0[0] - first.0[0], last.0[1] - first.0[1]];
    if dx.hypot(dy) >= LEAST_WAY * diagonal {
        return Some(match (dx.abs() >= dy.abs(), dx > 0.0, dy > 0.0) {
            (true, true, _) => "moves right",
            (true, false, _) => "moves left",
            (false, _, true) => "moves down",
            (false, _, false) => "moves up",
        });
    }
    if last.1 >= LEAST_GROWTH * first.1 {
        return Some("grows");
    }
    (first.1 >= LEAST_GROWTH * last.1).then_some("shrinks")
}

/// The name of a colour by hue, saturation and value.
pub fn colour_word([r, g, b]: [f32; 3]) -> &'static str {
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    let (value, saturation) = (max / 255.0, if max > 0.0 { (max - min) / max } else { 0.0 });
    if value < 0.16 {
        return "black";
    }
    if saturation < 0.22 {
        return if value > 0.8 { "white" } else { "grey" };
    }
    let span = max - min;
    let hue = if max == r {
        60.0 * ((g - b) / span).rem_euclid(6.0)
    } else if max == g {
        60.0 * ((b - r) / span + 2.0)
    } else {
        60.0 * ((r - g) / span + 4.0)
    };
    match hue {
        h if !(14.0..346.0).contains(&h) => "red",
        h if h < 42.0 => {
            if value < 0.6 {
                "brown"
            } else {
                "orange"
            }
        }
        h if h < 72.0 => "yellow",
        h if h < 165.0 => "green",
        h if h < 200.0 => "cyan",
        h if h < 258.0 => "blue",
        h if h < 300.0 => "purple",
        _ => "pink",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_have_their_names() {
        for (rgb, word) in [
            ([220.0, 40.0, 40.0], "red"),
            ([240.0, 150.0, 30.0], "orange"),
            ([240.0, 220.0, 60.0], "yellow"),
            ([60.0, 180.0, 80.0], "green"),
            ([60.0, 90.0, 220.0], "blue"),
            ([150.0, 60.0, 200.0], "purple"),
            ([250.0, 250.0, 250.0], "white"),
            ([90.0, 90.0, 95.0], "grey"),
            ([10.0, 12.0, 9.0], "black"),
        ] {
            assert_eq!(colour_word(rgb), word, "{rgb:?}");
        }
    }

    #[test]
    fn pictures_are_averages_of_blocks() {
        let frame = RgbFrame::new(4, 2, (0..24).map(|v| v * 4).collect()).unwrap();
        let small = Picture::of(&frame, 2);
        assert_eq!((small.width, small.height), (2, 1));
        assert_eq!(small.at(0), [30, 34, 38]);
        assert_eq!(Picture::of(&frame, 4).data, frame.data);
    }
}
