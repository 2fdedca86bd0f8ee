//! Writing a recording, record by record.
//!
//! Comes in: a session's description, then frames, answers and events in the order in which they happened. Goes out: MCAP into any writer. What is flushed
//! is whole: a file that ends after a flush lacks only its index. It knows no thread and no clock but the wall's.

use std::collections::BTreeMap;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use mcap::records::{AttachmentHeader, MessageHeader};
use mcap::{McapError, WriteOptions};
use serde::Serialize;
use utr_models::RgbFrame;

use super::format::{AnswerNote, EventNote, FrameNote, SessionNote, Topic};
use super::image;
use super::snapshot::{self, write_snapshot};
use crate::error::{Error, Result};
use crate::prefill::Reading;

/// Size at which a chunk is closed, in bytes; one second's chunk is smaller for most cameras.
const CHUNK_BYTES: u64 = 4 << 20;

/// A recording being written.
pub struct RecordWriter<W: Write + Seek> {
    path: PathBuf,
    file: mcap::Writer<W>,
    channels: [u16; Topic::ALL.len()],
    hash: Option<String>,
    sequence: u32,
    frames: u64,
    answers: u64,
    /// Log time of the newest frame: viewers sort by it, and clocks are set.
    newest_ns: u64,
}

/// What [`RecordWriter::frame`] is told about a frame beside its picture.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Everything but its sequence, which is counted here.
    pub note: FrameNote,
    /// When it reached this process.
    pub captured: Instant,
}

impl<W: Write + Seek> RecordWriter<W> {
    /// Begins a recording; `path` is named in errors.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn new(to: W, path: &Path, session: &SessionNote) -> Result<Self> {
        let failed = failed(path);
        let mut file = WriteOptions::new()
            .compression(None)
            .profile("utr")
            .library(format!("utr {}", env!("CARGO_PKG_VERSION")))
            .chunk_size(Some(CHUNK_BYTES))
            // A chunk is written once it is whole, so that a killed program leaves no half-filled one with sizes that lie.
            .disable_seeking(true)
            .create(to)
            .map_err(&failed)?;
        let mut channels = [0; Topic::ALL.len()];
        for (topic, channel) in Topic::ALL.into_iter().zip(&mut channels) {
            let (name, json) = topic.json_schema();
            let schema = match topic {
                Topic::Image => file.add_schema(name, "protobuf", &image::descriptor()),
                _ => file.add_schema(name, "jsonschema", json.as_bytes()),
            };
            let schema = schema.map_err(&failed)?;
            *channel = file
                .add_channel(schema, topic.name(), topic.encoding(), &BTreeMap::new())
                .map_err(&failed)?;
        }
        let hash = session.bundle.hash.clone();
        let (sequence, frames, answers, newest_ns) = (0, 0, 0, 0);
        let path = path.to_path_buf();
        let mut writer = Self { path, file, channels, hash, sequence, frames, answers, newest_ns };
        writer.json(Topic::Session, 0, now_ns(), session)?;
        Ok(writer)
    }

    /// Writes a frame: its picture, where it was taken, then what is known of it.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Argument`] for a picture that PNG cannot hold.
    pub fn frame(&mut self, picture: Option<&RgbFrame>, frame: Expected) -> Result<()> {
        let Expected { mut note, captured } = frame;
        let time = wall_ns(captured).max(self.newest_ns.saturating_add(1));
        self.newest_ns = time;
        note.sequence = self.sequence;
        note.taken = picture.is_some();
        if let Some(picture) = picture {
            let message = image::to_message(picture, time).map_err(Error::Argument)?;
            self.message(Topic::Image, note.sequence, time, &message)?;
            self.frames += 1;
        }
        self.json(Topic::Frame, note.sequence, time, &note)?;
        self.sequence = self.sequence.wrapping_add(1);
        Ok(())
    }

    /// Writes a question with its outcome.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn answer(&mut self, answer: &AnswerNote) -> Result<()> {
        let sequence = u32::try_from(self.answers).unwrap_or(u32::MAX);
        self.json(Topic::Answer, sequence, now_ns(), answer)?;
        self.answers += 1;
        Ok(())
    }

    /// Writes that something happened.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn event(&mut self, event: &EventNote) -> Result<()> {
        self.json(Topic::Event, 0, now_ns(), event)
    }

    /// Writes the keys and values of a reading whose frames are the last ones written.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn snapshot(&mut self, reading: &Reading) -> Result<()> {
        let header = AttachmentHeader {
            log_time: now_ns(),
            create_time: now_ns(),
            name: snapshot::NAME.into(),
            media_type: snapshot::MEDIA_TYPE.into(),
        };
        let head = snapshot::head(reading, self.hash.as_deref())?;
        let bytes = snapshot::bytes(reading, &head);
        let failed = failed(&self.path);
        self.file.start_attachment(bytes, header).map_err(&failed)?;
        write_snapshot(reading, &head, &mut Attaching(&mut self.file)).map_err(Error::io(&self.path))?;
        self.file.finish_attachment().map_err(&failed)
    }

    /// Hands everything written so far to the system.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(failed(&self.path))
    }

    /// Frames and answers written.
    pub fn written(&self) -> (u64, u64) {
        (self.frames, self.answers)
    }

    /// Writes the end and the index; the writer underneath.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(mut self) -> Result<W> {
        let (frames, answers) = self.written();
        self.event(&EventNote::End { frames, answers })?;
        self.file.finish().map_err(failed(&self.path))?;
        Ok(self.file.into_inner())
    }

    fn json(&mut self, topic: Topic, sequence: u32, time: u64, value: &impl Serialize) -> Result<()> {
        let text =
            serde_json::to_vec(value).map_err(|error| Error::io(&self.path)(std::io::Error::other(error)))?;
        self.message(topic, sequence, time, &text)
    }

    fn message(&mut self, topic: Topic, sequence: u32, time: u64, data: &[u8]) -> Result<()> {
        let channel = Topic::ALL.iter().position(|known| *known == topic);
        let channel_id = channel.and_then(|place| self.channels.get(place)).copied().unwrap_or_default();
        let header = MessageHeader { channel_id, sequence, log_time: time, publish_time: time };
        self.file.write_to_known_channel(&header, data).map_err(failed(&self.path))
    }
}

/// Bytes into the attachment that is open.
struct Attaching<'a, W: Write + Seek>(&'a mut mcap::Writer<W>);

impl<W: Write + Seek> Write for Attaching<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.put_attachment_bytes(bytes).map_err(io_error)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn failed(path: &Path) -> impl Fn(McapError) -> Error + use<> {
    let path = path.to_path_buf();
    move |error| Error::Io { path: path.clone(), reason: io_error(error) }
}

fn io_error(error: McapError) -> std::io::Error {
    match error {
        McapError::Io(reason) => reason,
        other => std::io::Error::other(other),
    }
}

/// Nanoseconds since 1970.
fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The wall's time of an instant in the past.
fn wall_ns(instant: Instant) -> u64 {
    now_ns().saturating_sub(u64::try_from(instant.elapsed().as_nanos()).unwrap_or(u64::MAX))
}
