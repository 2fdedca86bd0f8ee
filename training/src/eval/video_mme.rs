//! Video-MME: multiple choice about short, medium and long videos, with or without their subtitles.
//!
//! Comes in: a folder with `videomme/test-*.parquet`, `data/ID.mp4` (or .MP4, .mkv) and `subtitle/ID.srt`. Goes out: items with the reference's prompt,
//! which speaks of subtitles also where none are shown. Scored over all questions, and apart by duration, domain, sub-category and kind of task.

use super::clip::Clip;
use super::item::{Benchmark, Item, Prompt, Truth};
use super::rows;
use anyhow::{Result, ensure};
use serde::Deserialize;
use std::path::Path;

const ASK: &str = "Select the best answer to the following multiple-choice question based on the video and the subtitles. Respond with only the letter (A, B, C, or D) of the correct option.";

const PUBLISHED: &str = "Video-MME is published as lmms-lab/Video-MME on Hugging Face: videomme/test-*.parquet, archives of videos (data/), subtitle.zip (subtitle/)";

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
struct Row {
    question_id: String,
    #[serde(rename = "videoID")]
    video_id: String,
    duration: String,
    domain: String,
    sub_category: String,
    task_type: String,
    question: String,
    options: Vec<String>,
    answer: String,
}

/// Reads the benchmark.
///
/// # Errors
/// Annotations that are missing or broken; a folder without any subtitles where they are asked for.
pub fn load(folder: &Path, subtitles: bool) -> Result<Benchmark> {
    let files = rows::find(folder, &["videomme/test", "test"], PUBLISHED)?;
    let spoken = folder.join("subtitle");
    ensure!(!subtitles || spoken.is_dir(), "--subtitles: {} is missing; {PUBLISHED}", spoken.display());
    let item = |row: Row| {
        let rest = format!("{ASK}\n{}\n{}\n", row.question, row.options.join("\n"));
        let prompt = if subtitles {
            let file = spoken.join(format!("{}.srt", row.video_id));
            Prompt::Subtitled { file: file.exists().then_some(file), rest: rest + "The best answer is:" }
        } else {
            Prompt::Text(rest + "\nAnswer with the option's letter from the given choices directly.")
        };
        let videos =
            ["mp4", "MP4", "mkv"].map(|ending| folder.join(format!("data/{}.{ending}", row.video_id)));
        Item {
            id: row.question_id,
            task: row.duration,
            groups: vec![("domain", row.domain), ("sub-category", row.sub_category), ("kind", row.task_type)],
            clip: Clip::first_of(videos),
            prompt,
            max_tokens: 16,
            truth: Truth::VideoMme(row.answer),
        }
    };
    let items = rows::read::<Row>(&files)?.into_iter().map(item).collect();
    Ok(Benchmark {
        name: if subtitles { "Video-MME with subtitles" } else { "Video-MME" },
        published: PUBLISHED,
        items,
    })
}

#[cfg(test)]
mod tests {
    use super::super::clip::Seen;
    use super::super::golden;
    use super::*;

    #[test]
    fn prompts_are_the_references() {
        let seen = Seen { frames: Vec::new(), total: 900, fps: 30.0 };
        for case in golden("videomme_prompts") {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            std::fs::create_dir_all(at("subtitle")).unwrap();
            std::fs::write(at("test.json"), serde_json::to_string(&[&case["doc"]]).unwrap()).unwrap();
            if let Some(srt) = case["srt"].as_str() {
                std::fs::write(at("subtitle/v1.srt"), srt).unwrap();
            }
            for (subtitles, key) in [(false, "prompt"), (true, "with_subtitles")] {
                let items = load(folder.path(), subtitles).unwrap().items;
                assert_eq!(items[0].prompt.text(&seen).unwrap(), case[key].as_str().unwrap());
            }
        }
    }
}
