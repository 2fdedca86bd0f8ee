//! What host and device agree on: the network, its weights, its prompt and its bundle.

pub mod error;
pub mod frame;
pub mod config;
pub mod network;
pub mod onnx;
pub mod ops;
pub mod qwen2;
pub mod vision;
pub mod weights;

pub use error::{Error, Result};
pub use frame::RgbFrame;
