//! `utr`: the command line of the device.
//!
//! Comes in: arguments and the environment: `UTR_SOURCE`, `UTR_BUNDLE`, `UTR_BUNDLES`, `XDG_CACHE_HOME`, `ORT_DYLIB_PATH` for ONNX Runtime, `ROS_DOMAIN_ID`,
//! `CANDLE_NUM_THREADS`, and what systemd sets (`JOURNAL_STREAM`, `NOTIFY_SOCKET`, `WATCHDOG_USEC`). Goes out: exit status 0 (done), 1 (ran, and the answer is no) or 2 (failed, with one line that says why). A reader that closes
//! standard output early is no failure, unless something was to be done or judged besides. Ctrl-C asks the pipeline to stop; a second one stops at once.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use utr_runtime::board::Board;
use utr_runtime::budget::{self, Wish};
use utr_runtime::bundle::store::{self, Store};
use utr_runtime::capture::CaptureOptions;
use utr_runtime::cli::{self, Ask, BundleCommand, Cli, Command, DoctorArgs, ModelArgs, StoreArgs};
use utr_runtime::interrupt::Interrupt;
use utr_runtime::replay::{self, ReplayOptions};
use utr_runtime::source::Source;
use utr_runtime::{Error, ask, bench, bundle, doctor, load, prepare, probe, record, ros, serve, watch};

/// What the exit status says.
const NO: u8 = 1;
const FAILED: u8 = 2;
/// 128 + SIGINT, as shells report it.
const INTERRUPTED: u8 = 130;
/// Longest time between Ctrl-C and the end; the longest orderly one is an action of `utr watch`.
const STOPPING: Duration = Duration::from_secs(40);

fn main() -> ExitCode {
    // Frames are read while an answer is spoken: candle's own threads would make one wait for the other, spinning. Matrices are spread over
    // cores by `utr_models::quantized`.
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        // SAFETY: nothing else runs yet that could read the environment.
        unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    }
    let cli = Cli::parse();
    let interrupt = Interrupt::default();
    let handler = interrupt.clone();
    let handled = ctrlc::set_handler(move || {
        if handler.request() {
            std::process::exit(i32::from(INTERRUPTED));
        }
        // A driver that hangs must not keep the program.
        std::thread::spawn(|| {
            std::thread::sleep(STOPPING);
            eprintln!("utr: something still hangs after {} s; it is left behind", STOPPING.as_secs());
            std::process::exit(i32::from(INTERRUPTED));
        });
    });
    if let Err(error) = handled {
        eprintln!("utr: Ctrl-C cannot be handled ({error}); it will stop the program at once");
    }
    use BundleCommand::{Install, Rollback, Verify};
    let only_tells = !matches!(
        cli.command,
        Command::Prepare(_) | Command::Bundle(Install { .. } | Rollback { .. } | Verify { .. })
    );
    match run(cli.command, &interrupt) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NO),
        Err(error) if only_tells && reader_left(&error) => ExitCode::SUCCESS,
        Err(error) if matches!(error.downcast_ref(), Some(Error::Interrupted)) => {
            eprintln!("utr: interrupted");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            eprintln!("utr: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// Runs a command; false where it ran and the answer is no.
fn run(command: Command, interrupt: &Interrupt) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    match command {
        Command::Ask(arguments) => {
            let model = arguments.stream.model.clone();
            let resolved = arguments.resolve()?;
            let folder = model_folder(&model, resolved.wish())?;
            if let (Source::Replay(path), true) = (&resolved.stream.source, resolved.questions.is_empty()) {
                let Ask { ref stream, force, json, .. } = resolved;
                let options = ReplayOptions { engines: stream.engines, force, json };
                return replay::run(path, &folder, options, interrupt, &mut out);
            }
            ask::run(&resolved, &folder, interrupt, &mut out)?;
            Ok(true)
        }
        Command::Watch(arguments) => {
            let folder = model_folder(&arguments.stream.model, Wish::least())?;
            watch::run(&arguments, &folder, interrupt, &mut out)?;
            Ok(true)
        }
        Command::Probe(arguments) => {
            let folder = model_folder(&arguments.stream.model, Wish::least())?;
            probe::run(&arguments, &folder, interrupt, &mut out)?;
            Ok(true)
        }
        Command::Bench(arguments) => {
            bench::run(&arguments, &|| bundle_folder(arguments.bundle.clone()), interrupt, &mut out)
        }
        Command::Record(arguments) => {
            let model = arguments.stream.model.clone();
            let resolved = arguments.resolve()?;
            let folder = model_folder(&model, resolved.stream.wish(None))?;
            record::run(&resolved, &folder, interrupt, &mut out)?;
            Ok(true)
        }
        Command::Serve(arguments) => {
            let (model, limit) = (arguments.stream.model.clone(), arguments.memory_max);
            let resolved = arguments.resolve(std::env::var_os("JOURNAL_STREAM").is_some())?;
            if limit {
                let sizes = load::sizes(&bundle_folder(model.bundle)?)?;
                let choice = sizes.choice(resolved.stream.wish(None));
                writeln!(out, "{}", budget::memory_max(&sizes, choice, resolved.stream.engines))?;
                return Ok(true);
            }
            let folder = model_folder(&model, resolved.stream.wish(None))?;
            serve::run(&resolved, &folder, interrupt)?;
            Ok(true)
        }
        Command::Ros(arguments) => {
            let model = arguments.model.clone();
            let resolved = arguments.resolve(std::env::var("ROS_DOMAIN_ID").ok().as_deref())?;
            let folder = model_folder(&model, resolved.stream.wish(None))?;
            ros::run(&resolved, &folder, interrupt)?;
            Ok(true)
        }
        Command::Prepare(arguments) => {
            let engines = arguments.engine.resolve()?;
            prepare::run(&bundle_folder(arguments.bundle)?, engines, interrupt, &mut out)
        }
        Command::Bundle(command) => run_bundle(command, interrupt, &mut out),
        Command::Doctor(arguments) => examine(arguments, interrupt, &mut out),
    }
}

fn run_bundle(command: BundleCommand, interrupt: &Interrupt, out: &mut dyn Write) -> anyhow::Result<bool> {
    match command {
        BundleCommand::Inspect { dir, json } => bundle::inspect(&dir, json, out).map(|()| true),
        BundleCommand::Verify { dir, engine } => bundle::verify(&dir, engine.resolve()?, interrupt, out),
        BundleCommand::Install { dir, store, check, window, engine } => {
            let (engines, store) = (engine.resolve()?, bundle_store(store));
            let run = (engines, window.wish());
            if check {
                return store.check(&dir, run, out).map(|()| true);
            }
            let mut accept = |copy: &Path, out: &mut dyn Write| bundle::accept(copy, engines, interrupt, out);
            store.install(&dir, run, &mut accept, out)
        }
        BundleCommand::List { store } => bundle_store(store).list(out).map(|()| true),
        BundleCommand::Rollback { store } => bundle_store(store).rollback(out).map(|()| true),
    }
}

fn examine(arguments: DoctorArgs, interrupt: &Interrupt, out: &mut dyn Write) -> anyhow::Result<bool> {
    let board = arguments.board.as_deref().map(Board::named).transpose()?;
    let wish = arguments.window.wish();
    let capture = CaptureOptions {
        timeout: cli::timeout(arguments.capture_timeout)?,
        interrupt: interrupt.clone(),
        board: board.clone(),
    };
    // A root that is not running has a store of its own, and what the package put there.
    let root = &arguments.root;
    let bundle = match arguments.bundle {
        None if root != Path::new("/") => load::bundle_of_root(root),
        typed => bundle_folder(typed),
    };
    let report = doctor::examine(&doctor::Options {
        root: arguments.root,
        board,
        source: arguments.source.as_deref().map(Source::parse).transpose()?,
        bundle,
        wish,
        engines: arguments.engine.resolve()?,
        capture,
    })?;
    if arguments.json {
        serde_json::to_writer(&mut *out, &report)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(report.ok)
}

/// The folder to load. What its encoder needs on this machine is built first where that was asked for.
fn model_folder(model: &ModelArgs, wish: Wish) -> anyhow::Result<PathBuf> {
    let folder = bundle_folder(model.bundle.clone())?;
    if model.prepare {
        // Nothing is built for a window that is known by now and will be refused.
        let engines = model.engine.resolve()?;
        load::admit(&folder, engines, wish)?;
        prepare::engine(&folder, engines, &mut std::io::stderr())?;
    }
    Ok(folder)
}

/// The bundle that was named, else the store's current one, else the one that ships.
fn bundle_folder(typed: Option<PathBuf>) -> utr_runtime::Result<PathBuf> {
    let named = match typed.or_else(|| variable("UTR_BUNDLE")) {
        Some(folder) => Some(folder),
        None => bundle_store(StoreArgs { store: None }).current()?,
    };
    let executable = std::env::current_exe().and_then(|path| path.canonicalize()).ok();
    load::default_bundle(named, executable.as_deref(), std::env::current_dir().ok().as_deref())
}

/// The store that was named, or this device's.
fn bundle_store(typed: StoreArgs) -> Store {
    Store::at(typed.store.or_else(|| variable("UTR_BUNDLES")).unwrap_or_else(|| store::DEFAULT.into()))
}

/// A path from the environment; an empty one counts as none.
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|text| !text.is_empty()).map(PathBuf::from)
}

/// Whether the error is a pipe whose reader has gone.
fn reader_left(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let json = cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
        io.or(json) == Some(std::io::ErrorKind::BrokenPipe)
    })
}
