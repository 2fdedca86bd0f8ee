//! Video to UTR data to a trained, measured, quantized bundle: the library behind `utr-train`.

pub mod queries;
pub mod sample;
pub mod world;
pub mod train;
pub mod validate;
