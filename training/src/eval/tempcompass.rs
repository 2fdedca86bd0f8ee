//! TempCompass: multiple choice, yes/no, caption matching and captioning about action, direction, speed, order and change of attributes.
//!
//! Comes in: a folder with `videos/ID.mp4` and the annotations of the four tasks, as rows or as the authors nest them (video, aspect, questions). Goes out:
//! items with the reference's prompts. Rules decide what they can; the rest, and every caption, waits for a judge.

use super::clip::Clip;
use super::item::{Asked, Benchmark, Item, Prompt, Truth};
use super::rows;
use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

const CHOOSE: &str = "\nPlease directly give the best option:";

/// A task as the data set calls it, as the authors' files do, and what its prompt adds to the question.
const TASKS: [(&str, &str); 4] = [
    ("multi-choice", CHOOSE),
    ("yes_no", "\nPlease answer yes or no:"),
    ("caption_matching", CHOOSE),
    ("captioning", ""),
];

/// The reference sets no limit for these, so that its own holds.
const REPLY_TOKENS: usize = 1024;

const PUBLISHED: &str = "TempCompass is published as lmms-lab/TempCompass on Hugging Face (TASK/test-*.parquet, tempcompass_videos.zip) and by its authors as \
                         lyx97/TempCompass (questions/TASK.json)";

#[derive(Deserialize)]
struct Row {
    video_id: String,
    dim: String,
    question: String,
    #[serde(default)]
    answer: String,
    mc_question: Option<String>,
    mc_answer: Option<String>,
}

/// Reads the benchmark, or only the tasks that are named.
///
/// # Errors
/// A task that is unknown or whose annotations are missing or broken.
pub fn load(folder: &Path, only: &[String]) -> Result<Benchmark> {
    for task in only {
        let names = || TASKS.map(|task| task.0).join(", ");
        ensure!(TASKS.iter().any(|known| known.0 == task), "--tasks {task}: TempCompass has {}", names());
    }
    let mut items = Vec::new();
    for (task, post) in TASKS.iter().filter(|task| only.is_empty() || only.iter().any(|name| name == task.0))
    {
        let stems = [format!("{task}/test"), format!("questions/{task}"), task.to_string()];
        let files = rows::find(folder, &stems.each_ref().map(String::as_str), PUBLISHED)?;
        for (number, row) in read(&files)?.into_iter().enumerate() {
            let made = item(folder, task, post, number, row);
            items.push(made.with_context(|| format!("TempCompass {task}, question {number}"))?);
        }
    }
    Ok(Benchmark { name: "TempCompass", published: PUBLISHED, items })
}

/// Rows as they stand, or out of the authors' nesting.
fn read(files: &[PathBuf]) -> Result<Vec<Row>> {
    let nested = match files {
        [file] if file.extension().is_some_and(|ending| ending == "json") => rows::whole::<Value>(file)?,
        _ => Value::Null,
    };
    let Value::Object(videos) = nested else { return rows::read(files) };
    let mut rows = Vec::new();
    for (video, aspects) in videos {
        let aspects: Map<String, Value> =
            serde_json::from_value(aspects).with_context(|| format!("video {video}"))?;
        for (aspect, questions) in aspects {
            let questions: Vec<Map<String, Value>> =
                serde_json::from_value(questions).with_context(|| format!("video {video}, {aspect}"))?;
            for mut question in questions {
                question.insert("video_id".into(), video.clone().into());
                question.insert("dim".into(), aspect.clone().into());
                let row = serde_json::from_value(Value::Object(question));
                rows.push(row.with_context(|| format!("video {video}, {aspect}"))?);
            }
        }
    }
    Ok(rows)
}

fn item(folder: &Path, task: &str, post: &str, number: usize, row: Row) -> Result<Item> {
    let asked = Asked { question: row.question.clone(), answer: row.answer };
    let truth = match task {
        "multi-choice" => Truth::MultiChoice(asked),
        "yes_no" => Truth::YesNo(asked),
        "caption_matching" => Truth::Matching(asked),
        _ => Truth::Captioning(Asked {
            question: row.mc_question.ok_or_else(|| anyhow!("it has no mc_question"))?,
            answer: row.mc_answer.ok_or_else(|| anyhow!("it has no mc_answer"))?,
        }),
    };
    ensure!(!truth.answer().is_empty(), "it has no answer");
    let name = format!("{}.mp4", row.video_id);
    Ok(Item {
        id: format!("{task}/{number}"),
        task: task.to_string(),
        groups: vec![("aspect", format!("{task}, {}", row.dim))],
        clip: Clip::first_of(["videos", ""].map(|place| folder.join(place).join(&name))),
        prompt: Prompt::Text(format!("{}{post}", row.question)),
        max_tokens: REPLY_TOKENS,
        truth,
    })
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    #[test]
    fn prompts_are_the_references() {
        for case in golden("tempcompass_prompts") {
            let (task, post) = TASKS.iter().find(|task| task.0 == case["task"]).unwrap();
            let row = serde_json::json!({"video_id": "1", "dim": "speed", "question": case["question"], "answer": "yes",
                "mc_question": "?", "mc_answer": "A. x"});
            let item = item(Path::new("."), task, post, 0, serde_json::from_value(row).unwrap()).unwrap();
            let Prompt::Text(prompt) = item.prompt else { panic!() };
            assert_eq!(prompt, case["prompt"].as_str().unwrap());
        }
    }

    #[test]
    fn the_authors_nesting_gives_the_same_rows() {
        let folder = tempfile::tempdir().unwrap();
        let (nested, flat) = (folder.path().join("yes_no.json"), folder.path().join("rows.json"));
        std::fs::write(&nested, r#"{"7": {"speed": [{"question": "Fast?", "answer": "no"}], "order": [{"question": "First?", "answer": "yes"}]}}"#)
            .unwrap();
        std::fs::write(
            &flat,
            r#"[{"video_id": "7", "dim": "speed", "question": "Fast?", "answer": "no"},
                {"video_id": "7", "dim": "order", "question": "First?", "answer": "yes"}]"#,
        )
        .unwrap();
        let key = |row: Row| (row.video_id, row.dim, row.question, row.answer);
        let rows =
            |file: &Path| read(&[file.to_path_buf()]).unwrap().into_iter().map(key).collect::<Vec<_>>();
        assert_eq!(rows(&nested), rows(&flat));
        std::fs::write(&nested, r#"{"7": {"speed": [{"answer": "no"}]}}"#).unwrap();
        let broken = format!("{:#}", read(&[nested]).err().unwrap());
        assert!(broken.contains("video 7, speed") && broken.contains("question"), "{broken}");
    }
}
