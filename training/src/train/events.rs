//! Scalars for TensorBoard: an event file beside the log.
//!
//! Comes in: the records of the log, then each new one. Goes out: `tensorboard/events.out.tfevents.*`, TFRecord frames (length, masked CRC-32C, bytes,
//! masked CRC-32C) around `tensorflow.Event` messages. The log is the truth: every start writes the file anew from it and removes the older
//! ones, so that what a kill left half done, or what a resume takes back, is never shown.

use super::curves::Record;
use anyhow::{Context, Result};
use prost::Message;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// `tensorflow.Event`, as far as scalars need it.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

/// `tensorflow.Summary`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Scalar>,
}

/// `tensorflow.Summary.Value`.
#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, tag = "2")]
    simple_value: f32,
}

/// An event file that grows.
pub struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    /// Begins a file in `folder` with what the log holds.
    pub fn create(folder: &Path, records: &[Record]) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        for entry in
            std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?.flatten()
        {
            if entry.file_name().to_string_lossy().starts_with("events.out.tfevents.") {
                std::fs::remove_file(entry.path())
                    .with_context(|| format!("removing {}", entry.path().display()))?;
            }
        }
        let now = seconds();
        let path = folder.join(format!("events.out.tfevents.{:010}.utr-train", now as u64));
        let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        let mut events = Self { path, file };
        let version =
            Event { wall_time: now, file_version: Some("brain.Event:2".into()), ..Event::default() };
        let mut bytes = frame(&version.encode_to_vec());
        bytes.extend(records.iter().flat_map(|record| frame(&event(record).encode_to_vec())));
        events.write(&bytes)?;
        Ok(events)
    }

    /// Appends the scalars of one record.
    pub fn add(&mut self, record: &Record) -> Result<()> {
        self.write(&frame(&event(record).encode_to_vec()))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).with_context(|| format!("writing {}", self.path.display()))
    }
}

/// Seconds since 1970.
pub fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

fn event(record: &Record) -> Event {
    let scalars = [
        ("train/loss", record.loss),
        ("train/learning_rate", record.lr),
        ("train/gradient_norm", record.grad_norm),
        ("speed/tokens_per_s", record.tokens_per_s),
        ("speed/clips_per_s", record.samples_per_s),
        ("speed/flops_utilization", record.utilization),
    ];
    let scalars = scalars.into_iter().map(|(tag, value)| (tag.to_string(), value));
    let validation = record.validation.iter().map(|(skill, share)| (format!("validation/{skill}"), *share));
    let value = scalars.chain(validation).map(|(tag, v)| Scalar { tag, simple_value: v as f32 }).collect();
    Event {
        wall_time: record.time,
        step: record.step as i64,
        file_version: None,
        summary: Some(Summary { value }),
    }
}

/// A TFRecord: the length and the bytes, each with its masked checksum.
fn frame(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let sum = |bytes: &[u8]| masked(crc32c(bytes)).to_le_bytes();
    [&length[..], &sum(&length), bytes, &sum(bytes)].concat()
}

/// TensorFlow's mask, so that checksums of bytes that hold checksums stay sound.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// CRC-32C (Castagnoli, reflected), bit by bit: events are small.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Events of a file, every checksum checked.
    fn read(path: &Path) -> Vec<Event> {
        let bytes = std::fs::read(path).unwrap();
        let (mut rest, mut events) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(12);
            assert_eq!(head[8..], masked(crc32c(&head[..8])).to_le_bytes());
            let (body, tail) = tail.split_at(u64::from_le_bytes(head[..8].try_into().unwrap()) as usize);
            assert_eq!(tail[..4], masked(crc32c(body)).to_le_bytes());
            events.push(Event::decode(body).unwrap());
            rest = &tail[4..];
        }
        events
    }

    fn record(step: usize) -> Record {
        Record { step, loss: 1.0 / step as f64, time: 5.0, ..Record::default() }
    }

    #[test]
    fn checksums_are_castagnolis() {
        // RFC 3720, B.4, and the catalogue's check value.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn a_new_start_shows_what_the_log_holds_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = Events::create(folder.path(), &[]).unwrap();
        (1..=3).for_each(|step| events.add(&record(step)).unwrap());
        let mut events = Events::create(folder.path(), &[record(1)]).unwrap();
        let validation = BTreeMap::from([("growth".to_string(), 0.5)]);
        events.add(&Record { validation, ..record(2) }).unwrap();
        let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(files.len(), 1);
        let found = read(&files[0]);
        assert_eq!(found[0].file_version.as_deref(), Some("brain.Event:2"));
        assert_eq!(found[1..].iter().map(|e| e.step).collect::<Vec<_>>(), [1, 2]);
        let scalars = &found[2].summary.as_ref().unwrap().value;
        let value = |tag: &str| scalars.iter().find(|s| s.tag == tag).map(|s| s.simple_value);
        assert_eq!((value("train/loss"), value("validation/growth")), (Some(0.5), Some(0.5)));
        assert_eq!(found[2].wall_time, 5.0);
    }
}
