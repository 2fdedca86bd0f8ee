//! Ask a camera about its last 32 frames: the library behind `utr`.
//!
//! The modules are the stages, in the order of the data: camera → capture → window → encode → prefill → decode →
//! answer. Read `pipeline` first: it calls them. Whether a model fits is decided in the order board → budget → shape →
//! estimate → refuse → load.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

pub mod cli;

pub mod pipeline;

pub mod source;

pub mod capture;

pub mod sample;

pub mod window;

pub mod encode;

pub mod prefill;

pub mod decode;

pub mod answer;

pub mod evidence;

pub mod report;

pub mod session;

pub mod record;
pub mod replay;
pub mod watch;

#[cfg(feature = "serve")]
pub mod serve;
#[cfg(not(feature = "serve"))]
#[path = "serve_disabled.rs"]
pub mod serve;

#[cfg(feature = "ros2")]
pub mod ros;
#[cfg(not(feature = "ros2"))]
#[path = "ros_disabled.rs"]
pub mod ros;

// What a board is by its data sheet, and what it says about itself.
pub mod board;

// The bytes that a model needs, and those that are left.
pub mod budget;

// Public models by name, with their sizes.
pub mod shape;

// What to expect on a board that nobody measured.
pub mod estimate;

// What does not fit is refused, with what would.
pub mod refuse;

// What fits is loaded.
pub mod load;

mod aside;
pub mod ask;
pub mod bench;
pub mod bundle;
pub mod doctor;

pub mod error;
pub mod interrupt;
pub mod latest;
pub mod power;
pub mod prepare;
pub mod probe;

pub use error::{Error, Result};
