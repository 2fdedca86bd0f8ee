//! The messages of the node, as they travel.
//!
//! Comes in and goes out: sensor_msgs/msg/Image, std_msgs/msg/String, diagnostic_msgs/msg/DiagnosticArray and utr_msgs/srv/Ask, field by field in the
//! order of their definitions, which is all that CDR knows of them. Nothing is checked here but what the encoding itself bounds.

use ros2_client::Message;
use serde::{Deserialize, Serialize};

use crate::capture::{Layout, RawPicture};

/// builtin_interfaces/msg/Time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time {
    /// Seconds.
    pub sec: i32,
    /// Nanoseconds of the second.
    pub nanosec: u32,
}

impl Time {
    /// From nanoseconds since 1970, or since a simulation began.
    pub fn from_nanos(nanos: i64) -> Self {
        let (sec, nanosec) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
        Self { sec: i32::try_from(sec).unwrap_or(i32::MAX), nanosec: u32::try_from(nanosec).unwrap_or(0) }
    }

    /// In nanoseconds; none for 0, which stands for a sender that gives no time.
    pub fn nanos(self) -> Option<i64> {
        let nanos = i64::from(self.sec) * 1_000_000_000 + i64::from(self.nanosec);
        (nanos != 0).then_some(nanos)
    }
}

/// std_msgs/msg/Header.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Header {
    /// When it was seen.
    pub stamp: Time,
    /// Where.
    pub frame_id: String,
}

/// sensor_msgs/msg/Image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Image {
    /// When and where.
    pub header: Header,
    /// Rows.
    pub height: u32,
    /// Pixels of a row.
    pub width: u32,
    /// Layout of a pixel, such as `rgb8`.
    pub encoding: String,
    /// Of no meaning for bytes.
    pub is_bigendian: u8,
    /// Bytes of a row.
    pub step: u32,
    /// `height` rows.
    pub data: Bytes,
}

/// A sequence of bytes that is taken whole; serde's own way is a call per byte.
#[derive(Clone, Debug)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a sequence of bytes")
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Visitor)
    }
}

/// Why an image was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// Its encoding is none that is read here.
    Encoding(String),
    /// Its sizes do not fit together.
    Sizes(String),
    /// It is no image at all.
    Broken(String),
}

impl Image {
    /// The picture in it.
    ///
    /// # Errors
    /// [`Unread`].
    pub fn into_picture(self) -> Result<RawPicture, Unread> {
        let layout = match self.encoding.as_str() {
            "rgb8" => Layout::Rgb,
            "bgr8" => Layout::Bgr,
            "mono8" => Layout::Mono,
            _ => return Err(Unread::Encoding(self.encoding)),
        };
        let size = (self.width as usize, self.height as usize);
        RawPicture::new(layout, size, self.step as usize, self.data.0, self.header.stamp.nanos())
            .map_err(Unread::Sizes)
    }
}

/// std_msgs/msg/String.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Text {
    /// The text.
    pub data: String,
}

/// diagnostic_msgs/msg/DiagnosticArray.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DiagnosticArray {
    /// When it was so.
    pub header: Header,
    /// One for each part.
    pub status: Vec<DiagnosticStatus>,
}

/// diagnostic_msgs/msg/DiagnosticStatus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiagnosticStatus {
    /// How it is.
    pub level: Level,
    /// Which part of which node.
    pub name: String,
    /// How it is, in a few words.
    pub message: String,
    /// What it belongs to.
    pub hardware_id: String,
    /// What was counted.
    pub values: Vec<KeyValue>,
}

/// A level of diagnostic_msgs/msg/DiagnosticStatus: a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// As it should be.
    Ok = 0,
    /// Something was lost or is missing; it goes on.
    Warn = 1,
    /// It does not do its work.
    Error = 2,
}

impl Serialize for Level {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*self as u8)
    }
}

/// diagnostic_msgs/msg/KeyValue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyValue {
    /// What.
    pub key: String,
    /// How much.
    pub value: String,
}

/// The request of utr_msgs/srv/Ask.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ask {
    /// What is asked about the window.
    pub question: String,
}

/// The response of utr_msgs/srv/Ask.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reply {
    /// Whether it was answered.
    pub ok: bool,
    /// The answer; where there is none, why.
    pub answer: String,
    /// The object that also goes to `~/answer`; empty where there is none.
    pub json: String,
}

impl Message for Image {}
impl Message for Text {}
impl Message for Ask {}
impl Message for Reply {}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(encoding: &str, step: u32, bytes: usize) -> Image {
        let header = Header { stamp: Time { sec: 1, nanosec: 5 }, frame_id: "camera".into() };
        let data = Bytes(vec![0; bytes]);
        Image { header, height: 2, width: 4, encoding: encoding.into(), is_bigendian: 0, step, data }
    }

    #[test]
    fn other_encodings_and_wrong_sizes_are_named() {
        assert!(image("rgb8", 12, 24).into_picture().is_ok());
        assert!(image("bgr8", 13, 26).into_picture().is_ok());
        assert!(image("mono8", 4, 8).into_picture().is_ok());
        let unread = image("16UC1", 8, 16).into_picture().unwrap_err();
        assert_eq!(unread, Unread::Encoding("16UC1".into()));
        for (step, bytes) in [(11, 22), (12, 23), (12, 36), (u32::MAX, 24), (0, 0)] {
            assert!(
                matches!(image("rgb8", step, bytes).into_picture(), Err(Unread::Sizes(_))),
                "{step} {bytes}"
            );
        }
    }

    #[test]
    fn times_go_there_and_back() {
        for nanos in [1, 1_700_000_000_123_456_789, -1] {
            assert_eq!(Time::from_nanos(nanos).nanos(), Some(nanos));
        }
        assert_eq!(Time { sec: 0, nanosec: 0 }.nanos(), None);
    }
}
