//! Board profiles: which GStreamer elements a board has for cameras, decoding and conversion, and its memory.
//!
//! Comes in: a profile's name, or the machine this runs on. Goes out: a [`Board`], from the files of `targets/`, which are
//! built in. An element of a profile is used where GStreamer's registry has it. No environment variable is read here.

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::source::Codec;

/// The profiles, as they stand in `targets/`; the first fits any machine.
const PROFILES: [(&str, &str); 4] = [
    ("generic", include_str!("../../targets/generic.toml")),
    ("jetson-orin-nano", include_str!("../../targets/jetson-orin-nano.toml")),
    ("jetson-orin-nx", include_str!("../../targets/jetson-orin-nx.toml")),
    ("jetson-agx-orin", include_str!("../../targets/jetson-agx-orin.toml")),
];

/// Where Linux on a board says which one it is.
const DEVICE_TREE_MODEL: &str = "/proc/device-tree/model";

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
    /// Size and speed.
    pub memory: Memory,
    /// Elements.
    pub media: Media,
}

/// A board's memory, by its data sheet.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Memory {
    /// MiB; none where the profile fits many machines.
    pub mib: Option<u64>,
    /// 10^9 bytes per second.
    pub bandwidth_gb_s: Option<f64>,
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

    /// The board this runs on; `generic` where it is none of the known ones.
    ///
    /// # Errors
    /// Only for a profile that does not parse.
    pub fn detect() -> Result<Self> {
        let model = std::fs::read_to_string(DEVICE_TREE_MODEL).unwrap_or_default();
        Self::of_model(model.trim_end_matches(['\0', '\n']))
    }

    /// The board with this model name in its device tree.
    ///
    /// # Errors
    /// Only for a profile that does not parse.
    pub fn of_model(model: &str) -> Result<Self> {
        for name in Self::names() {
            let board = Self::named(name)?;
            if board.device_tree.iter().any(|part| model.contains(part.as_str())) {
                return Ok(board);
            }
        }
        Self::named("generic")
    }

    /// Reads a profile's text.
    ///
    /// # Errors
    /// The parser's words, with the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// The decoder for a codec, with its properties; none for raw video and where the profile leaves it to software.
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
mod tests {
    use super::*;

    #[test]
    fn every_profile_parses_and_bears_its_files_name() {
        for name in Board::names() {
            let board = Board::named(name).unwrap();
            assert_eq!(board.name, name);
            assert!(!board.media.convert.is_empty(), "{name}");
            assert!(board.memory.bandwidth_gb_s.is_none_or(|speed| speed > 1.0), "{name}");
        }
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../targets");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let files = files.filter(|path| path.extension().is_some_and(|e| e == "toml")).count();
        assert_eq!(files, Board::names().len(), "a profile of targets/ is not built in");
        assert!(Board::named("toaster").unwrap_err().to_string().contains("jetson-orin-nano"));
    }

    #[test]
    fn boards_are_known_by_their_device_tree() {
        for (model, name) in [
            ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "jetson-orin-nano"),
            ("NVIDIA Jetson Orin Nano Developer Kit", "jetson-orin-nano"),
            ("NVIDIA Orin NX Developer Kit", "jetson-orin-nx"),
            ("NVIDIA Jetson AGX Orin Developer Kit", "jetson-agx-orin"),
            ("Raspberry Pi 5 Model B Rev 1.0", "generic"),
            ("", "generic"),
        ] {
            assert_eq!(Board::of_model(model).unwrap().name, name, "{model}");
        }
    }

    #[test]
    fn a_profile_with_an_unknown_key_is_refused() {
        let text = include_str!("../../targets/generic.toml").replace("[media]", "[media]\ncamera = \"x\"");
        assert!(Board::parse(&text).unwrap_err().contains("camera"));
    }
}
