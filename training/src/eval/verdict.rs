//! What a judge said, read as the reference reads it.
//!
//! Comes in: a judge's reply. Goes out: a [`Verdict`], or that there is none in it (it is then asked again). Nothing is guessed: a reply that stays
//! unreadable is counted apart and scores nothing, as in the reference.

use super::rubric::Rubric;

/// What a judge decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Right or wrong; ActivityNet-QA's judge may say neither.
    pub right: Option<bool>,
    /// ActivityNet-QA's score, 0 to 5.
    pub score: Option<i64>,
}

/// Reads a reply to a rubric; `answer` is the right one.
pub fn read(rubric: Rubric, said: &str, answer: &str) -> Option<Verdict> {
    let plain = |right| Verdict { right: Some(right), score: None };
    match rubric {
        Rubric::MultiChoice | Rubric::YesNo | Rubric::CaptionMatching => correct(said).map(plain),
        Rubric::Captioning => chose(said, answer).map(plain),
        Rubric::OpenEnded => {
            let (word, score) = dictionary(said)?;
            let word = word.to_lowercase();
            let right = if word.contains("yes") { Some(true) } else { word.contains("no").then_some(false) };
            Some(Verdict { right, score: Some(score) })
        }
    }
}

/// `Correct` or `Incorrect`, the first word before all.
fn correct(said: &str) -> Option<bool> {
    let (right, wrong) = (said.contains("Correct"), said.contains("Incorrect"));
    match () {
        () if said.starts_with("Correct") => Some(true),
        () if wrong => Some(false),
        () => right.then_some(true),
    }
}

/// Whether the option on the last line with `Answer` is the right one, and the only one named there.
fn chose(said: &str, answer: &str) -> Option<bool> {
    if said.is_empty() {
        return None;
    }
    let line = said.split('\n').rfind(|line| line.contains("Answer"));
    let line = line.map_or(said.to_string(), |line| line.replace("Answer:", "").trim().to_string());
    let named: usize = ["A.", "B.", "C.", "D."].iter().map(|option| line.matches(option).count()).sum();
    Some(named == 1 && line.split(". ").next() == answer.split(". ").next())
}

/// `pred` and the integer part of `score` of the first Python dictionary in the reply.
fn dictionary(said: &str) -> Option<(String, i64)> {
    let inside = said.split('{').nth(1)?.split('}').next()?;
    let mut reader = Literals { rest: inside };
    let (mut word, mut score) = (None, None);
    loop {
        reader.space();
        if reader.rest.is_empty() {
            break;
        }
        let Literal::Text(key) = reader.literal()? else { return None };
        reader.mark(':')?;
        let value = reader.literal()?;
        match key.as_str() {
            "pred" => word = Some(value),
            "score" => score = Some(value),
            _ => {}
        }
        reader.space();
        if !reader.rest.is_empty() {
            reader.mark(',')?;
        }
    }
    let score = match score? {
        Literal::Number(number) => number.is_finite().then_some(number.trunc() as i64)?,
        Literal::Text(text) => text.trim().parse().ok()?,
        Literal::None => return None,
    };
    let Literal::Text(word) = word? else { return None };
    Some((word, score))
}

enum Literal {
    Text(String),
    Number(f64),
    None,
}

/// Reads the flat literals of Python that such a dictionary is made of.
struct Literals<'a> {
    rest: &'a str,
}

impl Literals<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn mark(&mut self, mark: char) -> Option<()> {
        self.space();
        self.rest = self.rest.strip_prefix(mark)?;
        Some(())
    }

    fn literal(&mut self) -> Option<Literal> {
        self.space();
        let first = self.rest.chars().next()?;
        if matches!(first, '\'' | '"') {
            return self.text(first).map(Literal::Text);
        }
        let end = self.rest.find([',', ':']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        match word.trim() {
            "True" => Some(Literal::Number(1.0)),
            "False" => Some(Literal::Number(0.0)),
            "None" => Some(Literal::None),
            number if number.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => {
                number.parse().ok().map(Literal::Number)
            }
            _ => None,
        }
    }

    fn text(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        let mut letters = self.rest.char_indices().skip(1);
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\n' => return None,
                '\\' => match letters.next()?.1 {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    other if "\\'\"".contains(other) => text.push(other),
                    other => text.extend(['\\', other]),
                },
                letter if letter == quote => {
                    self.rest = self.rest.get(at + 1..)?;
                    return Some(text);
                }
                letter => text.push(letter),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    #[test]
    fn a_judges_words_are_read_as_the_reference_reads_them() {
        for case in golden("judge_correct") {
            let ours = read(Rubric::YesNo, case["said"].as_str().unwrap(), "yes").and_then(|v| v.right);
            assert_eq!(ours, case["rating"].as_u64().map(|rating| rating == 1), "{case}");
        }
        for case in golden("judge_captioning") {
            let (said, answer) = (case["said"].as_str().unwrap(), case["answer"].as_str().unwrap());
            let ours =
                read(Rubric::Captioning, said, answer).map_or(-1, |v| i64::from(v.right == Some(true)));
            assert_eq!(ours, case["rating"].as_i64().unwrap(), "{case}");
        }
    }

    #[test]
    fn a_judges_dictionary_is_read_as_python_reads_it() {
        for case in golden("judge_open") {
            let ours =
                read(Rubric::OpenEnded, case["said"].as_str().unwrap(), "").map(|v| (v.right, v.score));
            let theirs = case["parsed"].as_array().map(|parsed| {
                let word = parsed[0].as_str().unwrap();
                ((["yes", "no"].contains(&word)).then_some(word == "yes"), parsed[1].as_i64())
            });
            assert_eq!(ours, theirs, "{case}");
        }
    }
}
