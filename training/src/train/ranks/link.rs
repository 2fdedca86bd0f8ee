//! One direction between two ranks: frames over a TCP connection.
//!
//! Comes in: bytes, floats, or the reason of an end. Goes out: the same on the other side. A frame is a kind, a length and its bytes; whatever breaks is told as
//! the loss of the rank on the other side. Nothing is encrypted and nobody is authenticated: ranks belong on a network that is trusted.

use std::fmt;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Bytes of a frame at most; a longer one comes from something else than a rank.
const LONGEST: usize = 1 << 20;

/// Floats per frame.
pub const CHUNK: usize = 1 << 16;

const DATA: u8 = 0;
const ABORT: u8 = 1;

/// Why a link does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Some rank failed and said why.
    Told(String),
    /// The rank on the other side is gone, in words.
    Lost(String),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Told(text) | Self::Lost(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for Broken {}

fn lost(rank: usize, timeout: Duration, error: &io::Error) -> Broken {
    Broken::Lost(match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!(
                "rank {rank} was silent for {} s: it hangs, its machine is gone, or it works (an update, rank 0 also a validation or a checkpoint) \
                 for longer than --rank-timeout",
                timeout.as_secs()
            )
        }
        io::ErrorKind::InvalidData => format!("what rank {rank} sent is not understood: {error}"),
        io::ErrorKind::UnexpectedEof => {
            format!("rank {rank} was lost: its connection closed, it ended or was killed")
        }
        _ => format!("rank {rank} was lost: {error}; it ended, was killed or cannot be reached"),
    })
}

/// The sending side.
pub struct Outgoing {
    stream: BufWriter<TcpStream>,
    rank: usize,
    timeout: Duration,
}

impl Outgoing {
    /// To `rank`, who must take what is sent within `timeout`.
    pub fn new(stream: TcpStream, rank: usize, timeout: Duration) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Self { stream: BufWriter::with_capacity(1 << 16, stream), rank, timeout })
    }

    fn frame(&mut self, kind: u8, bytes: &[u8]) -> Result<(), Broken> {
        let length = (bytes.len() as u32).to_le_bytes();
        let write = |stream: &mut BufWriter<TcpStream>| {
            stream.write_all(&[kind])?;
            stream.write_all(&length)?;
            stream.write_all(bytes)
        };
        write(&mut self.stream).map_err(|e| lost(self.rank, self.timeout, &e))
    }

    /// Sends bytes; they may wait for [`Outgoing::flush`].
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.frame(DATA, bytes)
    }

    /// Sends at most [`CHUNK`] floats.
    pub fn send_floats(&mut self, data: &[f32]) -> Result<(), Broken> {
        let bytes: Vec<u8> = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.send(&bytes)
    }

    /// Sends the reason of an end and everything before it.
    pub fn abort(&mut self, reason: &str) -> Result<(), Broken> {
        let end = reason.floor_char_boundary(reason.len().min(LONGEST));
        self.frame(ABORT, &reason.as_bytes()[..end])?;
        self.flush()
    }

    /// Sends what waits.
    pub fn flush(&mut self) -> Result<(), Broken> {
        self.stream.flush().map_err(|e| lost(self.rank, self.timeout, &e))
    }
}

/// The receiving side.
pub struct Incoming {
    stream: BufReader<TcpStream>,
    rank: usize,
    timeout: Duration,
}

impl Incoming {
    /// From `rank`, who must send within `timeout`.
    pub fn new(stream: TcpStream, rank: usize, timeout: Duration) -> io::Result<Self> {
        stream.set_read_timeout(Some(timeout))?;
        Ok(Self { stream: BufReader::with_capacity(1 << 16, stream), rank, timeout })
    }

    /// The same line, once it is known who is on it.
    pub fn known_as(mut self, rank: usize, timeout: Duration) -> io::Result<Self> {
        self.stream.get_ref().set_read_timeout(Some(timeout))?;
        (self.rank, self.timeout) = (rank, timeout);
        Ok(self)
    }

    /// The next frame's bytes.
    pub fn receive(&mut self) -> Result<Vec<u8>, Broken> {
        let read = |stream: &mut BufReader<TcpStream>| {
            let mut head = [0; 5];
            stream.read_exact(&mut head)?;
            let [kind, a, b, c, d] = head;
            let length = u32::from_le_bytes([a, b, c, d]) as usize;
            if length > LONGEST || kind > ABORT {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "not a frame"));
            }
            let mut bytes = vec![0; length];
            stream.read_exact(&mut bytes)?;
            Ok((kind, bytes))
        };
        match read(&mut self.stream) {
            Ok((DATA, bytes)) => Ok(bytes),
            Ok((_, reason)) => Err(Broken::Told(String::from_utf8_lossy(&reason).into_owned())),
            Err(error) => Err(lost(self.rank, self.timeout, &error)),
        }
    }

    /// The next frame as exactly `count` floats.
    pub fn floats(&mut self, count: usize) -> Result<Vec<f32>, Broken> {
        let bytes = self.receive()?;
        let (chunks, rest) = bytes.as_chunks::<4>();
        if chunks.len() != count || !rest.is_empty() {
            let odd = format!("{} bytes where {count} floats were due", bytes.len());
            return Err(lost(self.rank, self.timeout, &io::Error::new(io::ErrorKind::InvalidData, odd)));
        }
        Ok(chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    /// Reads on, for a moment, for the reason of an end; `None` where none comes.
    pub fn reason(&mut self) -> Option<String> {
        self.stream.get_ref().set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        loop {
            match self.receive() {
                Ok(_) => {}
                Err(Broken::Told(reason)) => return Some(reason),
                Err(Broken::Lost(_)) => return None,
            }
        }
    }
}
