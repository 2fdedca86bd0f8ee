//! The resting scene: what each pixel looks like when nothing is there.
//!
//! Comes in: pictures spread over the clip. Goes out: per pixel the temporal median and, where no value lasts (something changes in place), the
//! colour of what surrounds the place. Pictures of a moving camera give a scene that nothing resembles.

use super::{Picture, difference};

/// Pictures that a scene is learned from, at most.
const MOST_PICTURES: usize = 64;

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
    /// The next picture of the stream; it is made only where it is kept.
    pub fn offer(&mut self, make: impl FnOnce() -> Picture) {
        if self.seen.is_multiple_of(self.every) {
            if self.kept.len() == MOST_PICTURES {
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
#[derive(Debug)]
pub struct Scene {
    picture: Picture,
    threshold: u8,
}

/// A median that this share of the pictures does not resemble is no resting value.
const LEAST_RESTING: f32 = 0.55;

impl Scene {
    /// Learns it; `threshold` is the least difference that counts, raised where the clip is noisy.
    pub fn learn(pictures: Vec<Picture>, threshold: u8) -> Self {
        let Some(first) = pictures.first() else {
            return Self { picture: Picture { width: 1, height: 1, data: vec![0; 3] }, threshold };
        };
        let (width, height) = (first.width, first.height);
        let mut median = Picture { width, height, data: vec![0; width * height * 3] };
        let mut column = vec![0u8; pictures.len()];
        let mut deviations = Vec::with_capacity(width * height);
        for place in 0..median.data.len() {
            column.iter_mut().zip(&pictures).for_each(|(c, p)| *c = p.data[place]);
            let middle = middle(&mut column);
            median.data[place] = middle;
            column.iter_mut().for_each(|c| *c = c.abs_diff(middle));
            deviations.push(self::middle(&mut column));
        }
        // Most pixels show the scene most of the time: the median of their median deviations is the noise.
        let noise = f32::from(middle(&mut deviations)) * 1.4826;
        let threshold = threshold.max((noise * 5.0).min(120.0) as u8);
        let unsettled: Vec<bool> = (0..width * height)
            .map(|pixel| {
                let rests = |p: &&Picture| difference(p.at(pixel), median.at(pixel)) <= threshold;
                (pictures.iter().filter(rests).count() as f32) < LEAST_RESTING * pictures.len() as f32
            })
            .collect();
        fill(&mut median, &unsettled);
        Self { picture: median, threshold }
    }

    /// Per pixel whether something stands before the scene; single pixels are smoothed away.
    pub fn foreground(&self, picture: &Picture) -> Vec<bool> {
        let (width, height) = (self.picture.width, self.picture.height);
        if (picture.width, picture.height) != (width, height) {
            return vec![false; picture.width * picture.height];
        }
        let raw: Vec<bool> = (0..width * height)
            .map(|p| difference(picture.at(p), self.picture.at(p)) > self.threshold)
            .collect();
        // The majority of the pixel and its eight neighbours.
        let count = |x: usize, y: usize| {
            let rows = y.saturating_sub(1)..=(y + 1).min(height - 1);
            let columns = x.saturating_sub(1)..=(x + 1).min(width - 1);
            let votes = rows.flat_map(|r| columns.clone().map(move |c| r * width + c));
            let (set, all) = votes.fold((0, 0), |(set, all), p| (set + usize::from(raw[p]), all + 1));
            2 * set > all
        };
        (0..width * height).map(|p| count(p % width, p / width)).collect()
    }
}

/// The middle value (the lower of two); the order of `values` is changed.
fn middle(values: &mut [u8]) -> u8 {
    let place = values.len().saturating_sub(1) / 2;
    if values.is_empty() { 0 } else { *values.select_nth_unstable(place).1 }
}

/// Gives unsettled pixels the mean of their settled neighbours, from the rim inwards.
fn fill(picture: &mut Picture, unsettled: &[bool]) {
    let (width, height) = (picture.width, picture.height);
    let mut open: Vec<bool> = unsettled.to_vec();
    let mut left: Vec<usize> = (0..open.len()).filter(|p| open[*p]).collect();
    if left.len() == open.len() {
        return;
    }
    while !left.is_empty() {
        let filled: Vec<(usize, [u8; 3])> = left
            .iter()
            .filter_map(|&p| {
                let (x, y) = (p % width, p / width);
                let rows = y.saturating_sub(1)..=(y + 1).min(height - 1);
                let columns = x.saturating_sub(1)..=(x + 1).min(width - 1);
                let known = rows
                    .flat_map(|r| columns.clone().map(move |c| r * width + c))
                    .filter(|n| !open[*n])
                    .map(|n| picture.at(n));
                let (sum, count) = known.fold(([0u32; 3], 0u32), |(sum, n), c| {
                    ([0, 1, 2].map(|i| sum[i] + u32::from(c[i])), n + 1)
                });
                (count > 0).then(|| (p, sum.map(|s| (s / count) as u8)))
            })
            .collect();
        for (p, colour) in filled {
            open[p] = false;
            picture.data[p * 3..p * 3 + 3].copy_from_slice(&colour);
        }
        left.retain(|p| open[*p]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(level: u8) -> Picture {
        Picture { width: 8, height: 8, data: vec![level; 8 * 8 * 3] }
    }

    fn with_block(level: u8, from: usize) -> Picture {
        let mut picture = plain(20);
        for y in 2..6 {
            for x in from..from + 4 {
                picture.data[(y * 8 + x) * 3..][..3].fill(level);
            }
        }
        picture
    }

    #[test]
    fn what_passes_is_not_part_of_the_scene() {
        let pictures = (0..5).map(|i| with_block(200, i)).collect();
        let scene = Scene::learn(pictures, 24);
        let mask = scene.foreground(&with_block(200, 0));
        assert!(mask[3 * 8 + 1] && !mask[3 * 8 + 6] && !mask[0]);
    }

    #[test]
    fn what_changes_colour_in_place_stands_before_its_surroundings() {
        let pictures = [90, 200, 140, 90, 200, 140].map(|level| with_block(level, 2)).to_vec();
        let scene = Scene::learn(pictures, 24);
        for level in [90, 140, 200] {
            assert!(scene.foreground(&with_block(level, 2))[3 * 8 + 3], "{level}");
        }
    }

    #[test]
    fn a_stream_of_any_length_is_sampled_evenly() {
        let mut sampler = Sampler::default();
        (0..1000).for_each(|i| sampler.offer(|| plain((i / 4) as u8)));
        let levels: Vec<u8> = sampler.pictures().iter().map(|p| p.data[0]).collect();
        assert!((32..=64).contains(&levels.len()), "{}", levels.len());
        assert!(levels.windows(2).all(|w| w[1] - w[0] == 4), "{levels:?}");
    }
}
