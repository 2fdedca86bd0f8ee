//! Data on disk: what a stage of a recipe trains on in place of the world.
//!
//! Comes in: the `data` of a stage. Goes out: the micro-batches of an update, ready for the network. [`corpus`] reads conversations, [`order`] says which of
//! them a micro-batch holds, [`media`] reads their pictures and clips, [`compose`] makes examples, and [`feed`] does all that ahead of the trainer.
//! What a micro-batch holds follows from the files and the recipe's seed alone. Nothing is trained here.

pub mod compose;
pub mod corpus;
pub mod feed;
pub mod media;
pub mod order;

use super::recipe::Recipe;
use anyhow::{Context, Result, ensure};
use corpus::Corpus;
use order::Order;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How pictures are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageMode {
    /// Squashed to the tower's size.
    #[default]
    Square,
    /// Whole and in tiles, at about nine tiles' worth of tokens at most (reference.md §2.6).
    #[serde(rename = "anyres_max_9")]
    AnyresMax9,
}

/// The text around the media.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Template {
    /// The checkpoint's chat template.
    #[default]
    Chat,
    /// The media and the answer, nothing else: captions for stage 1.
    Plain,
}

/// What counts alike in an update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Average {
    /// Micro-batches, as in the reference's trainer; within one, its targets.
    #[default]
    MicroBatch,
    /// Targets.
    Target,
}

/// Conversations with their media.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// LLaVA-NeXT's mixture file (YAML); this or `conversations`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mixture: Option<PathBuf>,
    /// A file of LLaVA conversations (JSON or JSON lines).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversations: Option<PathBuf>,
    /// Folder that paths of pictures start from, as seen from the working directory.
    #[serde(default = "here")]
    pub image_root: PathBuf,
    /// Folder that paths of clips start from.
    #[serde(default = "here")]
    pub video_root: PathBuf,
    /// Frames taken per second of a clip.
    #[serde(default = "one")]
    pub fps: f64,
    /// Most frames of a clip; from longer ones so many are taken evenly.
    #[serde(default = "window", alias = "frames_upbound")]
    pub max_frames: usize,
    /// How a single picture is shown.
    #[serde(default)]
    pub image: ImageMode,
    /// The text around.
    #[serde(default)]
    pub template: Template,
    /// Micro-batches of samples of one kind (with media, text alone) and of similar length; else all are shuffled.
    #[serde(default = "yes")]
    pub group_by_length: bool,
    /// What counts alike in an update.
    #[serde(default)]
    pub average: Average,
    /// Rows, text and media, after which a sample is cut; the network's longest sequence where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<usize>,
    /// SHA-256 of the conversations as they were read; other ones are refused. A run writes it into its own copy of the recipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

fn here() -> PathBuf {
    PathBuf::from(".")
}

fn one() -> f64 {
    1.0
}

fn window() -> usize {
    32
}

fn yes() -> bool {
    true
}

/// More frames than this are a mistake.
const MOST_FRAMES: usize = 1024;

impl Data {
    /// The file that names the conversations.
    pub fn file(&self) -> Option<&Path> {
        self.mixture.as_deref().or(self.conversations.as_deref())
    }

    /// What is out of range, in words.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.mixture.is_some() == self.conversations.is_some() {
            return Err("data: name one of `mixture` (YAML) and `conversations` (JSON)".into());
        }
        if !(self.fps > 0.0 && self.fps.is_finite()) {
            return Err(format!("data: fps is {}; it must be above zero", self.fps));
        }
        if !(1..=MOST_FRAMES).contains(&self.max_frames) {
            return Err(format!("data: max_frames is {}; it must be 1 to {MOST_FRAMES}", self.max_frames));
        }
        match self.max_tokens {
            Some(0) => Err("data: max_tokens must be above zero".into()),
            _ => Ok(()),
        }
    }
}

/// The data of each stage of a recipe; nothing for stages on the world.
pub type Corpora = Vec<Option<Arc<Corpus>>>;

/// Reads the data of all stages, and writes into the recipe what follows from them: the updates that `epochs` are, and the digests, so that a run is tied to
/// its data as it is to its recipe.
///
/// # Errors
/// As [`Corpus::load`], with the stage; a folder of media that is not there.
pub fn settle(recipe: &mut Recipe) -> Result<Corpora> {
    let seed = recipe.seed;
    let mut corpora = Corpora::new();
    for stage in &mut recipe.stages {
        let Some(data) = &mut stage.data else {
            corpora.push(None);
            continue;
        };
        let at = || format!("in the data of stage {}", stage.name);
        for root in [&data.image_root, &data.video_root] {
            ensure!(root.is_dir(), "{}: there is no folder {}", at(), root.display());
        }
        let corpus = Corpus::load(data, seed).with_context(at)?;
        data.sha256 = Some(corpus.sha256.clone());
        if let Some(epochs) = stage.epochs.take() {
            stage.steps = Order::updates(corpus.records.len(), stage.micro_batch * stage.accumulate, epochs);
        }
        corpora.push(Some(Arc::new(corpus)));
    }
    Ok(corpora)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_refused_with_words() {
        let check =
            |text: &str| toml::from_str::<Data>(text).map_err(|e| e.to_string()).and_then(|d| d.check());
        assert_eq!(check("mixture = 'sft.yaml'\nframes_upbound = 16\nimage = 'anyres_max_9'"), Ok(()));
        for (text, words) in [
            ("", "name one of"),
            ("mixture = 'a'\nconversations = 'b'", "name one of"),
            ("mixture = 'a'\nfps = 0", "fps"),
            ("mixture = 'a'\nmax_frames = 0", "1 to 1024"),
            ("mixture = 'a'\nmax_tokens = 0", "max_tokens"),
            ("mixture = 'a'\nimage = 'anyres'", "anyres_max_9"),
            ("mixture = 'a'\ntemplate = 'vicuna'", "plain"),
            ("mixture = 'a'\nfolder = 'b'", "folder"),
        ] {
            let reason = check(text).unwrap_err();
            assert!(reason.contains(words), "{text}: {reason}");
        }
    }
}
