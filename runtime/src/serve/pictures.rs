//! Pictures for the page: the newest frame, and the window's frames as a strip.
//!
//! Comes in: frames the session holds. Goes out: JPEG, bounded in size, each encoded once however many clients look. Calls take
//! milliseconds and belong on a thread that may block.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageBuffer, Rgb, imageops};
use serde_json::{Value, json};
use utr_models::RgbFrame;

use crate::answer::{Answer, FrameUsed};
use crate::capture::{Frame, Stamp};
use crate::pipeline::View;
use crate::window::{CAPACITY, EncodedFrame};

/// Longest side of the newest frame's picture, in pixels.
const FRAME_SIDE: usize = 640;
/// Longest side of a picture of the strip.
const STRIP_SIDE: usize = 96;
const FRAME_QUALITY: u8 = 80;
const STRIP_QUALITY: u8 = 70;
/// Pictures of the strip kept: the window's, and those of the last answer that slid out of it.
const KEPT: usize = 3 * CAPACITY;

/// Pictures already encoded.
#[derive(Default)]
pub struct Pictures {
    newest: Mutex<Option<(Arc<Frame>, Vec<u8>)>>,
    strip: Mutex<VecDeque<(Stamp, String)>>,
}

impl Pictures {
    /// The newest frame.
    pub fn newest(&self, frame: Arc<Frame>) -> Vec<u8> {
        // Held while encoding: a second client waits for the first one's picture.
        let mut kept = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, jpeg)) = kept.as_ref().filter(|(known, _)| Arc::ptr_eq(known, &frame)) {
            return jpeg.clone();
        }
        let jpeg = jpeg(&frame.image, FRAME_SIDE, FRAME_QUALITY);
        *kept = Some((frame, jpeg.clone()));
        jpeg
    }

    /// The window's frames, and those of the last answer with their share of its evidence. Frames up to index `have` come without their
    /// picture, which the client knows.
    pub fn strip(&self, view: Option<&View>, answer: Option<&Answer>, have: Option<usize>) -> Value {
        let frames: &[Arc<EncodedFrame>] = view.map_or(&[], |view| &view.frames);
        // A source that began anew numbers from zero: nothing is known then.
        let newest = frames.last().map(|frame| frame.stamp.index);
        let have = have.filter(|have| newest.is_some_and(|newest| newest >= *have));
        let mut kept = self.strip.lock().unwrap_or_else(PoisonError::into_inner);
        for frame in frames {
            if !kept.iter().any(|(stamp, _)| *stamp == frame.stamp) {
                let jpeg = jpeg(&frame.picture, STRIP_SIDE, STRIP_QUALITY);
                kept.push_back((frame.stamp, format!("data:image/jpeg;base64,{}", base64(&jpeg))));
            }
        }
        while kept.len() > KEPT {
            kept.pop_front();
        }
        let picture = |used: FrameUsed| {
            let known = have.is_some_and(|have| used.index <= have);
            kept.iter()
                .find(|(stamp, _)| !known && FrameUsed::from(*stamp) == used)
                .map(|(_, picture)| picture.as_str())
        };
        let window: Vec<Value> = frames
            .iter()
            .map(|frame| FrameUsed::from(frame.stamp))
            .map(|used| json!({"index": used.index, "pts_ms": used.pts_ms, "picture": picture(used)}))
            .collect();
        json!({"window": window, "answer": answer.map(|answer| shares(answer, &picture))})
    }
}

/// An answer's frames with their share of the evidence.
fn shares<'a>(answer: &Answer, picture: &dyn Fn(FrameUsed) -> Option<&'a str>) -> Value {
    let share = |place: usize| answer.evidence.as_ref().and_then(|evidence| evidence.per_frame.get(place));
    answer
        .frames
        .iter()
        .enumerate()
        .map(|(place, used)| {
            json!({"index": used.index, "pts_ms": used.pts_ms, "share": share(place), "picture": picture(*used)})
        })
        .collect()
}

/// A JPEG no larger than `side`; empty where the picture cannot be encoded (it always can).
fn jpeg(frame: &RgbFrame, side: usize, quality: u8) -> Vec<u8> {
    let (width, height) = (frame.width as u32, frame.height as u32);
    let Some(picture) = ImageBuffer::<Rgb<u8>, &[u8]>::from_raw(width, height, &frame.data) else {
        return Vec::new();
    };
    let longest = frame.width.max(frame.height);
    let scaled = |n: usize| ((n * side).div_ceil(longest.max(1))).clamp(1, side) as u32;
    let mut out = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut out, quality);
    let written = if longest > side {
        let small = imageops::thumbnail(&picture, scaled(frame.width), scaled(frame.height));
        encoder.encode(&small, small.width(), small.height(), ExtendedColorType::Rgb8)
    } else {
        encoder.encode(&frame.data, width, height, ExtendedColorType::Rgb8)
    };
    if written.is_err() {
        return Vec::new();
    }
    out
}

/// Standard base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |bits: u32| LETTERS.get((bits & 63) as usize).map_or('=', |letter| char::from(*letter));
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits =
            three.iter().zip([16, 8, 0]).fold(0, |bits, (byte, shift)| bits | u32::from(*byte) << shift);
        for (place, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            out.push(if place <= three.len() { letter(bits >> shift) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn base64_is_the_standards() {
        for (text, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), coded);
        }
    }

    #[test]
    fn pictures_are_bounded_and_keep_their_shape() {
        for (width, height, expected) in [(1920, 1080, (640, 360)), (30, 20, (30, 20)), (1, 5000, (1, 640))] {
            let frame = RgbFrame::new(width, height, vec![90; width * height * 3]).unwrap();
            let picture = image::load_from_memory(&jpeg(&frame, FRAME_SIDE, FRAME_QUALITY)).unwrap();
            assert_eq!((picture.width(), picture.height()), expected);
        }
    }

    fn view(indices: std::ops::Range<usize>) -> View {
        let frame = |index: usize| {
            let stamp = Stamp { index, pts_ms: index as u64 };
            let picture = RgbFrame::new(8, 8, vec![index as u8; 192]).unwrap();
            Arc::new(EncodedFrame { stamp, captured: Instant::now(), picture, tokens: vec![] })
        };
        let frames = indices.map(frame).collect();
        View::unread(frames)
    }

    #[test]
    fn the_strip_sends_a_picture_once_and_remembers_no_more_than_it_needs() {
        let pictures = Pictures::default();
        let sent = |strip: &Value| {
            let window = strip["window"].as_array().unwrap().clone();
            window.iter().filter(|frame| frame["picture"].is_string()).count()
        };
        assert_eq!(sent(&pictures.strip(None, None, None)), 0);
        assert_eq!(sent(&pictures.strip(Some(&view(0..8)), None, None)), 8);
        assert_eq!(sent(&pictures.strip(Some(&view(2..10)), None, Some(7))), 2);
        // The source began anew.
        assert_eq!(sent(&pictures.strip(Some(&view(0..3)), None, Some(9))), 3);
        for start in 0..200 {
            pictures.strip(Some(&view(start..start + 32)), None, None);
        }
        assert!(pictures.strip.lock().unwrap().len() <= KEPT);
    }
}
