//! A recording: everything in it is read.
#![no_main]

use std::cell::OnceCell;

use libfuzzer_sys::fuzz_target;
use utr_runtime::record::Recording;

thread_local!(static FOLDER: OnceCell<tempfile::TempDir> = const { OnceCell::new() });

fuzz_target!(init: utr_fuzz::seed("recording"), |bytes: &[u8]| {
    FOLDER.with(|folder| {
        let path = folder.get_or_init(|| tempfile::tempdir().expect("a folder")).path().join("a.mcap");
        std::fs::write(&path, bytes).expect("a file");
        let Ok(recording) = Recording::open(&path) else { return };
        let _ = (recording.session(), recording.flaw());
        for place in 0..recording.frames().len().min(20) {
            let _ = recording.picture(place);
        }
        for place in 0..recording.answers().min(20) {
            let _ = recording.answer(place);
        }
    });
});
