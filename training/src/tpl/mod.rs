//! Temporal perplexity: how much a sample, or a model, needs all frames rather than one.
//!
//! Comes in: a model (Hugging Face folder), LLaVA conversations with their clips. Goes out: one line per sample with the negative
//! log-likelihood of its answers given all frames and given one, and TPL = ppl(one frame) - ppl(all frames); higher means that the
//! sample needs its frames. The paper gives no equation; definitions are those of this project's file format and of reference.md §8. Nothing is trained.

use crate::eval::benchmark::fingerprint;
use crate::files::{distinct, hexadecimal, read_jsonl, write_jsonl, write_lines};
use crate::parts::{Parts, Shard, generator};
use crate::queries::llava::{self, Conversation, Media, Record};
use crate::run::opened;
use crate::sample::Sample;
use crate::train::encode::{Encoder, Masking};
use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device};
use rand::Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use utr_models::{DeviceChoice, Network, RgbFrame, atomic};
use utr_runtime::capture::CaptureOptions;
use utr_runtime::sample::{Sampling, sample};
use utr_runtime::source::Source;

pub mod world;

/// What "one frame" is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Single {
    /// The clip reduced to that frame.
    #[default]
    Reduce,
    /// That frame repeated to the full length, so that length alone cannot raise TPL.
    Repeat,
}

/// Scores every sample of a data set.
#[derive(Clone, Debug, clap::Args)]
pub struct TplArgs {
    /// Hugging Face LLaVA-OneVision folder that scores
    #[arg(long)]
    pub model: PathBuf,
    /// LLaVA conversations (JSON or JSON lines)
    #[arg(long, required_unless_present = "world")]
    pub data: Option<PathBuf>,
    /// Folder that the data's media paths start from
    #[arg(long, required_unless_present = "world")]
    pub media_root: Option<PathBuf>,
    /// In place of data: UTR queries, captions and skill questions of 200 clips of the world each, as `run` scores its model; OUTPUT is one JSON list
    #[arg(long, conflicts_with_all = ["data", "media_root", "frames", "draws", "seed", "single", "shard", "select"])]
    pub world: bool,
    /// Frames taken uniformly from each clip
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub frames: u8,
    /// Single frames drawn per sample; their likelihoods are averaged
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub draws: u8,
    /// Decides which single frames are drawn
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// What one frame is
    #[arg(long, value_enum, default_value_t)]
    pub single: Single,
    /// Only part I of N of the samples, such as 0/4, so that several machines can share them
    #[arg(long, value_name = "I/N", default_value = "0/1")]
    pub shard: Shard,
    /// Where it runs: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub device: DeviceChoice,
    /// Where the scores go, one JSON line for each sample
    #[arg(long)]
    pub output: PathBuf,
    /// Also writes the samples with the highest TPL, such as `top:30%` or `top:5000`
    #[arg(long, value_name = "top:N|top:P%")]
    pub select: Option<String>,
    /// Where they go; OUTPUT with the ending `.selected.jsonl` where absent
    #[arg(long, requires = "select")]
    pub select_output: Option<PathBuf>,
}

/// One sample's scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The sample.
    pub id: String,
    /// Tokens of the answers with their end-of-turn tokens.
    pub answer_tokens: usize,
    /// Mean negative log-likelihood of those tokens given all frames.
    pub nll_full: f64,
    /// The same given one frame, mean over the draws.
    pub nll_single: f64,
    /// Positions of the drawn frames, from 0.
    pub single_frames: Vec<usize>,
    /// exp(nll_single) - exp(nll_full).
    pub tpl: f64,
    /// nll_single - nll_full.
    pub tpl_log: f64,
    /// exp(nll_single) / exp(nll_full).
    pub tpl_ratio: f64,
}

/// A model ready to score.
pub struct Scorer {
    network: Network,
    encoder: Encoder,
}

impl Scorer {
    /// Loads a Hugging Face folder in f32.
    pub fn load(model: &Path, device: &Device) -> Result<Self> {
        let network = Network::load(model, DType::F32, device)?;
        let encoder = Encoder::load(model, &network.config, Masking::Answer, 0.0)?;
        Ok(Self { network, encoder })
    }

    /// Mean negative log-likelihood over all answer tokens of the sample, and their number.
    pub fn nll(&self, sample: &Sample) -> Result<(f64, usize)> {
        let example = self.encoder.example(sample, &self.network.vision)?;
        let counts = example.branches.iter().map(|b| b.weights.iter().filter(|w| **w > 0.0).count());
        let (counts, total): (Vec<usize>, usize) = (counts.clone().collect(), counts.sum());
        let means = self.network.nll(std::slice::from_ref(&example))?;
        let sum: f64 = means.iter().skip(1).zip(&counts).map(|(mean, n)| mean * *n as f64).sum();
        ensure!(sum.is_finite(), "the model gives no finite likelihood for sample {}", sample.id);
        Ok((sum / total as f64, total))
    }

    /// Scores a sample with `draws` single frames chosen by `seed` and the sample's name.
    pub fn score(&self, sample: &Sample, single: Single, draws: usize, seed: u64) -> Result<Score> {
        let (nll_full, answer_tokens) = self.nll(sample)?;
        let mut rng = generator(seed, &sample.id);
        let single_frames: Vec<usize> =
            (0..draws).map(|_| rng.random_range(0..sample.frames.len())).collect();
        let mut sum = 0.0;
        for position in &single_frames {
            let frame = sample.frames.get(*position).context("a drawn frame lies outside its clip")?;
            let count = if single == Single::Repeat { sample.frames.len() } else { 1 };
            let frames: Vec<RgbFrame> = vec![frame.clone(); count];
            sum += self.nll(&Sample { frames, ..sample.clone() })?.0;
        }
        let nll_single = sum / draws as f64;
        Ok(Score {
            id: sample.id.clone(),
            answer_tokens,
            nll_full,
            nll_single,
            single_frames,
            tpl: nll_single.exp() - nll_full.exp(),
            tpl_log: nll_single - nll_full,
            tpl_ratio: (nll_single - nll_full).exp(),
        })
    }
}

/// Runs `utr-train tpl`; `stop` ends it early, an error.
pub fn run(args: &TplArgs, stop: &AtomicBool) -> Result<()> {
    if let (Some(data), Some(media_root)) = (&args.data, &args.media_root) {
        return conversations(args, data, media_root);
    }
    let device = opened(args.device, None)?;
    let kinds = world::compare_tpl(&args.model, &device, world::SAMPLES, &world::Clips::full(), stop)?;
    let text = serde_json::to_string_pretty(&kinds)? + "\n";
    print!("{text}");
    Ok(atomic::write(&args.output, text.as_bytes())?)
}

/// Scores data on disk.
fn conversations(args: &TplArgs, data: &Path, media_root: &Path) -> Result<()> {
    distinct(&[data], &args.output)?;
    if let Some(path) = &args.select_output {
        distinct(&[data], path)?;
    }
    let all = llava::read(data)?;
    ensure!(!all.is_empty(), "{} holds no conversation", data.display());
    let mine = args.shard.range(all.len());
    let mine: Vec<(usize, &Record)> = all.iter().enumerate().filter(|(i, _)| mine.contains(i)).collect();
    // Text and single pictures have no frames to compare.
    let (still, records): (Vec<_>, Vec<_>) =
        mine.into_iter().partition(|(_, r)| !matches!(r.media, Media::Video(_)));
    ensure!(
        args.select.is_none() || args.shard.is_whole(),
        "--select ranks all samples, --shard sees a part of them; score the parts, join their files, and select from the whole data"
    );
    let keep = args.select.as_deref().map(|rule| selected(rule, records.len())).transpose()?;
    let device = opened(args.device, None)?;
    let scorer = Scorer::load(&args.model, &device)?;
    let parts = Parts::open(&args.output, &settings(args, data, media_root, &device)?)?;
    let bar = indicatif::ProgressBar::new(records.len() as u64);
    for (part, records) in records.chunks(PART).enumerate().filter(|(part, _)| !parts.has(*part)) {
        bar.set_position((part * PART) as u64);
        let mut scores = Vec::with_capacity(PART);
        for (_, record) in records {
            let scored = load(record, media_root, usize::from(args.frames))
                .and_then(|sample| scorer.score(&sample, args.single, usize::from(args.draws), args.seed));
            match scored {
                Ok(score) => scores.push(score),
                Err(error) => bar.suspend(|| eprintln!("left out: {error:#}")),
            }
            bar.inc(1);
        }
        parts.write(part, |out| write_lines(out, &scores))?;
    }
    bar.finish_and_clear();
    parts.finish(0..records.len().div_ceil(PART))?;
    let scores: Vec<Score> = read_jsonl(&args.output)?;
    ensure!(
        scores.len() <= records.len(),
        "{} holds more scores than {} has records: the data changed while scoring; score it anew",
        args.output.display(),
        data.display()
    );
    let failed = records.len() - scores.len();
    if !still.is_empty() {
        eprintln!("{} samples show no clip and were left out", still.len());
    }
    // Scores stand in the order of their records, of which some may be missing.
    let mut rest = records.iter();
    let places: Vec<usize> =
        scores.iter().filter_map(|s| rest.find(|(_, record)| record.id == s.id).map(|(i, _)| *i)).collect();
    let mean = |f: fn(&Score) -> f64| scores.iter().map(f).sum::<f64>() / scores.len().max(1) as f64;
    println!(
        "{} samples, mean TPL {:.3}, mean log TPL {:.3}",
        scores.len(),
        mean(|s| s.tpl),
        mean(|s| s.tpl_log)
    );
    if let Some(keep) = keep {
        let path = args.select_output.clone().unwrap_or_else(|| args.output.with_extension("selected.jsonl"));
        let kept = write_selected(data, &path, &scores, &places, keep)?;
        println!("{kept} samples with the highest TPL in {}", path.display());
    }
    ensure!(
        failed == 0,
        "{failed} samples could not be scored (named above); the others are in {}",
        args.output.display()
    );
    Ok(())
}

/// Samples that a stop costs at most.
const PART: usize = 64;

/// All that decides the scores, in words.
fn settings(args: &TplArgs, data: &Path, media_root: &Path, device: &Device) -> Result<String> {
    let TplArgs { model, frames, draws, seed, single, shard, .. } = args;
    let bytes = std::fs::read(data).with_context(|| format!("reading {}", data.display()))?;
    // A GPU rounds otherwise. Parts that say nothing are the CPU's, as those from before this was written down.
    let place = if device.is_cpu() { "" } else { ", on cuda" };
    Ok(format!(
        "model {} ({}), data {} ({}), media {}, {frames} frames, {draws} draws, seed {seed}, {single:?}, shard {shard}{place}",
        model.display(),
        fingerprint(model)?,
        data.display(),
        hexadecimal(&Sha256::digest(bytes)),
        media_root.display()
    ))
}

/// How many samples a rule keeps of `total`; percentages round up.
fn selected(rule: &str, total: usize) -> Result<usize> {
    let amount =
        rule.strip_prefix("top:").with_context(|| format!("--select {rule}: write top:N or top:P%"))?;
    let count = match amount.strip_suffix('%') {
        Some(percent) => {
            let percent: f64 =
                percent.parse().with_context(|| format!("--select {rule}: {percent} is not a number"))?;
            ensure!((0.0..=100.0).contains(&percent), "--select {rule}: a percentage lies between 0 and 100");
            (percent * total as f64 / 100.0).ceil() as usize
        }
        None => amount.parse().with_context(|| format!("--select {rule}: {amount} is not a whole number"))?,
    };
    Ok(count.min(total))
}

/// Writes the conversations of the `keep` highest scores in the order of the data; `places` says where each scored one stands there.
fn write_selected(
    data: &Path,
    path: &Path,
    scores: &[Score],
    places: &[usize],
    keep: usize,
) -> Result<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].tpl.total_cmp(&scores[*a].tpl));
    order.truncate(keep);
    order.sort_unstable();
    let conversations: Vec<Conversation> = llava::read_raw(data)?;
    let chosen = order.into_iter().filter_map(|i| {
        let mut conversation = conversations.get(*places.get(i)?)?.clone();
        let mut meta = conversation.meta.take().unwrap_or_else(|| serde_json::json!({}));
        if let Some(meta) = meta.as_object_mut() {
            meta.insert("tpl".into(), serde_json::json!(scores[i].tpl));
        }
        conversation.meta = Some(meta);
        Some(conversation)
    });
    write_jsonl(path, chosen)?;
    Ok(keep.min(scores.len()))
}

/// The frames of a record as the model sees them: uniformly chosen, at source size.
pub fn load(record: &Record, media_root: &Path, frames: usize) -> Result<Sample> {
    let path = match &record.media {
        Media::Video(path) | Media::Image(path) => media_root.join(path),
        Media::None => bail!("sample {} has neither video nor image; TPL compares frames", record.id),
    };
    let source = Source::Path(path.clone());
    let clip = sample(&source, Sampling::Uniform { frames }, &CaptureOptions::default())
        .with_context(|| format!("sample {}: reading {}", record.id, path.display()))?;
    let frames = clip.frames.iter().map(|f| f.image.clone()).collect();
    Ok(Sample {
        id: record.id.clone(),
        frames,
        turns: record.turns.clone(),
        fills: Vec::new(),
        linked: true,
        window: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selection_rules_count_as_the_reference_does() {
        assert_eq!(selected("top:30%", 10).unwrap(), 3);
        assert_eq!(selected("top:31%", 10).unwrap(), 4);
        assert_eq!(selected("top:7%", 100).unwrap(), 7);
        assert_eq!(selected("top:99", 10).unwrap(), 10);
        for bad in ["30%", "top:x", "top:120%", "top:-1"] {
            assert!(selected(bad, 10).is_err(), "{bad}");
        }
    }

    #[test]
    fn draws_depend_on_seed_and_name_only() {
        let draw = |seed, id| generator(seed, id).random_range(0..1_000_000);
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
    }
}
