//! Statistics that several reports share.
//!
//! Comes in: counts, values, or a generator. Goes out: shares and means with their uncertainty, normal numbers. No tables and no files.

use rand::Rng;
use serde::{Deserialize, Serialize};

/// A mean with its 95 % interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// Student's interval over independent values.
    pub interval: [f64; 2],
}

impl Mean {
    /// Over independent values, at least two: of fewer, mean and interval are no numbers.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let half = student(values.len().saturating_sub(1)) * (variance / n).sqrt();
        Self { mean, interval: [mean - half, mean + half] }
    }
}

/// The 95 % interval of `right` (twins may count halves) among `n` independent draws (Wilson, 1927; z = 1.96).
pub fn wilson(right: f64, n: usize) -> [f64; 2] {
    let (z, count) = (1.96f64, n.max(1) as f64);
    let p = right / count;
    let denominator = 1.0 + z * z / count;
    let centre = (p + z * z / (2.0 * count)) / denominator;
    let half = z * (p * (1.0 - p) / count + z * z / (4.0 * count * count)).sqrt() / denominator;
    [(centre - half).max(0.0), (centre + half).min(1.0)]
}

/// The factor of a 95 % interval from `freedom` degrees of freedom (Student's t; Abramowitz and Stegun 26.7.5, exact values for the first four).
pub fn student(freedom: usize) -> f64 {
    let (z, n) = (1.959_964f64, freedom as f64);
    match freedom {
        0 => f64::INFINITY,
        1..=4 => [12.7062, 4.3027, 3.1824, 2.7764][freedom - 1],
        _ => {
            let first = (z.powi(3) + z) / (4.0 * n);
            let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * n * n);
            let third =
                (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / (384.0 * n.powi(3));
            let fourth =
                (79.0 * z.powi(9) + 776.0 * z.powi(7) + 1482.0 * z.powi(5) - 1920.0 * z.powi(3) - 945.0 * z)
                    / (92160.0 * n.powi(4));
            z + first + second + third + fourth
        }
    }
}

/// How two measures go together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Correlation {
    /// Pearson's coefficient.
    pub pearson: f64,
    /// Its 95 % interval (Fisher's z).
    pub interval: [f64; 2],
    /// Spearman's coefficient, of ranks; equal numbers share theirs.
    pub spearman: f64,
    /// Of the line through the points by least squares.
    pub slope: f64,
    /// The line at zero.
    pub intercept: f64,
    /// Points.
    pub n: usize,
}

impl Correlation {
    /// Of the points `(x, y)`; nothing for fewer than four, or where one of the two never changes.
    pub fn of(points: &[(f64, f64)]) -> Option<Self> {
        let n = points.len();
        let (pearson, slope, [x, y]) = (n > 3).then(|| line(points))??;
        let (z, half) = (pearson.clamp(-1.0 + 1e-12, 1.0 - 1e-12).atanh(), 1.96 / (n as f64 - 3.0).sqrt());
        let [xs, ys] = [ranks(points.iter().map(|p| p.0)), ranks(points.iter().map(|p| p.1))];
        let (spearman, ..) = line(&xs.into_iter().zip(ys).collect::<Vec<_>>())?;
        Some(Self {
            pearson,
            interval: [(z - half).tanh(), (z + half).tanh()],
            spearman,
            slope,
            intercept: y - slope * x,
            n,
        })
    }
}

/// Correlation, slope and the means.
fn line(points: &[(f64, f64)]) -> Option<(f64, f64, [f64; 2])> {
    let n = points.len() as f64;
    let x = points.iter().map(|p| p.0).sum::<f64>() / n;
    let y = points.iter().map(|p| p.1).sum::<f64>() / n;
    let sum = |f: fn(f64, f64) -> f64| points.iter().map(|p| f(p.0 - x, p.1 - y)).sum::<f64>();
    let (xx, yy, xy) = (sum(|a, _| a * a), sum(|_, b| b * b), sum(|a, b| a * b));
    (xx > 0.0 && yy > 0.0).then(|| (xy / (xx * yy).sqrt(), xy / xx, [x, y]))
}

/// Ranks from 0; equal numbers have their mean.
fn ranks(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let values: Vec<f64> = values.collect();
    let rank = |v: &f64| {
        let below = values.iter().filter(|o| *o < v).count();
        let equal = values.iter().filter(|o| *o == v).count();
        below as f64 + (equal as f64 - 1.0) / 2.0
    };
    values.iter().map(rank).collect()
}

/// A standard normal number (Box and Muller).
pub fn normal(rng: &mut impl Rng) -> f32 {
    let (a, b): (f32, f32) = (rng.random_range(f32::EPSILON..1.0), rng.random_range(0.0..1.0));
    libm::sqrtf(-2.0 * libm::logf(a)) * libm::cosf(std::f32::consts::TAU * b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlations_are_the_textbook_ones() {
        let points = [(1.0, 2.0), (2.0, 1.0), (3.0, 4.0), (4.0, 3.0), (5.0, 5.0)];
        let found = Correlation::of(&points).unwrap();
        assert!((found.pearson - 0.8).abs() < 1e-12 && (found.spearman - 0.8).abs() < 1e-12);
        // atanh(0.8) = 1.0986, 1.96 / sqrt 2 = 1.3859.
        assert!((found.interval[0] + 0.2796).abs() < 1e-3 && (found.interval[1] - 0.9862).abs() < 1e-3);
        assert!((found.slope - 0.8).abs() < 1e-12 && (found.intercept - 0.6).abs() < 1e-12);
        assert_eq!(ranks([3.0, 1.0, 3.0].into_iter()), [1.5, 0.0, 1.5]);
        assert!(Correlation::of(&points[..3]).is_none() && Correlation::of(&[(1.0, 2.0); 5]).is_none());
    }

    #[test]
    fn intervals_are_the_textbook_ones() {
        let [low, high] = wilson(8.0, 10);
        assert!((low - 0.4902).abs() < 5e-4 && (high - 0.9433).abs() < 5e-4, "{low} {high}");
        assert_eq!(wilson(0.0, 0)[0], 0.0);
        for (freedom, t) in [(2, 4.303), (5, 2.571), (10, 2.228), (30, 2.042), (1_000_000, 1.960)] {
            assert!((student(freedom) - t).abs() < 2e-3, "{freedom}");
        }
        // Deviation 2, so that half the interval is t(2) 2 / sqrt(3).
        let Mean { mean, interval: [low, high] } = Mean::of(&[1.0, 3.0, 5.0]);
        assert!(
            (mean - 3.0).abs() < 1e-9 && (high - 3.0 - 4.968).abs() < 1e-3 && (low + high - 6.0).abs() < 1e-9
        );
        assert!(Mean::of(&[1.0]).interval[0].is_nan());
    }
}
