//! What host and device agree on: the network, its weights, its prompt and its bundle.

pub mod anyres;
pub mod atomic;
pub mod backward;
pub mod bpe;
pub mod bundle;
pub mod config;
pub mod device;
pub mod error;
pub mod frame;
pub mod generate;
pub mod gguf;
mod gguf_vocab;
mod jinja;
pub mod manifest;
pub mod network;
pub mod onnx;
mod onnx_file;
pub mod ops;
pub mod preprocess;
pub mod prompt;
pub mod quantized;
pub mod qwen2;
pub mod text;
pub mod vision;
pub mod weights;

pub use config::Config;
pub use device::DeviceChoice;
pub use error::{Error, Result};
pub use frame::RgbFrame;
pub use network::Network;
