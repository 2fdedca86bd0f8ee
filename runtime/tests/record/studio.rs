//! A session without threads: frames are looked at and questions answered one after the other, with a recorder listening.

use std::path::Path;
use std::sync::Arc;

use utr_models::generate::Sampling;
use utr_models::manifest::WindowMode;
use utr_runtime::answer::{Answerer, Question};
use utr_runtime::capture::{self, CaptureOptions, Frame};
use utr_runtime::decode::KvPrecision;
use utr_runtime::interrupt::Interrupt;
use utr_runtime::load::Model;
use utr_runtime::pipeline::{Seeing, Settings};
use utr_runtime::record::{Limits, Pictures, Recorder, Recording, Report, SessionNote};
use utr_runtime::replay::{Replayed, Replayer};
use utr_runtime::sample::each_due;
use utr_runtime::session::Observer;
use utr_runtime::source::Source;

/// The bundle that ships.
pub fn model() -> Model {
    Model::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/bundles/utr-nano")), None).unwrap()
}

/// All frames of a drawn clip.
pub fn clip(uri: &str) -> Vec<Arc<Frame>> {
    let mut clip = capture::open(&Source::parse(uri).unwrap(), &CaptureOptions::default()).unwrap();
    let mut frames = Vec::new();
    each_due(clip.as_mut(), 1e6, &mut |frame, _| {
        frames.push(frame);
        Ok(true)
    })
    .unwrap();
    frames
}

/// How a session with the shipped bundle describes itself.
pub fn session(settings: &Settings) -> SessionNote {
    let model = model();
    SessionNote::new(&model.language, model.encoder.name(), settings, "pattern://squares")
}

/// What asking again gives.
pub fn replayed(recording: &Recording, model: Model) -> utr_runtime::Result<Vec<Replayed>> {
    let interrupt = Interrupt::default();
    let mut all = Vec::new();
    Replayer::new(recording, model, &interrupt)?.run(&mut |replayed| {
        all.push(replayed);
        Ok(())
    })?;
    Ok(all)
}

pub struct Studio {
    seeing: Seeing,
    answerer: Answerer,
    recorder: Recorder,
}

impl Studio {
    pub fn new(path: &Path, mode: WindowMode, kv: KvPrecision, pictures: Pictures) -> Self {
        let settings = Settings { mode, kv, ..Settings::exact(32) };
        let note = SessionNote { pictures, ..session(&settings) };
        let Model { encoder, language } = model();
        let answerer = Answerer::new(Arc::clone(&language), kv);
        let seeing = Seeing::new(encoder, &language, &settings, Interrupt::default()).unwrap();
        let limits = Limits { items: 1000, ..Limits::default() };
        Self { seeing, answerer, recorder: Recorder::create(path, &note, limits).unwrap() }
    }

    pub fn see(&mut self, frame: &Arc<Frame>) {
        let look = self.seeing.look(frame).unwrap();
        self.recorder.frame(frame, &look);
    }

    pub fn ask(&mut self, text: &str, temperature: f32) {
        let sampling = Sampling { temperature, seed: 7, max_tokens: 64, ..Sampling::default() };
        let question = Question::new(text).with_sampling(sampling);
        let view = self.seeing.view();
        let outcome = self.answerer.answer(&view, &question, &Interrupt::default(), &mut |_| Ok(()));
        self.recorder.answer(&question, &outcome);
    }

    pub fn finish(self) -> Report {
        self.recorder.finish().unwrap()
    }
}

/// A frame's note for a writer.
pub fn expected(stamp: utr_runtime::capture::Stamp) -> utr_runtime::record::Expected {
    let note = utr_runtime::record::FrameNote {
        sequence: 0,
        index: stamp.index,
        pts_ms: stamp.pts_ms,
        taken: true,
        width: 1,
        height: 1,
        encode_ms: 0.0,
        prefill_ms: 0.0,
    };
    utr_runtime::record::Expected { note, captured: std::time::Instant::now() }
}
