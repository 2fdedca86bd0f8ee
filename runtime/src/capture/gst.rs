//! Capture through GStreamer: files of any codec the installed plugins decode, cameras, network cameras, test pictures,
//! users' pipelines.
//!
//! Comes in: a source and a board profile. Goes out: RGB frames at source size, upright (rotation tags are applied), one at a
//! time through an `appsink` (`running`). This file builds the pipelines of clips and of users, and what all pipelines
//! share; `camera` and `rtsp` build theirs. Every failure carries the element's own message and the pipeline. It chooses no
//! frames and does not resize.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;

use super::{Capture, CaptureOptions};
use crate::board::Board;
use crate::error::{Error, Result};
use crate::source::secret::scrub;
use crate::source::{Flip, PatternSpec};

mod arrivals;
mod camera;
mod report;
mod rtsp;
mod running;

pub use camera::{open_csi, open_v4l2};
pub use report::{ElementReport, GstReport, camera_formats, check};
pub use rtsp::open_rtsp;

use running::{Built, Pads, start};

/// From raw video to packed RGB, upright.
const TAIL: &str = "video/x-raw,format=RGB ! videoflip video-direction=auto ! video/x-raw,format=RGB ! \
     appsink name=utr_sink sync=false max-buffers=4 drop=false enable-last-sample=false";

/// `decodebin`, kept from decoding the sound; [`link_decoder`] links it.
const DECODE: &str = "decodebin name=utr_decode caps=\"video/x-raw(ANY)\" expose-all-streams=false";

/// Lists that name other addresses: what they name would be opened, in this machine's network, whoever wrote the list.
const LISTS: [&str; 6] = [
    "application/x-hls",
    "application/dash+xml",
    "application/vnd.ms-sstr+xml",
    "application/sdp",
    "application/xges",
    "text/uri-list",
];

/// Most pads without a picture that are remembered for a message.
const MAX_PADS: usize = 8;

/// Opens a video file: `decodebin` finds demuxer and decoder.
pub fn open_file(path: &Path, options: &CaptureOptions) -> Result<Box<dyn Capture>> {
    let origin = path.display().to_string();
    let text = format!("filesrc name=utr_source ! {DECODE}  {}", tail(None));
    let pipeline = launch(&origin, &text)?;
    let Some(source) = pipeline.by_name("utr_source") else { return Err(unnamed(origin)) };
    source.set_property("location", path);
    let others = link_decoder(&origin, &pipeline, &options.board()?)?;
    let built = Built {
        description: described(&text, &format!("location={path:?}")),
        total: None,
        others,
        remedy: "check that the file plays elsewhere, or record it again",
        origin,
        pipeline,
    };
    start(built, options)
}

/// Opens GStreamer's test picture; it ends after the asked number of frames, or never where it is live.
pub fn open_test(spec: &PatternSpec, options: &CaptureOptions) -> Result<Box<dyn Capture>> {
    let PatternSpec { name, frames, width, height, fps, .. } = spec;
    let length = if spec.live { "is-live=true".to_string() } else { format!("num-buffers={frames}") };
    let description = format!(
        "videotestsrc pattern={name} {length} ! video/x-raw,format=RGB,width={width},height={height},framerate={fps}/1 ! {}",
        tail(None)
    );
    let origin = format!("test://{name}");
    let pipeline = launch(&origin, &description).map_err(|error| match error {
        Error::Capture { origin, reason } if reason.contains("pattern") => {
            let known = report::test_patterns().join(", ");
            Error::capture(origin, format!("there is no such test picture; there are {known} ({reason})"))
        }
        other => other,
    })?;
    let total = (!spec.live).then_some(*frames);
    let remedy = "gst-launch-1.0 can run the pipeline";
    start(Built { origin, description, pipeline, total, others: Pads::default(), remedy }, options)
}

/// Opens a user's pipeline, written without a sink.
pub fn open_pipeline(user: &str, options: &CaptureOptions) -> Result<Box<dyn Capture>> {
    let text = format!("{user} ! {}", tail(None));
    let origin = format!("gst://{}", scrub(user));
    let pipeline = launch(&origin, &text)?;
    let remedy = "gst-launch-1.0 can run the pipeline; a file in it must play elsewhere too";
    let description = scrub(&text);
    start(Built { origin, description, pipeline, total: None, others: Pads::default(), remedy }, options)
}

/// From any raw video in the processor's memory to the `appsink`, turned as asked.
fn tail(flip: Option<Flip>) -> String {
    let turn = flip.map_or(String::new(), |flip| {
        format!("videoflip video-direction={} ! video/x-raw,format=RGB ! ", flip.video_direction())
    });
    let tail = TAIL.replacen("appsink", &format!("{turn}appsink"), 1);
    format!("videoconvert name=utr_head ! {tail}")
}

/// Whether GStreamer's registry has an element; of `element property=value` the first word counts.
fn present(element: &str) -> bool {
    let name = element.split_whitespace().next().unwrap_or_default();
    gst::init().is_ok() && gst::ElementFactory::find(name).is_some()
}

/// A pipeline as a user could run it: the source's address in the place of its name, decoder and tail joined.
fn described(text: &str, address: &str) -> String {
    let text = text.replacen("name=utr_source", address, 1).replace("  videoconvert", " ! videoconvert");
    let text = [" name=utr_decode", " name=utr_head"].iter().fold(text, |text, name| text.replace(name, ""));
    text.replace("  ", " ")
}

fn unnamed(origin: String) -> Error {
    Error::capture(origin, "GStreamer built a pipeline without its named elements")
}

/// Builds a pipeline from its text; errors show it without secrets.
fn launch(origin: &str, text: &str) -> Result<gst::Pipeline> {
    gst::init().map_err(|error| Error::capture(origin, format!("GStreamer does not start: {error}")))?;
    let shown = scrub(text);
    let element = gst::parse::launch(text).map_err(|error| {
        let error = scrub(&error.to_string());
        Error::capture(
            origin,
            format!("GStreamer cannot build the pipeline: {error}; pipeline: {shown}; `utr doctor` lists what is missing"),
        )
    })?;
    element
        .downcast::<gst::Pipeline>()
        .map_err(|_| Error::capture(origin, format!("this is one element, not a pipeline: {shown}")))
}

/// Links the first picture that `decodebin` finds to the tail, through the board's converter where a hardware decoder keeps it
/// in memory of its own; what names other addresses is not followed. What else is offered is remembered, for the message of a source without a picture.
fn link_decoder(origin: &str, pipeline: &gst::Pipeline, board: &Board) -> Result<Pads> {
    let (Some(decode), Some(head)) = (pipeline.by_name("utr_decode"), pipeline.by_name("utr_head")) else {
        return Err(unnamed(origin.to_string()));
    };
    decode.connect("autoplug-continue", false, |values| {
        let caps = values.get(2).and_then(|value| value.get::<gst::Caps>().ok());
        let name = caps.as_ref().and_then(|caps| caps.structure(0)).map(|s| s.name().to_string());
        Some((!name.is_some_and(|name| LISTS.contains(&name.as_str()))).to_value())
    });
    let others = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&others);
    let convert = board.media.convert.join(" ! ");
    // Weak references: strong ones from a pipeline's own callback would keep it alive for ever.
    let (pipeline, head) = (pipeline.downgrade(), head.downgrade());
    decode.connect_pad_added(move |_, pad| {
        let (Some(pipeline), Some(head)) = (pipeline.upgrade(), head.upgrade()) else { return };
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        if !link_picture(&pipeline, &head, pad, &caps, &convert) {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.len() < MAX_PADS {
                seen.push(caps.to_string());
            }
        }
    });
    Ok(others)
}

fn link_picture(
    pipeline: &gst::Pipeline,
    head: &gst::Element,
    pad: &gst::Pad,
    caps: &gst::CapsRef,
    convert: &str,
) -> bool {
    let Some(target) = head.static_pad("sink").filter(|target| !target.is_linked()) else { return false };
    let elsewhere = caps.features(0).is_some_and(|features| features.contains("memory:NVMM"));
    if !elsewhere {
        return pad.link(&target).is_ok();
    }
    let Ok(bin) = gst::parse::bin_from_description(convert, true) else { return false };
    let linked = pipeline.add(&bin).is_ok()
        && bin.link(head).is_ok()
        && bin.static_pad("sink").is_some_and(|sink| pad.link(&sink).is_ok());
    linked && bin.sync_state_with_parent().is_ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_closed_pipeline_is_freed() {
        for live in [false, true] {
            let text = format!(
                "videotestsrc name=utr_source is-live={live} num-buffers=4 ! {DECODE}  {}",
                tail(Some(Flip::Vertical))
            );
            let pipeline = launch("test", &text).unwrap();
            let held = pipeline.downgrade();
            let others = link_decoder("test", &pipeline, &Board::named("jetson-orin-nano").unwrap()).unwrap();
            let (origin, description) = (String::new(), described(&text, "pattern=0"));
            assert!(!description.contains("utr_head") && !description.contains("  "), "{description}");
            let built = Built { origin, description, pipeline, total: None, others, remedy: "" };
            let mut capture = start(built, &CaptureOptions::default()).unwrap();
            assert_eq!(capture.live(), live);
            capture.advance().unwrap().unwrap();
            drop(capture);
            let began = Instant::now();
            while held.upgrade().is_some() {
                assert!(began.elapsed() < Duration::from_secs(20), "something holds the closed pipeline");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}
