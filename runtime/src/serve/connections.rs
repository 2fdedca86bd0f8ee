//! Connections: accepted, bounded in number and in time, ended in order.
//!
//! Comes in: a listening socket and the routes. Goes out: HTTP/1.1. A client that sends its head or body slowly is cut off; one
//! that reads slowly holds a connection and nothing else, and is cut off by the kernel once it acknowledges nothing. What requests mean is known
//! elsewhere.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::log;

/// Most connections at once.
pub const MAX_CONNECTIONS: usize = 64;
/// Longest wait for a request's head, from the connection's start or the previous response.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time that sent bytes stay unacknowledged.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest head.
const MAX_HEAD: usize = 16 << 10;
/// What responses in flight may still take once the server stops.
const GRACE: Duration = Duration::from_millis(1500);

const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Serves until `stop` turns true, then lets responses in flight end for a moment.
pub async fn serve(listener: TcpListener, app: Router, mut stop: watch::Receiver<bool>) {
    let mut open = JoinSet::new();
    loop {
        // Ended connections free their place.
        while open.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, _)) if open.len() >= MAX_CONNECTIONS => {
                let _ = stream.try_write(FULL);
            }
            Ok((stream, _)) => {
                open.spawn(connection(stream, app.clone(), stop.clone()));
            }
            Err(error) => {
                // Out of descriptors, usually: others must end before this can go on.
                log::warn(&format!("a connection could not be accepted: {error}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let ended = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, ended).await.is_err() {
        log::info("connections in use are cut off");
    }
}

async fn connection(stream: TcpStream, app: Router, mut stop: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(WRITE_TIMEOUT));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    tokio::pin!(served);
    // A client that breaks the protocol or leaves is its own affair.
    tokio::select! {
        _ = served.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => {}
    }
    served.as_mut().graceful_shutdown();
    let _ = served.await;
}
