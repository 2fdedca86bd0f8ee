//! The body of a chat completion request, as far as the tokens of its prompt: whatever a client writes stays text.
#![no_main]

use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use utr_models::prompt::Kind;
use utr_runtime::answer::{MAX_QUESTION_BYTES, Question};
use utr_runtime::load::Language;
use utr_runtime::serve::openai::Request;

static LANGUAGE: OnceLock<Arc<Language>> = OnceLock::new();

fuzz_target!(init: utr_fuzz::seed("chat"), |bytes: &[u8]| {
    let language = LANGUAGE.get_or_init(utr_fuzz::language);
    let Ok(request) = Request::parse(bytes) else { return };
    let Ok(ask) = request.resolve(language.defaults.tokens, Some("Answer shortly.")) else { return };
    let turns = ask.messages.len();
    let bytes: usize = ask.messages.iter().map(|message| message.text.len()).sum();
    assert!(bytes <= MAX_QUESTION_BYTES + "Answer shortly.".len(), "{bytes} bytes passed");
    assert_eq!(ask.messages.iter().filter(|message| message.video).count(), 1, "one message carries the video");
    for kind in [Kind::Tokenizer, Kind::Processor] {
        let question = Question { messages: ask.messages.clone(), prompt: kind, ..Question::new("") };
        let Ok((before, after)) = language.prompt(&question) else { continue };
        let specials = language.tokenizer.specials();
        let of = |name: &str| {
            let id = language.tokenizer.token_id(name).expect("a token of the bundle");
            before.iter().chain(&after).filter(|found| **found == id).count()
        };
        // The template opens each turn and the answer's, and closes all but the answer's.
        assert_eq!((of("<|im_start|>"), of("<|im_end|>")), (turns + 1, turns), "a client wrote a special token");
        let all = before.iter().chain(&after).filter(|id| specials.iter().any(|(_, special)| special == *id)).count();
        assert_eq!(all, 2 * turns + 1, "a client wrote a special token");
    }
});
