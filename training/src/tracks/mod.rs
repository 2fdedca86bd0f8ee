//! Tracking: boxes per frame become objects through time.
//!
//! Comes in: detections, frame by frame, in pixels. Goes out: per frame the tracks that are seen, each with an id that stays. Three trackers
//! behind one trait: ByteTrack exactly as the original, SORT and the IoU tracker as plain alternatives. What an object is, and files, are
//! the business of others.

pub mod assign;
pub mod byte;
pub mod caption;
pub mod command;
pub mod deeds;
pub mod detections;
pub mod filter;
pub mod frames;
pub mod kalman;
pub mod merge;
pub mod metrics;
pub mod mot;
pub mod sort;

use anyhow::{Result, ensure};
use assign::Xyxy;

/// A box found in a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// Left, top, right, bottom in pixels.
    pub xyxy: Xyxy,
    /// 0 to 1.
    pub score: f64,
}

impl Detection {
    /// Refuses numbers that no picture has and that arithmetic would not survive.
    ///
    /// # Errors
    /// What is wrong with the box or its score.
    pub fn check(&self) -> Result<()> {
        const FARTHEST: f64 = 1e9;
        const LEAST_SIDE: f64 = 1e-6;
        let [left, top, right, bottom] = self.xyxy;
        let (width, height) = (right - left, bottom - top);
        ensure!(self.xyxy.iter().all(|v| v.is_finite()) && self.score.is_finite(), "a number is not finite");
        ensure!(width > 0.0 && height > 0.0, "a box of {width} by {height} pixels has no area");
        ensure!(width.min(height) >= LEAST_SIDE, "a box of {width} by {height} pixels is too small");
        ensure!(
            self.xyxy.iter().chain([&self.score]).all(|v| v.abs() <= FARTHEST),
            "the box {:?} with score {} lies beyond {FARTHEST:e}",
            self.xyxy,
            self.score
        );
        Ok(())
    }
}

/// A track in a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// Unique within the clip, from 1.
    pub id: u32,
    /// Left, top, width, height in pixels; filtered where the tracker filters.
    pub tlwh: [f64; 4],
    /// Of the detection.
    pub score: f64,
    /// The detection of this frame that it stands on.
    pub detection: usize,
}

/// What all trackers do.
pub trait Tracker {
    /// Takes in one frame; frames without detections count too.
    fn update(&mut self, detections: &[Detection]) -> Vec<Seen>;
}
