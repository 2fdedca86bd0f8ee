//! The objects of a response, in OpenAI's shape, with our own facts under `utr` and llama.cpp's `timings`.
//!
//! Comes in: an answer, or a piece of its text. Goes out: JSON. It frames no events and sends nothing.

use serde_json::{Value, json};

use crate::answer::Answer;
use crate::decode::Finish;

/// What every object of one response shares.
#[derive(Clone, Debug)]
pub struct Head {
    /// `chatcmpl-…`
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model that answers.
    pub model: String,
}

impl Head {
    /// The whole answer.
    pub fn completion(&self, answer: &Answer) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": answer.text, "refusal": null},
                "logprobs": null,
                "finish_reason": finish(answer),
            }],
            "usage": usage(answer),
            "timings": timings(answer),
            "utr": facts(answer),
        })
    }

    /// The piece that opens a stream.
    pub fn opening(&self) -> Value {
        self.chunk(&json!({"role": "assistant", "content": ""}), None)
    }

    /// A piece of text.
    pub fn piece(&self, text: &str) -> Value {
        self.chunk(&json!({"content": text}), None)
    }

    /// The piece that ends the text, with everything known about it.
    pub fn closing(&self, answer: &Answer) -> Value {
        let mut chunk = self.chunk(&json!({}), Some(finish(answer)));
        if let Some(fields) = chunk.as_object_mut() {
            fields.insert("timings".into(), timings(answer));
            fields.insert("utr".into(), facts(answer));
        }
        chunk
    }

    /// The piece behind it, where the usage was asked for.
    pub fn usage(&self, answer: &Answer) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": [],
            "usage": usage(answer),
            "timings": timings(answer),
        })
    }

    fn chunk(&self, delta: &Value, finish: Option<&str>) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}],
        })
    }
}

fn finish(answer: &Answer) -> &'static str {
    match answer.finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

fn usage(answer: &Answer) -> Value {
    let (prompt, output) = (answer.timings.prompt_tokens, answer.timings.output_tokens);
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": answer.timings.reused_tokens},
    })
}

/// llama.cpp's names.
fn timings(answer: &Answer) -> Value {
    let t = &answer.timings;
    let read = t.prompt_tokens.saturating_sub(t.reused_tokens);
    let rate = |n: usize, ms: f64| if ms > 0.0 { n as f64 * 1e3 / ms } else { 0.0 };
    let each = |n: usize, ms: f64| if n > 0 { ms / n as f64 } else { 0.0 };
    json!({
        "cache_n": t.reused_tokens,
        "prompt_n": read,
        "prompt_ms": t.prefill_ms,
        "prompt_per_token_ms": each(read, t.prefill_ms),
        "prompt_per_second": rate(read, t.prefill_ms),
        "predicted_n": t.output_tokens,
        "predicted_ms": t.decode_ms,
        "predicted_per_token_ms": each(t.output_tokens.saturating_sub(1), t.decode_ms),
        "predicted_per_second": t.tokens_per_s,
    })
}

/// The answer without what stands elsewhere in the response: frames, mode, reach, drops, age, our own timings, evidence.
fn facts(answer: &Answer) -> Value {
    let mut facts = serde_json::to_value(answer).unwrap_or_default();
    if let Some(fields) = facts.as_object_mut() {
        for known in ["text", "tokens", "finish"] {
            fields.remove(known);
        }
    }
    facts
}
