//! `utr ros` in a build without the feature `ros2`: says so.

use std::path::Path;

use crate::cli::Ros;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;

/// Refuses.
///
/// # Errors
/// [`Error::Argument`], always.
pub fn run(_ros: &Ros, _bundle: &Path, _interrupt: &Interrupt) -> Result<()> {
    Err(Error::Argument(
        "utr ros is not in this build; build with `cargo build --release -p utr-runtime --features ros2`"
            .into(),
    ))
}
