//! What the targets share: the first files to alter, made from the shipped bundle, and a short window.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use utr_runtime::answer::Question;
use utr_runtime::capture::{CaptureOptions, Frame, open};
use utr_runtime::decode::KvPrecision;
use utr_runtime::encode::EncoderKind;
use utr_runtime::interrupt::Interrupt;
use utr_runtime::load::{Language, Model};
use utr_runtime::pipeline::{Pipeline, Settings, View};
use utr_runtime::record::{Recording, SessionNote, save_view};
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
        mode: utr_models::manifest::WindowMode::Rolling,
        kv: SETTINGS_KV,
        ..Settings::exact(2)
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

/// Sources in every spelling.
const SOURCES: [&str; 9] = [
    "clip.mp4",
    "file:///a%20b.mp4",
    "test://ball?frames=7&width=63",
    "pattern://squares?seed=3&fps=5",
    "v4l2:///dev/video0?width=640",
    "csi://0",
    "rtsp://host:554/s",
    "replay://a.mcap",
    "gst://videotestsrc ! videoconvert",
];

/// Requests of every shape.
const REQUESTS: [&str; 4] = [
    r#"{"model":"m","messages":[{"role":"user","content":"What moves?"}],"stream":true,"stream_options":{"include_usage":true},"max_tokens":8}"#,
    r#"{"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":[{"type":"video_url","video_url":{"url":"live:default?last=8"}},{"type":"text","text":"<video>What?<|im_end|>"}]}],"temperature":0.5,"top_p":0.9,"seed":-1,"evidence":"time"}"#,
    r#"{"messages":[{"role":"user","content":[{"type":"text","text":"A"},{"type":"video_url","video_url":"file:///a.mp4"}]},{"role":"assistant","content":null},{"role":"user","content":"B"}],"n":1,"stop":null,"tools":[],"response_format":{"type":"text"},"evidence":true}"#,
    r#"{"messages":[{"role":"developer","content":"<|im_start|>"},{"role":"user","content":"\u0000\ud83d\ude00"}],"max_completion_tokens":4096}"#,
];

/// Writes the first files of a target into `corpus/`, before it begins.
pub fn seed(target: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&folder).expect("a folder");
    let put = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).expect("a seed");
    let shipped = |name: &str| std::fs::read(bundle().join(name)).expect("a file of the bundle");
    match target {
        "source" => SOURCES.iter().enumerate().for_each(|(n, uri)| put(&format!("seed{n}"), uri.as_bytes())),
        "chat" => REQUESTS.iter().enumerate().for_each(|(n, body)| put(&format!("seed{n}"), body.as_bytes())),
        "manifest" => put("seed", &shipped("manifest.json")),
        "template" => put("seed", &shipped("chat_template.jinja")),
        _ => {
            let (mut pipeline, note, view) = session();
            let question = Question::new("What is it?");
            let answer = pipeline.answer(&view, &question, &mut |_| Ok(())).expect("an answer");
            let scratch = tempfile::tempdir().expect("a folder");
            let path = scratch.path().join("a.mcap");
            save_view(&path, &note, &view, &[(question, answer)]).expect("a recording");
            match target {
                "snapshot" => {
                    let recording = Recording::open(&path).expect("a recording");
                    put("seed", &recording.snapshot_bytes(0).expect("a snapshot"));
                }
                _ => put("seed", &std::fs::read(&path).expect("the recording")),
            }
        }
    }
}
