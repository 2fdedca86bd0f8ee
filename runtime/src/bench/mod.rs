//! `utr bench`: what this machine makes of a model, beside what it could make at most.
//!
//! Comes in: a bundle, or a shape with random weights; which cases. Goes out: one row a case, as a table or as JSON; with JSON lines one row is printed as
//! soon as it is known. Every case runs in a process of its own, so that memory is its own and caches are cold alike. Speed is printed, never
//! judged.

mod cases;
mod ceiling;
pub mod random;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::cli::Mode;
use crate::decode::KvPrecision;
use crate::interrupt::Interrupt;

pub use ceiling::Ceiling;

/// `utr bench`, as typed.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// The bundle to measure [default: UTR_BUNDLE, else the one that ships]
    #[arg(long, value_name = "DIR", conflicts_with = "random")]
    pub bundle: Option<PathBuf>,
    /// Measure a decoder of this shape with random weights in its place
    #[arg(long, value_name = "SHAPE")]
    pub random: Option<random::Shape>,
    /// Bits of the random weights
    #[arg(long, value_name = "BITS", default_value = "q8_0", requires = "random")]
    pub bits: random::Bits,
    /// Visual tokens of one frame, with --random
    #[arg(long, value_name = "N", default_value_t = 49, value_parser = clap::value_parser!(u32).range(1..=729), requires = "random")]
    pub frame_tokens: u32,
    /// What to measure
    #[arg(long, value_name = "CASE", value_delimiter = ',', default_values_t = Case::ALL)]
    pub cases: Vec<Case>,
    /// In which window modes
    #[arg(long, value_name = "MODE", value_delimiter = ',', default_values = ["exact", "ahead", "rolling"])]
    pub window_mode: Vec<Mode>,
    /// How keys and values are stored
    #[arg(long, value_name = "BITS", default_value = "f16")]
    pub kv: KvPrecision,
    /// Tokens of the question
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub question_tokens: u32,
    /// Frames that went by before the question
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..))]
    pub seen: u32,
    /// How often each case is measured; the median counts
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repetitions: u32,
    /// How rows are printed
    #[arg(short, long, value_name = "FORMAT", default_value = "md")]
    pub output: Format,
    /// Measure one case here and print its rows (what the program asks of itself)
    #[arg(long, hide = true)]
    pub child: bool,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
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
    #[serde(rename = "drop%")]
    Drop,
}

impl Case {
    const ALL: [Self; 6] = [Self::Enc, Self::Frame, Self::Ttft32, Self::Tg128, Self::RssPeak, Self::Drop];

    /// Whether the window's mode makes a difference.
    fn by_mode(self) -> bool {
        matches!(self, Self::Ttft32 | Self::RssPeak | Self::Drop)
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use clap::ValueEnum;
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

/// How rows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A Markdown table
    Md,
    /// Comma-separated values
    Csv,
    /// One JSON array
    Json,
    /// One JSON object a line, as soon as it is known
    Jsonl,
}

/// A measured number and the best that could be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Case, as it is asked for.
    pub case: String,
    /// Window mode, where it matters.
    pub mode: Option<String>,
    /// Median.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// What it cannot be better than on this machine, in the same unit; none where nothing bounds it.
    pub ceiling: Option<f64>,
    /// Every measurement.
    pub samples: Vec<f64>,
    /// What the ceiling is made of, and what was measured.
    pub note: String,
}

/// Runs the command.
///
/// # Errors
/// What keeps a case from being measured, with what it printed; [`crate::Error::Interrupted`].
pub fn run(
    arguments: &BenchArgs,
    bundle: &Path,
    interrupt: &Interrupt,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    if arguments.child {
        let case = arguments.cases.first().copied().context("no case to measure")?;
        for row in cases::measure(case, arguments, bundle, interrupt)? {
            writeln!(out, "{}", serde_json::to_string(&row)?)?;
        }
        return Ok(());
    }
    let mut rows = Vec::new();
    for case in &arguments.cases {
        if arguments.random.is_some() && matches!(case, Case::Enc | Case::Drop) {
            continue;
        }
        let all = [None];
        let modes: Vec<Option<Mode>> = arguments.window_mode.iter().copied().map(Some).collect();
        for mode in if case.by_mode() { modes.as_slice() } else { all.as_slice() } {
            interrupt.check()?;
            for row in in_child(*case, *mode, arguments, bundle)? {
                if arguments.output == Format::Jsonl {
                    writeln!(out, "{}", serde_json::to_string(&row)?)?;
                    out.flush()?;
                }
                rows.push(row);
            }
        }
    }
    match arguments.output {
        Format::Jsonl => {}
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&rows)?)?,
        Format::Csv => csv(&rows, out)?,
        Format::Md => markdown(&rows, out)?,
    }
    Ok(())
}

/// Measures one case in a process of its own.
fn in_child(
    case: Case,
    mode: Option<Mode>,
    arguments: &BenchArgs,
    bundle: &Path,
) -> anyhow::Result<Vec<Row>> {
    use clap::ValueEnum;
    let name = |value: Option<clap::builder::PossibleValue>| {
        value.map(|v| v.get_name().to_string()).unwrap_or_default()
    };
    let mut command = Command::new(std::env::current_exe().context("finding this program")?);
    command.args([
        "bench",
        "--child",
        "--cases",
        &case.to_string(),
        "--kv",
        &name(arguments.kv.to_possible_value()),
    ]);
    if let Some(mode) = mode {
        command.args(["--window-mode", &name(mode.to_possible_value())]);
    }
    match arguments.random {
        Some(shape) => {
            command.args([
                "--random",
                &name(shape.to_possible_value()),
                "--bits",
                &name(arguments.bits.to_possible_value()),
            ]);
            command.args(["--frame-tokens", &arguments.frame_tokens.to_string()]);
        }
        None => {
            command.arg("--bundle").arg(bundle);
        }
    }
    command.args([
        "--question-tokens",
        &arguments.question_tokens.to_string(),
        "--seen",
        &arguments.seen.to_string(),
    ]);
    command.args(["--repetitions", &arguments.repetitions.to_string()]);
    let done = command.stderr(Stdio::inherit()).output().context("starting a process for one case")?;
    ensure!(done.status.success(), "the case {case} failed ({}); its message is above", done.status);
    let text = String::from_utf8(done.stdout).context("a case printed what is no text")?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("a case printed {line:?}")))
        .collect()
}

fn markdown(rows: &[Row], out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "| case | mode | value | ceiling | of it | note |")?;
    writeln!(out, "|---|---|---:|---:|---:|---|")?;
    for row in rows {
        let (mode, unit) = (row.mode.as_deref().unwrap_or(""), &row.unit);
        let ceiling = row.ceiling.map(|c| format!("{} {unit}", short(c))).unwrap_or_default();
        let share = row.share().map(|s| format!("{:.0} %", s * 100.0)).unwrap_or_default();
        writeln!(
            out,
            "| {} | {mode} | {} {unit} | {ceiling} | {share} | {} |",
            row.case,
            short(row.value),
            row.note
        )?;
    }
    Ok(())
}

fn csv(rows: &[Row], out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "case,mode,value,unit,ceiling,note")?;
    for row in rows {
        let (mode, ceiling) = (row.mode.as_deref().unwrap_or(""), row.ceiling.map(short).unwrap_or_default());
        let note = row.note.replace('"', "\"\"");
        writeln!(out, "{},{mode},{},{},{ceiling},\"{note}\"", row.case, short(row.value), row.unit)?;
    }
    Ok(())
}

impl Row {
    /// How much of the ceiling was reached: more is better, whether the unit is a time or a rate.
    fn share(&self) -> Option<f64> {
        let ceiling = self.ceiling.filter(|c| *c > 0.0 && self.value > 0.0)?;
        Some(if self.unit == "ms" { ceiling / self.value } else { self.value / ceiling })
    }
}

/// Four figures.
fn short(value: f64) -> String {
    let digits = if value == 0.0 { 0 } else { (3 - value.abs().log10().floor() as i32).clamp(0, 6) };
    format!("{value:.*}", digits as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_figures_and_shares_point_one_way() {
        assert_eq!(
            [short(0.012345), short(1.23456), short(123.456), short(98765.0), short(0.0)],
            ["0.01235", "1.235", "123.5", "98765", "0"]
        );
        let row = |unit: &str, value, ceiling| Row {
            case: "x".into(),
            mode: None,
            value,
            unit: unit.into(),
            ceiling,
            samples: vec![],
            note: String::new(),
        };
        assert_eq!(row("ms", 10.0, Some(5.0)).share(), Some(0.5));
        assert_eq!(row("tok/s", 5.0, Some(10.0)).share(), Some(0.5));
        assert_eq!(row("%", 5.0, None).share(), None);
    }
}
