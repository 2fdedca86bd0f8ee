//! MOTChallenge text: detections and tracks as lines of comma-separated numbers.
//!
//! Comes in: `frame,id,x,y,w,h,score,...` (id -1 for detections). Goes out: the same, read into frames or written with the places that the
//! original's scripts write. Frames count from 1; a frame without a line is empty but still a frame. No scoring and no tracking.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::{Detection, Seen};
use crate::files::write_atomic;

/// Largest frame number that is believed.
const MOST_FRAMES: usize = 10_000_000;

/// A box of a ground-truth or result file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Labelled {
    /// From the file.
    pub id: u32,
    /// Left, top, width, height.
    pub tlwh: [f64; 4],
    /// Confidence; in ground truth 0 means: not to be counted.
    pub score: f64,
}

/// One line's numbers.
fn numbers(line: &str) -> Result<Vec<f64>> {
    let parse = |field: &str| field.trim().parse::<f64>().with_context(|| format!("{field:?} is no number"));
    let values = line.split(',').map(parse).collect::<Result<Vec<f64>>>()?;
    ensure!(values.len() >= 7, "expected frame,id,x,y,w,h,score, found {} numbers", values.len());
    ensure!(values.iter().all(|v| v.is_finite()), "a number is not finite");
    Ok(values)
}

/// Frames 1, 2, … of a file, with whatever `each` makes of a line's id, box and score.
fn read<T>(path: &Path, each: impl Fn(f64, [f64; 4], f64) -> Result<T>) -> Result<Vec<Vec<T>>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let mut frames: Vec<Vec<T>> = Vec::new();
    for (place, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let here = || format!("{}, line {place}", path.display());
        let v = numbers(line).with_context(here)?;
        let frame = v[0];
        if frame.fract() != 0.0 || !(1.0..=MOST_FRAMES as f64).contains(&frame) {
            bail!("{}: frame {frame} is not a whole number from 1 to {MOST_FRAMES}", here());
        }
        let frame = frame as usize;
        frames.resize_with(frames.len().max(frame), Vec::new);
        frames[frame - 1].push(each(v[1], [v[2], v[3], v[4], v[5]], v[6]).with_context(here)?);
    }
    Ok(frames)
}

/// Detections by frame.
///
/// # Errors
/// The file, the line and what is wrong with it.
pub fn read_detections(path: &Path) -> Result<Vec<Vec<Detection>>> {
    read(path, |_, [x, y, w, h], score| {
        ensure!(w > 0.0 && h > 0.0, "a box of {w} by {h} pixels has no area");
        Ok(Detection { xyxy: [x, y, x + w, y + h], score })
    })
}

/// Tracks by frame: ground truth or results.
///
/// # Errors
/// The file, the line and what is wrong with it.
pub fn read_tracks(path: &Path) -> Result<Vec<Vec<Labelled>>> {
    read(path, |id, tlwh, score| {
        ensure!(id.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&id), "{id} is no id");
        Ok(Labelled { id: id as u32, tlwh, score })
    })
}

/// Writes results as `frame,id,x,y,w,h,score,-1,-1,-1`: all in hundredths, as the original's demo does.
///
/// # Errors
/// An unwritable folder; the file is then as it was.
pub fn write_results(path: &Path, frames: &[Vec<Seen>]) -> Result<()> {
    write_atomic(path, |out: &mut dyn Write| {
        for (frame, seen) in (1..).zip(frames) {
            for Seen { id, tlwh: [x, y, w, h], score, .. } in seen {
                writeln!(out, "{frame},{id},{x:.2},{y:.2},{w:.2},{h:.2},{score:.2},-1,-1,-1")?;
            }
        }
        Ok(())
    })?;
    Ok(())
}

/// The original's last filter: boxes large enough, and not too wide for `most_aspect` (w/h; none: any shape).
pub fn presentable(seen: &Seen, least_area: f64, most_aspect: Option<f64>) -> bool {
    let [_, _, w, h] = seen.tlwh;
    w * h > least_area && most_aspect.is_none_or(|most| w / h <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("det.txt");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn frames_without_lines_are_empty_frames() {
        let (_folder, path) = file("1,-1,10,20,30,40,0.9,-1,-1,-1\n\n4,-1,11,20,30,40,0.5\n");
        let frames = read_detections(&path).unwrap();
        assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0, 0, 1]);
        assert_eq!(frames[0][0], Detection { xyxy: [10.0, 20.0, 40.0, 60.0], score: 0.9 });
    }

    #[test]
    fn a_broken_line_is_named() {
        for (text, what) in [
            ("1,-1,10,20,30,40", "6 numbers"),
            ("1,-1,10,20,x,40,1", "\"x\" is no number"),
            ("0,-1,10,20,30,40,1", "frame 0"),
            ("1,-1,10,20,0,40,1", "no area"),
            ("1,-1,nan,20,3,40,1", "finite"),
        ] {
            let (_folder, path) = file(&format!("1,-1,1,1,1,1,1\n{text}\n"));
            let message = format!("{:#}", read_detections(&path).unwrap_err());
            assert!(message.contains("line 2") && message.contains(what), "{text}: {message}");
        }
    }

    #[test]
    fn results_are_read_back_as_written() {
        let (_folder, path) = file("");
        let seen = Seen { id: 3, tlwh: [1.26, 2.0, 3.0, 4.04], score: 0.876, detection: 0 };
        write_results(&path, &[vec![], vec![seen]]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "2,3,1.26,2.00,3.00,4.04,0.88,-1,-1,-1\n");
        assert_eq!(read_tracks(&path).unwrap()[1][0].id, 3);
        assert!(presentable(&seen, 10.0, Some(1.6)) && !presentable(&seen, 12.2, None));
        assert!(!presentable(&seen, 0.0, Some(0.5)));
    }
}
