//! The parent of the measuring processes.
//!
//! Comes in: `utr bench`, as typed, and where the bundle is. Goes out: everything printed, and whether the board's expectations were met. A model's memory is
//! checked before anything of it is made; a shape's tower is written to a temporary folder, which is removed. One case that fails does not end the
//! others; it ends in an error.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use utr_models::DeviceChoice;
use utr_models::bundle::{Bundle, VISION, hash_file};

use super::header::Header;
use super::judge::{Status, judge, unjudged};
use super::rows::{Report, Row, Skipped};
use super::{BenchArgs, Case, Entry, Format, cases, random, spelled, suite};
use crate::board::{Board, Machine, Root};
use crate::budget::{Available, Sizes, Wish};
use crate::cli::Mode;
use crate::doctor;
use crate::encode::{self, EncoderKind, Engines};
use crate::estimate::expectations;
use crate::interrupt::Interrupt;
use crate::load;
use crate::refuse;

/// What `utr doctor` looks at that makes a board slow.
const SPEED: [&str; 6] = ["power mode", "clocks", "power supply", "temperature", "swap", "desktop"];

/// What is told of a model before it is measured.
struct Label {
    name: String,
    bits: Option<String>,
    hash: Option<String>,
}

/// A folder that goes with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("utr-bench-{}", std::process::id()));
        std::fs::create_dir(&folder)
            .with_context(|| format!("creating {}; TMPDIR names another place", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs the command; `bundle` says where the default one is. False where an expectation was missed.
///
/// # Errors
/// What keeps cases from being measured, after the others were printed; expectations that say nothing about this run;
/// [`crate::Error::Interrupted`], after what was measured.
pub fn run(
    arguments: &BenchArgs,
    bundle: &dyn Fn() -> crate::Result<PathBuf>,
    interrupt: &Interrupt,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    if arguments.child {
        let case = arguments.entry.cases.first().copied().context("no case to measure")?;
        let folder = if arguments.entry.shape.is_some() { PathBuf::new() } else { bundle()? };
        writeln!(out, "{}", serde_json::to_string(&cases::measure(case, arguments, &folder, interrupt)?)?)?;
        return Ok(true);
    }
    let entries = match &arguments.suite {
        Some(path) => suite::load(path)?,
        None => vec![arguments.entry.clone()],
    };
    entries.iter().try_for_each(Entry::check)?;
    let engines = arguments.engine.resolve()?;
    let board = arguments.board.as_deref().map_or_else(Board::detect, Board::named)?;
    let expectations = if arguments.assert { expectations(&board) } else { Vec::new() };
    ensure!(
        !arguments.assert || !expectations.is_empty(),
        "--assert: the profile of the board {} expects nothing; name a board that does with --board ({}), or leave --assert away",
        board.name,
        Board::names().join(", ")
    );
    let mut header = Header::of(&board, &facts());
    if let Some(hash) = std::env::current_exe().ok().and_then(|file| hash_file(&file).ok()) {
        header.program = hash;
    }
    let report = Report { machine: header, rows: Vec::new(), skipped: Vec::new(), verdicts: Vec::new() };
    let mut bench = Bench { arguments, engines, interrupt, out, report, failed: Vec::new() };
    let ended = entries.iter().try_for_each(|entry| bench.entry(entry, bundle));
    let Bench { mut report, mut failed, out, .. } = bench;
    match judge(&report.rows, &report.skipped, &expectations) {
        Ok(verdicts) => report.verdicts = verdicts,
        Err(error) => failed.push(error.to_string()),
    }
    report.print(arguments.output, out)?;
    ended?;
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    if arguments.assert {
        conclude(&report, &board, &unjudged(&report.rows, &expectations))
    } else {
        Ok(true)
    }
}

/// What this machine says about itself now.
fn facts() -> Machine {
    Machine::read(&Root::here())
}

/// Says what was judged and what may help; whether everything was met.
fn conclude(report: &Report, board: &Board, unjudged: &[String]) -> anyhow::Result<bool> {
    let missed = report.verdicts.iter().filter(|verdict| verdict.missed()).count();
    let unmeasured = report.verdicts.iter().filter(|verdict| verdict.status == Status::Unmeasured).count();
    let judged = report.verdicts.len() - unmeasured;
    if !unjudged.is_empty() {
        eprintln!("utr bench: the profile of {} expects nothing of {}", board.name, unjudged.join(", "));
    }
    ensure!(
        judged > 0,
        "--assert: none of the {unmeasured} expectations of the board {} is about what was measured; `utr bench --suite board --assert` \
         measures what most boards are expected to do",
        board.name
    );
    eprintln!(
        "utr bench: {missed} of {judged} expectations of {} missed, {unmeasured} more are about what was not measured",
        board.name
    );
    if missed > 0 {
        // Read anew: how hot it is now counts.
        let checks = doctor::board::checks(&facts(), board);
        for check in checks.into_iter().filter(|check| !check.ok && SPEED.contains(&check.name.as_str())) {
            eprintln!("  {}: {} → {}", check.name, check.found, check.remedy.unwrap_or_default());
        }
    }
    Ok(missed == 0)
}

struct Bench<'a> {
    arguments: &'a BenchArgs,
    engines: Engines,
    interrupt: &'a Interrupt,
    out: &'a mut dyn Write,
    report: Report,
    failed: Vec<String>,
}

impl Bench<'_> {
    /// Measures an entry.
    fn entry(&mut self, entry: &Entry, bundle: &dyn Fn() -> crate::Result<PathBuf>) -> anyhow::Result<()> {
        let Some((folder, mut label, whole)) = self.kept("the bundle", model(entry, bundle, self.engines))?
        else {
            return Ok(());
        };
        let device = self.engines.device;
        if device != DeviceChoice::Cpu {
            // What a profile expects is of the processor.
            label.name += &format!(" on {device}");
        }
        let sizes = |case: Case| match entry.shape {
            Some(shape) => Some(shape.sizes(entry.bits, entry.tokens(), case == Case::Enc)),
            None => whole.clone(),
        };
        let available = Available::here();
        let mut fitting = Vec::new();
        for (case, mode) in entry.measured() {
            let wish = Wish { frames: None, mode: Some(mode.unwrap_or(Mode::Rolling).into()), kv: entry.kv };
            match sizes(case).map(|sizes| refuse::admit(&sizes, self.engines, wish, available)) {
                Some(Err(error)) => self.report.skipped.push(Skipped {
                    model: label.name.clone(),
                    bits: label.bits.clone(),
                    case: case.to_string(),
                    mode: mode.map(spelled),
                    reason: error.to_string(),
                }),
                _ => fitting.push((case, mode)),
            }
        }
        let sees = fitting.iter().any(|(case, _)| matches!(case, Case::Enc | Case::RssPeak));
        let tower = if sees { self.kept(&label.name, self.tower(entry))?.flatten() } else { None };
        for (place, (case, mode)) in fitting.iter().enumerate() {
            self.interrupt.check()?;
            if self.arguments.suite.is_some() {
                let mode = mode.map(spelled).unwrap_or_default();
                eprintln!("utr bench: {} {case} {mode} ({} of {})", label.name, place + 1, fitting.len());
            }
            let row = self.child(entry, *case, *mode, &folder, tower.as_ref());
            if let Some(row) = self.kept(&format!("{} {case}", label.name), row)? {
                self.keep(row, &label)?;
            }
        }
        Ok(())
    }

    /// What was done; where it failed none, and the reason is kept for the end. An interrupt ends everything.
    fn kept<T>(&mut self, what: &str, done: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
        self.interrupt.check()?;
        Ok(done.map_err(|error| self.failed.push(format!("{what}: {error:#}"))).ok())
    }

    /// Writes a shape's tower, and builds its engine where the encoder needs one.
    fn tower(&self, entry: &Entry) -> anyhow::Result<Option<Scratch>> {
        let Some((shape, export)) = entry.shape.and_then(|shape| Some((shape, shape.export()?))) else {
            return Ok(None);
        };
        let scratch = Scratch::new()?;
        let file = scratch.0.join(VISION);
        random::vision(shape, &export, &file)?;
        if self.engines.encoder == Some(EncoderKind::OrtTensorrt) {
            eprintln!(
                "utr bench: building TensorRT's engine of {shape}, unless it is there; this takes minutes"
            );
            let preprocessor = utr_models::preprocess::Preprocessor::siglip(shape.image_size());
            encode::prepare(EncoderKind::OrtTensorrt, &file, &preprocessor)?;
        }
        Ok(Some(scratch))
    }

    fn keep(&mut self, row: Row, label: &Label) -> anyhow::Result<()> {
        let row =
            Row { model: label.name.clone(), bits: label.bits.clone(), hash: label.hash.clone(), ..row };
        if self.arguments.output == Format::Jsonl {
            writeln!(self.out, "{}", row.line(&self.report.machine)?)?;
            self.out.flush()?;
        }
        self.report.rows.push(row);
        Ok(())
    }

    /// Measures one case in a process of its own.
    fn child(
        &self,
        entry: &Entry,
        case: Case,
        mode: Option<Mode>,
        folder: &Path,
        tower: Option<&Scratch>,
    ) -> anyhow::Result<Row> {
        let mut command = Command::new(std::env::current_exe().context("finding this program")?);
        command.args(["bench", "--child"]).args(entry.flags(case, mode));
        if entry.shape.is_none() {
            command.arg("--bundle").arg(folder);
        }
        if let Some(Scratch(folder)) = tower {
            command.arg("--vision-file").arg(folder.join(VISION));
        }
        for (flag, value) in [
            ("--encoder", self.arguments.engine.encoder.map(spelled)),
            ("--provider", self.arguments.engine.provider.map(spelled)),
            ("--device", Some(self.arguments.engine.device.to_string())),
        ] {
            command.args(value.into_iter().flat_map(|value| [flag.to_string(), value]));
        }
        let done = command.stderr(Stdio::inherit()).output().context("starting its process")?;
        if !done.status.success() {
            use std::os::unix::process::ExitStatusExt;
            let killed =
                if done.status.signal() == Some(9) { ", most likely for lack of memory" } else { "" };
            bail!("it failed ({}{killed}); its message is above", done.status);
        }
        let text = String::from_utf8_lossy(&done.stdout);
        serde_json::from_str(text.trim()).with_context(|| format!("its process printed {:?}", text.trim()))
    }
}

/// Where an entry's model is, what it is called, and, but for a shape, what decides how much memory it needs.
fn model(
    entry: &Entry,
    bundle: &dyn Fn() -> crate::Result<PathBuf>,
    engines: Engines,
) -> anyhow::Result<(PathBuf, Label, Option<Sizes>)> {
    if let Some(shape) = entry.shape {
        let label = Label { name: shape.to_string(), bits: Some(spelled(entry.bits)), hash: None };
        return Ok((PathBuf::new(), label, None));
    }
    let folder = bundle()?;
    let sizes = load::sizes(&folder)?;
    let mut label = Label { name: sizes.name().into(), bits: None, hash: None };
    if Bundle::is_bundle(&folder) {
        // What fits in no window is not even hashed: all its cases will be skipped.
        if load::admit(&folder, engines, Wish::least()).is_err() {
            return Ok((folder, label, Some(sizes)));
        }
        let bundle = Bundle::open(&folder)?;
        label.bits = Some(bundle.manifest().quantization.format.as_str().into());
        label.hash = Some(bundle.hash().into());
    }
    Ok((folder, label, Some(sizes)))
}
