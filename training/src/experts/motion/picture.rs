//! Frames at working size, channel by channel.
//!
//! Comes in: a frame of any size. Goes out: a [`Picture`] whose longer side is bounded: means of square blocks, so that noise is averaged away and work and
//! memory depend little on the source. Nothing is compared here.

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
            places.zip(frame.data.chunks_exact(3)).for_each(|(((r, g), b), p)| (*r, *g, *b) = (p[0], p[1], p[2]));
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
    pub fn unshifted(&self, [dx, dy]: [i32; 2]) -> Self {
        if [dx, dy] == [0; 2] {
            return self.clone();
        }
        let (width, height) = (self.width as i32, self.height as i32);
        let mut out = self.clone();
        for y in 0..height {
            let from = ((y + dy).clamp(0, height - 1) * width) as usize;
            for (plane, source) in out.planes.iter_mut().zip(&self.planes) {
                let (line, source) = (&mut plane[(y * width) as usize..][..width as usize], &source[from..][..width as usize]);
                for (x, value) in (0..width).zip(line) {
                    *value = source[(x + dx).clamp(0, width - 1) as usize];
                }
            }
        }
        out
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
}

/// Largest difference over the channels.
pub fn difference(a: [u8; 3], b: [u8; 3]) -> u8 {
    a[0].abs_diff(b[0]).max(a[1].abs_diff(b[1])).max(a[2].abs_diff(b[2]))
}
