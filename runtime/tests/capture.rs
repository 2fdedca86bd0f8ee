//! Capture through GStreamer: files made here are read back; broken ones are refused with words.
#![cfg(feature = "gst")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use utr_models::RgbFrame;
use utr_runtime::capture::{self, CaptureOptions, Stamp};
use utr_runtime::sample::{Sampling, sample, uniform_indices};
use utr_runtime::source::Source;

/// Runs a pipeline that writes `file` to its end.
fn make(pipeline: &str, file: &Path) {
    gst::init().unwrap();
    let text = format!("{pipeline} ! filesink location=\"{}\"", file.display());
    let pipeline = gst::parse::launch(&text).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let message =
        pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(30), &kinds).unwrap();
    pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(message.type_(), gst::MessageType::Eos, "{text}: {message:?}");
}

fn read(source: &Source) -> utr_runtime::Result<Vec<(Stamp, RgbFrame)>> {
    let options = CaptureOptions { timeout: Duration::from_secs(5), ..CaptureOptions::default() };
    let mut clip = capture::open(source, &options)?;
    let mut frames = Vec::new();
    while let Some(stamp) = clip.advance()? {
        frames.push((stamp, clip.image()?));
    }
    Ok(frames)
}

fn read_uri(uri: &str) -> utr_runtime::Result<Vec<(Stamp, RgbFrame)>> {
    read(&Source::parse(uri).unwrap())
}

fn failure(source: &Source) -> String {
    read(source).err().unwrap_or_else(|| panic!("{source} was read")).to_string()
}

/// Mean absolute difference, in grey levels.
fn difference(a: &RgbFrame, b: &RgbFrame) -> f64 {
    assert_eq!((a.width, a.height), (b.width, b.height));
    let sum: u64 = a.data.iter().zip(&b.data).map(|(x, y)| u64::from(x.abs_diff(*y))).sum();
    sum as f64 / a.data.len() as f64
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A clip of the bouncing ball, 30 frames a second.
    fn ball(&self, name: &str, size: (u32, u32), frames: usize, encoder: &str) -> PathBuf {
        let file = self.file(name);
        let (width, height) = size;
        make(
            &format!(
                "videotestsrc pattern=ball num-buffers={frames} ! \
                 video/x-raw,format=RGB,width={width},height={height},framerate=30/1 ! videoconvert ! {encoder}"
            ),
            &file,
        );
        file
    }
}

#[test]
fn a_test_picture_is_finite_and_the_same_every_time() {
    for uri in ["test://ball?frames=12&width=63&height=47", "test://snow?frames=3"] {
        let (first, second) = (read_uri(uri).unwrap(), read_uri(uri).unwrap());
        assert_eq!(first, second, "{uri}");
    }
    let clip = read_uri("test://ball?frames=12&width=63&height=47&fps=10").unwrap();
    assert_eq!(clip.len(), 12);
    assert_eq!((clip[0].1.width, clip[0].1.height), (63, 47));
    assert_eq!(
        clip.iter().map(|(stamp, _)| stamp.pts_ms).collect::<Vec<_>>(),
        (0..12).map(|i| i * 100).collect::<Vec<_>>()
    );
    assert_ne!(clip[0].1, clip[11].1);
}

#[test]
fn encoded_clips_decode_to_the_pictures_that_went_in() {
    let folder = Folder::new();
    let x264 = "x264enc speed-preset=ultrafast pass=qual quantizer=1 ! mp4mux";
    let cases = [
        ("h264.mp4", (96, 64), x264, 3.0),
        ("mjpeg.avi", (96, 64), "jpegenc quality=100 ! avimux", 3.0),
        ("vp8.webm", (95, 63), "vp8enc deadline=1 target-bitrate=4000000 ! webmmux", 4.0),
    ];
    for (name, size, encoder, tolerance) in cases {
        let file = folder.ball(name, size, 20, encoder);
        let decoded = read(&Source::Path(file)).unwrap();
        let original =
            read_uri(&format!("test://ball?frames=20&width={}&height={}", size.0, size.1)).unwrap();
        assert_eq!(decoded.len(), 20, "{name}");
        for ((stamp, picture), (expected, truth)) in decoded.iter().zip(&original) {
            assert_eq!(stamp.index, expected.index, "{name}");
            assert!(stamp.pts_ms.abs_diff(expected.pts_ms) <= 1, "{name}: {stamp:?} {expected:?}");
            let off = difference(picture, truth);
            assert!(off < tolerance, "{name} frame {}: {off} grey levels", stamp.index);
        }
    }
}

#[test]
fn a_file_is_sampled_evenly_over_all_its_frames() {
    let folder = Folder::new();
    let file = folder.ball("clip.mp4", (64, 48), 63, "x264enc speed-preset=ultrafast ! mp4mux");
    let sampled = sample(
        &Source::Path(file.clone()),
        Sampling::Default { fps: 2.0, frames: 32 },
        &CaptureOptions::default(),
    )
    .unwrap();
    assert_eq!(sampled.total, 63);
    let indices: Vec<usize> = sampled.frames.iter().map(|frame| frame.stamp.index).collect();
    assert_eq!(indices, uniform_indices(63, 32));
    let newest =
        sample(&Source::Path(file), Sampling::Newest { fps: 10.0, frames: 4 }, &CaptureOptions::default())
            .unwrap();
    let indices: Vec<usize> = newest.frames.iter().map(|frame| frame.stamp.index).collect();
    assert_eq!(indices, [51, 54, 57, 60]);
}

#[test]
fn rotation_tags_are_applied() {
    let folder = Folder::new();
    let plain = folder.ball("plain.mp4", (96, 64), 5, "x264enc speed-preset=ultrafast ! mp4mux");
    // A camera held upright writes a quarter turn into the matrix of the track's header (ISO 14496-12, 8.3.2).
    let mut bytes = std::fs::read(&plain).unwrap();
    let header = bytes.windows(4).position(|four| four == b"tkhd").unwrap();
    let matrix: [i32; 9] = [0, 0x10000, 0, -0x10000, 0, 0, 64 << 16, 0, 0x4000_0000];
    for (place, value) in bytes[header + 44..].chunks_exact_mut(4).zip(matrix) {
        place.copy_from_slice(&value.to_be_bytes());
    }
    let turned = folder.file("turned.mp4");
    std::fs::write(&turned, bytes).unwrap();
    let (plain, turned) = (read(&Source::Path(plain)).unwrap(), read(&Source::Path(turned)).unwrap());
    assert_eq!(turned.len(), plain.len());
    let (upright, original) = (&turned[2].1, &plain[2].1);
    assert_eq!((upright.width, upright.height), (64, 96));
    // Clockwise by a quarter: the row becomes the column counted from the right.
    let mut expected = vec![0; original.data.len()];
    for y in 0..64 {
        for x in 0..96 {
            let (from, to) = ((y * 96 + x) * 3, (x * 64 + 63 - y) * 3);
            expected[to..to + 3].copy_from_slice(&original.data[from..from + 3]);
        }
    }
    assert_eq!(difference(upright, &RgbFrame::new(64, 96, expected).unwrap()), 0.0);
}

#[test]
fn sound_beside_the_picture_is_passed_over() {
    let folder = Folder::new();
    let file = folder.file("both.mkv");
    make(
        "audiotestsrc num-buffers=40 ! vorbisenc ! matroskamux name=mux \
         videotestsrc pattern=ball num-buffers=15 ! vp8enc deadline=1 ! mux. mux.",
        &file,
    );
    assert_eq!(read(&Source::Path(file)).unwrap().len(), 15);
}

#[test]
fn broken_files_are_refused_with_file_pipeline_and_reason() {
    let folder = Folder::new();
    let empty = folder.file("empty.mp4");
    std::fs::write(&empty, b"").unwrap();
    assert!(failure(&Source::Path(empty)).contains("0 bytes"));

    let noise = folder.file("noise.mp4");
    let bytes: Vec<u8> = (0..20_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(&noise, bytes).unwrap();
    let message = failure(&Source::Path(noise));
    assert!(message.contains("noise.mp4") && message.contains("decodebin"), "{message}");

    let text = folder.file("text.mp4");
    std::fs::write(&text, "This is not a video. ".repeat(200)).unwrap();
    let message = failure(&Source::Path(text));
    assert!(message.contains("decodebin"), "{message}");

    let sound = folder.file("sound.wav");
    make("audiotestsrc num-buffers=10 ! wavenc", &sound);
    let message = failure(&Source::Path(sound));
    assert!(message.contains("decodebin"), "{message}");

    let whole = folder.ball("whole.mp4", (64, 48), 40, "x264enc speed-preset=ultrafast ! mp4mux");
    let bytes = std::fs::read(whole).unwrap();
    let cut = folder.file("cut.mp4");
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let message = failure(&Source::Path(cut));
    assert!(message.contains("cut.mp4"), "{message}");

    let message = failure(&Source::Path(folder.file("absent.mp4")));
    assert!(message.contains("absent.mp4") && message.contains("--source"), "{message}");
}

#[test]
fn unknown_test_pictures_and_elements_are_named() {
    let message = failure(&Source::parse("test://spiral").unwrap());
    assert!(message.contains("smpte") && message.contains("ball"), "{message}");
    let message = failure(&Source::parse("gst://nosuchelement ! identity").unwrap());
    assert!(message.contains("nosuchelement"), "{message}");
}

#[test]
fn a_source_that_hangs_is_given_up_and_an_interrupt_is_heard() {
    let source = Source::parse("gst://videotestsrc ! valve drop=true").unwrap();
    let began = Instant::now();
    let options = CaptureOptions { timeout: Duration::from_millis(300), ..CaptureOptions::default() };
    let message = capture::open(&source, &options).unwrap().advance().unwrap_err().to_string();
    assert!(message.contains("hangs") && message.contains("valve"), "{message}");

    let options = CaptureOptions::default();
    options.interrupt.request();
    let error = capture::open(&source, &options).and_then(|mut clip| clip.advance()).unwrap_err();
    assert!(matches!(error, utr_runtime::Error::Interrupted));
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_live_source_gives_its_newest_frames_and_cannot_be_spread() {
    let source = Source::parse("gst://videotestsrc is-live=true").unwrap();
    let options = CaptureOptions::default();
    let refused = sample(&source, Sampling::Uniform { frames: 4 }, &options).unwrap_err().to_string();
    assert!(refused.contains("--fps"), "{refused}");
    let sampled = sample(&source, Sampling::Newest { fps: 10.0, frames: 4 }, &options).unwrap();
    assert_eq!(sampled.frames.len(), 4);
    let times: Vec<u64> = sampled.frames.iter().map(|frame| frame.stamp.pts_ms).collect();
    assert!(times.windows(2).all(|pair| pair[1] > pair[0] + 50), "{times:?}");
}
