//! What only a running machine can be asked: GStreamer, a source, ONNX Runtime, memory, the processor.
//!
//! Comes in: the board's profile, the machine's cameras, optionally a source to try. Goes out: checks. A source
//! is opened and one frame read; cameras are asked what they offer; nothing else is started.

use std::io::ErrorKind;

use super::Check;
use crate::board::{Board, Machine};
use crate::budget::{Available, size};
use crate::capture::{self, CaptureOptions};
use crate::source::Source;

/// GStreamer's version, elements and decoders; those of Jetson boards only where the profile has them.
#[cfg(feature = "gst")]
pub fn gstreamer(board: &Board) -> Vec<Check> {
    let report = match capture::check_gstreamer() {
        Ok(report) => report,
        Err(reason) => {
            let remedy = "apt install libgstreamer1.0-0 gstreamer1.0-plugins-base";
            return vec![Check::no("GStreamer", reason, remedy)];
        }
    };
    let mut checks = vec![Check::ok("GStreamer", true, report.version)];
    let elements = report.elements.into_iter();
    checks.extend(elements.filter(|element| board.is_jetson() || !element.name.starts_with("nv")).map(
        |element| {
            let remedy = if element.name.starts_with("nv") {
                super::board::ELEMENTS.to_string()
            } else {
                format!("sudo apt install {}", element.package)
            };
            match element.found {
                Some(found) => Check::ok(&element.name, element.needed, found),
                None if element.needed => Check::no(&element.name, "not installed", remedy),
                None => Check::note(&element.name, "not installed", remedy),
            }
        },
    ));
    checks
}

/// What each camera offers. Bare sensors on a camera connector and devices that capture nothing are left out.
#[cfg(feature = "gst")]
pub fn camera_formats(machine: &Machine) -> Vec<Check> {
    let cameras = machine.cameras.iter().filter(|camera| !camera.name.starts_with("vi-output"));
    let checks = cameras.filter_map(|camera| {
        let name = format!("formats of {}", camera.device);
        match capture::camera_formats(&camera.device) {
            Ok(formats) if formats.is_empty() => None,
            Ok(formats) => Some(Check::ok(&name, false, formats.join(", "))),
            Err(reason) => {
                Some(Check::note(&name, reason, format!("sudo fuser -v {} names who has it", camera.device)))
            }
        }
    });
    checks.take(8).collect()
}

/// GStreamer is not in this build.
#[cfg(not(feature = "gst"))]
pub fn camera_formats(_: &Machine) -> Vec<Check> {
    Vec::new()
}

/// GStreamer is not in this build.
#[cfg(not(feature = "gst"))]
pub fn gstreamer(_: &Board) -> Vec<Check> {
    vec![Check::note("GStreamer", "not in this build", "build with the feature `gst` to read video")]
}

/// Video devices that this user may not open, or that Linux has and this container has not.
pub fn camera_access(machine: &Machine) -> Option<Check> {
    const NAME: &str = "camera access";
    let mut refused = machine.cameras.iter().filter_map(|camera| {
        let opened = std::fs::OpenOptions::new().read(true).write(true).open(&camera.device);
        let kind = opened.err().map(|error| error.kind())?;
        matches!(kind, ErrorKind::PermissionDenied | ErrorKind::NotFound).then_some((&camera.device, kind))
    });
    let (device, kind) = refused.next()?;
    Some(if kind == ErrorKind::PermissionDenied {
        let remedy =
            "sudo usermod -aG video $USER, then log in again; a service has SupplementaryGroups=video";
        Check::note(NAME, format!("this user may not open {device}"), remedy)
    } else {
        Check::note(NAME, format!("{device} is not there"), format!("in a container: --device {device}"))
    })
}

/// Opens a source and reads its first frame.
pub fn try_source(source: &Source, options: &CaptureOptions) -> Check {
    let first = capture::open(source, options).and_then(|mut clip| {
        clip.advance()?;
        clip.image()
    });
    match first {
        Ok(image) => {
            Check::ok("source", true, format!("{source}: first frame {}x{}", image.width, image.height))
        }
        Err(error) => {
            Check::no("source", error.to_string(), "see the message; gst-launch-1.0 can run the pipeline")
        }
    }
}

/// ONNX Runtime, loaded as `--encoder ort` loads it.
#[cfg(feature = "ort")]
pub fn onnxruntime() -> Check {
    match crate::encode::load_onnxruntime() {
        Ok(info) => Check::ok(
            "onnxruntime",
            false,
            format!("{} ({info})", crate::encode::onnxruntime_library().display()),
        ),
        Err(error) => Check::note("onnxruntime", error.to_string(), "only --encoder ort needs it"),
    }
}

/// ONNX Runtime is not in this build.
#[cfg(not(feature = "ort"))]
pub fn onnxruntime() -> Check {
    Check::note("onnxruntime", "not in this build", "build with the feature `ort` for --encoder ort")
}

/// Memory of the machine or of the control group.
pub fn memory() -> Check {
    match Available::here() {
        Some(Available { total, free }) => {
            Check::ok("memory", false, format!("{} are left of {}", size(free), size(total)))
        }
        None => Check::note("memory", "unknown", "/proc/meminfo could not be read"),
    }
}

/// Cores, and the instructions that kernels are chosen by.
pub fn processor() -> Check {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let features = cpu_features().join(" ");
    Check::ok("processor", false, format!("{cores} cores, {} {features}", std::env::consts::ARCH))
}

#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<&'static str> {
    let all = [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("f16c", std::arch::is_x86_feature_detected!("f16c")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ("avx512vnni", std::arch::is_x86_feature_detected!("avx512vnni")),
    ];
    all.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
}

#[cfg(target_arch = "aarch64")]
fn cpu_features() -> Vec<&'static str> {
    let all = [
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("fp16", std::arch::is_aarch64_feature_detected!("fp16")),
        ("dotprod", std::arch::is_aarch64_feature_detected!("dotprod")),
        ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
    ];
    all.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_features() -> Vec<&'static str> {
    Vec::new()
}
