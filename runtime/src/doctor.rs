//! `utr doctor`: what this machine has and lacks.
//!
//! Comes in: optionally a source to try. Goes out: one line per thing looked at, ok or missing, with the remedy, and
//! whether something needed is missing. It repairs and installs nothing.

use std::path::Path;

use serde::Serialize;

use crate::budget::Available;
use crate::capture::{self, CaptureOptions};
use crate::error::Result;
use crate::load;
use crate::source::Source;

/// One thing looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// Whether it is there.
    pub ok: bool,
    /// Whether `utr ask` cannot do without it.
    pub needed: bool,
    /// What was found.
    pub found: String,
    /// What to do where it is missing.
    pub remedy: Option<String>,
}

/// All checks, in the order of the data flow.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// In order.
    pub checks: Vec<Check>,
    /// True where nothing needed is missing.
    pub ok: bool,
}

/// Looks at everything; `source` is opened and one frame read where given, `bundle` is the one that would be used.
pub fn examine(
    source: Option<&Source>,
    bundle: Result<std::path::PathBuf>,
    options: &CaptureOptions,
) -> Report {
    let mut checks = gstreamer();
    checks.extend(source.map(|source| try_source(source, options)));
    checks.push(onnxruntime());
    checks.push(match bundle {
        Ok(folder) => try_bundle(&folder),
        Err(error) => {
            Check::missing("bundle", true, error.to_string(), "give one with --bundle, or set UTR_BUNDLE")
        }
    });
    checks.push(memory());
    checks.push(processor());
    let ok = checks.iter().all(|check| check.ok || !check.needed);
    Report { checks, ok }
}

impl Check {
    fn ok(name: &str, needed: bool, found: impl Into<String>) -> Self {
        Self { name: name.into(), ok: true, needed, found: found.into(), remedy: None }
    }

    fn missing(name: &str, needed: bool, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name: name.into(), ok: false, needed, found: found.into(), remedy: Some(remedy.into()) }
    }
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match (self.ok, self.needed) {
            (true, _) => "ok      ",
            (false, true) => "MISSING ",
            (false, false) => "missing ",
        };
        write!(f, "{state} {:<20} {}", self.name, self.found)?;
        self.remedy.iter().try_for_each(|remedy| write!(f, "\n{:30}→ {remedy}", ""))
    }
}

#[cfg(feature = "gst")]
fn gstreamer() -> Vec<Check> {
    let report = match capture::check_gstreamer() {
        Ok(report) => report,
        Err(reason) => {
            let remedy = "apt install libgstreamer1.0-0 gstreamer1.0-plugins-base";
            return vec![Check::missing("GStreamer", true, reason, remedy)];
        }
    };
    let mut checks = vec![Check::ok("GStreamer", true, report.version)];
    checks.extend(report.elements.into_iter().map(|element| match element.found {
        Some(found) => Check::ok(&element.name, element.needed, found),
        None => Check::missing(
            &element.name,
            element.needed,
            "not installed",
            format!("apt install {}", element.package),
        ),
    }));
    checks
}

#[cfg(not(feature = "gst"))]
fn gstreamer() -> Vec<Check> {
    vec![Check::missing(
        "GStreamer",
        false,
        "not in this build",
        "build with the feature `gst` to read video",
    )]
}

fn try_source(source: &Source, options: &CaptureOptions) -> Check {
    let first = capture::open(source, options).and_then(|mut clip| {
        clip.advance()?;
        clip.image()
    });
    match first {
        Ok(image) => {
            Check::ok("source", true, format!("{source}: first frame {}x{}", image.width, image.height))
        }
        Err(error) => Check::missing(
            "source",
            true,
            error.to_string(),
            "see the message; gst-launch-1.0 can run the pipeline",
        ),
    }
}

#[cfg(feature = "ort")]
fn onnxruntime() -> Check {
    match crate::encode::load_onnxruntime() {
        Ok(info) => Check::ok(
            "onnxruntime",
            false,
            format!("{} ({info})", crate::encode::onnxruntime_library().display()),
        ),
        Err(error) => Check::missing("onnxruntime", false, error.to_string(), "only --encoder ort needs it"),
    }
}

#[cfg(not(feature = "ort"))]
fn onnxruntime() -> Check {
    Check::missing(
        "onnxruntime",
        false,
        "not in this build",
        "build with the feature `ort` for --encoder ort",
    )
}

fn try_bundle(folder: &Path) -> Check {
    match load::Model::open(folder, None) {
        Ok(model) => {
            Check::ok("bundle", true, format!("{} ({}): loads", model.language.name, folder.display()))
        }
        Err(error) => Check::missing(
            "bundle",
            true,
            error.to_string(),
            "get the bundle anew, or name another with --bundle",
        ),
    }
}

fn memory() -> Check {
    match Available::here() {
        Some(Available { total, free }) => {
            Check::ok("memory", false, format!("{} MiB, {} MiB available", total >> 20, free >> 20))
        }
        None => Check::missing("memory", false, "unknown", "/proc/meminfo could not be read"),
    }
}

fn processor() -> Check {
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
