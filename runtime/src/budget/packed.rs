//! The second copy of a decoder's quantized matrices: candle arranges them for the processor's dot products
//! and keeps the originals; where an ARM core has none, and of matrices that are f16 or f32, products are made with f32 copies.
//!
//! Comes in: a format, and a board or this machine. Goes out: which copy its matrices have. It follows
//! candle 0.11's choice; sizes that are no multiple of its tiles are not told apart, so that the answer errs
//! towards more memory.

use utr_models::gguf::Format;
use utr_models::quantized::multiplied_as_they_are;

use crate::board::Board;

/// What the processor multiplies with in place of quantized matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Second {
    /// With the matrices themselves.
    None,
    /// With as many bytes, arranged for its dot products.
    Packed,
    /// With f32.
    Dense,
}

impl Second {
    fn packed(packs: bool) -> Self {
        if packs { Self::Packed } else { Self::None }
    }

    /// Bytes beside matrices that take so many.
    pub fn bytes(self, matrices: u64, format: Format) -> u64 {
        match self {
            Self::None => 0,
            Self::Packed => matrices,
            Self::Dense => format.weights(matrices).saturating_mul(4),
        }
    }
}

/// What this machine does with matrices of a format.
pub fn here(format: Format) -> Second {
    match format {
        Format::F32 | Format::F16 => Second::Dense,
        _ if !multiplied_as_they_are() => Second::Dense,
        Format::Q4_0 => Second::packed(dot_products() && cfg!(target_arch = "aarch64")),
        Format::Q8_0 => Second::packed(dot_products()),
        Format::Q4K => Second::packed(dot_products() || wide()),
    }
}

/// What a board does; boards with a profile of their own have ARM cores.
pub fn on(board: &Board, format: Format) -> Second {
    match &board.compute {
        _ if matches!(format, Format::F32 | Format::F16) => Second::Dense,
        Some(compute) if compute.dot_products => Second::Packed,
        Some(_) => Second::Dense,
        None => Second::None,
    }
}

#[cfg(target_arch = "aarch64")]
fn dot_products() -> bool {
    std::arch::is_aarch64_feature_detected!("dotprod") || std::arch::is_aarch64_feature_detected!("i8mm")
}

#[cfg(target_arch = "x86_64")]
fn dot_products() -> bool {
    std::arch::is_x86_feature_detected!("avx512vnni") || std::arch::is_x86_feature_detected!("avxvnni")
}

#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
fn dot_products() -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
fn wide() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
fn wide() -> bool {
    false
}
