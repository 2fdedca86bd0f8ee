//! Frames that are encoded beside the window: a file's, while the camera runs on.
//!
//! Comes in: frames from any thread, in a bounded queue. Goes out: the same frames encoded, by the thread that owns the encoder, one
//! between two live frames, so that there is one encoder in memory and the window loses little. It captures nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::capture::Frame;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::pipeline::Seeing;
use crate::window::EncodedFrame;

/// A request: frames in, encoded frames out.
struct Request {
    left: VecDeque<Arc<Frame>>,
    done: Vec<Arc<EncodedFrame>>,
    /// The frame before, which often stands several times in a row.
    last: Option<Arc<Frame>>,
    cancel: Interrupt,
    reply: SyncSender<Result<Vec<Arc<EncodedFrame>>>>,
}

/// Where requests are made.
pub struct Requests(SyncSender<Request>);

/// Where they are served.
pub struct Asides {
    waiting: Receiver<Request>,
    current: Option<Request>,
}

/// Both ends; one request waits beside the one being served.
pub fn asides() -> (Requests, Asides) {
    let (requests, waiting) = sync_channel(1);
    (Requests(requests), Asides { waiting, current: None })
}

impl Requests {
    /// Has frames encoded, and waits.
    ///
    /// # Errors
    /// [`Error::Argument`] where too many requests wait; [`Error::Interrupted`]; whatever encoding reports.
    pub fn encode(&self, frames: &[Arc<Frame>], cancel: &Interrupt) -> Result<Vec<Arc<EncodedFrame>>> {
        let (reply, outcome) = sync_channel(1);
        let left = frames.iter().cloned().collect();
        let request = Request { left, done: Vec::new(), last: None, cancel: cancel.clone(), reply };
        self.0
            .try_send(request)
            .map_err(|_| Error::Argument("other clips are being encoded; ask again later".into()))?;
        outcome.recv().map_err(|_| Error::Interrupted)?
    }
}

impl Asides {
    /// Encodes at most one frame; whether there is more to do.
    pub fn step(&mut self, seeing: &mut Seeing) -> bool {
        let Some(mut request) = self.current.take().or_else(|| self.waiting.try_recv().ok()) else {
            return false;
        };
        match request.step(seeing) {
            Ok(true) => self.current = Some(request),
            Ok(false) => {
                let done = std::mem::take(&mut request.done);
                let _ = request.reply.send(Ok(done));
            }
            Err(error) => {
                let _ = request.reply.send(Err(error));
            }
        }
        self.current.is_some()
    }
}

impl Request {
    fn step(&mut self, seeing: &mut Seeing) -> Result<bool> {
        self.cancel.check()?;
        let Some(frame) = self.left.pop_front() else { return Ok(false) };
        let same = self.last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &frame));
        let encoded = match self.done.last().filter(|_| same) {
            Some(before) => Arc::clone(before),
            None => seeing.encode(&frame)?,
        };
        self.done.push(encoded);
        self.last = Some(frame);
        Ok(!self.left.is_empty())
    }
}
