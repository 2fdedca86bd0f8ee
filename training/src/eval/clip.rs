//! A benchmark's clip: a file, a folder of pictures, or a stretch of one of them between two times.
//!
//! Comes in: where it lies, from when to when. Goes out: 32 frames spread evenly over it, first and last included, with the whole clip's length and
//! rate. A stretch is read twice: once for the frames' times, once for the pictures. Nothing is resized.

use super::FRAMES;
use super::voice::filmed;
use anyhow::{Result, ensure};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use utr_runtime::capture::{self, CaptureOptions, Frame};
use utr_runtime::sample::uniform_indices;
use utr_runtime::source::Source;

/// Frames per second of the folders of pictures that MVBench cuts by time.
const FOLDER_FPS: f64 = 3.0;

/// Where a clip lies.
#[derive(Clone, Debug, PartialEq)]
pub struct Clip {
    /// Video or folder.
    pub path: PathBuf,
    /// From and to, in seconds, where only a stretch is shown.
    pub stretch: Option<[f64; 2]>,
    /// False where nothing lies there.
    pub present: bool,
}

/// A clip that was read.
pub struct Seen {
    /// [`FRAMES`] of them, in time order.
    pub frames: Vec<Arc<Frame>>,
    /// Frames of the whole clip.
    pub total: usize,
    /// Its mean rate.
    pub fps: f64,
}

impl Clip {
    /// The first of `paths` that exists, else the first as absent.
    pub fn first_of(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut paths = paths.into_iter().peekable();
        let first = paths.peek().cloned().unwrap_or_default();
        let found = paths.find(|path| path.exists());
        let present = found.is_some();
        Self { path: found.unwrap_or(first), stretch: None, present }
    }

    /// Reads it.
    ///
    /// # Errors
    /// What cannot be decoded, and a stretch that lies beyond the clip's end.
    pub fn read(&self) -> Result<Seen> {
        match self.stretch {
            Some(stretch) => self.read_stretch(stretch),
            None => {
                let sampled = filmed(&self.path)?;
                let ends = (sampled.frames.first(), sampled.frames.last());
                let span = match ends {
                    (Some(first), Some(last)) => last.stamp.pts_ms.saturating_sub(first.stamp.pts_ms),
                    _ => 0,
                };
                Ok(Seen { fps: rate(sampled.total, span), total: sampled.total, frames: sampled.frames })
            }
        }
    }

    fn read_stretch(&self, [from, to]: [f64; 2]) -> Result<Seen> {
        let options = CaptureOptions::default();
        let open = || capture::open(&Source::Path(self.path.clone()), &options);
        let mut times = Vec::new();
        let mut clip = open()?;
        while let Some(stamp) = clip.advance()? {
            times.push(stamp.pts_ms);
        }
        let total = times.len();
        let span = times.last().unwrap_or(&0).saturating_sub(*times.first().unwrap_or(&0));
        // Pictures in a folder are numbered from 1, frames of a video from 0.
        let (fps, offset) = if self.path.is_dir() { (FOLDER_FPS, 1) } else { (rate(total, span), 0) };
        let frame = |time: f64| ((time * fps).round_ties_even().max(0.0) as usize).saturating_sub(offset);
        let (first, last) = (frame(from), frame(to).min(total.saturating_sub(1)));
        ensure!(
            first <= last,
            "{}: {from} to {to} s is beyond its end ({total} frames at {fps:.3} a second)",
            self.path.display()
        );
        let mut clip = open()?;
        let mut frames = Vec::with_capacity(FRAMES);
        let mut wanted = uniform_indices(last - first + 1, FRAMES).into_iter().map(|i| first + i).peekable();
        let mut place = 0;
        while wanted.peek().is_some() {
            let Some(stamp) = clip.advance()? else { break };
            if wanted.peek() == Some(&place) {
                let frame = Arc::new(Frame { stamp, captured: Instant::now(), image: clip.image()? });
                while wanted.next_if_eq(&place).is_some() {
                    frames.push(Arc::clone(&frame));
                }
            }
            place += 1;
        }
        ensure!(wanted.peek().is_none(), "{}: it was longer when it was read first", self.path.display());
        Ok(Seen { frames, total, fps })
    }
}

/// Frames per second of `total` frames whose last comes `span_ms` after the first. Times are cut to whole milliseconds: among the rates that the
/// span allows, one that cameras and films have is taken for the true one.
pub(crate) fn rate(total: usize, span_ms: u64) -> f64 {
    if total < 2 || span_ms == 0 {
        return capture::FOLDER_FPS as f64;
    }
    let (frames, span) = ((total - 1) as f64 * 1000.0, span_ms as f64);
    let (least, most) = (frames / (span + 1.0) * (1.0 - 1e-9), frames / span * (1.0 + 1e-9));
    let whole = most.floor();
    let ntsc = (most * 1.001).floor() * 1000.0 / 1001.0;
    [whole, ntsc].into_iter().find(|known| (least..=most).contains(known)).unwrap_or(frames / span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_that_films_have_is_found_from_whole_milliseconds() {
        let span = |frames: usize, fps: f64| ((frames - 1) as f64 * 1000.0 / fps) as u64;
        for fps in
            [1.0, 3.0, 10.0, 15.0, 24.0, 24_000.0 / 1001.0, 25.0, 30.0, 30_000.0 / 1001.0, 60_000.0 / 1001.0]
        {
            for frames in [90, 300, 9000, 100_000] {
                assert_eq!(rate(frames, span(frames, fps)), fps, "{frames} frames at {fps}");
            }
        }
        let odd = rate(3000, span(3000, 17.3));
        assert!((odd - 17.3).abs() < 1e-3, "{odd}");
        assert_eq!((rate(1, 0), rate(0, 0)), (25.0, 25.0));
    }

    /// Pictures 00001.png, 00002.png, … whose red is their number.
    fn folder(pictures: u8) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for number in 1..=pictures {
            let picture = image::RgbImage::from_pixel(2, 2, image::Rgb([number, 0, 0]));
            picture.save(folder.path().join(format!("{number:05}.png"))).unwrap();
        }
        folder
    }

    fn numbers(folder: &tempfile::TempDir, stretch: Option<[f64; 2]>) -> Vec<u8> {
        let clip = Clip { stretch, ..Clip::first_of([folder.path().to_path_buf()]) };
        clip.read().unwrap().frames.iter().map(|frame| frame.image.data[0]).collect()
    }

    #[test]
    fn a_stretch_of_a_folder_counts_three_pictures_a_second_from_one() {
        let folder = folder(60);
        let whole = numbers(&folder, None);
        assert_eq!((whole.len(), whole[0], whole[31]), (FRAMES, 1, 60));
        let stretch = numbers(&folder, Some([2.0, 13.0]));
        assert_eq!((stretch.len(), stretch[0], stretch[31]), (FRAMES, 6, 39));
        assert!(stretch.is_sorted());
        // Beyond the end it is cut; before the start it begins with the first.
        let over = numbers(&folder, Some([0.0, 99.0]));
        assert_eq!((over[0], over[31]), (1, 60));
        let beyond = Clip { stretch: Some([30.0, 40.0]), ..Clip::first_of([folder.path().to_path_buf()]) };
        assert!(beyond.read().err().unwrap().to_string().contains("beyond its end"));
    }

    #[cfg(feature = "gst")]
    #[test]
    fn a_stretch_of_a_video_counts_its_frames_from_zero() {
        let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/demo/clips/demo.mp4");
        let whole = Clip::first_of([PathBuf::from(demo)]);
        let Seen { total, fps, frames } = whole.read().unwrap();
        assert_eq!((frames[0].stamp.index, frames[31].stamp.index, fps.fract()), (0, total - 1, 0.0));
        let cut = Clip { stretch: Some([7.2 / fps, 23.6 / fps]), ..whole };
        let seen = cut.read().unwrap();
        let indices: Vec<usize> = seen.frames.iter().map(|frame| frame.stamp.index).collect();
        assert_eq!((seen.total, seen.fps, seen.frames.len()), (total, fps, FRAMES));
        assert_eq!(indices, uniform_indices(18, FRAMES).into_iter().map(|i| 7 + i).collect::<Vec<_>>());
    }
}
