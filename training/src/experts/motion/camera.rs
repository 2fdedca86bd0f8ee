//! Where the camera looks: by how many pixels each picture of a shot is shifted against the first.
//!
//! Comes in: the pictures of a shot in order. Goes out: whole-pixel shifts, and whether the camera can be taken to stand still but for them. Blocks
//! with a texture vote; things that move are outvoted, and where little has a texture nothing is taken to move. Turns, zooms and views that change
//! with depth are not undone: such a shot is given up.

use super::picture::Picture;

/// Blocks along the longer side.
const BLOCKS: usize = 8;
/// Pixels that a picture may be shifted against the one before.
const REACH: i32 = 3;
/// Widest shift that is undone, in shares of the longer side.
const WIDEST: f32 = 0.12;
/// Least mean step between neighbouring pixels of a block with a texture, in grey levels.
const TEXTURE: f32 = 1.0;
/// Least share of the blocks that must have a texture.
const LEAST_TEXTURED: f32 = 0.6;
/// Least share of the blocks with a texture that must agree.
const LEAST_AGREED: f32 = 0.5;
/// Ratio to the difference at the expected place below which another place is believed.
const BETTER: f32 = 0.8;
/// Largest difference at which a block is found: in steps of one pixel, and in grey levels a pixel.
const FOUND: (f32, f32) = (0.75, 1.5);
/// Least share of the blocks with a texture that must be found; fewer say nothing.
const LEAST_VOTES: f32 = 0.25;
/// Share of pictures without agreement above which a shot is given up.
const MOST_LOST: f32 = 0.3;

/// Watches one shot.
#[derive(Clone, Debug, Default)]
pub struct Camera {
    anchor: Option<Anchor>,
    shift: [i32; 2],
    pictures: usize,
    lost: usize,
    wide: bool,
}

/// The first picture, and its blocks that have a texture.
#[derive(Clone, Debug)]
struct Anchor {
    width: usize,
    height: usize,
    plane: Vec<u8>,
    side: usize,
    blocks: Vec<Block>,
}

/// Where a block lies, and its difference from itself moved by a pixel.
#[derive(Clone, Copy, Debug)]
struct Block {
    x: usize,
    y: usize,
    step: u32,
}

impl Camera {
    /// The shift of the next picture: what the first shows at (x, y), this one shows at (x + shift).
    ///
    /// `light` is how much brighter it is, as far as is known.
    pub fn place(&mut self, picture: &Picture, light: f32) -> [i32; 2] {
        let Some(anchor) = &self.anchor else {
            self.anchor = Anchor::of(picture);
            return [0; 2];
        };
        self.pictures += 1;
        let table: [u8; 256] = std::array::from_fn(|v| (v as f32 / light + 0.5).min(255.0) as u8);
        let plane: Vec<u8> = picture.planes[1].iter().map(|v| table[usize::from(*v)]).collect();
        match anchor.vote(&plane, self.shift) {
            Some(shift) => self.shift = shift,
            None => self.lost += 1,
        }
        let longest = anchor.width.max(anchor.height) as f32;
        self.wide |= self.shift.iter().any(|s| s.abs() as f32 > WIDEST * longest);
        if self.wide {
            // Nothing is asked of this shot any more; the search shall not run out of the picture.
            self.shift = [0; 2];
        }
        self.shift
    }

    /// Whether it stood still but for the shifts.
    pub fn still(&self) -> bool {
        !self.wide && self.lost as f32 <= MOST_LOST * self.pictures as f32
    }
}

impl Anchor {
    /// `None` where too little has a texture.
    fn of(picture: &Picture) -> Option<Self> {
        let (width, height) = (picture.width, picture.height);
        let plane = picture.planes[1].clone();
        let side = width.max(height) / BLOCKS;
        let (mut blocks, mut all) = (Vec::new(), 0);
        for y in (0..height.saturating_sub(side)).step_by(side.max(1)) {
            for x in (0..width.saturating_sub(side)).step_by(side.max(1)) {
                all += 1;
                // Both ways, or a shift along an edge would not be seen.
                let across: u32 = (y..y + side)
                    .map(|r| sum(&plane[r * width + x..][..side], &plane[r * width + x + 1..][..side]))
                    .sum();
                let down: u32 = (y..y + side)
                    .map(|r| sum(&plane[r * width + x..][..side], &plane[(r + 1) * width + x..][..side]))
                    .sum();
                if across.min(down) as f32 >= TEXTURE * (side * side) as f32 {
                    blocks.push(Block { x, y, step: across.max(down) });
                }
            }
        }
        (blocks.len() >= 4 && blocks.len() as f32 >= LEAST_TEXTURED * all as f32).then_some(Self {
            width,
            height,
            plane,
            side,
            blocks,
        })
    }

    /// The shift near `expected` that most of the blocks that are found agree on.
    fn vote(&self, plane: &[u8], expected: [i32; 2]) -> Option<[i32; 2]> {
        let votes: Vec<[i32; 2]> =
            self.blocks.iter().filter_map(|b| self.best(plane, *b, expected)).collect();
        let agree = |v: &[i32; 2]| votes.iter().filter(|o| (0..2).all(|i| (o[i] - v[i]).abs() <= 1)).count();
        let same = |v: &[i32; 2]| votes.iter().filter(|o| *o == v).count();
        if (votes.len() as f32) < LEAST_VOTES * self.blocks.len() as f32 {
            // Something large stands before it all.
            return Some(expected);
        }
        let winner = votes.iter().max_by_key(|v| (agree(v), same(v), std::cmp::Reverse(**v)))?;
        (agree(winner) as f32 >= LEAST_AGREED * votes.len() as f32).then_some(*winner)
    }

    /// Where a block of the first picture is found; `None` where it is outside, covered or changed.
    fn best(&self, plane: &[u8], Block { x, y, step }: Block, expected: [i32; 2]) -> Option<[i32; 2]> {
        let cost = |shift: [i32; 2]| {
            let (left, top) = (x as i32 + shift[0], y as i32 + shift[1]);
            let side = self.side as i32;
            if left < 0 || top < 0 || left + side > self.width as i32 || top + side > self.height as i32 {
                return None;
            }
            let row = |r: usize| {
                let own = &self.plane[(y + r) * self.width + x..][..self.side];
                sum(own, &plane[(top as usize + r) * self.width + left as usize..][..self.side])
            };
            Some((0..self.side).map(row).sum::<u32>())
        };
        let usual = cost(expected)? as f32;
        let mut best = (expected, usual, usual * BETTER);
        for dy in -REACH..=REACH {
            for dx in -REACH..=REACH {
                let shift = [expected[0] + dx, expected[1] + dy];
                if let Some(cost) = cost(shift).map(|c| c as f32).filter(|c| *c < best.2) {
                    best = (shift, cost, cost);
                }
            }
        }
        let most = FOUND.0 * step as f32 + FOUND.1 * (self.side * self.side) as f32;
        (best.1 <= most).then_some(best.0)
    }
}

/// Sum of absolute differences.
fn sum(a: &[u8], b: &[u8]) -> u32 {
    a.iter().zip(b).map(|(a, b)| u32::from(a.abs_diff(*b))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(camera: &mut Camera, shift: [i32; 2], thing: usize) -> [i32; 2] {
        let wall = Picture::bricks(128, 96);
        // A camera that turns right sees everything moved to the left: unshifting by the opposite shows it so.
        let seen = wall.unshifted([-shift[0], -shift[1]]).into_owned();
        camera.place(&seen.with([thing, 30, thing + 30, 60], [220, 200, 40]), 1.0)
    }

    #[test]
    fn a_shaking_camera_is_followed_and_a_thing_that_moves_is_outvoted() {
        let mut camera = Camera::default();
        let shakes = [[0, 0], [1, 0], [2, -1], [4, -2], [2, -3], [0, -1], [-1, 0]];
        for (shake, thing) in shakes.into_iter().zip((0..).step_by(9)) {
            assert_eq!(look(&mut camera, shake, thing), shake);
        }
        assert!(camera.still());
    }

    #[test]
    fn a_travelling_camera_is_given_up() {
        let mut camera = Camera::default();
        (0..12).for_each(|i| {
            look(&mut camera, [2 * i, 0], 0);
        });
        assert!(!camera.still());
    }

    #[test]
    fn something_large_in_front_is_no_movement_of_the_camera() {
        let mut camera = Camera::default();
        for x in 0..20 {
            let thing = Picture::bricks(128, 96).unshifted([3 * x, 5]).into_owned().relit([0.6; 3]);
            let mut picture = Picture::bricks(128, 96);
            let covered = (0..picture.pixels()).filter(|p| x > 0 && (8..120).contains(&(p % 128)));
            covered.for_each(|p| picture.set(p, thing.at(p)));
            assert_eq!(camera.place(&picture, 1.0), [0, 0]);
        }
        assert!(camera.still());
    }

    #[test]
    fn before_a_plain_wall_nothing_is_said() {
        let mut camera = Camera::default();
        for x in 0..20 {
            let picture = Picture::plain(128, 96, 60).with([3 * x, 30, 3 * x + 30, 60], [220, 200, 40]);
            assert_eq!(camera.place(&picture, 1.0), [0, 0]);
        }
        assert!(camera.still());
    }
}
