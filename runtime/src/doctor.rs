//! `utr doctor`: what this machine, a root file system or a board has and lacks, yes or no, with what to type.
//!
//! Comes in: where to look ([`Options`]): this machine, a root folder that is not running, or a board by its
//! profile alone. Goes out: a [`Report`]: one line per thing, ok or not, with the remedy, and whether
//! something needed is missing; beside them the facts themselves and the model's need of memory. It repairs
//! and installs nothing, and what is not running is not asked.

pub mod board;
mod bundle;
mod live;

use std::path::PathBuf;

use serde::Serialize;

use crate::board::{Board, Machine, Root};
use crate::budget::{Available, Need, Wish};
use crate::capture::CaptureOptions;
use crate::encode::Engines;
use crate::error::Result;
use crate::estimate;
use crate::source::Source;

/// Where to look, and at what.
pub struct Options {
    /// The root folder; `/` for this machine.
    pub root: PathBuf,
    /// The profile to judge by; found out where it is not given. On a machine that is another board, the
    /// profile alone is judged.
    pub board: Option<Board>,
    /// Opened, and one frame read, on this machine.
    pub source: Option<Source>,
    /// The bundle that would be used.
    pub bundle: Result<PathBuf>,
    /// How its window would be followed.
    pub wish: Wish,
    /// What would compute.
    pub engines: Engines,
    /// How the source is read.
    pub capture: CaptureOptions,
}

/// One thing looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// Whether it is there, and as it should be.
    pub ok: bool,
    /// Whether `utr ask` cannot do without it.
    pub needed: bool,
    /// What was found.
    pub found: String,
    /// What to do where it is not.
    pub remedy: Option<String>,
}

/// All checks, the board first and then in the order of the data flow.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// In order.
    pub checks: Vec<Check>,
    /// True where nothing needed is missing.
    pub ok: bool,
    /// The profile that was judged by.
    pub board: String,
    /// The facts; none where a profile alone was judged.
    pub machine: Option<Machine>,
    /// Bytes the bundle needs.
    pub need: Option<Need>,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// This machine, running.
    Here,
    /// Files of a machine that is not asked.
    Folder,
    /// A profile.
    Profile,
}

/// Looks at everything.
///
/// # Errors
/// Only for a profile that does not parse.
pub fn examine(options: &Options) -> Result<Report> {
    let root = Root::new(&options.root);
    let machine = Machine::read(&root);
    let found = Board::of(&machine.identity)?;
    let board = options.board.clone().unwrap_or_else(|| found.clone());
    // A board of NVIDIA's without a profile stands for the one it is given.
    let stands = !found.is_jetson() && board.is_jetson() == machine.identity.is_tegra();
    let place = if !root.is_here() {
        Place::Folder
    } else if board.name == found.name || stands {
        Place::Here
    } else {
        Place::Profile
    };
    let mut checks = match place {
        Place::Profile => profile(&board),
        Place::Here | Place::Folder => board::checks(&machine, &board),
    };
    let mut available = Available::of_board(&board);
    match place {
        Place::Here => {
            checks.extend(live::camera_access(&machine));
            checks.extend(live::gstreamer(&board));
            checks.extend(live::camera_formats(&machine));
            checks.extend(options.source.as_ref().map(|source| live::try_source(source, &options.capture)));
            checks.push(live::onnxruntime());
            checks.push(live::memory());
            checks.push(live::processor());
            available = Available::here();
        }
        Place::Folder => {
            checks.extend(board::plugins(&machine, &board));
            // A root file system that is not running has no memory to tell of.
            available =
                machine.ram.map(|ram| Available { total: ram.total, free: ram.available }).or(available);
        }
        Place::Profile => {}
    }
    let bundle = bundle::look(options, &board, available, place == Place::Here);
    checks.extend(bundle.checks);
    checks.extend(expected(&board));
    let ok = checks.iter().all(|check| check.ok || !check.needed);
    let machine = (place != Place::Profile).then_some(machine);
    Ok(Report { checks, ok, board: board.name, machine, need: bundle.need })
}

/// What is known of a board without having it.
fn profile(board: &Board) -> Vec<Check> {
    let memory =
        Available::of_board(board).map_or("unknown memory".into(), |available| available.to_string());
    let mut all = vec![Check::ok(
        "board",
        false,
        format!("{} ({}), by its profile: {memory}", board.name, board.title),
    )];
    all.extend(board.compute.as_ref().map(|c| {
        let found = format!(
            "{} x {} at {} MHz; {} CUDA cores of compute capability {}.{}, {} TFLOPS in 16 bits, {} TOPS in 8 (sparse)",
            c.cores,
            c.cpu,
            c.mhz,
            c.gpu_cores,
            c.sm / 10,
            c.sm % 10,
            c.f16_tflops,
            c.int8_tops
        );
        Check::ok("processor and GPU", false, found)
    }));
    if board.is_jetson() {
        let releases = crate::board::jetpack::releases();
        let span = |major: &u32| {
            let mut rows = releases.iter().filter(|row| row.l4t.0 == *major);
            let first = &rows.next()?.jetpack;
            let last = rows.next_back().map_or(String::new(), |row| format!(" to {}", row.jetpack));
            Some(format!("R{major} (JetPack {first}{last})"))
        };
        let names: Vec<String> = board.l4t.iter().filter_map(span).collect();
        all.push(Check::ok("Jetson Linux", false, names.join(", ")));
    }
    all
}

/// What to expect here of a small model, so that a measured figure can be judged.
fn expected(board: &Board) -> Option<Check> {
    const MODEL: (&str, &str) = ("qwen2-0.5b+siglip-b16", "q4_0");
    let figure = |case, mode| estimate::expected(board, case, MODEL.0, MODEL.1, mode);
    let (frame, tokens, first) =
        (figure("frame", None)?, figure("tg128", None)?, figure("ttft32", Some("rolling"))?);
    let encode = figure("enc", None)?;
    let found = format!(
        "{} {}: a frame in {:.0} + {:.0} ms, first token after {:.0} ms, {:.0} tokens a second ({}; utr bench measures)",
        MODEL.0, MODEL.1, encode.value, frame.value, first.value, tokens.value, tokens.basis
    );
    Some(Check::ok("to expect", false, found))
}

impl Check {
    fn ok(name: &str, needed: bool, found: impl Into<String>) -> Self {
        Self { name: name.into(), ok: true, needed, found: found.into(), remedy: None }
    }

    /// Something that could be better, or that only some need.
    fn note(name: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name: name.into(), ok: false, needed: false, found: found.into(), remedy: Some(remedy.into()) }
    }

    /// Something without which nothing works.
    fn no(name: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { needed: true, ..Self::note(name, found, remedy) }
    }
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match (self.ok, self.needed) {
            (true, _) => "ok",
            (false, true) => "NO",
            (false, false) => "note",
        };
        write!(f, "{state:<8} {:<20} {}", self.name, self.found)?;
        self.remedy.iter().try_for_each(|remedy| write!(f, "\n{:30}→ {remedy}", ""))
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.checks.iter().try_for_each(|check| writeln!(f, "{check}"))?;
        let names = |needed| {
            let lines = self.checks.iter().filter(move |check| !check.ok && check.needed == needed);
            lines.map(|check| check.name.as_str()).collect::<Vec<_>>()
        };
        let (missing, notes) = (names(true), names(false).len());
        let word = if notes == 1 { "note" } else { "notes" };
        if missing.is_empty() {
            writeln!(f, "yes: nothing that is needed is missing; {notes} {word}")
        } else {
            writeln!(f, "no: {}; {notes} {word}", missing.join(", "))
        }
    }
}

#[cfg(test)]
mod tests;
