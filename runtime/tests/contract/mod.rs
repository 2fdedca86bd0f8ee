//! What every answer holds as JSON (the contract of `utr ask --json`); shared by the tests of the library and of the program.

use serde_json::Value;

/// Panics where a field is missing.
pub fn has_every_field(answer: &Value) {
    for field in ["text", "tokens", "finish", "frames", "dropped", "window_span_ms", "newest_age_ms"] {
        assert!(answer.get(field).is_some_and(|value| !value.is_null()), "{field} is missing");
    }
    for field in [
        "capture_ms",
        "encode_ms",
        "prefill_ms",
        "ttft_ms",
        "decode_ms",
        "prompt_tokens",
        "reused_tokens",
        "output_tokens",
        "tokens_per_s",
    ] {
        assert!(answer["timings"][field].is_number(), "timings.{field} is missing");
    }
    assert_eq!(answer["bundle"]["hash"].as_str().unwrap().len(), 64);
}
