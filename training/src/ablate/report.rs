//! What a study found: means over seeds with intervals, differences to the control, correlations, figures.
//!
//! Comes in: the outcomes of all runs. Goes out: `results.json`, `results.md`, `primary.svg`, `difference.svg` and, where a study correlates, `correlation.svg`. Intervals are Student's over
//! seeds; differences are taken within a seed. Nothing is left out because of what it says.

use super::Outcome;
use super::pool::Parts;
use super::study::{Arm, Study};
use crate::figures::{self, Bar};
use crate::files::write_atomic;
use crate::stats::{Correlation, Mean};
use crate::world::Skill;
use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What one arm came to.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The arm.
    pub arm: String,
    /// What it is.
    pub about: String,
    /// Clips of each run.
    pub clips: u64,
    /// Supervised tokens per clip: in answers to questions, and beside them.
    pub supervised: [f64; 2],
    /// Mean log TPL of the part of the pool that it was trained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool_tpl: Option<f64>,
    /// Mean negative log-likelihood of that part's answers under the model that scored it, all frames given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool_nll: Option<f64>,
    /// What was measured.
    pub scores: BTreeMap<String, Mean>,
    /// The same less the control's, seed by seed.
    pub against_control: BTreeMap<String, Mean>,
}

/// Two arms, seed by seed.
#[derive(Clone, Debug, Serialize)]
pub struct Contrast {
    /// This arm
    pub arm: String,
    /// less this one.
    pub less: String,
    /// What was measured.
    pub scores: BTreeMap<String, Mean>,
}

/// What a study found.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// The study, whole.
    pub study: Study,
    /// The seeds that these numbers are of: all of the study's, but for a report before its end.
    pub seeds: Vec<u64>,
    /// Items of the suite by skill, as the control is asked them.
    pub items: BTreeMap<String, usize>,
    /// By arm.
    pub arms: Vec<Row>,
    /// Between arms of which neither is the control.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contrasts: Vec<Contrast>,
    /// Of the correlated measure with the primary one, over the means of the arms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation: Option<Correlation>,
    /// The same of each seed's runs alone, over seeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within_seeds: Option<WithinSeeds>,
}

/// A correlation that no difference between seeds can make.
#[derive(Clone, Debug, Serialize)]
pub struct WithinSeeds {
    /// Pearson's coefficient: mean and interval of its Fisher's z, turned back.
    pub pearson: Mean,
    /// Slope of the line through a seed's arms.
    pub slope: Mean,
}

impl WithinSeeds {
    fn of(seeds: &[Correlation]) -> Option<Self> {
        let z: Vec<f64> = seeds.iter().map(|one| one.pearson.clamp(-0.999_999, 0.999_999).atanh()).collect();
        let slopes: Vec<f64> = seeds.iter().map(|one| one.slope).collect();
        let Mean { mean, interval } = (seeds.len() > 1).then(|| Mean::of(&z))?;
        Some(Self {
            pearson: Mean { mean: mean.tanh(), interval: interval.map(f64::tanh) },
            slope: Mean::of(&slopes),
        })
    }
}

/// Writes everything into the study's folder and prints the tables; `items` of the suite by skill.
pub fn write(
    study: &Study,
    items: &[(Skill, usize)],
    outcomes: &[Outcome],
    parts: &Parts,
    folder: &Path,
) -> Result<()> {
    let arms: Vec<Row> =
        study.arms.iter().map(|arm| row(study, arm, outcomes, parts)).collect::<Result<_>>()?;
    let points = correlated(study, &arms);
    let correlation = Correlation::of(&points);
    let seeds: Vec<u64> =
        study.seeds.iter().copied().filter(|s| outcomes.iter().any(|o| o.seed == *s)).collect();
    let alone = |seed: &u64| {
        let own: Vec<Outcome> = outcomes.iter().filter(|o| o.seed == *seed).cloned().collect();
        let rows =
            study.arms.iter().map(|arm| row(study, arm, &own, parts)).collect::<Result<Vec<_>>>().ok()?;
        Correlation::of(&correlated(study, &rows))
    };
    let alone: Vec<Correlation> = seeds.iter().filter_map(alone).collect();
    let within_seeds = WithinSeeds::of(&alone);
    let items = items.iter().map(|(skill, n)| (skill.word().to_string(), *n)).collect();
    let contrast = |[arm, less]: &[String; 2]| Contrast {
        arm: arm.clone(),
        less: less.clone(),
        scores: differences(outcomes, arm, less),
    };
    let contrasts = study.contrasts.iter().map(contrast).collect();
    let results = Results { study: study.clone(), seeds, items, arms, contrasts, correlation, within_seeds };
    let keep = |name: &str, text: &str| {
        write_atomic(&folder.join(name), |out| out.write_all(text.as_bytes()))
            .with_context(|| format!("writing {name}"))
    };
    keep("results.json", &(serde_json::to_string_pretty(&results)? + "\n"))?;
    let text = markdown(&results);
    keep("results.md", &text)?;
    draw(&results, &points, folder)?;
    println!("{text}");
    Ok(())
}

fn row(study: &Study, arm: &Arm, outcomes: &[Outcome], parts: &Parts) -> Result<Row> {
    let runs: Vec<&Outcome> = outcomes.iter().filter(|o| o.arm == arm.name).collect();
    let first = runs.first().with_context(|| format!("arm {} has no run", arm.name))?;
    let names: BTreeSet<&String> = runs.iter().flat_map(|run| run.scores.keys()).collect();
    let seen = |name: &String| runs.iter().filter_map(|run| run.scores.get(name).copied()).collect();
    let scores = names.into_iter().map(|name| (name.clone(), mean(seen(name)))).collect();
    let against_control = match arm.name == study.control {
        true => BTreeMap::new(),
        false => differences(outcomes, &arm.name, &study.control),
    };
    let average = |n: usize| runs.iter().map(|run| run.supervised[n]).sum::<f64>() / runs.len() as f64;
    Ok(Row {
        arm: arm.name.clone(),
        about: arm.about.clone(),
        clips: first.clips,
        supervised: [average(0), average(1)],
        pool_tpl: arm.pool.map(|part| parts.mean(part, |scored| scored.tpl_log)),
        pool_nll: arm.pool.map(|part| parts.mean(part, |scored| scored.nll_full)),
        scores,
        against_control,
    })
}

/// Mean and interval; one seed says nothing of the spread.
fn mean(values: Vec<f64>) -> Mean {
    match values[..] {
        [only] => Mean { mean: only, interval: [only; 2] },
        _ => Mean::of(&values),
    }
}

/// One arm's scores less another's, within seeds.
fn differences(outcomes: &[Outcome], arm: &str, less: &str) -> BTreeMap<String, Mean> {
    let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for run in outcomes.iter().filter(|run| run.arm == arm) {
        let Some(other) = outcomes.iter().find(|o| o.arm == less && o.seed == run.seed) else { continue };
        for (name, score) in &run.scores {
            if let Some(control) = other.scores.get(name) {
                all.entry(name.clone()).or_default().push(score - control);
            }
        }
    }
    all.into_iter().map(|(name, values)| (name, mean(values))).collect()
}

/// The correlated measure and the primary one, a point per arm: means over its runs, which are not independent. `pool` is the TPL of what an arm was
/// trained on.
fn correlated(study: &Study, arms: &[Row]) -> Vec<(f64, f64)> {
    let Some(other) = &study.correlate else { return Vec::new() };
    let point = |row: &Row| {
        let of = |name: &str| row.scores.get(name).map(|mean| mean.mean);
        let x = if other == "pool" { row.pool_tpl } else { of(other) };
        Some((x?, of(&study.primary)?))
    };
    arms.iter().filter_map(point).collect()
}

/// The primary measure first, then the others.
fn names(results: &Results) -> Vec<String> {
    let all: BTreeSet<&String> = results.arms.iter().flat_map(|row| row.scores.keys()).collect();
    let primary = &results.study.primary;
    [primary].into_iter().chain(all.into_iter().filter(|name| *name != primary)).cloned().collect()
}

/// The tables people read.
fn markdown(results: &Results) -> String {
    let study = &results.study;
    let mut text = format!("# {}\n\n{}\n\n", study.name, study.question);
    text += "| arm | what it is | clips | supervised tokens per clip: answers to questions, beside them |\n|---|---|---|---|\n";
    for row in &results.arms {
        let [asked, beside] = row.supervised;
        text += &format!("| {} | {} | {} | {asked:.1}, {beside:.1} |\n", row.arm, row.about, row.clips);
    }
    if let Some(pool) = &study.pool {
        text += &format!(
            "\nThe pool: {} clips under {}, first twins of {} frames, {} single frames each.\n\n| arm | mean log TPL | mean nll of its answers, all frames given |\n|---|---|---|\n",
            pool.clips,
            pool.model.display(),
            pool.frames,
            pool.draws
        );
        for row in &results.arms {
            if let (Some(tpl), Some(nll)) = (row.pool_tpl, row.pool_nll) {
                text += &format!("| {} | {tpl:.3} | {nll:.3} |\n", row.arm);
            }
        }
    }
    let head = |what: &str, rows: &[&Row]| {
        let arms: Vec<&str> = rows.iter().map(|row| row.arm.as_str()).collect();
        format!("\n| {what} | {} |\n|---{}|\n", arms.join(" | "), "|---".repeat(arms.len()))
    };
    let cell = |mean: Option<&Mean>| {
        mean.map_or("-".to_string(), |m| {
            let [low, high] = m.interval;
            match low < high {
                true => format!("{:.3} [{low:.3}, {high:.3}]", m.mean),
                false => format!("{:.3}", m.mean),
            }
        })
    };
    let (done, all) = (results.seeds.len(), study.seeds.len());
    let seeds = match done {
        _ if done < all => format!("{done} of {all} seeds (an interim report)"),
        1 => "1 seed".to_string(),
        _ => format!("{done} seeds"),
    };
    let items: Vec<String> = results.items.iter().map(|(skill, n)| format!("{skill} {n}")).collect();
    text += &format!("\nItems of the suite: {}.\n", items.join(", "));
    text += &format!(
        "\nMeans over {seeds} with 95 % intervals (Student, over seeds: all runs share one base and one set of items). `{}` decides; \
         nothing is corrected for the number of comparisons.\n",
        study.primary
    );
    let all: Vec<&Row> = results.arms.iter().collect();
    text += &head("measure", &all);
    for name in names(results) {
        let cells: Vec<String> = all.iter().map(|row| cell(row.scores.get(&name))).collect();
        text += &format!("| {name} | {} |\n", cells.join(" | "));
    }
    let others: Vec<&Row> = results.arms.iter().filter(|row| row.arm != study.control).collect();
    if !others.is_empty() {
        text += &format!("\nDifferences to `{}` within seeds, with 95 % intervals.\n", study.control);
        text += &head("measure", &others);
        for name in names(results) {
            let cells: Vec<String> = others.iter().map(|row| cell(row.against_control.get(&name))).collect();
            text += &format!("| {name} | {} |\n", cells.join(" | "));
        }
    }
    if !results.contrasts.is_empty() {
        text += "\nDifferences between two arms within seeds, with 95 % intervals.\n\n| measure |";
        for contrast in &results.contrasts {
            text += &format!(" {} less {} |", contrast.arm, contrast.less);
        }
        text += &format!("\n|---{}|\n", "|---".repeat(results.contrasts.len()));
        for name in names(results) {
            let cells: Vec<String> = results.contrasts.iter().map(|c| cell(c.scores.get(&name))).collect();
            text += &format!("| {name} | {} |\n", cells.join(" | "));
        }
    }
    if let (Some(found), Some(other)) = (&results.correlation, &study.correlate) {
        let [low, high] = found.interval;
        text += &format!(
            "\nPearson's correlation of {} with `{}` over the means of {} arms: {:.3} [{low:.3}, {high:.3}] (Fisher's z, as if the arms were independent; they share seeds, base \
             and items); Spearman's {:.3}.\n",
            axis(other),
            study.primary,
            found.n,
            found.pearson,
            found.spearman
        );
        if let Some(WithinSeeds { pearson, slope }) = &results.within_seeds {
            text += &format!(
                "Within single seeds, over {done} of them (Student): {}; slope {}.\n",
                cell(Some(pearson)),
                cell(Some(slope))
            );
        }
    }
    text
}

/// What a correlated measure is called.
fn axis(correlated: &str) -> &str {
    if correlated == "pool" { "mean log TPL of the training clips" } else { correlated }
}

fn draw(results: &Results, points: &[(f64, f64)], folder: &Path) -> Result<()> {
    let study = &results.study;
    let bar = |row: &Row, mean: Option<&Mean>| {
        let mean = mean?;
        let [low, high] = mean.interval;
        Some(Bar { name: row.arm.clone(), value: mean.mean, low, high })
    };
    let of = |row: &Row| bar(row, row.scores.get(&study.primary));
    let bars: Vec<Bar> = results.arms.iter().filter_map(of).collect();
    figures::bars(&folder.join("primary.svg"), &study.question, &study.primary, &bars)?;
    let of = |row: &Row| bar(row, row.against_control.get(&study.primary));
    let bars: Vec<Bar> = results.arms.iter().filter_map(of).collect();
    if !bars.is_empty() {
        let title = format!("{} less that of {}", study.primary, study.control);
        figures::bars(&folder.join("difference.svg"), &title, &title, &bars)?;
    }
    if let Some(other) = study.correlate.as_ref().filter(|_| !points.is_empty()) {
        let found = results.correlation.as_ref();
        let strength = found.map_or("-".to_string(), |found| format!("{:.2}", found.pearson));
        let title = format!("{}: r = {strength}", study.question);
        let label = axis(other);
        let line = found.map(|found| (found.slope, found.intercept));
        figures::scatter(&folder.join("correlation.svg"), &title, label, &study.primary, points, line)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
