//! `utr serve`: the live window over HTTP, for OpenAI's clients, a browser, Prometheus and systemd.
//!
//! Comes in: resolved arguments. Goes out: a server, until a stop is asked for. It loads the model, warms it up, opens the port, starts a
//! [`Session`] and hands requests to it; all clients share its one window. One thread runs the network; the session's own threads see and
//! answer. Nothing here computes on frames but the small pictures of the page.

mod chat;
mod connections;
pub mod errors;
mod files;
mod guard;
mod log;
mod metrics;
pub mod openai;
mod pictures;
mod reply;
mod routes;
mod status;
mod systemd;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::{Semaphore, watch};
use utr_models::RgbFrame;
use utr_models::generate::Sampling;
use utr_models::manifest::WindowMode;
use utr_models::prompt::Kind;

use self::files::Files;
use self::guard::Guard;
use self::metrics::Metrics;
use self::pictures::Pictures;
use crate::answer::{Answerer, Question};
use crate::capture::live::LiveOptions;
use crate::capture::{CaptureOptions, Frame, Stamp};
use crate::cli::Serve;
use crate::encode::encode_frames;
use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::load::Model;
use crate::pipeline::{Settings, View};
use crate::session::{Session, SessionOptions};

/// How often a request to stop is looked for.
const TICK: Duration = Duration::from_millis(50);
/// What answers in flight may still take once a stop was asked for.
const FINISH: Duration = Duration::from_millis(800);
/// Threads for pictures and files.
const BLOCKING_THREADS: usize = 4;
/// Side of the drawn frame that warms the model up, in pixels.
const WARM_SIDE: usize = 96;

/// What the handlers share.
struct App {
    session: Session,
    settings: Settings,
    sampling: Sampling,
    prompt: Kind,
    fps: f64,
    queue: usize,
    timeout: Duration,
    /// As typed, without credentials.
    source: String,
    guard: Guard,
    files: Option<Files>,
    file_turn: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    pictures: Pictures,
    started: Instant,
    ids: AtomicU64,
}

impl App {
    fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }
}

/// Runs the command; `bundle` is the folder to load.
///
/// # Errors
/// Whatever the token file, loading, the source and the port report before the first request.
pub fn run(serve: &Serve, bundle: &Path, interrupt: &Interrupt) -> anyhow::Result<()> {
    log::start();
    let guard = Guard::open(serve.listen, serve.token_file.as_deref())?;
    let files = serve.allow_files.as_deref().map(Files::open).transpose()?;
    let mut model = Model::open(bundle, serve.stream.encoder)?;
    let defaults = model.language.defaults;
    let settings = serve.stream.settings(&defaults, defaults.mode)?;
    let began = Instant::now();
    warm_up(&mut model, &settings, interrupt)?;
    log::info(&format!("{} is warm ({} ms)", model.language.name, began.elapsed().as_millis()));
    let listener = std::net::TcpListener::bind(serve.listen)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .with_context(|| format!("listening on {}; choose another with --listen", serve.listen))?;
    let address = listener.local_addr()?;
    // Not the program's flag itself: answers in flight may end before the session does.
    let own = Interrupt::default();
    let metrics = Arc::new(Metrics::default());
    let fps = serve.stream.fps.unwrap_or(defaults.fps);
    let capture =
        CaptureOptions { timeout: serve.stream.timeout, interrupt: own.clone(), ..CaptureOptions::default() };
    let options = SessionOptions {
        settings: settings.clone(),
        live: LiveOptions { capture, fps: Some(fps), ..LiveOptions::lasting(&serve.stream.source) },
        queue: serve.queue,
        observers: vec![metrics.clone()],
    };
    let app = App {
        session: Session::start(model, &serve.stream.source, options, &own)?,
        settings,
        sampling: serve.tokens.over(defaults.tokens),
        prompt: serve.prompt,
        fps,
        queue: serve.queue,
        timeout: serve.stream.timeout,
        source: log::without_credentials(&serve.stream.source.to_string()),
        guard,
        files,
        file_turn: Arc::new(Semaphore::new(1)),
        metrics,
        pictures: Pictures::default(),
        started: Instant::now(),
        ids: AtomicU64::new(0),
    };
    log::info(&format!(
        "listening on http://{address}{}",
        if app.guard.wants_token() { ", with a token" } else { "" }
    ));
    network(listener, app, interrupt, &own)?;
    log::info("stopped");
    Ok(())
}

/// Runs the network until a stop is asked for; `own` then ends the session, a moment later.
fn network(
    listener: std::net::TcpListener,
    app: App,
    interrupt: &Interrupt,
    own: &Interrupt,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .context("starting the network's thread")?;
    let app = Arc::new(app);
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (stop, stopping) = watch::channel(false);
        let told = tokio::spawn(systemd::run(Arc::clone(&app), stopping.clone()));
        let (asked, own) = (interrupt.clone(), own.clone());
        tokio::spawn(async move {
            while !asked.requested() {
                tokio::time::sleep(TICK).await;
            }
            log::info("stopping");
            let _ = stop.send(true);
            // Answers that end soon do; the others are stopped, and their clients told.
            tokio::time::sleep(FINISH).await;
            own.request();
        });
        connections::serve(listener, routes::router(Arc::clone(&app)), stopping).await;
        let _ = told.await;
        anyhow::Ok(())
    })?;
    // A picture or a file that is still being read ends by itself, or with the process.
    runtime.shutdown_background();
    Ok(())
}

/// Encodes a drawn frame and answers one token about it: the first question finds everything loaded, and what is broken shows before the
/// port opens.
fn warm_up(model: &mut Model, settings: &Settings, interrupt: &Interrupt) -> Result<()> {
    let picture = RgbFrame::new(WARM_SIDE, WARM_SIDE, vec![128; WARM_SIDE * WARM_SIDE * 3])?;
    let frame = Frame { stamp: Stamp { index: 0, pts_ms: 0 }, captured: Instant::now(), image: picture };
    let frames = encode_frames(model.encoder.as_mut(), &[Arc::new(frame)], interrupt)?;
    let (mode, capture_ms, encode_ms) = (WindowMode::Exact, 0.0, 0.0);
    let view = View { frames, reading: None, mode, dropped: 0, capture_ms, encode_ms };
    let one = Sampling { max_tokens: 1, ..Sampling::default() };
    let question = Question::new("?").with_system(settings.system.clone()).with_sampling(one);
    let mut answerer = Answerer::new(Arc::clone(&model.language), settings.kv);
    answerer.answer(&view, &question, interrupt, &mut |_| Ok(())).map(drop)
}
