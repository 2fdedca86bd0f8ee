//! Evaluation on streams longer than the window: what each of its modes costs in accuracy, and what leaks from frames that slid out.
//!
//! Comes in: a bundle and a suite with streams. Goes out: for each mode the items right with their 95 % Wilson interval, and how often answers name
//! what only evicted frames showed, beside `exact`, which never saw them; `modes.json`, `modes.md`; on request a copy of the bundle whose manifest carries the
//! accuracies and recommends a mode. Frames go through the runtime's own pipeline one by one, as from a camera.

use super::table::markdown_share;
use super::voice::Voice;
use super::work::spread;
use super::world::REPLY_TOKENS;
use super::{FRAMES, named};
use crate::files::write_atomic;
use crate::stats::wilson;
use crate::world::grade;
use crate::world::stream::{LEAK_PROBES, StreamItem};
use crate::world::suite::Suite;
use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use utr_models::bundle::{Bundle, write_bundle};
use utr_models::manifest::WindowMode;
use utr_runtime::capture::{Frame, Stamp};
use utr_runtime::decode::KvPrecision;
use utr_runtime::pipeline::Settings;

/// `rolling` is recommended where it loses at most so much against `exact`.
const RECOMMENDED_WITHIN: f64 = 0.02;

/// What a mode scored.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ModeScore {
    /// Items right.
    pub right: usize,
    /// All items.
    pub n: usize,
    /// `right / n`.
    pub share: f64,
    /// 95 % Wilson interval, as of so many pairs.
    pub interval: [f64; 2],
    /// Items right where other scenes came before, and where the scene went on: right, all.
    pub cut: [usize; 2],
    /// See `cut`.
    pub went_on: [usize; 2],
    /// Answers that name what only evicted frames showed.
    pub leaks: usize,
    /// Such answers to questions that ask to describe what is in view, and how many were asked.
    pub told_leaks: [usize; 2],
}

/// A run over streams.
#[derive(Clone, Debug, Serialize)]
pub struct Modes {
    /// What was scored.
    pub model: String,
    /// Suite name and hash.
    pub suite: [String; 2],
    /// How keys and values were stored.
    pub kv: KvPrecision,
    /// By mode.
    pub modes: BTreeMap<WindowMode, ModeScore>,
    /// What live sources should use.
    pub recommended: WindowMode,
}

/// What is scored.
pub struct Plan<'a> {
    /// The bundle or folder.
    pub folder: &'a Path,
    /// Suite with streams.
    pub suite: &'a Suite,
    /// Modes.
    pub modes: &'a [WindowMode],
    /// Precision of keys and values.
    pub kv: KvPrecision,
    /// Pairs of each skill.
    pub pairs: usize,
    /// Threads.
    pub workers: usize,
}

/// One item's replies in one mode.
struct Told {
    mode: WindowMode,
    cut: bool,
    right: bool,
    leaked: bool,
    told_leaks: usize,
}

/// Scores all modes and writes `modes.json` and `modes.md` into `output`.
pub fn run(plan: &Plan, output: &Path, stop: &AtomicBool) -> Result<Modes> {
    let told = replies(plan, stop)?;
    let mut modes: BTreeMap<WindowMode, ModeScore> = BTreeMap::new();
    for told in told {
        let score = modes.entry(told.mode).or_default();
        score.n += 1;
        score.right += usize::from(told.right);
        let part = if told.cut { &mut score.cut } else { &mut score.went_on };
        *part = [part[0] + usize::from(told.right), part[1] + 1];
        score.leaks += usize::from(told.leaked);
        score.told_leaks = [score.told_leaks[0] + told.told_leaks, score.told_leaks[1] + LEAK_PROBES.len()];
    }
    for score in modes.values_mut() {
        score.share = score.right as f64 / score.n.max(1) as f64;
        // Twins are not independent, pairs are.
        score.interval = wilson(score.right as f64 / 2.0, score.n / 2);
    }
    let name = named(plan.folder);
    let suite = [plan.suite.name.clone(), plan.suite.hash().to_string()];
    let results = Modes { model: name, suite, kv: plan.kv, recommended: recommended(&modes), modes };
    let write = |name: &str, text: String| {
        write_atomic(&output.join(name), |out| out.write_all(text.as_bytes())).map_err(anyhow::Error::from)
    };
    write("modes.json", serde_json::to_string_pretty(&results)? + "\n")?;
    let table = table(&results);
    write("modes.md", table.clone())?;
    println!("{table}");
    Ok(results)
}

/// `rolling` where it costs little, else `ahead`, which is exact on the frames it reports.
fn recommended(modes: &BTreeMap<WindowMode, ModeScore>) -> WindowMode {
    let share = |mode| modes.get(&mode).map(|score| score.share);
    match (share(WindowMode::Exact), share(WindowMode::Rolling)) {
        (Some(exact), Some(rolling)) if rolling >= exact - RECOMMENDED_WITHIN => WindowMode::Rolling,
        _ => WindowMode::Ahead,
    }
}

fn table(results: &Modes) -> String {
    let mut text = format!(
        "{} on {}, keys and values in {:?}; live sources: {:?}\n\n| mode | items right | other scenes before | scene went on | \
         leaks in answers | leaks in descriptions |\n|---|---|---|---|---|---|\n",
        results.model, results.suite[0], results.kv, results.recommended
    );
    for (mode, s) in &results.modes {
        text += &format!(
            "| {mode:?} | {} | {} of {} | {} of {} | {} of {} | {} of {} |\n",
            markdown_share(s.share, s.interval),
            s.cut[0],
            s.cut[1],
            s.went_on[0],
            s.went_on[1],
            s.leaks,
            s.n,
            s.told_leaks[0],
            s.told_leaks[1]
        );
    }
    text
}

fn replies(plan: &Plan, stop: &AtomicBool) -> Result<Vec<Told>> {
    let skills = &plan.suite.skills;
    let items: Vec<_> = skills.iter().flat_map(|skill| (0..plan.pairs).map(|n| (*skill, n))).collect();
    let open = || -> Result<Vec<(WindowMode, Voice)>> {
        let voice = |mode: &WindowMode| {
            let settings = Settings { mode: *mode, kv: plan.kv, ..Settings::exact(FRAMES) };
            Ok((*mode, Voice::with(plan.folder, &settings)?))
        };
        plan.modes.iter().map(voice).collect()
    };
    let told = spread(items.len(), plan.workers, stop, open, |voices, place| {
        let (skill, n) = items[place];
        let streams = plan.suite.streams(skill, n);
        let streams = streams.with_context(|| format!("the suite {} has no streams", plan.suite.name))?;
        let mut told = Vec::new();
        for (twin, stream) in streams.iter().enumerate() {
            // `ahead` holds 17 to 32 frames, by the time since the stream began: every phase is shown alike.
            let skipped = (2 * n + twin) % (FRAMES / 2);
            for (mode, voice) in voices.iter_mut() {
                told.push(tell(voice, *mode, stream, skipped)?);
            }
        }
        Ok(told)
    })?;
    Ok(told.into_iter().flatten().collect())
}

/// Feeds a stream frame by frame, without its first `skipped` ones, then asks its question and the probes for leaks.
fn tell(voice: &mut Voice, mode: WindowMode, stream: &StreamItem, skipped: usize) -> Result<Told> {
    voice.clear();
    for (index, image) in stream.frames.iter().enumerate().skip(skipped) {
        let stamp = Stamp { index, pts_ms: index as u64 * 250 };
        let frame = Frame { stamp, captured: Instant::now(), image: image.clone() };
        voice.see(&[Arc::new(frame)])?;
    }
    let mut reply = |text: &str| voice.reply(text, REPLY_TOKENS);
    let said = reply(&stream.item.question)?;
    let mut told_leaks = 0;
    for probe in LEAK_PROBES {
        told_leaks += usize::from(!stream.leaks(&reply(probe)?).is_empty());
    }
    let leaked = !stream.leaks(&said).is_empty();
    Ok(Told { mode, cut: stream.cut, right: grade(&stream.item, &said), leaked, told_leaks })
}

/// Copies a bundle; the copy's manifest carries what each mode scored, and recommends one for live sources.
pub fn recommend(bundle: &Path, modes: &Modes, to: &Path) -> Result<()> {
    let from = Bundle::open(bundle)?;
    let mut manifest = from.manifest().clone();
    manifest.window.live_mode = modes.recommended;
    manifest.window.accuracy = modes.modes.iter().map(|(mode, score)| (*mode, score.share * 100.0)).collect();
    let names: Vec<String> = manifest.files.keys().cloned().collect();
    write_bundle(to, manifest, |folder| {
        for name in &names {
            let target = folder.join(name);
            if let Some(parent) = target.parent() {
                std::fs::create_dir_all(parent).map_err(utr_models::Error::io(parent))?;
            }
            std::fs::copy(from.path(name)?, &target).map_err(utr_models::Error::io(&target))?;
        }
        Ok(())
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rolling_is_recommended_within_two_points_of_exact() {
        let scores = |exact: f64, rolling: f64| {
            let score = |share| ModeScore { share, ..ModeScore::default() };
            BTreeMap::from([(WindowMode::Exact, score(exact)), (WindowMode::Rolling, score(rolling))])
        };
        assert_eq!(recommended(&scores(0.80, 0.781)), WindowMode::Rolling);
        assert_eq!(recommended(&scores(0.80, 0.95)), WindowMode::Rolling);
        assert_eq!(recommended(&scores(0.80, 0.779)), WindowMode::Ahead);
        assert_eq!(recommended(&BTreeMap::new()), WindowMode::Ahead);
    }
}
