//! What a judge is asked.
//!
//! Comes in: a question, its right answer, a model's reply, and which rubric applies. Goes out: the body of a chat request with the sampling that the
//! reference uses. The instructions are in our words and ask for the reference's form of reply; a file can put others in their place
//! (`--judge-prompts`), such as those a published figure was made with.

use super::item::Asked;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;

/// How a judge is to judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rubric {
    /// TempCompass, multiple choice.
    MultiChoice,
    /// TempCompass, yes or no.
    YesNo,
    /// TempCompass, which sentence.
    CaptionMatching,
    /// TempCompass: the judge answers the question from the reply.
    Captioning,
    /// ActivityNet-QA: yes or no, and 0 to 5.
    OpenEnded,
}

/// A reply to judge.
#[derive(Clone, Debug)]
pub struct Case {
    /// How.
    pub rubric: Rubric,
    /// The question and its right answer.
    pub asked: Asked,
    /// What the model said.
    pub reply: String,
}

/// Instructions of one rubric; `{question}`, `{answer}` and `{reply}` stand for the case's texts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Instructions {
    system: String,
    user: String,
}

/// Instructions of all rubrics.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instructed {
    multi_choice: Instructions,
    yes_no: Instructions,
    caption_matching: Instructions,
    captioning: Instructions,
    open_ended: Instructions,
}

/// The system message of TempCompass's rubrics.
const GRADER: &str = "You grade answers to questions about videos.";
/// The system message of ActivityNet-QA's.
const COMPARER: &str = "You compare a predicted answer about a video with the right one. What counts is the meaning: synonyms and paraphrases \
                        match.";

/// Of the three rubrics of TempCompass that grade a reply.
fn graded(kind: &str) -> Instructions {
    let user = format!(
        "Is this reply to a {kind} question about a video correct? Hold it against the right answer. Say one word: \"Correct\" or \
         \"Incorrect\".\n\nQuestion:\n{{question}}\n\nRight answer: {{answer}}\n\nReply: {{reply}}"
    );
    Instructions { system: GRADER.into(), user }
}

impl Default for Instructed {
    fn default() -> Self {
        let captioning = "Here is a description of a video, and a multiple-choice question about the video. Choose the option that the description \
             supports, from the description alone. Where it supports none of them, or says too little to tell, the answer is \"None of the \
             choices are correct\". Write two lines:\nReasoning: [why, in one sentence]\nAnswer: [letter and text of the option, such as \
             B. sideways]\n\nDescription: {reply}\n\nQuestion:\n{question}";
        let open_ended = "Judge this answer to a question about a video.\n\nQuestion: {question}\nRight answer: {answer}\nPredicted answer: \
             {reply}\n\nWrite a Python dictionary and nothing else. Its key 'pred' holds 'yes' where the prediction means the same as the right \
             answer, else 'no'; its key 'score' holds an integer from 0 to 5, 5 for the best match. An example: {'pred': 'no', 'score': 1}";
        Self {
            multi_choice: graded("multiple-choice"),
            yes_no: graded("yes/no"),
            caption_matching: graded("caption-matching"),
            captioning: Instructions { system: GRADER.into(), user: captioning.into() },
            open_ended: Instructions { system: COMPARER.into(), user: open_ended.into() },
        }
    }
}

impl Instructed {
    /// Reads a TOML file with a table for each rubric (`multi_choice`, `yes_no`, `caption_matching`, `captioning`, `open_ended`), each with `system`
    /// and `user`.
    ///
    /// # Errors
    /// A file that cannot be read, is not of this form, or leaves the reply out.
    pub fn load(path: &Path) -> Result<Self> {
        let reading = || format!("reading --judge-prompts {}", path.display());
        let all: Self =
            toml::from_str(&std::fs::read_to_string(path).with_context(reading)?).with_context(reading)?;
        for (name, one) in [
            ("multi_choice", &all.multi_choice),
            ("yes_no", &all.yes_no),
            ("caption_matching", &all.caption_matching),
            ("captioning", &all.captioning),
            ("open_ended", &all.open_ended),
        ] {
            ensure!(
                one.user.contains("{reply}"),
                "{}: {name}.user leaves out {{reply}}, so that nothing is judged",
                path.display()
            );
        }
        Ok(all)
    }

    /// The body of the request that puts a case to the judge called `model`.
    pub fn request(&self, case: &Case, model: &str) -> Value {
        let one = match case.rubric {
            Rubric::MultiChoice => &self.multi_choice,
            Rubric::YesNo => &self.yes_no,
            Rubric::CaptionMatching => &self.caption_matching,
            Rubric::Captioning => &self.captioning,
            Rubric::OpenEnded => &self.open_ended,
        };
        let messages = json!([
            {"role": "system", "content": fill(&one.system, case)},
            {"role": "user", "content": fill(&one.user, case)},
        ]);
        match case.rubric {
            Rubric::OpenEnded => {
                json!({"model": model, "messages": messages, "temperature": 0, "max_tokens": 64})
            }
            _ => {
                json!({"model": model, "messages": messages, "temperature": 1.0, "top_p": 1, "presence_penalty": 1, "max_tokens": 128})
            }
        }
    }
}

/// Puts the case's texts in their places, in one pass: what they contain is not looked into.
fn fill(template: &str, case: &Case) -> String {
    let places =
        [("{question}", &case.asked.question), ("{answer}", &case.asked.answer), ("{reply}", &case.reply)];
    let (mut out, mut rest) = (String::new(), template);
    while let Some((at, place, text)) = places
        .iter()
        .filter_map(|(place, text)| Some((rest.find(place)?, *place, *text)))
        .min_by_key(|found| found.0)
    {
        out += rest.get(..at).unwrap_or_default();
        out += text;
        rest = rest.get(at + place.len()..).unwrap_or_default();
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(rubric: Rubric) -> Case {
        let asked = Asked { question: "What? {answer}".into(), answer: "B. up".into() };
        Case { rubric, asked, reply: "{question}".into() }
    }

    #[test]
    fn what_the_texts_contain_is_not_filled_again() {
        let request = Instructed::default().request(&case(Rubric::MultiChoice), "m");
        let user = request["messages"][1]["content"].as_str().unwrap();
        assert!(
            user.ends_with("Question:\nWhat? {answer}\n\nRight answer: B. up\n\nReply: {question}"),
            "{user}"
        );
        assert_eq!((&request["model"], &request["max_tokens"]), (&json!("m"), &json!(128)));
        let open = Instructed::default().request(&case(Rubric::OpenEnded), "m");
        assert_eq!((&open["temperature"], &open["max_tokens"]), (&json!(0), &json!(64)));
        assert!(open["messages"][1]["content"].as_str().unwrap().contains("{'pred': 'no', 'score': 1}"));
    }

    #[test]
    fn a_file_without_the_reply_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("judge.toml");
        let all = |user: &str| {
            ["multi_choice", "yes_no", "caption_matching", "captioning", "open_ended"]
                .map(|name| format!("[{name}]\nsystem = \"s\"\nuser = \"{user}\"\n"))
                .concat()
        };
        std::fs::write(&path, all("{reply}?")).unwrap();
        let request = Instructed::load(&path).unwrap().request(&case(Rubric::YesNo), "m");
        assert_eq!(request["messages"][1]["content"], "{question}?");
        std::fs::write(&path, all("nothing")).unwrap();
        assert!(Instructed::load(&path).unwrap_err().to_string().contains("{reply}"));
        std::fs::write(&path, "[yes_no]\n").unwrap();
        assert!(Instructed::load(&path).is_err());
    }
}
