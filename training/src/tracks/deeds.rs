//! What an object does, read off the way its boxes go.
//!
//! Comes in: a track's boxes. Goes out: spans of moving (left, right, up, down), growing, shrinking and standing still, as they look in the picture: a camera
//! that moves moves everything. Any expert's boxes serve; deeds that are no movement need an expert that names them.

use crate::queries::{TrackAction, TrackBox};

/// Time that a movement is judged over, in seconds.
const WINDOW_S: f64 = 0.5;
/// Shortest span that is told, in seconds.
const LEAST_S: f64 = 0.4;
/// Least way of the centre within the window, in shares of the box's and of the frame's diagonal; both must be reached.
const LEAST_WAY: [f32; 2] = [0.08, 0.008];
/// Least factor of the box's diagonal within the window to be said to grow.
const LEAST_GROWTH: f32 = 1.08;

/// The deeds of a track in a frame of (width, height), in the order of their starts.
pub fn deeds(boxes: &[TrackBox], frame: [f32; 2], fps: f64) -> Vec<TrackAction> {
    let half = ((fps * WINDOW_S / 2.0).round() as u32).max(1);
    let least = ((fps * LEAST_S).round() as u32).max(2);
    let words: Vec<(u32, &str)> =
        (0..boxes.len()).filter_map(|at| Some((boxes[at].frame, word(boxes, at, half, frame)?))).collect();
    let mut spans: Vec<TrackAction> = Vec::new();
    for (number, text) in words {
        match spans.last_mut() {
            Some(span) if span.text == text && number - span.end <= half => span.end = number,
            _ => spans.push(TrackAction { start: number, end: number, text: text.to_owned() }),
        }
    }
    // A word that does not last is jitter; what it parted is one span again.
    spans.retain(|span| span.end - span.start + 1 >= least);
    let mut joined: Vec<TrackAction> = Vec::new();
    for span in spans {
        match joined.last_mut() {
            Some(last) if last.text == span.text && span.start - last.end <= least => last.end = span.end,
            _ => joined.push(span),
        }
    }
    joined
}

/// The word for box `at`, judged between the boxes half a window before and behind it.
fn word(boxes: &[TrackBox], at: usize, half: u32, frame: [f32; 2]) -> Option<&'static str> {
    let here = boxes.get(at)?.frame;
    let before = boxes[..=at].iter().rev().take_while(|b| here - b.frame <= half).last()?;
    let behind = boxes[at..].iter().take_while(|b| b.frame - here <= half).last()?;
    let frames = behind.frame - before.frame;
    if frames < half {
        return None;
    }
    // At the ends of a track the window is shorter, and so is the way.
    let whole = (2 * half) as f32 / frames as f32;
    let [a, b] = [before, behind].map(|b| {
        let [x1, y1, x2, y2] = b.xyxy;
        ([(x1 + x2) / 2.0, (y1 + y2) / 2.0], (x2 - x1).hypot(y2 - y1))
    });
    let [dx, dy] = [(b.0[0] - a.0[0]) * whole, (b.0[1] - a.0[1]) * whole];
    let (way, size) = (dx.hypot(dy), (a.1 + b.1) / 2.0);
    if way >= LEAST_WAY[0] * size && way >= LEAST_WAY[1] * frame[0].hypot(frame[1]) {
        return Some(match (dx.abs() >= dy.abs(), dx > 0.0, dy > 0.0) {
            (true, true, _) => "moves right",
            (true, false, _) => "moves left",
            (false, _, true) => "moves down",
            (false, _, false) => "moves up",
        });
    }
    let growth = (b.1 / a.1.max(f32::EPSILON)).powf(whole);
    Some(match growth {
        g if g >= LEAST_GROWTH => "grows",
        g if g <= 1.0 / LEAST_GROWTH => "shrinks",
        _ => "stands still",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A box of side 20 that is where `path` says.
    fn told(
        frames: std::ops::RangeInclusive<u32>,
        path: impl Fn(u32) -> [f32; 3],
    ) -> Vec<(u32, u32, String)> {
        let boxes: Vec<TrackBox> = frames
            .map(|frame| {
                let [x, y, half] = path(frame);
                TrackBox { frame, xyxy: [x - half, y - half, x + half, y + half], score: 0.9 }
            })
            .collect();
        deeds(&boxes, [320.0, 240.0], 25.0).into_iter().map(|a| (a.start, a.end, a.text)).collect()
    }

    #[test]
    fn a_walk_a_rest_and_the_way_back_are_three_spans() {
        let path = |f: u32| {
            let x = if f <= 40 {
                f as f32 * 3.0
            } else if f <= 80 {
                120.0
            } else {
                120.0 - (f - 80) as f32 * 3.0
            };
            // Jitter of a detector.
            [x + (f % 3) as f32 * 0.3, 100.0, 10.0]
        };
        let spans = told(1..=120, path);
        let texts: Vec<&str> = spans.iter().map(|s| s.2.as_str()).collect();
        assert_eq!(texts, ["moves right", "stands still", "moves left"], "{spans:?}");
        assert!(spans[0].1.abs_diff(40) <= 6 && spans[2].0.abs_diff(81) <= 6, "{spans:?}");
    }

    #[test]
    fn what_comes_nearer_grows_and_a_glimpse_is_told_nothing() {
        let spans = told(1..=60, |f| [100.0, 100.0, 10.0 + f as f32]);
        assert_eq!(spans.len(), 1, "{spans:?}");
        assert_eq!(spans[0].2, "grows");
        assert_eq!(told(1..=4, |f| [f as f32 * 9.0, 50.0, 10.0]), []);
        assert_eq!(told(7..=7, |_| [5.0, 5.0, 3.0]), []);
    }
}
