//! The conversations of a stage, checked, in memory.
//!
//! Comes in: a mixture or a conversation file (reference.md §2.1). Goes out: [`Record`]s with their placeholders where the reference puts them, what was left
//! out and why, and a digest of all. No medium is opened.

use super::{Data, Template};
use crate::queries::llava::{self, Conversation, Images};
use crate::queries::mix::gather;
use crate::sample::Turn;
use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

/// What stands for a picture or clip in a turn.
pub const PLACEHOLDER: &str = "<image>";

/// What a mark of noise in one public data set is replaced by: nothing.
const NOISE: &str = "QA_GT_caption_based_noisy";

/// What a record shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Media {
    /// Text alone.
    None,
    /// A clip, below the root of clips.
    Clip(String),
    /// Pictures in the order of their placeholders, below the root of pictures.
    Pictures(Vec<String>),
}

/// One conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its name, which no other record of the corpus has.
    pub id: String,
    /// What it shows.
    pub media: Media,
    /// Questions, with a [`PLACEHOLDER`] for the clip or for each picture, and answers.
    pub turns: Vec<Turn>,
}

impl Record {
    /// Words of all turns, negative without media: what the reference groups by (its `modality_lengths`).
    pub fn length(&self) -> i64 {
        let words = |text: &str| text.split_whitespace().count() as i64;
        let all =
            self.turns.iter().map(|turn| words(&turn.question) + words(&turn.answer)).sum::<i64>().max(1);
        if self.media == Media::None { -all } else { all }
    }
}

/// All conversations of a stage.
#[derive(Debug)]
pub struct Corpus {
    /// In the order of the files.
    pub records: Vec<Record>,
    /// What could not be used, with the reason.
    pub left_out: Vec<String>,
    /// SHA-256 of the records, in hexadecimal.
    pub sha256: String,
}

impl Corpus {
    /// Reads the conversations of `data`; `seed` decides what `random:N` of a mixture takes.
    ///
    /// # Errors
    /// A file that cannot be read, files without a usable record, and conversations that are not those of `data.sha256`.
    pub fn load(data: &Data, seed: u64) -> Result<Self> {
        let file = data.file().context("data: no conversations are named")?;
        let raw = match &data.mixture {
            // Ids are made distinct there; duplicates stay, as in the reference.
            Some(mixture) => gather(mixture, false, seed, &|_| Ok(()))?.0,
            None => llava::read_raw(file)?,
        };
        let (mut records, mut left_out) = (Vec::with_capacity(raw.len()), Vec::new());
        for (number, conversation) in (1..).zip(raw) {
            let id = name(&conversation, number);
            match record(conversation, id.clone(), data.template) {
                Ok(record) => records.push(record),
                Err(reason) => left_out.push(format!("{id}: {reason}")),
            }
        }
        ensure!(
            !records.is_empty(),
            "{} holds no conversation that can be trained on{}",
            file.display(),
            left_out
                .first()
                .map_or(String::new(), |first| format!("; the first of {}: {first}", left_out.len()))
        );
        let sha256 = digest(&records);
        if let Some(wanted) = &data.sha256 {
            ensure!(
                wanted.eq_ignore_ascii_case(&sha256),
                "the conversations of {} are other ones than the recipe's: their SHA-256 is {sha256}, the recipe says {wanted}; bring the old \
                 files back, or take `sha256` out of the recipe",
                file.display()
            );
        }
        Ok(Self { records, left_out, sha256 })
    }
}

fn name(conversation: &Conversation, number: usize) -> String {
    match &conversation.id {
        Some(serde_json::Value::String(id)) => id.clone(),
        Some(serde_json::Value::Null) | None => format!("record-{number}"),
        Some(other) => other.to_string(),
    }
}

fn digest(records: &[Record]) -> String {
    let mut hasher = Sha256::new();
    let mut add = |text: &str| {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text);
    };
    for record in records {
        add(&record.id);
        match &record.media {
            Media::None => add("text"),
            Media::Clip(path) => ["clip", path.as_str()].into_iter().for_each(&mut add),
            Media::Pictures(paths) => {
                ["pictures"].into_iter().chain(paths.iter().map(String::as_str)).for_each(&mut add)
            }
        }
        record.turns.iter().flat_map(|turn| [&turn.question, &turn.answer]).for_each(|text| add(text));
    }
    crate::files::hexadecimal(&hasher.finalize())
}

/// Checks a conversation and moves its placeholders.
fn record(conversation: Conversation, id: String, template: Template) -> Result<Record, String> {
    let mut turns = turns(&conversation)?;
    // The key `image` wins over `video`, as in the reference's loader.
    let images = conversation.image.map(|images| match images {
        Images::One(path) => vec![path],
        Images::Many(paths) => paths,
    });
    let media = match (images.filter(|paths| !paths.is_empty()), conversation.video) {
        (Some(paths), _) => Media::Pictures(paths),
        (None, Some(path)) => Media::Clip(path),
        (None, None) => Media::None,
    };
    let wanted = match &media {
        Media::None => 0,
        Media::Clip(_) => 1,
        Media::Pictures(paths) => paths.len(),
    };
    if wanted == 0 {
        // Without media a placeholder stands for nothing.
        turns
            .iter_mut()
            .for_each(|turn| turn.question = turn.question.replace(PLACEHOLDER, "").trim().to_owned());
    }
    let found: usize = turns.iter().map(|turn| turn.question.matches(PLACEHOLDER).count()).sum();
    if found == 0 && wanted == 1 {
        if let Some(first) = turns.first_mut() {
            first.question = format!("{PLACEHOLDER}\n{}", first.question).trim().to_owned();
        }
    } else if found != wanted && wanted > 0 {
        return Err(format!("{found} {PLACEHOLDER} placeholders for {wanted} pictures or clips"));
    }
    if template == Template::Plain && (turns.len() != 1 || wanted != 1) {
        return Err(format!(
            "{} turns and {wanted} media; the plain template takes one picture or clip, one question and its answer",
            turns.len()
        ));
    }
    Ok(Record { id, media, turns })
}

/// Questions and answers, with the single placeholder of a turn in front of it.
fn turns(conversation: &Conversation) -> Result<Vec<Turn>, String> {
    let messages = &conversation.conversations;
    // A conversation that opens with the model's words loses them, as in the reference.
    let start = usize::from(messages.first().is_some_and(|m| !llava::is_human(m)));
    let mut turns = Vec::new();
    for pair in messages.get(start..).unwrap_or_default().chunks(2) {
        // A last question without an answer teaches nothing; what comes before it does.
        let [question, answer] = pair else { break };
        if !llava::is_human(question) || llava::is_human(answer) {
            return Err(format!(
                "turns must alternate human, gpt; found {:?} then {:?}",
                question.from, answer.from
            ));
        }
        if answer.value.contains(PLACEHOLDER) {
            return Err(format!("an answer holds {PLACEHOLDER}"));
        }
        // `<video>` is what other tools of this family write.
        let mut question = question.value.replace("<video>", PLACEHOLDER).replace(NOISE, "");
        if question.matches(PLACEHOLDER).count() == 1 && !question.starts_with(PLACEHOLDER) {
            question = format!("{PLACEHOLDER}\n{}", question.replace(PLACEHOLDER, "").trim());
        }
        turns.push(Turn { question, answer: answer.value.replace(NOISE, "") });
    }
    if turns.is_empty() { Err("no question with an answer".into()) } else { Ok(turns) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn load(folder: &Path, lines: &str, template: Template) -> Result<Corpus> {
        let path = folder.join("data.jsonl");
        std::fs::write(&path, lines).unwrap();
        let text = format!("conversations = {path:?}");
        Corpus::load(&Data { template, ..toml::from_str(&text).unwrap() }, 0)
    }

    fn line(media: &str, question: &str) -> String {
        let talk =
            serde_json::json!([{"from": "human", "value": question}, {"from": "gpt", "value": " yes "}]);
        format!("{{{media}\"conversations\": {talk}}}\n")
    }

    #[test]
    fn placeholders_stand_where_the_reference_puts_them() {
        let folder = tempfile::tempdir().unwrap();
        let lines = [
            line("\"image\": \"a.png\",", "what is <image> this?"),
            line("\"video\": \"a.mp4\",", "QA_GT_caption_based_noisywhat?"),
            line("\"image\": [\"a.png\", \"b.png\"],", "first:<image>,second:<image> which?"),
            line("", "<image>\nhello you"),
            line("\"image\": [\"a.png\", \"b.png\"],", "<image>\nwhich?"),
            line("\"video\": \"a.mp4\", \"image\": \"a.png\",", "<image>\nwhat?"),
        ];
        let corpus = load(folder.path(), &lines.concat(), Template::Chat).unwrap();
        let questions: Vec<&str> = corpus.records.iter().map(|r| r.turns[0].question.as_str()).collect();
        let moved = [
            "<image>\nwhat is  this?",
            "<image>\nwhat?",
            "first:<image>,second:<image> which?",
            "hello you",
            "<image>\nwhat?",
        ];
        assert_eq!(questions, moved);
        assert_eq!(corpus.records.iter().map(Record::length).collect::<Vec<_>>(), [5, 3, 3, -3, 3]);
        assert_eq!(corpus.records[4].media, Media::Pictures(vec!["a.png".into()]));
        assert!(corpus.left_out.len() == 1 && corpus.left_out[0].contains("1 <image> placeholders for 2"));
        let again = load(folder.path(), &lines.concat(), Template::Chat).unwrap();
        assert_eq!(corpus.sha256, again.sha256);
        let other = load(folder.path(), &lines.concat().replace("hello", "Hello"), Template::Chat).unwrap();
        assert_ne!(corpus.sha256, other.sha256);
    }

    #[test]
    fn the_plain_template_takes_captions_alone() {
        let folder = tempfile::tempdir().unwrap();
        let lines = [line("\"image\": \"a.png\",", "<image>"), line("", "hello")].concat();
        let corpus = load(folder.path(), &lines, Template::Plain).unwrap();
        assert_eq!((corpus.records.len(), corpus.left_out.len()), (1, 1));
        let error = load(folder.path(), &line("", "hello"), Template::Plain).unwrap_err().to_string();
        assert!(
            error.contains("no conversation that can be trained on") && error.contains("plain"),
            "{error}"
        );
    }
}
