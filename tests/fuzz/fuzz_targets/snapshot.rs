//! The keys and values of a window, for the shipped bundle.
#![no_main]

use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use utr_fuzz::{SETTINGS_KV, frames, language};
use utr_runtime::load::Language;
use utr_runtime::record::read_snapshot;
use utr_runtime::window::EncodedFrame;

static KNOWN: OnceLock<(Arc<Language>, Vec<Arc<EncodedFrame>>)> = OnceLock::new();

fuzz_target!(init: utr_fuzz::seed("snapshot"), |bytes: &[u8]| {
    let (language, frames) = KNOWN.get_or_init(|| (language(), frames()));
    let _ = read_snapshot(&mut &*bytes, bytes.len() as u64, language, SETTINGS_KV, frames);
});
