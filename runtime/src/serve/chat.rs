//! One question over HTTP: from a body to a response, in one piece or token by token.
//!
//! Comes in: a request. Goes out: a response in OpenAI's shape. The question goes to the session's queue; pieces come back through a channel with
//! room for the whole answer, so that no client, however slow, holds the answering thread. A client that leaves takes the receiving end with
//! it, which stops the answer between two tokens.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request as HttpRequest, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::mpsc;
use utr_models::RgbFrame;

use super::errors::ApiError;
use super::openai::{Ask, Media, Request};
use super::reply::Head;
use super::{App, log};
use crate::answer::{Answer, Question};
use crate::capture::CaptureOptions;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::sample::{Sampling, sample_with};
use crate::session::{About, Job, Refused};
use crate::source::Source;
use crate::window::EncodedFrame;

/// Largest body.
pub const MAX_BODY: usize = 1 << 20;
/// Longest time a body takes to come.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two signs of life while no token comes.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What comes back from the session.
enum Told {
    Piece(String),
    Done(Box<Result<Answer>>),
}

/// The receiving end of an answer. Dropping it stops the answer.
struct Pieces {
    told: mpsc::Receiver<Told>,
    /// Held for its end.
    _cancel: Cancel,
}

/// Raises its flag when nobody waits any more.
struct Cancel(Interrupt);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.request();
    }
}

/// `POST /v1/chat/completions`.
pub async fn completions(State(app): State<Arc<App>>, request: HttpRequest<Body>) -> Response {
    let asked = Instant::now();
    match answer(&app, request, asked).await {
        Ok(response) => response,
        Err(error) => {
            match error.status.as_u16() {
                429 => app.metrics.refused("busy"),
                400..=499 => app.metrics.refused("refused"),
                _ => {}
            }
            error.into_response()
        }
    }
}

async fn answer(
    app: &Arc<App>,
    request: HttpRequest<Body>,
    asked: Instant,
) -> std::result::Result<Response, ApiError> {
    let body = read_body(request.into_body()).await?;
    let ask = Request::parse(&body)?.resolve(app.sampling, app.settings.system.as_deref())?;
    drop(body);
    let cancel = Cancel(app.session.cancel_flag());
    let about = about(app, &ask.media, &cancel.0).await?;
    let head = head(app);
    let mut pieces = submit(app, &ask, about, asked, cancel, &head.id)?;
    // Waited for before the status is sent: what fails before the first token gets a status of its own.
    let first = match pieces.told.recv().await {
        Some(Told::Done(outcome)) => Told::Done(Box::new(Ok((*outcome)?))),
        Some(piece) => piece,
        None => return Err(Error::Interrupted.into()),
    };
    if ask.stream {
        return Ok(stream(pieces, first, head, ask.include_usage));
    }
    let mut told = Some(first);
    loop {
        match told {
            Some(Told::Piece(_)) => told = pieces.told.recv().await,
            Some(Told::Done(outcome)) => return Ok(json_response(&head.completion(&(*outcome)?))),
            None => return Err(Error::Interrupted.into()),
        }
    }
}

/// A body within its limits of size and time.
async fn read_body(body: Body) -> std::result::Result<Vec<u8>, ApiError> {
    let too_slow = |_| {
        let text = format!("the body did not come within {} s", BODY_TIMEOUT.as_secs());
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "too_slow", text)
    };
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await;
    match collected.map_err(too_slow)? {
        Ok(body) => Ok(body.to_bytes().to_vec()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("the body is larger than {MAX_BODY} bytes (1 MiB)"),
        )),
        Err(_) => Err(ApiError::invalid("the body could not be read", None)),
    }
}

/// What the question stands on; a file is captured and encoded here.
async fn about(app: &Arc<App>, media: &Media, cancel: &Interrupt) -> std::result::Result<About, ApiError> {
    let url = match media {
        Media::File(url) => url,
        live => {
            if app.session.view().is_none_or(|view| view.frames.is_empty()) {
                let text = "no frame has come yet; /readyz says why";
                return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "no_frame", text).retry(1));
            }
            return Ok(if let Media::Newest(n) = live { About::Newest(*n) } else { About::Window });
        }
    };
    let Some(files) = &app.files else {
        let text = "this server reads no files; start it with --allow-files DIR, or ask about live:";
        return Err(ApiError {
            code: Some("files_not_allowed"),
            ..ApiError::invalid(text, Some("messages"))
        });
    };
    let path = files.find(url)?;
    let Ok(turn) = Arc::clone(&app.file_turn).try_acquire_owned() else {
        let text = "another file is being read; ask again when it is done";
        return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "files_busy", text).retry(2));
    };
    let (app, cancel) = (Arc::clone(app), cancel.clone());
    let read = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        read_file(&app, &Source::Path(path), &cancel)
    });
    let frames = read.await.map_err(|_| Error::Decoder("reading a file panicked".into()))?;
    frames.map(About::Frames).map_err(|error| match error {
        Error::Interrupted => error.into(),
        other => {
            log::warn(&format!("a file was not read: {other}"));
            ApiError::invalid(
                "the file could not be read as a video; the server's log has the reason",
                Some("messages"),
            )
        }
    })
}

/// Frames spread evenly over a file, encoded between live frames.
fn read_file(app: &App, source: &Source, cancel: &Interrupt) -> Result<Vec<Arc<EncodedFrame>>> {
    let options = CaptureOptions { interrupt: cancel.clone(), ..app.capture.clone() };
    let keep = |picture: RgbFrame| Ok(app.preprocessor.picture(&picture)?);
    let sampled = sample_with(source, Sampling::Uniform { frames: app.settings.frames }, &options, &keep)?;
    app.session.encode(&sampled.frames, cancel)
}

/// Puts the question into the queue.
fn submit(
    app: &Arc<App>,
    ask: &Ask,
    about: About,
    asked: Instant,
    cancel: Cancel,
    id: &str,
) -> std::result::Result<Pieces, ApiError> {
    let question = Question {
        messages: ask.messages.clone(),
        prompt: app.settings.prompt,
        sampling: ask.sampling,
        asked,
        evidence: ask.evidence,
    };
    // A piece for each token, the rest of a split character, the end.
    let (tell, told) = mpsc::channel(ask.sampling.max_tokens + 2);
    let end = tell.clone();
    let keep = ask.keep.then(|| (Arc::clone(&app.kept), question.clone(), id.to_string()));
    let job = Job {
        question,
        cancel: cancel.0.clone(),
        on_text: Box::new(move |piece| {
            tell.try_send(Told::Piece(piece.into())).map_err(|_| Error::Interrupted)
        }),
        done: Box::new(move |outcome, view| {
            if let (Some((kept, question, id)), Ok(answer), Some(view)) = (keep, &outcome, &view)
                && let Err(error) = kept.put(&id, view, question, answer)
            {
                log::warn(&format!("an answer was not kept: {error}"));
            }
            drop(view);
            let _ = end.try_send(Told::Done(Box::new(outcome)));
        }),
    };
    match app.session.submit_about(job, about) {
        Ok(()) => Ok(Pieces { told, _cancel: cancel }),
        Err((Refused::Busy, _)) => Err(busy(app)),
        Err((Refused::Ended, _)) => Err(Error::Interrupted.into()),
    }
}

fn busy(app: &App) -> ApiError {
    let pending = app.session.status().pending;
    let seconds = (pending as f64 * app.metrics.recent().answer_s).ceil().clamp(1.0, 60.0) as u64;
    let text = format!("{pending} questions are waiting or being answered; ask again in about {seconds} s");
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", text).retry(seconds)
}

fn head(app: &App) -> Head {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let id = format!("chatcmpl-{:x}{:04x}", now.as_micros(), app.next_id() & 0xffff);
    Head { id, created: now.as_secs(), model: app.session.language().name.clone() }
}

fn json_response(value: &serde_json::Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

/// Server-sent events in OpenAI's framing; `[DONE]` ends an answer, an `error` object one that broke.
fn stream(pieces: Pieces, first: Told, head: Head, include_usage: bool) -> Response {
    let mut events = Events { pieces, head, include_usage, ready: VecDeque::new(), ended: false };
    events.ready.push_back(events.head.opening().to_string());
    events.take(first);
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

/// Pieces as events.
struct Events {
    pieces: Pieces,
    head: Head,
    include_usage: bool,
    ready: VecDeque<String>,
    ended: bool,
}

impl Events {
    fn take(&mut self, told: Told) {
        match told {
            Told::Piece(text) => self.ready.push_back(self.head.piece(&text).to_string()),
            Told::Done(outcome) => {
                self.ended = true;
                match *outcome {
                    Ok(answer) => {
                        self.ready.push_back(self.head.closing(&answer).to_string());
                        if self.include_usage {
                            self.ready.push_back(self.head.usage(&answer).to_string());
                        }
                        self.ready.push_back("[DONE]".into());
                    }
                    Err(error) => self.ready.push_back(ApiError::from(error).body().to_string()),
                }
            }
        }
    }
}

impl Stream for Events {
    type Item = std::result::Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(data) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Event::default().data(data))));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match self.pieces.told.poll_recv(context) {
                Poll::Ready(Some(told)) => self.take(told),
                Poll::Ready(None) => {
                    self.take(Told::Done(Box::new(Err(Error::Interrupted))));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
