//! The second copy of a decoder's quantized matrices: candle arranges them for the processor's dot products
//! and keeps the originals.
//!
//! Comes in: a format, and a board or this machine. Goes out: whether its matrices are kept twice. It follows
//! candle 0.11's choice; sizes that are no multiple of its tiles are not told apart, so that the answer errs
//! towards more memory.

use utr_models::gguf::Format;

use crate::board::Board;

/// Whether this machine keeps matrices of a format twice.
pub fn here(format: Format) -> bool {
    match format {
        Format::F32 | Format::F16 => false,
        Format::Q4_0 => dot_products() && cfg!(target_arch = "aarch64"),
        Format::Q8_0 => dot_products(),
        Format::Q4K => dot_products() || wide(),
    }
}

/// Whether a board does; boards with a profile of their own have ARM cores.
pub fn on(board: &Board, format: Format) -> bool {
    let packable = !matches!(format, Format::F32 | Format::F16);
    packable && board.compute.as_ref().is_some_and(|compute| compute.dot_products)
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
