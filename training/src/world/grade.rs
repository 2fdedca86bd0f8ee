//! Whether a reply is right: lenient about form, strict about content.
//!
//! In: an [`Item`] and a reply in free text. Out: right or not. A reply that fits two options is wrong.

use super::questions::{Item, Kind};

fn words(text: &str) -> Vec<String> {
    let number = |word: &str| match word {
        "zero" | "none" => "0".into(),
        "one" | "once" => "1".into(),
        "two" | "twice" => "2".into(),
        "three" => "3".into(),
        "four" => "4".into(),
        "five" => "5".into(),
        other => other.to_string(),
    };
    (text.to_lowercase().split(|c: char| !c.is_alphanumeric()))
        .filter(|w| !w.is_empty() && !matches!(*w, "the" | "a" | "an" | "it" | "is"))
        .map(number)
        .collect()
}

/// `part` occurs in `whole` as whole words.
fn within(part: &[String], whole: &[String]) -> bool {
    !part.is_empty() && whole.windows(part.len()).any(|w| w == part)
}

/// Whether `reply` answers the item. Multiple choice takes the letter or the option's text, yes/no the first word, open questions the
/// answer's words (or a part of them that fits no other option).
pub fn grade(item: &Item, reply: &str) -> bool {
    match item.kind {
        Kind::YesNo => words(reply).first() == Some(&item.answer.to_lowercase()),
        Kind::MultipleChoice => grade_choice(item, reply),
        Kind::Open => fits_only(&item.answer, &item.options, reply),
    }
}

fn fits_only(answer: &str, options: &[String], reply: &str) -> bool {
    let reply = words(reply);
    let exact = |option: &str| words(option) == reply;
    if options.iter().any(|o| exact(o)) {
        return exact(answer);
    }
    let fits = |option: &str| {
        let option = words(option);
        within(&option, &reply) || within(&reply, &option)
    };
    fits(answer) && !options.iter().any(|o| o != answer && fits(o))
}

fn grade_choice(item: &Item, reply: &str) -> bool {
    let trimmed = reply.trim();
    let bare = trimmed.trim_start_matches('(');
    let mut chars = bare.chars();
    let (first, second) = (chars.next(), chars.next());
    let bracketed = trimmed.starts_with('(') || second.is_none_or(|c| matches!(c, ')' | '.' | ':'));
    if let Some(letter) = first.filter(|c| c.is_ascii_alphabetic() && bracketed) {
        let wanted = item.answer.chars().nth(1);
        return wanted.is_some_and(|w| w.eq_ignore_ascii_case(&letter))
            && second.is_none_or(|c| !c.is_alphanumeric());
    }
    let options: Vec<String> = item.options.iter().map(|o| item.bare(o).to_string()).collect();
    fits_only(item.bare(&item.answer), &options, reply)
}
