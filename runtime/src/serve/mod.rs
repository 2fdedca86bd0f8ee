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
mod kept;
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
use utr_models::preprocess::Preprocessor;

use self::files::Files;
use self::guard::Guard;
use self::kept::Kept;
use self::metrics::Metrics;
use self::pictures::Pictures;
use crate::answer::Answerer;
use crate::capture::live::LiveOptions;
use crate::capture::{CaptureOptions, Frame, Stamp};
use crate::cli::Serve;
use crate::encode::encode_frames;
use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::load::Model;
use crate::pipeline::{Settings, View};
use crate::record::SessionNote;
use crate::session::{Session, SessionOptions};

/// How often a request to stop is looked for.
const TICK: Duration = Duration::from_millis(50);
/// What answers in flight may still take once a stop was asked for.
const FINISH: Duration = Duration::from_millis(800);
/// How long a source that cannot be read at all may take to show it; one that is away is waited for, later.
const OPENING: Duration = Duration::from_secs(1);
/// Threads for pictures and files.
const BLOCKING_THREADS: usize = 4;
/// Side of the drawn frame that warms the model up, in pixels.
const WARM_SIDE: usize = 96;

/// What the handlers share.
struct App {
    session: Session,
    settings: Settings,
    sampling: Sampling,
    fps: f64,
    queue: usize,
    /// How the source is read, and files.
    capture: CaptureOptions,
    /// As typed, without credentials.
    source: String,
    guard: Guard,
    files: Option<Files>,
    /// What is kept of a file's pictures.
    preprocessor: Preprocessor,
    file_turn: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    kept: Arc<Kept>,
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
    log::start(serve.journal);
    let guard = Guard::open(serve.listen, serve.token_file.as_deref())?;
    let files = serve.allow_files.as_deref().map(Files::open).transpose()?;
    let mut model = Model::open_for(bundle, serve.stream.engines, serve.stream.wish(None))?;
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
    let capture = serve.stream.capture(&own);
    let options = SessionOptions {
        settings: settings.clone(),
        live: LiveOptions {
            capture: capture.clone(),
            fps: Some(fps),
            ..LiveOptions::lasting(&serve.stream.source)
        },
        queue: serve.queue,
        observers: vec![metrics.clone()],
    };
    let preprocessor = model.encoder.preprocessing().clone();
    let source = serve.stream.source.to_string();
    let note = SessionNote::new(&model.language, model.encoder.name(), &settings, &source);
    let app = App {
        session: Session::start(model, &serve.stream.source, options, &own)?,
        settings,
        sampling: serve.tokens.over(defaults.tokens),
        fps,
        queue: serve.queue,
        capture,
        source,
        guard,
        files,
        preprocessor,
        file_turn: Arc::new(Semaphore::new(1)),
        metrics,
        kept: Arc::new(Kept::new(note)),
        pictures: Pictures::default(),
        started: Instant::now(),
        ids: AtomicU64::new(0),
    };
    app.session.wait_for(1, OPENING);
    if let Some(error) = app.session.failure() {
        return Err(error.into());
    }
    log::info(&format!(
        "listening on http://{address}{}",
        if app.guard.wants_token() { ", with a token" } else { "" }
    ));
    let app = network(listener, app, interrupt, &own)?;
    log::info("stopped");
    log::flush();
    // A source that broke for good ends the service, so that what watches over it can start it again.
    app.session.failure().filter(|_| !interrupt.requested()).map_or(Ok(()), |error| Err(error.into()))
}

/// Runs the network until a stop is asked for or the source is broken for good; `own` then ends the session, a moment later.
fn network(
    listener: std::net::TcpListener,
    app: App,
    interrupt: &Interrupt,
    own: &Interrupt,
) -> anyhow::Result<Arc<App>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .context("starting the network's thread")?;
    let app = Arc::new(app);
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (stop, stopping) = watch::channel(false);
        // Not on this thread: whoever listens may be slow.
        let (told, until) = (Arc::clone(&app), stopping.clone());
        let teller = std::thread::Builder::new().name("utr-systemd".into());
        let teller = teller.spawn(move || systemd::run(&told, &until))?;
        let (asked, own, watched) = (interrupt.clone(), own.clone(), Arc::clone(&app));
        tokio::spawn(async move {
            while !asked.requested() && watched.session.failure().is_none() {
                tokio::time::sleep(TICK).await;
            }
            log::info("stopping");
            let _ = stop.send(true);
            // Answers that end soon do; the others are stopped, and their clients told.
            tokio::time::sleep(FINISH).await;
            own.request();
        });
        connections::serve(listener, routes::router(Arc::clone(&app)), stopping).await;
        let end = Instant::now() + FINISH;
        while !teller.is_finished() && Instant::now() < end {
            tokio::time::sleep(TICK).await;
        }
        anyhow::Ok(())
    })?;
    // A picture or a file that is still being read ends by itself, or with the process.
    runtime.shutdown_background();
    Ok(app)
}

/// Encodes a drawn frame and answers one token about it: the first question finds everything loaded, and what is broken shows before the
/// port opens.
fn warm_up(model: &mut Model, settings: &Settings, interrupt: &Interrupt) -> Result<()> {
    let picture = RgbFrame::new(WARM_SIDE, WARM_SIDE, vec![128; WARM_SIDE * WARM_SIDE * 3])?;
    let frame = Frame { stamp: Stamp { index: 0, pts_ms: 0 }, captured: Instant::now(), image: picture };
    let frames = encode_frames(model.encoder.as_mut(), &[Arc::new(frame)], interrupt)?;
    let one = Sampling { max_tokens: 1, ..Sampling::default() };
    let question = settings.question("?").with_sampling(one);
    let mut answerer = Answerer::new(Arc::clone(&model.language), settings.kv);
    answerer.answer(&View::unread(frames), &question, interrupt, &mut |_| Ok(())).map(drop)
}
