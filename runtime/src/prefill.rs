//! Prefill: the prompt and the window into the decoder.
//!
//! Comes in: the prompt's tokens before the frames, the window, the vector that closes a clip. Goes out: a decoder that
//! has read them, and a note of what it read, so that the next question about the same window reads only its own tokens.
//! It samples nothing. Mode `exact`: the whole window is read anew whenever it changed.

use crate::decode::Decoder;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::window::Window;

/// Tokens read per step: bounds the attention scores held at once, and how late an interrupt is noticed.
const CHUNK: usize = 256;

/// What a decoder has read, from position 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The prompt before the frames.
    before: Vec<u32>,
    /// The window's generation.
    generation: u64,
    /// Positions read: prompt, frames and newline.
    pub len: usize,
}

/// Reads prompt and window unless `known` says the decoder already has; returns the note and how many positions were
/// taken over.
///
/// # Errors
/// [`Error::Decoder`] where widths disagree; [`Error::Interrupted`] between chunks.
pub fn prefix(
    decoder: &mut dyn Decoder,
    known: Option<Prefix>,
    before: &[u32],
    window: &Window,
    newline: &[f32],
    interrupt: &Interrupt,
) -> Result<(Prefix, usize)> {
    if let Some(known) = known
        && known.before == before
        && known.generation == window.generation()
        && decoder.len() >= known.len
    {
        decoder.truncate(known.len);
        let reused = known.len;
        return Ok((known, reused));
    }
    decoder.truncate(0);
    let hidden = decoder.hidden();
    let mut rows = decoder.embed(before)?;
    for frame in window.iter() {
        rows.extend_from_slice(&frame.tokens);
    }
    rows.extend_from_slice(newline);
    if hidden == 0 || rows.len() % hidden != 0 {
        return Err(Error::Decoder(format!("visual tokens do not have the decoder's width {hidden}")));
    }
    read(decoder, &rows, interrupt)?;
    let len = rows.len() / hidden;
    Ok((Prefix { before: before.to_vec(), generation: window.generation(), len }, 0))
}

/// Reads embedding rows (n, hidden) at the next positions; the logits after the last one, empty where there is none.
///
/// # Errors
/// Whatever the decoder reports; [`Error::Interrupted`] between chunks.
pub fn read(decoder: &mut dyn Decoder, rows: &[f32], interrupt: &Interrupt) -> Result<Vec<f32>> {
    let hidden = decoder.hidden().max(1);
    let mut logits = Vec::new();
    for chunk in rows.chunks(CHUNK * hidden) {
        interrupt.check()?;
        let start = decoder.len();
        let positions = position_range(start, chunk.len() / hidden)?;
        logits = decoder.extend(chunk, &positions)?;
    }
    Ok(logits)
}

fn position_range(start: usize, count: usize) -> Result<Vec<u32>> {
    (start..start + count)
        .map(|p| u32::try_from(p).map_err(|_| Error::Decoder(format!("position {p} is beyond 32 bits"))))
        .collect()
}
