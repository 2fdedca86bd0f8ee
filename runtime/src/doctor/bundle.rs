//! The bundle against memory and disk: whether it fits before a byte of it but the manifest is read, and on
//! this machine whether it loads.
//!
//! Comes in: the options, and the memory that is there. Goes out: checks, the need in bytes, and a limit for
//! the service. It loads the model only where it runs and fits.

use std::path::Path;

use super::{Check, Options};
use crate::board::{Board, disk_free};
use crate::budget::{Available, Need, mode_name, size};
use crate::load::{self, Model};
use crate::refuse;

/// Room for what a device writes beside the bundle: engines, logs, a recording.
const SPARE: u64 = 1 << 30;

/// What was found.
pub struct Found {
    /// In order.
    pub checks: Vec<Check>,
    /// Bytes of memory.
    pub need: Option<Need>,
}

/// Looks at the bundle; `here` says that this machine would run it.
pub fn look(options: &Options, board: &Board, available: Option<Available>, here: bool) -> Found {
    const NAME: &str = "bundle";
    let alone = |check| Found { checks: vec![check], need: None };
    let folder = match &options.bundle {
        Ok(folder) => folder,
        Err(error) => {
            return alone(Check::no(NAME, error.to_string(), "give one with --bundle, or set UTR_BUNDLE"));
        }
    };
    let anew = "get the bundle anew, or name another with --bundle";
    let sizes = match load::sizes(folder) {
        Ok(sizes) if here => sizes,
        Ok(sizes) => sizes.on(board),
        Err(error) => return alone(Check::no(NAME, error.to_string(), anew)),
    };
    let choice = sizes.choice(options.wish);
    let need = sizes.need(choice, options.engines);
    let fits = refuse::admit(&sizes, options.engines, options.wish, available);
    let left = available.map_or("unknown memory".into(), |available| available.to_string());
    let how = format!("{} frames, {}", choice.frames, mode_name(choice.mode));
    let mut checks = vec![match &fits {
        Ok(_) => Check::ok(
            "memory budget",
            true,
            format!("{} needs {} ({need}) with {how}; {left}", sizes.name(), size(need.total())),
        ),
        Err(error) => {
            Check::no("memory budget", error.to_string(), "see the message; it names what would fit")
        }
    }];
    if here && fits.is_ok() {
        checks.push(match Model::open_for(folder, options.engines, options.wish) {
            Ok(model) => {
                Check::ok(NAME, true, format!("{} ({}): loads", model.language.name, folder.display()))
            }
            Err(error) => {
                let remedy = format!("see the message; where a file is damaged, {anew}");
                Check::no(NAME, error.to_string(), remedy)
            }
        });
    }
    checks.extend(here.then(|| disk(folder)).flatten());
    Found { checks, need: Some(need) }
}

/// Free space where the bundle lies: an update holds two copies for a moment.
fn disk(folder: &Path) -> Option<Check> {
    let free = disk_free(folder)?;
    let files = std::fs::read_dir(folder).ok()?.flatten();
    let bundle =
        files.filter_map(|file| file.metadata().ok()).fold(0u64, |sum, data| sum.saturating_add(data.len()));
    let found = format!("{} free where the bundle lies", size(free));
    Some(if free < bundle.saturating_add(SPARE) {
        let remedy = format!(
            "an update needs room for a second copy ({}) and {} beside it: sudo apt clean, journalctl --vacuum-size=100M, or move it to NVMe",
            size(bundle),
            size(SPARE)
        );
        Check::note("disk", found, remedy)
    } else {
        Check::ok("disk", false, found)
    })
}
