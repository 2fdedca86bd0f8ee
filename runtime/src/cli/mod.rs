//! The command line: what was typed, and what it resolves to.
//!
//! Comes in: the arguments. Goes out: one struct per subcommand, with the rules between flags applied ([`AskArgs::resolve`],
//! [`ServeArgs::resolve`], [`RosArgs::resolve`]). What several subcommands share is in `shared`. Nothing below this folder reads arguments or environment for
//! settings, and nothing is opened here.

mod ask;
mod ros;
mod serve;
mod shared;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::encode::EncoderKind;

pub use ask::{Ask, AskArgs};
pub use ros::{Ros, RosArgs, ServiceKind};
pub use serve::{Serve, ServeArgs};
pub use shared::{
    Mode, ModelArgs, PromptKind, Stream, StreamArgs, TokenArgs, TokenChoice, frames, period, time, timeout,
};

/// Ask a camera about its last 32 frames.
#[derive(Debug, Parser)]
#[command(name = "utr", version, about, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands of this version.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Ask one or more questions about a clip, or a recording's questions again
    Ask(AskArgs),
    /// Ask standing questions of a live source: one JSON line per answer
    Watch(crate::watch::WatchArgs),
    /// Watch a source and answer over HTTP: an OpenAI-compatible API, a page, metrics
    Serve(ServeArgs),
    /// Answer as a ROS 2 node: a topic of images in, a service, answers and alerts out
    Ros(RosArgs),
    /// Ask with the real, the shuffled, the reversed and the single-frame window: was time used?
    Probe(crate::probe::ProbeArgs),
    /// Write what a live window sees and answers into a file that reproduces it
    Record(crate::record::RecordArgs),
    /// Measure this machine with a model, beside what it could do at most
    Bench(crate::bench::BenchArgs),
    /// Look into a bundle
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// Say what this machine has and lacks
    Doctor(DoctorArgs),
}

/// `utr bundle`.
#[derive(Debug, Subcommand)]
pub enum BundleCommand {
    /// Print what a bundle holds
    Inspect {
        /// The bundle
        dir: PathBuf,
        /// Print the manifest as JSON
        #[arg(long)]
        json: bool,
    },
    /// Check every hash and ask the golden questions again
    Verify {
        /// The bundle
        dir: PathBuf,
        /// What encodes the frames
        #[arg(long, value_name = "ENGINE", default_value = "tract")]
        encoder: EncoderKind,
    },
}

/// `utr doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Also read one frame from here
    #[arg(long, value_name = "URI")]
    pub source: Option<String>,
    /// The bundle to look at [default: UTR_BUNDLE, else the one that ships]
    #[arg(long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Longest wait for a frame, in seconds
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub capture_timeout: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
