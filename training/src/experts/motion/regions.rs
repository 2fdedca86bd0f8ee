//! Connected regions of a mask, parted where the colour changes.
//!
//! Comes in: a picture and a mask. Goes out: regions large enough to be things. Neighbours belong together where they have the same colour
//! name; what is small beside its neighbour (a stripe, a blurred rim) is taken into it, so that two things of two colours that touch stay
//! two.

use std::collections::HashMap;

use super::{Picture, colour_word};

/// A connected region.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// Left, top, right, bottom; the last two lie outside.
    pub xyxy: [f32; 4],
    /// Mean colour of its largest uniform part.
    pub colour: [f32; 3],
    /// Share of its box that it fills.
    pub fill: f32,
}

impl Region {
    /// The middle of its box.
    pub fn centre(&self) -> [f32; 2] {
        [(self.xyxy[0] + self.xyxy[2]) / 2.0, (self.xyxy[1] + self.xyxy[3]) / 2.0]
    }

    /// Area of its box in pixels.
    pub fn box_area(&self) -> f32 {
        (self.xyxy[2] - self.xyxy[0]) * (self.xyxy[3] - self.xyxy[1])
    }

    /// Intersection over union of the boxes.
    pub fn overlap(&self, other: &Region) -> f32 {
        crate::queries::scene::iou(self.xyxy, other.xyxy)
    }
}

/// A fragment below this share of the neighbour that it touches most belongs to it.
const FRAGMENT: f32 = 0.35;

/// A uniform part while regions are put together.
#[derive(Clone, Debug)]
struct Part {
    area: usize,
    sum: [f64; 3],
    min: [usize; 2],
    max: [usize; 2],
    /// Area, sum of colours and colour name of the largest of the parts that were joined.
    main: (usize, [f64; 3], &'static str),
}

impl Part {
    fn join(&mut self, other: &Part) {
        self.area += other.area;
        (0..3).for_each(|c| self.sum[c] += other.sum[c]);
        for axis in 0..2 {
            self.min[axis] = self.min[axis].min(other.min[axis]);
            self.max[axis] = self.max[axis].max(other.max[axis]);
        }
        if other.main.0 > self.main.0 {
            self.main = other.main;
        }
    }
}

/// The regions of at least `least` pixels, in the order of their first pixel.
pub fn regions(picture: &Picture, mask: &[bool], least: usize) -> Vec<Region> {
    let names: Vec<Option<&'static str>> = mask
        .iter()
        .enumerate()
        .map(|(p, set)| set.then(|| family(colour_word(picture.at(p).map(f32::from)))))
        .collect();
    let labels = label(&names, picture.width);
    let mut parts = measure(picture, &labels, &names);
    let mut borders = borders(&labels, picture.width);
    merge(&mut parts, &mut borders, least);
    let mut found: Vec<&Part> = parts.iter().flatten().filter(|p| p.area >= least).collect();
    found.sort_by_key(|p| (p.min[1], p.min[0]));
    found.into_iter().map(region).collect()
}

/// Shades that one thing may show side by side.
fn family(word: &'static str) -> &'static str {
    match word {
        "brown" => "orange",
        "white" | "black" => "grey",
        "cyan" => "blue",
        other => other,
    }
}

fn region(part: &Part) -> Region {
    let xyxy = [part.min[0], part.min[1], part.max[0] + 1, part.max[1] + 1].map(|v| v as f32);
    let (area, sum, _) = part.main;
    Region {
        xyxy,
        colour: sum.map(|s| (s / area.max(1) as f64) as f32),
        fill: part.area as f32 / ((xyxy[2] - xyxy[0]) * (xyxy[3] - xyxy[1])),
    }
}

/// Numbers of connected pixels with equal names (four neighbours); `usize::MAX` outside the mask.
fn label(names: &[Option<&str>], width: usize) -> Vec<usize> {
    const NONE: usize = usize::MAX;
    let mut labels = vec![NONE; names.len()];
    let mut next = 0;
    let mut stack = Vec::new();
    for start in 0..names.len() {
        if names[start].is_none() || labels[start] != NONE {
            continue;
        }
        labels[start] = next;
        stack.push(start);
        while let Some(p) = stack.pop() {
            for n in neighbours(p, width, names.len()) {
                if labels[n] == NONE && names[n] == names[start] {
                    labels[n] = next;
                    stack.push(n);
                }
            }
        }
        next += 1;
    }
    labels
}

fn neighbours(p: usize, width: usize, count: usize) -> impl Iterator<Item = usize> {
    let column = p % width;
    let left = (column > 0).then(|| p - 1);
    let right = (column + 1 < width).then_some(p + 1);
    let up = (p >= width).then(|| p - width);
    let down = (p + width < count).then_some(p + width);
    [left, right, up, down].into_iter().flatten()
}

fn measure(picture: &Picture, labels: &[usize], names: &[Option<&'static str>]) -> Vec<Option<Part>> {
    let count = labels.iter().filter(|l| **l != usize::MAX).max().map_or(0, |l| l + 1);
    let mut parts: Vec<Option<Part>> = vec![None; count];
    for (p, &label) in labels.iter().enumerate().filter(|(_, l)| **l != usize::MAX) {
        let place = [p % picture.width, p / picture.width];
        let colour = picture.at(p).map(f64::from);
        let main = (1, colour, names[p].unwrap_or_default());
        let single = Part { area: 1, sum: colour, min: place, max: place, main };
        match &mut parts[label] {
            Some(part) => part.join(&single),
            empty => *empty = Some(single),
        }
    }
    for part in parts.iter_mut().flatten() {
        part.main = (part.area, part.sum, part.main.2);
    }
    parts
}

/// Length of the border between each two labels.
fn borders(labels: &[usize], width: usize) -> Vec<HashMap<usize, usize>> {
    let count = labels.iter().filter(|l| **l != usize::MAX).max().map_or(0, |l| l + 1);
    let mut borders = vec![HashMap::new(); count];
    for (p, &a) in labels.iter().enumerate().filter(|(_, l)| **l != usize::MAX) {
        for n in neighbours(p, width, labels.len()) {
            let b = labels[n];
            if b != usize::MAX && b != a {
                *borders[a].entry(b).or_insert(0) += 1;
            }
        }
    }
    borders
}

/// Takes fragments into their neighbours, smallest first.
fn merge(parts: &mut [Option<Part>], borders: &mut [HashMap<usize, usize>], least: usize) {
    let area = |parts: &[Option<Part>], label: usize| parts[label].as_ref().map_or(0, |p| p.area);
    let mut queue: Vec<usize> = (0..parts.len()).collect();
    queue.sort_by_key(|&label| (area(parts, label), label));
    for small in queue {
        let most =
            |(label, length): &(&usize, &usize)| (**length, area(parts, **label), std::cmp::Reverse(**label));
        let longest = borders[small].iter().max_by_key(most);
        let Some((&into, _)) = longest else { continue };
        let (mine, its) = (area(parts, small), area(parts, into));
        let name = |label: usize| parts[label].as_ref().map(|p| p.main.2);
        let same = name(small) == name(into);
        let fragment = same || mine <= its && (mine < least || (mine as f32) < FRAGMENT * its as f32);
        let Some(part) = parts[small].take_if(|_| fragment) else { continue };
        if let Some(target) = &mut parts[into] {
            target.join(&part);
        }
        for (other, length) in std::mem::take(&mut borders[small]) {
            borders[other].remove(&small);
            if other != into {
                *borders[into].entry(other).or_insert(0) += length;
                *borders[other].entry(into).or_insert(0) += length;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: [u8; 3] = [220, 40, 40];
    const BLUE: [u8; 3] = [40, 60, 220];

    fn scene(blocks: &[([usize; 4], [u8; 3])]) -> (Picture, Vec<bool>) {
        let mut picture = Picture { width: 24, height: 16, data: vec![20; 24 * 16 * 3] };
        let mut mask = vec![false; 24 * 16];
        for ([x1, y1, x2, y2], colour) in blocks {
            for y in *y1..*y2 {
                for x in *x1..*x2 {
                    mask[y * 24 + x] = true;
                    picture.data[(y * 24 + x) * 3..][..3].copy_from_slice(colour);
                }
            }
        }
        (picture, mask)
    }

    #[test]
    fn two_colours_that_touch_are_two_regions() {
        let (picture, mask) = scene(&[([2, 2, 8, 8], RED), ([8, 3, 14, 9], BLUE)]);
        let found = regions(&picture, &mask, 6);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].xyxy, found[0].fill), ([2.0, 2.0, 8.0, 8.0], 1.0));
        assert_eq!(found[1].colour, BLUE.map(f32::from));
    }

    #[test]
    fn a_stripe_belongs_to_what_it_lies_on_and_specks_are_dropped() {
        let (picture, mask) = scene(&[([2, 2, 14, 14], RED), ([2, 6, 14, 8], BLUE), ([20, 1, 21, 2], BLUE)]);
        let found = regions(&picture, &mask, 6);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].xyxy, found[0].colour), ([2.0, 2.0, 14.0, 14.0], RED.map(f32::from)));
    }
}
