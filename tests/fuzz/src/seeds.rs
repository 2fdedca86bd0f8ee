//! Writes the first files of every target, made from the shipped bundle, into `corpus/`.

use std::fs::{create_dir_all, write};
use std::path::Path;

use utr_fuzz::{bundle, session};
use utr_runtime::answer::Question;
use utr_runtime::record::{Recording, save_view};

fn main() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let put = |target: &str, name: &str, bytes: &[u8]| {
        create_dir_all(corpus.join(target)).expect("a folder");
        write(corpus.join(target).join(name), bytes).expect("a seed");
    };
    for (place, uri) in [
        "clip.mp4",
        "file:///a%20b.mp4",
        "test://ball?frames=7&width=63",
        "pattern://squares?seed=3&fps=5",
        "v4l2:///dev/video0?width=640",
        "csi://0",
        "rtsp://host:554/s",
        "replay://a.mcap",
        "gst://videotestsrc ! videoconvert",
    ]
    .iter()
    .enumerate()
    {
        put("source", &place.to_string(), uri.as_bytes());
    }
    let read = |name: &str| std::fs::read(bundle().join(name)).expect("a file of the bundle");
    put("manifest", "shipped", &read("manifest.json"));
    put("template", "shipped", &read("chat_template.jinja"));
    let (mut pipeline, note, view) = session();
    let question = Question::new("What is it?");
    let answer = pipeline.answer(&view, &question, &mut |_| Ok(())).expect("an answer");
    let path = corpus.join("recording/shipped");
    create_dir_all(corpus.join("recording")).expect("a folder");
    save_view(&path, &note, &view, &[(question, answer)]).expect("a recording");
    let recording = Recording::open(&path).expect("a recording");
    put("snapshot", "shipped", &recording.snapshot_bytes(0).expect("a snapshot"));
}
