//! Statistics that several reports share.
//!
//! Comes in: counts, or a generator. Goes out: shares with their uncertainty, normal numbers. No tables and no files.

use rand::Rng;

/// The 95 % interval of `right` (twins may count halves) among `n` independent draws (Wilson, 1927; z = 1.96).
pub fn wilson(right: f64, n: usize) -> [f64; 2] {
    let (z, count) = (1.96f64, n.max(1) as f64);
    let p = right / count;
    let denominator = 1.0 + z * z / count;
    let centre = (p + z * z / (2.0 * count)) / denominator;
    let half = z * (p * (1.0 - p) / count + z * z / (4.0 * count * count)).sqrt() / denominator;
    [(centre - half).max(0.0), (centre + half).min(1.0)]
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
    fn intervals_are_the_textbook_ones() {
        let [low, high] = wilson(8.0, 10);
        assert!((low - 0.4902).abs() < 5e-4 && (high - 0.9433).abs() < 5e-4, "{low} {high}");
        assert_eq!(wilson(0.0, 0)[0], 0.0);
    }
}
