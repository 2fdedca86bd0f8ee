//! The card of a data set: what is in it, in numbers.
//!
//! Comes in: conversations, and what is known of their making. Goes out: counts and histograms as Markdown for people and as JSON for programs. Nothing is
//! judged.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utr_models::{Result, atomic};

use super::balance::Balance;
use super::conversation::Attribute;
use super::dialogue::Report;
use super::llava::Conversation;
use super::mix::Taken;
use super::trajectory::parse_all;

/// Bins of the histograms of positions.
const BINS: usize = 8;
/// Upper ends of the bins of answer lengths, in letters; the last bin is open.
const LETTERS: [usize; 7] = [10, 30, 100, 200, 400, 800, 1600];
/// Names that are listed.
const MOST_NAMES: usize = 20;
/// Letters of the longest bar.
const BAR: usize = 40;

/// What is known of a data set's making.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Of the conversation generator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
    /// Of the data sets that were mixed.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub taken: Vec<Taken>,
    /// Clips that could not be used, with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub skipped: Vec<(String, String)>,
}

/// Counts of a data set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// Records.
    pub conversations: usize,
    /// Questions with answers.
    pub turns: usize,
    /// Distinct clips.
    pub videos: usize,
    /// Distinct pictures.
    pub images: usize,
    /// Records without media.
    pub text_only: usize,
    /// Records by `meta.task`.
    pub tasks: BTreeMap<String, usize>,
    /// Records of the task `utr` by `meta.query_attribute`.
    pub attributes: BTreeMap<String, usize>,
    /// Records by number of turns.
    pub by_turns: BTreeMap<usize, usize>,
    /// Query frames by eighth of the clip.
    pub positions: [usize; BINS],
    /// Answers by number of letters: up to 10, 30, 100, 200, 400, 800, 1600, more.
    pub answer_letters: [usize; LETTERS.len() + 1],
    /// Mean letters of an answer.
    pub mean_answer_letters: f64,
    /// Trajectories by name.
    pub names: BTreeMap<String, usize>,
    /// Of its making.
    pub facts: Facts,
}

impl Card {
    /// Counts.
    pub fn of(conversations: &[Conversation], facts: Facts) -> Self {
        let mut card = Card { conversations: conversations.len(), facts, ..Card::default() };
        let (mut videos, mut images, mut letters) = (BTreeSet::new(), BTreeSet::new(), 0);
        for conversation in conversations {
            match (&conversation.image, &conversation.video) {
                (Some(image), _) => drop(images.insert(image)),
                (None, Some(video)) => drop(videos.insert(video)),
                (None, None) => card.text_only += 1,
            }
            let answers: Vec<&str> = conversation
                .conversations
                .iter()
                .filter(|m| matches!(m.from.as_str(), "gpt" | "assistant"))
                .map(|m| m.value.as_str())
                .collect();
            card.turns += answers.len();
            *card.by_turns.entry(answers.len()).or_default() += 1;
            for answer in answers {
                let length = answer.chars().count();
                letters += length;
                card.answer_letters[LETTERS.iter().filter(|most| length > **most).count()] += 1;
                for trajectory in parse_all(answer).unwrap_or_default() {
                    *card.names.entry(trajectory.name).or_default() += 1;
                }
            }
            card.meta(conversation.meta.as_ref());
        }
        (card.videos, card.images) = (videos.len(), images.len());
        card.mean_answer_letters = letters as f64 / card.turns.max(1) as f64;
        card
    }

    fn meta(&mut self, meta: Option<&Value>) {
        let text = |key: &str| meta.and_then(|m| m.get(key)).and_then(Value::as_str).map(String::from);
        let number = |key: &str| meta.and_then(|m| m.get(key)).and_then(Value::as_u64);
        *self.tasks.entry(text("task").unwrap_or_else(|| "unnamed".into())).or_default() += 1;
        let asks = text("task").is_some_and(|task| task == "utr");
        if let Some(attribute) = text("query_attribute").filter(|_| asks) {
            *self.attributes.entry(attribute).or_default() += 1;
        }
        if let (Some(frame), Some(frames)) = (number("query_frame"), number("frames"))
            && frame >= 1
            && frames >= 1
        {
            self.positions[((frame - 1) as usize * BINS / frames as usize).min(BINS - 1)] += 1;
        }
    }

    /// Writes `PATH.md` and `PATH.json`.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let beside = |ending: &str| {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            path.with_file_name(format!("{name}.{ending}"))
        };
        let json =
            serde_json::to_string_pretty(self).map_err(|e| utr_models::Error::format(path, e.to_string()))?;
        atomic::write(&beside("json"), format!("{json}\n").as_bytes())?;
        atomic::write(&beside("md"), self.markdown().as_bytes())
    }

    /// For people.
    pub fn markdown(&self) -> String {
        let mut text = String::from("# Data card\n\n");
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{} conversations with {} turns over {} clips and {} pictures, {} without media. An answer has {:.0} letters in the mean.",
            self.conversations,
            self.turns,
            self.videos,
            self.images,
            self.text_only,
            self.mean_answer_letters
        );
        let words = |map: &BTreeMap<String, usize>| map.iter().map(|(k, n)| (k.clone(), *n)).collect();
        histogram(&mut text, "Conversations by task", words(&self.tasks));
        histogram(&mut text, "By query attribute", words(&self.attributes));
        let part = |i: usize| format!("{} to {} %", i * 100 / BINS, (i + 1) * 100 / BINS);
        let positions = self.positions.iter().enumerate().map(|(i, n)| (part(i), *n)).collect();
        histogram(&mut text, "Query frame, by its place in the clip", positions);
        let length = |i: usize| match LETTERS.get(i) {
            Some(most) => format!("up to {most}"),
            None => "more".to_owned(),
        };
        let lengths = self.answer_letters.iter().enumerate().map(|(i, n)| (length(i), *n)).collect();
        histogram(&mut text, "Answers by number of letters", lengths);
        let turns = self.by_turns.iter().map(|(turns, n)| (turns.to_string(), *n)).collect();
        histogram(&mut text, "Conversations by number of turns", turns);
        let mut names: Vec<(String, usize)> = words(&self.names);
        names.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        let all = names.len();
        names.truncate(MOST_NAMES);
        histogram(&mut text, &format!("Trajectories by name ({} of {all} names)", names.len()), names);
        self.facts.markdown(&mut text);
        text
    }
}

impl Facts {
    fn markdown(&self, text: &mut String) {
        if let Some(Report { clips, silent, tracks: t, unsampled, ambiguous, balance, .. }) = &self.report {
            let _ = writeln!(
                text,
                "\n## Tracks\n\n{clips} clips, {} of them without a conversation{}.",
                silent.len(),
                if silent.is_empty() { String::new() } else { format!(": {}", silent.join(", ")) }
            );
            let rows = [
                ("kept", t.kept),
                ("dropped: seen in too few frames", t.short),
                ("dropped: too small a share of the clip", t.brief),
                ("dropped: too small or too large", t.size),
                ("dropped: not sure enough", t.score),
                ("dropped: neither moves nor acts", t.still),
                ("dropped: too many gaps", t.fragmented),
                ("kept, but on fewer than two sampled frames", *unsampled),
            ];
            histogram(text, "What became of them", rows.map(|(w, n)| (w.to_owned(), n)).to_vec());
            balance.markdown(text, *ambiguous);
        }
        if !self.taken.is_empty() {
            let _ = writeln!(
                text,
                "\n## Mixed from\n\n| data set | rule | records | taken | duplicates left out |"
            );
            let _ = writeln!(text, "|---|---|---:|---:|---:|");
            for Taken { path, strategy, records, taken, duplicates } in &self.taken {
                let _ = writeln!(text, "| {path} | {strategy} | {records} | {taken} | {duplicates} |");
            }
        }
        if !self.skipped.is_empty() {
            let _ = writeln!(text, "\n## Clips left out\n");
            for (video, reason) in &self.skipped {
                let _ = writeln!(text, "* {video}: {reason}");
            }
        }
    }
}

impl Balance {
    fn markdown(&self, text: &mut String, given_up: usize) {
        let _ = writeln!(
            text,
            "\n## Balance\n\nOver all queries, later turns too; {given_up} more were given up because nothing singled the object out or fewer than two boxes could be listed."
        );
        let named =
            |map: &BTreeMap<Attribute, usize>| map.iter().map(|(a, n)| (a.word().to_owned(), *n)).collect();
        histogram(text, "Attributes", named(&self.attributes));
        let quarters =
            self.quarters.iter().enumerate().map(|(i, n)| (format!("quarter {}", i + 1), *n)).collect();
        histogram(text, "Query frame", quarters);
        let boxes = self.boxes.iter().map(|(most, n)| (format!("up to {most}"), *n)).collect();
        histogram(text, "Boxes that an answer may list", boxes);
        histogram(
            text,
            "Tracks that an attribute singled out in no frame that was looked at",
            named(&self.undecided),
        );
    }
}

/// A table with bars; nothing where all counts are zero.
fn histogram(text: &mut String, title: &str, rows: Vec<(String, usize)>) {
    let most = rows.iter().map(|r| r.1).max().unwrap_or(0);
    if most == 0 {
        return;
    }
    let _ = writeln!(text, "\n## {title}\n\n| | | |\n|---|---:|---|");
    for (word, count) in rows {
        let bar = "█".repeat((count * BAR).div_ceil(most));
        let _ = writeln!(text, "| {} | {count} | {bar} |", word.replace('|', "\\|"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queries::llava::conversation;
    use crate::sample::Turn;

    #[test]
    fn everything_is_counted_once() {
        let turn = |answer: &str| Turn { question: "?".into(), answer: answer.into() };
        let utr = conversation(
            "a",
            "a.mp4",
            &[turn("red ball<id1>frame1:[0,0,1,1]</id1> moves."), turn("yes")],
            Some(
                serde_json::json!({"task": "utr", "query_attribute": "action", "query_frame": 32, "frames": 32}),
            ),
        );
        let plain = conversation("b", "a.mp4", &[turn("one two three")], None);
        let card = Card::of(&[utr, plain], Facts::default());
        assert_eq!((card.conversations, card.turns, card.videos), (2, 3, 1));
        assert_eq!((card.positions[7], card.answer_letters[0], card.answer_letters[2]), (1, 1, 1));
        assert_eq!((card.names["red ball"], card.tasks["unnamed"], card.by_turns[&2]), (1, 1, 1));
        let text = card.markdown();
        assert!(
            text.contains("| action | 1 |") && text.contains("2 conversations with 3 turns over 1 clips")
        );
    }
}
