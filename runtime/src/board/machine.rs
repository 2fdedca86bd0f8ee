//! What a machine says about itself, in one struct of facts.
//!
//! Comes in: a root folder ([`Root`]). Goes out: a [`Machine`]; what is missing, unreadable or senseless is
//! none or empty, never an error. Only files are read, no program is run, and nothing is judged here
//! (`doctor` does).

use serde::Serialize;

use super::jetpack::Version;
use super::{Root, ThermalZone, parse};

/// Where shared libraries of Debian's ports lie.
const LIBRARIES: [&str; 2] = ["usr/lib/aarch64-linux-gnu", "usr/lib/x86_64-linux-gnu"];
/// Where else ONNX Runtime is put.
const ELSEWHERE: [&str; 3] = ["usr/local/lib", "usr/lib", "opt/onnxruntime/lib"];
/// Ends of the names the GPU's clock goes by: Orin, Orin on R35, Xavier, Thor.
const GPUS: [&str; 4] = [".gpu", ".ga10b", ".gv11b", "gpu-gpc-0"];

/// What tells one board from another.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Identity {
    /// The device tree's model.
    pub model: Option<String>,
    /// The device tree's `compatible`, most specific first.
    pub compatible: Vec<String>,
    /// MemTotal, bytes.
    pub memory: Option<u64>,
    /// `aarch64`, `x86_64` or another, as Rust spells it.
    pub arch: Option<String>,
}

/// Memory, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ram {
    /// What Linux has, which is what the board keeps for itself less.
    pub total: u64,
    /// What is left.
    pub available: u64,
    /// What is swapped out.
    pub swapped: u64,
}

/// A swap area.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Swap {
    /// Device or file.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// One of nvpmodel's modes, as the machine's own configuration names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PowerMode {
    /// As `nvpmodel -m` takes it.
    pub id: u32,
    /// As nvpmodel spells it.
    pub name: String,
}

/// A clock, MHz.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Clock {
    /// What chooses its speed.
    pub governor: Option<String>,
    /// Now.
    pub now: Option<u64>,
    /// The least that may be chosen; equal to `max` where the clock is locked.
    pub min: Option<u64>,
    /// The most.
    pub max: Option<u64>,
}

/// A temperature.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Temperature {
    /// Where.
    pub name: String,
    /// Degrees Celsius.
    pub celsius: f64,
    /// Where clocks begin to be slowed, where the system says so.
    pub throttle: Option<f64>,
}

/// A video device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Camera {
    /// Such as `/dev/video0`.
    pub device: String,
    /// The driver's name for it.
    pub name: String,
}

/// The facts.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Machine {
    /// Which board.
    pub identity: Identity,
    /// The system's name.
    pub os: Option<String>,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// Whether this is a container's root.
    pub container: bool,
    /// Release of Jetson Linux.
    pub l4t: Option<Version>,
    /// Version of the package `nvidia-jetpack`.
    pub jetpack: Option<String>,
    /// CUDA's toolkit or runtime.
    pub cuda: Option<Version>,
    /// TensorRT.
    pub tensorrt: Option<Version>,
    /// cuDNN.
    pub cudnn: Option<Version>,
    /// ONNX Runtime where libraries lie.
    pub onnxruntime: Option<Version>,
    /// The mode that was set last.
    pub power_mode: Option<u32>,
    /// All modes.
    pub power_modes: Vec<PowerMode>,
    /// Cores that run.
    pub cores: Option<String>,
    /// The first core's clock.
    pub cpu: Option<Clock>,
    /// The GPU's.
    pub gpu: Option<Clock>,
    /// The memory's; only root may read it on Orin.
    pub emc: Option<Clock>,
    /// Of every thermal zone that can be read.
    pub temperatures: Vec<Temperature>,
    /// How often power was too low or current too high since the start, and clocks slowed for it.
    pub over_current: Option<u64>,
    /// Memory.
    pub ram: Option<Ram>,
    /// Swap areas.
    pub swaps: Vec<Swap>,
    /// What the system starts into, such as `graphical.target`.
    pub target: Option<String>,
    /// The desktop's log-in, such as `gdm3.service`.
    pub display_manager: Option<String>,
    /// Video devices.
    pub cameras: Vec<Camera>,
    /// Files of NVIDIA's GStreamer plugins.
    pub nv_plugins: Vec<String>,
}

impl Identity {
    /// Reads what tells boards apart.
    pub fn read(root: &Root) -> Self {
        let property = |name: &str| {
            let places = [format!("proc/device-tree/{name}"), format!("sys/firmware/devicetree/base/{name}")];
            places.iter().find_map(|place| root.text(place)).unwrap_or_default()
        };
        let ram = root.text("proc/meminfo").as_deref().and_then(parse::meminfo);
        let [arm, intel] = LIBRARIES.map(|folder| root.exists(folder));
        let arch = match (root.is_here(), arm, intel) {
            (true, ..) => Some(std::env::consts::ARCH),
            (_, true, false) => Some("aarch64"),
            (_, false, true) => Some("x86_64"),
            _ => None,
        };
        Self {
            model: parse::line(&property("model")),
            compatible: parse::strings(&property("compatible")),
            memory: ram.map(|ram| ram.total),
            arch: arch.map(String::from),
        }
    }

    /// Whether it is a board of NVIDIA's, known or not.
    pub fn is_tegra(&self) -> bool {
        self.compatible.iter().any(|name| name.starts_with("nvidia,tegra"))
    }
}

impl Clock {
    /// Whether it always runs at its most; none where it does not say.
    pub fn locked(&self) -> Option<bool> {
        Some(self.min? >= self.max?)
    }

    /// Reads a clock; `per_mhz` of its files' unit are one MHz.
    fn read(root: &Root, per_mhz: u64, [governor, now, min, max]: [String; 4]) -> Option<Self> {
        let mhz = |path: &str| Some(root.number(path)? / per_mhz);
        let clock = Self { governor: root.line(&governor), now: mhz(&now), min: mhz(&min), max: mhz(&max) };
        (clock != Self::default()).then_some(clock)
    }
}

impl Machine {
    /// Reads everything.
    pub fn read(root: &Root) -> Self {
        let text = |path: &str| root.text(path).unwrap_or_default();
        let packages = root.long_text("var/lib/dpkg/status").unwrap_or_default();
        let core = || parse::package(&packages, "nvidia-l4t-core").and_then(|text| Version::parse(&text));
        let libraries: Vec<String> = LIBRARIES.iter().flat_map(|folder| root.names(folder)).collect();
        let elsewhere: Vec<String> = ELSEWHERE.iter().flat_map(|folder| root.names(folder)).collect();
        let onnxruntime = |names| parse::library(names, "libonnxruntime.so.");
        let plugins = LIBRARIES.iter().flat_map(|folder| root.names(&format!("{folder}/gstreamer-1.0")));
        let cpu = |name: &str| format!("sys/devices/system/cpu/cpu0/cpufreq/scaling_{name}");
        let targets = ["etc", "usr/lib", "lib"].map(|at| format!("{at}/systemd/system/default.target"));
        Self {
            identity: Identity::read(root),
            os: parse::os_name(&text("etc/os-release")),
            kernel: root.line("proc/sys/kernel/osrelease"),
            container: root.exists(".dockerenv") || root.exists("run/.containerenv"),
            l4t: parse::tegra_release(&text("etc/nv_tegra_release")).or_else(core),
            jetpack: parse::package(&packages, "nvidia-jetpack"),
            cuda: cuda(root),
            tensorrt: parse::library(&libraries, "libnvinfer.so."),
            cudnn: parse::library(&libraries, "libcudnn.so."),
            onnxruntime: onnxruntime(&elsewhere).or_else(|| onnxruntime(&libraries)),
            power_mode: parse::power_mode(&text("var/lib/nvpmodel/status")),
            power_modes: parse::power_modes(&text("etc/nvpmodel.conf")),
            cores: root.line("sys/devices/system/cpu/online"),
            cpu: Clock::read(root, 1000, ["governor", "cur_freq", "min_freq", "max_freq"].map(cpu)),
            gpu: gpu(root),
            emc: emc(root),
            temperatures: temperatures(root),
            over_current: over_current(root),
            ram: parse::meminfo(&text("proc/meminfo")),
            swaps: parse::swaps(&text("proc/swaps")),
            target: targets.iter().find_map(|path| root.link(path)),
            display_manager: root.link("etc/systemd/system/display-manager.service"),
            cameras: cameras(root),
            nv_plugins: plugins.filter(|name| name.starts_with("libgstnv")).collect(),
        }
    }
}

fn cuda(root: &Root) -> Option<Version> {
    let told = root.text("usr/local/cuda/version.json").and_then(|text| parse::cuda(&text));
    let runtime = || {
        let folders = ["usr/local/cuda/lib64", "usr/local/cuda/targets/aarch64-linux/lib"];
        folders.iter().find_map(|folder| parse::library(&root.names(folder), "libcudart.so."))
    };
    told.or_else(runtime)
}

fn devfreq(root: &Root, name: &str) -> Option<Clock> {
    let files = ["governor", "cur_freq", "min_freq", "max_freq"];
    Clock::read(root, 1_000_000, files.map(|file| format!("sys/class/devfreq/{name}/{file}")))
}

fn gpu(root: &Root) -> Option<Clock> {
    let names = root.names("sys/class/devfreq");
    names.iter().find(|name| GPUS.iter().any(|end| name.ends_with(end))).and_then(|name| devfreq(root, name))
}

fn emc(root: &Root) -> Option<Clock> {
    let files = ["governor", "rate", "min_rate", "max_rate"];
    let files = files.map(|file| format!("sys/kernel/debug/bpmp/debug/clk/emc/{file}"));
    Clock::read(root, 1_000_000, files).or_else(|| devfreq(root, "bwmgr"))
}

fn temperatures(root: &Root) -> Vec<Temperature> {
    let told = |zone: ThermalZone| {
        let (celsius, throttle) = (zone.celsius(root)?, zone.throttle(root));
        Some(Temperature { name: zone.name, celsius, throttle })
    };
    ThermalZone::all(root).into_iter().filter_map(told).collect()
}

fn over_current(root: &Root) -> Option<u64> {
    let monitors = root.paths("sys/class/hwmon", "").into_iter();
    let counts =
        monitors.flat_map(|monitor| [1, 2, 3].map(|n| root.number(&format!("{monitor}/oc{n}_event_cnt"))));
    counts.flatten().reduce(u64::saturating_add)
}

fn cameras(root: &Root) -> Vec<Camera> {
    let folder = "sys/class/video4linux";
    let camera = |device: String| {
        let name = root.line(&format!("{folder}/{device}/name"))?;
        Some(Camera { device: format!("/dev/{device}"), name })
    };
    let devices = root.names(folder).into_iter().filter(|name| name.starts_with("video"));
    devices.filter_map(camera).take(64).collect()
}
