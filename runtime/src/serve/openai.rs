//! The subset of OpenAI's chat completions that this server reads.
//!
//! Comes in: a request's body. Goes out: [`Request::resolve`]'s [`Ask`], checked against the limits. Fields that are not known are passed
//! over; fields that are known, change the answer and cannot be honoured are refused by name. Nothing is opened or asked here; `reply` makes
//! the objects of a response.

use serde::Deserialize;
use serde_json::Value;
use utr_models::generate::Sampling;
use utr_models::prompt::{Message, Role};

use super::errors::ApiError;
use crate::answer::MAX_QUESTION_BYTES;
use crate::evidence::Wanted;
use crate::window::CAPACITY;

/// Most messages of a conversation.
pub const MAX_MESSAGES: usize = 256;
/// Most tokens of an answer, whatever is asked for.
pub const MAX_ANSWER_TOKENS: usize = 4096;

/// A request as it comes.
#[derive(Debug, Deserialize)]
pub struct Request {
    messages: Vec<ChatMessage>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    seed: Option<i64>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    n: Option<u32>,
    stop: Option<Value>,
    tools: Option<Value>,
    response_format: Option<Value>,
    logprobs: Option<Value>,
    ignore_eos: Option<bool>,
    evidence: Option<Value>,
    keep: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct ChatMessage {
    role: String,
    content: Option<Content>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
struct Part {
    r#type: String,
    text: Option<String>,
    video_url: Option<VideoUrl>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum VideoUrl {
    Object { url: String },
    Text(String),
}

/// What the video of a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Media {
    /// The live window.
    Live,
    /// Its newest frames.
    Newest(usize),
    /// A `file://` address, as sent.
    File(String),
}

/// A request, checked.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The conversation; the first message of the user carries the video.
    pub messages: Vec<Message>,
    /// What the video is.
    pub media: Media,
    /// How the answer is drawn.
    pub sampling: Sampling,
    /// What to say about the frames.
    pub evidence: Wanted,
    /// Pieces as they come, or one object.
    pub stream: bool,
    /// A last piece with the usage.
    pub include_usage: bool,
    /// Keep what the answer stands on, to be fetched as a recording.
    pub keep: bool,
}

impl Request {
    /// Reads a body.
    ///
    /// # Errors
    /// Status 400 with the place in the text.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        serde_json::from_slice(body).map_err(|error| {
            ApiError::invalid(format!("the body is no chat completion request: {error}"), None)
        })
    }

    /// Checks it; `defaults` draws the answer where the request says nothing, `system` are the session's instructions.
    ///
    /// # Errors
    /// Status 400 with the field and what it takes.
    pub fn resolve(self, defaults: Sampling, system: Option<&str>) -> Result<Ask, ApiError> {
        self.refuse_unsupported()?;
        let (mut messages, media) = conversation(&self.messages)?;
        if let (Some(system), false) = (system, messages.iter().any(|message| message.role == Role::System)) {
            messages.insert(0, Message::text(Role::System, system));
        }
        Ok(Ask {
            messages,
            media,
            sampling: self.sampling(defaults)?,
            evidence: match self.evidence {
                None | Some(Value::Null | Value::Bool(false)) => Wanted::Nothing,
                Some(Value::Bool(true)) => Wanted::Frames,
                Some(Value::String(word)) if word == "time" => Wanted::FramesAndTime,
                Some(_) => {
                    return Err(ApiError::invalid("evidence is true, false or \"time\"", Some("evidence")));
                }
            },
            stream: self.stream.unwrap_or(false),
            keep: self.keep.unwrap_or(false),
            include_usage: self.stream_options.and_then(|options| options.include_usage).unwrap_or(false),
        })
    }

    fn refuse_unsupported(&self) -> Result<(), ApiError> {
        let empty = |value: &Option<Value>| match value {
            None | Some(Value::Null | Value::Bool(false)) => true,
            Some(Value::Array(items)) => items.is_empty(),
            Some(_) => false,
        };
        let text_format = |value: &Value| value.get("type").is_some_and(|kind| kind == "text");
        let unsupported = [
            ("n", self.n.is_some_and(|n| n != 1), "only one answer is given; leave n away or send 1"),
            (
                "stop",
                !empty(&self.stop),
                "stop sequences are not supported; shorten the answer with max_tokens",
            ),
            ("tools", !empty(&self.tools), "this model calls no tools"),
            ("logprobs", !empty(&self.logprobs), "log probabilities are not returned"),
            (
                "response_format",
                !empty(&self.response_format) && !self.response_format.as_ref().is_some_and(text_format),
                "only plain text is answered",
            ),
        ];
        match unsupported.into_iter().find(|(_, used, _)| *used) {
            Some((field, _, why)) => Err(ApiError::invalid(why, Some(field))),
            None => Ok(()),
        }
    }

    fn sampling(&self, defaults: Sampling) -> Result<Sampling, ApiError> {
        let max_tokens = self.max_completion_tokens.or(self.max_tokens).unwrap_or(defaults.max_tokens);
        if !(1..=MAX_ANSWER_TOKENS).contains(&max_tokens) {
            return Err(ApiError::invalid(
                format!("max_tokens is {max_tokens}; 1 to {MAX_ANSWER_TOKENS} are accepted"),
                Some("max_tokens"),
            ));
        }
        let temperature = self.temperature.unwrap_or(defaults.temperature);
        if !(0.0..=2.0).contains(&temperature) {
            return Err(ApiError::invalid(
                format!("temperature is {temperature}; 0 to 2 are accepted"),
                Some("temperature"),
            ));
        }
        let top_p = self.top_p.unwrap_or(defaults.top_p);
        // A negative seed is as good as any other.
        let seed = self.seed.map_or(defaults.seed, |seed| seed as u64);
        let ignore_eos = self.ignore_eos.unwrap_or(defaults.ignore_eos);
        let sampling = Sampling { temperature, top_p, seed, max_tokens, ignore_eos };
        sampling.validate().map_err(|error| ApiError::invalid(error.to_string(), None))?;
        Ok(sampling)
    }
}

/// The messages with the video in the first one of the user, and what the video is.
fn conversation(sent: &[ChatMessage]) -> Result<(Vec<Message>, Media), ApiError> {
    let refuse = |text: String| ApiError::invalid(text, Some("messages"));
    if sent.len() > MAX_MESSAGES {
        return Err(refuse(format!("{} messages; at most {MAX_MESSAGES} are accepted", sent.len())));
    }
    let mut media: Option<(usize, Media)> = None;
    let mut messages = Vec::with_capacity(sent.len());
    for (place, message) in sent.iter().enumerate() {
        let role = match message.role.as_str() {
            "system" | "developer" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            other => {
                return Err(refuse(format!(
                    "message {place} has the role {other:?}; system, user and assistant are known"
                )));
            }
        };
        if role == Role::System && place > 0 {
            return Err(refuse(format!("message {place}: instructions stand first or nowhere")));
        }
        let (text, url) = content(message, place)?;
        if let Some(url) = url {
            if role != Role::User {
                return Err(refuse(format!("message {place}: only the user sends a video")));
            }
            if media.is_some() {
                return Err(refuse(format!(
                    "message {place}: one conversation is about one video; send it once"
                )));
            }
            media = Some((place, parse_media(&url)?));
        }
        messages.push(Message::text(role, text));
    }
    let length: usize = messages.iter().map(|message| message.text.len()).sum();
    if length > MAX_QUESTION_BYTES {
        return Err(refuse(format!(
            "the conversation has {length} bytes of text; at most {MAX_QUESTION_BYTES} are accepted"
        )));
    }
    match messages.last() {
        Some(last) if last.role == Role::User && !last.text.trim().is_empty() => {}
        _ => return Err(refuse("the last message must be the user's and hold a question".into())),
    }
    if let Some(first) = messages.iter_mut().find(|message| message.role == Role::User) {
        first.video = true;
    }
    Ok((messages, media.map_or(Media::Live, |(_, media)| media)))
}

/// A message's text and the address of its video.
fn content(message: &ChatMessage, place: usize) -> Result<(String, Option<String>), ApiError> {
    let refuse = |text: String| ApiError::invalid(text, Some("messages"));
    let parts = match &message.content {
        None => return Ok((String::new(), None)),
        Some(Content::Text(text)) => return Ok((text.clone(), None)),
        Some(Content::Parts(parts)) => parts,
    };
    let (mut texts, mut video) = (Vec::new(), None);
    for part in parts {
        match (part.r#type.as_str(), &part.text, &part.video_url) {
            ("text", Some(text), _) => texts.push(text.as_str()),
            ("video_url", _, Some(VideoUrl::Object { url } | VideoUrl::Text(url))) => {
                if video.replace(url.clone()).is_some() {
                    return Err(refuse(format!("message {place} holds two videos; send one")));
                }
            }
            ("text" | "video_url", ..) => {
                return Err(refuse(format!(
                    "message {place}: a part of type {:?} lacks its content",
                    part.r#type
                )));
            }
            (other, ..) => {
                return Err(refuse(format!(
                    "message {place}: parts of type {other:?} are not supported; send text, and the video as video_url \
                     {{\"url\": \"live:\"}}"
                )));
            }
        }
    }
    Ok((texts.join("\n"), video))
}

/// `live:`, `live:default`, `live:default?last=N`, `file:///PATH`.
fn parse_media(url: &str) -> Result<Media, ApiError> {
    let refuse = |text: String| Err(ApiError::invalid(text, Some("messages")));
    if url.starts_with("file://") {
        return Ok(Media::File(url.to_string()));
    }
    let Some(rest) = url.strip_prefix("live:") else {
        return refuse(
            "the video's url is live:, live:default?last=N or file:///PATH; nothing is fetched".into(),
        );
    };
    let (name, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !matches!(name, "" | "default") {
        return refuse(format!("there is no source live:{name}; the only one is live:default"));
    }
    let mut media = Media::Live;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=').map(|(key, value)| (key, value.parse::<usize>())) {
            Some(("last", Ok(n))) if (1..=CAPACITY).contains(&n) => media = Media::Newest(n),
            Some(("last", _)) => return refuse(format!("{pair}: last takes 1 to {CAPACITY} frames")),
            _ => return refuse(format!("{pair:?} is unknown; live:default takes last=N")),
        }
    }
    Ok(media)
}

#[cfg(test)]
#[path = "openai_tests.rs"]
mod tests;
