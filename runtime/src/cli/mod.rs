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

use crate::board::Board;
use crate::budget::Wish;
use crate::decode::KvPrecision;

pub use ask::{Ask, AskArgs};
pub use ros::{Ros, RosArgs, ServiceKind};
pub use serve::{Serve, ServeArgs};
pub use shared::{
    EngineArgs, Mode, ModelArgs, PromptKind, Stream, StreamArgs, TokenArgs, TokenChoice, frames, period,
    time, timeout,
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
    /// Build what is specific to this machine, warm the bundle up and ask its golden questions
    Prepare(crate::prepare::PrepareArgs),
    /// Look into a bundle, or choose which one this device uses
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
        /// What computes.
        #[command(flatten)]
        engine: EngineArgs,
    },
    /// Copy a bundle into the store, check the copy as `verify` does, and make it current; only this bundle and the one before it stay
    Install {
        /// The bundle
        dir: PathBuf,
        /// Where.
        #[command(flatten)]
        store: StoreArgs,
        /// Only say whether there is room for it, which its manifest alone tells
        #[arg(long)]
        check: bool,
        /// The window that will serve.
        #[command(flatten)]
        window: WindowArgs,
        /// What will compute, and answer the golden questions.
        #[command(flatten)]
        engine: EngineArgs,
    },
    /// List the store's bundles
    List {
        /// Where.
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Swap the current bundle and the one before it
    Rollback {
        /// Where.
        #[command(flatten)]
        store: StoreArgs,
    },
}

/// Where a device keeps its bundles, as typed.
#[derive(Debug, Args)]
pub struct StoreArgs {
    /// The store [default: UTR_BUNDLES, else /var/lib/utr/bundles]
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
}

/// The window whose memory is counted, as typed.
#[derive(Debug, Args)]
pub struct WindowArgs {
    /// Frames in the window whose memory is counted, 1 to 32 [default: the bundle's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=32))]
    pub frames: Option<u32>,
    /// How that window slides [default: the bundle's for live sources]
    #[arg(long, value_name = "MODE")]
    pub window_mode: Option<Mode>,
    /// How its keys and values are stored
    #[arg(long, value_name = "BITS", default_value = "f16")]
    pub kv: KvPrecision,
}

impl WindowArgs {
    /// What it asks of memory.
    pub fn wish(&self) -> Wish {
        Wish {
            frames: self.frames.map(|frames| frames as usize),
            mode: self.window_mode.map(Into::into),
            kv: self.kv,
        }
    }
}

/// `utr doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Also read one frame from here
    #[arg(long, value_name = "URI")]
    pub source: Option<String>,
    /// The bundle to look at [default: UTR_BUNDLE, else the store's current one, else the one that ships]
    #[arg(long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Judge by this board's profile [default: the board this is]; on another machine by the profile alone, as before flashing
    #[arg(long, value_name = "BOARD", value_parser = clap::builder::PossibleValuesParser::new(Board::names()))]
    pub board: Option<String>,
    /// Look at a root file system in this folder, such as Linux_for_Tegra/rootfs, in place of this machine
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// The window.
    #[command(flatten)]
    pub window: WindowArgs,
    /// What would compute.
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Print one JSON object: the checks, the facts and the need of memory
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

    #[test]
    fn a_provider_is_onnxruntimes() {
        use crate::encode::EncoderKind;
        let resolve = |words: &str| {
            let cli = Cli::try_parse_from(format!("utr prepare {words}").split_whitespace()).ok()?;
            let Command::Prepare(arguments) = cli.command else { panic!("not prepare") };
            arguments.engine.resolve().ok().map(|engines| engines.encoder)
        };
        assert_eq!(resolve(""), Some(None));
        assert_eq!(resolve("--encoder ort"), Some(Some(EncoderKind::Ort)));
        assert_eq!(resolve("--encoder ort --provider cpu"), Some(Some(EncoderKind::Ort)));
        assert_eq!(resolve("--encoder ort --provider cuda"), Some(Some(EncoderKind::OrtCuda)));
        assert_eq!(resolve("--encoder ort --provider tensorrt"), Some(Some(EncoderKind::OrtTensorrt)));
        for refused in ["--provider cuda", "--encoder tract --provider cuda", "--encoder ort --provider npu"]
        {
            assert_eq!(resolve(refused), None, "{refused}");
        }
    }
}
