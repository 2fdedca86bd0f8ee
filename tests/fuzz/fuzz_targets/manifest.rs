//! A bundle's manifest, with the right hash beside it: whatever it says about files that are not there.
#![no_main]

use std::cell::OnceCell;

use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use utr_models::bundle::Bundle;

thread_local!(static FOLDER: OnceCell<tempfile::TempDir> = const { OnceCell::new() });

fuzz_target!(init: utr_fuzz::seed("manifest"), |bytes: &[u8]| {
    FOLDER.with(|folder| {
        let folder = folder.get_or_init(|| tempfile::tempdir().expect("a folder")).path();
        let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        std::fs::write(folder.join("manifest.json"), bytes).expect("a manifest");
        std::fs::write(folder.join("manifest.sha256"), format!("{hash}  manifest.json\n")).expect("its hash");
        let _ = Bundle::open(folder);
    });
});
