//! One picture as it travels from a camera, a file or the procedural world to preprocessing.
//!
//! Comes in and goes out: RGB bytes, rows from the top, no padding. Nothing is resized or converted here.

use crate::error::{Error, Result};

/// An RGB picture: `data` is (height, width, 3) bytes, tightly packed.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbFrame {
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// (height, width, 3) bytes.
    pub data: Vec<u8>,
}

impl RgbFrame {
    /// Wraps packed bytes; an error where their number is not `width * height * 3` or a side is zero.
    pub fn new(width: usize, height: usize, data: Vec<u8>) -> Result<Self> {
        if width == 0 || height == 0 || data.len() != width * height * 3 {
            return Err(Error::Argument(format!(
                "a {width}x{height} RGB frame needs {} bytes and sides above zero, got {} bytes",
                width * height * 3,
                data.len()
            )));
        }
        Ok(Self { width, height, data })
    }
}

impl std::fmt::Debug for RgbFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RgbFrame({}x{})", self.width, self.height)
    }
}
