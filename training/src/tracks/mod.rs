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
pub mod kalman;
pub mod merge;
pub mod metrics;
pub mod mot;
pub mod sort;

use assign::Xyxy;

/// A box found in a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// Left, top, right, bottom in pixels.
    pub xyxy: Xyxy,
    /// 0 to 1.
    pub score: f64,
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
