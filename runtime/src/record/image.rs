//! Pictures in a recording: PNG inside `foxglove.CompressedImage`.
//!
//! Comes in: an RGB picture and its time. Goes out: a protobuf message, and back the same bytes of the picture. The schema
//! is Foxglove's, written down here as a descriptor, because viewers recognize a picture by it. Sizes are bounded before memory is taken.

use std::io::Cursor;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder, ImageFormat, ImageReader};
use prost::Message;
use utr_models::RgbFrame;

use crate::capture::picture_limits;

/// `foxglove.CompressedImage`.
#[derive(Clone, PartialEq, Message)]
struct CompressedImage {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<Timestamp>,
    #[prost(bytes = "vec", tag = "2")]
    data: Vec<u8>,
    #[prost(string, tag = "3")]
    format: String,
    #[prost(string, tag = "4")]
    frame_id: String,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// The picture as a message; `time_ns` since 1970.
///
/// # Errors
/// What the encoder reports.
pub fn to_message(picture: &RgbFrame, time_ns: u64) -> Result<Vec<u8>, String> {
    let mut png = Vec::new();
    let side = |pixels: usize| u32::try_from(pixels).map_err(|_| format!("{pixels} pixels are too many"));
    PngEncoder::new_with_quality(&mut png, CompressionType::Fast, FilterType::Adaptive)
        .write_image(&picture.data, side(picture.width)?, side(picture.height)?, ExtendedColorType::Rgb8)
        .map_err(|error| error.to_string())?;
    const SECOND: u64 = 1_000_000_000;
    let timestamp = Timestamp {
        seconds: i64::try_from(time_ns / SECOND).unwrap_or(i64::MAX),
        nanos: i32::try_from(time_ns % SECOND).unwrap_or(0),
    };
    let message = CompressedImage {
        timestamp: Some(timestamp),
        data: png,
        format: "png".into(),
        frame_id: "camera".into(),
    };
    Ok(message.encode_to_vec())
}

/// The picture of a message.
///
/// # Errors
/// What was found in its place.
pub fn from_message(bytes: &[u8]) -> Result<RgbFrame, String> {
    let message = CompressedImage::decode(bytes).map_err(|error| format!("no picture's message: {error}"))?;
    if message.format != "png" {
        return Err(format!("the picture's format is {:?}, not png", message.format));
    }
    let mut reader = ImageReader::with_format(Cursor::new(&message.data), ImageFormat::Png);
    reader.limits(picture_limits());
    let picture = reader.decode().map_err(|error| error.to_string())?.into_rgb8();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    RgbFrame::new(width, height, picture.into_raw()).map_err(|error| error.to_string())
}

/// A `google.protobuf.FileDescriptorSet` with the schema above: what an MCAP channel carries for the encoding `protobuf`.
pub fn descriptor() -> Vec<u8> {
    const OPTIONAL: i32 = 1;
    let (int64, int32, string, message, bytes) = (3, 5, 9, 11, 12);
    let field = |name: &str, number, kind, of: Option<&str>| Field {
        name: name.into(),
        number,
        label: OPTIONAL,
        kind,
        type_name: of.map(Into::into),
    };
    let file = |name: &str, package: &str, imports: &[&str], described: &str, fields: Vec<Field>| File {
        name: name.into(),
        package: package.into(),
        dependency: imports.iter().map(|import| (*import).to_string()).collect(),
        message_type: vec![Described { name: described.into(), field: fields }],
        syntax: "proto3".into(),
    };
    const TIMESTAMP: &str = "google/protobuf/timestamp.proto";
    let set = FileSet {
        file: vec![
            file(
                TIMESTAMP,
                "google.protobuf",
                &[],
                "Timestamp",
                vec![field("seconds", 1, int64, None), field("nanos", 2, int32, None)],
            ),
            file(
                "foxglove/CompressedImage.proto",
                "foxglove",
                &[TIMESTAMP],
                "CompressedImage",
                vec![
                    field("timestamp", 1, message, Some(".google.protobuf.Timestamp")),
                    field("data", 2, bytes, None),
                    field("format", 3, string, None),
                    field("frame_id", 4, string, None),
                ],
            ),
        ],
    };
    set.encode_to_vec()
}

/// The part of `google/protobuf/descriptor.proto` that a flat message needs.
#[derive(Clone, PartialEq, Message)]
struct FileSet {
    #[prost(message, repeated, tag = "1")]
    file: Vec<File>,
}

#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    package: String,
    #[prost(string, repeated, tag = "3")]
    dependency: Vec<String>,
    #[prost(message, repeated, tag = "4")]
    message_type: Vec<Described>,
    #[prost(string, tag = "12")]
    syntax: String,
}

#[derive(Clone, PartialEq, Message)]
struct Described {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    field: Vec<Field>,
}

#[derive(Clone, PartialEq, Message)]
struct Field {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "3")]
    number: i32,
    #[prost(int32, tag = "4")]
    label: i32,
    #[prost(int32, tag = "5")]
    kind: i32,
    #[prost(string, optional, tag = "6")]
    type_name: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pictures_come_back_byte_for_byte(w in 1usize..40, h in 1usize..40, seed in any::<u32>(), time in any::<u64>()) {
            let data = (0..w * h * 3).map(|i| ((i as u32 ^ seed).wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            let picture = RgbFrame::new(w, h, data).unwrap();
            let message = to_message(&picture, time).unwrap();
            prop_assert_eq!(from_message(&message).unwrap(), picture);
            prop_assert!(from_message(&message[..message.len() / 2]).is_err());
        }

        #[test]
        fn any_bytes_are_a_picture_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = from_message(&bytes);
        }
    }

    #[test]
    fn a_picture_that_claims_to_be_huge_is_refused_before_memory_is_taken() {
        let picture = RgbFrame::new(2, 2, vec![7; 12]).unwrap();
        let message = CompressedImage::decode(to_message(&picture, 0).unwrap().as_slice()).unwrap();
        let mut png = message.data;
        // Width and height stand behind the signature and the head of the first chunk.
        png[16..24].copy_from_slice(&[0, 0, 0xFF, 0xFF, 0, 0, 0xFF, 0xFF]);
        let head: Vec<u8> = png[12..29].to_vec();
        png[29..33].copy_from_slice(&crc32fast::hash(&head).to_be_bytes());
        let huge = CompressedImage { data: png, format: "png".into(), ..CompressedImage::default() };
        let message = from_message(&huge.encode_to_vec()).unwrap_err();
        assert!(message.to_lowercase().contains("limit") || message.contains("dimensions"), "{message}");
        let other = CompressedImage { format: "jpeg".into(), ..huge };
        assert!(from_message(&other.encode_to_vec()).unwrap_err().contains("jpeg"));
    }
}
