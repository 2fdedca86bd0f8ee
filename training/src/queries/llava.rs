//! LLaVA conversation files: `{id, video | image, conversations: [{from, value}], meta}`, JSON or JSON lines.
//!
//! Comes in: a file, or turns to write. Goes out: records with the media path and turns without their `<image>`
//! placeholder (the prompt puts the frames in). Media are not opened here; text-only records have no media.

use std::path::Path;

use serde::{Deserialize, Serialize};
use utr_models::{Error, Result};

use crate::files::read_jsonl;
use crate::sample::Turn;

/// The placeholder that stands for the whole clip (reference.md §2.1).
const PLACEHOLDERS: [&str; 2] = ["<image>", "<video>"];

/// One line of a conversation file, as it is on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    /// The sample's name; where it is missing the reader makes one from the file and the line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<serde_json::Value>,
    /// Path of a clip below the media root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video: Option<String>,
    /// Path of a picture below the media root, or of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Images>,
    /// Alternately a person's and the model's.
    pub conversations: Vec<Message>,
    /// What the conversation was made from: task, query attribute, query frame, track ids, TPL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<serde_json::Value>,
    /// What else the record has; handed through.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
}

/// One picture, or several that the words refer to in their order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Images {
    /// A path.
    One(String),
    /// Paths.
    Many(Vec<String>),
}

impl Images {
    /// The paths in order.
    pub fn paths(&self) -> &[String] {
        match self {
            Images::One(path) => std::slice::from_ref(path),
            Images::Many(paths) => paths,
        }
    }
}

/// One utterance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `human` or `gpt`; `user` and `assistant` are read too.
    #[serde(alias = "role")]
    pub from: String,
    /// The words; the first human one starts with `<image>\n` when there are media.
    #[serde(alias = "content")]
    pub value: String,
}

/// What a record shows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Media {
    /// A clip, below the media root.
    Video(String),
    /// A picture, below the media root.
    Image(String),
    /// Text only.
    None,
}

/// A conversation as the trainer and `tpl` use it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Stable across runs.
    pub id: String,
    /// What to look at.
    pub media: Media,
    /// Questions and answers, placeholders removed.
    pub turns: Vec<Turn>,
    /// As in the file.
    pub meta: Option<serde_json::Value>,
}

/// Reads a conversation file as it is: a JSON list where it starts with `[`, else JSON lines.
///
/// # Errors
/// Names the file and what serde found there.
pub fn read_raw(path: &Path) -> Result<Vec<Conversation>> {
    let list = std::fs::read(path).map_err(Error::io(path))?;
    if list.trim_ascii_start().starts_with(b"[") {
        return serde_json::from_slice(&list).map_err(|e| Error::format(path, e.to_string()));
    }
    read_jsonl(path)
}

/// Reads a conversation file for training and scoring.
///
/// # Errors
/// Names the file and the record (from 1) that has no question, no answer, or turns out of order.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    let conversations = read_raw(path)?;
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let numbered = (1usize..).zip(conversations);
    numbered
        .map(|(n, c)| {
            record(c, &format!("{stem}-{n}"))
                .map_err(|reason| Error::format(path, format!("record {n}: {reason}")))
        })
        .collect()
}

/// Checks one conversation and takes the placeholders out.
fn record(conversation: Conversation, fallback_id: &str) -> Result<Record, String> {
    let id = match conversation.id {
        Some(serde_json::Value::String(id)) => id,
        Some(serde_json::Value::Null) | None => fallback_id.to_owned(),
        Some(other) => other.to_string(),
    };
    // The key `image` wins over `video`, as in the reference's loader.
    let media = match (conversation.image, conversation.video) {
        (Some(images), _) => match images.paths() {
            [image] => Media::Image(image.clone()),
            paths => {
                return Err(format!(
                    "{} pictures; lists of pictures are read by training alone",
                    paths.len()
                ));
            }
        },
        (None, Some(video)) => Media::Video(video),
        (None, None) => Media::None,
    };
    let turns = turns(&conversation.conversations)?;
    Ok(Record { id, media, turns, meta: conversation.meta })
}

fn turns(messages: &[Message]) -> Result<Vec<Turn>, String> {
    // A conversation that opens with the model's words loses them, as in the reference's template code.
    let start = messages.first().is_some_and(|m| !is_human(m)) as usize;
    let mut turns = Vec::new();
    for pair in messages.get(start..).unwrap_or_default().chunks(2) {
        let [question, answer] = pair else {
            return Err("the last question has no answer; add a `gpt` turn or remove it".into());
        };
        if !is_human(question) || is_human(answer) {
            return Err(format!(
                "turns must alternate human, gpt; found {:?} then {:?}",
                question.from, answer.from
            ));
        }
        turns.push(Turn {
            question: without_placeholder(&question.value),
            answer: answer.value.trim().to_owned(),
        });
    }
    if turns.is_empty() { Err("no question with an answer".into()) } else { Ok(turns) }
}

/// Whether a person says it.
pub(crate) fn is_human(message: &Message) -> bool {
    matches!(message.from.as_str(), "human" | "user")
}

/// The text without its media placeholder, wherever it stood.
fn without_placeholder(value: &str) -> String {
    let bare = PLACEHOLDERS.iter().fold(value.to_owned(), |text, mark| text.replace(mark, ""));
    bare.trim().to_owned()
}

/// A conversation over one clip: the placeholder goes before the first question.
pub fn conversation(id: &str, video: &str, turns: &[Turn], meta: Option<serde_json::Value>) -> Conversation {
    let say = |from: &str, value: String| Message { from: from.to_owned(), value };
    let both = turns.iter().enumerate().flat_map(|(i, t)| {
        let mark = if i == 0 { "<image>\n" } else { "" };
        [say("human", format!("{mark}{}", t.question)), say("gpt", t.answer.clone())]
    });
    Conversation {
        id: Some(id.into()),
        video: Some(video.to_owned()),
        image: None,
        conversations: both.collect(),
        meta,
        rest: serde_json::Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.json");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn what_is_written_reads_back_without_the_placeholder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.jsonl");
        let turns = vec![
            Turn { question: "What?".into(), answer: "this".into() },
            Turn { question: "Q".into(), answer: "A".into() },
        ];
        let line = conversation("a", "clips/a.mp4", &turns, Some(serde_json::json!({"task": "utr"})));
        assert_eq!(line.conversations[0].value, "<image>\nWhat?");
        crate::files::write_jsonl(&path, [line]).unwrap();
        let records = read(&path).unwrap();
        assert_eq!(records[0].turns, turns);
        assert_eq!(records[0].media, Media::Video("clips/a.mp4".into()));
    }

    #[test]
    fn a_json_list_and_role_content_keys_are_read() {
        let (_folder, path) = written(
            r#"[{"id": 3, "image": "a.png", "conversations": [
                {"role": "user", "content": "look <image> here"}, {"role": "assistant", "content": "ok"}]},
               {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}]"#,
        );
        let records = read(&path).unwrap();
        assert_eq!((records[0].id.as_str(), records[1].id.as_str()), ("3", "data-2"));
        assert_eq!(records[0].media, Media::Image("a.png".into()));
        assert_eq!(records[0].turns[0].question, "look  here");
        assert_eq!(records[1].media, Media::None);
    }

    #[test]
    fn a_question_without_an_answer_is_refused_by_record() {
        let (_folder, path) = written(r#"[{"conversations": [{"from": "human", "value": "hi"}]}]"#);
        let message = read(&path).unwrap_err().to_string();
        assert!(message.contains("record 1") && message.contains("no answer"), "{message}");
    }
}
