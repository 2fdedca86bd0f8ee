//! Network cameras.
//!
//! Comes in: an address with its login apart, and the board profile. Goes out: a running pipeline that takes the picture only
//! (sound is never requested) and lets late packets go rather than wait for them. No text made here holds the login.

use gstreamer as gst;
use gstreamer::prelude::*;

use super::camera::hardware_decoder;
use super::running::{Built, Pads, start};
use super::{DECODE, described, launch, link_decoder, present, tail, unnamed};
use crate::board::Board;
use crate::capture::{Capture, CaptureOptions};
use crate::error::Result;
use crate::source::{Codec, RtspSpec, Transport};

/// Opens a network camera. It connects while it runs: a camera that is away shows at the first frame.
pub fn open_rtsp(spec: &RtspSpec, options: &CaptureOptions) -> Result<Box<dyn Capture>> {
    let origin = spec.shown();
    let board = options.board()?;
    let text = pipeline_text(spec, &board, &present);
    let pipeline = launch(&origin, &text)?;
    let Some(source) = pipeline.by_name("utr_source") else { return Err(unnamed(origin)) };
    source.set_property("location", spec.location());
    if let Some(login) = &spec.login {
        source.set_property("user-id", &login.user);
        source.set_property("user-pw", &login.password);
    }
    if spec.tls && !spec.verify {
        source.set_property_from_str("tls-validation-flags", "0");
    }
    source.set_property("tcp-timeout", u64::try_from(options.timeout.as_micros()).unwrap_or(u64::MAX));
    // Sound is refused before it is set up.
    source.connect("select-stream", false, |values| {
        let caps = values.get(2).and_then(|value| value.get::<gst::Caps>().ok());
        let media = caps.as_ref().and_then(|caps| caps.structure(0)?.get::<&str>("media").ok());
        Some(media.is_none_or(|media| media == "video").to_value())
    });
    let others =
        if text.contains("utr_decode") { link_decoder(&origin, &pipeline, &board)? } else { Pads::default() };
    let built = Built {
        description: described(&text, &format!("location={origin}")),
        total: None,
        others,
        remedy: "check that the camera is on and reachable, its address, user and password; transport=udp or tcp chooses the \
                 other way",
        origin,
        pipeline,
    };
    start(built, options)
}

/// A network camera's pipeline, its address still to be set.
fn pipeline_text(spec: &RtspSpec, board: &Board, present: &dyn Fn(&str) -> bool) -> String {
    let transport = match spec.transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp+udp-mcast",
    };
    let format = match spec.codec {
        None | Some(Codec::Raw) => None,
        Some(Codec::Mjpeg) => Some(("JPEG", "rtpjpegdepay")),
        Some(Codec::H264) => Some(("H264", "rtph264depay")),
        Some(Codec::H265) => Some(("H265", "rtph265depay")),
    };
    let encoding = format.map_or(String::new(), |(name, _)| format!(",encoding-name={name}"));
    let decoder = spec.codec.and_then(|codec| hardware_decoder(codec, board, present));
    let decode = match (format, decoder) {
        (Some((_, depay)), Some(decoder)) => format!("{depay} ! {decoder} !"),
        _ => format!("{DECODE} "),
    };
    format!(
        "rtspsrc name=utr_source latency={} drop-on-latency=true protocols={transport} ! \
         application/x-rtp,media=video{encoding} ! {decode} {}",
        spec.latency_ms,
        tail(spec.flip)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::source::Source;

    fn spec(uri: &str) -> RtspSpec {
        let Source::Rtsp(spec) = Source::parse(uri).unwrap() else { panic!("not a network camera") };
        spec
    }

    #[test]
    fn the_pipeline_is_one_that_gstreamer_builds() {
        let board = Board::named("generic").unwrap();
        for query in ["", "?latency=0&transport=udp", "?codec=h264&flip=vertical"] {
            let text = pipeline_text(&spec(&format!("rtsp://h/x{query}")), &board, &present);
            launch("test", &text).unwrap();
        }
        let jetson = Board::named("jetson-orin-nx").unwrap();
        let text = pipeline_text(&spec("rtsp://h/x?codec=h265"), &jetson, &|_| true);
        assert!(text.contains("rtph265depay ! h265parse ! nvv4l2decoder ! nvvidconv ! "), "{text}");
    }

    #[test]
    fn a_camera_that_is_away_is_lost_and_its_password_stays_unsaid() {
        // Nothing listens on the port of a socket that is bound and never listens.
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        for tls in ["rtsp", "rtsps"] {
            let spec = spec(&format!("{tls}://admin:geheim@127.0.0.1:{port}/live?token=geheim&verify=false"));
            let options =
                CaptureOptions { timeout: std::time::Duration::from_secs(20), ..Default::default() };
            let error = open_rtsp(&spec, &options).unwrap().advance().unwrap_err();
            assert!(matches!(error, Error::Lost { .. }), "{error}");
            let words = format!("{error} {error:?}");
            assert!(words.contains("rtspsrc location=rtsp") && words.contains("***@127.0.0.1"), "{words}");
            assert!(!words.contains("geheim") && !words.contains("admin"), "{words}");
        }
    }
}
