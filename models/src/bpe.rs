//! Trains the small byte-level vocabulary of the models that ship with this repository.
//!
//! Comes in: text and the tokens that must stay whole. Goes out: a `tokenizer.json` with Qwen2's normalizer (NFC) and
//! pre-tokenizer, and the `tokenizer_config.json` beside it, so that Hugging Face and llama.cpp (`pre = "qwen2"`) split
//! text the same way. Ids: 256 bytes, then merges, then added tokens, without a gap. The result depends only on the
//! input, not on the machine. Nothing here encodes or decodes; that is `text`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;
use tokenizers::{PreTokenizerWrapper, TokenizerBuilder};

use crate::atomic;
use crate::error::{Error, Result};

/// Qwen2's pre-tokenizer: contractions, words, single digits, punctuation, line ends, spaces.
pub(crate) const QWEN2_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Ids below this are single bytes.
const BYTES: usize = 256;
/// Spacing of the coordinates that are one token each, on the 0 to 1000 scale.
pub const COORDINATE_STEP: usize = 20;
/// Frames a window can hold, hence frame markers.
const FRAMES: usize = 32;
/// Identities a conversation can name.
const IDENTITIES: usize = 8;

/// ChatML as Qwen2 writes it, without a system message of its own; content may be a string or a list of parts.
pub const CHAT_TEMPLATE: &str = concat!(
    "{% for message in messages %}",
    "{{ '<|im_start|>' + message['role'] + '\n' }}",
    "{% if message['content'] is string %}{{ message['content'] }}",
    "{% else %}{% for part in message['content'] %}",
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}{{ '<' + part['type'] + '>\n' }}{% endif %}",
    "{% endfor %}{% endif %}",
    "{{ '<|im_end|>\n' }}",
    "{% endfor %}",
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
);

/// A token that is never split and never learned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedToken {
    /// Its text.
    pub content: String,
    /// Special tokens steer the model and are left out of decoded text; others are ordinary text.
    pub special: bool,
}

impl AddedToken {
    /// A token that steers the model.
    pub fn special(content: impl Into<String>) -> Self {
        Self { content: content.into(), special: true }
    }

    /// A piece of ordinary text that is always one token.
    pub fn whole(content: impl Into<String>) -> Self {
        Self { content: content.into(), special: false }
    }
}

/// The added tokens of the world's models: five special ones, then coordinates with their separator (`[0` … `[1000`,
/// `,0` … `,1000` in steps of [`COORDINATE_STEP`]), `frame1:` … `frame32:`, `<id1>` … `<id8>`, `</id1>` … `</id8>`.
pub fn world_added_tokens() -> Vec<AddedToken> {
    let specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"];
    let coordinates = || (0..=1000).step_by(COORDINATE_STEP);
    let whole = coordinates()
        .map(|c| format!("[{c}"))
        .chain(coordinates().map(|c| format!(",{c}")))
        .chain((1..=FRAMES).map(|t| format!("frame{t}:")))
        .chain((1..=IDENTITIES).map(|i| format!("<id{i}>")))
        .chain((1..=IDENTITIES).map(|i| format!("</id{i}>")));
    specials.into_iter().map(AddedToken::special).chain(whole.map(AddedToken::whole)).collect()
}

/// Learns a byte-level BPE of exactly `vocab_size` ids (fewer where the corpus has too few pairs to merge), added
/// tokens included, and returns the text of its `tokenizer.json`.
///
/// Added tokens in the corpus separate it: no merge is spent on their spelling.
pub fn train_bpe(
    corpus: impl Iterator<Item = String> + Send,
    vocab_size: usize,
    added: &[AddedToken],
) -> Result<String> {
    if vocab_size < BYTES + added.len() {
        return Err(Error::Argument(format!(
            "a vocabulary of {vocab_size} cannot hold {BYTES} bytes and {} added tokens",
            added.len()
        )));
    }
    let failed = |e: tokenizers::Error| Error::Argument(format!("cannot train the tokenizer: {e}"));
    let split = Split::new(SplitPattern::Regex(QWEN2_SPLIT.into()), SplitDelimiterBehavior::Isolated, false);
    let byte_level = ByteLevel::new(false, false, false);
    let pre_tokenizer = Sequence::new(vec![
        PreTokenizerWrapper::Split(split.map_err(failed)?),
        PreTokenizerWrapper::ByteLevel(byte_level),
    ]);
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(Some(NFC))
        .with_pre_tokenizer(Some(pre_tokenizer))
        .with_post_processor(Some(byte_level))
        .with_decoder(Some(byte_level))
        .build()
        .map_err(failed)?;
    let mut trainer = BpeTrainerBuilder::new()
        .show_progress(false)
        .min_frequency(2)
        .vocab_size(vocab_size - added.len())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let splitter = Splitter::new(added);
    tokenizer.train(&mut trainer, corpus.flat_map(|text| splitter.split(&text))).map_err(failed)?;
    tokenizer
        .add_tokens(added.iter().map(|token| {
            tokenizers::AddedToken::from(token.content.clone(), token.special).normalized(false)
        }))
        .map_err(failed)?;
    tokenizer.to_string(true).map_err(failed)
}

/// Cuts text at added tokens, longest match first.
struct Splitter {
    tokens: Vec<String>,
}

impl Splitter {
    fn new(added: &[AddedToken]) -> Self {
        let mut tokens: Vec<String> =
            added.iter().map(|t| t.content.clone()).filter(|t| !t.is_empty()).collect();
        tokens.sort_by_key(|t| std::cmp::Reverse(t.len()));
        Self { tokens }
    }

    /// The pieces between added tokens, in order, without the tokens.
    fn split(&self, text: &str) -> Vec<String> {
        let mut pieces = Vec::new();
        let (mut piece, mut rest) = (String::new(), text);
        while let Some(first) = rest.chars().next() {
            if let Some(after) = self.tokens.iter().find_map(|t| rest.strip_prefix(t.as_str())) {
                pieces.push(std::mem::take(&mut piece));
                rest = after;
            } else {
                piece.push(first);
                rest = rest.get(first.len_utf8()..).unwrap_or_default();
            }
        }
        pieces.push(piece);
        pieces.retain(|p| !p.is_empty());
        pieces
    }
}

/// Writes `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja` of a vocabulary from [`train_bpe`], so that
/// `AutoTokenizer.from_pretrained(folder)` loads it. `<|im_end|>` ends an answer and `<|endoftext|>` pads.
pub fn save_tokenizer(folder: &Path, tokenizer_json: &str) -> Result<()> {
    let parsed: serde_json::Value = serde_json::from_str(tokenizer_json)
        .map_err(|e| Error::Argument(format!("the tokenizer to save is not JSON: {e}")))?;
    let mut decoder = serde_json::Map::new();
    for token in parsed.get("added_tokens").and_then(|t| t.as_array()).into_iter().flatten() {
        let Some(id) = token.get("id").and_then(|id| id.as_u64()) else { continue };
        let mut token = token.clone();
        if let Some(entry) = token.as_object_mut() {
            entry.remove("id");
        }
        decoder.insert(id.to_string(), token);
    }
    let config = json!({
        "add_bos_token": false,
        "add_prefix_space": false,
        "added_tokens_decoder": decoder,
        "bos_token": null,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": false,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 32768,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": false,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": null,
    });
    atomic::write(&folder.join("tokenizer.json"), tokenizer_json.as_bytes())?;
    atomic::write(&folder.join("tokenizer_config.json"), format!("{config:#}\n").as_bytes())?;
    atomic::write(&folder.join("chat_template.jinja"), CHAT_TEMPLATE.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus() -> impl Iterator<Item = String> + Send {
        (0..80).map(|i| {
            format!("What does the blue square do? It moves right<id1>frame{}:[{},20", i % 32 + 1, i * 20)
        })
    }

    #[test]
    fn ids_are_bytes_then_merges_then_added_tokens_without_a_gap() {
        let added = world_added_tokens();
        let json: serde_json::Value =
            serde_json::from_str(&train_bpe(corpus(), 460, &added).unwrap()).unwrap();
        let vocab = json["model"]["vocab"].as_object().unwrap();
        let merges = json["model"]["merges"].as_array().unwrap();
        assert_eq!(vocab.len(), BYTES + merges.len());
        let mut ids: Vec<u64> = vocab.values().map(|v| v.as_u64().unwrap()).collect();
        ids.extend(json["added_tokens"].as_array().unwrap().iter().map(|t| t["id"].as_u64().unwrap()));
        ids.sort_unstable();
        assert_eq!(ids, (0..(vocab.len() + added.len()) as u64).collect::<Vec<_>>());
        assert!(vocab.len() + added.len() <= 460 && !merges.is_empty());
        assert!(
            vocab.iter().filter(|(_, id)| id.as_u64().unwrap() < 256).all(|(t, _)| t.chars().count() == 1)
        );
        assert!(!vocab.keys().any(|t| t.contains("frame")), "a merge was spent on an added token");
    }

    #[test]
    fn training_is_deterministic() {
        let added = world_added_tokens();
        assert_eq!(train_bpe(corpus(), 460, &added).unwrap(), train_bpe(corpus(), 460, &added).unwrap());
    }

    #[test]
    fn a_vocabulary_too_small_is_refused() {
        let error = train_bpe(corpus(), 300, &world_added_tokens()).unwrap_err().to_string();
        assert!(error.contains("300"), "{error}");
    }
}
