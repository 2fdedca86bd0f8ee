//! Cameras: USB through Video4Linux, and the board's camera connector.
//!
//! Comes in: a device or a connector's number, what is asked of it, and the board profile. Goes out: a running pipeline. The
//! device is looked at before the pipeline is built, so that the common mistakes are answered in words.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::running::{Built, Pads, start};
use super::{DECODE, described, launch, link_decoder, present, tail, unnamed};
use crate::board::Board;
use crate::capture::{Capture, CaptureOptions};
use crate::error::{Error, Result};
use crate::source::{CameraSpec, Codec, Source};
use gstreamer::prelude::*;

/// Opens a video device.
pub fn open_v4l2(device: &Path, camera: &CameraSpec, options: &CaptureOptions) -> Result<Box<dyn Capture>> {
    let origin = Source::V4l2 { device: device.to_path_buf(), camera: camera.clone() }.to_string();
    look_at(device, &origin)?;
    let board = options.board()?;
    let text = v4l2_pipeline(camera, &board, &present);
    let pipeline = launch(&origin, &text)?;
    let Some(source) = pipeline.by_name("utr_source") else { return Err(unnamed(origin)) };
    source.set_property("device", device.to_string_lossy().as_ref());
    let others =
        if text.contains("utr_decode") { link_decoder(&origin, &pipeline, &board)? } else { Pads::default() };
    let built = Built {
        description: described(&text, &format!("device={}", device.display())),
        total: None,
        others,
        remedy: "check the cable, that no other program holds the camera (fuser -v /dev/video*), and that it has the asked \
                 size, rate and format (v4l2-ctl --list-formats-ext)",
        origin,
        pipeline,
    };
    start(built, options)
}

/// Opens a camera on the board's connector.
pub fn open_csi(sensor: u32, camera: &CameraSpec, options: &CaptureOptions) -> Result<Box<dyn Capture>> {
    let origin = Source::Csi { sensor, camera: camera.clone() }.to_string();
    let board = options.board()?;
    let text = csi_pipeline(sensor, camera, &board, &present)
        .map_err(|reason| Error::capture(origin.clone(), reason))?;
    let pipeline = launch(&origin, &text)?;
    let built = Built {
        description: described(&text, ""),
        total: None,
        others: Pads::default(),
        remedy: "check the ribbon cable and the sensor's device tree overlay; if another process holds Argus: \
                 sudo systemctl restart nvargus-daemon",
        origin,
        pipeline,
    };
    start(built, options)
}

/// Answers what GStreamer would answer with less: a device that is not there, not a device, not ours, or a bare sensor.
fn look_at(device: &Path, origin: &str) -> Result<()> {
    match std::fs::metadata(device) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let there = devices();
            let there = if there.is_empty() { "there is none".into() } else { format!("there are {there}") };
            return Err(Error::lost(origin, format!("no such device ({there}); plug the camera in")));
        }
        Err(error) => return Err(Error::capture(origin, format!("{error}; check the spelling of --source"))),
        Ok(kind) if !kind.file_type().is_char_device() => {
            return Err(Error::capture(
                origin,
                "is not a device; a video file is given by its path, as file:///PATH",
            ));
        }
        Ok(_) => {}
    }
    if let Err(error) = std::fs::OpenOptions::new().read(true).write(true).open(device)
        && error.kind() == std::io::ErrorKind::PermissionDenied
    {
        let remedy = "add the user to the group video (sudo usermod -aG video $USER, then log in again)";
        return Err(Error::capture(origin, format!("{error}; {remedy}")));
    }
    let name = device.file_name().map(|name| Path::new("/sys/class/video4linux").join(name).join("name"));
    let name = name.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    if name.starts_with("vi-output") {
        return Err(Error::capture(
            origin,
            format!(
                "this is a bare sensor on the camera connector ({}): it sends no pictures without the board's image \
                 processor; use csi://0",
                name.trim()
            ),
        ));
    }
    Ok(())
}

/// The video devices there are.
fn devices() -> String {
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.path().display().to_string())
        .filter(|name| name.starts_with("/dev/video"))
        .collect();
    names.sort();
    names.join(", ")
}

/// A video device's pipeline, its device still to be set.
fn v4l2_pipeline(camera: &CameraSpec, board: &Board, present: &dyn Fn(&str) -> bool) -> String {
    let fields = camera.caps_fields();
    let caps = match camera.codec {
        Some(codec) => format!("{}{fields}", media_type(codec)),
        None if fields.is_empty() => String::new(),
        // The camera's own order of preference decides between them.
        None => [Codec::Raw, Codec::Mjpeg, Codec::H264]
            .map(|codec| format!("{}{fields}", media_type(codec)))
            .join(";"),
    };
    let filter = if caps.is_empty() { String::new() } else { format!("capsfilter caps=\"{caps}\" ! ") };
    let decode = match camera.codec {
        Some(Codec::Raw) => return format!("v4l2src name=utr_source ! {filter}{}", tail(camera.flip)),
        Some(codec) => hardware_decoder(codec, board, present),
        None => None,
    };
    match decode {
        Some(decode) => format!("v4l2src name=utr_source ! {filter}{decode} ! {}", tail(camera.flip)),
        None => format!("v4l2src name=utr_source ! {filter}{DECODE}  {}", tail(camera.flip)),
    }
}

/// Parser, decoder and converter of a board that decodes this codec in hardware and has all three installed.
pub fn hardware_decoder(codec: Codec, board: &Board, present: &dyn Fn(&str) -> bool) -> Option<String> {
    let parser = match codec {
        Codec::Raw => return None,
        Codec::Mjpeg => "jpegparse",
        Codec::H264 => "h264parse",
        Codec::H265 => "h265parse",
    };
    let decoder = board.decoder(codec)?;
    let converter = board.media.convert.first()?;
    (present(parser) && present(decoder) && present(converter))
        .then(|| format!("{parser} ! {decoder} ! {}", board.media.convert.join(" ! ")))
}

/// A camera connector's pipeline, or what is missing for one.
fn csi_pipeline(
    sensor: u32,
    camera: &CameraSpec,
    board: &Board,
    present: &dyn Fn(&str) -> bool,
) -> Result<String, String> {
    let Some(source) = &board.media.csi else {
        return Err(format!(
            "this machine ({}) has no camera connector that is known here; csi:// is for Jetson boards. A USB camera is \
             /dev/video0, any other gst://PIPELINE; a board that was not recognized is named with --board ({})",
            board.title,
            Board::names().join(", ")
        ));
    };
    let missing: Vec<&str> = std::iter::once(source)
        .chain(board.media.convert.first())
        .map(String::as_str)
        .filter(|element| !present(element))
        .collect();
    if !missing.is_empty() {
        return Err(format!(
            "GStreamer lacks {}, which {} needs for csi://. It comes with JetPack: sudo apt install nvidia-l4t-gstreamer \
             nvidia-l4t-camera, then rm -rf ~/.cache/gstreamer-1.0. In a container, start it with --runtime nvidia and mount \
             /tmp/argus_socket",
            missing.join(" and "),
            board.title
        ));
    }
    Ok(format!(
        "{source} name=utr_source sensor-id={sensor} ! video/x-raw(memory:NVMM),format=NV12{} ! {} ! {}",
        camera.caps_fields(),
        board.media.convert.join(" ! "),
        tail(camera.flip)
    ))
}

/// GStreamer's name for a format.
fn media_type(codec: Codec) -> &'static str {
    match codec {
        Codec::Raw => "video/x-raw",
        Codec::Mjpeg => "image/jpeg",
        Codec::H264 => "video/x-h264",
        Codec::H265 => "video/x-h265",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Flip;

    fn asked() -> CameraSpec {
        CameraSpec { width: Some(1280), height: Some(720), fps: Some(30), codec: None, flip: None }
    }

    #[test]
    fn a_board_decodes_in_hardware_where_its_elements_are_there() {
        let jetson = Board::named("jetson-orin-nano").unwrap();
        let camera = CameraSpec { codec: Some(Codec::Mjpeg), ..asked() };
        let text = v4l2_pipeline(&camera, &jetson, &|_| true);
        assert!(
            text.starts_with(
                "v4l2src name=utr_source ! capsfilter caps=\"image/jpeg,width=1280,height=720,framerate=30/1\" ! \
                 jpegparse ! nvv4l2decoder mjpeg=1 ! nvvidconv ! video/x-raw,format=RGBA ! videoconvert ! videoconvert"
            ),
            "{text}"
        );
        for (board, present) in [(&jetson, false), (&Board::named("generic").unwrap(), true)] {
            let text = v4l2_pipeline(&camera, board, &|_| present);
            assert!(text.contains("decodebin") && !text.contains("nvv"), "{text}");
        }
    }

    #[test]
    fn a_camera_that_is_asked_for_nothing_is_left_to_itself() {
        let board = Board::named("generic").unwrap();
        let text = v4l2_pipeline(&CameraSpec::default(), &board, &|_| true);
        assert!(text.starts_with("v4l2src name=utr_source ! decodebin"), "{text}");
        let text = v4l2_pipeline(&asked(), &board, &|_| true);
        assert!(text.contains("video/x-raw,width=1280,height=720,framerate=30/1;image/jpeg,width"), "{text}");
    }

    #[test]
    fn software_pipelines_of_cameras_are_ones_that_gstreamer_builds() {
        let board = Board::named("generic").unwrap();
        for codec in [None, Some(Codec::Raw), Some(Codec::Mjpeg), Some(Codec::H264)] {
            for flip in [None, Some(Flip::Clockwise), Some(Flip::UpperLeftDiagonal)] {
                let text = v4l2_pipeline(&CameraSpec { codec, flip, ..asked() }, &board, &present);
                launch("test", &text).unwrap();
            }
        }
    }

    #[test]
    fn a_camera_connector_is_read_by_its_board_or_says_what_to_do() {
        let jetson = Board::named("jetson-agx-orin").unwrap();
        let camera = CameraSpec { flip: Some(Flip::Rotate180), ..asked() };
        let text = csi_pipeline(1, &camera, &jetson, &|_| true).unwrap();
        assert!(
            text.starts_with(
                "nvarguscamerasrc name=utr_source sensor-id=1 ! \
                 video/x-raw(memory:NVMM),format=NV12,width=1280,height=720,framerate=30/1 ! nvvidconv ! \
                 video/x-raw,format=RGBA ! videoconvert ! "
            ) && text.contains("videoflip video-direction=180 ! "),
            "{text}"
        );
        let missing = csi_pipeline(0, &camera, &jetson, &|name| name != "nvarguscamerasrc").unwrap_err();
        assert!(
            missing.contains("lacks nvarguscamerasrc,") && missing.contains("nvidia-l4t-gstreamer"),
            "{missing}"
        );
        let elsewhere = csi_pipeline(0, &camera, &Board::named("generic").unwrap(), &|_| true).unwrap_err();
        assert!(elsewhere.contains("/dev/video0"), "{elsewhere}");
    }

    #[test]
    fn a_device_that_is_not_there_is_lost_and_a_file_is_no_device() {
        let options = CaptureOptions::default();
        let open = |path: &Path| open_v4l2(path, &CameraSpec::default(), &options).err().unwrap();
        let error = open(Path::new("/dev/video987"));
        assert!(matches!(error, Error::Lost { .. }) && error.to_string().contains("plug"), "{error}");
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = open(file.path());
        assert!(matches!(error, Error::Capture { .. }) && error.to_string().contains("file://"), "{error}");
    }
}
