//! Spellings of sources: what they mean, what is refused, and that no secret is shown.

use proptest::prelude::*;

use super::*;

#[test]
fn bare_paths_and_file_addresses_name_the_same_file() {
    assert_eq!(Source::parse("/a/clip.mp4").unwrap(), Source::parse("file:///a/clip.mp4").unwrap());
    assert_eq!(Source::parse("file:///a%20b%25.mp4").unwrap(), Source::Path("/a b%.mp4".into()));
    assert_eq!(Source::parse("file:///a%3Fb.mp4").unwrap(), Source::Path("/a?b.mp4".into()));
    assert_eq!(Source::parse("file://localhost/a.mp4").unwrap(), Source::Path("/a.mp4".into()));
    assert_eq!(Source::parse("odd:name.mp4").unwrap(), Source::Path("odd:name.mp4".into()));
    assert_eq!(Source::parse("file:///a.mp4?loop=true").unwrap(), Source::Loop("/a.mp4".into()));
    assert_eq!(Source::parse("file:///a.mp4?loop=false").unwrap(), Source::Path("/a.mp4".into()));
    assert!(Source::parse("file:///a.mp4?lop=true").unwrap_err().to_string().contains("%3F"));
}

#[test]
fn test_patterns_read_their_parameters() {
    let Source::Test(spec) = Source::parse("test://ball?frames=7&width=63&height=31&fps=5").unwrap() else {
        panic!("not a test source")
    };
    assert_eq!((spec.name.as_str(), spec.frames, spec.width, spec.height, spec.fps), ("ball", 7, 63, 31, 5));
    for bad in [
        "test://ball?frames=0",
        "test://ball?frames=x",
        "test://ball?speed=2",
        "test://ball?frames",
        "test://ball?live=true&frames=3",
        "test://ball?live=perhaps",
        "test://a!b",
        "pattern://noise?live=true",
    ] {
        assert!(Source::parse(bad).is_err(), "{bad} was accepted");
    }
    assert!(Source::parse("test://ball?live=true").unwrap().never_ends());
    assert!(!Source::parse("test://ball").unwrap().never_ends());
}

#[test]
fn cameras_read_their_parameters() {
    let Source::V4l2 { device, camera } =
        Source::parse("v4l2:///dev/video2?width=640&height=480&fps=15&codec=mjpeg&flip=rotate-180").unwrap()
    else {
        panic!("not a camera")
    };
    assert_eq!(device, PathBuf::from("/dev/video2"));
    let asked = CameraSpec {
        width: Some(640),
        height: Some(480),
        fps: Some(15),
        codec: Some(Codec::Mjpeg),
        flip: Some(Flip::Rotate180),
    };
    assert_eq!(camera, asked);
    assert_eq!(Source::parse("/dev/video0").unwrap(), Source::parse("v4l2:///dev/video0").unwrap());
    assert_eq!(
        Source::parse("/dev/video0?fps=5").unwrap(),
        Source::parse("v4l2:///dev/video0?fps=5").unwrap()
    );
    assert_eq!(Source::parse("csi://").unwrap(), Source::parse("csi://0").unwrap());
    for (bad, says) in [
        ("v4l2://dev/video0", "three strokes"),
        ("v4l2:///dev/video0?codec=vp8", "mjpeg"),
        ("csi://front", "csi://0"),
        ("csi://0?codec=raw", "flip"),
        ("csi://0?flip=left", "counterclockwise"),
        ("v4l2:///dev/video0?width=0", "outside 1"),
        ("replay://", "recording"),
        ("http://x", "unknown"),
        ("gst://", "pipeline"),
        ("  ", "empty"),
    ] {
        let message = Source::parse(bad).unwrap_err().to_string();
        assert!(message.contains(says), "{bad}: {message}");
    }
    assert_eq!(Source::parse("replay://a/b.mcap").unwrap(), Source::Replay("a/b.mcap".into()));
}

#[test]
fn a_network_cameras_own_parameters_stay_with_it() {
    let uri =
        "rtsp://us%40er:p%3Ass@10.0.0.7:8554/cam/1?channel=2&latency=50&transport=udp&codec=h264&subtype=0";
    let Source::Rtsp(spec) = Source::parse(uri).unwrap() else { panic!("not a network camera") };
    assert_eq!(spec.location(), "rtsp://10.0.0.7:8554/cam/1?channel=2&subtype=0");
    let login = spec.login.clone().unwrap();
    assert_eq!((login.user.as_str(), login.password.as_str()), ("us@er", "p:ss"));
    assert_eq!((spec.latency_ms, spec.transport, spec.codec), (50, Transport::Udp, Some(Codec::H264)));
    let Source::Rtsp(spec) = Source::parse("rtsps://[::1]:322/s?verify=false").unwrap() else {
        panic!("not a network camera")
    };
    assert_eq!((spec.latency_ms, spec.transport, spec.verify), (DEFAULT_LATENCY_MS, Transport::Tcp, false));
    for bad in
        ["rtsp://", "rtsp:///path", "rtsp://h:x/", "rtsp://h:0/", "rtsp://[::1/", "rtsp://h?latency=-1"]
    {
        assert!(Source::parse(bad).is_err(), "{bad} was accepted");
    }
}

fn every_word_about(uri: &str) -> String {
    match Source::parse(uri) {
        Ok(source) => format!("{source} {source:?} {source:#?}"),
        Err(error) => format!("{error} {error:?}"),
    }
}

#[test]
fn a_password_is_shown_nowhere() {
    let shown = Source::parse("rtsp://u:geheim@host:554/live?latency=100").unwrap().to_string();
    assert_eq!(shown, "rtsp://***@host:554/live?latency=100&transport=tcp");
    for uri in [
        "rtsp://geheim@host/x",
        "rtsps://u:geheim@host/x?token=geheim",
        "rtsp://u:12/geheim@host/x",
        "rtsp://u:ge/heim@host:bad/geheim@x",
        "rtsp://u:12?latency=geheim@host/x",
        "rtsp://u:geheim@",
        "http://u:geheim@host/",
        "gst://rtspsrc location=rtsp://u:geheim@host user-pw=geheim",
    ] {
        let words = every_word_about(uri);
        assert!(!words.contains("geheim"), "{uri}: {words}");
    }
}

fn camera() -> impl Strategy<Value = CameraSpec> {
    let side = || proptest::option::of(1u32..5000);
    let flip = proptest::option::of(proptest::sample::select(
        Flip::NAMES.iter().map(|(_, flip)| *flip).collect::<Vec<_>>(),
    ));
    (side(), side(), proptest::option::of(1u32..240), flip)
        .prop_map(|(width, height, fps, flip)| CameraSpec { width, height, fps, codec: None, flip })
}

proptest! {
    #[test]
    fn parsing_never_panics(text in ".{0,80}") {
        let _ = Source::parse(&text);
    }

    #[test]
    fn parsing_an_address_never_panics(
        scheme in "(file|test|pattern|v4l2|csi|rtsp|rtsps|replay|gst)", rest in "[a-z0-9:/@?&=%\\[\\] é!]{0,40}",
    ) {
        let text = format!("{scheme}://{rest}");
        let _ = every_word_about(&text);
    }

    #[test]
    fn a_spelled_source_parses_back_to_itself(
        name in "[a-z][a-z0-9-]{0,12}", frames in 1usize..1000, w in 1usize..4000, h in 1usize..4000,
        fps in 1u32..200, seed in any::<u64>(), kind in 0..3,
    ) {
        let (live, drawn) = (kind == 1, kind == 2);
        let spec = PatternSpec {
            name, frames: if live { 0 } else { frames }, width: w, height: h, fps, seed: if drawn { seed } else { 0 }, live,
        };
        let source = if drawn { Source::Pattern(spec) } else { Source::Test(spec) };
        prop_assert_eq!(Source::parse(&source.to_string()).unwrap(), source);
    }

    #[test]
    fn a_spelled_camera_parses_back_to_itself(
        camera in camera(), codec in proptest::option::of(0usize..4), number in 0u32..64, csi in any::<bool>(),
    ) {
        let source = if csi {
            Source::Csi { sensor: number, camera }
        } else {
            let codec = codec.map(|place| Codec::NAMES[place].1);
            Source::V4l2 { device: format!("/dev/video{number}").into(), camera: CameraSpec { codec, ..camera } }
        };
        prop_assert_eq!(Source::parse(&source.to_string()).unwrap(), source);
    }

    #[test]
    fn a_spelled_network_camera_without_secrets_parses_back_to_itself(
        tls in any::<bool>(), host in "[a-z][a-z0-9.-]{0,20}(:[1-9][0-9]{0,3})?", path in "(/[a-zA-Z0-9._%-]{0,10}){0,3}",
        latency_ms in 0u32..60_000, udp in any::<bool>(), verify in any::<bool>(),
    ) {
        let transport = if udp { Transport::Udp } else { Transport::Tcp };
        let spec = RtspSpec {
            tls, login: None, host, path, query: String::new(), latency_ms, transport, codec: None, flip: None, verify,
        };
        let source = Source::Rtsp(spec);
        prop_assert_eq!(Source::parse(&source.to_string()).unwrap(), source);
    }

    #[test]
    fn no_password_comes_through(
        user in "[a-z]{0,5}", password in "[a-zA-Z0-9/?@:%&= é]{0,20}QZQ", path in "(/[a-z]{0,5}){0,2}",
    ) {
        let uri = format!("rtsp://{user}:{password}@host{path}");
        prop_assert!(!every_word_about(&uri).contains("QZQ"), "{}", every_word_about(&uri));
    }

    #[test]
    fn file_addresses_decode_what_percent_encoding_wrote(path in "/[a-zA-Z0-9 %äß?/]{0,40}", repeat in any::<bool>()) {
        let encoded: String = path.bytes().map(|b| {
            if b.is_ascii_alphanumeric() || b == b'/' { (b as char).to_string() } else { format!("%{b:02X}") }
        }).collect();
        let path = PathBuf::from(path);
        let query = if repeat { "?loop=true" } else { "" };
        let source = if repeat { Source::Loop(path) } else { Source::Path(path) };
        prop_assert_eq!(&Source::parse(&format!("file://{encoded}{query}")).unwrap(), &source);
        if repeat {
            prop_assert_eq!(Source::parse(&source.to_string()).unwrap(), source);
        }
    }
}
