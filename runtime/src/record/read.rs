//! Reading a recording: what it holds, and where.
//!
//! Comes in: a file, also one whose writer was killed. Goes out: the session's description, the frames' stamps with the places of their pictures, the
//! answers, and what happened between frames; pictures, answers and snapshots are read when they are asked for. Everything up to the last whole record
//! counts. Nothing is asked and no model is known here.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use mcap::records::op;
use serde::de::DeserializeOwned;
use utr_models::RgbFrame;

use super::format::{AnswerNote, EventNote, FrameNote, SessionNote, Topic, VERSION};
use super::walk::{End, Fields, Found, Walk};
use super::{image, snapshot};
use crate::capture::Stamp;
use crate::decode::KvPrecision;
use crate::error::{Error, Result};
use crate::load::Language;
use crate::prefill::Reading;
use crate::sample::MAX_CLIP_FRAMES;
use crate::window::EncodedFrame;

/// Longest message of JSON, in bytes: an answer with its question is bounded far below.
const MAX_JSON_BYTES: usize = 4 << 20;
/// Longest message with a picture, in bytes.
const MAX_PICTURE_BYTES: u64 = 256 << 20;
/// Bytes of a message before its data: channel, sequence and two times.
const MESSAGE_HEAD: u64 = 2 + 4 + 8 + 8;
/// Most channels that are kept apart; a recording has five.
const MAX_CHANNELS: usize = 1024;

/// A frame of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedFrame {
    /// Which one it was in its source.
    pub stamp: Stamp,
    picture: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    at: u64,
    len: u64,
}

/// What happened behind so many frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The window was empty.
    Reset,
    /// This many frames are missing.
    Gap(u64),
    /// The window's keys and values are here: they are those of the frames since the last reset, at most a window's.
    Snapshot(usize),
}

/// A recording.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    file: Mutex<File>,
    session: Option<SessionNote>,
    frames: Vec<RecordedFrame>,
    /// With the number of frames before.
    answers: Vec<(usize, Place)>,
    marks: Vec<(usize, Mark)>,
    snapshots: Vec<Place>,
    end: End,
    ended_at: u64,
}

impl Recording {
    /// Looks through a file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Capture`] for a file that is no recording, or one of another version.
    pub fn open(path: &Path) -> Result<Self> {
        let refuse = |reason: String| Error::capture(path.display().to_string(), reason);
        let file = File::open(path).map_err(|error| refuse(format!("{error}; check the spelling")))?;
        if file.metadata().is_ok_and(|about| about.is_dir()) {
            return Err(refuse("is a folder; name the recording in it".into()));
        }
        let walk = Walk::new(file.try_clone().map_err(Error::io(path))?)
            .map_err(|reason| refuse(format!("{reason}; write one with utr record")))?;
        let mut scan = Scan::new(path, file);
        scan.run(walk);
        let recording = scan.recording;
        if let Some(session) = recording.session.as_ref().filter(|session| session.version != VERSION) {
            let version = session.version;
            return Err(refuse(format!(
                "it has the version {version} of recordings; this program reads {VERSION}"
            )));
        }
        Ok(recording)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How the session ran.
    ///
    /// # Errors
    /// [`Error::Capture`] where the file ends before it.
    pub fn session(&self) -> Result<&SessionNote> {
        self.session.as_ref().ok_or_else(|| {
            self.refuse(format!("it does not say how it was recorded{}", self.flaw().unwrap_or_default()))
        })
    }

    /// The frames that entered the window, in order.
    pub fn frames(&self) -> &[RecordedFrame] {
        &self.frames
    }

    /// What happened, each behind so many frames.
    pub fn marks(&self) -> &[(usize, Mark)] {
        &self.marks
    }

    /// Answers, and questions without one.
    pub fn answers(&self) -> usize {
        self.answers.len()
    }

    /// What keeps the file from being whole, as the rest of a sentence; none where its writer ended it.
    pub fn flaw(&self) -> Option<String> {
        match &self.end {
            End::Whole => None,
            End::Cut => Some(format!("; it was cut off at byte {}", self.ended_at)),
            End::Damaged(what) => Some(format!("; it is damaged at byte {}: {what}", self.ended_at)),
        }
    }

    /// An answer, and the number of frames before it.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Capture`] where it cannot be understood or there are fewer.
    pub fn answer(&self, place: usize) -> Result<(usize, AnswerNote)> {
        let Some(&(frames, place)) = self.answers.get(place) else {
            return Err(self.refuse(format!("it holds {} answers", self.answers.len())));
        };
        let bytes = self.bytes(place, MAX_JSON_BYTES as u64)?;
        let answer = serde_json::from_slice(&bytes)
            .map_err(|error| self.refuse(format!("an answer in it cannot be read: {error}")))?;
        Ok((frames, answer))
    }

    /// A frame's picture.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Capture`] where it is damaged, too large, or there are fewer.
    pub fn picture(&self, frame: usize) -> Result<RgbFrame> {
        let Some(found) = self.frames.get(frame) else {
            return Err(self.refuse(format!("it holds {} frames", self.frames.len())));
        };
        let bytes = self.bytes(found.picture, MAX_PICTURE_BYTES)?;
        image::from_message(&bytes).map_err(|reason| {
            self.refuse(format!("the picture of its frame {} is damaged: {reason}", found.stamp.index))
        })
    }

    /// The reading that a snapshot holds; `frames` are those it belongs to.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Capture`] where it is cut, damaged, or belongs to another bundle, other settings or other frames.
    pub fn snapshot(
        &self,
        number: usize,
        language: &Language,
        kv: KvPrecision,
        frames: &[Arc<EncodedFrame>],
    ) -> Result<Reading> {
        let Some(place) = self.snapshots.get(number) else {
            return Err(self.refuse(format!("it holds {} snapshots", self.snapshots.len())));
        };
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(place.at)).map_err(Error::io(&self.path))?;
        let mut bytes = BufReader::new((&mut *file).take(place.len));
        snapshot::read_snapshot(&mut bytes, place.len, language, kv, frames)
            .map_err(|reason| self.refuse(reason))
    }

    /// The bytes of a snapshot, as [`super::read_snapshot`] takes them.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Capture`] where there are fewer, or it is larger than 256 MiB.
    pub fn snapshot_bytes(&self, number: usize) -> Result<Vec<u8>> {
        match self.snapshots.get(number) {
            Some(place) => self.bytes(*place, MAX_PICTURE_BYTES),
            None => Err(self.refuse(format!("it holds {} snapshots", self.snapshots.len()))),
        }
    }

    fn bytes(&self, place: Place, most: u64) -> Result<Vec<u8>> {
        if place.len > most {
            let mib = most >> 20;
            return Err(self.refuse(format!("a record has {} bytes; {mib} MiB are read at most", place.len)));
        }
        let mut bytes = vec![0; usize::try_from(place.len).unwrap_or_default()];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(place.at)).map_err(Error::io(&self.path))?;
        file.read_exact(&mut bytes).map_err(Error::io(&self.path))?;
        Ok(bytes)
    }

    fn refuse(&self, reason: String) -> Error {
        Error::capture(self.path.display().to_string(), reason)
    }
}

/// A look through a file.
struct Scan {
    recording: Recording,
    channels: Vec<(u16, Topic)>,
    /// The newest picture, with its sequence: it counts once its frame's note is there.
    picture: Option<(u32, Place)>,
}

impl Scan {
    fn new(path: &Path, file: File) -> Self {
        let recording = Recording {
            path: path.to_path_buf(),
            file: Mutex::new(file),
            session: None,
            frames: Vec::new(),
            answers: Vec::new(),
            marks: Vec::new(),
            snapshots: Vec::new(),
            end: End::Cut,
            ended_at: 0,
        };
        Self { recording, channels: Vec::new(), picture: None }
    }

    fn run<R: Read + Seek>(&mut self, mut walk: Walk<R>) {
        self.recording.end = loop {
            self.recording.ended_at = walk.position();
            let step = walk.advance().and_then(|found| self.take(&mut walk, found));
            if let Err(end) = step {
                break end;
            }
        };
    }

    fn take<R: Read + Seek>(&mut self, walk: &mut Walk<R>, found: Found) -> Result<(), End> {
        match found.opcode {
            op::CHANNEL => self.channel(&walk.body(found, MAX_JSON_BYTES)?),
            op::MESSAGE => self.message(walk, found),
            op::ATTACHMENT => self.attachment(walk, found),
            _ => Ok(()),
        }
    }

    fn channel(&mut self, body: &[u8]) -> Result<(), End> {
        let mut fields = Fields(body);
        let (Some(id), Some(_), Some(topic), Some(encoding)) =
            (fields.u16(), fields.u16(), fields.text(), fields.text())
        else {
            return Err(End::Damaged("a channel without a topic".into()));
        };
        let known =
            Topic::ALL.into_iter().find(|known| known.name() == topic && known.encoding() == encoding);
        if let Some(topic) = known
            && self.channels.len() < MAX_CHANNELS
        {
            self.channels.push((id, topic));
        }
        Ok(())
    }

    fn message<R: Read + Seek>(&mut self, walk: &mut Walk<R>, found: Found) -> Result<(), End> {
        let head = walk.body(found, MESSAGE_HEAD as usize)?;
        let mut fields = Fields(&head);
        let (Some(id), Some(sequence), Some(_), Some(_)) =
            (fields.u16(), fields.u32(), fields.u64(), fields.u64())
        else {
            return Err(End::Damaged("a message without a head".into()));
        };
        let Some((_, topic)) = self.channels.iter().rev().find(|(known, _)| *known == id) else {
            return Ok(());
        };
        let place = Place { at: found.at + MESSAGE_HEAD, len: found.len - MESSAGE_HEAD };
        match topic {
            Topic::Session => {
                let note = json(walk, place)?;
                self.recording.session.get_or_insert(note);
            }
            Topic::Image => self.picture = Some((sequence, place)),
            Topic::Frame => self.frame(sequence, &json(walk, place)?)?,
            Topic::Answer => self.recording.answers.push((self.recording.frames.len(), place)),
            Topic::Event => match json(walk, place)? {
                EventNote::Reset => self.mark(Mark::Reset),
                EventNote::Gap { frames: 0, .. } | EventNote::End { .. } => {}
                EventNote::Gap { frames, .. } => self.mark(Mark::Gap(frames)),
            },
        }
        Ok(())
    }

    fn frame(&mut self, sequence: u32, note: &FrameNote) -> Result<(), End> {
        if !note.taken {
            return Ok(());
        }
        let Some((_, picture)) = self.picture.take().filter(|(number, _)| *number == sequence) else {
            return Err(End::Damaged(format!("the frame {} has no picture", note.index)));
        };
        if self.recording.frames.len() >= MAX_CLIP_FRAMES {
            return Err(End::Damaged(format!("there are more than {MAX_CLIP_FRAMES} frames")));
        }
        let stamp = Stamp { index: note.index, pts_ms: note.pts_ms };
        self.recording.frames.push(RecordedFrame { stamp, picture });
        Ok(())
    }

    fn attachment<R: Read + Seek>(&mut self, walk: &mut Walk<R>, found: Found) -> Result<(), End> {
        const MOST: usize = 1024;
        let head = walk.body(found, MOST)?;
        let mut fields = Fields(&head);
        // When it was written and made; what it is called and what it is; how long it is.
        let (Some(_), Some(_), Some(name), Some(media_type), Some(len)) =
            (fields.u64(), fields.u64(), fields.text(), fields.text(), fields.u64())
        else {
            return if found.len > MOST as u64 {
                Ok(())
            } else {
                Err(End::Damaged("an attachment without a head".into()))
            };
        };
        if (name, media_type) != (snapshot::NAME, snapshot::MEDIA_TYPE) {
            return Ok(());
        }
        let read = (head.len() - fields.0.len()) as u64;
        // A checksum of four bytes ends it.
        if read.checked_add(len).and_then(|end| end.checked_add(4)) != Some(found.len) {
            return Err(End::Damaged("the size of a snapshot is wrong".into()));
        }
        if !walk.checked(found)? {
            return Err(End::Damaged("the checksum of a snapshot is wrong".into()));
        }
        self.mark(Mark::Snapshot(self.recording.snapshots.len()));
        self.recording.snapshots.push(Place { at: found.at + read, len });
        Ok(())
    }

    fn mark(&mut self, mark: Mark) {
        self.recording.marks.push((self.recording.frames.len(), mark));
    }
}

fn json<T: DeserializeOwned, R: Read + Seek>(walk: &mut Walk<R>, place: Place) -> Result<T, End> {
    if place.len > MAX_JSON_BYTES as u64 {
        return Err(End::Damaged(format!("a message of {} bytes where a short one belongs", place.len)));
    }
    let found = Found { opcode: op::MESSAGE, at: place.at, len: place.len };
    let bytes = walk.body(found, MAX_JSON_BYTES)?;
    serde_json::from_slice(&bytes).map_err(|error| End::Damaged(format!("a message cannot be read: {error}")))
}
