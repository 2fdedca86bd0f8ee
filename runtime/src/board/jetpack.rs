//! Releases of Jetson Linux (L4T), and what JetPack installs with each.
//!
//! Comes in: a version as boards, packages and files spell it. Goes out: a [`Version`], and for one of Jetson
//! Linux the row of `targets/jetpack.toml` that holds for it. Other boards have no release.

use serde::{Deserialize, Serialize};

const TABLE: &str = include_str!("../../../targets/jetpack.toml");

/// A version of up to three numbers; what is not said is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// The version at the beginning of a text: `36.4.3-20250107174145` is 36.4.3.
    pub fn parse(text: &str) -> Option<Self> {
        let numbers = text.trim().split(|c: char| !(c.is_ascii_digit() || c == '.')).next()?;
        let mut numbers = numbers.split('.').map(str::parse);
        let first = numbers.next()?.ok()?;
        let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
        Some(Self(first, next(), next()))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no version")))
    }
}

/// What a release brings.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The first version of Jetson Linux it holds for.
    pub l4t: Version,
    /// JetPack's name for it.
    pub jetpack: String,
    /// CUDA's major and minor version.
    pub cuda: Version,
    /// TensorRT's.
    pub tensorrt: Version,
    /// cuDNN's.
    pub cudnn: Option<Version>,
    /// Ubuntu.
    pub ubuntu: String,
    /// The C library.
    pub glibc: String,
    /// GStreamer.
    pub gstreamer: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    release: Vec<Release>,
}

/// All known releases, ascending.
pub fn releases() -> Vec<Release> {
    toml::from_str::<Table>(TABLE).map_or_else(|_| Vec::new(), |table| table.release)
}

/// The row that holds for a version of Jetson Linux; none for an unknown major and for one older than its
/// first row.
pub fn release(l4t: Version) -> Option<Release> {
    releases().into_iter().rev().find(|row| row.l4t <= l4t && row.l4t.0 == l4t.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_boards_and_packages_spell_them() {
        for (text, version) in [
            ("36.4.3", Version(36, 4, 3)),
            ("36.4.3-20250107174145", Version(36, 4, 3)),
            ("10.3", Version(10, 3, 0)),
            ("8.6.2.3-1+cuda12.2\n", Version(8, 6, 2)),
            ("12", Version(12, 0, 0)),
        ] {
            assert_eq!(Version::parse(text), Some(version), "{text}");
        }
        for text in ["", "R36", ".", "99999999999999999999.1"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
        assert!(Version(36, 4, 3) < Version(36, 4, 10) && Version(35, 6, 4) < Version(36, 0, 0));
    }

    #[test]
    fn the_table_parses_ascends_and_answers_for_what_lies_between_its_rows() {
        let table: Table = toml::from_str(TABLE).unwrap();
        assert!(table.release.len() > 10 && table.release.windows(2).all(|pair| pair[0].l4t < pair[1].l4t));
        let jetpack = |a, b, c| release(Version(a, b, c)).map(|row| row.jetpack);
        assert_eq!(jetpack(36, 4, 7).as_deref(), Some("6.2.1"));
        assert_eq!(jetpack(35, 3, 1).as_deref(), Some("5.1.1"));
        assert_eq!(jetpack(39, 5, 0).as_deref(), Some("7.2.1"));
        assert_eq!(
            (jetpack(37, 0, 0), jetpack(35, 0, 1), jetpack(32, 7, 6), jetpack(40, 0, 0)),
            Default::default()
        );
        assert_eq!(release(Version(36, 2, 0)).unwrap().cuda, Version(12, 2, 0));
    }
}
