//! The records of an MCAP file, one after the other, also of a file that was cut or damaged.
//!
//! Comes in: a file. Goes out: where each record of its data lies, with those inside chunks, up to the end or to the first place that
//! makes no sense; what is wrong there is told apart from an end. A chunk's checksum is compared before its records are shown. Only heads are
//! read and nothing is believed about sizes: the file's own length bounds them. (The `mcap` crate reads whole records and needs an index to jump.)

use std::io::{BufReader, Read, Seek, SeekFrom};

use mcap::MAGIC;
use mcap::records::op;

/// Bytes of a record's head: what it is, and how long.
const HEAD: u64 = 9;

/// Longest head of a chunk that is believed, in bytes; it holds five numbers and the name of a compression.
const MAX_CHUNK_HEAD: u64 = 256;

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub opcode: u8,
    /// Where its body begins.
    pub at: u64,
    /// How long it is.
    pub len: u64,
}

/// Why there is no further record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The writer ended the data here.
    Whole,
    /// The file ends here, without the writer's end.
    Cut,
    /// What stands here makes no sense.
    Damaged(String),
}

/// Walks over the records of a file's data.
pub struct Walk<R> {
    file: BufReader<R>,
    size: u64,
    next: u64,
    /// End of the chunk's records, inside one.
    chunk: Option<u64>,
}

impl<R: Read + Seek> Walk<R> {
    /// Begins behind the file's first bytes.
    ///
    /// # Errors
    /// Where the file is no MCAP file, or cannot be read.
    pub fn new(mut file: R) -> Result<Self, String> {
        let size = file.seek(SeekFrom::End(0)).map_err(|error| error.to_string())?;
        file.rewind().map_err(|error| error.to_string())?;
        let mut walk = Self { file: BufReader::new(file), size, next: 0, chunk: None };
        let mut magic = [0; 8];
        match walk.file.read_exact(&mut magic) {
            Ok(()) if magic == *MAGIC => {}
            _ => return Err(format!("its {size} bytes do not begin as an MCAP file does")),
        }
        walk.next = MAGIC.len() as u64;
        Ok(walk)
    }

    /// The next record; chunks are entered, not shown.
    pub fn advance(&mut self) -> Result<Found, End> {
        loop {
            if self.chunk.is_some_and(|end| self.next >= end) {
                self.chunk = None;
            }
            let end = self.chunk.unwrap_or(self.size);
            if end.saturating_sub(self.next) < HEAD {
                return Err(if self.chunk.is_none() || end == self.size {
                    End::Cut
                } else {
                    End::Damaged("a chunk ends inside a record".into())
                });
            }
            let at = self.next + HEAD;
            let mut head = [0; HEAD as usize];
            self.read_at(self.next, &mut head)?;
            let [opcode, length @ ..] = head;
            let len = u64::from_le_bytes(length);
            if opcode == op::CHUNK && self.chunk.is_none() {
                self.enter(at, len)?;
                continue;
            }
            if len > end - at {
                return Err(if end == self.size {
                    End::Cut
                } else {
                    End::Damaged(format!("a record claims {len} bytes inside a chunk with {} left", end - at))
                });
            }
            match opcode {
                op::DATA_END if self.chunk.is_none() => return Err(End::Whole),
                // Zero is no record, and a chunk does not hold another one.
                0 | op::CHUNK => return Err(End::Damaged(format!("a record of the kind {opcode:#04x}"))),
                _ => {}
            }
            self.next = at + len;
            return Ok(Found { opcode, at, len });
        }
    }

    /// Where the walk stands.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// The first bytes of a record's body, at most `most`.
    pub fn body(&mut self, found: Found, most: usize) -> Result<Vec<u8>, End> {
        let length = usize::try_from(found.len).unwrap_or(usize::MAX).min(most);
        let mut bytes = vec![0; length];
        self.read_at(found.at, &mut bytes)?;
        Ok(bytes)
    }

    /// Whether the last four bytes of a body are the checksum of those before, or zero, which stands for none.
    pub fn checked(&mut self, found: Found) -> Result<bool, End> {
        let Some(len) = found.len.checked_sub(4) else { return Ok(false) };
        let mut saved = [0; 4];
        self.read_at(found.at + len, &mut saved)?;
        let saved = u32::from_le_bytes(saved);
        Ok(saved == 0 || self.checksum(found.at, found.at + len)? == saved)
    }

    /// Steps into a chunk once its checksum is found right; one that the file's end cuts has none to compare.
    fn enter(&mut self, at: u64, len: u64) -> Result<(), End> {
        let left = self.size - at;
        let found = Found { opcode: op::CHUNK, at, len: len.min(left) };
        let bytes = self.body(found, MAX_CHUNK_HEAD as usize)?;
        let mut fields = Fields(&bytes);
        let (Some(header), read) = (ChunkHead::read(&mut fields), bytes.len() - fields.0.len()) else {
            return Err(if len > left && left < MAX_CHUNK_HEAD { End::Cut } else { damaged("head") });
        };
        if !header.compression.is_empty() {
            return Err(End::Damaged(format!(
                "a chunk is compressed with {:?}; unpack the file with `mcap decompress`",
                header.compression
            )));
        }
        let first = at + read as u64;
        let end = first.saturating_add(header.size);
        if len > left {
            (self.next, self.chunk) = (first, Some(self.size));
            return Ok(());
        }
        if end != at + len {
            return Err(damaged("size"));
        }
        if header.checksum != 0 && self.checksum(first, end)? != header.checksum {
            return Err(damaged("checksum"));
        }
        (self.next, self.chunk) = (first, Some(end));
        Ok(())
    }

    fn checksum(&mut self, from: u64, to: u64) -> Result<u32, End> {
        let mut hasher = crc32fast::Hasher::new();
        let mut buffer = [0; 1 << 14];
        let mut at = from;
        while at < to {
            let length = usize::try_from(to - at).unwrap_or(usize::MAX).min(buffer.len());
            let piece = buffer.get_mut(..length).unwrap_or_default();
            self.read_at(at, piece)?;
            hasher.update(piece);
            at += length as u64;
        }
        Ok(hasher.finalize())
    }

    fn read_at(&mut self, at: u64, buffer: &mut [u8]) -> Result<(), End> {
        let fail = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => End::Cut,
            _ => End::Damaged(error.to_string()),
        };
        let here = self.file.stream_position().map_err(fail)?;
        let step = i64::try_from(i128::from(at) - i128::from(here)).map_err(|_| End::Cut)?;
        self.file.seek_relative(step).map_err(fail)?;
        self.file.read_exact(buffer).map_err(fail)
    }
}

fn damaged(what: &str) -> End {
    End::Damaged(format!("the {what} of a chunk is wrong"))
}

/// The head of a chunk, as far as it is looked at.
struct ChunkHead<'a> {
    checksum: u32,
    compression: &'a str,
    size: u64,
}

impl<'a> ChunkHead<'a> {
    fn read(fields: &mut Fields<'a>) -> Option<Self> {
        // First and last time, and the size before compression.
        let _ = (fields.u64()?, fields.u64()?, fields.u64()?);
        Some(Self { checksum: fields.u32()?, compression: fields.text()?, size: fields.u64()? })
    }
}

/// What is left of a record's body: numbers are little-endian, a text follows its length.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// Two bytes.
    pub fn u16(&mut self) -> Option<u16> {
        self.bytes().map(u16::from_le_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// A text.
    pub fn text(&mut self) -> Option<&'a str> {
        let length = self.u32()? as usize;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }
}
