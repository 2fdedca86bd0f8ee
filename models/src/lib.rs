//! What host and device agree on: the network, its weights, its prompt and its bundle.

pub mod error;
pub mod frame;

pub use error::{Error, Result};
pub use frame::RgbFrame;
