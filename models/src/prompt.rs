//! From a question to the token ids on both sides of the video.
//!
//! Comes in: the checkpoint's own Jinja chat template and messages. Goes out: the rendered prompt, and its ids split at
//! the one video token, whose place the visual tokens take. Templates run as Hugging Face runs them (trimmed blocks,
//! Python string methods, `raise_exception`, `strftime_now`, `tojson`). What a user typed is always text: a special token
//! spelled in a question is encoded as ordinary characters and can neither end a turn nor add a video. Nothing is
//! invented: without a template in the folder there is no prompt, only an error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use minijinja::{Environment, Value as JinjaValue, context};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::jinja;
use crate::text::Tokenizer;

/// The text that stands for a video in every template of this family.
pub const VIDEO_TOKEN: &str = "<video>";

/// Whose template to use (reference.md §1.4).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The tokenizer's: how the model was trained and how the reference evaluates it. Content is one string.
    #[default]
    Tokenizer,
    /// The processor's: the checkpoint's demo. Content is a list of typed parts.
    Processor,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Instructions before the conversation.
    System,
    /// The person who asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The name templates know.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said; never parsed for special tokens.
    pub text: String,
    /// Whether the video comes before the text. Exactly one message of a prompt carries it.
    #[serde(default)]
    pub video: bool,
}

impl Message {
    /// A user's question about the video.
    pub fn question(text: impl Into<String>) -> Self {
        Self { role: Role::User, text: text.into(), video: true }
    }

    /// A turn without a video.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, text: text.into(), video: false }
    }
}

/// How a template takes the content of a message; found out by trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// One string with `<video>\n` in front.
    Text,
    /// A list `[{type: video}, {type: text, text}]`.
    Parts,
}

/// A chat template with what it needs to run.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    source: String,
    path: PathBuf,
    /// `bos_token`, `eos_token`, … of the tokenizer, as templates may use them.
    variables: BTreeMap<String, String>,
    content: Content,
}

/// The files that may hold a template, in the order in which each kind asks them.
///
/// `tokenizer_config.json` can only hold the tokenizer's and `chat_template.json` only the processor's, so each kind begins with its own;
/// `chat_template.jinja` may be either's. Each kind ends with the other's files.
const TOKENIZER_FILES: [&str; 4] =
    ["tokenizer_config.json", "chat_template.jinja", "chat_template.json", "processor_config.json"];
const PROCESSOR_FILES: [&str; 4] =
    ["chat_template.json", "chat_template.jinja", "processor_config.json", "tokenizer_config.json"];

impl ChatTemplate {
    /// Finds the template of a model folder or bundle.
    ///
    /// The tokenizer's is looked for in `tokenizer_config.json`, `chat_template.jinja`, `chat_template.json`,
    /// `processor_config.json`, in that order; the processor's in `chat_template.json` (which only processors ever wrote),
    /// `chat_template.jinja`, `processor_config.json`, `tokenizer_config.json`. A list of named
    /// templates gives its `default`.
    pub fn load(folder: &Path, kind: Kind) -> Result<Self> {
        let variables = token_variables(folder)?;
        let files = if kind == Kind::Tokenizer { TOKENIZER_FILES } else { PROCESSOR_FILES };
        for file in files {
            let path = folder.join(file);
            if !path.exists() {
                continue;
            }
            let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
            let source = if file.ends_with(".jinja") { Some(text) } else { template_entry(&path, &text)? };
            if let Some(source) = source {
                return Self::new(source, path, variables, kind);
            }
        }
        Err(Error::format(
            folder,
            format!(
                "no chat template: looked in {}; copy the model's chat_template.jinja there",
                files.join(", ")
            ),
        ))
    }

    /// A template from its text, with `variables` such as `eos_token`; errors carry `path` as its name.
    pub fn new(
        source: String,
        path: PathBuf,
        variables: BTreeMap<String, String>,
        kind: Kind,
    ) -> Result<Self> {
        let mut template = Self {
            source: jinja::without_generation_marks(&source),
            path,
            variables,
            content: Content::Text,
        };
        let order = match kind {
            Kind::Tokenizer => [Content::Text, Content::Parts],
            Kind::Processor => [Content::Parts, Content::Text],
        };
        // A template may drop or refuse the other style, so the first one that shows both video and text is taken.
        let probe = [Message::question("probe")];
        let mut last = String::new();
        for content in order {
            template.content = content;
            match template.render(&probe, true) {
                Ok(text) if text.contains(VIDEO_TOKEN) && text.contains("probe") => return Ok(template),
                Ok(text) => last = format!("it renders a question about a video as {text:?}"),
                Err(error) => last = error.to_string(),
            }
        }
        Err(Error::format(&template.path, format!("the chat template shows no video and question: {last}")))
    }

    /// The file the template came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The prompt as text. The text of the messages appears as it is: for display and tests, not for encoding.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let messages: Vec<JinjaValue> = messages.iter().map(|m| self.message_value(m)).collect();
        let mut environment = Environment::new();
        jinja::prepare(&mut environment);
        environment
            .render_str(
                &self.source,
                context! { messages, add_generation_prompt, ..JinjaValue::from(self.variables.clone()) },
            )
            .map_err(|e| Error::format(&self.path, format!("chat template: {e:#}")))
    }

    fn message_value(&self, message: &Message) -> JinjaValue {
        let role = message.role.as_str();
        match self.content {
            Content::Text => {
                let video = if message.video { format!("{VIDEO_TOKEN}\n") } else { String::new() };
                context! { role, content => format!("{video}{}", message.text) }
            }
            Content::Parts => {
                let video = message.video.then(|| context! { type => "video" });
                let text = context! { type => "text", text => message.text.as_str() };
                context! { role, content => video.into_iter().chain([text]).collect::<Vec<_>>() }
            }
        }
    }

    /// The prompt as ids. Special tokens in the text of the messages are encoded as ordinary characters.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>> {
        self.encode_with(Neutral::new(tokenizer, messages, None)?, messages, add_generation_prompt)
    }

    /// As [`ChatTemplate::encode`], with one special token that means itself wherever a message spells it, such as the `<image>` of training data.
    pub fn encode_placed(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        add_generation_prompt: bool,
        placeholder: &str,
    ) -> Result<Vec<u32>> {
        let neutral = Neutral::new(tokenizer, messages, Some(placeholder))?;
        self.encode_with(neutral, messages, add_generation_prompt)
    }

    fn encode_with(
        &self,
        neutral: Neutral<'_>,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>> {
        let messages: Vec<Message> =
            messages.iter().map(|m| Message { text: neutral.hide(&m.text), ..m.clone() }).collect();
        let rendered = self.render(&messages, add_generation_prompt)?;
        neutral.encode(&rendered)
    }

    /// Ids before and after the one video token of a prompt made of `messages` and the generation prompt.
    pub fn split_prompt(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<(Vec<u32>, Vec<u32>)> {
        let video = tokenizer.token_id(VIDEO_TOKEN).ok_or_else(|| {
            Error::Argument(format!(
                "the vocabulary has no {VIDEO_TOKEN} token: is this a LLaVA-OneVision model?"
            ))
        })?;
        let ids = self.encode(tokenizer, messages, true)?;
        let mut sides = ids.split(|&id| id == video);
        match (sides.next(), sides.next(), sides.next()) {
            (Some(before), Some(after), None) => Ok((before.to_vec(), after.to_vec())),
            _ => Err(Error::format(
                &self.path,
                format!(
                    "the prompt holds {} {VIDEO_TOKEN} tokens; it must hold exactly one",
                    ids.iter().filter(|&&id| id == video).count()
                ),
            )),
        }
    }

    /// Ids before and after the video for one question.
    pub fn video_prompt(&self, tokenizer: &Tokenizer, question: &str) -> Result<(Vec<u32>, Vec<u32>)> {
        self.split_prompt(tokenizer, &[Message::question(question)])
    }
}

/// Hides special tokens in typed text behind marks while the template runs.
struct Neutral<'a> {
    tokenizer: &'a Tokenizer,
    /// A character that occurs in no message; a hidden token is this, its number, and this again.
    mark: char,
    /// The special token that is not hidden.
    shown: Option<&'a str>,
}

impl<'a> Neutral<'a> {
    fn new(tokenizer: &'a Tokenizer, messages: &[Message], shown: Option<&'a str>) -> Result<Self> {
        let mark = ('\u{E000}'..='\u{F8FF}')
            .find(|&c| messages.iter().all(|m| !m.text.contains(c)))
            .ok_or_else(|| Error::Argument("the text uses every private-use character".into()))?;
        Ok(Self { tokenizer, mark, shown })
    }

    fn special_at(&self, text: &str) -> Option<(usize, &'a str, u32)> {
        let specials = self.tokenizer.specials().iter().enumerate();
        specials
            .filter(|(_, (s, _))| text.starts_with(s.as_str()))
            .map(|(i, (s, id))| (i, s.as_str(), *id))
            .next()
    }

    fn hide(&self, text: &str) -> String {
        let (mut hidden, mut rest) = (String::with_capacity(text.len()), text);
        while let Some(first) = rest.chars().next() {
            let special = self.special_at(rest).filter(|(_, special, _)| Some(*special) != self.shown);
            let taken = match special {
                Some((number, special, _)) => {
                    hidden.extend([self.mark.to_string(), number.to_string(), self.mark.to_string()]);
                    special.len()
                }
                None => {
                    hidden.push(first);
                    first.len_utf8()
                }
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        hidden
    }

    fn show(&self, text: &str) -> String {
        // Marks come in pairs, so every second piece is the number of a hidden token.
        let pieces = text.split(self.mark).enumerate().map(|(i, piece)| {
            let number = (i % 2 == 1).then(|| piece.parse::<usize>().ok()).flatten();
            number
                .and_then(|n| self.tokenizer.specials().get(n))
                .map_or(piece, |(special, _)| special.as_str())
        });
        pieces.collect()
    }

    fn encode(&self, rendered: &str) -> Result<Vec<u32>> {
        if !rendered.contains(self.mark) {
            return self.tokenizer.encode(rendered);
        }
        // Only the template's own special tokens are left in sight; the text between them is encoded without any.
        let (mut ids, mut start, mut at) = (Vec::new(), 0, 0);
        while let Some(rest) = rendered.get(at..).filter(|r| !r.is_empty()) {
            if let Some((_, special, id)) = self.special_at(rest) {
                ids.extend(
                    self.tokenizer.encode_plain(&self.show(rendered.get(start..at).unwrap_or_default()))?,
                );
                ids.push(id);
                at += special.len();
                start = at;
            } else {
                at += rest.chars().next().map_or(1, char::len_utf8);
            }
        }
        ids.extend(self.tokenizer.encode_plain(&self.show(rendered.get(start..).unwrap_or_default()))?);
        Ok(ids)
    }
}

/// The `chat_template` of a JSON file: a string, or the `default` of a list of named ones.
fn template_entry(path: &Path, text: &str) -> Result<Option<String>> {
    let json: Value =
        serde_json::from_str(text).map_err(|e| Error::format(path, format!("not JSON: {e}")))?;
    match json.get("chat_template") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(template)) => Ok(Some(template.clone())),
        Some(Value::Array(named)) => {
            let default = named.iter().find(|t| t.get("name").and_then(Value::as_str) == Some("default"));
            let template = default.and_then(|t| t.get("template")).and_then(Value::as_str);
            let names =
                || named.iter().filter_map(|t| t.get("name")).map(Value::to_string).collect::<Vec<_>>();
            template.map(|t| Some(t.to_owned())).ok_or_else(|| {
                Error::format(
                    path,
                    format!("no chat template named \"default\" among {}", names().join(", ")),
                )
            })
        }
        Some(other) => {
            Err(Error::format(path, format!("chat_template is {other}; expected a string or a list")))
        }
    }
}

/// The tokens that `tokenizer_config.json` names, for templates that print them.
fn token_variables(folder: &Path) -> Result<BTreeMap<String, String>> {
    let path = folder.join("tokenizer_config.json");
    let mut variables = BTreeMap::new();
    if !path.exists() {
        return Ok(variables);
    }
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let json: Value =
        serde_json::from_str(&text).map_err(|e| Error::format(&path, format!("not JSON: {e}")))?;
    for name in ["bos_token", "eos_token", "unk_token", "pad_token"] {
        let entry = json.get(name);
        if let Some(token) =
            entry.and_then(|t| t.as_str().or_else(|| t.get("content").and_then(Value::as_str)))
        {
            variables.insert(name.to_owned(), token.to_owned());
        }
    }
    Ok(variables)
}

#[cfg(test)]
#[path = "prompt_tests.rs"]
mod tests;
