//! The model's answers to a benchmark, kept clip by clip.
//!
//! Comes in: items. Goes out: `answers.jsonl` and its content in the items' order. All questions about a clip are asked together, so that it is decoded and
//! encoded once; a stopped or killed run loses at most the clips at hand and ends with the same bytes. A clip that cannot be read is answered with nothing, as in
//! the reference, and with the reason; the same command tries it again.

use super::item::Item;
use super::voice::Voice;
use super::work::spread;
use crate::files::{read_jsonl, write_lines};
use crate::parts::Parts;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use utr_runtime::decode::KvPrecision;

/// One answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The item's.
    pub id: String,
    /// What the model said; nothing where there is an error.
    pub reply: String,
    /// Why there is no reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Which model answers, and how.
pub struct Plan<'a> {
    /// Bundle or Hugging Face folder.
    pub folder: &'a Path,
    /// How keys and values are stored.
    pub kv: KvPrecision,
    /// Threads.
    pub workers: usize,
    /// All that an answer depends on, in words.
    pub settings: &'a str,
}

/// Answers to all items, in their order.
///
/// # Errors
/// A model that cannot be opened or fails, a stop, and where no clip at all could be read.
pub fn collect(plan: &Plan, items: &[Item], path: &Path, stop: &AtomicBool) -> Result<Vec<Answer>> {
    let clips = by_clip(items);
    let mut known = known(path)?;
    let good = |clip: &[usize], known: &HashMap<String, Answer>| {
        clip.iter().all(|&i| known.get(&items[i].id).is_some_and(|answer| answer.error.is_none()))
    };
    if !clips.iter().all(|clip| good(clip, &known)) {
        let parts = Parts::open(path, plan.settings)?;
        for (number, clip) in clips.iter().enumerate().filter(|(_, clip)| good(clip, &known)) {
            if !parts.has(number) {
                let answers = clip.iter().filter_map(|&i| known.get(&items[i].id));
                parts.write(number, |out| write_lines(out, answers))?;
            }
        }
        let open: Vec<usize> = (0..clips.len()).filter(|&number| !parts.has(number)).collect();
        let start = || Voice::open(plan.folder, plan.kv);
        let failed = spread(open.len(), plan.workers, stop, start, |voice, place| {
            let number = open[place];
            let answers = ask(voice, items, &clips[number])?;
            if answers.iter().any(|answer| answer.error.is_some()) {
                // Not finished: a run that is killed now tries this clip again.
                return Ok(Some((number, answers)));
            }
            parts.write(number, |out| write_lines(out, &answers))?;
            Ok(None)
        })?;
        let failed: Vec<(usize, Vec<Answer>)> = failed.into_iter().flatten().collect();
        if failed.len() == clips.len()
            && let Some(reason) =
                failed.iter().flat_map(|(_, answers)| answers).find_map(|a| a.error.as_ref())
        {
            bail!("none of the {} clips could be asked about; the first: {reason}", clips.len());
        }
        for (number, answers) in &failed {
            parts.write(*number, |out| write_lines(out, answers))?;
        }
        parts.finish(0..clips.len())?;
        known = self::known(path)?;
    }
    // A stop may have come between the finished file and the removal of its parts.
    Parts::discard(path)?;
    let missing = |item: &Item| format!("{} holds no answer to {}; remove it", path.display(), item.id);
    items.iter().map(|item| known.remove(&item.id).with_context(|| missing(item))).collect()
}

fn known(path: &Path) -> Result<HashMap<String, Answer>> {
    let answers: Vec<Answer> = if path.exists() { read_jsonl(path)? } else { Vec::new() };
    Ok(answers.into_iter().map(|answer| (answer.id.clone(), answer)).collect())
}

/// Items about the same clip together, in the order of their first ones.
fn by_clip(items: &[Item]) -> Vec<Vec<usize>> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut clips: Vec<Vec<usize>> = Vec::new();
    for (number, item) in items.iter().enumerate() {
        let place = *places.entry(format!("{:?}", item.clip)).or_insert(clips.len());
        if place == clips.len() {
            clips.push(Vec::new());
        }
        clips[place].push(number);
    }
    clips
}

/// Answers to the questions about one clip.
fn ask(voice: &mut Voice, items: &[Item], clip: &[usize]) -> Result<Vec<Answer>> {
    let items: Vec<&Item> = clip.iter().map(|&number| &items[number]).collect();
    let nothing = |item: &Item, reason: String| Answer {
        id: item.id.clone(),
        reply: String::new(),
        error: Some(reason),
    };
    let Some(first) = items.first() else { return Ok(Vec::new()) };
    let seen = match first.clip.read() {
        Ok(seen) => seen,
        Err(error) => {
            let reason = format!("{error:#}");
            return Ok(items.into_iter().map(|item| nothing(item, reason.clone())).collect());
        }
    };
    voice.see(&seen.frames)?;
    let answer = |item: &&Item| {
        let text = match item.prompt.text(&seen) {
            Ok(text) => text,
            Err(error) => return Ok(nothing(item, format!("{error:#}"))),
        };
        match voice.reply(&text, item.max_tokens) {
            Ok(reply) => Ok(Answer { id: item.id.clone(), reply, error: None }),
            // Too long for this model: the next one may fit.
            Err(
                error @ (utr_runtime::error::Error::Argument(_) | utr_runtime::error::Error::Context { .. }),
            ) => Ok(nothing(item, error.to_string())),
            Err(error) => Err(error).with_context(|| format!("question {}", item.id)),
        }
    };
    items.iter().map(answer).collect()
}
