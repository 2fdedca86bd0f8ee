//! A Hugging Face byte-level BPE tokenizer as GGUF metadata.
//!
//! Comes in: a folder with `tokenizer.json` and perhaps `tokenizer_config.json`. Goes out: the `tokenizer.*` entries that
//! make llama.cpp split text the same way (`gpt2` model, `qwen2` pre-tokenizer). A tokenizer whose pre-tokenizer is not
//! Qwen2's is refused rather than exported to something that tokenizes differently.

use std::path::Path;

use candle_core::quantized::gguf_file::Value;
use serde_json::Value as Json;

use crate::bpe::QWEN2_SPLIT;
use crate::error::{Error, Result};

/// llama.cpp's token types.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// Metadata for the tokenizer in `folder`, its token list filled up to `vocab_size` rows with unused tokens.
pub(crate) fn vocabulary(folder: &Path, vocab_size: usize) -> Result<Vec<(String, Value)>> {
    let path = folder.join("tokenizer.json");
    let json = read_json(&path)?;
    let fail = |reason: String| Error::format(&path, reason);
    if !json.get("pre_tokenizer").is_some_and(|p| contains_string(p, QWEN2_SPLIT)) {
        return Err(fail("its pre-tokenizer is not Qwen2's; llama.cpp would split text differently".into()));
    }
    let mut tokens: Vec<Option<(String, i32)>> = vec![None; vocab_size];
    let mut set = |text: &str, id: Option<u64>, kind: i32| -> Result<()> {
        let slot = id.and_then(|id| tokens.get_mut(usize::try_from(id).ok()?));
        let slot = slot.ok_or_else(|| {
            fail(format!("token {text:?} has id {id:?}, but the embedding has {vocab_size} rows"))
        })?;
        *slot = Some((text.to_owned(), kind));
        Ok(())
    };
    let model = json.get("model");
    let vocab = model.and_then(|m| m.get("vocab")).and_then(Json::as_object);
    for (text, id) in vocab.ok_or_else(|| fail("no model.vocab: not a BPE tokenizer".into()))? {
        set(text, id.as_u64(), NORMAL)?;
    }
    for token in json.get("added_tokens").and_then(Json::as_array).into_iter().flatten() {
        let text = token.get("content").and_then(Json::as_str).unwrap_or_default();
        let special = token.get("special").and_then(Json::as_bool).unwrap_or(false);
        set(text, token.get("id").and_then(Json::as_u64), if special { CONTROL } else { USER_DEFINED })?;
    }
    let merges = model.and_then(|m| m.get("merges")).and_then(Json::as_array);
    let merges: Option<Vec<Value>> = merges
        .ok_or_else(|| fail("no model.merges: not a BPE tokenizer".into()))?
        .iter()
        .map(merge)
        .collect();
    let merges = merges.ok_or_else(|| fail("a merge is neither \"a b\" nor [\"a\", \"b\"]".into()))?;
    let find = |wanted: &str| tokens.iter().position(|t| t.as_ref().is_some_and(|(text, _)| text == wanted));
    let ids = token_ids(folder, &find)?;
    let filled = tokens.iter().enumerate().map(|(id, token)| match token {
        Some((text, kind)) => (Value::String(text.clone()), Value::I32(*kind)),
        None => (Value::String(format!("[PAD{id}]")), Value::I32(UNUSED)),
    });
    let (texts, kinds): (Vec<Value>, Vec<Value>) = filled.unzip();
    let entries = [
        ("model", Value::String("gpt2".into())),
        ("pre", Value::String("qwen2".into())),
        ("tokens", Value::Array(texts)),
        ("token_type", Value::Array(kinds)),
        ("merges", Value::Array(merges)),
        ("add_bos_token", Value::Bool(false)),
    ];
    let mut metadata: Vec<(String, Value)> =
        entries.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect();
    metadata.extend(ids);
    metadata.extend(chat_template(folder)?.map(|t| ("tokenizer.chat_template".to_owned(), Value::String(t))));
    Ok(metadata)
}

/// `eos_token_id`, `padding_token_id` and `bos_token_id`. ChatML ends an answer with `<|im_end|>`, Qwen2 pads and begins
/// with `<|endoftext|>`; `tokenizer_config.json` may say otherwise.
fn token_ids(folder: &Path, find: &dyn Fn(&str) -> Option<usize>) -> Result<Vec<(String, Value)>> {
    let path = folder.join("tokenizer_config.json");
    let config = if path.exists() { read_json(&path)? } else { Json::Null };
    let named = |key: &str, default: &str| {
        let entry = config.get(key);
        let text = entry.and_then(|e| e.as_str().or_else(|| e.get("content").and_then(Json::as_str)));
        text.unwrap_or(default).to_owned()
    };
    let mut ids = Vec::new();
    for (key, entry, default) in [
        ("eos_token_id", "eos_token", "<|im_end|>"),
        ("padding_token_id", "pad_token", "<|endoftext|>"),
        ("bos_token_id", "bos_token", "<|endoftext|>"),
    ] {
        let token = named(entry, default);
        let id = find(&token)
            .ok_or_else(|| Error::format(&path, format!("{entry} {token:?} is not in tokenizer.json")))?;
        ids.push((format!("tokenizer.ggml.{key}"), Value::U32(id as u32)));
    }
    Ok(ids)
}

fn chat_template(folder: &Path) -> Result<Option<String>> {
    let config = folder.join("tokenizer_config.json");
    if config.exists()
        && let Some(template) = read_json(&config)?.get("chat_template").and_then(Json::as_str)
    {
        return Ok(Some(template.to_owned()));
    }
    let path = folder.join("chat_template.jinja");
    if !path.exists() {
        return Ok(None);
    }
    std::fs::read_to_string(&path).map(Some).map_err(Error::io(&path))
}

/// GGUF wants `a b`; recent tokenizer files hold pairs.
fn merge(entry: &Json) -> Option<Value> {
    match entry {
        Json::String(pair) => Some(Value::String(pair.clone())),
        Json::Array(pair) => {
            let (first, second) = (pair.first()?.as_str()?, pair.get(1)?.as_str()?);
            Some(Value::String(format!("{first} {second}")))
        }
        _ => None,
    }
}

fn contains_string(json: &Json, wanted: &str) -> bool {
    match json {
        Json::String(text) => text == wanted,
        Json::Array(list) => list.iter().any(|item| contains_string(item, wanted)),
        Json::Object(map) => map.values().any(|item| contains_string(item, wanted)),
        _ => false,
    }
}

fn read_json(path: &Path) -> Result<Json> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    serde_json::from_str(&text).map_err(|e| Error::format(path, format!("not JSON: {e}")))
}
