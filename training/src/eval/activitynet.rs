//! ActivityNet-QA: open questions about long videos, for a judge.
//!
//! Comes in: a folder with the rows of the test split (or the authors' `test_q.json` and `test_a.json`) and `all_test/v_NAME.mp4` (or .webm, .mkv).
//! Goes out: items with the reference's prompt. No rule decides anything here: a judge says yes or no, and a score from 0 to 5.

use super::clip::Clip;
use super::item::{Asked, Benchmark, Item, Prompt, Truth};
use super::rows;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::Path;

const PUBLISHED: &str = "ActivityNet-QA is published as lmms-lab/ActivityNetQA on Hugging Face (test-*.parquet, archives of videos: all_test/) and by its authors as \
                         MILVLG/activitynet-qa (dataset/test_q.json and test_a.json)";

#[derive(Deserialize)]
struct Question {
    video_name: String,
    question: String,
    question_id: String,
    /// Absent where answers have a file of their own.
    answer: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    question_id: String,
    answer: String,
}

/// Reads the benchmark.
///
/// # Errors
/// Annotations that are missing or broken, and a question without an answer.
pub fn load(folder: &Path) -> Result<Benchmark> {
    let stems = ["data/test", "test", "Generation/test", "dataset/test_q", "test_q"];
    let files = rows::find(folder, &stems, PUBLISHED)?;
    let questions: Vec<Question> = rows::read(&files)?;
    let mut answers = HashMap::new();
    if questions.iter().any(|question| question.answer.is_none()) {
        let files = rows::find(folder, &["dataset/test_a", "test_a"], PUBLISHED)?;
        answers.extend(
            rows::read::<Answer>(&files)?.into_iter().map(|answer| (answer.question_id, answer.answer)),
        );
    }
    let item = |row: Question| {
        let answer = row.answer.or_else(|| answers.get(&row.question_id).cloned());
        let answer =
            answer.with_context(|| format!("ActivityNet-QA: question {} has no answer", row.question_id))?;
        let videos = ["mp4", "webm", "mkv"]
            .map(|ending| folder.join(format!("all_test/v_{}.{ending}", row.video_name)));
        Ok(Item {
            id: row.question_id,
            task: "test".into(),
            groups: Vec::new(),
            clip: Clip::first_of(videos),
            prompt: Prompt::Text(prompt(&row.question)),
            max_tokens: 64,
            truth: Truth::Open(Asked { question: row.question, answer }),
        })
    };
    let items = questions.into_iter().map(item).collect::<Result<_>>()?;
    Ok(Benchmark { name: "ActivityNet-QA", published: PUBLISHED, items })
}

/// The first letter is made a capital, all others small.
fn prompt(question: &str) -> String {
    let mut letters = question.chars();
    let first: String = letters.next().map(|letter| letter.to_uppercase().collect()).unwrap_or_default();
    format!("{first}{}? Answer the question using a single word or phrase.", letters.as_str().to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    #[test]
    fn prompts_are_the_references() {
        for case in golden("activitynet_prompts") {
            assert_eq!(prompt(case["question"].as_str().unwrap()), case["prompt"].as_str().unwrap());
        }
    }

    #[test]
    fn answers_may_have_a_file_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(
            at("test_q.json"),
            r#"[{"video_name": "x", "question": "who", "question_id": "x_1"}]"#,
        )
        .unwrap();
        std::fs::write(at("test_a.json"), r#"[{"answer": "a man", "type": 3, "question_id": "x_1"}]"#)
            .unwrap();
        let items = load(folder.path()).unwrap().items;
        assert_eq!((items[0].truth.answer(), items[0].clip.path.clone()), ("a man", at("all_test/v_x.mp4")));
        std::fs::write(at("test_a.json"), "[]").unwrap();
        assert!(load(folder.path()).err().unwrap().to_string().contains("x_1 has no answer"));
    }
}
