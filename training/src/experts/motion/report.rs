//! What was followed, as objects with words.
//!
//! Comes in: the sightings of a stretch of frames. Goes out: per frame the objects in pixels of the source, with a colour, a size, a word for how they move, and a score that
//! says how sure it is that there is one thing and that this is its box. Nothing is looked for here.

use std::collections::BTreeMap;

use super::follow::{Sighting, Xyxy};
use crate::tracks::detections::Object;

/// What turns sightings into objects.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Pixels of the source per pixel of the picture.
    pub block: f32,
    /// Pixels per row and rows of the picture.
    pub size: [f32; 2],
    /// Frames per second.
    pub rate: f32,
}

/// One thing's sightings: frame and what was seen.
type Course = Vec<(usize, Sighting)>;

/// The objects of every frame.
pub fn report(seen: Vec<Vec<Sighting>>, scale: Scale) -> Vec<Vec<Object>> {
    let mut courses: BTreeMap<u32, Course> = BTreeMap::new();
    let mut frames: Vec<Vec<Object>> = seen.iter().map(|_| Vec::new()).collect();
    for (frame, sightings) in seen.into_iter().enumerate() {
        for sighting in sightings {
            courses.entry(sighting.thing).or_default().push((frame, sighting));
        }
    }
    for mut course in courses.into_values() {
        steady(&mut course, scale.rate);
        for place in 0..course.len() {
            let object = object(&course, place, scale);
            if object.xyxy[2] > object.xyxy[0] && object.xyxy[3] > object.xyxy[1] {
                frames[course[place].0].push(object);
            }
        }
    }
    frames
}

/// Factor of the area from one frame to the next that no thing grows by: light, or something else that came to it.
const SUDDEN: f32 = 1.35;

/// Undoes sudden growth that ends within a second at the size before.
fn steady(course: &mut Course, rate: f32) {
    let mut place = 1;
    while place < course.len() {
        let before = course[place - 1].1.xyxy;
        if area(course[place].1.xyxy) > SUDDEN * area(before) {
            let last = course[place - 1].0 + rate.ceil() as usize;
            let ends = (place + 1..course.len()).take_while(|&i| course[i].0 <= last).find(|&i| {
                let now = area(course[i].1.xyxy);
                now < area(course[i - 1].1.xyxy) / SUDDEN && (0.8..1.25).contains(&(now / area(before)))
            });
            if let Some(end) = ends {
                let after = course[end].1.xyxy;
                let span = (course[end].0 - course[place - 1].0) as f32;
                let first = course[place - 1].0;
                for (frame, sighting) in &mut course[place..end] {
                    let share = (*frame - first) as f32 / span;
                    sighting.xyxy = std::array::from_fn(|i| before[i] + (after[i] - before[i]) * share);
                }
                place = end;
            }
        }
        place += 1;
    }
}

fn area([x1, y1, x2, y2]: Xyxy) -> f32 {
    (x2 - x1).max(0.0) * (y2 - y1).max(0.0)
}

fn object(course: &Course, place: usize, scale: Scale) -> Object {
    let Sighting { xyxy: [x1, y1, x2, y2], colour, seen, .. } = course[place].1;
    let [width, height] = scale.size;
    let share = area(course[place].1.xyxy) / (width * height);
    let size = if share < 0.01 {
        "small"
    } else if share > 0.06 {
        "large"
    } else {
        "medium"
    };
    let edges = [x1.max(0.0), y1.max(0.0), x2.min(width), y2.min(height)];
    Object {
        xyxy: edges.map(|v| v * scale.block),
        score: score(course, seen, scale.rate),
        category: "object".into(),
        appearance: Some(format!("{size} {colour}")),
        action: movement(course, place, scale).map(String::from),
        caption: None,
    }
}

/// Seconds after which a thing is taken for real.
const SURE: f32 = 0.8;

/// What is seen for long is real, what is seen whole has the right box.
fn score(course: &Course, seen: f32, rate: f32) -> f32 {
    let lasting = (course.len() as f32 / (SURE * rate).max(1.0)).min(1.0);
    (0.35 + 0.6 * lasting) * (0.4 + 0.6 * seen.min(1.0))
}

/// Seconds that a word about movement looks back and ahead, together.
const MOMENT: f32 = 0.3;
/// Least way of the centre in that time, in shares of the diagonal, to be said to move.
const LEAST_WAY: f32 = 0.012;
/// Least factor of the area in that time to be said to grow.
const LEAST_GROWTH: f32 = 1.12;

fn movement(course: &Course, place: usize, scale: Scale) -> Option<&'static str> {
    let reach = (MOMENT / 2.0 * scale.rate).ceil().max(1.0) as usize;
    let near = |i: &usize| course[*i].0.abs_diff(course[place].0) <= reach;
    let first = (0..=place).rev().take_while(near).last()?;
    let last = (place..course.len()).take_while(near).last()?;
    let (a, b) = (course[first].1.xyxy, course[last].1.xyxy);
    let [dx, dy] = [(b[0] + b[2] - a[0] - a[2]) / 2.0, (b[1] + b[3] - a[1] - a[3]) / 2.0];
    if dx.hypot(dy) >= LEAST_WAY * scale.size[0].hypot(scale.size[1]) {
        return Some(match (dx.abs() >= dy.abs(), dx > 0.0, dy > 0.0) {
            (true, true, _) => "moves right",
            (true, false, _) => "moves left",
            (false, _, true) => "moves down",
            (false, _, false) => "moves up",
        });
    }
    if area(b) >= LEAST_GROWTH * area(a) {
        return Some("grows");
    }
    (area(a) >= LEAST_GROWTH * area(b)).then_some("shrinks")
}
