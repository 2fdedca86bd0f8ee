//! The world suite: minimal pairs of clips with exact truth.
//!
//! Comes in: a bundle (or Hugging Face folder) and a suite of minimal pairs. Goes out: `predictions.jsonl`, `results.json` and `results.md`:
//! item accuracy, pair accuracy (both twins right) with 95 % Wilson intervals over pairs, per skill, beside chance and the ceilings of the suite. Replies are
//! generated greedily by the runtime's own pipeline and graded leniently in form.

use super::table::{markdown_share, written};
use super::voice::{Voice, filmed};
use super::work::spread;
use super::{EvalArgs, FRAMES, named, streams};
use crate::files::{write_atomic, write_jsonl};
use crate::stats::wilson;
use crate::world::ceilings::Ceilings;
use crate::world::questions::Kind as Form;
use crate::world::suite::{Suite, SuitePair};
use crate::world::{Posed, Renderer, Script, Skill, grade};
use anyhow::{Context, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use utr_runtime::capture::{Frame, Stamp};
use utr_runtime::cli::Mode;

/// Side of the drawn frames in pixels; the runtime resizes as the bundle asks.
const FRAME_SIZE: u32 = 64;
/// Longest reply in tokens.
pub(super) const REPLY_TOKENS: usize = 32;

/// A share with its 95 % Wilson interval.
#[derive(Clone, Copy, Debug, Serialize, PartialEq)]
pub struct Share {
    /// Right ones.
    pub right: usize,
    /// All.
    pub n: usize,
    /// `right / n`.
    pub share: f64,
    /// Interval.
    pub interval: [f64; 2],
}

impl Share {
    /// Pairs with both twins right.
    fn pairs(right: usize, n: usize) -> Self {
        Self { right, n, share: right as f64 / n.max(1) as f64, interval: wilson(right as f64, n) }
    }

    /// Single items of `pairs` pairs. Twins are not independent, pairs are: the interval is that of as many draws.
    fn items(right: usize, pairs: usize) -> Self {
        let n = 2 * pairs;
        Self { right, n, share: right as f64 / n.max(1) as f64, interval: wilson(right as f64 / 2.0, pairs) }
    }
}

/// One skill's row.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The skill.
    pub skill: Skill,
    /// Decided by the order of frames alone.
    pub order: bool,
    /// Items right.
    pub items: Share,
    /// Pairs with both twins right.
    pub pairs: Share,
    /// Accuracy of a coin over the item's and its twin's answer.
    pub chance: Option<f64>,
    /// Best single frame, best 4 frames, bag of frames.
    pub ceilings: Option<[f64; 3]>,
    /// Items right by the form of the question: open, yes/no, multiple choice.
    pub forms: [Share; 3],
}

/// A run's results.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// What was scored.
    pub model: String,
    /// Suite name and hash.
    pub suite: [String; 2],
    /// Per skill.
    pub skills: Vec<Row>,
    /// Over all items of order skills: items, pairs, mean single-frame ceiling.
    pub order: (Share, Share, Option<f64>),
    /// Items of order skills right by the form of the question: open, yes/no, multiple choice.
    pub order_forms: [Share; 3],
    /// Over all items: items, pairs.
    pub all: (Share, Share),
    /// Items of pairs whose combination training never saw.
    pub held_out: Share,
}

#[derive(Serialize)]
struct Prediction {
    id: String,
    skill: Skill,
    form: Form,
    held_out: bool,
    question: String,
    answer: String,
    reply: String,
    right: bool,
}

/// What only the world suite knows.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub struct WorldArgs {
    /// Folder that `utr-train world --suite DATA` wrote: frames come from its files, decoded as `utr ask` decodes them, in place of
    /// exact pixels drawn in memory
    #[arg(long, value_name = "DIR")]
    pub clips: Option<PathBuf>,
    /// Show the suite's streams frame by frame in these window modes, in place of its clips, and compare
    #[arg(long, value_name = "MODE", value_delimiter = ',', conflicts_with = "clips")]
    pub window_mode: Vec<Mode>,
    /// Write a copy of the bundle there whose manifest carries each mode's accuracy and recommends one
    #[arg(long, value_name = "DIR", requires_all = ["window_mode", "bundle"])]
    pub recommend: Option<PathBuf>,
    /// Only the first N pairs of each skill
    #[arg(long, value_parser = super::at_least_one)]
    pub pairs: Option<usize>,
}

/// Scores the clips, or the streams in several window modes.
pub(super) fn run(args: &EvalArgs, stop: &AtomicBool) -> Result<()> {
    if args.world.window_mode.is_empty() { score(args, stop).map(drop) } else { compare_modes(args, stop) }
}

/// Scores streams in several window modes.
fn compare_modes(args: &EvalArgs, stop: &AtomicBool) -> Result<()> {
    let folder = args.folder()?;
    let suite = Suite::load(&args.data)?;
    std::fs::create_dir_all(&args.output).with_context(|| format!("creating {}", args.output.display()))?;
    let pairs = args.world.pairs.unwrap_or(suite.pairs_per_skill).min(suite.pairs_per_skill);
    let modes: Vec<_> = args.world.window_mode.iter().map(|mode| (*mode).into()).collect();
    let plan =
        streams::Plan { folder, suite: &suite, modes: &modes, kv: args.kv, pairs, workers: args.workers };
    let modes = streams::run(&plan, &args.output, stop)?;
    if let Some(to) = &args.world.recommend {
        streams::recommend(folder, &modes, to)?;
    }
    Ok(())
}

/// Scores a suite's clips.
pub fn score(args: &EvalArgs, stop: &AtomicBool) -> Result<Results> {
    let folder = args.folder()?;
    let suite = &Suite::load(&args.data)?;
    let beside = args.data.with_extension("ceilings.json");
    let ceilings = if beside.exists() { Some(Ceilings::load(&beside, suite)?) } else { None };
    if ceilings.is_none() {
        eprintln!(
            "no ceilings: {} is missing; `utr-train world --suite {} --ceilings --output {}` measures them",
            beside.display(),
            args.data.display(),
            beside.display()
        );
    }
    std::fs::create_dir_all(&args.output).with_context(|| format!("creating {}", args.output.display()))?;
    let count = args.world.pairs.unwrap_or(suite.pairs_per_skill).min(suite.pairs_per_skill);
    let pairs: Vec<(Skill, usize)> = suite.skills.iter().flat_map(|s| (0..count).map(|n| (*s, n))).collect();
    let predictions = spread(
        pairs.len(),
        args.workers,
        stop,
        || Voice::open(folder, args.kv),
        |voice, place| {
            let (skill, n) = pairs[place];
            predict(voice, args.world.clips.as_deref(), &suite.pair(skill, n))
        },
    )?;
    let name = named(folder);
    let results = tabulate(name, suite, &predictions, ceilings.as_ref());
    write_jsonl(&args.output.join("predictions.jsonl"), predictions.iter().flatten())?;
    let write = |name: &str, text: String| {
        write_atomic(&args.output.join(name), |out| out.write_all(text.as_bytes()))
            .map_err(anyhow::Error::from)
    };
    write("results.json", serde_json::to_string_pretty(&results)? + "\n")?;
    write("results.md", markdown(&results))?;
    println!("{}", markdown(&results));
    Ok(results)
}

/// Replies to both items of a pair.
fn predict(voice: &mut Voice, clips: Option<&Path>, pair: &SuitePair) -> Result<[Prediction; 2]> {
    let mut told = |posed: &Posed, twin: &str| {
        let frames = match clips {
            Some(folder) => film(folder, &format!("{}-{twin}", pair.id))?,
            None => frames(posed),
        };
        answer(voice, pair, posed, &frames)
    };
    let [a, b] = &pair.twins;
    Ok([told(a, "a")?, told(b, "b")?])
}

/// The frames of an item as the runtime captures them.
pub fn frames(posed: &Posed) -> Vec<Arc<Frame>> {
    drawn(&posed.script, 0, FRAMES)
}

/// The steps `first..first + count` of a clip as the runtime captures frames.
pub fn drawn(script: &Script, first: usize, count: usize) -> Vec<Arc<Frame>> {
    let mut renderer = Renderer::new(script, FRAME_SIZE);
    let captured = Instant::now();
    let frame = |t: usize| {
        let stamp = Stamp { index: t, pts_ms: t as u64 * 250 };
        Arc::new(Frame { stamp, captured, image: renderer.frame((first + t) as f32) })
    };
    (0..count).map(frame).collect()
}

/// The frames of the clip called `id` of a world folder, sampled uniformly from its file.
fn film(folder: &Path, id: &str) -> Result<Vec<Arc<Frame>>> {
    let names = [".mp4", ".webm", ""].map(|ending| folder.join(format!("clips/{id}{ending}")));
    let path = names.iter().find(|path| path.exists()).with_context(|| {
        format!(
            "{} has no clip {id}; `utr-train world --suite` writes the clips of a suite",
            folder.display()
        )
    })?;
    Ok(filmed(path)?.frames)
}

fn answer(voice: &mut Voice, pair: &SuitePair, posed: &Posed, frames: &[Arc<Frame>]) -> Result<Prediction> {
    voice.see(frames)?;
    let reply = voice.reply(&posed.item.question, REPLY_TOKENS)?;
    Ok(Prediction {
        id: pair.id.clone(),
        skill: pair.skill,
        form: posed.item.kind,
        held_out: pair.held_out,
        question: posed.item.question.clone(),
        answer: posed.item.answer.clone(),
        right: grade(&posed.item, &reply),
        reply,
    })
}

fn shares<'a>(pairs: impl Iterator<Item = &'a [Prediction; 2]> + Clone) -> (Share, Share) {
    let n = pairs.clone().count();
    let right = pairs.clone().flatten().filter(|p| p.right).count();
    (Share::items(right, n), Share::pairs(pairs.filter(|pair| pair.iter().all(|p| p.right)).count(), n))
}

/// Items right by the form of their question; twins share theirs.
fn forms<'a>(pairs: impl Iterator<Item = &'a [Prediction; 2]> + Clone) -> [Share; 3] {
    Form::ALL.map(|form| shares(pairs.clone().filter(move |p| p[0].form == form)).0)
}

fn tabulate(
    model: String,
    suite: &Suite,
    predictions: &[[Prediction; 2]],
    ceilings: Option<&Ceilings>,
) -> Results {
    let of = |skill: Skill| predictions.iter().filter(move |p| p[0].skill == skill);
    let row = |skill: &Skill| {
        let (items, pairs) = shares(of(*skill));
        let known = ceilings.and_then(|c| c.skill(*skill));
        let ceilings = known.map(|c| [c.single.accuracy, c.four.accuracy, c.bag.accuracy]);
        Row {
            skill: *skill,
            order: skill.is_order(),
            items,
            pairs,
            chance: known.map(|c| c.chance),
            ceilings,
            forms: forms(of(*skill)),
        }
    };
    let skills: Vec<Row> = suite.skills.iter().map(row).collect();
    let singles: Vec<f64> = skills.iter().filter(|r| r.order).filter_map(|r| Some(r.ceilings?[0])).collect();
    let single = (!singles.is_empty()).then(|| singles.iter().sum::<f64>() / singles.len() as f64);
    let (items, pairs) = shares(predictions.iter().filter(|p| p[0].skill.is_order()));
    let order_forms = forms(predictions.iter().filter(|p| p[0].skill.is_order()));
    let held_out = shares(predictions.iter().filter(|p| p[0].held_out)).0;
    let all = shares(predictions.iter());
    Results {
        model,
        suite: [suite.name.clone(), suite.hash()],
        skills,
        order: (items, pairs, single),
        order_forms,
        all,
        held_out,
    }
}

/// The table people read.
fn markdown(results: &Results) -> String {
    let interval = |s: &Share| markdown_share(s.share, s.interval);
    let mut text = String::from(
        "| skill | order | items % [95 %] | pairs % [95 %] | chance | best frame | best 4 | bag | open | yes/no | choice |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let by_form = |forms: &[Share; 3]| forms.each_ref().map(|s| written(s.share)).join(" | ");
    for row in &results.skills {
        let known = |i: usize| row.ceilings.map_or("-".into(), |c| written(c[i]));
        text += &format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            row.skill.word(),
            if row.order { "yes" } else { "" },
            interval(&row.items),
            interval(&row.pairs),
            row.chance.map_or("-".into(), written),
            known(0),
            known(1),
            known(2),
            by_form(&row.forms)
        );
    }
    let (items, pairs, single) = &results.order;
    let single = single.map_or("-".into(), written);
    text += &format!(
        "| **order skills** | yes | {} | {} | | {single} | | | {} |\n",
        interval(items),
        interval(pairs),
        by_form(&results.order_forms)
    );
    text += &format!(
        "| **all skills** | | {} | {} | | | | | | | |\n",
        interval(&results.all.0),
        interval(&results.all.1)
    );
    text += &format!(
        "\nHeld-out combinations: {} of {} items.\n",
        interval(&results.held_out),
        results.held_out.n
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_what_is_independent() {
        let (items, pairs) = (Share::items(120, 100), Share::pairs(60, 100));
        assert_eq!((items.n, items.share, pairs.n, pairs.share), (200, 0.6, 100, 0.6));
        assert_eq!(items.interval, pairs.interval);
    }
}
