//! Patches of one picture that differ from the scene, and what surrounds them.
//!
//! Comes in: a scene, a picture and the mask of what differs. Goes out: evenly coloured patches, how picture and scene change across their borders,
//! how much they look like what is around, and the still parts that go on where a moving one ends. What follows from it is decided in `rest`.

use super::mask::{Part, neighbours};
use super::picture::{Picture, difference};
use super::scene::Scene;

/// Patches of fewer pixels say nothing.
pub const LEAST_PATCH: usize = 6;
/// Least share of the border of a still part that touches the moving part.
const LEAST_TOUCH: f32 = 0.08;

/// One picture's patches.
pub struct Patches<'a> {
    scene: &'a Scene,
    picture: &'a Picture,
    mask: &'a [u8],
    /// Number of the patch per pixel, 0 outside of all.
    labels: Vec<u32>,
    /// Pixels by patch; the first is empty.
    members: Vec<Vec<usize>>,
}

/// What a patch's border looks like.
#[derive(Debug, Default)]
pub struct Border {
    /// Pairs of pixels across it that the scene alone tells apart.
    pub scene: f32,
    /// That the picture alone tells apart.
    pub picture: f32,
    /// That both tell apart.
    pub both: f32,
    /// Pixels just outside that look like the patch.
    pub alike: Vec<usize>,
}

impl<'a> Patches<'a> {
    /// No patches yet.
    pub fn new(scene: &'a Scene, picture: &'a Picture, mask: &'a [u8]) -> Self {
        Self { scene, picture, mask, labels: vec![0; mask.len()], members: vec![Vec::new()] }
    }

    /// The pixels of a patch.
    pub fn members(&self, label: usize) -> &[usize] {
        &self.members[label]
    }

    /// Divides a part of the mask where the colour of the picture or of the scene changes; returns the numbers of its patches.
    pub fn divide(&mut self, part: &Part) -> std::ops::Range<usize> {
        let (mask, width, step) = (self.mask, self.picture.width, self.scene.threshold / 2);
        let first = self.members.len();
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
        first..self.members.len()
    }

    /// Some pixels at rest around a box, spread evenly.
    pub fn around(&self, [x1, y1, x2, y2]: [usize; 4]) -> Vec<usize> {
        let (width, height) = (self.picture.width, self.picture.height);
        let room = 6 + (x2 - x1).max(y2 - y1) / 3;
        let (xs, ys) = (
            x1.saturating_sub(room)..(x2 + room).min(width),
            y1.saturating_sub(room)..(y2 + room).min(height),
        );
        let step = ((xs.len() * ys.len()) as f32 / 900.0).sqrt().ceil().max(1.0) as usize;
        let inside = |x: usize, y: usize| (x1..x2).contains(&x) && (y1..y2).contains(&y);
        ys.step_by(step)
            .flat_map(|y| {
                xs.clone().step_by(step).filter(move |x| !inside(*x, y)).map(move |x| y * width + x)
            })
            .filter(|p| self.mask[*p] == 0)
            .collect()
    }

    /// Share of a patch's pixels that look like something around it, in the picture and in the scene.
    pub fn likeness(&self, label: usize, around: &[usize]) -> [f32; 2] {
        let members = &self.members[label];
        let share = |picture: &Picture| {
            let mut palette = [0u16; 4096];
            around.iter().for_each(|&p| palette[bin(self.picture.at(p))] += 1);
            let least = (around.len() / 50 + 1) as u16;
            let step = (members.len() / 64).max(1);
            let picked = members.iter().step_by(step);
            let all = picked.clone().count().max(1);
            let like =
                picked.filter(|p| near(bin(picture.at(**p))).map(|b| palette[b]).sum::<u16>() >= least);
            like.count() as f32 / all as f32
        };
        [share(self.picture), share(&self.scene.picture)]
    }

    /// Compares both sides of a patch's border, past its blur.
    pub fn border(&self, label: usize) -> Border {
        let (width, height) = (self.picture.width as isize, self.picture.height as isize);
        let threshold = self.scene.threshold;
        let (own, mut border) = (label as u32, Border::default());
        for &p in &self.members[label] {
            let (x, y) = (p as isize % width, p as isize / width);
            for (dx, dy) in [(1, 0), (-1, 0), (0, 1), (0, -1)] {
                let at = |k: isize| {
                    let (x, y) = (x + k * dx, y + k * dy);
                    (x >= 0 && y >= 0 && x < width && y < height).then_some((y * width + x) as usize)
                };
                let (Some(next), Some(outer)) = (at(1), at(3)) else { continue };
                if self.labels[next] == own || self.labels[outer] == own {
                    continue;
                }
                let inner = at(-1).filter(|i| self.labels[*i] == own).unwrap_or(p);
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
    pub fn still(&self, seeds: &[usize], palette: &Palette, most: usize) -> Vec<(Vec<usize>, f32)> {
        let (width, count) = (self.picture.width, self.labels.len());
        if seeds.is_empty() {
            return Vec::new();
        }
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
pub struct Palette([bool; 4096]);

impl Default for Palette {
    fn default() -> Self {
        Self([false; 4096])
    }
}

impl Palette {
    /// Takes a colour and those next to it in.
    pub fn add(&mut self, colour: [u8; 3]) {
        near(bin(colour)).for_each(|b| self.0[b] = true);
    }

    /// Takes a colour and those next to it out.
    pub fn remove(&mut self, colour: [u8; 3]) {
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
