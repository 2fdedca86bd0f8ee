//! Frames at working size, channel by channel.
//!
//! Comes in: a frame of any size. Goes out: a [`Picture`] whose longer side is bounded: means of square blocks, so that noise is averaged away and
//! work and memory depend little on the source. Nothing is compared here.

use std::borrow::Cow;

use utr_models::RgbFrame;

/// A frame at working size: three planes of (height, width).
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Red, green, blue.
    pub planes: [Vec<u8>; 3],
}

impl Picture {
    /// A picture of one grey level.
    pub fn plain(width: usize, height: usize, level: u8) -> Self {
        Self { width, height, planes: [(); 3].map(|()| vec![level; width * height]) }
    }

    /// Means of blocks of `block` x `block` pixels; what is left over at the right and at the bottom is not looked at.
    pub fn of(frame: &RgbFrame, block: usize) -> Self {
        let (width, height) = ((frame.width / block).max(1), (frame.height / block).max(1));
        let mut picture = Self::plain(width, height, 0);
        if block == 1 {
            let [red, green, blue] = &mut picture.planes;
            let places = red.iter_mut().zip(green).zip(blue);
            places
                .zip(frame.data.chunks_exact(3))
                .for_each(|(((r, g), b), p)| (*r, *g, *b) = (p[0], p[1], p[2]));
            return picture;
        }
        let used = (width * block).min(frame.width);
        let mut sums = vec![0u16; used * 3];
        for y in 0..height {
            let rows = (y * block).min(frame.height - 1)..((y + 1) * block).min(frame.height);
            let count = (rows.len() * block.min(frame.width)) as u32;
            sums.fill(0);
            for row in rows {
                let line = &frame.data[row * frame.width * 3..][..used * 3];
                sums.iter_mut().zip(line).for_each(|(s, v)| *s += u16::from(*v));
            }
            for (x, part) in sums.chunks(block * 3).take(width).enumerate() {
                let mut sum = [count / 2; 3];
                part.chunks_exact(3).for_each(|p| (0..3).for_each(|c| sum[c] += u32::from(p[c])));
                (0..3).for_each(|c| picture.planes[c][y * width + x] = (sum[c] / count) as u8);
            }
        }
        picture
    }

    /// Side of the blocks that bring the longer side of a frame to at most `side` pixels (and to at most 257 pixels a block).
    pub fn block(frame: &RgbFrame, side: u32) -> usize {
        frame.width.max(frame.height).div_ceil(side as usize).clamp(1, 257)
    }

    /// The picture moved against a shift of the camera; what comes in from outside repeats the rim.
    pub fn unshifted(&self, [dx, dy]: [i32; 2]) -> Cow<'_, Self> {
        if [dx, dy] == [0; 2] {
            return Cow::Borrowed(self);
        }
        let (width, height) = (self.width as i32, self.height as i32);
        let mut out = self.clone();
        for y in 0..height {
            let from = ((y + dy).clamp(0, height - 1) * width) as usize;
            for (plane, source) in out.planes.iter_mut().zip(&self.planes) {
                let (line, source) =
                    (&mut plane[(y * width) as usize..][..width as usize], &source[from..][..width as usize]);
                for (x, value) in (0..width).zip(line) {
                    *value = source[(x + dx).clamp(0, width - 1) as usize];
                }
            }
        }
        Cow::Owned(out)
    }

    /// The picture as it would be under a light that is not this many times as bright.
    pub fn relit(mut self, factors: [f32; 3]) -> Self {
        for (plane, factor) in self.planes.iter_mut().zip(factors).filter(|(_, f)| (f - 1.0).abs() > 0.004) {
            let table: [u8; 256] = std::array::from_fn(|v| (v as f32 / factor + 0.5).min(255.0) as u8);
            plane.iter_mut().for_each(|v| *v = table[usize::from(*v)]);
        }
        self
    }

    /// The colour of a pixel, counted row by row.
    pub fn at(&self, pixel: usize) -> [u8; 3] {
        [self.planes[0][pixel], self.planes[1][pixel], self.planes[2][pixel]]
    }

    /// Gives a pixel a colour.
    pub fn set(&mut self, pixel: usize, colour: [u8; 3]) {
        (0..3).for_each(|c| self.planes[c][pixel] = colour[c]);
    }

    /// Number of pixels.
    pub fn pixels(&self) -> usize {
        self.width * self.height
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        3 * self.pixels()
    }

    /// Gives open pixels the mean of their known neighbours, from the rim inwards.
    pub fn fill(&mut self, open: &[u8]) {
        let (width, height) = (self.width, self.height);
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
                    let (rows, columns) = (
                        y.saturating_sub(1)..=(y + 1).min(height - 1),
                        x.saturating_sub(1)..=(x + 1).min(width - 1),
                    );
                    let known = rows
                        .flat_map(|r| columns.clone().map(move |c| r * width + c))
                        .filter(|n| open[*n] == 0)
                        .map(|n| self.at(n));
                    let (sum, count) = known.fold(([0u32; 3], 0u32), |(sum, n), c| {
                        ([0, 1, 2].map(|i| sum[i] + u32::from(c[i])), n + 1)
                    });
                    (count > 0).then(|| (p, sum.map(|s| (s / count) as u8)))
                })
                .collect();
            for (p, colour) in filled {
                open[p] = 0;
                self.set(p, colour);
            }
            left.retain(|p| open[*p] != 0);
        }
    }
}

/// Largest difference over the channels.
pub fn difference(a: [u8; 3], b: [u8; 3]) -> u8 {
    a[0].abs_diff(b[0]).max(a[1].abs_diff(b[1])).max(a[2].abs_diff(b[2]))
}

#[cfg(test)]
impl Picture {
    /// With a filled box: left, top, right, bottom.
    pub fn with(mut self, [x1, y1, x2, y2]: [usize; 4], colour: [u8; 3]) -> Self {
        for y in y1..y2.min(self.height) {
            (x1..x2.min(self.width)).for_each(|x| self.set(y * self.width + x, colour));
        }
        self
    }

    /// Bricks of two greys, so that there is something to see at rest.
    pub fn bricks(width: usize, height: usize) -> Self {
        let mut wall = Self::plain(width, height, 90);
        for p in 0..wall.pixels() {
            let (row, column) = (p / width / 6, p % width / 10);
            if (row + column) % 2 == 0 {
                wall.set(p, [110, 106, 100]);
            }
        }
        wall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_means_of_blocks() {
        let frame = RgbFrame::new(4, 2, (0..24).map(|v| v * 4).collect()).unwrap();
        assert_eq!(Picture::block(&frame, 2), 2);
        let small = Picture::of(&frame, 2);
        assert_eq!((small.width, small.height), (2, 1));
        assert_eq!([small.at(0), small.at(1)], [[30, 34, 38], [54, 58, 62]]);
        let same = Picture::of(&frame, 1);
        assert_eq!((0..8).flat_map(|p| same.at(p)).collect::<Vec<_>>(), frame.data);
        // A column and a row are left over.
        let odd = RgbFrame::new(5, 3, vec![9; 45]).unwrap();
        assert_eq!(Picture::of(&odd, 2), Picture::plain(2, 1, 9));
    }

    #[test]
    fn a_shift_is_undone_up_to_the_rim() {
        let wall = Picture::bricks(40, 30).with([10, 10, 20, 18], [200, 30, 30]);
        let seen = wall.unshifted([3, -2]).into_owned();
        let back = seen.unshifted([-3, 2]).into_owned();
        let inner = (0..wall.pixels()).filter(|p| (3..37).contains(&(p % 40)) && (2..28).contains(&(p / 40)));
        inner.for_each(|p| assert_eq!(back.at(p), wall.at(p)));
    }

    #[test]
    fn open_pixels_take_the_colour_around_them() {
        let mut picture = Picture::plain(12, 12, 50).with([4, 4, 8, 8], [250, 0, 0]);
        let open: Vec<u8> =
            (0..144).map(|p| u8::from((4..8).contains(&(p % 12)) && (4..8).contains(&(p / 12)))).collect();
        picture.fill(&open);
        assert_eq!(picture, Picture::plain(12, 12, 50));
        // Nothing is known: nothing is changed.
        picture.fill(&[1; 144]);
        assert_eq!(picture, Picture::plain(12, 12, 50));
    }
}
