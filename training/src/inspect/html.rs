//! What every page needs: text made harmless, names that are safe as files, colours, and the frame around the body.
//!
//! Comes in: names and texts from anywhere. Goes out: HTML that shows them as they are, file names of plain letters, and one colour per track. What a
//! page says is the business of the other modules; the looks are in `style.css`, the hovering in `script.js`.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

/// The style sheet that all pages share, written beside the index.
pub const STYLE: &str = include_str!("style.css");
/// Lights up what a conversation is about while it is pointed at; the pages are complete without it.
pub const SCRIPT: &str = include_str!("script.js");
/// A switch that leaves only what has warnings; the style sheet does the rest.
pub const ONLY_WARNED: &str = "<span class=\"switches\"><label><input type=\"checkbox\" id=\"only-warned\"> only with warnings</label></span>";

/// Longest file name made from a clip's name, ending excluded.
const LONGEST_NAME: usize = 80;
/// Bytes of a hash that a name carries.
const HASH_BYTES: usize = 6;

/// Colours of the first tracks of a clip: bright enough to be seen on pictures, with dark text on them.
const COLOURS: [&str; 12] = [
    "#ff6b6b", "#4dabf7", "#51cf66", "#ffd43b", "#b197fc", "#22d3ee", "#ff922b", "#f783ac", "#a9e34b",
    "#748ffc", "#20c997", "#e599f7",
];

/// Text as HTML shows it, in elements and in quoted attributes. Control characters become U+FFFD, for HTML knows none.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + text.len() / 8);
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(letter),
            _ if letter.is_control() => safe.push(char::REPLACEMENT_CHARACTER),
            _ => safe.push(letter),
        }
    }
    safe
}

/// One file name per clip name, in their order: plain letters, digits, `.`, `_` and `-`, not hidden, all different even where case does not
/// count. A name that had to be changed by more than its slashes, and names that would be equal, carry a piece of their hash.
pub fn file_names(names: &[String]) -> Vec<String> {
    let plain: Vec<(String, bool)> = names.iter().map(|name| plain_name(name)).collect();
    let mut uses: BTreeMap<String, usize> = BTreeMap::new();
    for (name, _) in &plain {
        *uses.entry(name.to_lowercase()).or_default() += 1;
    }
    let unique = |((plain, kept), name): ((String, bool), &String)| {
        if kept && uses.get(&plain.to_lowercase()) == Some(&1) {
            return plain;
        }
        let digest: String =
            Sha256::digest(name.as_bytes()).iter().take(HASH_BYTES).map(|b| format!("{b:02x}")).collect();
        format!("{plain}-{digest}")
    };
    plain.into_iter().zip(names).map(unique).collect()
}

/// The name in plain letters, and whether only slashes were changed.
fn plain_name(name: &str) -> (String, bool) {
    let mut kept = true;
    let mut plain = String::new();
    for letter in name.chars() {
        match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' => plain.push(letter),
            '/' => plain.push('-'),
            _ => {
                kept = false;
                plain.push('_');
            }
        }
    }
    let visible = plain.trim_start_matches(['.', '-']);
    kept &= visible.len() == plain.len() && visible.len() <= LONGEST_NAME && !visible.is_empty();
    // Nothing may look as if it carried a hash without doing so.
    let hash = visible.rsplit_once('-').map_or("", |(_, hash)| hash);
    kept &= hash.len() != 2 * HASH_BYTES || !hash.bytes().all(|b| b.is_ascii_hexdigit());
    let short: String = visible.chars().take(LONGEST_NAME).collect();
    (if short.is_empty() { "clip".to_owned() } else { short }, kept)
}

/// The colour of the track at `place` (from 0) of its clip.
pub fn colour(place: usize) -> String {
    match COLOURS.get(place) {
        Some(colour) => (*colour).to_owned(),
        // Hues a golden angle apart never come near each other soon.
        None => format!("hsl({} 80% 68%)", place * 137 % 360),
    }
}

/// A number with at most `digits` decimals and no zeros at its end.
pub fn number(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let short = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if short == "-0" { "0".to_owned() } else { short.to_owned() }
}

/// A share of a side in per cent, as SVG wants it.
pub fn percent(share: f64) -> String {
    format!("{}%", number(share * 100.0, 2))
}

/// At most so many letters of a text, with an ellipsis as the last where some are missing.
pub fn shortened(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    let kept: String = text.chars().take(letters.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// `1 clip`, `2 clips`.
pub fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// A whole page. `root` leads from the page to the folder of the index (empty or `../`), `style` is the page's own, `body` is HTML.
pub fn document(title: &str, root: &str, style: &str, body: &str) -> String {
    let style = if style.is_empty() { String::new() } else { format!("<style>\n{style}</style>\n") };
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n\
         <link rel=\"stylesheet\" href=\"{root}style.css\">\n{style}<script src=\"{root}script.js\" defer></script>\n\
         </head>\n<body>\n{body}</body>\n</html>\n",
        escape(title)
    )
}
