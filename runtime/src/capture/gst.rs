//! Capture through GStreamer: files of any codec the installed plugins decode, test pictures, users' pipelines.
//!
//! Comes in: a path, a pattern or a pipeline. Goes out: RGB frames at source size, upright (rotation tags are
//! applied), one at a time through an `appsink` that never holds more than four. Every wait is bounded; every failure
//! carries the element's own message and the pipeline. It chooses no frames and does not resize.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use gstreamer_video::VideoFrameExt;

use utr_models::RgbFrame;

use super::{Capture, CaptureOptions, Stamp};
use crate::error::{Error, Result};
use crate::source::PatternSpec;

mod report;
pub use report::{ElementReport, GstReport, check};

/// How often a wait looks at the bus and at the interrupt flag.
const TICK_MS: u64 = 50;

/// From the decoder's raw video to packed RGB, upright.
const TAIL: &str = "videoconvert ! video/x-raw,format=RGB ! videoflip video-direction=auto ! \
     video/x-raw,format=RGB ! appsink name=utr_sink sync=false max-buffers=4 drop=false enable-last-sample=false";

/// A running pipeline that ends in an `appsink`.
pub struct GstCapture {
    origin: String,
    description: String,
    pipeline: gst::Pipeline,
    sink: gst_app::AppSink,
    bus: gst::Bus,
    options: CaptureOptions,
    live: bool,
    total: Option<usize>,
    next: usize,
    first_pts_ms: Option<u64>,
    current: Option<gst::Sample>,
    /// Number of the newest frame where the source numbers them (cameras do), and how many it skipped.
    last_offset: Option<u64>,
    dropped: u64,
    missing: Vec<String>,
    other_pads: Arc<Mutex<Vec<String>>>,
}

/// Opens a video file: `decodebin` finds demuxer and decoder.
pub fn open_file(path: &Path, options: &CaptureOptions) -> Result<Box<dyn Capture>> {
    let origin = path.display().to_string();
    // `caps` keeps decodebin from decoding the sound.
    let head = "filesrc name=utr_file ! decodebin name=utr_decode caps=\"video/x-raw(ANY)\" expose-all-streams=false";
    let text = format!("{head}  videoconvert name=utr_head ! {}", TAIL.trim_start_matches("videoconvert ! "));
    let pipeline = launch(&origin, &text)?;
    let (Some(source), Some(decode), Some(convert)) =
        (pipeline.by_name("utr_file"), pipeline.by_name("utr_decode"), pipeline.by_name("utr_head"))
    else {
        return Err(Error::capture(origin, "GStreamer built a pipeline without its named elements"));
    };
    source.set_property("location", path);
    let description = format!(
        "filesrc location={path:?} ! decodebin caps=\"video/x-raw(ANY)\" expose-all-streams=false ! {TAIL}"
    );
    let other_pads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&other_pads);
    let target = convert.static_pad("sink");
    decode.connect_pad_added(move |_, pad| {
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let linked = target.as_ref().is_some_and(|target| !target.is_linked() && pad.link(target).is_ok());
        if !linked {
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(caps.to_string());
        }
    });
    start(origin, description, pipeline, options, None, other_pads)
}

/// Opens GStreamer's test picture; it ends after the asked number of frames.
pub fn open_test(spec: &PatternSpec, options: &CaptureOptions) -> Result<Box<dyn Capture>> {
    let description = format!(
        "videotestsrc pattern={} num-buffers={} ! video/x-raw,format=RGB,width={},height={},framerate={}/1 ! {TAIL}",
        spec.name, spec.frames, spec.width, spec.height, spec.fps
    );
    let origin = format!("test://{}", spec.name);
    let pipeline = launch(&origin, &description).map_err(|error| match error {
        Error::Capture { origin, reason } if reason.contains("pattern") => {
            let known = report::test_patterns().join(", ");
            Error::capture(origin, format!("there is no such test picture; there are {known} ({reason})"))
        }
        other => other,
    })?;
    start(origin, description, pipeline, options, Some(spec.frames), Arc::default())
}

/// Opens a user's pipeline, written without a sink.
pub fn open_pipeline(user: &str, options: &CaptureOptions) -> Result<Box<dyn Capture>> {
    let description = format!("{user} ! {TAIL}");
    let origin = format!("gst://{user}");
    let pipeline = launch(&origin, &description)?;
    start(origin, description, pipeline, options, None, Arc::default())
}

/// Builds a pipeline from its text.
fn launch(origin: &str, text: &str) -> Result<gst::Pipeline> {
    gst::init().map_err(|error| Error::capture(origin, format!("GStreamer does not start: {error}")))?;
    let element = gst::parse::launch(text).map_err(|error| {
        Error::capture(
            origin,
            format!("GStreamer cannot build the pipeline: {error}; pipeline: {text}; `utr doctor` lists what is missing"),
        )
    })?;
    element
        .downcast::<gst::Pipeline>()
        .map_err(|_| Error::capture(origin, format!("this is one element, not a pipeline: {text}")))
}

/// Sets the pipeline playing.
fn start(
    origin: String,
    description: String,
    pipeline: gst::Pipeline,
    options: &CaptureOptions,
    total: Option<usize>,
    other_pads: Arc<Mutex<Vec<String>>>,
) -> Result<Box<dyn Capture>> {
    let sink = pipeline.by_name("utr_sink").and_then(|sink| sink.downcast::<gst_app::AppSink>().ok());
    let (Some(sink), Some(bus)) = (sink, pipeline.bus()) else {
        return Err(Error::capture(origin, format!("the pipeline lost its sink: {description}")));
    };
    let mut capture = GstCapture {
        origin,
        description,
        pipeline,
        sink,
        bus,
        options: options.clone(),
        live: false,
        total,
        next: 0,
        first_pts_ms: None,
        current: None,
        last_offset: None,
        dropped: 0,
        missing: Vec::new(),
        other_pads,
    };
    // Only the step to paused tells whether the source is live.
    let paused = capture.pipeline.set_state(gst::State::Paused);
    match paused.and_then(|change| capture.pipeline.set_state(gst::State::Playing).map(|_| change)) {
        Ok(change) => capture.live = change == gst::StateChangeSuccess::NoPreroll,
        Err(_) => {
            let reason = capture.bus_error().unwrap_or_else(|| "an element refused to start".into());
            return Err(capture.fail(&reason));
        }
    }
    Ok(Box::new(capture))
}

impl GstCapture {
    fn fail(&self, reason: &str) -> Error {
        let mut text = reason.to_string();
        if self.next > 0 {
            text += &format!(" (after {} good frames)", self.next);
        }
        if self.missing.is_empty() {
            text += "; check that the file plays elsewhere, or record it again";
        } else {
            text += &format!(
                "; missing plugin: {}; install it (on Debian and Ubuntu mostly gstreamer1.0-libav, -plugins-good, \
                 -plugins-bad) and see `utr doctor`",
                self.missing.join(", ")
            );
        }
        Error::capture(self.origin.clone(), format!("{text}; pipeline: {}", self.description))
    }

    /// Empties the bus; the first error message, if there is one. Missing plugins are noted on the way.
    fn bus_error(&mut self) -> Option<String> {
        let mut found = None;
        while let Some(message) = self.bus.pop() {
            match message.view() {
                gst::MessageView::Error(error) => {
                    let element = error.src().map(|src| src.path_string().to_string()).unwrap_or_default();
                    let element = element.rsplit('/').next().unwrap_or_default().to_string();
                    let detail = error.debug().map(|text| first_line(&text)).unwrap_or_default();
                    found.get_or_insert(format!("{element}: {} ({detail})", error.error()));
                }
                gst::MessageView::Element(note) => {
                    if let Some(structure) = note.structure().filter(|s| s.name() == "missing-plugin") {
                        let name =
                            structure.get::<String>("name").or_else(|_| structure.get::<String>("detail"));
                        self.missing.push(name.unwrap_or_else(|_| structure.to_string()));
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Why a pipeline ended before its first frame.
    fn nothing_came(&self) -> String {
        let others = self.other_pads.lock().unwrap_or_else(PoisonError::into_inner);
        if others.is_empty() {
            "the source ended without a single picture: no video in it".to_string()
        } else {
            format!("the source ended without a picture; it only offers {}", others.join(", "))
        }
    }

    fn stamp(&mut self, sample: &gst::Sample) -> Stamp {
        let index = self.next;
        self.next += 1;
        let buffer = sample.buffer();
        if self.live
            && let Some(offset) = buffer.map(|b| b.offset()).filter(|offset| *offset != u64::MAX)
        {
            let skipped = self.last_offset.map_or(0, |last| offset.saturating_sub(last.saturating_add(1)));
            self.dropped += skipped;
            self.last_offset = Some(offset);
        }
        let stream_time = |pts: gst::ClockTime| {
            let segment = sample.segment().and_then(|segment| segment.downcast_ref::<gst::ClockTime>());
            segment.and_then(|segment| segment.to_stream_time(pts)).unwrap_or(pts)
        };
        let pts_ms = buffer.and_then(|buffer| buffer.pts()).map(|pts| stream_time(pts).mseconds());
        // Streams without times (raw elementary streams) count as 30 frames a second.
        let pts_ms = pts_ms.unwrap_or(index as u64 * 1000 / 30);
        let first = *self.first_pts_ms.get_or_insert(pts_ms);
        Stamp { index, pts_ms: pts_ms.saturating_sub(first) }
    }
}

impl Capture for GstCapture {
    fn advance(&mut self) -> Result<Option<Stamp>> {
        let began = Instant::now();
        self.current = None;
        loop {
            self.options.interrupt.check()?;
            if let Some(sample) = self.sink.try_pull_sample(gst::ClockTime::from_mseconds(TICK_MS)) {
                let stamp = self.stamp(&sample);
                self.current = Some(sample);
                return Ok(Some(stamp));
            }
            if let Some(reason) = self.bus_error() {
                return Err(self.fail(&reason));
            }
            if self.sink.is_eos() {
                // A decoder that drops a broken stream ends it without an error: no picture at all is one.
                return if self.next == 0 { Err(self.fail(&self.nothing_came())) } else { Ok(None) };
            }
            if began.elapsed() > self.options.timeout {
                let seconds = self.options.timeout.as_secs_f32();
                return Err(self
                    .fail(&format!("no frame came for {seconds} s, the source hangs (--capture-timeout)")));
            }
        }
    }

    fn image(&mut self) -> Result<RgbFrame> {
        let Some(sample) = &self.current else {
            return Err(self.fail("no frame was reached yet"));
        };
        packed(sample).map_err(|reason| self.fail(&reason))
    }

    fn total(&self) -> Option<usize> {
        self.total
    }

    fn duration_ms(&self) -> Option<u64> {
        self.pipeline.query_duration::<gst::ClockTime>().map(|time| time.mseconds())
    }

    fn live(&self) -> bool {
        self.live
    }

    fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl Drop for GstCapture {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Copies a sample's rows without their padding (GStreamer rounds rows up to four bytes).
fn packed(sample: &gst::Sample) -> Result<RgbFrame, String> {
    let (Some(buffer), Some(caps)) = (sample.buffer(), sample.caps()) else {
        return Err("a frame without data or format".into());
    };
    let info = gst_video::VideoInfo::from_caps(caps).map_err(|error| error.to_string())?;
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info)
        .map_err(|error| error.to_string())?;
    let (width, height) = (info.width() as usize, info.height() as usize);
    let rows = frame.plane_data(0).map_err(|error| error.to_string())?;
    let stride = frame.plane_stride().first().and_then(|stride| usize::try_from(*stride).ok()).unwrap_or(0);
    let mut data = Vec::with_capacity(width * height * 3);
    for row in rows.chunks(stride.max(1)).take(height) {
        data.extend_from_slice(row.get(..width * 3).ok_or("a frame with rows shorter than its width")?);
    }
    RgbFrame::new(width, height, data).map_err(|error| error.to_string())
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_string()
}
