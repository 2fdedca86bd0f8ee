//! Cast shadows: darker scenery at the side of a thing.
//!
//! Comes in: a connected part of what differs from the scene. Goes out: the part without what only lies in shadow beside the rest. A part that is
//! mostly scenery in shadow is left as it is: it may as well be a thing of the same colour.

use super::mask::{Part, Run};
use super::picture::Picture;
use super::scene::Scene;

/// Factors by which a shadow darkens.
const DARKENS: std::ops::RangeInclusive<f32> = 0.45..=0.92;
/// Largest difference from the darkened scene, in grey levels.
const SAME: f32 = 7.0;
/// Least brightness of scenery whose shadow is known as one, in grey levels.
const BRIGHT: f32 = 40.0;
/// Least share of the part that must be no shadow.
const LEAST_SOLID: f32 = 0.4;

/// Whether a pixel shows the scene in shadow.
fn shadowed(scene: &Scene, picture: &Picture, pixel: usize) -> bool {
    let (rest, now) = (scene.picture.at(pixel).map(f32::from), picture.at(pixel).map(f32::from));
    let dot = |a: [f32; 3], b: [f32; 3]| a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
    let power = dot(rest, rest);
    let factor = dot(now, rest) / power.max(1.0);
    let same = || (0..3).all(|c| (now[c] - factor * rest[c]).abs() <= SAME);
    power >= 3.0 * BRIGHT * BRIGHT && DARKENS.contains(&factor) && same()
}

/// Cuts a part down to the box of its pixels that are no shadow.
pub fn trim(part: &mut Part, scene: &Scene, picture: &Picture) {
    let [x1, y1, x2, y2] = part.bounds().map(|v| v as usize);
    let (mut columns, mut rows) = (vec![0u32; x2 - x1], vec![0u32; y2 - y1]);
    let width = picture.width;
    for pixel in part.pixels(width).filter(|p| !shadowed(scene, picture, *p)) {
        columns[pixel % width - x1] += 1;
        rows[pixel / width - y1] += 1;
    }
    let solid: u32 = rows.iter().sum();
    if (solid as f32) < LEAST_SOLID * part.area() as f32 {
        return;
    }
    // A single pixel is no edge.
    let edges = |counts: &[u32]| {
        let thick = |c: &u32| *c >= 2;
        let first = counts.iter().position(thick)?;
        Some((first as u32, counts.iter().rposition(thick)? as u32 + 1))
    };
    let (Some(across), Some(down)) = (edges(&columns), edges(&rows)) else { return };
    let (left, right) = (x1 as u32 + across.0, x1 as u32 + across.1);
    let (top, bottom) = (y1 as u32 + down.0, y1 as u32 + down.1);
    part.runs.retain(|r| (top..bottom).contains(&r.y) && r.from < right && r.to > left);
    for Run { from, to, .. } in &mut part.runs {
        (*from, *to) = ((*from).max(left), (*to).min(right));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experts::motion::mask;

    #[test]
    fn a_shadow_beside_a_thing_is_cut_off_and_a_dark_thing_is_kept() {
        let wall = Picture::bricks(96, 64);
        let scene = Scene { picture: wall.clone(), threshold: 24 };
        let mut picture = wall.clone();
        for p in
            (0..picture.pixels()).filter(|p| (30..70).contains(&(p % 96)) && (40..50).contains(&(p / 96)))
        {
            picture.set(p, wall.at(p).map(|v| (f32::from(v) * 0.6) as u8));
        }
        let shadow = mask::parts(&scene.foreground(&picture), 96);
        let picture = picture.with([30, 10, 45, 50], [200, 60, 50]);
        let mut parts = mask::parts(&scene.foreground(&picture), 96);
        assert!(parts.len() == 1 && parts[0].bounds()[2] == 70);
        trim(&mut parts[0], &scene, &picture);
        assert_eq!(parts[0].bounds(), [30, 10, 45, 50]);
        let mut alone = shadow[0].clone();
        trim(&mut alone, &scene, &picture.with([0, 0, 96, 64], [60, 60, 60]));
        assert_eq!(alone, shadow[0]);
    }
}
