//! The cases of `utr bench`, each measured in this process.
//!
//! Comes in: a case and its settings. Goes out: a row, with what the board drew and how hot it got meanwhile. Making and loading the model and the first
//! repetition do not count.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use utr_models::DeviceChoice;
use utr_models::manifest::WindowMode;

use super::ceiling::Ceiling;
use super::rows::{Row, median, spread};
use super::subject::{ANSWER, Eye, PICTURE, Subject, picture};
use super::{BenchArgs, Case, spelled};
use crate::answer::Question;
use crate::board::Root;
use crate::budget;
use crate::capture::CaptureOptions;
use crate::capture::live::LiveOptions;
use crate::cli::Mode;
use crate::decode::{Place, Span};
use crate::interrupt::Interrupt;
use crate::load::Model;
use crate::pipeline::Settings;
use crate::power::{Meter, Sampler, Usage};
use crate::prefill::{self, Reading};
use crate::session::{Session, SessionOptions};
use crate::source::Source;
use crate::window::CAPACITY;

/// Frames a second of the source that is followed for `drop%`.
const DROP_FPS: u32 = 30;
/// How long it is followed.
const DROP_TIME: Duration = Duration::from_secs(5);
/// How long something must run for its power to be told: monitors average over tenths of a second.
const POWER_TIME: Duration = Duration::from_secs(2);

/// A case as its process was told it.
struct Task<'a> {
    case: Case,
    mode: Mode,
    arguments: &'a BenchArgs,
    bundle: &'a Path,
    interrupt: &'a Interrupt,
}

/// Measures a case.
pub fn measure(
    case: Case,
    arguments: &BenchArgs,
    bundle: &Path,
    interrupt: &Interrupt,
) -> anyhow::Result<Row> {
    let mode = arguments.entry.window_mode.first().copied().unwrap_or(Mode::Rolling);
    let task = Task { case, mode, arguments, bundle, interrupt };
    // Memory is measured without the block that the ceiling is measured with.
    match case {
        Case::Enc => task.encode(),
        Case::Frame => task.frame(),
        Case::Ttft32 => task.first_token(),
        Case::Tg128 => task.tokens(),
        Case::RssPeak => task.memory(),
        Case::Drop => task.drops(),
    }
}

/// Milliseconds of each repetition, and what was drawn meanwhile.
struct Timed {
    ms: Vec<f64>,
    /// How often it ran while power was looked at.
    runs: usize,
    usage: Usage,
}

fn look() -> Sampler {
    Sampler::start(Meter::open(&Root::here()))
}

impl Task<'_> {
    /// Times a body, after one repetition that does not count. Where the board tells its power, a short one goes on, uncounted, until that was seen.
    fn timed(&self, mut body: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Timed> {
        body()?;
        let (sampler, began) = (look(), Instant::now());
        let mut ms = Vec::new();
        for _ in 0..self.arguments.entry.repetitions {
            let began = Instant::now();
            body()?;
            ms.push(began.elapsed().as_secs_f64() * 1e3);
        }
        let mut runs = ms.len();
        while sampler.sees_power() && began.elapsed() < POWER_TIME {
            body()?;
            runs += 1;
        }
        Ok(Timed { ms, runs, usage: sampler.stop() })
    }

    /// A row; its model is filled in by whoever asked for it.
    fn row(&self, unit: &str, samples: Vec<f64>, ceiling: Option<f64>, usage: Usage, note: String) -> Row {
        Row {
            case: self.case.to_string(),
            model: String::new(),
            bits: None,
            hash: None,
            mode: self.case.by_mode().then(|| spelled(self.mode)),
            value: median(samples.clone()),
            spread: spread(&samples),
            unit: unit.into(),
            ceiling,
            watts: usage.watts,
            per_joule: None,
            celsius: usage.celsius,
            samples,
            note,
        }
    }

    /// Whether the processor's ceilings are those of the decoder.
    fn on_processor(&self) -> bool {
        self.arguments.engine.device == DeviceChoice::Cpu
    }

    /// A row of times in ms, bounded by the machine's arithmetic.
    fn times(&self, timed: Timed, flop: f64, per_run: Option<usize>, note: &str) -> Row {
        let gflop_s = Ceiling::measure().arithmetic_gflop_s;
        let best = Some(flop / gflop_s / 1e6).filter(|best| *best > 0.0 && self.on_processor());
        let note = match best {
            Some(_) => format!("{note}; ceiling: {gflop_s:.0} GFLOP/s"),
            None => note.into(),
        };
        let per_joule = per_run.and_then(|per_run| timed.each(per_run));
        Row { per_joule, ..self.row("ms", timed.ms, best, timed.usage, note) }
    }

    fn encode(&self) -> anyhow::Result<Row> {
        let mut eye = Eye::open(self.arguments, self.bundle)?;
        let frame = picture()?;
        let timed = self.timed(|| eye.see(&frame, self.interrupt))?;
        let [width, height] = PICTURE;
        let note = format!("{width}x{height} resized and encoded by {}", eye.encoder.name());
        Ok(self.times(timed, eye.flop, Some(1), &note))
    }

    fn frame(&self) -> anyhow::Result<Row> {
        let subject = Subject::open(self.arguments, self.bundle, false)?;
        let mut prefill = subject.window(WindowMode::Rolling, self.arguments, self.interrupt)?;
        let mut index = self.arguments.entry.seen as usize;
        let timed = self.timed(|| {
            index += 1;
            prefill.see(&subject.frame(index)?, self.interrupt)?;
            Ok(())
        })?;
        let frames = prefill.reading().map_or(0, Reading::len);
        let note = format!("{} rows behind {frames} frames", subject.tokens);
        Ok(self.times(timed, subject.row_flop * subject.tokens as f64, Some(1), &note))
    }

    fn first_token(&self) -> anyhow::Result<Row> {
        let (arguments, interrupt) = (self.arguments, self.interrupt);
        let subject = Subject::open(arguments, self.bundle, false)?;
        let mut own = subject.own(arguments);
        let question = arguments.entry.question_tokens as usize + 1;
        let (timed, rows) = if self.mode == Mode::Exact {
            let frames = subject.frames()?;
            let timed = self.timed(|| {
                let reading = subject.read_window(&frames, arguments, interrupt)?;
                subject.ask(&reading, &mut own, arguments, interrupt).map(drop)
            })?;
            (timed, subject.before.len() + CAPACITY * subject.tokens + question)
        } else {
            let prefill = subject.window(self.mode.into(), arguments, interrupt)?;
            let reading = prefill.reading().context("no frame was read")?;
            (self.timed(|| subject.ask(reading, &mut own, arguments, interrupt).map(drop))?, question)
        };
        let seen = if self.mode == Mode::Exact { CAPACITY as u32 } else { arguments.entry.seen };
        let note = format!("{rows} rows to read, {seen} frames seen");
        Ok(self.times(timed, subject.row_flop * rows as f64, None, &note))
    }

    fn tokens(&self) -> anyhow::Result<Row> {
        let subject = Subject::open(self.arguments, self.bundle, false)?;
        let prefill = subject.window(WindowMode::Rolling, self.arguments, self.interrupt)?;
        let reading = prefill.reading().context("no frame was read")?;
        let (past, start) = (reading.past(), reading.end());
        let mut own = subject.own(self.arguments);
        let timed = self.timed(|| {
            own.truncate(0);
            for token in 0..ANSWER as u32 {
                self.interrupt.check()?;
                let embedded = subject.decoder.embed(&[token % subject.decoder.vocab().max(1) as u32])?;
                let state = subject.decoder.read(&past, Place { own: &mut own, start }, &embedded, None)?;
                subject.decoder.logits(&state)?;
            }
            Ok(())
        })?;
        let gb_s = Ceiling::measure().memory_gb_s;
        let read = subject.decoder.shape().bytes(self.arguments.entry.kv, start) as f64
            + subject.weight_bytes as f64;
        let best = self.on_processor().then(|| gb_s * 1e9 / read);
        let note = match best {
            Some(_) => format!("at depth {start}; ceiling: {:.1} MB a token at {gb_s:.1} GB/s", read / 1e6),
            None => format!("at depth {start}, {:.1} MB a token", read / 1e6),
        };
        let per_joule = timed.each(ANSWER);
        let rates = timed.ms.iter().map(|ms| ANSWER as f64 * 1e3 / ms).collect();
        Ok(Row { per_joule, ..self.row("tok/s", rates, best, timed.usage, note) })
    }

    fn memory(&self) -> anyhow::Result<Row> {
        let (arguments, interrupt) = (self.arguments, self.interrupt);
        let mut subject = Subject::open(arguments, self.bundle, true)?;
        if let Some(eye) = &mut subject.eye {
            eye.see(&picture()?, interrupt)?;
        }
        let window = subject.window(self.mode.into(), arguments, interrupt)?;
        let reading = match window.reading() {
            Some(reading) => reading.clone(),
            None => subject.filled(|| subject.read_window(&subject.frames()?, arguments, interrupt))?,
        };
        // One frame more, for what reading one takes behind a full window.
        let mut span = Span::new(subject.decoder.shape(), arguments.entry.kv, subject.tokens);
        let place = Place { own: &mut span, start: reading.end() };
        prefill::read(
            subject.decoder.as_ref(),
            &reading.past(),
            place,
            &subject.frame(0)?.tokens,
            interrupt,
        )?;
        subject.ask(&reading, &mut subject.own(arguments), arguments, interrupt)?;
        let peak = budget::used().into_iter().find(|(kind, _)| *kind == "peak");
        let (_, peak) = peak.context("/proc/self/status cannot be read, or names no VmHWM")?;
        let spans = prefill::spans(self.mode.into(), CAPACITY).max(CAPACITY);
        let rows = subject.before.len() + spans * subject.tokens;
        let kv = subject.decoder.shape().bytes(arguments.entry.kv, rows);
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        let (matrices, kv) = (mib(subject.weight_bytes as f64), mib(kv as f64));
        let note = format!("matrices {matrices:.0} MiB, keys and values {kv:.1} MiB");
        Ok(self.row("MiB", vec![mib(peak as f64)], None, Usage::default(), note))
    }

    /// A live test picture is followed while one question after the other is answered; what was due and did not enter the window is lost.
    fn drops(&self) -> anyhow::Result<Row> {
        let source = Source::parse(&format!("test://ball?width=320&height=240&fps={DROP_FPS}&live=true"))?;
        let mut samples = Vec::new();
        let (mut due, mut answers) = (0, 0);
        let mut usage = Usage::default();
        for _ in 0..self.arguments.entry.repetitions.min(3) {
            let model = Model::open(self.bundle, self.arguments.engine.resolve()?)?;
            let frames = model.language.defaults.frames;
            let kv = self.arguments.entry.kv;
            let settings = Settings { mode: self.mode.into(), kv, ..Settings::exact(frames) };
            let capture = CaptureOptions { interrupt: self.interrupt.clone(), ..CaptureOptions::default() };
            let live = LiveOptions { capture, ..LiveOptions::default() };
            let options = SessionOptions { settings, live, queue: 1, observers: Vec::new() };
            let session = Session::start(model, &source, options, self.interrupt)?;
            ensure!(
                session.wait_for(1, Duration::from_secs(20)),
                "GStreamer's test picture gave no frame in 20 s"
            );
            let (sampler, end) = (look(), Instant::now() + DROP_TIME);
            while Instant::now() < end {
                self.interrupt.check()?;
                session.ask(Question::new("What moves?"))?;
                answers += 1;
            }
            // Of the last time: loading is not following.
            usage = sampler.stop();
            let status = session.status();
            let lost = status.live.dropped_source + status.live.dropped_handover + status.dropped_pinned;
            let all = status.live.captured + status.live.dropped_source;
            due += all;
            samples.push(lost as f64 * 100.0 / all.max(1) as f64);
        }
        let note = format!("{due} frames at {DROP_FPS} a second, {answers} questions one after the other");
        Ok(self.row("%", samples, None, usage, note))
    }
}

impl Timed {
    /// How many of what one run makes `per_run` of a joule gives.
    fn each(&self, per_run: usize) -> Option<f64> {
        let joules = self.usage.joules.filter(|joules| *joules > 0.0)?;
        Some((self.runs * per_run) as f64 / joules)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::bench::{Entry, random};
    use crate::cli::{Cli, Command};
    use crate::shape::Bits;

    #[test]
    fn every_case_of_a_small_shape_gives_a_row() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("vision.onnx");
        let entry = Entry {
            shape: Some("tiny+tiny".parse().unwrap()),
            bits: Bits::Q4,
            seen: 40,
            repetitions: 3,
            ..Entry::default()
        };
        let shape = entry.shape.unwrap();
        random::vision(shape, &shape.export().unwrap(), &file).unwrap();
        for (case, mode) in entry.measured() {
            // As the parent tells its process.
            let words =
                ["utr", "bench", "--child", "--vision-file", file.to_str().unwrap()].map(String::from);
            let cli = Cli::try_parse_from(words.into_iter().chain(entry.flags(case, mode))).unwrap();
            let Command::Bench(arguments) = cli.command else { panic!() };
            let row = measure(case, &arguments, Path::new(""), &Interrupt::default()).unwrap();
            let line = serde_json::to_string(&row).unwrap();
            let row: Row = serde_json::from_str(&line).unwrap();
            assert_eq!((row.case, row.mode), (case.to_string(), mode.map(spelled)));
            assert!(row.value > 0.0 && row.spread >= 0.0 && row.value.is_finite(), "{line}");
            assert_eq!(row.samples.len(), if case == Case::RssPeak { 1 } else { 3 }, "{line}");
            assert_eq!(row.ceiling.is_none(), case == Case::RssPeak, "{line}");
        }
    }

    #[test]
    fn what_a_joule_gives_counts_every_run() {
        let usage = Usage { watts: Some(5.0), joules: Some(10.0), celsius: None };
        let timed = Timed { ms: vec![1.0; 5], runs: 20, usage };
        assert_eq!((timed.each(1), timed.each(ANSWER)), (Some(2.0), Some(256.0)));
        assert_eq!(Timed { usage: Usage::default(), ..timed }.each(1), None);
    }
}
