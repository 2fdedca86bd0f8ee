//! What a reply chose, read off by the rules of the reference evaluation, with their quirks: scores are comparable only under the same ones.
//!
//! Comes in: a reply without white space around it. Goes out: the choice, or that no rule finds one (a judge is then asked). The quirks, each
//! held by golden data: in MVBench the article "a" is answer A; in Video-MME the first capital A to D anywhere counts, also inside a word;
//! in TempCompass "not really" is no, and a lower-case letter is no choice.

/// Characters that MVBench's rule takes out or replaces by a space.
const PUNCTUATION: &str = ";/[]\"{}()=+\\_-><@`,?!";
/// It takes out at most so many full stops.
const FULL_STOPS: usize = 32;
/// Video-MME's phrases that do not count. The last two stand as the reference has them: glued together, so that they never occur.
const INTRODUCTIONS: [&str; 6] = [
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option isThe correct option is",
    "Best answer:Best option:",
];

/// Without white space around it, as Python strips it.
pub fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}

/// What MVBench compares: the capital of the first letter A to E that stands alone, else the cleaned text.
pub fn mvbench(text: &str) -> String {
    let text = strip(text);
    if let Some(letter) = lettered(text) {
        return letter;
    }
    let text = text.replace(['\n', '\t'], " ");
    let text = without_punctuation(strip(&text));
    let text = text.trim_matches('\'').trim_matches('"').trim_matches(')').trim_matches('(');
    let text = strip(text).to_lowercase();
    lone_letter(&text).unwrap_or(text)
}

/// The letter of `B. something` on one line.
fn lettered(text: &str) -> Option<String> {
    let letter = text.chars().next().filter(|c| matches!(c.to_ascii_uppercase(), 'A'..='E'))?;
    let rest = text.get(1..)?.strip_prefix('.')?.trim_start();
    (!rest.is_empty() && !rest.contains('\n')).then(|| letter.to_ascii_uppercase().to_string())
}

fn without_punctuation(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let numbers = letters.windows(3).any(|w| w[1] == ',' && w[0].is_ascii_digit() && w[2].is_ascii_digit());
    let mut out = text.to_string();
    for mark in PUNCTUATION.chars() {
        let beside_space = text.contains(&format!("{mark} ")) || text.contains(&format!(" {mark}"));
        out = out.replace(mark, if beside_space || numbers { "" } else { " " });
    }
    let (mut cleaned, mut stops) = (String::with_capacity(out.len()), 0);
    let mut letters = out.chars().peekable();
    while let Some(letter) = letters.next() {
        let ends = letter == '.' && !letters.peek().is_some_and(char::is_ascii_digit);
        if ends && stops < FULL_STOPS {
            stops += 1;
        } else {
            cleaned.push(letter);
        }
    }
    cleaned
}

fn lone_letter(text: &str) -> Option<String> {
    let word = |c: &char| c.is_alphanumeric() || *c == '_';
    let letters: Vec<char> = text.chars().collect();
    let alone = |i: usize| {
        let before = i.checked_sub(1).and_then(|i| letters.get(i)).is_some_and(word);
        !before && !letters.get(i + 1).is_some_and(word)
    };
    let found = letters.iter().enumerate().find(|(i, c)| matches!(c, 'a'..='e' | 'A'..='E') && alone(*i));
    found.map(|(_, c)| c.to_ascii_uppercase().to_string())
}

/// Video-MME's letter; empty where there is none.
pub fn video_mme(text: &str) -> String {
    let text = INTRODUCTIONS.iter().fold(strip(text).to_string(), |text, phrase| text.replace(phrase, ""));
    text.chars().find(|c| matches!(c, 'A'..='D')).map(String::from).unwrap_or_default()
}

/// Whether a multiple choice of TempCompass is right; `None` where no rule decides.
pub fn multi_choice(reply: &str, answer: &str) -> Option<bool> {
    if reply == answer {
        return Some(true);
    }
    let mut letters = reply.chars();
    let letter = letters.next().filter(|c| matches!(c, 'A'..='D'))?;
    matches!(letters.next(), None | Some('.' | ')')).then(|| answer.starts_with(letter))
}

/// The yes or no that a reply to TempCompass begins with.
pub fn yes_no(reply: &str) -> Option<&'static str> {
    let reply = reply.to_lowercase();
    ["yes", "no"].into_iter().find(|word| reply.starts_with(word))
}

/// Whether the sentence that a reply to TempCompass names is the right one; `None` where no rule decides. Options are the question's lines
/// after the first, such as `Caption A: The man runs.`
pub fn matching(reply: &str, question: &str, answer: &str) -> Option<bool> {
    let parts = |line: &str| -> (String, Option<String>) {
        let mut parts = line.split(": ").map(String::from);
        (parts.next().unwrap_or_default(), parts.next())
    };
    let bare = |label: &str| {
        ["Sentence ", "Option ", "Caption "].iter().fold(label.to_string(), |l, w| l.replace(w, ""))
    };
    let options: Vec<&str> = question.split('\n').skip(1).collect();
    let after_bracket = reply.split(") ").nth(1);
    let without_stops = reply.replace('.', "");
    let mut chosen: Option<String> = None;
    for option in &options {
        if *option == reply {
            chosen = Some(reply.to_string());
        }
    }
    for sentence in options.iter().filter_map(|option| parts(option).1) {
        if sentence == reply || after_bracket == Some(sentence.as_str()) {
            chosen = Some(sentence);
        }
    }
    let labels: Vec<String> = options.iter().map(|option| parts(option).0).collect();
    let letters: Vec<String> = labels.iter().map(|label| bare(label)).collect();
    for label in labels.into_iter().chain(letters) {
        if label == reply || label == without_stops {
            chosen = Some(label);
        }
    }
    let chosen = chosen?;
    let (label, sentence) = parts(answer);
    let letter = label.split_whitespace().nth(1);
    Some(
        chosen == answer
            || answer.split(':').next() == Some(chosen.as_str())
            || sentence == Some(chosen.clone())
            || letter == Some(chosen.as_str()),
    )
}

#[cfg(test)]
mod tests {
    use super::super::{golden, golden_in};
    use super::*;
    use serde_json::Value;

    /// The cases called `key` of both golden files.
    fn cases(keys: [&str; 2]) -> Vec<Value> {
        let cases = [golden_in("eval_golden.json", keys[0]), golden(keys[1])].concat();
        assert!(cases.len() > 40, "{keys:?}: {}", cases.len());
        cases
    }

    fn text<'a>(case: &'a Value, key: &str) -> &'a str {
        case[key].as_str().unwrap()
    }

    #[test]
    fn mvbench_agrees_with_the_reference() {
        for case in cases(["mvbench_mcq_acc", "mvbench"]) {
            let right = mvbench(text(&case, "pred")) == mvbench(text(&case, "gt"));
            assert_eq!(u64::from(right), case["score"], "{case}");
        }
    }

    #[test]
    fn video_mme_agrees_with_the_reference() {
        for case in cases(["videomme_extract", "videomme"]) {
            assert_eq!(video_mme(text(&case, "pred")), text(&case, "ans"), "{case}");
        }
    }

    #[test]
    fn tempcompass_agrees_with_the_reference() {
        let score =
            |right: Option<bool>| right.map_or(Value::from("fail"), |right| Value::from(u8::from(right)));
        for case in cases(["tempcompass_caption_matching", "tempcompass_matching"]) {
            let ours = matching(text(&case, "pred"), text(&case, "q"), text(&case, "answer"));
            assert_eq!(score(ours), case["score"], "{case}");
        }
        for case in golden("tempcompass_choice") {
            let ours = multi_choice(text(&case, "pred"), text(&case, "answer"));
            assert_eq!(score(ours), case["score"], "{case}");
        }
        for case in cases(["tempcompass_yes_no", "tempcompass_yes_no"]) {
            assert_eq!(
                yes_no(text(&case, "pred")).map_or(Value::from(false), Value::from),
                case["out"],
                "{case}"
            );
        }
    }
}
