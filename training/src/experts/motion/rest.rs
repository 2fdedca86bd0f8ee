//! Objects at rest: where the colour that is seen longest is no scenery.
//!
//! Comes in: a scene as first learned, and the pictures. Every patch of a picture that differs from the scene is asked which of the two fits the
//! surroundings: where it is the picture, an object of the scene has left; where it is neither, something changes in place; where a moving patch goes
//! on beyond its border in its own colours, that part stands still. Goes out: the scene with those pixels as they look without the object, or as
//! their surroundings do. What never moves nor changes stays.

use super::mask::{Part, enclosed, grow, parts};
use super::patches::{LEAST_PATCH, Palette, Patches};
use super::picture::{Picture, difference};
use super::scene::Scene;

/// Rounds of correction, at most: a corner that moves gives away an object, which gives away its middle.
const ROUNDS: usize = 4;
/// More than this share of a picture in motion says nothing.
const MOST_MOVING: f32 = 0.6;
/// Least number of pictures that must find a pixel wrong.
const LEAST_VOTES: f32 = 1.5;
/// Pairs of pixels across a border, fewer of which say nothing.
const LEAST_BORDER: f32 = 4.0;
/// Least balance for or against a patch.
const DECISIVE: f32 = 0.3;
/// Share of its border along which picture and scene both change, of a patch that changes in place.
const IN_PLACE: f32 = 0.6;
/// Share of a patch that looks like its surroundings, above which it shows them.
const SHOWS: f32 = 0.5;
/// Largest still part, in areas of what moves beside it.
const MOST_STILL: usize = 3;
/// Pixels around a wrong one that are taken to be wrong, too: a blurred rim.
const RIM: usize = 2;

/// What the pictures say of the scene's pixels.
struct Votes {
    sound: Vec<f32>,
    wrong: Vec<f32>,
    /// Sum of the colours shown while an object was away, and how many.
    shown: Vec<([u32; 3], u32)>,
}

impl Votes {
    fn show(&mut self, pixel: usize, colour: [u8; 3]) {
        let (sum, count) = &mut self.shown[pixel];
        (0..3).for_each(|c| sum[c] += u32::from(colour[c]));
        *count += 1;
    }
}

/// Corrects the scene.
pub fn correct(scene: &mut Scene, pictures: &[Picture]) {
    for _ in 0..ROUNDS {
        let pixels = scene.picture.pixels();
        let mut votes =
            Votes { sound: vec![0.0; pixels], wrong: vec![0.0; pixels], shown: vec![([0; 3], 0); pixels] };
        pictures.iter().for_each(|picture| look(scene, picture, &mut votes));
        if !mend(scene, &votes) {
            break;
        }
    }
}

/// Mends what the votes find wrong; whether there was anything.
fn mend(scene: &mut Scene, votes: &Votes) -> bool {
    let (width, height) = (scene.picture.width, scene.picture.height);
    let wrong = |(wrong, sound): (&f32, &f32)| u8::from(*wrong >= LEAST_VOTES && wrong > sound);
    let wrong: Vec<u8> = votes.wrong.iter().zip(&votes.sound).map(wrong).collect();
    let wrong = enclosed(&wrong, width, height);
    if wrong.iter().filter(|w| **w != 0).count() < LEAST_PATCH {
        return false;
    }
    let mut open = grow(&wrong, width, height, RIM);
    let before = scene.picture.clone();
    for (pixel, (sum, count)) in votes.shown.iter().enumerate() {
        if wrong[pixel] != 0 && *count > 1 {
            scene.picture.set(pixel, sum.map(|s| ((s + count / 2) / count) as u8));
            open[pixel] = 0;
        }
    }
    scene.picture.fill(&open);
    // What was only enclosed, and looks like what is around, is a hole.
    for p in (0..open.len()).filter(|p| open[*p] != 0 && votes.wrong[*p] < LEAST_VOTES) {
        if difference(scene.picture.at(p), before.at(p)) <= scene.threshold.saturating_mul(2) {
            scene.picture.set(p, before.at(p));
        }
    }
    true
}

/// Gathers the votes of one picture.
fn look(scene: &Scene, picture: &Picture, votes: &mut Votes) {
    let mask = scene.foreground(picture);
    let moving = mask.iter().filter(|m| **m != 0).count();
    if moving == 0 || moving as f32 > MOST_MOVING * mask.len() as f32 {
        return;
    }
    let mut patches = Patches::new(scene, picture, &mask);
    let groups = groups(parts(&mask, picture.width));
    let divided: Vec<Vec<usize>> =
        groups.iter().map(|group| group.iter().flat_map(|part| patches.divide(part)).collect()).collect();
    for (group, labels) in groups.iter().zip(divided) {
        let around = patches.around(bounds(group));
        let (mut alike, mut palette) = (Vec::new(), Palette::default());
        for label in labels {
            let members = patches.members(label);
            match judge(&patches, label, &around) {
                Verdict::Nothing => {}
                Verdict::Changes => members.iter().for_each(|&p| votes.wrong[p] += 1.0),
                Verdict::Leaves { shows } => {
                    members.iter().for_each(|&p| votes.wrong[p] += 1.0);
                    members.iter().filter(|_| shows).for_each(|&p| votes.show(p, picture.at(p)));
                }
                Verdict::Stands { beside } => {
                    members.iter().for_each(|&p| votes.sound[p] += 1.0);
                    members.iter().for_each(|&p| palette.add(picture.at(p)));
                    alike.extend(beside);
                }
            }
        }
        around.iter().for_each(|&p| palette.remove(picture.at(p)));
        let most = MOST_STILL * group.iter().map(Part::area).sum::<usize>();
        for (still, touch) in patches.still(&alike, &palette, most) {
            still.into_iter().for_each(|p| votes.wrong[p] += (4.0 * touch).min(1.0));
        }
    }
}

/// What a patch that differs from the scene tells.
enum Verdict {
    /// Nothing.
    Nothing,
    /// Something changes in place: the scene is wrong.
    Changes,
    /// Something has left: the scene is wrong, and where the patch looks like its surroundings it shows the right one.
    Leaves { shows: bool },
    /// Something stands before the scene, which is right; `beside` it are still pixels that look like it.
    Stands { beside: Vec<usize> },
}

fn judge(patches: &Patches, label: usize, around: &[usize]) -> Verdict {
    if patches.members(label).len() < LEAST_PATCH {
        return Verdict::Nothing;
    }
    let border = patches.border(label);
    let sum = border.scene + border.picture + border.both;
    if sum < LEAST_BORDER {
        return Verdict::Nothing;
    }
    if border.both >= IN_PLACE * sum {
        return Verdict::Changes;
    }
    let [now, at_rest] = patches.likeness(label, around);
    let balance = (border.scene - border.picture) / sum + now - at_rest;
    if balance >= DECISIVE {
        Verdict::Leaves { shows: now >= SHOWS }
    } else if balance <= -DECISIVE {
        Verdict::Stands { beside: border.alike }
    } else {
        Verdict::Nothing
    }
}

/// The box around some parts.
fn bounds(group: &[Part]) -> [usize; 4] {
    let all = group.iter().map(|p| p.bounds().map(|v| v as usize));
    all.fold([usize::MAX, usize::MAX, 0, 0], |a, b| {
        [a[0].min(b[0]), a[1].min(b[1]), a[2].max(b[2]), a[3].max(b[3])]
    })
}

/// Parts near each other belong together: pieces of what turns or grows.
fn groups(parts: Vec<Part>) -> Vec<Vec<Part>> {
    let mut groups: Vec<([usize; 4], Vec<Part>)> = Vec::new();
    for part in parts.into_iter().filter(|p| p.area() >= LEAST_PATCH) {
        let mut own = (bounds(std::slice::from_ref(&part)), vec![part]);
        // Taken in one after the other, as the box grows.
        while let Some(place) = groups.iter().position(|g| close(&g.0, &own.0)) {
            own.1.extend(groups.swap_remove(place).1);
            own.0 = bounds(&own.1);
        }
        groups.push(own);
    }
    groups.into_iter().map(|g| g.1).collect()
}

/// Whether the gap between two boxes is small beside the smaller one.
fn close(a: &[usize; 4], b: &[usize; 4]) -> bool {
    let side = |b: &[usize; 4]| (b[2] - b[0]).max(b[3] - b[1]);
    let room = 2 + 3 * side(a).min(side(b)) / 2;
    (0..2).all(|i| a[i] < b[i + 2] + room && b[i] < a[i + 2] + room)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experts::motion::mask;

    const RED: [u8; 3] = [210, 50, 40];

    fn wall() -> Picture {
        Picture::bricks(96, 64)
    }

    /// The box of all that stands before the scene.
    fn box_before(scene: &Scene, picture: &Picture) -> [u32; 4] {
        let parts = mask::parts(&scene.foreground(picture), picture.width);
        assert_eq!(parts.len(), 1, "{parts:?}");
        parts[0].bounds()
    }

    fn close(a: [u32; 4], b: [u32; 4]) {
        assert!((0..4).all(|i| a[i].abs_diff(b[i]) <= 2), "{a:?} {b:?}");
    }

    #[test]
    fn what_rests_for_most_of_the_time_and_then_leaves_is_found_from_the_start() {
        let at = |x: usize| wall().with([x, 20, x + 20, 40], RED);
        let mut pictures = vec![at(10); 30];
        pictures.extend((1..=10).map(|i| at(10 + 6 * i)));
        let scene = Scene::learn(&pictures, 24);
        close(box_before(&scene, &pictures[0]), [10, 20, 30, 40]);
        close(box_before(&scene, &pictures[39]), [70, 20, 90, 40]);
    }

    #[test]
    fn what_only_grows_for_a_moment_is_found_at_rest() {
        let at = |half: usize| wall().with([48 - half, 32 - half, 48 + half, 32 + half], RED);
        let mut pictures = vec![at(9); 30];
        pictures.extend([11, 13, 15, 15, 13, 11].map(at));
        let scene = Scene::learn(&pictures, 24);
        close(box_before(&scene, &pictures[0]), [39, 23, 57, 41]);
    }

    #[test]
    fn what_changes_its_colour_in_place_stands_before_its_surroundings() {
        let at = |colour| wall().with([30, 20, 50, 40], colour);
        let mut pictures = vec![at(RED); 12];
        pictures.extend(vec![at([40, 60, 220]); 12]);
        pictures.extend(vec![at([250, 250, 250]); 12]);
        let scene = Scene::learn(&pictures, 24);
        for place in [0, 12, 24] {
            close(box_before(&scene, &pictures[place]), [30, 20, 50, 40]);
        }
    }

    #[test]
    fn what_stands_on_the_wall_and_is_only_passed_stays_part_of_it() {
        let poster = wall().with([40, 8, 56, 56], [60, 60, 160]);
        let pictures: Vec<Picture> =
            (0..40).map(|i| poster.clone().with([2 * i, 16, 2 * i + 14, 50], [20, 20, 24])).collect();
        let scene = Scene::learn(&pictures, 24);
        assert_eq!(scene.foreground(&poster).iter().max(), Some(&0));
    }

    #[test]
    fn what_never_moves_is_scenery() {
        let still = wall().with([30, 20, 50, 40], RED);
        let scene = Scene::learn(&vec![still.clone(); 20], 24);
        assert_eq!(scene.picture, still);
    }
}
