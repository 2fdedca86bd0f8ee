//! Text to token ids and back.
//!
//! Comes in: a `tokenizer.json` (Hugging Face's format, byte-level BPE) and strings or ids. Goes out: ids, text, and text
//! as it grows token by token. Two ways of encoding exist: [`Tokenizer::encode`] recognises special tokens in the text,
//! [`Tokenizer::encode_plain`] never does and is the one for anything a user typed. Nothing adds tokens on its own
//! (no BOS, no EOS) and nothing is truncated. Chat templates live in `prompt`; training a vocabulary in `bpe`.

use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer as Inner;

pub use crate::bpe::{AddedToken, save_tokenizer, train_bpe, world_added_tokens};
use crate::error::{Error, Result};

/// A byte-level BPE tokenizer with its added tokens.
#[derive(Clone)]
pub struct Tokenizer {
    /// Recognises every added token.
    inner: Inner,
    /// Recognises added tokens except special ones.
    plain: Inner,
    /// Special tokens and their ids, longest text first.
    specials: Vec<(String, u32)>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a model folder or bundle.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        Self::from_json(&text).map_err(|reason| Error::format(&path, reason))
    }

    /// Parses the text of a `tokenizer.json`; an error says in words what is wrong.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let not_valid = |e: &dyn std::fmt::Display| format!("not a tokenizer: {e}");
        let mut json: Value = serde_json::from_str(text).map_err(|e| not_valid(&e))?;
        // What a file stores of the last call's truncation and padding is no part of the tokenizer; transformers resets both too.
        if let Some(entries) = json.as_object_mut() {
            ["truncation", "padding"].iter().for_each(|key| drop(entries.insert((*key).into(), Value::Null)));
        }
        let inner = Inner::from_bytes(json.to_string().as_bytes()).map_err(|e| not_valid(&e))?;
        let mut specials = Vec::new();
        for token in json.get_mut("added_tokens").and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(content) = token.get("content").and_then(Value::as_str).map(str::to_owned) else {
                continue;
            };
            let special = token.get("special").and_then(Value::as_bool) == Some(true) || is_control(&content);
            if special {
                let id = inner
                    .token_to_id(&content)
                    .ok_or_else(|| format!("added token {content:?} has no id"))?;
                specials.push((content, id));
                if let Some(entry) = token.as_object_mut() {
                    entry.insert("special".into(), Value::Bool(true));
                }
            }
        }
        specials.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.0.cmp(&b.0)));
        let mut plain = Inner::from_bytes(json.to_string().as_bytes()).map_err(|e| not_valid(&e))?;
        plain.set_encode_special_tokens(true);
        Ok(Self { inner, plain, specials })
    }

    /// Ids of `text`; special tokens written in it become their single id. Only for text the program itself wrote.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        encode_with(&self.inner, text)
    }

    /// Ids of `text` with special tokens spelled out as ordinary characters: the encoding for what users type.
    ///
    /// Equal to [`Tokenizer::encode`] where the text holds no special token.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        encode_with(&self.plain, text)
    }

    /// Text of `ids`; `skip_special` leaves special tokens out. Bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.inner
            .decode(ids, skip_special)
            .map_err(|e| Error::Argument(format!("cannot decode {} tokens: {e}", ids.len())))
    }

    /// The id of a token spelled exactly so, added or learned.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id, in the vocabulary's own spelling (byte-level characters for learned tokens).
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// One more than the largest id, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1)
    }

    /// Special tokens and their ids, longest text first: what [`Tokenizer::encode_plain`] never produces.
    pub fn specials(&self) -> &[(String, u32)] {
        &self.specials
    }
}

/// Tokens that steer the model even where a checkpoint forgot to mark them special.
fn is_control(content: &str) -> bool {
    matches!(content, "<image>" | "<video>") || (content.starts_with("<|") && content.ends_with("|>"))
}

fn encode_with(tokenizer: &Inner, text: &str) -> Result<Vec<u32>> {
    let encoding = tokenizer
        .encode_fast(text, false)
        .map_err(|e| Error::Argument(format!("cannot tokenize {} bytes of text: {e}", text.len())))?;
    Ok(encoding.get_ids().to_vec())
}

/// Text that grows token by token; a character split over several tokens appears once it is whole.
#[derive(Debug, Clone, Default)]
pub struct TokenStream {
    pending: Vec<u32>,
    /// Bytes of the decoded `pending` that were already handed out.
    emitted: usize,
}

/// A run of half characters this long is no text; it is handed out as it stands so that the work per token stays bounded.
const LONGEST_PENDING: usize = 64;

impl TokenStream {
    /// An empty stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one token and returns the text that became certain, often empty within a character. Special tokens are skipped.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String> {
        self.pending.push(id);
        let text = tokenizer.decode(&self.pending, true)?;
        // The last replacement character may be the beginning of a character still to come; all before it is certain.
        let certain = text.strip_suffix('\u{FFFD}').unwrap_or(&text);
        let fresh = certain.get(self.emitted..).unwrap_or_default().to_owned();
        if certain.len() == text.len() {
            *self = Self::default();
        } else if self.pending.len() >= LONGEST_PENDING {
            let rest = text.get(self.emitted..).unwrap_or_default().to_owned();
            *self = Self::default();
            return Ok(rest);
        } else {
            self.emitted = self.emitted.max(certain.len());
        }
        Ok(fresh)
    }

    /// The text still held back; a character that never became whole comes out as U+FFFD.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String> {
        let text = tokenizer.decode(&self.pending, true)?;
        let rest = text.get(self.emitted..).unwrap_or_default().to_owned();
        *self = Self::default();
        Ok(rest)
    }
}

/// The ids that end an answer.
///
/// The first file that names any decides: `generation_config.json`, `config.json` (top level, then `text_config`), the
/// `eos_token` of `tokenizer_config.json`. An empty list where none does: generation then runs to its token limit.
pub fn stop_tokens(folder: &Path, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    for (file, inner) in
        [("generation_config.json", None), ("config.json", None), ("config.json", Some("text_config"))]
    {
        let path = folder.join(file);
        let Some(json) = read_json(&path)? else { continue };
        let json = inner.map_or(Some(&json), |key| json.get(key));
        let ids = match json.and_then(|j| j.get("eos_token_id")) {
            None | Some(Value::Null) => continue,
            Some(Value::Array(list)) => list.iter().map(Value::as_u64).collect::<Option<Vec<_>>>(),
            Some(one) => one.as_u64().map(|id| vec![id]),
        };
        let ids =
            ids.ok_or_else(|| Error::format(&path, "eos_token_id is neither an id nor a list of ids"))?;
        if !ids.is_empty() {
            return Ok(ids.into_iter().map(|id| id as u32).collect());
        }
    }
    let path = folder.join("tokenizer_config.json");
    let eos = read_json(&path)?.and_then(|json| token_content(json.get("eos_token")?));
    match eos {
        None => Ok(Vec::new()),
        Some(token) => tokenizer.token_id(&token).map(|id| vec![id]).ok_or_else(|| {
            Error::format(&path, format!("eos_token {token:?} is not in the vocabulary of tokenizer.json"))
        }),
    }
}

/// A token in a configuration file: a string, or an object with `content`.
fn token_content(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value.get("content").and_then(Value::as_str)).map(str::to_owned)
}

fn read_json(path: &Path) -> Result<Option<Value>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    serde_json::from_str(&text).map(Some).map_err(|e| Error::format(path, format!("not JSON: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
        let corpus = (0..60).map(|i| {
            format!(
                "The red circle<id1>frame{}:[{},40,{},100];</id1> moves to the left, then stops.",
                i % 32 + 1,
                i * 20 % 1000,
                i
            )
        });
        Tokenizer::from_json(&train_bpe(corpus, 700, &world_added_tokens()).unwrap()).unwrap()
    });

    #[test]
    fn coordinates_and_markers_are_one_token_each() {
        let ids = TOKENIZER.encode("<id1>frame12:[20,140,1000,0]</id1>").unwrap();
        let tokens: Vec<_> = ids.iter().map(|&id| TOKENIZER.token(id).unwrap()).collect();
        assert_eq!(tokens, ["<id1>", "frame12:", "[20", ",140", ",1000", ",0", "]", "</id1>"]);
        assert_eq!(TOKENIZER.decode(&ids, true).unwrap(), "<id1>frame12:[20,140,1000,0]</id1>");
    }

    #[test]
    fn stored_truncation_and_padding_are_not_applied() {
        let json =
            train_bpe(["a long text, again and again".to_owned()].into_iter(), 450, &world_added_tokens())
                .unwrap();
        let mut value: Value = serde_json::from_str(&json).unwrap();
        value["truncation"] = serde_json::json!({
            "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0
        });
        value["padding"] = serde_json::json!({
            "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0,
            "pad_token": "<|endoftext|>"
        });
        let (plain, stored) =
            (Tokenizer::from_json(&json).unwrap(), Tokenizer::from_json(&value.to_string()).unwrap());
        let text = "a long text, again and again";
        assert_eq!(plain.encode(text).unwrap(), stored.encode(text).unwrap());
        assert_eq!(plain.encode_plain(text).unwrap(), stored.encode_plain(text).unwrap());
    }

    #[test]
    fn plain_encoding_never_yields_a_special_token() {
        let text = "a<|im_end|>\n<video><|im_start|>system <id1>[20,40";
        let plain = TOKENIZER.encode_plain(text).unwrap();
        assert_eq!(TOKENIZER.decode(&plain, true).unwrap(), text);
        for (token, id) in TOKENIZER.specials() {
            assert!(!plain.contains(id), "{token}");
        }
        assert!(plain.contains(&TOKENIZER.token_id("[20").unwrap()));
        assert!(TOKENIZER.encode(text).unwrap().contains(&TOKENIZER.token_id("<video>").unwrap()));
    }

    #[test]
    fn a_stream_holds_half_characters_back() {
        let text = "déjà 好的 🦀🦀 end";
        // One token per byte: the worst split there is.
        let alphabet = TOKENIZER.encode_plain(text).unwrap();
        let mut stream = TokenStream::new();
        let mut all = String::new();
        for id in alphabet {
            let piece = stream.push(&TOKENIZER, id).unwrap();
            assert!(!piece.contains('\u{FFFD}'), "{piece:?}");
            all += &piece;
        }
        assert_eq!(all + &stream.finish(&TOKENIZER).unwrap(), text);
        let crab = TOKENIZER.encode_plain("🦀").unwrap();
        stream.push(&TOKENIZER, crab[0]).unwrap();
        assert_eq!(stream.finish(&TOKENIZER).unwrap(), "\u{FFFD}");
    }

    #[test]
    fn stop_tokens_follow_the_documented_order() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let stops = || stop_tokens(folder.path(), &TOKENIZER);
        assert!(stops().unwrap().is_empty());
        write("tokenizer_config.json", r#"{"eos_token": {"content": "<|im_end|>"}}"#);
        assert_eq!(stops().unwrap(), [TOKENIZER.token_id("<|im_end|>").unwrap()]);
        write("config.json", r#"{"text_config": {"eos_token_id": 7}}"#);
        assert_eq!(stops().unwrap(), [7]);
        write("generation_config.json", r#"{"eos_token_id": [5, 6]}"#);
        assert_eq!(stops().unwrap(), [5, 6]);
        write("generation_config.json", r#"{"eos_token_id": "x"}"#);
        assert!(stops().is_err());
    }

    proptest! {
        #[test]
        fn encoding_round_trips_and_streams_equally(text in "[ -~éあ🦀\n<|>]{0,60}") {
            use tokenizers::tokenizer::Normalizer;
            let mut normal = tokenizers::NormalizedString::from(text.as_str());
            tokenizers::normalizers::NFC.normalize(&mut normal).unwrap();
            let ids = TOKENIZER.encode_plain(&text).unwrap();
            prop_assert_eq!(TOKENIZER.decode(&ids, true).unwrap(), normal.get());
            let mut stream = TokenStream::new();
            let mut all = String::new();
            for &id in &ids {
                all += &stream.push(&TOKENIZER, id).unwrap();
            }
            all += &stream.finish(&TOKENIZER).unwrap();
            prop_assert_eq!(all, normal.get());
        }

        #[test]
        fn any_tokens_stream_to_what_they_decode_to(ids in prop::collection::vec(0u32..700, 0..90)) {
            let mut stream = TokenStream::new();
            let mut all = String::new();
            for &id in &ids {
                all += &stream.push(&TOKENIZER, id).unwrap();
            }
            all += &stream.finish(&TOKENIZER).unwrap();
            prop_assert_eq!(all, TOKENIZER.decode(&ids, true).unwrap());
        }
    }
}
