//! The window: the last 32 encoded frames.
//!
//! Comes in: encoded frames, in order. Goes out: those the next answer stands on. A full window lets its oldest frame
//! go. It encodes nothing and knows nothing of prompts; fixed capacity, no allocation after the start.

use std::sync::Arc;
use std::time::Instant;

use heapless::Deque;
use utr_models::RgbFrame;

use crate::capture::Stamp;

/// Most frames a window holds.
pub const CAPACITY: usize = 32;

/// A frame as the decoder sees it.
#[derive(Clone, Debug)]
pub struct EncodedFrame {
    /// Which frame of the source.
    pub stamp: Stamp,
    /// When it reached this process.
    pub captured: Instant,
    /// The picture as the encoder saw it; encoding it again gives the same tokens.
    pub picture: RgbFrame,
    /// (tokens per frame, hidden) visual tokens.
    pub tokens: Vec<f32>,
}

/// Up to `limit` encoded frames in time order.
#[derive(Debug)]
pub struct Window {
    frames: Deque<Arc<EncodedFrame>, CAPACITY>,
    limit: usize,
}

impl Window {
    /// A window of `limit` frames, clamped to 1..=[`CAPACITY`].
    pub fn new(limit: usize) -> Self {
        Self { frames: Deque::new(), limit: limit.clamp(1, CAPACITY) }
    }

    /// Adds the newest frame; the oldest one, where the window was full.
    pub fn push(&mut self, frame: Arc<EncodedFrame>) -> Option<Arc<EncodedFrame>> {
        let oldest = if self.frames.len() >= self.limit { self.frames.pop_front() } else { None };
        // There is room: the limit is at most the capacity.
        let _ = self.frames.push_back(frame);
        oldest
    }

    /// Forgets all frames.
    pub fn clear(&mut self) {
        self.frames.clear();
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<EncodedFrame>> {
        self.frames.iter()
    }

    /// Frames held.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there is no frame.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Most frames held.
    pub fn limit(&self) -> usize {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(index: usize) -> Arc<EncodedFrame> {
        let stamp = Stamp { index, pts_ms: index as u64 * 10 };
        let picture = RgbFrame::new(1, 1, vec![0; 3]).unwrap();
        Arc::new(EncodedFrame { stamp, captured: Instant::now(), picture, tokens: vec![index as f32] })
    }

    proptest! {
        #[test]
        fn the_window_holds_the_newest_frames_in_order(limit in 0usize..50, count in 0usize..100, clear in 0usize..100) {
            let mut window = Window::new(limit);
            let limit = limit.clamp(1, CAPACITY);
            let mut model: Vec<usize> = Vec::new();
            for index in 0..count {
                if index == clear {
                    window.clear();
                    model.clear();
                }
                let oldest = window.push(frame(index));
                model.push(index);
                let expected = (model.len() > limit).then(|| model.remove(0));
                prop_assert_eq!(oldest.map(|frame| frame.stamp.index), expected);
                prop_assert_eq!(window.iter().map(|frame| frame.stamp.index).collect::<Vec<_>>(), model.clone());
            }
            prop_assert_eq!(window.len(), model.len());
            prop_assert!(window.len() <= window.limit());
        }
    }
}
