//! A running pipeline that ends in an `appsink`.
//!
//! Comes in: a built pipeline. Goes out: a [`Capture`]. A clip waits for the reader (the sink holds at most four frames); a live
//! source does not: the sink holds its newest frame and what was overtaken is counted. Every wait is bounded and hears an
//! interrupt, also while a device is being opened.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use gstreamer_video::VideoFrameExt;
use utr_models::RgbFrame;

use super::arrivals::Arrivals;
use crate::capture::{Capture, CaptureOptions, Stamp};
use crate::error::{Error, Result};
use crate::source::secret::scrub;

/// How often a wait looks at the bus and at the interrupt flag.
const TICK: Duration = Duration::from_millis(50);

/// Shortest time that an opening may take, whatever the timeout: networks are slow to answer.
const OPENING: Duration = Duration::from_secs(10);

/// Longest time that closing may take.
const CLOSING: Duration = Duration::from_secs(5);

/// Openings and closings that did not come back in time; each holds a thread until its driver returns.
static HANGING: AtomicUsize = AtomicUsize::new(0);
/// Most of them; with more nothing is opened until one comes back.
const MOST_HANGING: usize = 4;

/// Caps of pads that carried no picture.
pub type Pads = Arc<Mutex<Vec<String>>>;

/// A pipeline that is built and does not run yet.
pub struct Built {
    /// The source, for messages; without secrets.
    pub origin: String,
    /// The pipeline, for messages; without secrets.
    pub description: String,
    /// It has an `appsink` named `utr_sink`.
    pub pipeline: gst::Pipeline,
    /// Frames, where they are known before reading.
    pub total: Option<usize>,
    /// Filled while it runs.
    pub others: Pads,
    /// What to do where it fails.
    pub remedy: &'static str,
}

struct GstCapture {
    built: Built,
    sink: gst_app::AppSink,
    bus: gst::Bus,
    options: CaptureOptions,
    live: bool,
    next: usize,
    first_pts_ms: Option<u64>,
    current: Option<gst::Sample>,
    arrivals: Arc<Arrivals>,
    /// Arrivals that were pulled or overtaken, and how many were overtaken.
    passed: u64,
    overtaken: u64,
    missing: Vec<String>,
    /// Whether the last error is one that opening again cannot cure.
    final_error: bool,
}

/// Sets the pipeline playing.
pub fn start(built: Built, options: &CaptureOptions) -> Result<Box<dyn Capture>> {
    let sink = built.pipeline.by_name("utr_sink").and_then(|sink| sink.downcast::<gst_app::AppSink>().ok());
    let (Some(sink), Some(bus)) = (sink, built.pipeline.bus()) else {
        let Built { origin, description, .. } = built;
        return Err(Error::capture(origin, format!("the pipeline lost its sink: {description}")));
    };
    // What nobody reads would pile up for as long as the pipeline runs.
    bus.set_sync_handler(|_, message| match message.view() {
        gst::MessageView::Error(_) => gst::BusSyncReply::Pass,
        gst::MessageView::Element(note) if is_missing_plugin(note) => gst::BusSyncReply::Pass,
        _ => gst::BusSyncReply::Drop,
    });
    let arrivals = Arc::new(Arrivals::default());
    let playing = play(&built, &sink, &arrivals, options)?;
    let mut capture = GstCapture {
        built,
        sink,
        bus,
        options: options.clone(),
        live: playing.unwrap_or(false),
        next: 0,
        first_pts_ms: None,
        current: None,
        arrivals,
        passed: 0,
        overtaken: 0,
        missing: Vec::new(),
        final_error: false,
    };
    if playing.is_none() {
        let reason = capture.bus_error().unwrap_or_else(|| "an element refused to start".into());
        return Err(capture.fail(&reason));
    }
    Ok(Box::new(capture))
}

/// Sets the pipeline playing on a thread of its own, as drivers and connections may take their time: whether it is live, or
/// nothing where it does not start. After an interrupt, or when it takes too long, the thread ends what it began, and nobody waits for it.
fn play(
    built: &Built,
    sink: &gst_app::AppSink,
    arrivals: &Arc<Arrivals>,
    options: &CaptureOptions,
) -> Result<Option<bool>> {
    if HANGING.load(Ordering::SeqCst) >= MOST_HANGING {
        let reason = format!(
            "{MOST_HANGING} earlier openings or closings still hang in their drivers; unplug the device or restart the program"
        );
        return Err(Error::lost(built.origin.clone(), reason));
    }
    let (tell, told) = mpsc::sync_channel(0);
    let late = Arc::new(AtomicBool::new(false));
    let was_late = Arc::clone(&late);
    let (pipeline, sink, arrivals) = (built.pipeline.clone(), sink.clone(), Arc::clone(arrivals));
    let opening = move || {
        let outcome = set_playing(&pipeline, &sink, &arrivals);
        if tell.send(outcome).is_err() {
            let _ = pipeline.set_state(gst::State::Null);
            if was_late.load(Ordering::SeqCst) {
                HANGING.fetch_sub(1, Ordering::SeqCst);
            }
        }
    };
    std::thread::Builder::new().name("utr-open".into()).spawn(opening).map_err(|error| {
        Error::lost(built.origin.clone(), format!("no thread could be started to open it: {error}"))
    })?;
    let limit = options.timeout.max(OPENING);
    let end = Instant::now() + limit;
    loop {
        options.interrupt.check()?;
        match told.recv_timeout(TICK) {
            Ok(outcome) => return Ok(outcome),
            Err(mpsc::RecvTimeoutError::Timeout) if Instant::now() >= end => {
                late.store(true, Ordering::SeqCst);
                HANGING.fetch_add(1, Ordering::SeqCst);
                let reason = format!(
                    "it did not open within {} s; {}; pipeline: {}",
                    limit.as_secs(),
                    built.remedy,
                    built.description
                );
                return Err(Error::lost(built.origin.clone(), reason));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
}

/// Whether the source is live (only the step to paused tells); nothing where it does not start.
fn set_playing(pipeline: &gst::Pipeline, sink: &gst_app::AppSink, arrivals: &Arc<Arrivals>) -> Option<bool> {
    let live = pipeline.set_state(gst::State::Paused).ok()? == gst::StateChangeSuccess::NoPreroll;
    if live {
        sink.set_max_buffers(1);
        sink.set_drop(true);
        arrivals.watch(pipeline, sink);
    }
    pipeline.set_state(gst::State::Playing).ok()?;
    Some(live)
}

fn is_missing_plugin(note: &gst::message::Element) -> bool {
    note.structure().is_some_and(|structure| structure.name() == "missing-plugin")
}

impl GstCapture {
    /// An error with the remedy and the pipeline.
    fn fail(&self, reason: &str) -> Error {
        let mut text = reason.to_string();
        if self.next > 0 {
            text += &format!(" (after {} good frames)", self.next);
        }
        if self.missing.is_empty() {
            text += &format!("; {}", self.built.remedy);
        } else {
            text += &format!(
                "; missing plugin: {}; install it (on Debian and Ubuntu mostly gstreamer1.0-libav, -plugins-good, \
                 -plugins-bad) and see `utr doctor`",
                self.missing.join(", ")
            );
        }
        let text = format!("{text}; pipeline: {}", self.built.description);
        if self.missing.is_empty() && !self.final_error {
            Error::lost(self.built.origin.clone(), text)
        } else {
            Error::capture(self.built.origin.clone(), text)
        }
    }

    /// Empties the bus; the first error message, if there is one. Missing plugins are noted on the way.
    fn bus_error(&mut self) -> Option<String> {
        let mut found = None;
        while let Some(message) = self.bus.pop() {
            match message.view() {
                gst::MessageView::Error(error) if found.is_none() => {
                    let element = error.src().map(|src| src.path_string().to_string()).unwrap_or_default();
                    let element = element.rsplit('/').next().unwrap_or_default().to_string();
                    let detail = error.debug().map(|text| detail(&text)).unwrap_or_default();
                    self.final_error =
                        error.error().kind::<gst::ResourceError>() == Some(gst::ResourceError::NotAuthorized);
                    found = Some(scrub(&format!("{element}: {} ({detail})", error.error())));
                }
                gst::MessageView::Element(note) if is_missing_plugin(note) => {
                    let structure = note.structure();
                    let name = structure
                        .and_then(|s| s.get::<String>("name").or_else(|_| s.get::<String>("detail")).ok());
                    self.missing.push(name.unwrap_or_else(|| "unknown".into()));
                }
                _ => {}
            }
        }
        found
    }

    /// Why a pipeline ended before its first frame.
    fn nothing_came(&self) -> String {
        let others = self.built.others.lock().unwrap_or_else(PoisonError::into_inner);
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
            && let Some(number) = buffer.map(|buffer| buffer.offset())
        {
            self.overtaken += number.saturating_sub(self.passed);
            self.passed = number.saturating_add(1);
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
            let tick = gst::ClockTime::from_mseconds(TICK.as_millis() as u64);
            if let Some(sample) = self.sink.try_pull_sample(tick) {
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
        self.built.total
    }

    fn duration_ms(&self) -> Option<u64> {
        self.built.pipeline.query_duration::<gst::ClockTime>().map(|time| time.mseconds())
    }

    fn live(&self) -> bool {
        self.live
    }

    fn dropped(&self) -> u64 {
        self.arrivals.skipped() + self.overtaken
    }
}

impl Drop for GstCapture {
    /// Ends the pipeline on a thread of its own: where a driver hangs, it is left behind.
    fn drop(&mut self) {
        let (tell, told) = mpsc::sync_channel(0);
        let (late, pipeline) = (Arc::new(AtomicBool::new(false)), self.built.pipeline.clone());
        let was_late = Arc::clone(&late);
        let closing = move || {
            let _ = pipeline.set_state(gst::State::Null);
            drop(pipeline);
            if tell.send(()).is_err() && was_late.load(Ordering::SeqCst) {
                HANGING.fetch_sub(1, Ordering::SeqCst);
            }
        };
        match std::thread::Builder::new().name("utr-close".into()).spawn(closing) {
            Ok(_) if told.recv_timeout(CLOSING).is_err() => {
                late.store(true, Ordering::SeqCst);
                HANGING.fetch_add(1, Ordering::SeqCst);
            }
            Ok(_) => {}
            Err(_) => {
                let _ = self.built.pipeline.set_state(gst::State::Null);
            }
        }
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

/// What an element says beside its message: the lines after the one that names its source file, if there are any.
fn detail(text: &str) -> String {
    let (place, words) = text.split_once('\n').unwrap_or((text, ""));
    (if words.trim().is_empty() { place } else { words }).trim().replace('\n', " ")
}
