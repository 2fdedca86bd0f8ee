//! Indices and times that go on, whatever the source does.
//!
//! Comes in: a source's own times, which start again with every opening and may jump back. Goes out: stamps whose index counts
//! on and whose time never goes back. Across a gap the wall clock says how long it was, in a repeated file the frame rate.

use std::time::Instant;

use crate::capture::Stamp;

/// Milliseconds between two frames where nothing is known yet: 25 a second.
const UNKNOWN_STEP_MS: u64 = 40;

/// How long a break in the source's times was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// As long as it took.
    Wall,
    /// One frame.
    Step,
}

/// Where the last frame was placed.
#[derive(Debug, Default)]
pub struct Timeline {
    next: usize,
    /// The source's time and ours at the last opening or break.
    anchor: Option<(u64, u64)>,
    last: Option<Placed>,
    step_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Placed {
    source_ms: u64,
    pts_ms: u64,
    at: Instant,
}

impl Timeline {
    /// The source was opened again: its times begin anew.
    pub fn reopened(&mut self) {
        self.anchor = None;
    }

    /// Places a frame that the source shows at `source_ms` and that was read at `at`.
    pub fn place(&mut self, source_ms: u64, at: Instant, gap: Gap) -> Stamp {
        let back = self.last.is_some_and(|last| source_ms < last.source_ms);
        let anchor = self.anchor.filter(|_| !back).unwrap_or_else(|| {
            let begins = self.last.map_or(source_ms, |last| {
                let gap_ms = match gap {
                    Gap::Wall => at.saturating_duration_since(last.at).as_millis() as u64,
                    Gap::Step => self.step_ms.unwrap_or(UNKNOWN_STEP_MS),
                };
                last.pts_ms.saturating_add(gap_ms.max(1))
            });
            (source_ms, begins)
        });
        let fresh = self.anchor != Some(anchor);
        self.anchor = Some(anchor);
        let pts_ms = anchor.1.saturating_add(source_ms - anchor.0);
        if let Some(last) = self.last.filter(|_| !fresh) {
            self.step_ms = Some(pts_ms.saturating_sub(last.pts_ms));
        }
        self.last = Some(Placed { source_ms, pts_ms, at });
        let index = self.next;
        self.next += 1;
        Stamp { index, pts_ms }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_source_without_breaks_keeps_its_own_times() {
        let (mut line, now) = (Timeline::default(), Instant::now());
        for (index, pts_ms) in [0, 33, 66, 100].into_iter().enumerate() {
            assert_eq!(line.place(pts_ms, now, Gap::Step), Stamp { index, pts_ms });
        }
    }

    #[test]
    fn a_repeated_file_goes_on_one_frame_later_and_a_camera_as_long_as_it_was_away() {
        let began = Instant::now();
        let later = began + Duration::from_millis(5000);
        for (gap, expected) in [(Gap::Step, [150, 200, 250]), (Gap::Wall, [5100, 5150, 5200])] {
            let mut line = Timeline::default();
            assert_eq!([0, 50, 100].map(|ms| line.place(ms, began, gap).pts_ms), [0, 50, 100]);
            line.reopened();
            assert_eq!([0, 50, 100].map(|ms| line.place(ms, later, gap).pts_ms), expected);
            assert_eq!(line.place(150, later, gap).index, 6);
        }
    }

    #[test]
    fn a_stream_that_jumps_back_goes_on() {
        let (mut line, now) = (Timeline::default(), Instant::now());
        let times = [0, 40, 80, 0, 40].map(|ms| line.place(ms, now, Gap::Step).pts_ms);
        assert_eq!(times, [0, 40, 80, 120, 160]);
    }

    proptest! {
        #[test]
        fn indices_count_and_times_never_go_back(
            frames in proptest::collection::vec((any::<u64>(), any::<bool>(), any::<bool>(), 0u64..10_000), 1..50),
        ) {
            let (mut line, mut at) = (Timeline::default(), Instant::now());
            let mut last = 0;
            for (place, (source_ms, reopened, wall, passed)) in frames.into_iter().enumerate() {
                at += Duration::from_millis(passed);
                if reopened {
                    line.reopened();
                }
                let stamp = line.place(source_ms, at, if wall { Gap::Wall } else { Gap::Step });
                prop_assert_eq!(stamp.index, place);
                prop_assert!(stamp.pts_ms >= last);
                last = stamp.pts_ms;
            }
        }
    }
}
