//! Counts that keep a data set even: over attributes, over the place of the query frame, over the length of answers.
//!
//! Comes in: what was asked so far. Goes out: which of several possible questions the data needs most, and the counts as a report. All choices are greedy and
//! in the order of the clips, so that the same tracks always give the same data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::conversation::Attribute;

/// Parts of the clip that query frames are counted in.
pub const PARTS: usize = 4;

/// How often what was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// Queries by attribute.
    pub attributes: BTreeMap<Attribute, usize>,
    /// Queries by quarter of the clip that the query frame lies in.
    pub quarters: [usize; PARTS],
    /// Queries by the most boxes that their answer may list.
    pub boxes: BTreeMap<u32, usize>,
    /// Tracks that an attribute singles out in no frame that was looked at.
    pub undecided: BTreeMap<Attribute, usize>,
}

/// The quarter (from 0) of a clip of `frames` that `frame` (from 1) lies in.
pub fn quarter(frame: u32, frames: u32) -> usize {
    (frame.saturating_sub(1) as usize * PARTS / frames.max(1) as usize).min(PARTS - 1)
}

impl Balance {
    /// How much too often a question of this sort was asked already; less is better.
    pub fn surplus(&self, attribute: Attribute, quarter: usize) -> f64 {
        let share = |count: usize, sorts: usize, total: usize| (count * sorts) as f64 / total.max(1) as f64;
        let attributes = self.attributes.values().sum();
        let count = self.attributes.get(&attribute).copied().unwrap_or(0);
        share(count, Attribute::ALL.len(), attributes)
            + share(self.quarters[quarter], PARTS, self.quarters.iter().sum())
    }

    /// The listing that was used least; of equals the first.
    pub fn least_listed(&self, choices: &[u32]) -> u32 {
        let count = |boxes: &&u32| self.boxes.get(*boxes).copied().unwrap_or(0);
        choices.iter().min_by_key(count).copied().unwrap_or(8)
    }

    /// Counts a question.
    pub fn count(&mut self, attribute: Attribute, quarter: usize, boxes: u32) {
        *self.attributes.entry(attribute).or_default() += 1;
        self.quarters[quarter] += 1;
        *self.boxes.entry(boxes).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_often_is_put_off() {
        let mut balance = Balance::default();
        for _ in 0..3 {
            balance.count(Attribute::Coordinate, 0, 8);
        }
        balance.count(Attribute::Action, 3, 16);
        assert!(balance.surplus(Attribute::Action, 3) < balance.surplus(Attribute::Coordinate, 3));
        assert!(balance.surplus(Attribute::Action, 3) < balance.surplus(Attribute::Action, 0));
        assert_eq!(balance.least_listed(&[8, 16, 32]), 32);
        assert_eq!([1, 8, 9, 16, 17, 32].map(|f| quarter(f, 32)), [0, 0, 1, 1, 2, 3]);
        assert_eq!(quarter(1, 1), 0);
    }
}
