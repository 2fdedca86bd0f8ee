//! Boards: what each one is by its data sheet, and which one this is.
//!
//! Comes in: a profile's name, or what a machine says about itself ([`Machine`]). Goes out: a [`Board`], from
//! the files of `targets/`, which are built in; [`jetpack`] is the table of Jetson Linux releases, [`Expect`]
//! a figure of `utr bench`. An element of a profile is used where GStreamer's registry has it. No environment
//! variable is read here, nothing is measured and nothing judged (`doctor` does).

pub mod jetpack;
mod machine;
mod parse;
mod root;
mod thermal;

use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::source::Codec;

pub use jetpack::Version;
pub use machine::{Camera, Clock, Identity, Machine, PowerMode, Ram, Swap, Temperature};
pub use root::Root;
pub use thermal::ThermalZone;

/// The profiles, as they stand in `targets/`; the first fits any machine.
const PROFILES: [(&str, &str); 9] = [
    ("generic", include_str!("../../targets/generic.toml")),
    ("generic-aarch64", include_str!("../../targets/generic-aarch64.toml")),
    ("x86-64", include_str!("../../targets/x86-64.toml")),
    ("jetson-xavier-nx", include_str!("../../targets/jetson-xavier-nx.toml")),
    ("jetson-orin-nano", include_str!("../../targets/jetson-orin-nano.toml")),
    ("jetson-orin-nx", include_str!("../../targets/jetson-orin-nx.toml")),
    ("jetson-agx-orin-32", include_str!("../../targets/jetson-agx-orin-32.toml")),
    ("jetson-agx-orin", include_str!("../../targets/jetson-agx-orin.toml")),
    ("jetson-thor", include_str!("../../targets/jetson-thor.toml")),
];

/// A board's profile.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Board {
    /// As spelled on the command line; the file's name.
    pub name: String,
    /// For people.
    pub title: String,
    /// Parts of the device tree's model name, any of which identifies the board.
    pub device_tree: Vec<String>,
    /// Parts of the device tree's `compatible`, any of which identifies the module; they count more than the
    /// model's name.
    #[serde(default)]
    pub compatible: Vec<String>,
    /// Majors of Jetson Linux (L4T) that run on it, ascending; none for other boards.
    #[serde(default)]
    pub l4t: Vec<u32>,
    /// Size and speed.
    pub memory: Memory,
    /// Processor and GPU; none where the profile fits many machines.
    #[serde(default)]
    pub compute: Option<Compute>,
    /// nvpmodel's modes.
    #[serde(default)]
    pub power: Vec<Power>,
    /// Heat.
    #[serde(default)]
    pub thermal: Thermal,
    /// Elements.
    pub media: Media,
    /// Figures of `utr bench` that were measured on the board, or that stand in the place of an estimate
    /// ([`crate::estimate::expectations`]).
    #[serde(default)]
    pub expect: Vec<Expect>,
}

/// Bytes that this user may still write where `folder` lies, from `df`; the standard library does not say.
pub fn disk_free(folder: &Path) -> Option<u64> {
    let output = Command::new("df").arg("-Pk").arg("--").arg(folder).env("LC_ALL", "C").output().ok()?;
    parse::disk_free(&String::from_utf8_lossy(&output.stdout))
}

/// A board's memory, by its data sheet.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Memory {
    /// MiB; none where the profile fits many machines.
    pub mib: Option<u64>,
    /// 10^9 bytes per second, in the fastest power mode.
    pub bandwidth_gb_s: Option<f64>,
}

/// A board's processor and GPU, by its data sheet, in the fastest power mode.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Compute {
    /// Kind of the processor's cores.
    pub cpu: String,
    /// How many.
    pub cores: u32,
    /// Their clock with all of them running, MHz.
    pub mhz: u32,
    /// f32 multiplications and additions a core does per cycle.
    pub flop_per_cycle: u32,
    /// Whether the cores have instructions for dot products of 8-bit numbers.
    pub dot_products: bool,
    /// CUDA cores.
    pub gpu_cores: u32,
    /// Compute capability without its point, such as 87.
    pub sm: u32,
    /// NVIDIA's figure, sparse, 10^12 operations per second.
    pub int8_tops: f64,
    /// Tensor cores, dense, 10^12 operations per second.
    pub f16_tflops: f64,
}

/// One of nvpmodel's modes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Power {
    /// As `nvpmodel -m` takes it.
    pub id: u32,
    /// As nvpmodel spells it.
    pub name: String,
    /// Power budget; none where it is open.
    pub watts: Option<u32>,
    /// Memory bandwidth where the mode lowers it, 10^9 bytes per second.
    pub bandwidth_gb_s: Option<f64>,
}

/// A board's heat.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Thermal {
    /// Degrees Celsius at which clocks are slowed; the machine's own trip points count more.
    pub throttle_c: Option<f64>,
}

/// A board's GStreamer elements.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Media {
    /// Source element of the camera connector.
    pub csi: Option<String>,
    /// Elements and caps from a decoder's output to raw video in the processor's memory.
    pub convert: Vec<String>,
    /// Decoders in hardware.
    #[serde(default)]
    pub decode: Decode,
}

/// Decoders with their properties; none where software decodes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decode {
    /// H.264.
    pub h264: Option<String>,
    /// H.265.
    pub h265: Option<String>,
    /// Motion JPEG.
    pub mjpeg: Option<String>,
}

/// A figure to expect of `utr bench` on a board.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// As `utr bench` names it: `enc`, `frame`, `ttft32`, `tg128`, `rss_peak`, `drop%`.
    pub case: String,
    /// The shape of random weights, such as `qwen2-0.5b+siglip-b16`; none where `bundle` is given.
    #[serde(default)]
    pub shape: Option<String>,
    /// A bundle's name.
    #[serde(default)]
    pub bundle: Option<String>,
    /// Bits of the decoder's matrices, such as `q4_0`; none where it makes no difference.
    #[serde(default)]
    pub bits: Option<String>,
    /// Window mode; none where the case has none.
    #[serde(default)]
    pub mode: Option<String>,
    /// The figure.
    pub value: f64,
    /// Its unit, as `utr bench` prints it.
    pub unit: String,
    /// Whether anybody saw it.
    pub basis: Basis,
    /// The formula, or how it was measured.
    pub how: String,
}

/// Where a figure comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// From a formula over the profile.
    Estimated,
    /// Seen on the board.
    Measured,
}

impl std::fmt::Display for Basis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Estimated => "estimated",
            Self::Measured => "measured",
        })
    }
}

impl Board {
    /// The profile with this name.
    ///
    /// # Errors
    /// [`Error::Argument`] with the names there are.
    pub fn named(name: &str) -> Result<Self> {
        let found = PROFILES.iter().find(|(known, _)| *known == name);
        let (name, text) = found.ok_or_else(|| {
            Error::Argument(format!("board {name:?} is unknown; there are {}", Self::names().join(", ")))
        })?;
        Self::parse(text).map_err(|reason| Error::Argument(format!("board profile {name}: {reason}")))
    }

    /// Every profile's name.
    pub fn names() -> Vec<&'static str> {
        PROFILES.iter().map(|(name, _)| *name).collect()
    }

    /// Every profile.
    ///
    /// # Errors
    /// Only for a profile that does not parse.
    pub fn all() -> Result<Vec<Self>> {
        Self::names().into_iter().map(Self::named).collect()
    }

    /// The board this runs on; a generic one where it is none of the known ones.
    ///
    /// # Errors
    /// Only for a profile that does not parse.
    pub fn detect() -> Result<Self> {
        Self::of(&Identity::read(&Root::here()))
    }

    /// The board that says this about itself: by its module, else by its model's name, and among several by
    /// memory; else the generic one of the architecture.
    ///
    /// # Errors
    /// Only for a profile that does not parse.
    pub fn of(identity: &Identity) -> Result<Self> {
        let boards = Self::all()?;
        let holds = |parts: &[String], text: &str| parts.iter().any(|part| text.contains(part.as_str()));
        let model = identity.model.as_deref().unwrap_or_default();
        let by_module = |board: &&Self| identity.compatible.iter().any(|text| holds(&board.compatible, text));
        let mut found: Vec<&Self> = boards.iter().filter(by_module).collect();
        if found.is_empty() {
            found = boards.iter().filter(|board| holds(&board.device_tree, model)).collect();
        }
        let memory = identity.memory.unwrap_or(u64::MAX) >> 20;
        let nearest = found.into_iter().min_by_key(|board| board.memory.mib.unwrap_or(0).abs_diff(memory));
        match (nearest, identity.arch.as_deref()) {
            (Some(board), _) => Ok(board.clone()),
            (None, Some("aarch64")) => Self::named("generic-aarch64"),
            (None, Some("x86_64")) => Self::named("x86-64"),
            (None, _) => Self::named("generic"),
        }
    }

    /// Reads a profile's text.
    ///
    /// # Errors
    /// The parser's words, with the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// Whether it is one of NVIDIA's Jetson boards.
    pub fn is_jetson(&self) -> bool {
        !self.l4t.is_empty()
    }

    /// The decoder for a codec, with its properties; none for raw video and where the profile leaves it to
    /// software.
    pub fn decoder(&self, codec: Codec) -> Option<&str> {
        let decode = &self.media.decode;
        match codec {
            Codec::Raw => None,
            Codec::Mjpeg => decode.mjpeg.as_deref(),
            Codec::H264 => decode.h264.as_deref(),
            Codec::H265 => decode.h265.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests;
