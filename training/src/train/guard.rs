//! Whether training is still sound, and where it is not.
//!
//! Comes in: losses, gradients and weights by name. Goes out: a verdict, and the words for it: which parameter groups, which values. A loss that is not a number
//! is caught before it moves a weight; a loss that runs away is caught by its mean, and no checkpoint is written on the way there. What is
//! done about it is the driver's business.

use super::optimizer::values;
use anyhow::Result;
use candle_core::Var;
use std::collections::VecDeque;

/// Updates whose mean loss decides.
const WINDOW: usize = 32;

/// Updates whose mean loss makes the lowest mark, and keeps a checkpoint from being written.
const RECENT: usize = 8;

/// A mean above `FACTOR` times the lowest mark plus `MARGIN` nats has diverged: uniform guessing over thousands of tokens costs 7 to 12 nats, so
/// a stage that had learnt anything has then lost it.
const FACTOR: f64 = 3.0;
const MARGIN: f64 = 1.0;

/// The losses of a stage.
#[derive(Clone, Debug)]
pub struct Guard {
    losses: VecDeque<f64>,
    lowest: f64,
}

impl Guard {
    /// Goes on from the losses that the stage had so far.
    pub fn new(earlier: impl IntoIterator<Item = f64>) -> Self {
        let mut guard = Self { losses: VecDeque::new(), lowest: f64::INFINITY };
        earlier.into_iter().for_each(|loss| guard.add(loss));
        guard
    }

    /// Takes the loss of one more update.
    pub fn add(&mut self, loss: f64) {
        self.losses.push_back(loss);
        if self.losses.len() > WINDOW {
            self.losses.pop_front();
        }
        if let Some(mean) = self.mean(RECENT) {
            self.lowest = self.lowest.min(mean);
        }
    }

    /// Mean of the last `n` losses, once there are so many.
    fn mean(&self, n: usize) -> Option<f64> {
        let enough = self.losses.len() >= n;
        enough.then(|| self.losses.iter().rev().take(n).sum::<f64>() / n as f64)
    }

    fn limit(&self) -> f64 {
        FACTOR * self.lowest + MARGIN
    }

    /// Whether the last updates look like those before, so that their weights are worth keeping.
    pub fn calm(&self) -> bool {
        let last = self.losses.len().clamp(1, RECENT);
        self.mean(last).is_none_or(|mean| mean <= self.limit())
    }

    /// What is wrong where the loss has run away.
    pub fn diverged(&self) -> Option<String> {
        let (mean, limit) = (self.mean(WINDOW)?, self.limit());
        (mean > limit).then(|| {
            format!(
                "the loss has run away: mean {mean:.2} over the last {WINDOW} updates, {:.2} at its best over {RECENT}",
                self.lowest
            )
        })
    }
}

/// The parameter group that a tensor belongs to: its block, or the tensor itself outside of blocks.
pub fn group(name: &str) -> &str {
    let end = match name.split_once(".layers.") {
        Some((before, after)) => before.len() + ".layers.".len() + after.find('.').unwrap_or(after.len()),
        None => name.strip_suffix(".weight").or(name.strip_suffix(".bias")).unwrap_or(name).len(),
    };
    &name[..end]
}

/// Each group once, in order.
fn groups<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let mut groups: Vec<&str> = names.map(|name| group(name)).collect();
    groups.dedup();
    groups.join(", ")
}

/// Names the groups whose gradients are not finite.
pub fn sick(names: &[String], grads: &[Vec<f32>]) -> Option<String> {
    let bad = names.iter().zip(grads).filter(|(_, grad)| !grad.iter().all(|g| g.is_finite()));
    Some(groups(bad.map(|(name, _)| name))).filter(|groups| !groups.is_empty())
}

/// Names the group with the largest share of the gradient; `squares` as [`super::optimizer::squares`].
pub fn steepest(names: &[String], squares: &[f64]) -> String {
    let mut sums: Vec<(&str, f64)> = Vec::new();
    for (name, square) in names.iter().zip(squares) {
        match sums.iter_mut().find(|(known, _)| *known == group(name)) {
            Some((_, sum)) => *sum += square,
            None => sums.push((group(name), *square)),
        }
    }
    let total: f64 = squares.iter().sum();
    let largest = sums.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
    largest.map_or(String::new(), |(name, sum)| {
        format!("{:.0} % of the squared gradient is in {name}", 100.0 * sum / total)
    })
}

/// Names the largest weight, or the groups whose weights are not finite.
pub fn largest(names: &[String], vars: &[Var]) -> Result<String> {
    let mut found = (0.0f32, "");
    let mut bad = Vec::new();
    for (name, var) in names.iter().zip(vars) {
        let data = values(var)?;
        let most = data.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        if !data.iter().all(|x| x.is_finite()) {
            bad.push(name);
        } else if most > found.0 {
            found = (most, name);
        }
    }
    Ok(match bad.is_empty() {
        true => format!("the largest weight is {:.1e} in {}", found.0, found.1),
        false => format!("weights are not finite in {}", groups(bad.into_iter())),
    })
}

/// Whether every weight is a number.
pub fn finite(vars: &[Var]) -> Result<bool> {
    for var in vars {
        if !values(var)?.iter().all(|x| x.is_finite()) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_that_runs_away_is_told_from_one_that_wavers() {
        let mut guard = Guard::new((0..100).map(|i| 2.0 + 0.5 * f64::from(i % 3)));
        assert!(guard.calm() && guard.diverged().is_none());
        let mut updates = 0;
        while guard.diverged().is_none() {
            guard.add(20.0);
            updates += 1;
            // From the moment that a mean of 8 has risen no checkpoint is written; the verdict comes later.
            assert_eq!(guard.calm(), updates < 3, "{updates}");
        }
        assert!((10..20).contains(&updates), "{updates}");
        let words = guard.diverged().unwrap();
        assert!(words.contains("run away"), "{words}");
        // The first updates of a stage have nothing to be compared with.
        assert!(Guard::new([1e9; 4]).calm() && Guard::new([1e9; 4]).diverged().is_none());
    }

    #[test]
    fn groups_are_blocks_and_what_lies_outside_of_them() {
        for (name, want) in [
            ("language_model.layers.11.mlp.up_proj.weight", "language_model.layers.11"),
            ("vision_tower.encoder.layers.0.layer_norm1.bias", "vision_tower.encoder.layers.0"),
            ("multi_modal_projector.linear_1.bias", "multi_modal_projector.linear_1"),
            ("language_model.embed_tokens.weight", "language_model.embed_tokens"),
            ("image_newline", "image_newline"),
        ] {
            assert_eq!(group(name), want);
        }
        let names = ["a.layers.0.x", "a.layers.0.y", "a.layers.1.x"].map(String::from);
        let grads = [vec![f32::NAN], vec![f32::INFINITY], vec![1.0]];
        assert_eq!(sick(&names, &grads).as_deref(), Some("a.layers.0"));
        assert_eq!(sick(&names, &[vec![1.0], vec![2.0], vec![1.0]]), None);
        assert_eq!(steepest(&names, &[1.0, 2.0, 1.0]), "75 % of the squared gradient is in a.layers.0");
    }
}
