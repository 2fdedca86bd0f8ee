//! The cases of `utr bench`, each measured in this process.
//!
//! Comes in: a case and its settings. Goes out: rows. Windows are filled with random frames, because time does not depend on what is seen; the decoder is
//! driven through the same prefill and the same spans as an answer.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use utr_models::RgbFrame;
use utr_models::manifest::WindowMode;

use super::ceiling::Ceiling;
use super::{BenchArgs, Case, Row, random};
use crate::answer::Question;
use crate::budget;
use crate::capture::live::LiveOptions;
use crate::capture::{CaptureOptions, Frame, Stamp};
use crate::cli::Mode;
use crate::decode::{CandleDecoder, Decoder, Place, Span};
use crate::encode::{VisionEncoder, encode_frames};
use crate::interrupt::Interrupt;
use crate::load::Model;
use crate::pipeline::Settings;
use crate::prefill::{self, Prefill, Prefix, Reading};
use crate::session::{Session, SessionOptions};
use crate::source::Source;
use crate::window::{CAPACITY, EncodedFrame};

/// Tokens of the answer.
const ANSWER: usize = 128;
/// Frames a second of the source that is followed for `drop%`.
const DROP_FPS: u32 = 30;
/// How long it is followed.
const DROP_TIME: Duration = Duration::from_secs(5);
/// Tokens of the prompt before the frames where no template says.
const PROMPT: usize = 14;

/// What is measured, ready.
struct Subject {
    decoder: Arc<dyn Decoder>,
    before: Vec<u32>,
    tokens: usize,
    /// Bytes of the matrices that one token must read.
    weight_bytes: u64,
    /// Multiplications and additions of one row through the matrices.
    row_flop: f64,
    encoder: Option<Box<dyn VisionEncoder>>,
    name: String,
}

impl Subject {
    fn open(arguments: &BenchArgs, bundle: &Path) -> anyhow::Result<Self> {
        if let Some(shape) = arguments.random {
            let (network, weight_bytes) = random::decoder(shape, arguments.bits)?;
            let row_flop = row_flop(network.config());
            return Ok(Self {
                decoder: Arc::new(CandleDecoder::new(network)),
                before: (0..PROMPT as u32).collect(),
                tokens: arguments.frame_tokens as usize,
                weight_bytes,
                row_flop,
                encoder: None,
                name: format!("{shape:?} {:?}", arguments.bits),
            });
        }
        let Model { encoder, language } = Model::open(bundle, None)?;
        let (before, _) = language.prompt(&Question::new("?"))?;
        let file = bundle.join(utr_models::bundle::DECODER);
        let weight_bytes = std::fs::metadata(&file).map_or(0, |file| file.len());
        let row_flop = match utr_models::bundle::Bundle::open(bundle) {
            Ok(bundle) => {
                let d = &bundle.manifest().network.decoder;
                let kv = d.num_kv_heads * (d.hidden_size / d.num_heads);
                2.0 * (d.num_layers * d.hidden_size * (2 * d.hidden_size + 2 * kv + 3 * d.intermediate_size))
                    as f64
            }
            Err(_) => 0.0,
        };
        Ok(Self {
            decoder: Arc::clone(&language.decoder),
            before,
            tokens: language.tokens_per_frame,
            weight_bytes,
            row_flop,
            encoder: Some(encoder),
            name: language.name.clone(),
        })
    }

    /// A random frame.
    fn frame(&self, index: usize) -> anyhow::Result<Arc<EncodedFrame>> {
        let mut state = index as u64 + 1;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        let tokens = (0..self.tokens * self.decoder.hidden()).map(|_| draw()).collect();
        let stamp = Stamp { index, pts_ms: index as u64 * 500 };
        let picture = RgbFrame::new(1, 1, vec![0; 3])?;
        Ok(Arc::new(EncodedFrame { stamp, captured: Instant::now(), picture, tokens }))
    }

    /// A window in a mode, after `seen` frames.
    fn window(
        &self,
        mode: WindowMode,
        arguments: &BenchArgs,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Prefill> {
        let sizes = (CAPACITY, self.tokens);
        let decoder = Arc::clone(&self.decoder);
        let mut prefill = Prefill::new(decoder, mode, arguments.kv, sizes, &self.before, interrupt)?;
        for index in 0..arguments.seen as usize {
            ensure!(prefill.see(&self.frame(index)?, interrupt)?, "a frame found no room");
        }
        Ok(prefill)
    }

    /// All of a window read anew.
    fn read_window(
        &self,
        frames: &[Arc<EncodedFrame>],
        arguments: &BenchArgs,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Reading> {
        let pool = crate::decode::Pool::new(self.decoder.shape(), arguments.kv, self.tokens, 0);
        let mut reading =
            Reading::new(Prefix::read(self.decoder.as_ref(), &self.before, arguments.kv, interrupt)?);
        for frame in frames {
            reading.push(self.decoder.as_ref(), pool.take_or_grow(), frame, interrupt)?;
        }
        Ok(reading)
    }

    /// The question's rows behind a reading: the newline and its tokens; the logits after them.
    fn ask(
        &self,
        reading: &Reading,
        own: &mut Span,
        arguments: &BenchArgs,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Vec<f32>> {
        let vocab = self.decoder.vocab() as u32;
        let ids: Vec<u32> = (0..=arguments.question_tokens).map(|i| i * 37 % vocab.max(1)).collect();
        let rows = self.decoder.embed(&ids)?;
        own.truncate(0);
        let place = Place { own, start: reading.end() };
        let states = prefill::read(self.decoder.as_ref(), &reading.past(), place, &rows, interrupt)?;
        let last = states.len().saturating_sub(self.decoder.hidden());
        Ok(self.decoder.logits(states.get(last..).unwrap_or_default())?)
    }

    fn own(&self, arguments: &BenchArgs) -> Span {
        Span::new(self.decoder.shape(), arguments.kv, arguments.question_tokens as usize + 1 + ANSWER)
    }
}

fn row_flop(c: &utr_models::config::TextConfig) -> f64 {
    let kv = c.kv_heads * c.head_dim;
    2.0 * (c.layers * c.hidden * (2 * c.heads * c.head_dim + 2 * kv + 3 * c.intermediate)) as f64
}

/// Measures a case.
pub fn measure(
    case: Case,
    arguments: &BenchArgs,
    bundle: &Path,
    interrupt: &Interrupt,
) -> anyhow::Result<Vec<Row>> {
    let mode = arguments.window_mode.first().copied().unwrap_or(Mode::Rolling);
    match case {
        Case::Drop => drops(mode, arguments, bundle, interrupt),
        _ => {
            let mut subject = Subject::open(arguments, bundle)?;
            // Memory is measured without the block that the ceiling is measured with.
            if case == Case::RssPeak {
                return Ok(vec![memory(&subject, mode, arguments, interrupt)?]);
            }
            let ceiling = Ceiling::measure();
            let row = match case {
                Case::Enc => encode(&mut subject, arguments, interrupt)?,
                Case::Frame => frame(&subject, &ceiling, arguments, interrupt)?,
                Case::Ttft32 => first_token(&subject, mode, &ceiling, arguments, interrupt)?,
                Case::Tg128 => tokens(&subject, &ceiling, arguments, interrupt)?,
                Case::RssPeak | Case::Drop => return Ok(Vec::new()),
            };
            Ok(vec![Row { note: format!("{}; {}", subject.name, row.note), ..row }])
        }
    }
}

fn row(
    case: Case,
    mode: Option<Mode>,
    unit: &str,
    mut samples: Vec<f64>,
    ceiling: Option<f64>,
    note: String,
) -> Row {
    use clap::ValueEnum;
    let all = samples.clone();
    samples.sort_by(f64::total_cmp);
    let value = samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN);
    let mode = mode.and_then(|mode| mode.to_possible_value()).map(|value| value.get_name().to_string());
    Row { case: case.to_string(), mode, value, unit: unit.into(), ceiling, samples: all, note }
}

/// Milliseconds of each repetition, after one that does not count.
fn timed(repetitions: u32, mut body: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Vec<f64>> {
    body()?;
    (0..repetitions)
        .map(|_| {
            let began = Instant::now();
            body()?;
            Ok(began.elapsed().as_secs_f64() * 1e3)
        })
        .collect()
}

fn encode(subject: &mut Subject, arguments: &BenchArgs, interrupt: &Interrupt) -> anyhow::Result<Row> {
    let encoder = subject.encoder.as_mut().context("random weights have no vision encoder")?;
    let (width, height) = (640, 480);
    let image = RgbFrame::new(width, height, (0..width * height * 3).map(|i| (i * 7 % 251) as u8).collect())?;
    let frame = Arc::new(Frame { stamp: Stamp { index: 0, pts_ms: 0 }, captured: Instant::now(), image });
    let samples = timed(arguments.repetitions, || {
        encode_frames(encoder.as_mut(), std::slice::from_ref(&frame), interrupt)?;
        Ok(())
    })?;
    Ok(row(
        Case::Enc,
        None,
        "ms",
        samples,
        None,
        format!("{width}x{height} resized and encoded by {}", encoder.name()),
    ))
}

fn frame(
    subject: &Subject,
    ceiling: &Ceiling,
    arguments: &BenchArgs,
    interrupt: &Interrupt,
) -> anyhow::Result<Row> {
    let mut prefill = subject.window(WindowMode::Rolling, arguments, interrupt)?;
    let mut index = arguments.seen as usize;
    let samples = timed(arguments.repetitions, || {
        index += 1;
        prefill.see(&subject.frame(index)?, interrupt)?;
        Ok(())
    })?;
    let best = subject.row_flop * subject.tokens as f64 / ceiling.arithmetic_gflop_s / 1e6;
    let note = format!(
        "{} rows behind {} frames; ceiling: {:.0} GFLOP/s",
        subject.tokens,
        prefill.reading().map_or(0, Reading::len),
        ceiling.arithmetic_gflop_s
    );
    Ok(row(Case::Frame, None, "ms", samples, Some(best), note))
}

fn first_token(
    subject: &Subject,
    mode: Mode,
    ceiling: &Ceiling,
    arguments: &BenchArgs,
    interrupt: &Interrupt,
) -> anyhow::Result<Row> {
    let mut own = subject.own(arguments);
    let question = arguments.question_tokens as usize + 1;
    let (samples, rows) = match mode {
        Mode::Exact => {
            let frames =
                (0..CAPACITY).map(|index| subject.frame(index)).collect::<anyhow::Result<Vec<_>>>()?;
            let samples = timed(arguments.repetitions, || {
                let reading = subject.read_window(&frames, arguments, interrupt)?;
                subject.ask(&reading, &mut own, arguments, interrupt).map(drop)
            })?;
            (samples, subject.before.len() + CAPACITY * subject.tokens + question)
        }
        Mode::Ahead | Mode::Rolling => {
            let prefill = subject.window(mode.into(), arguments, interrupt)?;
            let reading = prefill.reading().context("no frame was read")?;
            let body = || subject.ask(reading, &mut own, arguments, interrupt).map(drop);
            (timed(arguments.repetitions, body)?, question)
        }
    };
    let best = subject.row_flop * rows as f64 / ceiling.arithmetic_gflop_s / 1e6;
    let seen = if mode == Mode::Exact { CAPACITY as u32 } else { arguments.seen };
    let note = format!(
        "{rows} rows to read, {seen} frames seen; ceiling: {:.0} GFLOP/s",
        ceiling.arithmetic_gflop_s
    );
    Ok(row(Case::Ttft32, Some(mode), "ms", samples, Some(best), note))
}

fn tokens(
    subject: &Subject,
    ceiling: &Ceiling,
    arguments: &BenchArgs,
    interrupt: &Interrupt,
) -> anyhow::Result<Row> {
    let prefill = subject.window(WindowMode::Rolling, arguments, interrupt)?;
    let reading = prefill.reading().context("no frame was read")?;
    let (past, start) = (reading.past(), reading.end());
    let mut own = subject.own(arguments);
    let times = timed(arguments.repetitions, || {
        own.truncate(0);
        for token in 0..ANSWER as u32 {
            interrupt.check()?;
            let embedded = subject.decoder.embed(&[token % subject.decoder.vocab().max(1) as u32])?;
            let state = subject.decoder.read(&past, Place { own: &mut own, start }, &embedded, None)?;
            subject.decoder.logits(&state)?;
        }
        Ok(())
    })?;
    let rates = times.iter().map(|ms| ANSWER as f64 * 1e3 / ms).collect();
    let bytes = subject.weight_bytes as f64 + subject.decoder.shape().bytes(arguments.kv, start) as f64;
    let best = ceiling.memory_gb_s * 1e9 / bytes;
    let note = format!(
        "at depth {start}; ceiling: {:.1} MB a token at {:.1} GB/s",
        bytes / 1e6,
        ceiling.memory_gb_s
    );
    Ok(row(Case::Tg128, None, "tok/s", rates, Some(best), note))
}

fn memory(
    subject: &Subject,
    mode: Mode,
    arguments: &BenchArgs,
    interrupt: &Interrupt,
) -> anyhow::Result<Row> {
    let window = subject.window(mode.into(), arguments, interrupt)?;
    let frames = (0..CAPACITY).map(|index| subject.frame(index)).collect::<anyhow::Result<Vec<_>>>()?;
    let reading = match window.reading() {
        Some(reading) => reading.clone(),
        None => subject.read_window(&frames, arguments, interrupt)?,
    };
    subject.ask(&reading, &mut subject.own(arguments), arguments, interrupt)?;
    let peak = budget::used().into_iter().find(|(kind, _)| *kind == "peak");
    let (_, peak) = peak.context("/proc/self/status cannot be read, or names no VmHWM")?;
    let spans = prefill::spans(mode.into(), CAPACITY).max(CAPACITY);
    let kv = subject.decoder.shape().bytes(arguments.kv, subject.before.len() + spans * subject.tokens);
    let note = format!(
        "matrices {:.0} MiB, keys and values {:.1} MiB",
        subject.weight_bytes as f64 / f64::from(1 << 20),
        kv as f64 / f64::from(1 << 20)
    );
    Ok(row(Case::RssPeak, Some(mode), "MiB", vec![peak as f64 / f64::from(1 << 20)], None, note))
}

/// A live test picture is followed while one question after the other is answered; what was due and did not enter the window is lost.
fn drops(
    mode: Mode,
    arguments: &BenchArgs,
    bundle: &Path,
    interrupt: &Interrupt,
) -> anyhow::Result<Vec<Row>> {
    let source = Source::parse(&format!("test://ball?width=320&height=240&fps={DROP_FPS}&live=true"))?;
    let mut samples = Vec::new();
    let (mut due, mut answers) = (0, 0);
    for _ in 0..arguments.repetitions.min(3) {
        let model = Model::open(bundle, None)?;
        let frames = model.language.defaults.frames;
        let settings = Settings { mode: mode.into(), kv: arguments.kv, ..Settings::exact(frames) };
        let capture = CaptureOptions { interrupt: interrupt.clone(), ..CaptureOptions::default() };
        let live = LiveOptions { capture, ..LiveOptions::default() };
        let options = SessionOptions { settings, live, queue: 1, observers: Vec::new() };
        let session = Session::start(model, &source, options, interrupt)?;
        ensure!(
            session.wait_for(1, Duration::from_secs(20)),
            "GStreamer's test picture gave no frame in 20 s"
        );
        let end = Instant::now() + DROP_TIME;
        while Instant::now() < end {
            interrupt.check()?;
            session.ask(Question::new("What moves?"))?;
            answers += 1;
        }
        let status = session.status();
        let lost = status.live.dropped_source + status.live.dropped_handover + status.dropped_pinned;
        let all = status.live.captured + status.live.dropped_source;
        due += all;
        samples.push(lost as f64 * 100.0 / all.max(1) as f64);
    }
    let note = format!("{due} frames at {DROP_FPS} a second, {answers} questions one after the other");
    Ok(vec![row(Case::Drop, Some(mode), "%", samples, None, note)])
}
