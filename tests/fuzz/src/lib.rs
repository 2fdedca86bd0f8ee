//! What targets and seeds share: the shipped bundle and a short window.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use utr_runtime::capture::{CaptureOptions, Frame, open};
use utr_runtime::decode::KvPrecision;
use utr_runtime::encode::EncoderKind;
use utr_runtime::interrupt::Interrupt;
use utr_runtime::load::{Language, Model};
use utr_runtime::pipeline::{Pipeline, Settings, View};
use utr_runtime::record::SessionNote;
use utr_runtime::sample::each_due;
use utr_runtime::source::Source;
use utr_runtime::window::EncodedFrame;

/// How the snapshots are stored.
pub const SETTINGS_KV: KvPrecision = KvPrecision::Q8;

/// The bundle that ships.
pub fn bundle() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/bundles/utr-nano")
}

fn model() -> Model {
    Model::open(&bundle(), Some(EncoderKind::Candle)).expect("the shipped bundle")
}

/// The part that answers.
pub fn language() -> Arc<Language> {
    model().language
}

/// A rolling session that has slid, its description and its window.
pub fn session() -> (Pipeline, SessionNote, View) {
    let model = model();
    let settings = Settings {
        frames: 2,
        mode: utr_models::manifest::WindowMode::Rolling,
        kv: SETTINGS_KV,
        system: None,
    };
    let note = SessionNote::new(&model.language, "candle", &settings, "pattern://squares");
    let mut pipeline = Pipeline::new(model, &settings, Interrupt::default()).expect("a pipeline");
    pipeline.see(&clip()).expect("frames");
    let view = pipeline.view();
    (pipeline, note, view)
}

/// The frames of its window.
pub fn frames() -> Vec<Arc<EncodedFrame>> {
    session().2.frames
}

fn clip() -> Vec<Arc<Frame>> {
    let source = Source::parse("pattern://squares?frames=5&width=24&height=16").expect("a source");
    let mut clip = open(&source, &CaptureOptions::default()).expect("a clip");
    let mut frames = Vec::new();
    each_due(clip.as_mut(), 1e6, &mut |frame, _| {
        frames.push(frame);
        Ok(true)
    })
    .expect("frames");
    frames
}
