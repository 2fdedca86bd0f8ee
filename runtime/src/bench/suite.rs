//! What is measured: one entry as flags, or a suite of them as a TOML file.
//!
//! Comes in: flags, or a file's text: a list of `[[entry]]`, each with the names of the flags as keys. Goes out: checked [`Entry`]s. An unknown key,
//! case, shape or mode is refused with what there is. Nothing is opened but the suite, nothing is measured.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::{Case, spelled};
use crate::cli::Mode;
use crate::decode::KvPrecision;
use crate::shape::{Bits, Model};

/// Visual tokens of one frame where a shape has no tower: SigLIP-base's.
const FRAME_TOKENS: u32 = 49;
/// The suite for boards, built in under this name: a board has the program, not the repository.
const BOARD: (&str, &str) = ("board", include_str!("../../../benches/board.toml"));
/// A suite's file larger than this is refused.
const LARGEST: u64 = 1 << 20;

/// A model and how it is measured.
#[derive(Clone, Debug, PartialEq, clap::Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Entry {
    /// Measure random weights of this shape in a bundle's place: DECODER, or DECODER+TOWER, as in qwen2-0.5b+siglip-b16
    #[arg(long, visible_alias = "random", value_name = "SHAPE")]
    pub shape: Option<Model>,
    /// Bits of the random decoder
    #[arg(long, value_name = "BITS", default_value = "q8_0", requires = "shape")]
    #[serde(deserialize_with = "one")]
    pub bits: Bits,
    /// Visual tokens of one frame, with a shape that has no tower [default: 49]
    #[arg(long, value_name = "N", requires = "shape")]
    pub frame_tokens: Option<u32>,
    /// What to measure
    #[arg(long, value_name = "CASE", value_delimiter = ',', default_values_t = Case::ALL)]
    #[serde(deserialize_with = "many")]
    pub cases: Vec<Case>,
    /// In which window modes
    #[arg(long, value_name = "MODE", value_delimiter = ',', default_values = ["exact", "ahead", "rolling"])]
    #[serde(deserialize_with = "many")]
    pub window_mode: Vec<Mode>,
    /// How keys and values are stored
    #[arg(long, value_name = "BITS", default_value = "f16")]
    #[serde(deserialize_with = "one")]
    pub kv: KvPrecision,
    /// Tokens of the question
    #[arg(long, value_name = "N", default_value_t = Entry::default().question_tokens)]
    pub question_tokens: u32,
    /// Frames that went by before the question
    #[arg(long, value_name = "N", default_value_t = Entry::default().seen)]
    pub seen: u32,
    /// How often each case is measured; the median counts
    #[arg(short, long, value_name = "N", default_value_t = Entry::default().repetitions)]
    pub repetitions: u32,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            shape: None,
            bits: Bits::Q8,
            frame_tokens: None,
            cases: Case::ALL.to_vec(),
            window_mode: vec![Mode::Exact, Mode::Ahead, Mode::Rolling],
            kv: KvPrecision::F16,
            question_tokens: 32,
            seen: 40,
            repetitions: 5,
        }
    }
}

/// A suite's file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Suite {
    entry: Vec<Entry>,
}

fn one<'de, D: Deserializer<'de>, T: ValueEnum>(from: D) -> Result<T, D::Error> {
    value(&String::deserialize(from)?).map_err(D::Error::custom)
}

fn many<'de, D: Deserializer<'de>, T: ValueEnum>(from: D) -> Result<Vec<T>, D::Error> {
    let words = Vec::<String>::deserialize(from)?;
    words.iter().map(|word| value(word).map_err(D::Error::custom)).collect()
}

fn value<T: ValueEnum>(word: &str) -> Result<T, String> {
    let all = || T::value_variants().iter().map(|v| spelled(v.clone())).collect::<Vec<_>>().join(", ");
    T::from_str(word, false).map_err(|_| format!("{word:?} is unknown; there are {}", all()))
}

/// Reads a suite's file, or the one that is built in.
///
/// # Errors
/// A file that cannot be read, is no suite, or asks for what cannot be measured; with the line or the entry.
pub fn load(path: &Path) -> anyhow::Result<Vec<Entry>> {
    if path == Path::new(BOARD.0) {
        return parse(BOARD.1);
    }
    let size = std::fs::metadata(path).map_or(0, |file| file.len());
    ensure!(size <= LARGEST, "the suite {} has {size} bytes; at most {LARGEST} are read", path.display());
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading the suite {}", path.display()))?;
    parse(&text).with_context(|| format!("the suite {}", path.display()))
}

fn parse(text: &str) -> anyhow::Result<Vec<Entry>> {
    let Suite { entry: entries } = toml::from_str(text)?;
    ensure!(!entries.is_empty(), "it has no [[entry]]");
    for (place, entry) in entries.iter().enumerate() {
        entry.check().with_context(|| format!("entry {}", place + 1))?;
    }
    Ok(entries)
}

impl Entry {
    /// Refuses what cannot be measured.
    ///
    /// # Errors
    /// Which setting is wrong, and its limits.
    pub fn check(&self) -> anyhow::Result<()> {
        let limits = [
            ("question-tokens", self.question_tokens, 1024),
            ("seen", self.seen, u32::MAX),
            ("repetitions", self.repetitions, 1000),
            ("frame-tokens", self.frame_tokens.unwrap_or(1), 729),
        ];
        for (name, value, most) in limits {
            ensure!((1..=most).contains(&value), "{name} is {value}; it may be 1 to {most}");
        }
        ensure!(!self.window_mode.is_empty(), "window-mode is empty");
        match self.shape {
            None => ensure!(self.frame_tokens.is_none(), "frame-tokens needs a shape"),
            Some(shape) => {
                if let (Some(_), Some(tokens)) = (self.frame_tokens, shape.frame_tokens()) {
                    bail!("frame-tokens does not go with {shape}, whose tower gives {tokens} tokens a frame");
                }
            }
        }
        let named = || self.cases.iter().map(Case::to_string).collect::<Vec<_>>().join(", ");
        ensure!(
            !self.measured().is_empty(),
            "nothing of [{}] can be measured here: enc needs a shape with a tower (DECODER+TOWER) or a bundle, drop% a bundle",
            named()
        );
        Ok(())
    }

    /// The cases that can be measured, each in its modes.
    pub fn measured(&self) -> Vec<(Case, Option<Mode>)> {
        let cases = self.cases.iter().filter(|case| self.shape.is_none_or(|shape| case.can_measure(shape)));
        let each = cases.flat_map(|case| match case.by_mode() {
            true => self.window_mode.iter().map(|mode| (*case, Some(*mode))).collect(),
            false => vec![(*case, None)],
        });
        each.collect()
    }

    /// Visual tokens of one frame, with a shape.
    pub fn tokens(&self) -> usize {
        let tower = self.shape.and_then(Model::frame_tokens);
        tower.unwrap_or(self.frame_tokens.unwrap_or(FRAME_TOKENS) as usize)
    }

    /// The flags that say the same, for one case.
    pub fn flags(&self, case: Case, mode: Option<Mode>) -> Vec<String> {
        let mut flags = vec![
            ("--cases", case.to_string()),
            ("--kv", spelled(self.kv)),
            ("--question-tokens", self.question_tokens.to_string()),
            ("--seen", self.seen.to_string()),
            ("--repetitions", self.repetitions.to_string()),
        ];
        flags.extend(mode.map(|mode| ("--window-mode", spelled(mode))));
        if let Some(shape) = self.shape {
            flags.extend([("--shape", shape.to_string()), ("--bits", spelled(self.bits))]);
        }
        flags.extend(self.frame_tokens.map(|tokens| ("--frame-tokens", tokens.to_string())));
        flags.into_iter().flat_map(|(flag, value)| [flag.to_string(), value]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, FromArgMatches};

    fn typed(words: &[String]) -> Entry {
        let command = Entry::augment_args(clap::Command::new("bench").no_binary_name(true));
        Entry::from_arg_matches(&command.get_matches_from(words)).unwrap()
    }

    #[test]
    fn what_a_file_leaves_out_is_what_flags_leave_out() {
        assert_eq!(typed(&[]), Entry::default());
        assert_eq!(parse("[[entry]]\n").unwrap(), [Entry::default()]);
    }

    #[test]
    fn a_suite_says_what_flags_say() {
        let text = r#"
            [[entry]]
            shape = "qwen2-7b+siglip-so400m"
            bits = "q4_0"
            cases = ["ttft32", "drop%"]
            window-mode = ["ahead", "rolling"]
            kv = "q8"
            question-tokens = 64
            seen = 100
            repetitions = 3
        "#;
        let entry = parse(text).unwrap().remove(0);
        // drop% needs a bundle.
        let measured = [(Case::Ttft32, Some(Mode::Ahead)), (Case::Ttft32, Some(Mode::Rolling))];
        assert_eq!(entry.measured(), measured);
        assert_eq!(entry.tokens(), 196);
        let again = typed(&entry.flags(Case::Ttft32, Some(Mode::Ahead)));
        let one = Entry { cases: vec![Case::Ttft32], window_mode: vec![Mode::Ahead], ..entry };
        assert_eq!(again, one);
        let bare = typed(&["--random", "qwen2-0.5b", "--frame-tokens", "50"].map(String::from));
        assert_eq!((bare.tokens(), bare.check().is_ok()), (50, true));
    }

    #[test]
    fn what_cannot_be_measured_is_refused_with_its_name() {
        for (text, part) in [
            ("[[entry]]\nbit = \"q4_0\"", "bit"),
            ("[[entry]]\nbits = \"q5_0\"", "q4_0"),
            ("[[entry]]\ncases = [\"pp512\"]", "ttft32"),
            ("[[entry]]\nwindow-mode = [\"sliding\"]", "rolling"),
            ("[[entry]]\nwindow-mode = []", "empty"),
            ("[[entry]]\nshape = \"llama\"", "qwen2-7b"),
            ("[[entry]]\nrepetitions = 0", "1 to 1000"),
            ("[[entry]]\nrepetitions = -1", "line 2"),
            ("[[entry]]\nframe-tokens = 9", "needs a shape"),
            ("[[entry]]\nshape = \"tiny+tiny\"\nframe-tokens = 9", "4 tokens"),
            ("[[entry]]\nshape = \"tiny\"\ncases = [\"enc\", \"drop%\"]", "enc, drop%"),
            ("[[entry]]\ncases = []", "nothing"),
            ("[entries]", "entries"),
            ("entry = []", "no [[entry]]"),
            ("", "entry"),
            ("[[entry]", "line 1"),
        ] {
            let message = format!("{:#}", parse(text).unwrap_err());
            assert!(message.contains(part), "{text}: {message}");
        }
        let message = format!("{:#}", load(Path::new("no/such/suite.toml")).unwrap_err());
        assert!(message.contains("no/such/suite.toml"), "{message}");
    }

    #[test]
    fn the_suite_for_boards_is_one() {
        let entries = load(Path::new("board")).unwrap();
        let shapes: Vec<_> = entries.iter().map(|entry| entry.shape.map(|shape| shape.to_string())).collect();
        assert!(
            shapes.contains(&None) && shapes.contains(&Some("qwen2-7b+siglip-so400m".into())),
            "{shapes:?}"
        );
    }
}
