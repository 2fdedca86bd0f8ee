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
/// Another place than the expected one is believed where the difference falls by this share, or by so many grey levels a pixel (part of the block may
/// show a thing).
const BETTER: (f32, f32) = (0.2, 1.0);
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
    blocks: Vec<[usize; 2]>,
}

impl Camera {
    /// The shift of the next picture: what the first shows at (x, y), this one shows at (x + shift).
    pub fn place(&mut self, picture: &Picture) -> [i32; 2] {
        let Some(anchor) = &self.anchor else {
            self.anchor = Anchor::of(picture);
            return [0; 2];
        };
        self.pictures += 1;
        match anchor.vote(picture, self.shift) {
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
                    blocks.push([x, y]);
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

    /// The shift near `expected` that most blocks agree on.
    fn vote(&self, picture: &Picture, expected: [i32; 2]) -> Option<[i32; 2]> {
        let votes: Vec<[i32; 2]> =
            self.blocks.iter().filter_map(|b| self.best(&picture.planes[1], *b, expected)).collect();
        let agree = |v: &[i32; 2]| votes.iter().filter(|o| (0..2).all(|i| (o[i] - v[i]).abs() <= 1)).count();
        let same = |v: &[i32; 2]| votes.iter().filter(|o| *o == v).count();
        let winner = votes.iter().max_by_key(|v| (agree(v), same(v), std::cmp::Reverse(**v)))?;
        (agree(winner) as f32 >= LEAST_AGREED * votes.len() as f32).then_some(*winner)
    }

    /// Where a block of the first picture is found; `None` where that is outside.
    fn best(&self, plane: &[u8], [x, y]: [usize; 2], expected: [i32; 2]) -> Option<[i32; 2]> {
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
        let usual = cost(expected)?;
        let gain = (BETTER.0 * usual as f32).min(BETTER.1 * (self.side * self.side) as f32);
        let mut best = (expected, usual as f32 - gain);
        for dy in -REACH..=REACH {
            for dx in -REACH..=REACH {
                let shift = [expected[0] + dx, expected[1] + dy];
                if let Some(cost) = cost(shift).map(|c| c as f32).filter(|c| *c < best.1) {
                    best = (shift, cost);
                }
            }
        }
        Some(best.0)
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
        camera.place(&seen.with([thing, 30, thing + 30, 60], [220, 200, 40]))
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
    fn before_a_plain_wall_nothing_is_said() {
        let mut camera = Camera::default();
        for x in 0..20 {
            let picture = Picture::plain(128, 96, 60).with([3 * x, 30, 3 * x + 30, 60], [220, 200, 40]);
            assert_eq!(camera.place(&picture), [0, 0]);
        }
        assert!(camera.still());
    }
}
