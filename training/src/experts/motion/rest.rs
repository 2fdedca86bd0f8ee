//! Objects at rest: where the colour that is seen longest is no scenery.
//!
//! Comes in: a scene as first learned, and the pictures. Every patch of a picture that differs from the scene is asked which of the two fits the surroundings: where
//! it is the picture, an object of the scene has left; where it is neither, something changes in place; where a patch goes on beyond its border in its own colours,
//! that part stands still. Goes out: the scene with those pixels as they look without the object, or as their surroundings do. What never moves nor changes stays.

use super::mask::{Part, parts};
use super::picture::{Picture, difference};
use super::scene::Scene;

/// Rounds of correction, at most: a corner that moves gives away an object, which gives away its middle.
const ROUNDS: usize = 4;
/// More than this share of a picture in motion says nothing.
const MOST_MOVING: f32 = 0.6;
/// Least number of pictures that must find a pixel wrong.
const LEAST_VOTES: f32 = 1.5;
/// Patches of fewer pixels say nothing.
const LEAST_PATCH: usize = 6;
/// Least balance for or against a patch.
const DECISIVE: f32 = 0.3;
/// Share of its border along which picture and scene both change, of a patch that changes in place.
const IN_PLACE: f32 = 0.6;
/// Least share of the border of a resting part that touches the moving part.
const LEAST_TOUCH: f32 = 0.08;
/// Pixels around a wrong one that are taken to be wrong, too: a blurred rim.
const RIM: usize = 2;

/// What the pictures say of the scene's pixels.
struct Votes {
    sound: Vec<f32>,
    wrong: Vec<f32>,
    /// Sum of the colours shown while an object was away, and how many.
    shown: Vec<([u32; 3], u32)>,
}

/// Corrects the scene.
pub fn correct(scene: &mut Scene, pictures: &[Picture]) {
    let (width, height) = (scene.picture.width, scene.picture.height);
    for _ in 0..ROUNDS {
        let pixels = width * height;
        let mut votes =
            Votes { sound: vec![0.0; pixels], wrong: vec![0.0; pixels], shown: vec![([0; 3], 0); pixels] };
        pictures.iter().for_each(|picture| look(scene, picture, &mut votes));
        let wrong: Vec<u8> = (votes.wrong.iter().zip(&votes.sound))
            .map(|(wrong, sound)| u8::from(*wrong >= LEAST_VOTES && wrong > sound))
            .collect();
        let wrong = enclosed(&wrong, width, height);
        debug(scene, &votes, &wrong); // DEBUG
        if wrong.iter().filter(|w| **w != 0).count() < LEAST_PATCH {
            break;
        }
        let mut open = grow(&wrong, width, height, RIM);
        let before = scene.picture.clone();
        for (pixel, (sum, count)) in votes.shown.iter().enumerate() {
            if wrong[pixel] != 0 && *count > 1 {
                scene.picture.set(pixel, sum.map(|s| ((s + count / 2) / count) as u8));
                open[pixel] = 0;
            }
        }
        fill(&mut scene.picture, &open);
        // What was only enclosed, and looks like what is around, is a hole.
        let filled = (0..pixels).filter(|p| open[*p] != 0 && votes.wrong[*p] < LEAST_VOTES);
        for p in filled {
            if difference(scene.picture.at(p), before.at(p)) <= 2 * scene.threshold {
                scene.picture.set(p, before.at(p));
            }
        }
    }
}

/// One picture's patches.
struct Patches<'a> {
    scene: &'a Scene,
    picture: &'a Picture,
    /// Number of the patch per pixel, 0 outside of all.
    labels: Vec<u32>,
    /// Pixels by patch; the first is empty.
    members: Vec<Vec<usize>>,
}

/// What a patch's border looks like.
#[derive(Default)]
struct Border {
    /// Pairs across the border that only the scene, only the picture, or both tell apart.
    scene: f32,
    picture: f32,
    both: f32,
    /// Pixels just outside that look like the patch.
    alike: Vec<usize>,
}

/// Gathers the votes of one picture.
fn look(scene: &Scene, picture: &Picture, votes: &mut Votes) {
    let mask = scene.foreground(picture);
    let moving = mask.iter().filter(|m| **m != 0).count();
    if moving == 0 || moving as f32 > MOST_MOVING * mask.len() as f32 {
        return;
    }
    let width = picture.width;
    let mut patches =
        Patches { scene, picture, labels: vec![0; mask.len()], members: vec![Vec::new()] };
    for group in groups(parts(&mask, width)) {
        let first = patches.members.len();
        group.iter().for_each(|part| patches.divide(part, &mask));
        let around = patches.around(bounds(&group), &mask);
        let (mut seeds, mut palette) = (Vec::new(), Palette::default());
        for label in first..patches.members.len() {
            let members = &patches.members[label];
            if members.len() < LEAST_PATCH {
                continue;
            }
            let border = patches.border(label as u32);
            let sum = border.scene + border.picture + border.both;
            if sum < 4.0 {
                continue;
            }
            let [now, at_rest] = patches.likeness(members, &around);
            if std::env::var("UTR_TRACE").is_ok() { eprintln!("patch {} at {:?} scene {} picture {} both {} now {now:.2} rest {at_rest:.2}", members.len(), (members[0] % width, members[0]/width), border.scene, border.picture, border.both); } // DEBUG
            if border.both >= IN_PLACE * sum {
                members.iter().for_each(|&p| votes.wrong[p] += 1.0);
                continue;
            }
            let balance = (border.scene - border.picture) / sum + now - at_rest;
            if balance >= DECISIVE {
                for &p in members {
                    votes.wrong[p] += 1.0;
                    if now >= 0.5 {
                        let (sum, count) = &mut votes.shown[p];
                        let colour = picture.at(p);
                        (0..3).for_each(|c| sum[c] += u32::from(colour[c]));
                        *count += 1;
                    }
                }
            } else if balance <= -DECISIVE {
                members.iter().for_each(|&p| votes.sound[p] += 1.0);
                seeds.extend(border.alike);
                members.iter().for_each(|&p| palette.add(picture.at(p)));
            }
        }
        around.iter().for_each(|&p| palette.remove(picture.at(p)));
        let most = 3 * group.iter().map(Part::area).sum::<usize>();
        for (still, touch) in patches.still(&seeds, &palette, most) {
            still.into_iter().for_each(|p| votes.wrong[p] += (4.0 * touch).min(1.0));
        }
    }
}

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

impl Patches<'_> {
    /// Divides a part of the mask where the colour of the picture or of the scene changes.
    fn divide(&mut self, part: &Part, mask: &[u8]) {
        let (width, step) = (self.picture.width, self.scene.threshold / 2);
        let mut stack = Vec::new();
        for start in part.pixels(width) {
            if self.labels[start] != 0 {
                continue;
            }
            let label = self.members.len() as u32;
            let mut members = Vec::new();
            self.labels[start] = label;
            stack.push(start);
            while let Some(p) = stack.pop() {
                members.push(p);
                for n in neighbours(p, width, mask.len()) {
                    let same = mask[n] != 0 && self.labels[n] == 0;
                    let even = |of: &Picture| difference(of.at(p), of.at(n)) <= step;
                    if same && even(self.picture) && even(&self.scene.picture) {
                        self.labels[n] = label;
                        stack.push(n);
                    }
                }
            }
            self.members.push(members);
        }
    }

    /// Some pixels at rest around a box, spread evenly.
    fn around(&self, [x1, y1, x2, y2]: [usize; 4], mask: &[u8]) -> Vec<usize> {
        let (width, height) = (self.picture.width, self.picture.height);
        let room = 6 + (x2 - x1).max(y2 - y1) / 3;
        let (xs, ys) = (x1.saturating_sub(room)..(x2 + room).min(width), y1.saturating_sub(room)..(y2 + room).min(height));
        let step = ((xs.len() * ys.len()) as f32 / 900.0).sqrt().ceil().max(1.0) as usize;
        let inside = |x: usize, y: usize| (x1..x2).contains(&x) && (y1..y2).contains(&y);
        ys.step_by(step)
            .flat_map(|y| xs.clone().step_by(step).filter(move |x| !inside(*x, y)).map(move |x| y * width + x))
            .filter(|p| mask[*p] == 0)
            .collect()
    }

    /// Share of a patch's pixels that look like something around it, in the picture and in the scene.
    fn likeness(&self, members: &[usize], around: &[usize]) -> [f32; 2] {
        let share = |picture: &Picture| {
            let mut palette = [0u16; 4096];
            around.iter().for_each(|&p| palette[bin(self.picture.at(p))] += 1);
            let least = (around.len() / 50 + 1) as u16;
            let step = (members.len() / 64).max(1);
            let picked = members.iter().step_by(step);
            let all = picked.clone().count().max(1);
            let like = picked.filter(|p| near(bin(picture.at(**p))).map(|b| palette[b]).sum::<u16>() >= least);
            like.count() as f32 / all as f32
        };
        [share(self.picture), share(&self.scene.picture)]
    }

    /// Compares both sides of a patch's border, past its blur.
    fn border(&self, label: u32) -> Border {
        let (width, height) = (self.picture.width as isize, self.picture.height as isize);
        let threshold = self.scene.threshold;
        let mut border = Border::default();
        for &p in &self.members[label as usize] {
            let (x, y) = (p as isize % width, p as isize / width);
            for (dx, dy) in [(1, 0), (-1, 0), (0, 1), (0, -1)] {
                let at = |k: isize| {
                    let (x, y) = (x + k * dx, y + k * dy);
                    (x >= 0 && y >= 0 && x < width && y < height).then_some((y * width + x) as usize)
                };
                let (Some(next), Some(outer)) = (at(1), at(3)) else { continue };
                if self.labels[next] == label || self.labels[outer] == label {
                    continue;
                }
                let inner = at(-1).filter(|i| self.labels[*i] == label).unwrap_or(p);
                let scene = difference(self.scene.picture.at(inner), self.scene.picture.at(outer));
                let now = difference(self.picture.at(inner), self.picture.at(outer));
                if scene > threshold && scene / 2 >= now {
                    // Between two patches that are told apart by the scene alone this is no news.
                    if self.labels[outer] == 0 {
                        border.scene += 1.0;
                        border.alike.push(outer);
                    }
                } else if now > threshold && now / 2 >= scene {
                    border.picture += 1.0;
                } else if now > threshold && scene > threshold {
                    border.both += 1.0;
                }
            }
        }
        border
    }

    /// The connected still parts from `seeds` on in the colours of what moves, but for those larger than `most` and those that hardly touch it.
    fn still(&self, seeds: &[usize], palette: &Palette, most: usize) -> Vec<(Vec<usize>, f32)> {
        let (width, count) = (self.picture.width, self.labels.len());
        let mut part = vec![0u32; count];
        let fits = |p: usize| self.labels[p] == 0 && palette.has(self.picture.at(p));
        let mut found: Vec<Vec<usize>> = Vec::new();
        for &seed in seeds.iter().filter(|s| fits(**s)) {
            if part[seed] != 0 {
                continue;
            }
            let own = found.len() as u32 + 1;
            let (mut members, mut stack) = (Vec::new(), vec![seed]);
            part[seed] = own;
            while let Some(p) = stack.pop() {
                members.push(p);
                for n in neighbours(p, width, count) {
                    if part[n] == 0 && fits(n) {
                        part[n] = own;
                        stack.push(n);
                    }
                }
            }
            found.push(members);
        }
        let kept = |(members, own): (Vec<usize>, u32)| {
            let edges = outline(&members, width);
            let touching = seeds.iter().filter(|s| part[**s] == own).count();
            let sized = (LEAST_PATCH..=most).contains(&members.len());
            let touch = touching as f32 / edges.max(1) as f32;
            if std::env::var("UTR_TRACE").is_ok() { eprintln!("  still {} at {:?} edges {edges} touching {touching} most {most}", members.len(), (members[0] % width, members[0]/width)); } // DEBUG
            (sized && touch >= LEAST_TOUCH).then_some((members, touch))
        };
        found.into_iter().zip(1..).filter_map(kept).collect()
    }
}

/// Length of the outer border of a connected set of pixels.
fn outline(members: &[usize], width: usize) -> usize {
    let reach = |b: [usize; 4], p: &usize| {
        let (x, y) = (p % width, p / width);
        [b[0].min(x), b[1].min(y), b[2].max(x), b[3].max(y)]
    };
    let [x1, y1, x2, y2] = members.iter().fold([usize::MAX, usize::MAX, 0, 0], reach);
    // A frame of one pixel around, from which the outside is flooded.
    let (columns, rows) = (x2 - x1 + 3, y2 - y1 + 3);
    let mut set = vec![0u8; columns * rows];
    members.iter().for_each(|p| set[(p / width - y1 + 1) * columns + p % width - x1 + 1] = 1);
    let (mut edges, mut stack) = (0, vec![0]);
    set[0] = 2;
    while let Some(p) = stack.pop() {
        for n in neighbours(p, columns, columns * rows) {
            match set[n] {
                1 => edges += 1,
                0 => {
                    set[n] = 2;
                    stack.push(n);
                }
                _ => {}
            }
        }
    }
    edges
}

/// A set of colours, four bits a channel.
struct Palette([bool; 4096]);

impl Default for Palette {
    fn default() -> Self {
        Self([false; 4096])
    }
}

impl Palette {
    fn add(&mut self, colour: [u8; 3]) {
        near(bin(colour)).for_each(|b| self.0[b] = true);
    }

    fn remove(&mut self, colour: [u8; 3]) {
        near(bin(colour)).for_each(|b| self.0[b] = false);
    }

    fn has(&self, colour: [u8; 3]) -> bool {
        self.0[bin(colour)]
    }
}

fn bin(colour: [u8; 3]) -> usize {
    colour.iter().fold(0, |bin, v| bin << 4 | usize::from(v >> 4))
}

/// A bin and those next to it along one channel.
fn near(bin: usize) -> impl Iterator<Item = usize> {
    let step = move |shift: usize| {
        let level = bin >> shift & 15;
        let down = (level > 0).then(|| bin - (1 << shift));
        let up = (level < 15).then(|| bin + (1 << shift));
        [down, up]
    };
    [Some(bin)].into_iter().chain([8, 4, 0].into_iter().flat_map(step)).flatten()
}

/// The pixels left, right, above and below.
pub fn neighbours(p: usize, width: usize, count: usize) -> impl Iterator<Item = usize> {
    let column = p % width;
    let left = (column > 0).then(|| p - 1);
    let right = (column + 1 < width).then_some(p + 1);
    let up = (p >= width).then(|| p - width);
    let down = (p + width < count).then_some(p + width);
    [left, right, up, down].into_iter().flatten()
}

/// The mask without narrow gaps, holes and single pixels.
fn enclosed(mask: &[u8], width: usize, height: usize) -> Vec<u8> {
    let mask = super::mask::majority(mask, width, height);
    let gap = 1 + width.max(height) / 64;
    let turn = |mask: Vec<u8>| -> Vec<u8> { mask.into_iter().map(|m| 1 - m).collect() };
    let mask = turn(grow(&turn(grow(&mask, width, height, gap)), width, height, gap));
    let turned: Vec<u8> = mask.iter().map(|m| 1 - m).collect();
    let mut out = mask;
    for part in parts(&turned, width) {
        let [x1, y1, x2, y2] = part.bounds().map(|v| v as usize);
        let outside = x1 == 0 || y1 == 0 || x2 == width || y2 == height;
        if !outside && part.area() < out.len() / 8 {
            part.pixels(width).for_each(|p| out[p] = 1);
        }
    }
    out
}

/// The mask and everything within `rim` pixels of it.
fn grow(mask: &[u8], width: usize, height: usize, rim: usize) -> Vec<u8> {
    let mut out = vec![0u8; mask.len()];
    for (p, _) in mask.iter().enumerate().filter(|(_, m)| **m != 0) {
        let (x, y) = (p % width, p / width);
        for row in y.saturating_sub(rim)..(y + rim + 1).min(height) {
            out[row * width + x.saturating_sub(rim)..row * width + (x + rim + 1).min(width)].fill(1);
        }
    }
    out
}

/// Gives open pixels the mean of their known neighbours, from the rim inwards.
fn fill(picture: &mut Picture, open: &[u8]) {
    let (width, height) = (picture.width, picture.height);
    let mut open = open.to_vec();
    let mut left: Vec<usize> = (0..open.len()).filter(|p| open[*p] != 0).collect();
    if left.len() == open.len() {
        return;
    }
    while !left.is_empty() {
        let filled: Vec<(usize, [u8; 3])> = left
            .iter()
            .filter_map(|&p| {
                let (x, y) = (p % width, p / width);
                let (rows, columns) =
                    (y.saturating_sub(1)..=(y + 1).min(height - 1), x.saturating_sub(1)..=(x + 1).min(width - 1));
                let known = rows
                    .flat_map(|r| columns.clone().map(move |c| r * width + c))
                    .filter(|n| open[*n] == 0)
                    .map(|n| picture.at(n));
                let (sum, count) = known.fold(([0u32; 3], 0u32), |(sum, n), c| {
                    ([0, 1, 2].map(|i| sum[i] + u32::from(c[i])), n + 1)
                });
                (count > 0).then(|| (p, sum.map(|s| (s / count) as u8)))
            })
            .collect();
        for (p, colour) in filled {
            open[p] = 0;
            picture.set(p, colour);
        }
        left.retain(|p| open[*p] != 0);
    }
}

// DEBUG
fn debug(scene: &Scene, votes: &Votes, wrong: &[u8]) {
    use std::sync::atomic::*;
    static N: AtomicUsize = AtomicUsize::new(0);
    if let Ok(path) = std::env::var("UTR_DUMP") {
        let n = N.fetch_add(1, Ordering::SeqCst);
        let (w, h) = (scene.picture.width, scene.picture.height);
        let mut out = format!("P6 {} {} 255\n", w * 2, h).into_bytes();
        for y in 0..h {
            for x in 0..w { out.extend(scene.picture.at(y * w + x)); }
            for x in 0..w { let p = y * w + x; out.extend([(votes.wrong[p] * 8.0).min(255.0) as u8, (votes.sound[p] * 8.0).min(255.0) as u8, wrong[p] * 255]); }
        }
        std::fs::write(format!("{path}/{n:03}.ppm"), out).unwrap();
    }
}
