//! The scene: what each pixel looks like when nothing stands there.
//!
//! Comes in: pictures spread over a shot. Goes out: per pixel the colour that is seen longest, corrected by `rest` where that is an object at rest,
//! and the least difference that is no noise. Pictures of a moving camera give a scene that nothing resembles.

use super::mask::majority;
use super::picture::{Picture, difference};
use super::rest;

/// Pictures that a scene is learned from, at most.
const MOST_PICTURES: usize = 96;
/// Pixels of all of them, at most.
const MOST_PIXELS: usize = 32 << 20;

/// Keeps pictures evenly spread over a stream of unknown length.
#[derive(Debug)]
pub struct Sampler {
    kept: Vec<Picture>,
    seen: usize,
    every: usize,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { kept: Vec::new(), seen: 0, every: 1 }
    }
}

impl Sampler {
    /// The next picture of the stream, of so many pixels; it is made only where it is kept.
    pub fn offer(&mut self, pixels: usize, make: impl FnOnce() -> Picture) {
        let room = MOST_PICTURES.min(MOST_PIXELS / pixels.max(1)).max(8);
        if self.seen.is_multiple_of(self.every) {
            if self.kept.len() >= room {
                let mut place = 0;
                self.kept.retain(|_| {
                    place += 1;
                    place % 2 == 1
                });
                self.every *= 2;
            }
            if self.seen.is_multiple_of(self.every) {
                self.kept.push(make());
            }
        }
        self.seen += 1;
    }

    /// What was kept.
    pub fn pictures(self) -> Vec<Picture> {
        self.kept
    }
}

/// The scene.
#[derive(Clone, Debug)]
pub struct Scene {
    /// What each pixel looks like.
    pub picture: Picture,
    /// Least difference that counts.
    pub threshold: u8,
}

/// Noise (standard deviations) that the threshold keeps clear of.
const CLEAR: f32 = 5.0;

impl Scene {
    /// Learns it; `threshold` is the least difference that counts, raised where the pictures are noisy.
    pub fn learn(pictures: &[Picture], threshold: u8) -> Self {
        let Some(first) = pictures.first() else {
            return Self { picture: Picture::plain(1, 1, 0), threshold };
        };
        let mut scene = Self { picture: first.clone(), threshold };
        let (mut values, mut noises) = (Vec::with_capacity(pictures.len()), Vec::new());
        for (pixel, spread) in spread(pictures).into_iter().enumerate() {
            values.clear();
            values.extend(pictures.iter().map(|p| p.at(pixel)));
            let (colour, noise) =
                if spread <= threshold { mean(&values) } else { longest(&values, threshold) };
            scene.picture.set(pixel, colour);
            noises.push(noise);
        }
        // Most pixels show the scene most of the time: the median of their mean deviations is the noise.
        let middle = noises.len() / 2;
        let noise = *noises.select_nth_unstable_by(middle, f32::total_cmp).1 * 1.25;
        scene.threshold = threshold.max((noise * CLEAR).min(120.0) as u8);
        rest::correct(&mut scene, pictures);
        scene
    }

    /// Per pixel whether something stands before the scene; single pixels are smoothed away.
    pub fn foreground(&self, picture: &Picture) -> Vec<u8> {
        let (width, height) = (self.picture.width, self.picture.height);
        if (picture.width, picture.height) != (width, height) {
            return vec![0; picture.pixels()];
        }
        let mut raw = vec![0u8; width * height];
        for (a, b) in picture.planes.iter().zip(&self.picture.planes) {
            for ((out, a), b) in raw.iter_mut().zip(a).zip(b) {
                *out = (*out).max(a.abs_diff(*b));
            }
        }
        raw.iter_mut().for_each(|v| *v = u8::from(*v > self.threshold));
        majority(&raw, width, height)
    }
}

/// Per pixel the largest range over the channels.
fn spread(pictures: &[Picture]) -> Vec<u8> {
    let Some(first) = pictures.first() else { return Vec::new() };
    let mut out = vec![0u8; first.pixels()];
    for channel in 0..3 {
        let (mut low, mut high) = (first.planes[channel].clone(), first.planes[channel].clone());
        for picture in pictures {
            let values = &picture.planes[channel];
            low.iter_mut().zip(values).for_each(|(l, v)| *l = (*l).min(*v));
            high.iter_mut().zip(values).for_each(|(h, v)| *h = (*h).max(*v));
        }
        out.iter_mut().zip(low.iter().zip(&high)).for_each(|(o, (l, h))| *o = (*o).max(h - l));
    }
    out
}

/// Mean colour, and the mean distance from it.
fn mean(values: &[[u8; 3]]) -> ([u8; 3], f32) {
    let count = values.len().max(1) as u32;
    let mut sum = [count / 2; 3];
    values.iter().for_each(|v| (0..3).for_each(|c| sum[c] += u32::from(v[c])));
    let colour = sum.map(|s| (s / count) as u8);
    let away: u32 = values.iter().map(|v| u32::from(difference(*v, colour))).sum();
    (colour, away as f32 / count as f32)
}

/// Colours that are told apart at one pixel, at most.
const MOST_COLOURS: usize = 12;

/// Mean of the colours that most of the values share, and their mean distance from it.
fn longest(values: &[[u8; 3]], tolerance: u8) -> ([u8; 3], f32) {
    let mut groups: Vec<([u8; 3], usize)> = Vec::with_capacity(MOST_COLOURS);
    for value in values {
        let known = groups.iter().position(|g| difference(g.0, *value) <= tolerance);
        match known {
            Some(place) => groups[place].1 += 1,
            None if groups.len() < MOST_COLOURS => groups.push((*value, 1)),
            None => {}
        }
    }
    // Of equals the first seen.
    let Some(most) = groups.iter().rev().max_by_key(|g| g.1) else { return ([0; 3], 0.0) };
    let members: Vec<[u8; 3]> =
        values.iter().copied().filter(|v| difference(most.0, *v) <= tolerance).collect();
    mean(&members)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passing(from: usize) -> Picture {
        Picture::bricks(60, 40).with([from, 12, from + 10, 26], [200, 40, 40])
    }

    #[test]
    fn what_passes_is_not_part_of_the_scene() {
        let pictures: Vec<Picture> = (0..10).map(|i| passing(5 * i)).collect();
        let scene = Scene::learn(&pictures, 24);
        assert_eq!(scene.picture, Picture::bricks(60, 40));
        let mask = scene.foreground(&passing(20));
        assert!(mask[20 * 60 + 25] == 1 && mask[20 * 60 + 50] == 0);
        assert_eq!(mask.iter().map(|m| usize::from(*m)).sum::<usize>(), 10 * 14 - 4);
    }

    #[test]
    fn noise_raises_the_threshold() {
        let mut state = 1u32;
        let mut noisy = || {
            let mut picture = Picture::bricks(60, 40);
            for value in picture.planes.iter_mut().flatten() {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *value = value.saturating_add_signed((state >> 24) as i8 / 8);
            }
            picture
        };
        let pictures: Vec<Picture> = (0..20).map(|_| noisy()).collect();
        let scene = Scene::learn(&pictures, 24);
        assert!((30..80).contains(&scene.threshold), "{}", scene.threshold);
        assert_eq!(scene.foreground(&noisy()).iter().max(), Some(&0));
    }

    #[test]
    fn a_stream_of_any_length_is_sampled_evenly() {
        let mut sampler = Sampler::default();
        (0..1000).for_each(|i| sampler.offer(64, || Picture::plain(8, 8, (i / 4) as u8)));
        let levels: Vec<u8> = sampler.pictures().iter().map(|p| p.at(0)[0]).collect();
        assert!((48..=96).contains(&levels.len()), "{}", levels.len());
        let step = levels[1] - levels[0];
        assert!(levels.windows(2).all(|w| w[1] - w[0] == step), "{levels:?}");
        let mut large = Sampler::default();
        (0..100).for_each(|_| large.offer(4 << 20, || Picture::plain(8, 8, 0)));
        assert!(large.pictures().len() <= 8);
    }
}
