//! The routes, and what every response carries.
//!
//! Comes in: requests. Goes out: responses. Every request passes the guard first. Pictures are made on threads that may block.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;

use super::errors::ApiError;
use super::{App, chat, status};

const PAGE: &str = include_str!("page.html");

/// The page runs its own script and style and talks to this server only.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' blob: data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Everything this server answers.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/models", get(models))
        .route("/v1/chat/completions", post(chat::completions))
        .route(
            "/api/status",
            get(|State(app): State<Arc<App>>| async move { json_text(&status::report(&app)) }),
        )
        .route("/api/frame.jpg", get(frame))
        .route("/api/strip", get(strip))
        .route("/api/answer.mcap", get(answer))
        .fallback(|| async {
            ApiError::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here; the page is at /")
        })
        .method_not_allowed_fallback(|| async {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "this address takes another method",
            )
        })
        .layer(from_fn_with_state(Arc::clone(&app), guarded))
        .with_state(app)
}

/// Lets a request in, and sets the headers every response carries.
async fn guarded(State(app): State<Arc<App>>, request: Request<Body>, next: Next) -> Response {
    let known = request.headers().get(header::AUTHORIZATION).cloned();
    let mut response = match app.guard.check(request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    // Who has no token, or asks for nothing that needs one, keeps no connection from those who have.
    let strange = app.guard.wants_token() && !app.guard.knows(known.as_ref());
    let headers = response.headers_mut();
    if strange {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
        ("cross-origin-resource-policy", "same-origin"),
        ("referrer-policy", "no-referrer"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

async fn page() -> Response {
    ([(header::CONTENT_SECURITY_POLICY, PAGE_POLICY)], Html(PAGE)).into_response()
}

async fn readyz(State(app): State<Arc<App>>) -> Response {
    let status = app.session.status();
    let health = status::health(&app, &status);
    let code = if health.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "ready": health.ready,
        "reason": health.reason,
        "source": status::source_state(&status),
        "newest_age_ms": status.newest.map(|newest| newest.elapsed().as_millis() as u64),
    });
    (code, json_text(&body)).into_response()
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.metrics.text(&app.session.status())).into_response()
}

async fn models(State(app): State<Arc<App>>) -> Response {
    let language = app.session.language();
    let created = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
        .saturating_sub(app.started.elapsed().as_secs());
    let model = json!({"id": language.name, "object": "model", "created": created, "owned_by": "utr", "hash": language.hash});
    json_text(&json!({"object": "list", "data": [model]})).into_response()
}

async fn frame(State(app): State<Arc<App>>) -> Response {
    let Some(frame) = app.session.newest_frame() else {
        return ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "no_frame", "no frame has come yet")
            .into_response();
    };
    let (index, pts) = (frame.stamp.index.to_string(), frame.stamp.pts_ms.to_string());
    match tokio::task::spawn_blocking(move || app.pictures.newest(frame)).await {
        Ok(jpeg) if !jpeg.is_empty() => {
            let stamps =
                [("content-type", "image/jpeg".to_string()), ("x-utr-index", index), ("x-utr-pts-ms", pts)];
            (stamps, jpeg).into_response()
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// `have=INDEX`: the newest frame whose picture the client knows.
async fn strip(State(app): State<Arc<App>>, uri: Uri) -> Response {
    let query = uri.query().unwrap_or_default();
    let have = query.split('&').find_map(|pair| pair.strip_prefix("have=")?.parse().ok());
    let made = tokio::task::spawn_blocking(move || {
        let answer = app.metrics.recent().answer.clone();
        app.pictures.strip(app.session.view().as_ref(), answer.as_ref(), have)
    });
    match made.await {
        Ok(strip) => json_text(&strip).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// `id=chatcmpl-…`: the answer that was kept, as a recording (`utr ask --source replay://FILE.mcap`).
async fn answer(State(app): State<Arc<App>>, uri: Uri) -> Response {
    let query = uri.query().unwrap_or_default();
    let id = query.split('&').find_map(|pair| pair.strip_prefix("id=")).unwrap_or_default();
    let Some(bytes) = app.kept.get(id) else {
        let text =
            "this answer is not kept; ask with \"keep\": true, and fetch it before the next such answer";
        return ApiError::new(StatusCode::NOT_FOUND, "not_kept", text).into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_string()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{id}.mcap\"")),
    ];
    (headers, bytes.to_vec()).into_response()
}

fn json_text(value: &serde_json::Value) -> impl IntoResponse + use<> {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string())
}
