//! Pictures and clips of a record, read from disk.
//!
//! Comes in: a record and where its media lie. Goes out: pictures at source size, or the frames of a clip that the reference takes (reference.md §2.2): one
//! a second, or evenly over a clip that is too long. A clip is read twice, once for its length and rate, once for its frames; each frame is made
//! as small as the tower sees it when it is taken. Files are read as `utr ask` reads them.

use super::Data;
use super::corpus::{Media, Record};
use crate::eval::clip::rate;
use anyhow::{Context, Result, ensure};
use std::path::Path;
use utr_models::RgbFrame;
use utr_models::preprocess::Preprocessor;
use utr_runtime::capture::{self, CaptureOptions};
use utr_runtime::interrupt::Interrupt;
use utr_runtime::sample::{MAX_CLIP_FRAMES, uniform_indices};
use utr_runtime::source::Source;

/// What was read of a record.
#[derive(Debug)]
pub enum Shown {
    /// Text alone.
    None,
    /// Frames in time order, at the tower's size.
    Clip(Vec<RgbFrame>),
    /// Pictures at source size.
    Pictures(Vec<RgbFrame>),
}

/// Folders of pictures of this data set hold a clip at two frames a second, of which the reference takes ten.
const SHARE_VIDEO: &str = "shareVideoGPTV";
const SHARE_VIDEO_FRAMES: usize = 10;

/// Places of the frames that are taken of a clip of `total` frames at a mean rate: `fps` a second, or `most` evenly where those are more.
pub fn frame_indices(total: usize, mean_rate: f64, fps: f64, most: usize) -> Vec<usize> {
    let step = ((mean_rate / fps).round_ties_even() as usize).max(1);
    let every = total.div_ceil(step);
    if every > most { uniform_indices(total, most) } else { (0..total).step_by(step).collect() }
}

/// Reads what a record shows.
///
/// # Errors
/// The file that cannot be read, with the reason; an `interrupt`.
pub fn read(
    record: &Record,
    data: &Data,
    preprocessor: &Preprocessor,
    interrupt: &Interrupt,
) -> Result<Shown> {
    let options = CaptureOptions { interrupt: interrupt.clone(), ..CaptureOptions::default() };
    match &record.media {
        Media::None => Ok(Shown::None),
        Media::Clip(path) => {
            let path = data.video_root.join(path);
            let frames = clip(&path, data, preprocessor, &options);
            frames.map(Shown::Clip).with_context(|| format!("reading {}", path.display()))
        }
        Media::Pictures(paths) => {
            let read = |path: &String| {
                let path = data.image_root.join(path);
                picture(&path, &options).with_context(|| format!("reading {}", path.display()))
            };
            Ok(Shown::Pictures(paths.iter().map(read).collect::<Result<_>>()?))
        }
    }
}

fn picture(path: &Path, options: &CaptureOptions) -> Result<RgbFrame> {
    ensure!(path.is_file(), "there is no such file");
    let mut source = capture::open(&Source::Path(path.to_path_buf()), options)?;
    source.advance()?.context("it holds no picture")?;
    Ok(source.image()?)
}

fn clip(
    path: &Path,
    data: &Data,
    preprocessor: &Preprocessor,
    options: &CaptureOptions,
) -> Result<Vec<RgbFrame>> {
    ensure!(path.exists(), "there is no such file or folder");
    let source = Source::Path(path.to_path_buf());
    let mut total = 0;
    let mut times: Option<(u64, u64)> = None;
    let mut clip = capture::open(&source, options)?;
    while let Some(stamp) = clip.advance()? {
        total += 1;
        ensure!(total <= MAX_CLIP_FRAMES, "it does not end");
        let first = times.map_or(stamp.pts_ms, |(first, _)| first);
        times = Some((first, stamp.pts_ms));
    }
    drop(clip);
    let (first, last) = times.context("it ended without a frame")?;
    let wanted = if path.is_dir() && path.to_string_lossy().contains(SHARE_VIDEO) {
        uniform_indices(total, SHARE_VIDEO_FRAMES)
    } else {
        frame_indices(total, rate(total, last.saturating_sub(first)), data.fps, data.max_frames)
    };
    let mut clip = capture::open(&source, options)?;
    let mut frames: Vec<RgbFrame> = Vec::with_capacity(wanted.len());
    let mut wanted = wanted.into_iter().peekable();
    let mut place = 0;
    while wanted.peek().is_some() {
        clip.advance()?.context("it was longer when it was read first")?;
        if wanted.peek() == Some(&place) {
            let frame = preprocessor.picture(&clip.image()?)?;
            while wanted.next_if_eq(&place).is_some() {
                frames.push(frame.clone());
            }
        }
        place += 1;
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_those_the_reference_takes() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/misc_golden.json");
        let golden: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let cases = golden["llavanext_sampling"].as_array().unwrap();
        assert!(cases.len() >= 4);
        for case in cases {
            let total = case["total"].as_u64().unwrap() as usize;
            let want: Vec<usize> = serde_json::from_value(case["idx"].clone()).unwrap();
            assert_eq!(frame_indices(total, case["fps"].as_f64().unwrap(), 1.0, 32), want, "{case}");
        }
        // Slower than half a frame a second: the reference divides by zero.
        assert_eq!(frame_indices(3, 0.3, 1.0, 32), [0, 1, 2]);
    }

    #[test]
    fn a_folder_is_a_clip_of_25_frames_a_second_and_a_missing_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["clip", "shareVideoGPTV"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            for number in 0..60u8 {
                let picture = image::RgbImage::from_pixel(4, 4, image::Rgb([number, 0, 0]));
                picture.save(folder.path().join(name).join(format!("{number:05}.png"))).unwrap();
            }
        }
        let data: Data =
            toml::from_str(&format!("conversations = 'x'\nvideo_root = {:?}", folder.path())).unwrap();
        let shown = |name: &str| {
            let record = Record { id: "a".into(), media: Media::Clip(name.into()), turns: Vec::new() };
            read(&record, &data, &Preprocessor::siglip(4), &Interrupt::default())
        };
        let numbers = |name: &str| match shown(name).unwrap() {
            Shown::Clip(frames) => frames.iter().map(|frame| frame.data[0]).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(numbers("clip"), [0, 25, 50]);
        assert_eq!(numbers("shareVideoGPTV"), [0, 6, 13, 19, 26, 32, 39, 45, 52, 59]);
        let error = format!("{:#}", shown("nothing.mp4").unwrap_err());
        assert!(error.contains("nothing.mp4") && error.contains("no such file"), "{error}");
    }
}
