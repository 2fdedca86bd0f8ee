//! What was followed, as objects with words.
//!
//! Comes in: the sightings of a stretch of frames. Goes out: per frame the objects in pixels of the source, with a colour, a size, a word for how
//! they move, and a score that says how sure it is that there is one thing and that this is its box. Nothing is looked for here.

use std::collections::BTreeMap;

use super::boxes::{area, inside, way};
use super::follow::Sighting;
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
            // A box that is expected outside of the picture shows nothing.
            if area(object.xyxy) > 0.0 {
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

fn object(course: &Course, place: usize, scale: Scale) -> Object {
    let Sighting { xyxy, colour, seen, .. } = course[place].1;
    let share = area(xyxy) / (scale.size[0] * scale.size[1]);
    let size = if share < 0.01 {
        "small"
    } else if share > 0.06 {
        "large"
    } else {
        "medium"
    };
    Object {
        xyxy: inside(xyxy, scale.size).map(|v| v * scale.block),
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
    let [dx, dy] = way(a, b);
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

#[cfg(test)]
mod tests {
    use super::*;

    const SCALE: Scale = Scale { block: 2.0, size: [100.0, 100.0], rate: 10.0 };

    fn course(boxes: &[[f32; 4]]) -> Vec<Vec<Sighting>> {
        let sighting = |xyxy: &[f32; 4]| Sighting { thing: 1, xyxy: *xyxy, seen: 1.0, colour: "red" };
        boxes.iter().map(|b| vec![sighting(b)]).collect()
    }

    #[test]
    fn what_lasts_is_believed_and_what_flickers_is_not() {
        let long = report(course(&[[10.0, 10.0, 30.0, 30.0]; 20]), SCALE);
        assert!(long.iter().all(|o| o[0].score > 0.9 && o[0].xyxy == [20.0, 20.0, 60.0, 60.0]));
        assert_eq!((long[0][0].appearance.as_deref(), &long[0][0].action), (Some("medium red"), &None));
        assert!(report(course(&[[10.0, 10.0, 30.0, 30.0]; 2]), SCALE)[0][0].score < 0.6);
    }

    #[test]
    fn a_flash_does_not_swell_the_box_and_growth_does() {
        let mut boxes = vec![[40.0, 40.0, 60.0, 60.0]; 12];
        boxes[4..9].fill([34.0, 34.0, 66.0, 66.0]);
        let steady = report(course(&boxes), SCALE);
        assert!(steady.iter().all(|o| o[0].xyxy == [80.0, 80.0, 120.0, 120.0]));
        let grown: Vec<[f32; 4]> = (0..12).map(|i| [40.0 - i as f32, 40.0, 60.0 + i as f32, 60.0]).collect();
        let said = report(course(&grown), SCALE);
        assert_eq!(said[11][0].xyxy, [58.0, 80.0, 142.0, 120.0]);
        assert_eq!(said[6][0].action.as_deref(), Some("grows"));
    }

    #[test]
    fn movement_has_a_direction_and_boxes_end_at_the_rim() {
        let boxes: Vec<[f32; 4]> =
            (0..12).map(|i| [85.0 + 2.0 * i as f32, 10.0, 105.0 + 2.0 * i as f32, 30.0]).collect();
        let said = report(course(&boxes), SCALE);
        assert_eq!(said[3][0].action.as_deref(), Some("moves right"));
        assert_eq!(said[3][0].xyxy[2], 200.0);
        assert!(said[8..].iter().all(Vec::is_empty));
    }
}
