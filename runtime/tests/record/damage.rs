//! Files that were cut, altered or made of anything.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use proptest::prelude::*;
use utr_models::RgbFrame;
use utr_models::manifest::WindowMode;
use utr_runtime::answer::Question;
use utr_runtime::decode::KvPrecision;
use utr_runtime::interrupt::Interrupt;
use utr_runtime::pipeline::{Pipeline, Settings};
use utr_runtime::record::{Mark, Recording, save_view};

use crate::studio::{self, clip, model};

/// A small recording with everything in it, and its pictures.
fn sample() -> &'static (Vec<u8>, Vec<RgbFrame>) {
    static SAMPLE: OnceLock<(Vec<u8>, Vec<RgbFrame>)> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let settings = Settings { mode: WindowMode::Rolling, kv: KvPrecision::Q8, ..Settings::exact(2) };
        let mut pipeline = Pipeline::new(model(), &settings, Interrupt::default()).unwrap();
        pipeline.see(&clip("pattern://squares?frames=5&width=24&height=16")).unwrap();
        let view = pipeline.view();
        let question = Question::new("What is it?");
        let answer = pipeline.answer(&view, &question, &mut |_| Ok(())).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mcap");
        save_view(&path, &studio::session(&settings), &view, &[(question, answer)]).unwrap();
        (std::fs::read(path).unwrap(), view.frames.iter().map(|frame| frame.picture.clone()).collect())
    })
}

fn write(folder: &Path, bytes: &[u8]) -> PathBuf {
    let path = folder.join("b.mcap");
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Frames, answers and snapshots of a file, all read; none where it is no recording.
fn read_all(path: &Path) -> Option<(usize, usize, usize)> {
    let (_, pictures) = sample();
    let recording = Recording::open(path).ok()?;
    let _ = recording.session();
    let frames = (0..recording.frames().len()).filter(|place| match recording.picture(*place) {
        Ok(picture) => pictures.get(*place) == Some(&picture),
        Err(_) => false,
    });
    let answers = (0..recording.answers()).filter(|place| recording.answer(*place).is_ok()).count();
    let snapshots = recording.marks().iter().filter(|(_, mark)| matches!(mark, Mark::Snapshot(_))).count();
    Some((frames.count(), answers, snapshots))
}

#[test]
fn whatever_stands_before_a_cut_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, pictures) = sample();
    assert_eq!(read_all(&write(folder.path(), bytes)), Some((pictures.len(), 1, 1)));
    let mut before = (0, 0, 0);
    // Every byte near the ends of things, and every 53rd of the long stretches between.
    for cut in (0..bytes.len()).filter(|at| at % 53 == 0 || at % 512 < 12 || bytes.len() - at < 400) {
        let found = read_all(&write(folder.path(), &bytes[..cut]));
        assert_eq!(found.is_some(), cut >= 8, "cut at {cut}");
        let Some(found) = found else { continue };
        assert!(found.0 >= before.0 && found.1 >= before.1 && found.2 >= before.2, "cut at {cut}: {found:?}");
        before = found;
        if found.0 < pictures.len() {
            let recording = Recording::open(&folder.path().join("b.mcap")).unwrap();
            assert!(recording.flaw().unwrap().contains("cut off"), "cut at {cut}: {:?}", recording.flaw());
        }
    }
    assert_eq!(before, (pictures.len(), 1, 1), "only the index is missing");
}

#[test]
fn a_chunk_with_a_wrong_checksum_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = sample().0.clone();
    let at = bytes.windows(4).position(|four| four == b"IDAT").unwrap() + 10;
    bytes[at] ^= 1;
    let recording = Recording::open(&write(folder.path(), &bytes)).unwrap();
    assert!(recording.frames().is_empty());
    let flaw = recording.flaw().unwrap();
    assert!(flaw.contains("checksum of a chunk"), "{flaw}");
}

#[test]
fn what_is_no_recording_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for bytes in [&b""[..], b"PNG", &[0; 4000]] {
        let message = Recording::open(&write(folder.path(), bytes)).unwrap_err().to_string();
        assert!(message.contains("MCAP") && message.contains("b.mcap"), "{message}");
    }
    assert!(Recording::open(&folder.path().join("none.mcap")).is_err());
    // Another program's file: nothing in it is for us.
    let mut file = Vec::new();
    let mut writer = mcap::Writer::new(std::io::Cursor::new(&mut file)).unwrap();
    writer.finish().unwrap();
    drop(writer);
    let recording = Recording::open(&write(folder.path(), &file)).unwrap();
    assert!(recording.frames().is_empty() && recording.session().is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn altered_files_are_read_or_refused(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 1usize..10), 1..4),
        cut in proptest::option::of(any::<prop::sample::Index>()), extreme in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = sample().0.clone();
        for (at, value, length) in changes {
            let at = at.index(bytes.len());
            let end = (at + length).min(bytes.len());
            bytes[at..end].fill(if extreme { 0xFF } else { value });
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let path = write(folder.path(), &bytes);
        let _ = read_all(&path);
        if let Ok(recording) = Recording::open(&path) {
            let language = language();
            let _ = recording.snapshot(0, language, KvPrecision::Q8, &[]);
        }
    }

    #[test]
    fn any_bytes_behind_the_first_eight_are_read_or_refused(tail in proptest::collection::vec(any::<u8>(), 0..300)) {
        let folder = tempfile::tempdir().unwrap();
        let bytes = [&b"\x89MCAP0\r\n"[..], &tail].concat();
        let _ = read_all(&write(folder.path(), &bytes));
    }
}

fn language() -> &'static utr_runtime::load::Language {
    static LANGUAGE: OnceLock<std::sync::Arc<utr_runtime::load::Language>> = OnceLock::new();
    LANGUAGE.get_or_init(|| model().language)
}
