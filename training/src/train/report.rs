//! What a run writes down while it trains, on the one rank that writes.
//!
//! Comes in: a record per update. Goes out: `log.jsonl`, `tensorboard/`, `loss.svg` and the live line. On a resume everything is cut back
//! to the checkpoint first.

use super::checkpoint::State;
use super::curves::{self, Record};
use super::driver::Options;
use super::events::Events;
use super::progress::Progress;
use super::recipe::Stage;
use anyhow::Result;
use std::path::{Path, PathBuf};

/// The open files of one stage.
pub struct Report {
    log: PathBuf,
    picture: PathBuf,
    events: Events,
    progress: Progress,
}

/// The log of a run.
pub fn log(run: &Path) -> PathBuf {
    run.join("log.jsonl")
}

impl Report {
    /// Opens the files of a run as they were at `state`; `options` say how progress is shown.
    pub fn open(run: &Path, stage: &Stage, state: &State, options: &Options) -> Result<Self> {
        let log = log(run);
        curves::cut(&log, state.total_steps)?;
        Ok(Self {
            events: Events::create(&run.join("tensorboard"), &curves::read(&log)?)?,
            progress: Progress::new(
                &stage.name,
                [stage.steps, state.step, options.log_every],
                options.label.as_deref(),
            ),
            picture: run.join("loss.svg"),
            log,
        })
    }

    /// Writes one update down and shows it.
    pub fn add(&mut self, record: &Record) -> Result<()> {
        curves::append(&self.log, record)?;
        self.events.add(record)?;
        self.progress.show(record);
        Ok(())
    }

    /// Draws the curve of the whole log.
    pub fn draw(&self) -> Result<()> {
        curves::draw(&curves::read(&self.log)?, &self.picture)
    }

    /// Closes the live line.
    pub fn finish(&self) {
        self.progress.finish();
    }
}
