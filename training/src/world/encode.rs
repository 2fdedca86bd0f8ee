//! Frames to a video file through GStreamer.
//!
//! Comes in: square RGB frames and a rate. Goes out: an H.264 MP4 (or VP8 in WebM where no H.264 encoder is installed;
//! [`Encoder::element`] says which was found). Without the feature `gst` every attempt is an error that says so. Nothing
//! is scaled, and no temporary names are made here.

use std::path::Path;

use utr_models::{Error, Result, RgbFrame};

/// Encoders in order of preference: element, its settings, what follows it, and the file name's ending.
#[cfg(feature = "gst")]
const CHOICES: [Choice; 3] = [
    Choice {
        element: "x264enc",
        chain: "x264enc pass=qual quantizer=16 speed-preset=fast bframes=0 ! mp4mux",
        needs: &["x264enc", "mp4mux"],
        extension: ".mp4",
    },
    Choice {
        element: "openh264enc",
        chain: "openh264enc rate-control=quality bitrate=2000000 ! h264parse ! mp4mux",
        needs: &["openh264enc", "h264parse", "mp4mux"],
        extension: ".mp4",
    },
    Choice {
        element: "vp8enc",
        chain: "vp8enc target-bitrate=2000000 deadline=1 ! webmmux",
        needs: &["vp8enc", "webmmux"],
        extension: ".webm",
    },
];

#[cfg(feature = "gst")]
#[derive(Debug)]
struct Choice {
    element: &'static str,
    chain: &'static str,
    needs: &'static [&'static str],
    extension: &'static str,
}

/// A usable encoder of this machine.
#[derive(Debug)]
pub struct Encoder {
    #[cfg(feature = "gst")]
    choice: &'static Choice,
}

#[cfg(not(feature = "gst"))]
impl Encoder {
    /// # Errors
    /// Always: this build has no GStreamer.
    pub fn find() -> Result<Self> {
        Err(Error::Argument(
            "this build has no GStreamer, so it writes no video; rebuild with the feature `gst`, or write frames".into(),
        ))
    }

    /// Nothing, as there is no encoder.
    pub fn element(&self) -> &'static str {
        ""
    }

    /// Nothing, as there is no encoder.
    pub fn extension(&self) -> &'static str {
        ""
    }

    /// # Errors
    /// Always.
    pub fn write(&self, path: &Path, _: u32, _: u32, _: &mut dyn Iterator<Item = RgbFrame>) -> Result<()> {
        Err(Error::format(path, "this build has no GStreamer"))
    }
}

#[cfg(feature = "gst")]
impl Encoder {
    /// The first encoder whose elements are all installed.
    ///
    /// # Errors
    /// None is; names the missing elements and the package that has them.
    pub fn find() -> Result<Self> {
        gstreamer::init().map_err(|e| Error::Argument(format!("GStreamer does not start: {e}")))?;
        let missing = |c: &&Choice| -> Vec<&'static str> {
            c.needs.iter().copied().filter(|name| gstreamer::ElementFactory::find(name).is_none()).collect()
        };
        let all: &'static [Choice; 3] = &CHOICES;
        if let Some(choice) = all.iter().find(|c| missing(c).is_empty()) {
            return Ok(Self { choice });
        }
        let lacks: Vec<String> =
            all.iter().map(|c| format!("{} lacks {}", c.element, missing(&c).join(", "))).collect();
        Err(Error::Argument(format!(
            "no video encoder: {}; install gstreamer1.0-plugins-ugly (x264enc) and gstreamer1.0-plugins-good (mp4mux), \
             or write frames",
            lacks.join("; ")
        )))
    }

    /// The GStreamer element that encodes.
    pub fn element(&self) -> &'static str {
        self.choice.element
    }

    /// Ending of the file name, with its dot.
    pub fn extension(&self) -> &'static str {
        self.choice.extension
    }

    /// Encodes `frames` (`size` × `size` RGB, `rate` a second) to `path`.
    ///
    /// # Errors
    /// What the pipeline reports, with the pipeline.
    pub fn write(
        &self,
        path: &Path,
        size: u32,
        rate: u32,
        frames: &mut dyn Iterator<Item = RgbFrame>,
    ) -> Result<()> {
        // I420, since hardware decoders take no other layout of H.264.
        let text = format!(
            "appsrc name=frames format=time block=true \
             caps=video/x-raw,format=RGB,width={size},height={size},framerate={rate}/1 \
             ! videoconvert ! video/x-raw,format=I420 ! {} ! filesink name=file",
            self.choice.chain
        );
        push_through(&text, path, rate, frames)
            .map_err(|reason| Error::format(path, format!("encoding failed: {reason}; pipeline: {text}")))
    }
}

#[cfg(feature = "gst")]
fn push_through(
    text: &str,
    path: &Path,
    rate: u32,
    frames: &mut dyn Iterator<Item = RgbFrame>,
) -> Result<(), String> {
    use gstreamer::prelude::*;

    let pipeline = gstreamer::parse::launch(text).map_err(|e| e.to_string())?;
    let pipeline = pipeline.downcast::<gstreamer::Pipeline>().map_err(|_| "not a pipeline".to_owned())?;
    let file = pipeline.by_name("file").ok_or("no filesink")?;
    file.set_property("location", path.to_string_lossy().as_ref());
    let source = pipeline.by_name("frames").ok_or("no appsrc")?;
    let source = source.downcast::<gstreamer_app::AppSrc>().map_err(|_| "not an appsrc".to_owned())?;
    let stop = Stop(&pipeline);
    pipeline.set_state(gstreamer::State::Playing).map_err(|e| e.to_string())?;
    let step = gstreamer::ClockTime::SECOND.nseconds();
    let time = |n: u64| gstreamer::ClockTime::from_nseconds(n * step / u64::from(rate));
    for (n, frame) in (0u64..).zip(frames) {
        let mut buffer = gstreamer::Buffer::from_mut_slice(padded(&frame));
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(time(n));
            buffer.set_duration(time(n + 1) - time(n));
        }
        if source.push_buffer(buffer).is_err() {
            break; // The reason is on the bus.
        }
    }
    let _ = source.end_of_stream();
    let result = wait(&pipeline);
    drop(stop);
    result
}

/// Rows padded to a multiple of four bytes, as GStreamer lays out RGB.
#[cfg(feature = "gst")]
fn padded(frame: &RgbFrame) -> Vec<u8> {
    let row = frame.width * 3;
    let padding = row.next_multiple_of(4) - row;
    if padding == 0 {
        return frame.data.clone();
    }
    frame
        .data
        .chunks_exact(row)
        .flat_map(|r| r.iter().copied().chain(std::iter::repeat_n(0, padding)))
        .collect()
}

/// Waits for the end of the stream, at most a minute after the last frame was handed over.
#[cfg(feature = "gst")]
fn wait(pipeline: &gstreamer::Pipeline) -> Result<(), String> {
    use gstreamer::prelude::*;

    let bus = pipeline.bus().ok_or("no bus")?;
    let wanted = [gstreamer::MessageType::Eos, gstreamer::MessageType::Error];
    let Some(message) = bus.timed_pop_filtered(gstreamer::ClockTime::from_seconds(60), &wanted) else {
        return Err("the encoder did not finish within a minute".into());
    };
    match message.view() {
        gstreamer::MessageView::Error(e) => {
            Err(format!("{}: {}", e.src().map(|s| s.name().to_string()).unwrap_or_default(), e.error()))
        }
        _ => Ok(()),
    }
}

/// Stops the pipeline on every way out.
#[cfg(feature = "gst")]
struct Stop<'a>(&'a gstreamer::Pipeline);

#[cfg(feature = "gst")]
impl Drop for Stop<'_> {
    fn drop(&mut self) {
        use gstreamer::prelude::*;
        let _ = self.0.set_state(gstreamer::State::Null);
    }
}
