//! Timing that can be trusted on a shared machine: two ways of doing one thing, in turn, and the median of their ratio.
//!
//! Comes in: two closures. Goes out: medians and the ratio pair by pair. It judges nothing and asserts nothing.

use std::time::Instant;

/// Seconds of two ways of doing one thing, and how many times faster the first is.
#[derive(Clone, Copy, Debug)]
pub struct Paired {
    /// Median seconds of the first.
    pub first_s: f64,
    /// Median seconds of the second.
    pub second_s: f64,
    /// Median of second / first over the pairs.
    pub ratio: f64,
}

/// Runs both in turn, `rounds` times after one warm-up each.
pub fn paired(rounds: usize, mut first: impl FnMut(), mut second: impl FnMut()) -> Paired {
    let timed = |f: &mut dyn FnMut()| {
        let began = Instant::now();
        f();
        began.elapsed().as_secs_f64()
    };
    timed(&mut first);
    timed(&mut second);
    let pairs: Vec<(f64, f64)> =
        (0..rounds.max(1)).map(|_| (timed(&mut first), timed(&mut second))).collect();
    Paired {
        first_s: median(pairs.iter().map(|p| p.0).collect()),
        second_s: median(pairs.iter().map(|p| p.1).collect()),
        ratio: median(pairs.iter().map(|p| p.1 / p.0).collect()),
    }
}

/// The middle value; the mean of the two middle ones of an even number.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }
}
