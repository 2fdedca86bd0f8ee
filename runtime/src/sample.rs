//! Sampling: which frames of a source go into the window.
//!
//! Comes in: a source, and either a number of frames spread evenly (`--uniform`) or a rate (`--fps`, newest kept).
//! Goes out: the chosen frames in time order; a frame chosen twice is held once. Memory stays bounded by
//! [`KEEP_BYTES`] or the frames asked for, whichever is more. Nothing is resized.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use utr_models::RgbFrame;

use crate::capture::{self, Capture, CaptureOptions, Frame, Stamp};
use crate::error::{Error, Result};
use crate::source::Source;
use crate::window;

/// What is kept of a picture: all of it, or what the model sees.
pub type Keep<'a> = &'a dyn Fn(RgbFrame) -> Result<RgbFrame>;

/// Pictures kept while the length of a clip is still unknown, in bytes; longer clips are decoded a second time.
pub const KEEP_BYTES: usize = 256 << 20;

/// Longest clip, in frames: 18 hours at 30 a second. Beyond it a source counts as endless.
pub const MAX_CLIP_FRAMES: usize = 2_000_000;

/// Frames per second taken from a live source where neither the user nor a bundle said.
pub const LIVE_FPS: f64 = 2.0;

/// Which frames to take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// What fits the source: uniform for a clip, the newest at `fps` for a live one, the newest for a recording.
    Default {
        /// Frames per second of a live source, above zero.
        fps: f64,
        /// 1 to 32.
        frames: usize,
    },
    /// `frames` indices spread evenly over the clip, first and last included.
    Uniform {
        /// 1 to 32.
        frames: usize,
    },
    /// One frame every `1/fps` seconds, the newest `frames` kept.
    Newest {
        /// Frames per second, above zero.
        fps: f64,
        /// 1 to 32.
        frames: usize,
    },
}

/// Frames chosen from a source.
#[derive(Clone, Debug)]
pub struct Sampled {
    /// In time order; the same frame may stand several times in a row.
    pub frames: Vec<Arc<Frame>>,
    /// Frames the source delivered.
    pub total: usize,
    /// Frames lost before this process saw them.
    pub dropped: u64,
}

/// The reference's frame choice: `numpy.linspace(0, total - 1, frames)` truncated to integers. Short clips repeat
/// frames (reference.md §6.1).
pub fn uniform_indices(total: usize, frames: usize) -> Vec<usize> {
    let last = total.saturating_sub(1);
    let step = last as f64 / frames.saturating_sub(1).max(1) as f64;
    (0..frames)
        .map(|i| if i > 0 && i + 1 == frames { last } else { ((i as f64 * step) as usize).min(last) })
        .collect()
}

/// As [`sample_with`], with whole pictures.
///
/// # Errors
/// As there.
pub fn sample(source: &Source, sampling: Sampling, options: &CaptureOptions) -> Result<Sampled> {
    sample_with(source, sampling, options, &Ok)
}

/// Reads the source to its end (a live one until the window is full) and returns the chosen frames; `keep` makes each picture smaller as it is
/// taken, so that a window of large pictures takes no more memory than the model's.
///
/// # Errors
/// [`Error::Argument`] for a count outside 1 to 32 or a rate that is not positive; whatever capture reports.
pub fn sample_with(
    source: &Source,
    sampling: Sampling,
    options: &CaptureOptions,
    keep: Keep<'_>,
) -> Result<Sampled> {
    let (Sampling::Default { frames, .. } | Sampling::Uniform { frames } | Sampling::Newest { frames, .. }) =
        sampling;
    if !(1..=window::CAPACITY).contains(&frames) {
        return Err(Error::Argument(format!(
            "--frames {frames}: the window holds 1 to {} frames",
            window::CAPACITY
        )));
    }
    match sampling {
        Sampling::Default { fps, frames } => {
            let mut clip = capture::open(source, options)?;
            if clip.live() {
                newest(clip.as_mut(), fps, frames, keep)
            } else if let (Source::Replay(_), Some(total)) = (source, clip.total()) {
                // They were chosen when they were recorded.
                let indices: Vec<usize> = (total.saturating_sub(frames)..total).collect();
                pick(clip.as_mut(), &indices, total, keep)
            } else {
                uniform(clip, source, frames, options, (KEEP_BYTES, keep))
            }
        }
        Sampling::Uniform { frames } => {
            uniform(capture::open(source, options)?, source, frames, options, (KEEP_BYTES, keep))
        }
        Sampling::Newest { fps, frames } => {
            newest(capture::open(source, options)?.as_mut(), fps, frames, keep)
        }
    }
}

fn uniform(
    mut clip: Box<dyn Capture>,
    source: &Source,
    frames: usize,
    options: &CaptureOptions,
    (keep_bytes, keep): (usize, Keep<'_>),
) -> Result<Sampled> {
    if clip.live() {
        return Err(Error::Argument(format!(
            "--uniform needs a clip that ends, and {source} is live; use --fps to keep its newest frames"
        )));
    }
    if let Some(total) = clip.total() {
        return pick(clip.as_mut(), &uniform_indices(total, frames), total, keep);
    }
    // One pass for clips that fit: every picture is kept until the length is known.
    let (mut kept, mut bytes, mut total, mut overflow) = (Vec::new(), 0, 0, false);
    while let Some(stamp) = clip.advance()? {
        total += 1;
        if total > MAX_CLIP_FRAMES {
            return Err(Error::capture(
                source.to_string(),
                "it does not end; bound the pipeline (num-buffers=N), or make it live (is-live=true) and use --fps",
            ));
        }
        if !overflow {
            let frame = take(clip.as_mut(), stamp, keep)?;
            bytes += frame.image.data.len();
            kept.push(frame);
            if bytes > keep_bytes {
                overflow = true;
                kept = Vec::new();
            }
        }
    }
    let dropped = clip.dropped();
    drop(clip);
    let indices = uniform_indices(total, frames);
    if overflow {
        return pick(capture::open(source, options)?.as_mut(), &indices, total, keep);
    }
    let frames = indices.iter().filter_map(|&index| kept.get(index).cloned()).collect();
    Ok(Sampled { frames, total, dropped })
}

/// Walks a clip of known length and copies out only the wanted pictures.
fn pick(clip: &mut dyn Capture, indices: &[usize], total: usize, keep: Keep<'_>) -> Result<Sampled> {
    let mut frames: Vec<Arc<Frame>> = Vec::with_capacity(indices.len());
    let mut wanted = indices.iter().copied().peekable();
    // Counted here: a recording's frames keep the numbers they had in their source.
    let mut place = 0;
    while let Some(&index) = wanted.peek() {
        let Some(stamp) = clip.advance()? else {
            return Err(Error::capture(
                "the source",
                format!(
                    "the clip ended at frame {index} though it had {total}: it changed while it was read"
                ),
            ));
        };
        if place == index {
            let frame = take(clip, stamp, keep)?;
            while wanted.next_if_eq(&index).is_some() {
                frames.push(Arc::clone(&frame));
            }
        }
        place += 1;
    }
    Ok(Sampled { frames, total, dropped: clip.dropped() })
}

fn newest(clip: &mut dyn Capture, fps: f64, frames: usize, keep: Keep<'_>) -> Result<Sampled> {
    let mut kept: VecDeque<Arc<Frame>> = VecDeque::with_capacity(frames);
    let total = each_due(clip, fps, &mut |frame, live| {
        let Frame { stamp, captured, image } = Arc::unwrap_or_clone(frame);
        let frame = Arc::new(Frame { stamp, captured, image: keep(image)? });
        if kept.len() == frames {
            kept.pop_front();
        }
        kept.push_back(frame);
        Ok(!(live && kept.len() == frames))
    })?;
    Ok(Sampled { frames: kept.into(), total, dropped: clip.dropped() })
}

/// Hands over one frame every `1/fps` seconds until the source ends or `on_frame` (told whether the source is live) says it has enough; how many
/// frames the source delivered.
///
/// # Errors
/// [`Error::Argument`] for a rate that is not positive; [`Error::Capture`] where no frame came; whatever `on_frame` reports.
pub fn each_due(
    clip: &mut dyn Capture,
    fps: f64,
    on_frame: &mut dyn FnMut(Arc<Frame>, bool) -> Result<bool>,
) -> Result<usize> {
    if !(fps.is_finite() && fps > 0.0) {
        return Err(Error::Argument(format!("--fps {fps}: the rate must be above zero")));
    }
    let mut clock = RateClock::new(fps);
    let mut total = 0;
    while let Some(stamp) = clip.advance()? {
        total += 1;
        if total > MAX_CLIP_FRAMES && !clip.live() {
            return Err(Error::capture(
                "the source",
                "it does not end; bound the pipeline (num-buffers=N), or make it live (is-live=true)",
            ));
        }
        if clock.due(stamp.pts_ms) {
            let frame = take(clip, stamp, &Ok)?;
            if !on_frame(frame, clip.live())? {
                return Ok(total);
            }
        }
    }
    match total {
        0 => Err(Error::capture("the source", "it ended without a frame")),
        _ => Ok(total),
    }
}

fn take(clip: &mut dyn Capture, stamp: Stamp, keep: Keep<'_>) -> Result<Arc<Frame>> {
    let captured = Instant::now();
    Ok(Arc::new(Frame { stamp, captured, image: keep(clip.image()?)? }))
}

/// Says which frames a rate takes: the first at or after each multiple of the period, counted from the first frame.
#[derive(Clone, Debug)]
pub struct RateClock {
    period_ms: f64,
    first_ms: Option<u64>,
    next: u64,
}

impl RateClock {
    /// `fps` above zero.
    pub fn new(fps: f64) -> Self {
        Self { period_ms: 1000.0 / fps, first_ms: None, next: 0 }
    }

    /// Whether the frame shown at `pts_ms` is taken.
    pub fn due(&mut self, pts_ms: u64) -> bool {
        let since = pts_ms.saturating_sub(*self.first_ms.get_or_insert(pts_ms)) as f64;
        // Times are rounded down to milliseconds; the grace keeps 1/3 s from slipping to the next frame.
        let grace = f64::min(1.0, self.period_ms / 2.0);
        if since + grace <= self.next as f64 * self.period_ms {
            return false;
        }
        self.next = (((since + grace) / self.period_ms).floor() as u64 + 1).max(self.next + 1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn uniform_indices_equal_numpys() {
        let golden = [
            (
                20,
                vec![
                    0, 0, 1, 1, 2, 3, 3, 4, 4, 5, 6, 6, 7, 7, 8, 9, 9, 10, 11, 11, 12, 12, 13, 14, 14, 15,
                    15, 16, 17, 17, 18, 19,
                ],
            ),
            (32, (0..32).collect()),
            (
                100,
                vec![
                    0, 3, 6, 9, 12, 15, 19, 22, 25, 28, 31, 35, 38, 41, 44, 47, 51, 54, 57, 60, 63, 67, 70,
                    73, 76, 79, 83, 86, 89, 92, 95, 99,
                ],
            ),
            (
                300,
                vec![
                    0, 9, 19, 28, 38, 48, 57, 67, 77, 86, 96, 106, 115, 125, 135, 144, 154, 163, 173, 183,
                    192, 202, 212, 221, 231, 241, 250, 260, 270, 279, 289, 299,
                ],
            ),
            (
                1000,
                vec![
                    0, 32, 64, 96, 128, 161, 193, 225, 257, 290, 322, 354, 386, 418, 451, 483, 515, 547, 580,
                    612, 644, 676, 708, 741, 773, 805, 837, 870, 902, 934, 966, 999,
                ],
            ),
        ];
        for (total, indices) in golden {
            assert_eq!(uniform_indices(total, 32), indices, "total {total}");
        }
        assert_eq!(uniform_indices(63, 32), (0..32).map(|i| 2 * i).collect::<Vec<_>>());
        assert_eq!(uniform_indices(10, 1), [0]);
        assert_eq!(uniform_indices(1, 4), [0, 0, 0, 0]);
    }

    fn indices(uri: &str, sampling: Sampling) -> Vec<usize> {
        let source = Source::parse(uri).unwrap();
        let sampled = sample(&source, sampling, &CaptureOptions::default()).unwrap();
        sampled.frames.iter().map(|frame| frame.stamp.index).collect()
    }

    #[test]
    fn a_rate_keeps_the_newest_frames() {
        let uri = "pattern://noise?frames=100&fps=10&width=2&height=2";
        assert_eq!(indices(uri, Sampling::Newest { fps: 2.0, frames: 4 }), [80, 85, 90, 95]);
        assert_eq!(indices(uri, Sampling::Newest { fps: 100.0, frames: 3 }), [97, 98, 99]);
    }

    #[test]
    fn a_short_clip_repeats_frames_without_copying_them() {
        let source = Source::parse("pattern://noise?frames=3&width=2&height=2").unwrap();
        let sampled = sample(&source, Sampling::Uniform { frames: 8 }, &CaptureOptions::default()).unwrap();
        assert_eq!((sampled.frames.len(), sampled.total), (8, 3));
        assert!(Arc::ptr_eq(&sampled.frames[0], &sampled.frames[1]));
    }

    #[test]
    fn counts_and_rates_outside_their_limits_are_refused() {
        let source = Source::parse("pattern://noise").unwrap();
        for sampling in [
            Sampling::Uniform { frames: 0 },
            Sampling::Uniform { frames: 33 },
            Sampling::Newest { fps: 0.0, frames: 4 },
            Sampling::Newest { fps: f64::NAN, frames: 4 },
        ] {
            assert!(sample(&source, sampling, &CaptureOptions::default()).is_err(), "{sampling:?}");
        }
    }

    #[cfg(feature = "gst")]
    #[test]
    fn a_clip_too_long_to_keep_is_decoded_twice_with_the_same_result() {
        let source = Source::parse("gst://videotestsrc pattern=ball num-buffers=21").unwrap();
        let options = CaptureOptions::default();
        let read = |keep_bytes| {
            let clip = capture::open(&source, &options).unwrap();
            let sampled = uniform(clip, &source, 8, &options, (keep_bytes, &Ok)).unwrap();
            sampled.frames.iter().map(|frame| (frame.stamp, frame.image.clone())).collect::<Vec<_>>()
        };
        assert_eq!(read(0), read(usize::MAX));
        assert_eq!(read(0).iter().map(|(stamp, _)| stamp.index).collect::<Vec<_>>(), uniform_indices(21, 8));
    }

    proptest! {
        #[test]
        fn uniform_indices_are_ordered_and_reach_both_ends(total in 1usize..100_000, frames in 2usize..=32) {
            let chosen = uniform_indices(total, frames);
            prop_assert_eq!(chosen.len(), frames);
            prop_assert_eq!((chosen[0], chosen[frames - 1]), (0, total - 1));
            prop_assert!(chosen.is_sorted());
        }

        #[test]
        fn a_rate_takes_no_more_frames_than_it_says(fps in 1u32..60, rate in 0.5f64..40.0, frames in 1u64..300) {
            let mut clock = RateClock::new(rate);
            let taken = (0..frames).filter(|i| clock.due(i * 1000 / u64::from(fps))).count() as f64;
            let seconds = (frames - 1) as f64 / f64::from(fps);
            prop_assert!(taken <= seconds * rate + 2.0, "{taken} frames in {seconds} s at {rate}");
            prop_assert!(taken + 2.0 >= (seconds * rate.min(f64::from(fps))).floor() * 0.5, "{taken} of {frames}");
        }
    }
}
