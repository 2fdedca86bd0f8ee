//! The text after `--source`: what is understood is spelled so that it is understood again, as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use utr_runtime::source::Source;

fuzz_target!(init: utr_fuzz::seed("source"), |bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(source) = Source::parse(text) {
        let shown = source.to_string();
        if shown.contains("***") {
            // What may be a secret is not shown, and cannot be read back.
            return;
        }
        let again = Source::parse(&shown);
        assert!(again.is_ok(), "{source} is not understood again: {again:?}");
    }
});
