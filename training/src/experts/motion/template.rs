//! The look of a thing, to find it again where it touches others.
//!
//! Comes in: a picture and the part of it that shows the thing alone. Goes out: where the thing is in a later picture, and how much of it is seen.
//! Sizes and angles are those of the view that was learned; nothing is scaled or turned.

use super::colour::colour_word;
use super::mask::Part;
use super::picture::{Picture, difference};

/// Pixels that a look is kept in, at most.
const MOST_POINTS: usize = 320;
/// Largest difference of a pixel that looks the same, in grey levels.
const SAME: u8 = 40;
/// Loss of a step of one pixel from the expected place, in shares of the thing.
const STEP_COST: f32 = 0.004;

/// How a thing looks.
#[derive(Clone, Debug, Default)]
pub struct Template {
    /// Places relative to the left upper corner, with their colours.
    points: Vec<([i32; 2], [u8; 3])>,
    /// Pixels between neighbouring points, about.
    pitch: i32,
}

impl Template {
    /// The look of a part of a picture.
    pub fn learn(picture: &Picture, parts: &[&Part], corner: [i32; 2]) -> Self {
        let area: usize = parts.iter().map(|p| p.area()).sum();
        // An odd step, so that columns do not line up.
        let step = (area / MOST_POINTS).max(1) | 1;
        let pixels = parts.iter().flat_map(|p| p.pixels(picture.width)).step_by(step);
        let place =
            |p: usize| [(p % picture.width) as i32 - corner[0], (p / picture.width) as i32 - corner[1]];
        let pitch = (step as f32).sqrt().ceil() as i32;
        Self { points: pixels.map(|p| (place(p), picture.at(p))).collect(), pitch }
    }

    /// The word for most of its pixels.
    pub fn colour(&self) -> &'static str {
        let mut counts: Vec<(&'static str, usize)> = Vec::new();
        for (_, colour) in &self.points {
            let word = colour_word(*colour);
            match counts.iter().position(|c| c.0 == word) {
                Some(place) => counts[place].1 += 1,
                None => counts.push((word, 1)),
            }
        }
        counts.into_iter().rev().max_by_key(|c| c.1).map_or("grey", |c| c.0)
    }

    /// The corner within `reach` of `expected` where most of the look is found among the pixels that `open` allows, and that share.
    pub fn find(
        &self,
        picture: &Picture,
        open: impl Fn(usize) -> bool,
        expected: [i32; 2],
        reach: i32,
    ) -> ([i32; 2], f32) {
        let mut best = (expected, 0.0, f32::MIN);
        for dy in -reach..=reach {
            for dx in -reach..=reach {
                let corner = [expected[0] + dx, expected[1] + dy];
                let share = self.share(picture, &open, corner);
                let worth = share - STEP_COST * (dx as f32).hypot(dy as f32);
                if worth > best.2 {
                    best = (corner, share, worth);
                }
            }
        }
        (best.0, best.1)
    }

    /// Takes the open pixels that show the look at a corner, as no other thing shall have them, and says which share of the look they are.
    pub fn claim(&self, picture: &Picture, open: &mut [bool], corner: [i32; 2]) -> f32 {
        let share = self.share(picture, &|p| open[p], corner);
        let (width, height) = (picture.width as i32, picture.height as i32);
        let reach = self.pitch / 2;
        for ([x, y], colour) in &self.points {
            let (x, y) = (x + corner[0], y + corner[1]);
            let inside = x >= 0 && y >= 0 && x < width && y < height;
            if inside && difference(picture.at((y * width + x) as usize), *colour) <= SAME {
                for row in (y - reach).max(0)..(y + reach + 1).min(height) {
                    let columns = (x - reach).max(0)..(x + reach + 1).min(width);
                    open[(row * width + columns.start) as usize..(row * width + columns.end) as usize]
                        .fill(false);
                }
            }
        }
        share
    }

    /// Share of the look, as far as it lies inside the picture, that is seen at a corner.
    fn share(&self, picture: &Picture, open: &impl Fn(usize) -> bool, corner: [i32; 2]) -> f32 {
        let (width, height) = (picture.width as i32, picture.height as i32);
        let (mut inside, mut found) = (0u32, 0u32);
        for ([x, y], colour) in &self.points {
            let (x, y) = (x + corner[0], y + corner[1]);
            if x < 0 || y < 0 || x >= width || y >= height {
                continue;
            }
            inside += 1;
            let p = (y * width + x) as usize;
            found += u32::from(open(p) && difference(picture.at(p), *colour) <= SAME);
        }
        // What lies mostly outside is hardly known.
        found as f32 / inside.max(self.points.len() as u32 / 4).max(1) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experts::motion::mask;

    #[test]
    fn a_look_is_found_again_where_it_moved_and_its_pixels_are_given_once() {
        let wall = Picture::plain(80, 60, 30);
        let striped = |picture: Picture, x: usize| {
            picture.with([x, 20, x + 20, 30], [200, 40, 40]).with([x, 30, x + 20, 40], [40, 60, 200])
        };
        let first = striped(wall.clone(), 20);
        let mask: Vec<u8> = (0..first.pixels()).map(|p| u8::from(first.at(p) != [30; 3])).collect();
        let parts = mask::parts(&mask, 80);
        let look = Template::learn(&first, &[&parts[0]], [20, 20]);
        assert_eq!(look.colour(), "red");
        let second = striped(wall, 25);
        let (corner, share) = look.find(&second, |_| true, [22, 21], 5);
        assert!(corner == [25, 20] && share > 0.99, "{corner:?} {share}");
        let mut open = vec![true; second.pixels()];
        assert!(look.claim(&second, &mut open, corner) > 0.99);
        assert_eq!(look.claim(&second, &mut open, corner), 0.0);
        // Half of it has left the picture.
        assert!(look.claim(&second, &mut vec![true; second.pixels()], [-10, 20]) < 0.01);
    }
}
