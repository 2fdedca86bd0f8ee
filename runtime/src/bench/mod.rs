//! `utr bench`: what this machine makes of a model, beside what it could make at most.
//!
//! Comes in: a bundle, or a shape with random weights, or a suite of them; which cases. Goes out: one row a case, with its spread and what was drawn, and the
//! machine it was measured on; with JSON lines one row is printed as soon as it is known. Every case runs in a process of its own, so that
//! memory is its own and caches are cold alike; what does not fit is skipped with the numbers. With `--assert` rows are judged by what the
//! board's profile expects, else nothing is.

mod cases;
mod ceiling;
mod header;
mod judge;
mod random;
mod rows;
mod run;
mod subject;
mod suite;

use std::path::PathBuf;

use crate::cli::EngineArgs;
use crate::shape::Model;

pub use ceiling::Ceiling;
pub use header::Header;
pub use rows::{Report, Row};
pub use run::run;
pub use suite::Entry;

/// `utr bench`, as typed.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// The bundle to measure [default: UTR_BUNDLE, else the store's current one, else the one that ships]
    #[arg(long, value_name = "DIR", conflicts_with = "shape")]
    pub bundle: Option<PathBuf>,
    /// What is measured, and how.
    #[command(flatten)]
    pub entry: Entry,
    /// Measure every entry of a file; `board` is benches/board.toml, which is built in
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["shape", "bits", "frame_tokens", "cases", "window_mode", "kv", "question_tokens", "seen", "repetitions"]
    )]
    pub suite: Option<PathBuf>,
    /// Compare with what the board's profile expects; exit status 1 where it is missed
    #[arg(long)]
    pub assert: bool,
    /// Whose expectations are meant [default: the board this runs on, as far as it is known]
    #[arg(long, value_name = "NAME")]
    pub board: Option<String>,
    /// What encodes; a shape's tower runs as a bundle's.
    #[command(flatten)]
    pub engine: EngineArgs,
    /// How rows are printed
    #[arg(short, long, value_name = "FORMAT", default_value = "md")]
    pub output: Format,
    /// Measure one case here and print its row (what the program asks of itself)
    #[arg(long, hide = true)]
    pub child: bool,
    /// The `vision.onnx` that was made of a shape
    #[arg(long, hide = true)]
    pub vision_file: Option<PathBuf>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Case {
    /// One frame through the vision encoder
    Enc,
    /// One frame through the decoder, behind a full window
    Frame,
    /// Question to first token at a full window
    Ttft32,
    /// 128 tokens of an answer, behind a full window
    Tg128,
    /// Largest resident memory, after a full window and an answer
    #[value(name = "rss_peak")]
    RssPeak,
    /// Frames lost while a live source is followed and questions are answered
    #[value(name = "drop%")]
    Drop,
}

impl Case {
    const ALL: [Self; 6] = [Self::Enc, Self::Frame, Self::Ttft32, Self::Tg128, Self::RssPeak, Self::Drop];

    /// Whether a shape has what it needs: `enc` a tower, `drop%` a tokenizer, which only a bundle has.
    fn can_measure(self, shape: Model) -> bool {
        match self {
            Self::Enc => shape.tower.is_some(),
            Self::Drop => false,
            _ => true,
        }
    }

    /// Whether the window's mode makes a difference.
    fn by_mode(self) -> bool {
        matches!(self, Self::Ttft32 | Self::RssPeak | Self::Drop)
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&spelled(*self))
    }
}

/// How rows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A Markdown table, the machine above it
    Md,
    /// Comma-separated values, the machine in lines with #
    Csv,
    /// One JSON object: machine, rows, skipped, verdicts
    Json,
    /// One JSON object a row, as soon as it is known, with its machine
    Jsonl,
}

/// A choice as the command line spells it.
fn spelled<T: clap::ValueEnum>(value: T) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string())
}
