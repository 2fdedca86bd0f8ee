//! What host and device agree on: the network, its weights, its prompt and its bundle.

pub mod atomic;
pub mod bpe;
pub mod bundle;
pub mod error;
pub mod frame;
pub mod generate;
pub mod gguf;
mod gguf_vocab;
mod jinja;
pub mod manifest;
pub mod onnx;
mod onnx_file;
pub mod preprocess;
pub mod prompt;
pub mod text;

pub use error::{Error, Result};
pub use frame::RgbFrame;

#[cfg(test)]
mod peer_tests;
