//! MOTChallenge text: detections and tracks as lines of comma-separated numbers.
//!
//! Comes in: `frame,id,x,y,w,h,score,...` (id -1 for detections), lines in any order. Goes out: the same, read into frames or written with the places
//! that the original's scripts write. Frames count from 1; a frame without a line is empty but still a frame. No scoring and no tracking.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::frames::{Frames, check_frame};
use super::{Detection, Seen};

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

/// The numbers of a line that are read.
struct Line {
    frame: u32,
    id: f64,
    tlwh: [f64; 4],
    score: f64,
}

impl Line {
    fn parse(text: &str) -> Result<Self> {
        let mut values = [0.0; 7];
        let mut count = 0;
        for field in text.split([',']) {
            let value: f64 = field.trim().parse().with_context(|| format!("{field:?} is no number"))?;
            ensure!(value.is_finite(), "{value} is not finite");
            if let Some(place) = values.get_mut(count) {
                *place = value;
            }
            count += 1;
        }
        ensure!(count >= values.len(), "expected frame,id,x,y,w,h,score, found {count} numbers");
        let [frame, id, x, y, w, h, score] = values;
        Ok(Self { frame: check_frame(frame)?, id, tlwh: [x, y, w, h], score })
    }
}

/// Frames of a file, with whatever `each` makes of a line.
fn read<T>(path: &Path, mut each: impl FnMut(Line) -> Result<T>) -> Result<Frames<T>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let item = |(place, line): (usize, &str)| {
        let item = Line::parse(line).and_then(|line| Ok((line.frame, each(line)?)));
        item.with_context(|| format!("{}, line {place}", path.display()))
    };
    (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()).map(item).collect()
}

/// Detections by frame.
///
/// # Errors
/// The file, the line and what is wrong with it.
pub fn read_detections(path: &Path) -> Result<Frames<Detection>> {
    read(path, |Line { tlwh: [x, y, w, h], score, .. }| {
        let detection = Detection { xyxy: [x, y, x + w, y + h], score };
        detection.check()?;
        Ok(detection)
    })
}

/// Tracks by frame: ground truth or results.
///
/// # Errors
/// The file, the line and what is wrong with it; an id that is given twice in a frame.
pub fn read_tracks(path: &Path) -> Result<Frames<Labelled>> {
    let mut given = HashSet::new();
    read(path, |Line { frame, id, tlwh, score }| {
        ensure!(id.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&id), "{id} is no id");
        ensure!(given.insert((frame, id as u32)), "id {id} is given twice in frame {frame}");
        Ok(Labelled { id: id as u32, tlwh, score })
    })
}

/// Writes a line of results, `frame,id,x,y,w,h,score,-1,-1,-1`: all in hundredths, as the original's demo does.
///
/// # Errors
/// Whatever `out` answered.
pub fn write_result(out: &mut dyn Write, frame: u32, seen: &Seen) -> std::io::Result<()> {
    let Seen { id, tlwh, score, .. } = seen;
    let mut line = Vec::with_capacity(64);
    write!(line, "{frame},{id},")?;
    for number in tlwh.iter().chain([score]) {
        push_hundredths(&mut line, *number)?;
        line.push(b',');
    }
    line.extend_from_slice(b"-1,-1,-1\n");
    out.write_all(&line)
}

/// What `{:.2}` writes, faster. Where a hundredth is about half way to the next, `{:.2}` itself decides.
fn push_hundredths(line: &mut Vec<u8>, number: f64) -> std::io::Result<()> {
    let hundredths = number.abs() * 100.0;
    let rounded = hundredths.round();
    let clear = hundredths < 1e9 && (hundredths - rounded).abs() < 0.4999;
    if !clear {
        return write!(line, "{number:.2}");
    }
    if number.is_sign_negative() {
        line.push(b'-');
    }
    let mut digits = [b'0'; 12];
    let (mut rest, mut first) = (rounded as u64, digits.len());
    while rest > 0 || first > digits.len() - 3 {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let (whole, part) = digits[first..].split_at(digits.len() - first - 2);
    line.extend_from_slice(whole);
    line.push(b'.');
    line.extend_from_slice(part);
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
    use proptest::prelude::*;

    fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("det.txt");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn frames_without_lines_are_empty_frames_and_lines_come_in_any_order() {
        let (_folder, path) =
            file("4,-1,11,20,30,40,0.5\r\n\n1,-1,10,20,30,40,0.9,-1,-1,-1\r\n4,-1,12,20,30,40,0.4");
        let frames = read_detections(&path).unwrap();
        let counts: Vec<usize> = frames.iter().map(|(_, detections)| detections.len()).collect();
        assert_eq!(counts, [1, 0, 0, 2]);
        assert_eq!(frames.at(1)[0], Detection { xyxy: [10.0, 20.0, 40.0, 60.0], score: 0.9 });
        assert_eq!(frames.at(4).iter().map(|d| d.xyxy[0]).collect::<Vec<_>>(), [11.0, 12.0]);
        let (_folder, path) = file("\n \n");
        assert!(read_detections(&path).unwrap().is_empty());
    }

    #[test]
    fn a_broken_line_is_named() {
        for (text, what) in [
            ("1,-1,10,20,30,40", "6 numbers"),
            ("1,-1,10,20,x,40,1", "\"x\" is no number"),
            ("1,-1,10,20,30,40,0.5,", "\"\" is no number"),
            ("1 -1 10 20 30 40 1", "is no number"),
            ("0,-1,10,20,30,40,1", "frame 0"),
            ("-7,-1,10,20,30,40,1", "frame -7"),
            ("1.5,-1,10,20,30,40,1", "frame 1.5"),
            ("99999999999,-1,10,20,30,40,1", "from 1 to 10000000"),
            ("1,-1,10,20,0,40,1", "no area"),
            ("1,-1,10,20,30,-4,1", "no area"),
            ("1,-1,10,20,1e-9,40,1", "too small"),
            ("1,-1,nan,20,3,40,1", "finite"),
            ("1,-1,10,20,inf,40,1", "finite"),
            ("1,-1,1,20,3,40,NaN", "finite"),
            ("1,-1,1e308,20,1e308,40,1", "finite"),
            ("1,-1,1e12,20,30,40,1", "beyond"),
        ] {
            let (_folder, path) = file(&format!("1,-1,1,1,1,1,1\n{text}\n"));
            let message = format!("{:#}", read_detections(&path).unwrap_err());
            assert!(message.contains("line 2") && message.contains(what), "{text}: {message}");
        }
        let (_folder, path) = file("1,3,1,1,1,1,1\n2,3,1,1,1,1,1\n1,3,9,9,1,1,1\n");
        let message = format!("{:#}", read_tracks(&path).unwrap_err());
        assert!(
            message.contains("line 3") && message.contains("id 3 is given twice in frame 1"),
            "{message}"
        );
    }

    #[test]
    fn results_are_read_back_as_written() {
        let (_folder, path) = file("");
        let seen = Seen { id: 3, tlwh: [1.26, 2.0, 3.0, 4.04], score: 0.876, detection: 0 };
        let mut text = Vec::new();
        write_result(&mut text, 2, &seen).unwrap();
        assert_eq!(text, b"2,3,1.26,2.00,3.00,4.04,0.88,-1,-1,-1\n");
        std::fs::write(&path, text).unwrap();
        assert_eq!(read_tracks(&path).unwrap().at(2)[0].id, 3);
        assert!(presentable(&seen, 10.0, Some(1.6)) && !presentable(&seen, 12.2, None));
        assert!(!presentable(&seen, 0.0, Some(0.5)));
    }

    fn hundredths(number: f64) -> String {
        let mut line = Vec::new();
        push_hundredths(&mut line, number).unwrap();
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn hundredths_at_the_edges_are_those_of_the_standard_library() {
        let edges =
            [0.0, -0.0, 0.005, 0.015, -0.001, 1.005, 2.675, 0.995, 999.995, 9_999_999.995, 1e7, 1e300];
        for number in edges.into_iter().chain([f64::NAN, f64::INFINITY, f64::MIN_POSITIVE]) {
            assert_eq!(hundredths(number), format!("{number:.2}"));
        }
    }

    proptest! {
        #[test]
        fn hundredths_are_those_of_the_standard_library(number in -2e7f64..2e7, thousandths in -200_000i32..200_000) {
            prop_assert_eq!(hundredths(number), format!("{number:.2}"));
            let number = f64::from(thousandths) / 1000.0;
            prop_assert_eq!(hundredths(number), format!("{number:.2}"));
        }
    }
}
