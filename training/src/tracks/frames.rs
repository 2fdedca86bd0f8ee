//! Things by frame.
//!
//! Comes in: things with the number of their frame, in any order. Goes out: frames 1, 2, … with what is in each. A frame without anything takes no
//! memory, so that a gap, however long, costs only the steps through it. What the things are is the business of others.

use anyhow::{Result, ensure};

/// Largest frame number that is believed: more than three days at 30 frames a second.
pub const MOST_FRAMES: u32 = 10_000_000;

/// What is in frame 1, 2, …, `len`.
#[derive(Clone, Debug, PartialEq)]
pub struct Frames<T> {
    items: Vec<T>,
    /// The frame of every item, ascending.
    numbers: Vec<u32>,
    len: u32,
}

/// From items with their frames (from 1), in any order; those of one frame keep theirs. There are as many frames as the items say.
impl<T> FromIterator<(u32, T)> for Frames<T> {
    fn from_iter<I: IntoIterator<Item = (u32, T)>>(items: I) -> Self {
        let (mut numbers, mut items): (Vec<u32>, Vec<T>) = items.into_iter().unzip();
        if !numbers.is_sorted() {
            let mut both: Vec<(u32, T)> = numbers.into_iter().zip(items).collect();
            both.sort_by_key(|(number, _)| *number);
            (numbers, items) = both.into_iter().unzip();
        }
        Self { len: numbers.last().copied().unwrap_or(0), items, numbers }
    }
}

impl<T> Frames<T> {
    /// The same with at least `len` frames; further ones are empty.
    pub fn at_least(self, len: u32) -> Self {
        Self { len: self.len.max(len), ..self }
    }

    /// Frames, empty ones too.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is no frame.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is in frame `number`.
    pub fn at(&self, number: u32) -> &[T] {
        let place = |number| self.numbers.partition_point(|n| *n < number);
        &self.items[place(number)..place(number.saturating_add(1))]
    }

    /// Every frame in order, empty ones too, with its number.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[T])> {
        let mut rest = 0;
        (1..=self.len).map(move |number| {
            let first = rest;
            rest += self.numbers[first..].iter().take_while(|n| **n == number).count();
            (number, &self.items[first..rest])
        })
    }

    /// Every item in order, with the number of its frame.
    pub fn items(&self) -> impl Iterator<Item = (u32, &T)> {
        self.numbers.iter().copied().zip(&self.items)
    }
}

/// Refuses a number that is no frame's.
///
/// # Errors
/// The number, and what it may be.
pub fn check_frame(number: f64) -> Result<u32> {
    ensure!(
        number.fract() == 0.0 && (1.0..=f64::from(MOST_FRAMES)).contains(&number),
        "frame {number} is not a whole number from 1 to {MOST_FRAMES}"
    );
    Ok(number as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_in_order_and_gaps_are_empty() {
        let frames = Frames::from_iter([(4, 'd'), (2, 'b'), (4, 'a'), (2, 'c')]).at_least(6);
        let listed: Vec<(u32, String)> =
            frames.iter().map(|(n, items)| (n, items.iter().collect())).collect();
        let expected = ["", "bc", "", "da", "", ""];
        assert_eq!(listed, (1..).zip(expected.map(String::from)).collect::<Vec<_>>());
        assert!((1..).zip(expected).all(|(n, text)| frames.at(n).iter().collect::<String>() == text));
        assert_eq!((frames.at(0).len(), frames.at(u32::MAX).len(), frames.len()), (0, 0, 6));
        assert_eq!(Frames::from_iter([(MOST_FRAMES, ())]).at_least(1).len(), MOST_FRAMES);
    }

    #[test]
    fn a_number_that_is_no_frames_is_refused() {
        assert_eq!(check_frame(1.0).unwrap(), 1);
        for bad in [0.0, -3.0, 1.5, f64::NAN, f64::INFINITY, 1e7 + 1.0] {
            assert!(check_frame(bad).unwrap_err().to_string().contains("from 1 to 10000000"), "{bad}");
        }
    }
}
