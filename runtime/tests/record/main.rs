//! Recordings: what goes in comes out, and answers come again token for token.
//!
//! In: the bundle that ships and drawn clips. Out: a failure that names the mode, or the byte at which a file was cut.

mod command;
mod damage;
mod losses;
mod studio;

use std::sync::Arc;

use studio::{Studio, clip, model, replayed};
use utr_models::manifest::WindowMode;
use utr_runtime::answer::{Answerer, Question};
use utr_runtime::capture::{self, CaptureOptions};
use utr_runtime::decode::KvPrecision;
use utr_runtime::interrupt::Interrupt;
use utr_runtime::pipeline::{Pipeline, Seeing, Settings};
use utr_runtime::prefill::Reading;
use utr_runtime::record::{Mark, Pictures, Recording, save_view};
use utr_runtime::sample::{Sampling, sample};
use utr_runtime::source::Source;

const QUESTION: &str = "What happens in the clip?";

#[test]
fn frames_and_stamps_come_back_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mcap");
    let mut studio = Studio::new(&path, WindowMode::Exact, KvPrecision::F16, Pictures::Source);
    // Every third frame of noise, at an odd size: numbers with holes, pictures that do not compress.
    let frames: Vec<_> =
        clip("pattern://noise?frames=60&width=53&height=37&fps=29").into_iter().step_by(3).collect();
    frames.iter().for_each(|frame| studio.see(frame));
    assert_eq!(studio.finish().frames, 20);
    let source = Source::parse(&format!("replay://{}", path.display())).unwrap();
    let mut replay = capture::open(&source, &CaptureOptions::default()).unwrap();
    assert_eq!(replay.total(), Some(20));
    for frame in &frames {
        assert_eq!(replay.advance().unwrap(), Some(frame.stamp));
        assert_eq!(replay.image().unwrap(), frame.image);
    }
    assert_eq!(replay.advance().unwrap(), None);
    let indices = |sampling| {
        let sampled = sample(&source, sampling, &CaptureOptions::default()).unwrap();
        sampled.frames.iter().map(|frame| frame.stamp.index).collect::<Vec<_>>()
    };
    assert_eq!(indices(Sampling::Default { fps: 2.0, frames: 4 }), [48, 51, 54, 57], "the newest");
    assert_eq!(indices(Sampling::Uniform { frames: 3 }), [0, 27, 57], "spread over what was recorded");
}

#[test]
fn answers_of_a_long_session_come_again_in_every_mode() {
    let folder = tempfile::tempdir().unwrap();
    for (mode, kv, pictures) in [
        (WindowMode::Exact, KvPrecision::F16, Pictures::Source),
        (WindowMode::Ahead, KvPrecision::F16, Pictures::Model),
        (WindowMode::Rolling, KvPrecision::F16, Pictures::Source),
        (WindowMode::Rolling, KvPrecision::Q8, Pictures::Model),
    ] {
        let path = folder.path().join(format!("{mode:?}{kv:?}.mcap"));
        let mut studio = Studio::new(&path, mode, kv, pictures);
        // More than three windows.
        for frame in clip("pattern://squares?frames=110&width=200&height=90&seed=4") {
            studio.see(&frame);
            if [3, 40, 77, 109].contains(&frame.stamp.index) {
                studio.ask(QUESTION, 0.0);
                // Drawn: the smallest change of the logits shows sooner.
                studio.ask(QUESTION, 1.5);
            }
        }
        let report = studio.finish();
        assert_eq!((report.frames, report.answers, report.lost_frames), (110, 8, 0));
        let recording = Recording::open(&path).unwrap();
        assert_eq!(recording.flaw(), None);
        let replayed = replayed(&recording, model()).unwrap();
        assert_eq!(replayed.len(), 8);
        for replayed in replayed {
            let (recorded, now) = (replayed.recorded.unwrap(), replayed.now.expect("it was asked"));
            assert_eq!(recorded.tokens, now.tokens, "{mode:?} {kv:?}");
            assert!(replayed.equal && now.tokens.len() > 4, "{:?}", now.text);
            assert_eq!(recorded.frames, now.frames);
            assert_eq!(recorded.history_reaches, now.history_reaches, "{mode:?}");
        }
    }
}

/// A window that has slid for a long time.
fn long(mode: WindowMode, kv: KvPrecision) -> (Settings, Pipeline) {
    let settings = Settings { mode, kv, ..Settings::exact(32) };
    let mut pipeline = Pipeline::new(model(), &settings, Interrupt::default()).unwrap();
    let frames = clip("pattern://squares?frames=120&seed=11&width=128&height=72");
    pipeline.see(&frames).unwrap();
    (settings, pipeline)
}

fn bytes(reading: &Reading) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::iter::once(reading.prefix().span())
        .chain(reading.spans())
        .for_each(|span| span.write_to(&mut bytes).unwrap());
    bytes
}

#[test]
fn one_saved_window_answers_again_and_its_keys_and_values_are_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    for mode in [WindowMode::Exact, WindowMode::Ahead, WindowMode::Rolling] {
        for kv in [KvPrecision::F32, KvPrecision::F16, KvPrecision::Q8] {
            let path = folder.path().join("saved.mcap");
            let (settings, mut pipeline) = long(mode, kv);
            let view = pipeline.view();
            let question = Question::new(QUESTION);
            let answer = pipeline.answer(&view, &question, &mut |_| Ok(())).unwrap();
            let session = studio::session(&settings);
            save_view(&path, &session, &view, &[(question, answer.clone())]).unwrap();
            let recording = Recording::open(&path).unwrap();
            assert_eq!((recording.flaw(), recording.frames().len()), (None, view.frames.len()));
            let replayed = replayed(&recording, model()).unwrap().remove(0);
            assert_eq!(replayed.now.unwrap().tokens, answer.tokens, "{mode:?} {kv:?}");
            assert!(replayed.equal);
            let snapshot = recording.marks().iter().any(|(_, mark)| matches!(mark, Mark::Snapshot(_)));
            assert_eq!(snapshot, mode == WindowMode::Rolling);
            if snapshot {
                let language = model().language;
                let before = view.reading.as_ref().unwrap();
                let after = recording.snapshot(0, &language, kv, &view.frames).unwrap();
                assert_eq!(bytes(before), bytes(&after));
                assert_eq!(before.history_reaches(), after.history_reaches());
                assert!(after.history_reaches().unwrap().index < view.frames[0].stamp.index);
            }
        }
    }
}

#[test]
fn a_stream_goes_on_from_a_snapshot_as_if_it_had_not_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved.mcap");
    let (settings, mut pipeline) = long(WindowMode::Rolling, KvPrecision::F16);
    let view = pipeline.view();
    save_view(&path, &studio::session(&settings), &view, &[]).unwrap();
    // A view that is held pins its keys and values, and frames would soon be dropped.
    let before = view.frames.clone();
    drop(view);
    let more = clip("pattern://gradient?frames=20");
    pipeline.see(&more).unwrap();
    let expected = pipeline.ask(&Question::new(QUESTION), &mut |_| Ok(())).unwrap();

    let recording = Recording::open(&path).unwrap();
    let model = model();
    let language = Arc::clone(&model.language);
    let reading = recording.snapshot(0, &language, settings.kv, &before).unwrap();
    let mut seeing = Seeing::new(model.encoder, &language, &settings, Interrupt::default()).unwrap();
    seeing.resume(reading.clone()).unwrap();
    seeing.see(&more).unwrap();
    let view = seeing.view();
    let mut answerer = Answerer::new(Arc::clone(&language), settings.kv);
    let found =
        answerer.answer(&view, &Question::new(QUESTION), &Interrupt::default(), &mut |_| Ok(())).unwrap();
    assert_eq!((found.tokens, found.frames), (expected.tokens, expected.frames));
    assert_eq!(found.history_reaches, expected.history_reaches);
    let settings = Settings { mode: WindowMode::Ahead, ..settings };
    let mut ahead = Seeing::new(studio::model().encoder, &language, &settings, Interrupt::default()).unwrap();
    assert!(ahead.resume(reading).is_err(), "only rolling has one reading");
}

#[test]
fn what_belongs_to_another_bundle_or_other_settings_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved.mcap");
    let (settings, mut pipeline) = long(WindowMode::Rolling, KvPrecision::F16);
    let view = pipeline.view();
    let question = Question::new(QUESTION);
    let answer = pipeline.answer(&view, &question, &mut |_| Ok(())).unwrap();
    save_view(&path, &studio::session(&settings), &view, &[(question, answer)]).unwrap();
    let recording = Recording::open(&path).unwrap();
    let language = model().language;
    let refused = |kv, frames: &[_]| recording.snapshot(0, &language, kv, frames).unwrap_err().to_string();
    assert!(refused(KvPrecision::Q8, &view.frames).contains("Q8"));
    assert!(refused(settings.kv, &view.frames[1..]).contains("other frames"));
    assert!(recording.snapshot(1, &language, settings.kv, &view.frames).is_err());
    let mut other = model();
    Arc::get_mut(&mut other.language).unwrap().hash = Some("0".repeat(64));
    let message = recording.snapshot(0, &other.language, settings.kv, &view.frames).unwrap_err().to_string();
    assert!(
        message.contains(&"0".repeat(64)) && message.contains(language.hash.as_ref().unwrap()),
        "{message}"
    );
    let message = replayed(&recording, other).unwrap_err().to_string();
    assert!(message.contains("--bundle"), "{message}");
}
