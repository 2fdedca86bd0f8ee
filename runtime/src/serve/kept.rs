//! The newest answer that a client asked to be kept, as a recording that reproduces it.
//!
//! Comes in: an answer with its question and the view it stands on. Goes out: the bytes of an MCAP file. It is made at once and the view let go,
//! because a view that is held keeps frames out of the window. One answer is kept, in memory; a disk is not touched.

use std::io::Cursor;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::answer::{Answer, Question};
use crate::error::Result;
use crate::pipeline::View;
use crate::record::{SessionNote, write_view};

/// What is kept.
pub struct Kept {
    note: SessionNote,
    newest: Mutex<Option<(String, Arc<Vec<u8>>)>>,
}

impl Kept {
    /// Nothing yet; `note` describes the session.
    pub fn new(note: SessionNote) -> Self {
        Self { note, newest: Mutex::default() }
    }

    /// Keeps an answer under its completion's id, in the place of the one before.
    ///
    /// # Errors
    /// What writing the recording reports.
    pub fn put(&self, id: &str, view: &View, question: Question, answer: &Answer) -> Result<()> {
        let mut bytes = Cursor::new(Vec::new());
        write_view(&mut bytes, Path::new(id), &self.note, view, &[(question, answer.clone())])?;
        let kept = (id.to_string(), Arc::new(bytes.into_inner()));
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        Ok(())
    }

    /// The recording of a completion, where it is the one kept.
    pub fn get(&self, id: &str) -> Option<Arc<Vec<u8>>> {
        let kept = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|(known, _)| known == id).map(|(_, bytes)| Arc::clone(bytes))
    }
}
