//! What of GStreamer is installed: version, needed elements, and a decoder for each common codec; and what a camera offers.
//!
//! Comes in: nothing, or a video device. Goes out: a [`GstReport`] and the camera's formats for `utr doctor`. No frame is read.

use gstreamer as gst;
use gstreamer::prelude::*;
use serde::Serialize;

/// The elements this program's pipelines use, the Debian package that holds each, and whether every pipeline does.
const ELEMENTS: [(&str, &str, bool); 18] = [
    ("filesrc", "libgstreamer1.0-0", true),
    ("decodebin", "gstreamer1.0-plugins-base", true),
    ("videoconvert", "gstreamer1.0-plugins-base", true),
    ("videoflip", "gstreamer1.0-plugins-good", true),
    ("appsink", "gstreamer1.0-plugins-base", true),
    ("videotestsrc", "gstreamer1.0-plugins-base", false),
    ("qtdemux", "gstreamer1.0-plugins-good", false),
    ("v4l2src", "gstreamer1.0-plugins-good", false),
    ("jpegdec", "gstreamer1.0-plugins-good", false),
    ("rtspsrc", "gstreamer1.0-plugins-good", false),
    ("rtph264depay", "gstreamer1.0-plugins-good", false),
    ("rtph265depay", "gstreamer1.0-plugins-good", false),
    ("h264parse", "gstreamer1.0-plugins-bad", false),
    ("h265parse", "gstreamer1.0-plugins-bad", false),
    ("jpegparse", "gstreamer1.0-plugins-bad", false),
    ("nvarguscamerasrc", JETPACK, false),
    ("nvv4l2decoder", JETPACK, false),
    ("nvvidconv", JETPACK, false),
];

/// Holds the elements of Jetson boards; in NVIDIA's package source, which their own system image brings.
const JETPACK: &str = "nvidia-l4t-gstreamer nvidia-l4t-camera (Jetson boards only)";

/// Codecs, the caps that name them, and the package that usually brings a decoder.
const CODECS: [(&str, &str, &str); 7] = [
    ("H.264", "video/x-h264,stream-format=avc,alignment=au", "gstreamer1.0-libav"),
    ("H.265", "video/x-h265,stream-format=hvc1,alignment=au", "gstreamer1.0-libav"),
    ("MPEG-4", "video/mpeg,mpegversion=4,systemstream=false", "gstreamer1.0-libav"),
    ("VP8", "video/x-vp8", "gstreamer1.0-plugins-good"),
    ("VP9", "video/x-vp9", "gstreamer1.0-plugins-good"),
    ("AV1", "video/x-av1", "gstreamer1.0-plugins-bad"),
    ("Motion JPEG", "image/jpeg", "gstreamer1.0-plugins-good"),
];

/// One element, or one codec's decoder.
#[derive(Clone, Debug, Serialize)]
pub struct ElementReport {
    /// Element or codec.
    pub name: String,
    /// Whether this program cannot do without it.
    pub needed: bool,
    /// The element that does it; none where it is missing.
    pub found: Option<String>,
    /// The Debian package to install where it is missing.
    pub package: String,
}

/// What is installed.
#[derive(Clone, Debug, Serialize)]
pub struct GstReport {
    /// The library's version.
    pub version: String,
    /// Elements, then codecs.
    pub elements: Vec<ElementReport>,
}

/// Looks at GStreamer's registry.
///
/// # Errors
/// The library's own words where it does not start.
pub fn check() -> Result<GstReport, String> {
    gst::init().map_err(|error| error.to_string())?;
    let (major, minor, micro, _) = gst::version();
    let mut elements: Vec<ElementReport> = ELEMENTS
        .iter()
        .map(|(name, package, needed)| ElementReport {
            name: (*name).to_string(),
            needed: *needed,
            found: gst::ElementFactory::find(name).map(|_| (*name).to_string()),
            package: (*package).to_string(),
        })
        .collect();
    elements.extend(CODECS.iter().map(|(name, caps, package)| ElementReport {
        name: format!("{name} decoder"),
        needed: false,
        found: decoder(caps),
        package: (*package).to_string(),
    }));
    Ok(GstReport { version: format!("{major}.{minor}.{micro}"), elements })
}

/// The decoder `decodebin` would try first for these caps.
fn decoder(caps: &str) -> Option<String> {
    let caps: gst::Caps = caps.parse().ok()?;
    let all = gst::ElementFactory::factories_with_type(gst::ElementFactoryType::DECODER, gst::Rank::MARGINAL);
    let mut able: Vec<_> = all.into_iter().filter(|factory| factory.can_sink_any_caps(&caps)).collect();
    able.sort_by_key(|factory| std::cmp::Reverse(factory.rank()));
    able.first().map(|factory| factory.name().to_string())
}

/// The nicks `videotestsrc` knows.
pub fn test_patterns() -> Vec<String> {
    let Ok(element) = gst::ElementFactory::make("videotestsrc").build() else { return Vec::new() };
    let class =
        element.find_property("pattern").and_then(|spec| gst::glib::EnumClass::with_type(spec.value_type()));
    class
        .map(|class| class.values().iter().map(|value| value.nick().to_string()).collect())
        .unwrap_or_default()
}

/// The formats that a video device offers, each with its largest picture, such as `MJPEG up to 1920x1080`; empty for a device that captures nothing.
///
/// # Errors
/// GStreamer's own words where the device cannot be opened.
pub fn camera_formats(device: &str) -> Result<Vec<String>, String> {
    gst::init().map_err(|error| error.to_string())?;
    let source = gst::ElementFactory::make("v4l2src").property("device", device).build();
    let source = source.map_err(|error| error.to_string())?;
    let bus = gst::Bus::new();
    source.set_bus(Some(&bus));
    let opened = source.set_state(gst::State::Ready);
    let caps = source.static_pad("src").map(|pad| pad.query_caps(None));
    let _ = source.set_state(gst::State::Null);
    if opened.is_ok() {
        return Ok(caps.map(|caps| formats(&caps)).unwrap_or_default());
    }
    match bus.pop_filtered(&[gst::MessageType::Error]).as_ref().map(|message| message.view()) {
        // A decoder, or a camera's node for what is not pictures.
        Some(gst::MessageView::Error(error)) if error.error().matches(gst::ResourceError::NotFound) => {
            Ok(Vec::new())
        }
        Some(gst::MessageView::Error(error)) => Err(error.error().to_string()),
        _ => Err(format!("{device} cannot be opened")),
    }
}

/// By format, in the order of the caps.
fn formats(caps: &gst::Caps) -> Vec<String> {
    let mut known: Vec<(String, (i32, i32))> = Vec::new();
    for offer in caps.iter() {
        let name = match offer.name().as_str() {
            "image/jpeg" => "MJPEG".to_string(),
            "video/x-raw" => offer.get::<String>("format").unwrap_or_else(|_| "raw".into()),
            "video/x-bayer" => "raw Bayer".to_string(),
            other => other.trim_start_matches("video/x-").to_uppercase(),
        };
        let most = |field: &str| {
            let range = || offer.get::<gst::IntRange<i32>>(field).map(|range| range.max());
            offer.get::<i32>(field).or_else(|_| range()).unwrap_or(0)
        };
        let size = (most("width"), most("height"));
        match known.iter_mut().find(|(format, _)| *format == name) {
            Some((_, largest)) => *largest = size.max(*largest),
            None => known.push((name, size)),
        }
    }
    known.into_iter().map(|(name, (width, height))| format!("{name} up to {width}x{height}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_with_their_largest_picture() {
        gst::init().unwrap();
        let caps: gst::Caps = "video/x-raw,format=YUY2,width=640,height=480; video/x-raw,format=YUY2,width=1280,height=720; \
                               image/jpeg,width=[16,1920],height=[16,1080]; video/x-h264,width=1280,height=720"
            .parse()
            .unwrap();
        assert_eq!(formats(&caps), ["YUY2 up to 1280x720", "MJPEG up to 1920x1080", "H264 up to 1280x720"]);
        assert!(camera_formats("/dev/null").unwrap_or_default().is_empty());
    }
}
