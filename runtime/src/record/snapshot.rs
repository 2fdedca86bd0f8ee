//! A snapshot: the keys and values of a window, so that it can be asked again without the stream that led to it.
//!
//! Comes in: a reading, or an attachment's bytes with the frames they belong to. Goes out: the bytes, or the reading. The bytes are a version, a head as JSON
//! (bundle, sizes, precision, the prompt's tokens, the frames' stamps), and then every span's rows. Everything is checked against the model before
//! memory is taken; a snapshot of another bundle or other sizes is refused. Pictures are not in it.

use std::io::{Read, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::capture::Stamp;
use crate::decode::{KvPrecision, KvShape, Pool, Span};
use crate::load::Language;
use crate::prefill::{Prefix, Reading};
use crate::report::FrameUsed;
use crate::window::{CAPACITY, EncodedFrame};

/// Name of the attachment.
pub(super) const NAME: &str = "utr/snapshot";
/// Its media type.
pub(super) const MEDIA_TYPE: &str = "application/x-utr-snapshot";

const MAGIC: [u8; 8] = *b"UTRSNAP\x01";

/// Longest head, in bytes: prompts are some thousand tokens at most.
const MAX_HEAD_BYTES: usize = 4 << 20;

/// What the rows mean.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    /// SHA-256 of the bundle's manifest; none for a Hugging Face folder.
    bundle: Option<String>,
    shape: KvShape,
    kv: KvPrecision,
    prefix: Vec<u32>,
    frames: Vec<FrameUsed>,
    gone: Vec<FrameUsed>,
}

/// The head of a reading's snapshot, as it is written.
///
/// # Errors
/// [`crate::Error::Argument`] where the reading is not of one piece.
pub(super) fn head(reading: &Reading, bundle: Option<&str>) -> crate::Result<Vec<u8>> {
    let prefix = reading.prefix();
    let span = prefix.span();
    if reading.spans().any(|other| other.shape() != span.shape() || other.precision() != span.precision()) {
        return Err(crate::Error::Argument("the spans of a reading differ in size".into()));
    }
    let head = Head {
        bundle: bundle.map(Into::into),
        shape: span.shape(),
        kv: span.precision(),
        prefix: prefix.tokens().to_vec(),
        frames: reading.frames().map(|frame| frame.stamp.into()).collect(),
        gone: reading.gone().map(FrameUsed::from).collect(),
    };
    serde_json::to_vec(&head).map_err(|error| crate::Error::Argument(error.to_string()))
}

/// Bytes of a snapshot with this head.
pub(super) fn bytes(reading: &Reading, head: &[u8]) -> u64 {
    let rows: usize =
        std::iter::once(reading.prefix().span()).chain(reading.spans()).map(Span::stored_bytes).sum();
    (MAGIC.len() + 4 + head.len() + rows) as u64
}

/// Writes a snapshot.
///
/// # Errors
/// The writer's.
pub fn write_snapshot(reading: &Reading, head: &[u8], to: &mut dyn Write) -> std::io::Result<()> {
    let length = u32::try_from(head.len()).map_err(std::io::Error::other)?;
    to.write_all(&MAGIC)?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(head)?;
    std::iter::once(reading.prefix().span()).chain(reading.spans()).try_for_each(|span| span.write_to(to))
}

/// Reads a snapshot of `length` bytes that belongs to `frames`, for a model whose keys and values are stored as `kv`.
///
/// # Errors
/// What was found, and what the model or the frames say instead.
pub fn read_snapshot(
    from: &mut dyn Read,
    length: u64,
    language: &Language,
    kv: KvPrecision,
    frames: &[Arc<EncodedFrame>],
) -> Result<Reading, String> {
    let cut = |error: std::io::Error| format!("the snapshot cannot be read: {error}");
    let mut magic = [0; 12];
    from.read_exact(&mut magic).map_err(cut)?;
    let (magic, size) = magic.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err("this is no snapshot of this program's version".into());
    }
    let size = size.try_into().map_or(usize::MAX, |bytes| u32::from_le_bytes(bytes) as usize);
    let rest = length.saturating_sub(12);
    if size > MAX_HEAD_BYTES || size as u64 > rest {
        return Err(format!("the snapshot's head claims {size} bytes of {rest}"));
    }
    let mut text = vec![0; size];
    from.read_exact(&mut text).map_err(cut)?;
    let head: Head =
        serde_json::from_slice(&text).map_err(|error| format!("the snapshot's head: {error}"))?;
    check(&head, language, kv, frames)?;
    let rows = head.prefix.len() + frames.len() * language.tokens_per_frame;
    let (wanted, found) = (head.shape.bytes(kv, rows) as u64, rest - size as u64);
    if wanted != found {
        return Err(format!(
            "the snapshot holds {found} bytes of keys and values, {rows} rows need {wanted}"
        ));
    }
    let mut span = Span::new(head.shape, kv, head.prefix.len());
    span.read_from(from, head.prefix.len()).map_err(cut)?;
    let prefix = Prefix::restored(head.prefix, span);
    let pool = Pool::new(head.shape, kv, language.tokens_per_frame, 0);
    let mut read = Vec::with_capacity(frames.len());
    for frame in frames {
        let mut lease = pool.take_or_grow();
        lease.read_from(from, language.tokens_per_frame).map_err(cut)?;
        read.push((Arc::clone(frame), lease));
    }
    let gone = head.gone.iter().map(|f| Stamp { index: f.index, pts_ms: f.pts_ms }).collect();
    Reading::restored(prefix, read, gone).map_err(|error| error.to_string())
}

/// Refuses what belongs to another model, another precision or other frames.
fn check(
    head: &Head,
    language: &Language,
    kv: KvPrecision,
    frames: &[Arc<EncodedFrame>],
) -> Result<(), String> {
    let name = |hash: &Option<String>| hash.clone().unwrap_or_else(|| "a folder without a hash".into());
    if head.bundle != language.hash {
        return Err(format!(
            "the snapshot was made with the bundle {}, not with {} ({}); give that bundle with --bundle",
            name(&head.bundle),
            language.name,
            name(&language.hash)
        ));
    }
    let shape = language.decoder.shape();
    if head.shape != shape || head.kv != kv {
        return Err(format!(
            "the snapshot holds {:?} as {:?}, the session {shape:?} as {kv:?}",
            head.shape, head.kv
        ));
    }
    let most = language.decoder.max_positions();
    if head.prefix.len() > most || head.gone.len() > shape.layers * CAPACITY || frames.len() > CAPACITY {
        return Err(format!(
            "the snapshot claims a prompt of {} tokens (at most {most}), {} frames and {} before them",
            head.prefix.len(),
            frames.len(),
            head.gone.len()
        ));
    }
    let stamps: Vec<FrameUsed> = frames.iter().map(|frame| frame.stamp.into()).collect();
    if head.frames != stamps {
        return Err("the snapshot belongs to other frames than those before it".into());
    }
    Ok(())
}
