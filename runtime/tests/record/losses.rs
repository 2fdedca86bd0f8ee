//! Disks that are slow or full.

use std::io::{Cursor, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use utr_models::RgbFrame;
use utr_models::manifest::WindowMode;
use utr_runtime::answer::{Answer, Question};
use utr_runtime::capture::{Frame, Stamp};
use utr_runtime::decode::KvPrecision;
use utr_runtime::error::Error;
use utr_runtime::interrupt::Interrupt;
use utr_runtime::pipeline::{Look, Pipeline, Settings};
use utr_runtime::record::{Limits, Mark, Recorder, Recording};
use utr_runtime::session::Observer;
use utr_runtime::window::EncodedFrame;

use crate::studio::{self, model, replayed};

/// A disk that can be stopped, and that has only so many bytes.
#[derive(Clone, Default)]
struct Disk(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    file: Cursor<Vec<u8>>,
    stopped: bool,
    waiting: bool,
    size: Option<usize>,
}

impl Disk {
    fn stop(&self, stop: bool) {
        self.0.0.lock().unwrap().stopped = stop;
        self.0.1.notify_all();
    }

    fn wait_until_somebody_waits(&self) {
        let mut state = self.0.0.lock().unwrap();
        while !state.waiting {
            state = self.0.1.wait(state).unwrap();
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.0.lock().unwrap().file.get_ref().clone()
    }
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut state = self.0.0.lock().unwrap();
        while state.stopped {
            state.waiting = true;
            self.0.1.notify_all();
            state = self.0.1.wait(state).unwrap();
        }
        let room = state.size.map_or(bytes.len(), |size| size.saturating_sub(state.file.get_ref().len()));
        if room == 0 {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        state.file.write(&bytes[..bytes.len().min(room)])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Seek for Disk {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.0.0.lock().unwrap().file.seek(to)
    }
}

/// Noise, so large that each picture fills a chunk.
fn frame(index: usize) -> Frame {
    let side = 1200;
    let mut state = index as u32 + 1;
    let data = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 11) as u8
    });
    let image = RgbFrame::new(side, side, data.take(side * side * 3).collect()).unwrap();
    Frame { stamp: Stamp { index, pts_ms: index as u64 * 100 }, captured: Instant::now(), image }
}

fn look(frame: &Frame, taken: bool) -> Look {
    let picture = RgbFrame::new(1, 1, vec![0; 3]).unwrap();
    let encoded = EncodedFrame { stamp: frame.stamp, captured: frame.captured, picture, tokens: Vec::new() };
    Look { frame: Arc::new(encoded), taken, encode_ms: 1.0, prefill_ms: 2.0 }
}

fn settings(mode: WindowMode) -> Settings {
    Settings { mode, kv: KvPrecision::F16, ..Settings::exact(4) }
}

fn saved(folder: &Path, disk: &Disk) -> Recording {
    let path = folder.join("disk.mcap");
    std::fs::write(&path, disk.bytes()).unwrap();
    Recording::open(&path).unwrap()
}

/// What a window of these frames is answered.
fn answer(mode: WindowMode, frames: &[usize]) -> (Question, Answer) {
    let mut pipeline = Pipeline::new(model(), &settings(mode), Interrupt::default()).unwrap();
    let frames: Vec<_> = frames.iter().map(|index| Arc::new(frame(*index))).collect();
    pipeline.see(&frames).unwrap();
    let question = Question::new("What happens in the clip?");
    let answer = pipeline.ask(&question, &mut |_| Ok(())).unwrap();
    (question, answer)
}

#[test]
fn frames_that_a_slow_disk_cannot_take_are_a_gap_and_nothing_is_claimed_across_it() {
    let folder = tempfile::tempdir().unwrap();
    for mode in [WindowMode::Exact, WindowMode::Rolling] {
        let disk = Disk::default();
        let limits = Limits { items: 2, ..Limits::default() };
        let note = studio::session(&settings(mode));
        let recorder = Recorder::start(disk.clone(), Path::new("disk"), &note, limits).unwrap();
        disk.stop(true);
        let see = |index, taken| {
            let frame = frame(index);
            recorder.frame(&Arc::new(frame.clone()), &look(&frame, taken));
        };
        see(0, true);
        disk.wait_until_somebody_waits();
        // Two wait, three are lost; one was never taken and is no loss.
        (1..6).for_each(|index| see(index, true));
        see(6, false);
        assert_eq!(recorder.report().lost_frames, 3);
        disk.stop(false);
        while recorder.report().frames < 3 {
            std::thread::yield_now();
        }
        (7..11).for_each(|index| {
            see(index, true);
            while recorder.report().frames < index as u64 - 3 {
                std::thread::yield_now();
            }
        });
        // Before the gap, across it, behind it.
        for frames in [&[0, 1, 2][..], &[4, 5, 7], &[7, 8, 9, 10]] {
            let (question, answer) = answer(mode, frames);
            recorder.answer(&question, &Ok(answer));
        }
        let report = recorder.finish().unwrap();
        assert_eq!((report.frames, report.lost_frames, report.answers, report.lost_answers), (7, 3, 3, 0));
        let recording = saved(folder.path(), &disk);
        let indices: Vec<_> = recording.frames().iter().map(|frame| frame.stamp.index).collect();
        assert_eq!(indices, [0, 1, 2, 7, 8, 9, 10]);
        assert_eq!(recording.marks(), [(0, Mark::Reset), (3, Mark::Gap(3))]);
        let replayed = replayed(&recording, model()).unwrap();
        let of = |first: usize| {
            let mut all = replayed.iter();
            all.find(|replayed| replayed.recorded.as_ref().unwrap().frames[0].index == first).unwrap()
        };
        assert!(of(0).equal, "{mode:?}: {:?}", of(0).reason);
        assert!(!of(4).equal && of(4).reason.as_ref().unwrap().contains("not all frames"));
        // In rolling the lost frames went into these; in exact they did not.
        assert_eq!(of(7).equal, mode == WindowMode::Exact, "{:?}", of(7).reason);
        assert_eq!(of(7).now.is_none(), mode == WindowMode::Rolling);
    }
}

#[test]
fn a_full_disk_ends_the_recording_and_keeps_what_came_before() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let note = studio::session(&settings(WindowMode::Exact));
    let recorder =
        Recorder::start(disk.clone(), Path::new("/disk/a.mcap"), &note, Limits::default()).unwrap();
    disk.0.0.lock().unwrap().size = Some(11_000_000);
    let mut index = 0;
    while !recorder.failed() {
        let frame = frame(index);
        recorder.frame(&Arc::new(frame.clone()), &look(&frame, true));
        index += 1;
    }
    let lost = recorder.report().lost_frames;
    let frame = frame(index);
    recorder.frame(&Arc::new(frame.clone()), &look(&frame, true));
    assert!(recorder.report().lost_frames > lost, "a recorder that failed takes nothing");
    let error = recorder.finish().unwrap_err();
    let Error::Io { path, reason } = &error else { panic!("{error}") };
    assert_eq!((path.as_path(), reason.kind()), (Path::new("/disk/a.mcap"), std::io::ErrorKind::StorageFull));
    let recording = saved(folder.path(), &disk);
    assert_eq!(recording.frames().len(), 2, "two and a half pictures have room");
    assert!(recording.picture(1).is_ok() && recording.flaw().is_some());
}
