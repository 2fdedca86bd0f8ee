//! What of GStreamer is installed: version, needed elements, and a decoder for each common codec.
//!
//! Comes in: nothing. Goes out: a [`GstReport`] for `utr doctor`. It opens no source.

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
