//! A chat template: it is compiled and run, and its fuel ends what does not end by itself.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use utr_models::prompt::{ChatTemplate, Kind, Message, Role};

fuzz_target!(init: utr_fuzz::seed("template"), |bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for kind in [Kind::Tokenizer, Kind::Processor] {
        let variables = BTreeMap::from([("eos_token".to_string(), "<|im_end|>".to_string())]);
        if let Ok(template) = ChatTemplate::new(text.to_string(), "template".into(), variables, kind) {
            let turns = [
                Message::text(Role::System, "Be brief."),
                Message::question("What moves?"),
                Message::text(Role::Assistant, "A {{ ball }}."),
                Message::text(Role::User, "And then? {% raw %}"),
            ];
            let _ = template.render(&turns, true);
        }
    }
});
