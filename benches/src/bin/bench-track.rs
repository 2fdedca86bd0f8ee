//! Our half of `benches/track/run.py`: the tracker as a library, timed on demand.
//!
//! Comes in: `bench-track DETECTIONS RESULTS`, MOTChallenge text and a file to write, then one word a line on standard input. Goes out: one number a
//! line, the seconds of `read` (text to boxes) or of `track` (a new tracker over all frames, boxes in memory). RESULTS holds what was seen in every
//! frame, as JSON lines `[[id, x, y, w, h, score], ...]` with all digits. It compares nothing.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use utr_training::tracks::byte::{ByteParams, ByteTracker};
use utr_training::tracks::mot::read_detections;
use utr_training::tracks::{Detection, Seen, Tracker};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [detections, results] = arguments.as_slice() else { bail!("usage: bench-track DETECTIONS RESULTS") };
    let path = Path::new(detections);
    let frames: Vec<Vec<Detection>> = read_detections(path)?.iter().map(|(_, d)| d.to_vec()).collect();
    write(results, &track(&frames)).with_context(|| format!("writing {results}"))?;
    for word in std::io::stdin().lines() {
        let began = Instant::now();
        match word?.as_str() {
            "read" => drop(std::hint::black_box(read_detections(path)?)),
            "track" => drop(std::hint::black_box(track(&frames))),
            other => bail!("{other:?}: read or track"),
        }
        println!("{}", began.elapsed().as_secs_f64());
    }
    Ok(())
}

fn track(frames: &[Vec<Detection>]) -> Vec<Vec<Seen>> {
    let mut tracker = ByteTracker::new(ByteParams::default());
    frames.iter().map(|detections| tracker.update(detections)).collect()
}

fn write(path: &str, frames: &[Vec<Seen>]) -> Result<()> {
    let mut out = std::io::BufWriter::new(std::fs::File::create(path)?);
    for seen in frames {
        let row = |s: &Seen| {
            let [x, y, w, h] = s.tlwh;
            (s.id, x, y, w, h, s.score)
        };
        serde_json::to_writer(&mut out, &seen.iter().map(row).collect::<Vec<_>>())?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}
