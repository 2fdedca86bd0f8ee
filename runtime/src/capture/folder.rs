//! A folder of numbered pictures as a clip without a codec: exact pixels.
//!
//! Comes in: a folder (or one picture). Goes out: its PNG and JPEG files in natural order (`2.png` before `10.png`),
//! read only when their picture is asked for. Other files are passed over; subfolders are not entered.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, Limits};
use utr_models::RgbFrame;

use super::{Capture, Stamp};
use crate::error::{Error, Result};

/// Pictures carry no times; they count as this many per second (ffmpeg's image sequences do too).
pub const FOLDER_FPS: u64 = 25;

/// Largest side of a picture and most of its pixels, and most memory that decoding one may take: 8192 x 8192 in RGB and room to work.
const MAX_SIDE: u32 = 16_384;
const MAX_PIXELS: u64 = 8192 * 8192;
const MAX_DECODED_BYTES: u64 = 256 << 20;

const EXTENSIONS: [&str; 3] = ["png", "jpg", "jpeg"];

/// Pictures in order.
pub struct FolderCapture {
    origin: PathBuf,
    files: Vec<PathBuf>,
    next: usize,
}

/// What a picture may take, whoever wrote it.
pub fn limits() -> Limits {
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(MAX_SIDE), Some(MAX_SIDE));
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    limits
}

/// Whether a file's name ends like a picture's.
pub fn is_picture(path: &Path) -> bool {
    path.extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension)))
}

impl FolderCapture {
    /// Lists the folder; no picture is read yet.
    pub fn open(folder: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
            let path = entry.map_err(Error::io(folder))?.path();
            if is_picture(&path) && path.is_file() {
                files.push(path);
            }
        }
        if files.is_empty() {
            return Err(Error::capture(
                folder.display().to_string(),
                "the folder holds no .png, .jpg or .jpeg file; name the folder that holds the pictures themselves",
            ));
        }
        files.sort_by(|a, b| natural_order(&name(a), &name(b)));
        Ok(Self { origin: folder.to_path_buf(), files, next: 0 })
    }

    /// One picture as a clip of one frame.
    pub fn single(path: &Path) -> Self {
        Self { origin: path.to_path_buf(), files: vec![path.to_path_buf()], next: 0 }
    }
}

impl Capture for FolderCapture {
    fn advance(&mut self) -> Result<Option<Stamp>> {
        let index = self.next;
        if index >= self.files.len() {
            return Ok(None);
        }
        self.next += 1;
        Ok(Some(Stamp { index, pts_ms: index as u64 * 1000 / FOLDER_FPS }))
    }

    fn image(&mut self) -> Result<RgbFrame> {
        let Some(path) = self.next.checked_sub(1).and_then(|index| self.files.get(index)) else {
            return Err(Error::capture(self.origin.display().to_string(), "no frame was reached yet"));
        };
        let fail = |error: image::ImageError| {
            Error::capture(
                path.display().to_string(),
                format!("{error}; remove the picture or write it again"),
            )
        };
        let reader = image::ImageReader::open(path).map_err(Error::io(path))?;
        let mut reader = reader.with_guessed_format().map_err(Error::io(path))?;
        reader.limits(limits());
        let mut decoder = reader.into_decoder().map_err(fail)?;
        let (width, height) = decoder.dimensions();
        if u64::from(width) * u64::from(height) > MAX_PIXELS {
            let words = format!(
                "{width} x {height} pixels; pictures of up to {MAX_PIXELS} are read, make it smaller"
            );
            return Err(Error::capture(path.display().to_string(), words));
        }
        // Orientation is only ever missing or wrong in a photograph that is otherwise fine.
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let mut picture = DynamicImage::from_decoder(decoder).map_err(fail)?;
        picture.apply_orientation(orientation);
        let rgb = picture.to_rgb8();
        Ok(RgbFrame::new(rgb.width() as usize, rgb.height() as usize, rgb.into_raw())?)
    }

    fn total(&self) -> Option<usize> {
        Some(self.files.len())
    }
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Compares names with runs of digits read as numbers; equal numbers fall back to plain order (`01` before `1`).
pub fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let (Some(x), Some(y)) = (left.chars().next(), right.chars().next()) else {
            return left.len().cmp(&right.len()).then_with(|| a.cmp(b));
        };
        let step = if x.is_ascii_digit() && y.is_ascii_digit() {
            let (m, n) = (take_digits(&mut left), take_digits(&mut right));
            m.len().cmp(&n.len()).then_with(|| m.cmp(n))
        } else {
            left = left.get(x.len_utf8()..).unwrap_or_default();
            right = right.get(y.len_utf8()..).unwrap_or_default();
            x.cmp(&y)
        };
        if step != Ordering::Equal {
            return step;
        }
    }
}

/// Splits the leading digits off `text`, without leading zeros: longer is then larger.
fn take_digits<'a>(text: &mut &'a str) -> &'a str {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    *text = rest;
    digits.trim_start_matches('0')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pictures_come_in_natural_order_and_other_files_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        for (n, file) in ["f10.png", "f2.png", "f1.png"].iter().enumerate() {
            let picture = image::RgbImage::from_pixel(3 + n as u32, 5, image::Rgb([n as u8, 0, 0]));
            picture.save(folder.path().join(file)).unwrap();
        }
        std::fs::write(folder.path().join("notes.txt"), "x").unwrap();
        let mut clip = FolderCapture::open(folder.path()).unwrap();
        assert_eq!(clip.total(), Some(3));
        let mut widths = Vec::new();
        while let Some(stamp) = clip.advance().unwrap() {
            assert_eq!(stamp.pts_ms, stamp.index as u64 * 40);
            widths.push(clip.image().unwrap().width);
        }
        assert_eq!(widths, [5, 4, 3]);
    }

    #[test]
    fn an_empty_folder_and_a_broken_picture_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let message = FolderCapture::open(folder.path()).err().unwrap().to_string();
        assert!(message.contains("no .png"), "{message}");
        std::fs::write(folder.path().join("1.png"), b"not a picture").unwrap();
        let mut clip = FolderCapture::open(folder.path()).unwrap();
        clip.advance().unwrap();
        assert!(clip.image().unwrap_err().to_string().contains("1.png"));
    }

    proptest! {
        #[test]
        fn numbers_sort_as_numbers(a in 0u64..100_000, b in 0u64..100_000, pad in 1usize..8) {
            let name = |n: u64| format!("frame_{n:0pad$}.png");
            if a != b {
                prop_assert_eq!(natural_order(&name(a), &name(b)), a.cmp(&b));
            }
        }

        #[test]
        fn the_order_is_total(a in "[a-c0-2é]{0,6}", b in "[a-c0-2é]{0,6}", c in "[a-c0-2é]{0,6}") {
            prop_assert_eq!(natural_order(&a, &b), natural_order(&b, &a).reverse());
            prop_assert_eq!(natural_order(&a, &b) == Ordering::Equal, a == b);
            if natural_order(&a, &b).is_le() && natural_order(&b, &c).is_le() {
                prop_assert!(natural_order(&a, &c).is_le());
            }
        }
    }
}
