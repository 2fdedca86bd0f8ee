//! What a caption of one object says: how it looks and what it does.
//!
//! Comes in: a caption of a region, such as `a black cat laying on a couch`, and the object's category. Goes out: `black`, and `is laying on a couch`. Two
//! plain patterns of English are known (`… is …`, and a word in -ing after the name); anything else says nothing.

/// Words that may stand before a name and say nothing of it.
const ARTICLES: [&str; 6] = ["a", "an", "the", "this", "one", "some"];
/// More words than this are a story, not a look or a deed.
const MOST_WORDS: usize = 10;

/// The words of a caption, lower case, without punctuation.
fn words(caption: &str) -> Vec<String> {
    let letter = |c: char| if c.is_alphanumeric() || c == '-' || c == '\'' { c } else { ' ' };
    caption
        .to_lowercase()
        .chars()
        .map(letter)
        .collect::<String>()
        .split_whitespace()
        .map(String::from)
        .collect()
}

/// Where the last word of `category` stands.
fn name_at(words: &[String], category: &str) -> Option<usize> {
    let category = category.to_lowercase();
    let last = category.split_whitespace().last()?;
    words.iter().position(|word| word == last)
}

/// The words between the article and the name; nothing where the caption does not name the category.
pub fn look(caption: &str, category: &str) -> Option<String> {
    let words = words(caption);
    let end = name_at(&words, category)? + 1 - category.split_whitespace().count().max(1).min(words.len());
    let before: Vec<&str> =
        words.get(..end)?.iter().map(String::as_str).skip_while(|w| ARTICLES.contains(w)).collect();
    (!before.is_empty() && before.len() <= MOST_WORDS).then(|| before.join(" "))
}

/// A verb phrase in the third person.
pub fn deed(caption: &str, category: &str) -> Option<String> {
    let words = words(caption);
    let verb = words.iter().position(|w| w == "is" || w == "are");
    let after_name = name_at(&words, category).map(|at| at + 1);
    let participle =
        after_name.filter(|at| words.get(*at).is_some_and(|w| w.len() > 4 && w.ends_with("ing")));
    let (lead, rest) = match (verb, participle) {
        (Some(at), _) => (words.get(at)?.as_str(), words.get(at + 1..)?),
        (None, Some(at)) => ("is", words.get(at..)?),
        (None, None) => return None,
    };
    let tail: Vec<&str> = rest.iter().map(String::as_str).take(MOST_WORDS).collect();
    (!tail.is_empty()).then(|| format!("{lead} {}", tail.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_and_deeds_are_read_off_captions() {
        for (caption, category, looks, does) in [
            ("A black cat laying on a couch.", "cat", Some("black"), Some("is laying on a couch")),
            ("the man in red is riding a horse", "man", None, Some("is riding a horse")),
            ("a tall old man", "man", Some("tall old"), None),
            ("a small red sports car driving", "sports car", Some("small red"), Some("is driving")),
            ("clouds in the sky", "dog", None, None),
            ("", "dog", None, None),
            ("dog", "big dog", None, None),
        ] {
            assert_eq!(look(caption, category).as_deref(), looks, "{caption}");
            assert_eq!(deed(caption, category).as_deref(), does, "{caption}");
        }
    }
}
