//! `utr probe`: does the answer use time?
//!
//! Comes in: a source and a question. Goes out: the answer with the real window, and with the same frames shuffled, reversed, and reduced to single ones; how
//! likely the real answer is under each; and what removing the frames with most evidence does to it, beside removing others. All windows are read exactly.
//! Nothing is judged but what the numbers say.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use utr_models::generate::Sampling as TokenSampling;
use utr_models::manifest::WindowMode;

use crate::answer::{Answer, Answerer, Question};
use crate::cli::StreamArgs;
use crate::decode::Finish;
use crate::error::{Error, Result};
use crate::evidence::{Wanted, single_frames, tpl};
use crate::interrupt::Interrupt;
use crate::load::Model;
use crate::pipeline::{Seeing, View};
use crate::sample::Sampling;
use crate::window::EncodedFrame;

/// Shuffles, and random deletions, that are averaged.
const DRAWS: usize = 8;

/// `utr probe`, as typed.
#[derive(Clone, Debug, clap::Args)]
pub struct ProbeArgs {
    /// The source and the model.
    #[command(flatten)]
    pub stream: StreamArgs,
    /// The question
    #[arg(long, value_name = "TEXT")]
    pub question: String,
    /// Most tokens of an answer [default: the bundle's]
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<usize>,
    /// Seed of the shuffles
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// The same question over another window.
#[derive(Clone, Debug, Serialize)]
pub struct Variant {
    /// `real`, `shuffled`, `reversed` or `single`.
    pub window: String,
    /// What is answered there; for `single` and `shuffled` to the first of several.
    pub text: String,
    /// Whether that is the real window's answer, token for token.
    pub same: bool,
    /// Mean negative log-likelihood of the real window's answer.
    pub nll: f64,
}

/// What removing a quarter of the frames does to the likelihood of the answer.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Deletion {
    /// Frames removed.
    pub frames: usize,
    /// Mean negative log-likelihood without those that got most attention.
    pub nll_without_most: f64,
    /// Without as many drawn at random, averaged.
    pub nll_without_random: f64,
}

/// Everything `utr probe` found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// With the real window, evidence included.
    pub answer: Answer,
    /// The other windows.
    pub variants: Vec<Variant>,
    /// Temporal perplexity: perplexity of the answer under single frames minus that under all.
    pub tpl: f64,
    /// Whether attention points at what matters; none for windows of fewer than four frames.
    pub deletion: Option<Deletion>,
    /// In words.
    pub verdict: String,
}

/// Runs the command; `bundle` is the folder to load.
///
/// # Errors
/// Whatever loading, capture and answering report, and a closed standard output.
pub fn run(
    arguments: &ProbeArgs,
    bundle: &Path,
    interrupt: &Interrupt,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let report = probe(arguments, bundle, interrupt)?;
    if arguments.json {
        serde_json::to_writer(&mut *out, &report)?;
        writeln!(out)?;
        return Ok(());
    }
    writeln!(out, "{:<9} {:>7}  answer", "window", "nll")?;
    for variant in &report.variants {
        let mark = if variant.same { "=" } else { " " };
        writeln!(out, "{:<9} {:>7.3} {mark} {}", variant.window, variant.nll, variant.text.trim())?;
    }
    writeln!(out, "temporal perplexity {:.3}", report.tpl)?;
    if let Some(d) = &report.deletion {
        let (n, most, random) = (d.frames, d.nll_without_most, d.nll_without_random);
        writeln!(
            out,
            "without the {n} frames that got most attention: nll {most:.3}; without {n} random ones: {random:.3}"
        )?;
    }
    writeln!(out, "{}", report.verdict)?;
    Ok(())
}

fn probe(arguments: &ProbeArgs, bundle: &Path, interrupt: &Interrupt) -> anyhow::Result<Report> {
    let stream = arguments.stream.clone().resolve()?;
    if stream.mode.is_some_and(|mode| mode != WindowMode::Exact) {
        return Err(Error::Argument("--window-mode: probe reads every window exactly".into()).into());
    }
    let Model { encoder, language } =
        Model::open_for(bundle, stream.engines, stream.wish(Some(WindowMode::Exact)))?;
    let defaults = language.defaults;
    let settings = stream.settings(&defaults, WindowMode::Exact)?;
    let frames = settings.frames;
    let sampling = match stream.fps {
        Some(fps) => Sampling::Newest { fps, frames },
        None => Sampling::Default { fps: defaults.fps, frames },
    };
    let max_tokens = arguments.max_tokens.unwrap_or(defaults.tokens.max_tokens);
    let tokens = TokenSampling { temperature: 0.0, max_tokens, ..defaults.tokens };
    let question =
        Question { evidence: Wanted::Frames, sampling: tokens, ..settings.question(&arguments.question) };
    let mut seeing = Seeing::new(encoder, &language, &settings, interrupt.clone())?;
    seeing.watch(&stream.source, sampling, &stream.capture(interrupt))?;
    let view = seeing.view();
    let mut trial =
        Trial { answerer: Answerer::new(Arc::clone(&language), settings.kv), question, interrupt };
    Ok(trial.report(&view, ChaCha8Rng::seed_from_u64(arguments.seed))?)
}

/// Asks the one question over many windows.
struct Trial<'a> {
    answerer: Answerer,
    question: Question,
    interrupt: &'a Interrupt,
}

impl Trial<'_> {
    fn report(&mut self, view: &View, mut rng: ChaCha8Rng) -> Result<Report> {
        let frames = &view.frames;
        let answer = self.answer(frames)?;
        let mut told = answer.tokens.clone();
        if answer.finish == Finish::Stop {
            told.extend(self.answerer.language().stop.first());
        }
        let real = Variant {
            window: "real".into(),
            text: answer.text.clone(),
            same: true,
            nll: self.nll(frames, &told)?,
        };
        let mut variants = vec![real];
        let shuffled = (0..DRAWS).map(|_| {
            let mut mixed = frames.clone();
            mixed.shuffle(&mut rng);
            mixed
        });
        let shuffled: Vec<_> = shuffled.collect();
        let reversed = vec![frames.iter().rev().cloned().collect()];
        let single: Vec<Vec<_>> = single_frames(frames).into_iter().map(|frame| vec![frame]).collect();
        let mut single_nll = Vec::new();
        for (window, versions) in [("shuffled", shuffled), ("reversed", reversed), ("single", single)] {
            let losses = versions.iter().map(|v| self.nll(v, &told)).collect::<Result<Vec<_>>>()?;
            let Some(first) = versions.first() else { continue };
            let other = self.answer(first)?;
            let nll = mean(&losses);
            if window == "single" {
                single_nll = losses;
            }
            variants.push(Variant {
                window: window.into(),
                same: other.tokens == answer.tokens,
                text: other.text,
                nll,
            });
        }
        let full = variants.first().map_or(f64::NAN, |v| v.nll);
        let tpl = tpl(full, &single_nll);
        let deletion = self.deletion(frames, &answer, &told, &mut rng)?;
        let verdict = verdict(&variants, tpl);
        Ok(Report { answer, variants, tpl, deletion, verdict })
    }

    fn answer(&mut self, frames: &[Arc<EncodedFrame>]) -> Result<Answer> {
        let view = View::unread(frames.to_vec());
        self.answerer.answer(&view, &self.question, self.interrupt, &mut |_| Ok(()))
    }

    fn nll(&mut self, frames: &[Arc<EncodedFrame>], told: &[u32]) -> Result<f64> {
        self.answerer.likelihood(frames, &self.question, told, self.interrupt)
    }

    /// Removes a quarter of the frames: those with most attention, and as many at random.
    fn deletion(
        &mut self,
        frames: &[Arc<EncodedFrame>],
        answer: &Answer,
        told: &[u32],
        rng: &mut ChaCha8Rng,
    ) -> Result<Option<Deletion>> {
        let (n, Some(evidence)) = (frames.len() / 4, &answer.evidence) else { return Ok(None) };
        if n == 0 {
            return Ok(None);
        }
        let mut order: Vec<usize> = (0..frames.len()).collect();
        let share = |i: &usize| evidence.per_frame.get(*i).copied().unwrap_or(0.0);
        order.sort_by(|a, b| share(b).total_cmp(&share(a)));
        let without = |gone: &[usize]| -> Vec<_> {
            frames
                .iter()
                .enumerate()
                .filter(|(i, _)| !gone.contains(i))
                .map(|(_, frame)| Arc::clone(frame))
                .collect()
        };
        let nll_without_most = self.nll(&without(order.get(..n).unwrap_or_default()), told)?;
        let mut random = Vec::new();
        for _ in 0..DRAWS {
            order.shuffle(rng);
            random.push(self.nll(&without(order.get(..n).unwrap_or_default()), told)?);
        }
        Ok(Some(Deletion { frames: n, nll_without_most, nll_without_random: mean(&random) }))
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Temporal perplexity up to which single frames count as enough.
const LITTLE: f64 = 0.1;

/// What the numbers say, in one sentence. Whether one frame is enough is said by temporal perplexity, which is a mean over several frames, and not
/// by the answer to one of them.
fn verdict(variants: &[Variant], tpl: f64) -> String {
    let of = |window: &str| variants.iter().find(|v| v.window == window);
    let changed = |window: &str| of(window).is_some_and(|v| !v.same);
    let order = changed("shuffled") || changed("reversed");
    let words = match (order, tpl > LITTLE, changed("single")) {
        (true, true, _) => {
            "time was used: another order gives another answer, and single frames make this one less likely"
        }
        (true, false, _) => {
            "another order gives another answer, but single frames make this one as likely: order sways it more than it informs it"
        }
        (false, true, _) => {
            "the frames matter, their order does not: several frames are needed, in any order"
        }
        (false, false, true) => {
            "time was not needed: single frames make this answer as likely, though one of them gave another"
        }
        (false, false, false) => "time was not used: one frame gives the same answer",
    };
    words.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variants(same: [bool; 3]) -> Vec<Variant> {
        ["shuffled", "reversed", "single"]
            .iter()
            .zip(same)
            .map(|(window, same)| Variant { window: (*window).into(), text: String::new(), same, nll: 1.0 })
            .collect()
    }

    #[test]
    fn the_verdict_follows_the_numbers() {
        assert!(verdict(&variants([false, true, false]), 2.0).starts_with("time was used"));
        assert!(verdict(&variants([true, true, true]), 0.0).starts_with("time was not used"));
        assert!(verdict(&variants([true, true, false]), 1.0).contains("any order"));
        assert!(verdict(&variants([true, true, false]), 0.0).starts_with("time was not needed"));
        assert!(verdict(&variants([true, false, true]), 0.0).contains("sways"));
    }
}
