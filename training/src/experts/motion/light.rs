//! How bright the light is: by which factors each picture of a shot differs from the first.
//!
//! Comes in: the pictures of a shot in order, already unshifted. Goes out: a factor per channel, of what most pixels do: clouds, and a camera that
//! sets its exposure. Light that falls on one side only is not undone.

use super::picture::Picture;

/// Pixels that are compared, at most.
const MOST_PIXELS: usize = 8192;
/// Largest difference of a pixel that shows the same in this light, in grey levels.
const SAME: f32 = 24.0;
/// Least grey level that says anything about a factor.
const DARK: u8 = 16;
/// Least share of the pixels that must show the same.
const LEAST_SAME: f32 = 0.4;
/// Factors that are believed.
const BELIEVED: std::ops::RangeInclusive<f32> = 0.4..=2.5;

/// Watches one shot.
#[derive(Clone, Debug, Default)]
pub struct Light {
    first: Option<Picture>,
    factors: Option<[f32; 3]>,
}

impl Light {
    /// Of the green channel, in the picture before.
    pub fn green(&self) -> f32 {
        self.factors.map_or(1.0, |f| f[1])
    }

    /// The factors of the next picture; 1 where nothing can be said.
    pub fn factors(&mut self, picture: &Picture) -> [f32; 3] {
        let Some(first) = &self.first else {
            self.first = Some(picture.clone());
            return [1.0; 3];
        };
        let before = self.factors.unwrap_or([1.0; 3]);
        let now = [0, 1, 2].map(|c| {
            let (a, b) = (&first.planes[c], &picture.planes[c]);
            mean(a, b, before[c]).or_else(|| mean(a, b, middle(a, b)?)).unwrap_or(before[c])
        });
        self.factors = Some(now);
        now
    }
}

/// Every how many pixels are looked at.
fn step(pixels: usize) -> usize {
    // Odd, so that columns do not line up.
    (pixels / MOST_PIXELS).max(1) | 1
}

/// The mean factor of the pixels that show the same under a factor near `guess`; `None` where those are few.
fn mean(first: &[u8], now: &[u8], guess: f32) -> Option<f32> {
    let (mut sums, mut same, mut all) = ([0.0f32; 2], 0, 0);
    for (a, b) in first.iter().zip(now).step_by(step(first.len())).filter(|(a, _)| **a >= DARK) {
        all += 1;
        let (a, b) = (f32::from(*a), f32::from(*b));
        if (b - a * guess).abs() <= SAME {
            same += 1;
            sums = [sums[0] + a, sums[1] + b];
        }
    }
    let factor = sums[1] / sums[0].max(1.0);
    (same > 0 && same as f32 >= LEAST_SAME * all as f32 && BELIEVED.contains(&factor)).then_some(factor)
}

/// The middle one of the factors of all pixels.
fn middle(first: &[u8], now: &[u8]) -> Option<f32> {
    let pairs = first.iter().zip(now).step_by(step(first.len())).filter(|(a, _)| **a >= DARK);
    let mut factors: Vec<f32> = pairs.map(|(a, b)| f32::from(*b) / f32::from(*a)).collect();
    let place = factors.len() / 2;
    (!factors.is_empty()).then(|| *factors.select_nth_unstable_by(place, f32::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_and_sudden_changes_of_the_light_are_measured_and_undone() {
        let wall = Picture::bricks(96, 64);
        let mut light = Light::default();
        assert_eq!(light.factors(&wall), [1.0; 3]);
        for (factor, x) in [1.05, 1.1, 1.2, 1.3, 0.6, 0.55].into_iter().zip((0..).step_by(8)) {
            let lit = wall.clone().with([x, 10, x + 30, 60], [240, 240, 240]).relit([1.0 / factor; 3]);
            let found = light.factors(&lit);
            assert!(found.iter().all(|f| (f / factor - 1.0).abs() < 0.02), "{factor}: {found:?}");
            let back = lit.relit(found);
            assert!(back.at(95)[0].abs_diff(wall.at(95)[0]) <= 2);
        }
    }
}
