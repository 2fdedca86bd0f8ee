//! MVBench: 20 tasks of multiple choice, 200 questions each.
//!
//! Comes in: a folder with `json/TASK.json` and the videos, whole or cut. Goes out: items with the reference's prompt. The reference shows videos that
//! were cut beforehand; where only the whole ones (or, for episodic reasoning, folders of pictures) lie there, the annotation's start and end bound
//! what is shown. The score is the mean over tasks; replies without a word are left out, as in the reference.

use super::clip::Clip;
use super::item::{Benchmark, Item, Prompt, Truth};
use super::rows;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// A task, the folder of its videos as the reference has them, and as they were before they were cut or converted; whether those are cut by
/// the annotation's times.
type Task = (&'static str, &'static str, &'static str, bool);

const PERCEPTION: &str = "perception/videos";
const CLEVRER: &str = "clevrer/video_validation";
const CHARADES: [&str; 2] = ["star/Charades_segment", "star/Charades_v1_480"];

/// In the order of the reference's list.
const TASKS: [Task; 20] = [
    ("action_sequence", CHARADES[0], CHARADES[1], true),
    ("moving_count", CLEVRER, CLEVRER, false),
    ("action_prediction", CHARADES[0], CHARADES[1], true),
    ("episodic_reasoning", "tvqa/video_fps3_hq_segment", "tvqa/frames_fps3_hq", true),
    ("action_antonym", "ssv2_video_mp4", "ssv2_video", false),
    ("action_count", PERCEPTION, PERCEPTION, false),
    ("scene_transition", "scene_qa/video", "scene_qa/video", false),
    ("object_shuffle", PERCEPTION, PERCEPTION, false),
    ("object_existence", CLEVRER, CLEVRER, false),
    ("fine_grained_pose", "nturgbd_convert", "nturgbd", false),
    ("unexpected_action", "FunQA_test/test", "FunQA_test/test", false),
    ("moving_direction", CLEVRER, CLEVRER, false),
    ("state_change", PERCEPTION, PERCEPTION, false),
    ("object_interaction", CHARADES[0], CHARADES[1], true),
    ("character_order", PERCEPTION, PERCEPTION, false),
    ("action_localization", "sta/sta_video_segment", "sta/sta_video", true),
    ("counterfactual_inference", CLEVRER, CLEVRER, false),
    ("fine_grained_action", "Moments_in_Time_Raw/videos", "Moments_in_Time_Raw/videos", false),
    ("moving_attribute", CLEVRER, CLEVRER, false),
    ("egocentric_navigation", "vlnqa", "vlnqa", false),
];

const PUBLISHED: &str = "MVBench is published as OpenGVLab/MVBench on Hugging Face: json/TASK.json, and archives of videos in video/; the videos of \
                         fine_grained_pose come from the authors of NTU RGB+D";

#[derive(Deserialize)]
struct Row {
    video: String,
    question: String,
    candidates: Vec<String>,
    answer: String,
    start: Option<f64>,
    end: Option<f64>,
}

/// Reads the benchmark, or only the tasks that are named.
///
/// # Errors
/// A task that is unknown or whose annotations are missing or broken.
pub fn load(folder: &Path, only: &[String]) -> Result<Benchmark> {
    for task in only {
        let names = || TASKS.map(|task| task.0).join(", ");
        ensure!(TASKS.iter().any(|known| known.0 == task), "--tasks {task}: MVBench has {}", names());
    }
    let mut items = Vec::new();
    for task in TASKS.iter().filter(|task| only.is_empty() || only.iter().any(|name| name == task.0)) {
        let name = task.0;
        let stems = [format!("json/{name}"), name.to_string(), format!("{name}/train")];
        let files = rows::find(folder, &stems.each_ref().map(String::as_str), PUBLISHED)?;
        for (number, row) in rows::read::<Row>(&files)?.into_iter().enumerate() {
            items.push(
                item(folder, task, number, row)
                    .with_context(|| format!("MVBench {name}, question {number}"))?,
            );
        }
    }
    Ok(Benchmark { name: "MVBench", published: PUBLISHED, items })
}

fn item(folder: &Path, task: &Task, number: usize, row: Row) -> Result<Item> {
    let letters = ('A'..='Z').map(String::from);
    let letter = letters
        .zip(&row.candidates)
        .find(|(_, candidate)| **candidate == row.answer)
        .map(|(letter, _)| letter);
    let letter = letter.with_context(|| format!("its answer {:?} is none of its candidates", row.answer))?;
    Ok(Item {
        id: format!("{}/{number}", task.0),
        task: task.0.to_string(),
        groups: Vec::new(),
        clip: clip(folder, task, &row),
        prompt: Prompt::Text(prompt(&row.question, &row.candidates)),
        max_tokens: 16,
        truth: Truth::MvBench(letter),
    })
}

fn prompt(question: &str, candidates: &[String]) -> String {
    let options: String =
        ('A'..='Z').zip(candidates).map(|(letter, text)| format!("({letter}) {text}\n")).collect();
    format!("Question:{question}\nOption:\n{options}Only give the best option.\n")
}

/// The cut video where it is there, else the whole one with its bounds.
fn clip(folder: &Path, (_, cut, whole, bounded): &Task, row: &Row) -> Clip {
    let roots =
        [folder.join("video"), folder.to_path_buf(), folder.join("data0613"), folder.join("video/data0613")];
    let below =
        |place: &str| roots.iter().map(|root| root.join(place).join(&row.video)).collect::<Vec<PathBuf>>();
    let found = Clip::first_of(below(cut));
    if found.present {
        return found;
    }
    let stretch = row.start.zip(row.end).filter(|_| *bounded).map(|(start, end)| [start, end]);
    let uncut = Clip { stretch, ..Clip::first_of(below(whole)) };
    if uncut.present { uncut } else { found }
}

#[cfg(test)]
mod tests {
    use super::super::{golden, golden_in};
    use super::*;

    #[test]
    fn prompts_are_the_references() {
        for case in golden("mvbench_prompts") {
            let candidates: Vec<String> = serde_json::from_value(case["candidates"].clone()).unwrap();
            assert_eq!(
                prompt(case["question"].as_str().unwrap(), &candidates),
                case["prompt"].as_str().unwrap()
            );
        }
        let folders: serde_json::Map<String, serde_json::Value> =
            golden_in("eval_rules.json", "mvbench_folders");
        assert_eq!(folders.len(), TASKS.len());
        for (name, cut, ..) in TASKS {
            assert_eq!(folders[name], cut);
        }
    }

    #[test]
    fn the_cut_video_is_taken_before_the_whole_one() {
        let folder = tempfile::tempdir().unwrap();
        let row = || Row {
            video: "a.mp4".into(),
            question: "?".into(),
            candidates: vec!["x".into()],
            answer: "x".into(),
            start: Some(1.0),
            end: Some(2.5),
        };
        let task = &TASKS[0];
        assert!(!clip(folder.path(), task, &row()).present);
        let touch = |place: &str| {
            let path = folder.path().join(place);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            path
        };
        let whole = touch("video/star/Charades_v1_480/a.mp4");
        assert_eq!(
            clip(folder.path(), task, &row()),
            Clip { path: whole, stretch: Some([1.0, 2.5]), present: true }
        );
        let cut = touch("star/Charades_segment/a.mp4");
        assert_eq!(clip(folder.path(), task, &row()), Clip { path: cut, stretch: None, present: true });
        let wrong = Row { answer: "y".into(), ..row() };
        assert!(
            item(folder.path(), task, 7, wrong).err().unwrap().to_string().contains("none of its candidates")
        );
    }
}
