//! `utr serve` in a build without the feature `serve`: says so.

use std::path::Path;

use crate::cli::Serve;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;

/// Refuses.
///
/// # Errors
/// [`Error::Argument`], always.
pub fn run(_serve: &Serve, _bundle: &Path, _interrupt: &Interrupt) -> Result<()> {
    Err(Error::Argument("utr serve is not in this build; build with the feature `serve`".into()))
}
