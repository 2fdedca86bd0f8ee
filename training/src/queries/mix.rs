//! `utr-train mix`: several data sets become one.
//!
//! Comes in: LLaVA-NeXT's mixture file (`datasets: [{json_path, sampling_strategy}]`, YAML; reference.md §2.1). Goes out: one conversation file, its records in
//! the order of the data sets, each once, with ids that differ, and a card. `all`, `first:N`, `end:N` and `random:N` are taken as there; N may be a percentage,
//! rounded up. Media are not opened and not moved.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use rand::seq::index::sample;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::card::{Card, Facts};
use super::command::card_path;
use super::llava::{self, Conversation};
use crate::files::{distinct, write_atomic, write_jsonl};
use crate::parts::generator;

/// Several data sets become one
#[derive(Clone, Debug, clap::Args)]
pub struct MixArgs {
    /// The mixture, YAML: `datasets: [{json_path: FILE, sampling_strategy: "random:30%"}]`
    #[arg(long)]
    pub datasets: PathBuf,
    /// Conversations: JSON lines, or one JSON list where it ends in `.json`; a card goes beside them
    #[arg(long)]
    pub output: PathBuf,
    /// Keep records whose media and words are those of an earlier one
    #[arg(long)]
    pub keep_duplicates: bool,
    /// Decides what `random:N` takes
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// The mixture file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mixture {
    datasets: Vec<Dataset>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dataset {
    json_path: String,
    #[serde(default = "all")]
    sampling_strategy: String,
}

fn all() -> String {
    "all".into()
}

/// What was taken of a data set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// As named in the mixture.
    pub path: String,
    /// As named in the mixture.
    pub strategy: String,
    /// Records it has.
    pub records: usize,
    /// Records that were taken.
    pub taken: usize,
    /// Records that the rule chose and an earlier one equals.
    pub duplicates: usize,
}

/// How many records, from where.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Strategy {
    All,
    First(Amount),
    End(Amount),
    Random(Amount),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Amount {
    Records(usize),
    Percent(f64),
}

impl Amount {
    fn of(self, total: usize) -> usize {
        match self {
            Amount::Records(count) => count.min(total),
            Amount::Percent(percent) => ((total as f64 * percent / 100.0).ceil() as usize).min(total),
        }
    }
}

impl FromStr for Strategy {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let wanted = || {
            format!(
                "sampling_strategy {text:?}: write all, first:N, end:N or random:N, N a number or a percentage such as 30%"
            )
        };
        if text == "all" {
            return Ok(Strategy::All);
        }
        let (rule, amount) = text.split_once(':').with_context(wanted)?;
        let amount = match amount.strip_suffix('%') {
            Some(percent) => {
                let percent: f64 = percent.parse().with_context(wanted)?;
                ensure!((0.0..=100.0).contains(&percent), wanted());
                Amount::Percent(percent)
            }
            None => Amount::Records(amount.parse().with_context(wanted)?),
        };
        match rule {
            "first" => Ok(Strategy::First(amount)),
            "end" => Ok(Strategy::End(amount)),
            "random" => Ok(Strategy::Random(amount)),
            _ => bail!(wanted()),
        }
    }
}

impl Strategy {
    /// Places of the records that are taken, in the order of the file.
    fn places(self, total: usize, seed: u64, name: &str) -> Vec<usize> {
        match self {
            Strategy::All => (0..total).collect(),
            Strategy::First(amount) => (0..amount.of(total)).collect(),
            Strategy::End(amount) => (total - amount.of(total)..total).collect(),
            Strategy::Random(amount) => {
                let mut places = sample(&mut generator(seed, name), total, amount.of(total)).into_vec();
                places.sort_unstable();
                places
            }
        }
    }
}

/// Runs `utr-train mix`.
///
/// # Errors
/// A mixture or data set that cannot be read, with its name, an unknown rule, and an output that cannot be written.
pub fn run(args: &MixArgs) -> Result<()> {
    let (records, taken) =
        gather(&args.datasets, !args.keep_duplicates, args.seed, &|input| distinct(&[input], &args.output))?;
    if args.output.extension().is_some_and(|e| e == "json") {
        write_atomic(&args.output, |out| Ok(serde_json::to_writer_pretty(out, &records)?))?;
    } else {
        write_jsonl(&args.output, &records)?;
    }
    for Taken { path, strategy, records, taken, duplicates } in &taken {
        eprintln!("{path} ({strategy}): {taken} of {records} taken, {duplicates} duplicates left out");
    }
    Card::of(&records, Facts { taken, ..Facts::default() }).write(&card_path(&args.output))?;
    println!("{}", args.output.display());
    Ok(())
}

/// The records that a mixture file takes, in the order of its data sets, and what was taken of each; each record once where they are `unique`.
/// `input` may refuse a file before it is read.
///
/// # Errors
/// A mixture or data set that cannot be read, with its name, an unknown rule, and a mixture that takes nothing.
pub fn gather(
    mixture: &Path,
    unique: bool,
    seed: u64,
    input: &dyn Fn(&Path) -> utr_models::Result<()>,
) -> Result<(Vec<Conversation>, Vec<Taken>)> {
    let name = mixture.display();
    let text = std::fs::read_to_string(mixture).with_context(|| format!("reading {name}"))?;
    input(mixture)?;
    let folder = mixture.parent().unwrap_or(Path::new("."));
    let mixture: Mixture = serde_saphyr::from_str(&text).with_context(|| {
        format!("{name}: expected `datasets:` with a list of `json_path` and `sampling_strategy`")
    })?;
    let mut mixer = Mixer { unique, seed, ..Mixer::default() };
    for dataset in &mixture.datasets {
        for path in braces(&dataset.json_path)? {
            let file = beside(folder, &path);
            input(&file)?;
            mixer.add(&path, &file, &dataset.sampling_strategy)?;
        }
    }
    ensure!(!mixer.records.is_empty(), "{name} takes no record of any data set");
    Ok((mixer.records, mixer.taken))
}

/// `a{b,c}.json` is two files, as in LLaVA-NeXT.
fn braces(path: &str) -> Result<Vec<String>> {
    let Some((before, rest)) = path.split_once('{') else { return Ok(vec![path.to_owned()]) };
    let (inside, after) =
        rest.split_once('}').with_context(|| format!("json_path {path:?}: the brace is not closed"))?;
    Ok(inside.split(',').map(|part| format!("{before}{}{after}", part.trim())).collect())
}

/// Relative paths start beside the mixture; where nothing lies there, from the working folder, as in LLaVA-NeXT.
fn beside(folder: &Path, path: &str) -> PathBuf {
    let near = folder.join(path);
    if near.exists() { near } else { PathBuf::from(path) }
}

/// Gathers records.
#[derive(Default)]
struct Mixer {
    unique: bool,
    seed: u64,
    seen: HashSet<[u8; 32]>,
    ids: HashSet<String>,
    records: Vec<Conversation>,
    taken: Vec<Taken>,
}

impl Mixer {
    fn add(&mut self, path: &str, file: &Path, strategy: &str) -> Result<()> {
        let rule: Strategy = strategy.parse().with_context(|| path.to_owned())?;
        let all = llava::read_raw(file)?;
        let records = all.len();
        let mut all: Vec<Option<Conversation>> = all.into_iter().map(Some).collect();
        let mut duplicates = 0;
        let before = self.records.len();
        for place in rule.places(records, self.seed, path) {
            let Some(record) = all.get_mut(place).and_then(Option::take) else { continue };
            if self.unique && !self.seen.insert(content(&record)) {
                duplicates += 1;
                continue;
            }
            let record = self.named(record, path, place);
            self.records.push(record);
        }
        let taken = self.records.len() - before;
        self.taken.push(Taken { path: path.into(), strategy: strategy.into(), records, taken, duplicates });
        Ok(())
    }

    /// An id of its own: where it has none or one that occurred, from the file's name and the record's place.
    fn named(&mut self, mut record: Conversation, path: &str, place: usize) -> Conversation {
        let stem = Path::new(path).file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let given = record.id.as_ref().map(|id| id.as_str().map_or_else(|| id.to_string(), String::from));
        let id = given.unwrap_or_else(|| format!("{stem}-{}", place + 1));
        let mut own = id.clone();
        let mut count = 1;
        while !self.ids.insert(own.clone()) {
            count += 1;
            own = format!("{id}~{count}");
        }
        if own != id || record.id.as_ref().is_none_or(Value::is_null) {
            record.id = Some(own.into());
        }
        record
    }
}

/// Media and words; letter case and spaces do not matter.
fn content(record: &Conversation) -> [u8; 32] {
    let mut digest = Sha256::new();
    let images = record.image.as_ref().map_or(String::new(), |images| images.paths().join("\n"));
    for media in [images.as_str(), record.video.as_deref().unwrap_or_default()] {
        digest.update(media);
        digest.update([0]);
    }
    for message in &record.conversations {
        let words: Vec<&str> = message.value.split_whitespace().collect();
        digest.update(words.join(" ").to_lowercase());
        digest.update([0]);
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Turn;

    fn record(id: &str, words: &str) -> Conversation {
        let turn = Turn { question: "What?".into(), answer: words.into() };
        llava::conversation(id, "a.mp4", &[turn], None)
    }

    fn mixed(files: &[(&str, Vec<Conversation>)], yaml: &str, more: bool) -> Vec<Conversation> {
        let folder = tempfile::tempdir().unwrap();
        for (name, records) in files {
            write_jsonl(&folder.path().join(name), records).unwrap();
        }
        std::fs::write(folder.path().join("mix.yaml"), yaml).unwrap();
        let output = folder.path().join("out.jsonl");
        let datasets = folder.path().join("mix.yaml");
        run(&MixArgs { datasets, output: output.clone(), keep_duplicates: more, seed: 3 }).unwrap();
        assert!(folder.path().join("out.card.md").exists());
        llava::read_raw(&output).unwrap()
    }

    #[test]
    fn rules_take_what_the_reference_takes() {
        let places = |rule: &str| rule.parse::<Strategy>().unwrap().places(10, 1, "x");
        assert_eq!(places("all").len(), 10);
        assert_eq!(places("first:3"), [0, 1, 2]);
        assert_eq!(places("end:21%"), [7, 8, 9]);
        let random = places("random:50%");
        assert!(random.len() == 5 && random.windows(2).all(|w| w[0] < w[1]));
        assert_eq!(places("first:99").len(), 10);
        for bad in ["some", "first", "first:x", "last:3", "random:120%", "end:-1"] {
            assert!(bad.parse::<Strategy>().is_err(), "{bad}");
        }
        assert_eq!(braces("p{a,b}.json").unwrap(), ["pa.json", "pb.json"]);
        assert!(braces("p{a").is_err());
    }

    #[test]
    fn records_come_once_with_ids_of_their_own_in_the_order_of_the_mixture() {
        let a = vec![record("1", "one"), record("2", "Two  words"), record("3", "three")];
        let b = vec![record("1", "two words"), record("1", "four")];
        let yaml = "datasets:\n  - json_path: \"{a,b}.jsonl\"\n    sampling_strategy: all\n";
        let ids = |records: &[Conversation]| -> Vec<String> {
            records.iter().map(|r| r.id.as_ref().unwrap().as_str().unwrap().to_owned()).collect()
        };
        let files = [("a.jsonl", a), ("b.jsonl", b)];
        let once = mixed(&files, yaml, false);
        assert_eq!(ids(&once), ["1", "2", "3", "1~2"]);
        assert_eq!(ids(&mixed(&files, yaml, true)), ["1", "2", "3", "1~2", "1~3"]);
        let few = "datasets:\n- json_path: a.jsonl\n  sampling_strategy: first:34%\n- {json_path: b.jsonl, sampling_strategy: 'end:1'}";
        assert_eq!(ids(&mixed(&files, few, false)), ["1", "2", "1~2"]);
    }
}
