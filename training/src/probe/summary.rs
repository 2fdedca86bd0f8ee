//! Means over samples, with what is uncertain about them.
//!
//! Comes in: the looks of all models at all samples. Goes out: per model the means with 95 % intervals over samples, and for each later model its paired
//! difference from the first on the same samples. No pictures and no tables.

use super::{Look, ProbeArgs};
use crate::stats::Mean;
use serde::{Deserialize, Serialize};

/// The whole of `attention.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The data file.
    pub data: String,
    /// Frames of each clip.
    pub frames: usize,
    /// What drew the samples.
    pub seed: u64,
    /// Samples looked at.
    pub samples: usize,
    /// Samples that could not be read.
    pub failed: usize,
    /// In the order they were given.
    pub models: Vec<ModelSummary>,
    /// Of each later model from the first.
    pub differences: Vec<Difference>,
}

/// One model over all samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelSummary {
    /// Its name in the report.
    pub name: String,
    /// Its folder.
    pub folder: String,
    /// Effective number of frames.
    pub breadth: Mean,
    /// Share of the frame that gets most, of what goes to frames.
    pub top: Mean,
    /// Share of all attention on frames.
    pub visual: Mean,
    /// On the newline behind the clip.
    pub newline: Mean,
    /// On text.
    pub text: Mean,
    /// Share by position, of what goes to frames; oldest first.
    pub per_frame: Vec<Mean>,
    /// The same by rank in each sample, most first: a few frames get much even where they stand elsewhere in each clip.
    pub ranked: Vec<Mean>,
    /// Layer by layer, the first one first.
    pub layers: Vec<LayerSummary>,
    /// Effective number of frames of each sample, in the order of `attention.jsonl`.
    pub breadths: Vec<f32>,
}

/// One layer over all samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerSummary {
    /// Effective number of frames.
    pub breadth: Mean,
    /// Share of the layer's attention on frames.
    pub visual: Mean,
    /// Mean share of the layer's attention on each frame.
    pub mass: Vec<f64>,
}

/// A model less the first one, sample by sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The model.
    pub model: String,
    /// The first one.
    pub from: String,
    /// Of the effective number of frames.
    pub breadth: Mean,
    /// Of the top frame's share.
    pub top: Mean,
    /// Of the attention on frames.
    pub visual: Mean,
}

/// `rows` has one look per model for each sample; all of them at as many frames.
pub fn summarize(args: &ProbeArgs, rows: &[Vec<Look>], failed: usize) -> Summary {
    let count = args.model.len();
    let of = |m: usize| rows.iter().filter_map(move |looks| looks.get(m)).collect::<Vec<&Look>>();
    let models: Vec<ModelSummary> =
        (0..count).map(|m| model(&of(m), args.model[m].display().to_string())).collect();
    let difference = |m: usize| {
        let pairs: Vec<(&Look, &Look)> = of(0).into_iter().zip(of(m)).collect();
        let paired = |f: fn(&Look) -> f32| {
            Mean::of(&pairs.iter().map(|(a, b)| f64::from(f(b)) - f64::from(f(a))).collect::<Vec<_>>())
        };
        Difference {
            model: models[m].name.clone(),
            from: models[0].name.clone(),
            breadth: paired(|look| look.breadth),
            top: paired(top),
            visual: paired(|look| look.visual),
        }
    };
    Summary {
        data: args.data.display().to_string(),
        frames: usize::from(args.frames),
        seed: args.seed,
        samples: rows.len(),
        failed,
        differences: (1..count).map(difference).collect(),
        models,
    }
}

/// The largest share.
fn top(look: &Look) -> f32 {
    look.per_frame.iter().copied().fold(0.0, f32::max)
}

fn model(looks: &[&Look], folder: String) -> ModelSummary {
    let mean =
        |f: &dyn Fn(&Look) -> f32| Mean::of(&looks.iter().map(|look| f64::from(f(look))).collect::<Vec<_>>());
    let frames = looks.first().map_or(0, |look| look.per_frame.len());
    let layers = looks.first().map_or(0, |look| look.layers.len());
    let sorted: Vec<Vec<f32>> = looks
        .iter()
        .map(|look| {
            let mut shares = look.per_frame.clone();
            shares.sort_by(|a, b| b.total_cmp(a));
            shares
        })
        .collect();
    let rank = |k: usize| Mean::of(&sorted.iter().map(|shares| f64::from(shares[k])).collect::<Vec<_>>());
    let layer = |l: usize| LayerSummary {
        breadth: mean(&|look| look.layers[l].breadth),
        visual: mean(&|look| look.layers[l].mass.iter().sum()),
        mass: (0..frames).map(|frame| mean(&|look| look.layers[l].mass[frame]).mean).collect(),
    };
    ModelSummary {
        name: looks.first().map(|look| look.model.clone()).unwrap_or_default(),
        folder,
        breadth: mean(&|look| look.breadth),
        top: mean(&top),
        visual: mean(&|look| look.visual),
        newline: mean(&|look| look.newline),
        text: mean(&|look| look.text),
        per_frame: (0..frames).map(|frame| mean(&|look| look.per_frame[frame])).collect(),
        ranked: (0..frames).map(rank).collect(),
        layers: (0..layers).map(layer).collect(),
        breadths: looks.iter().map(|look| look.breadth).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Layer;
    use super::*;
    use utr_runtime::evidence::Evidence;

    fn look(model: &str, mass: &[f32]) -> Look {
        let Evidence { per_frame, breadth, .. } = Evidence::from_mass(mass);
        let visual = mass.iter().sum();
        let layers = vec![Layer { mass: mass.to_vec(), breadth }];
        Look {
            model: model.into(),
            visual,
            mass: mass.to_vec(),
            per_frame,
            breadth,
            layers,
            ..Look::default()
        }
    }

    #[test]
    fn models_are_compared_sample_by_sample() {
        // The first model looks at one frame, another one in each sample; the second at all alike.
        let rows: Vec<Vec<Look>> = (0..4)
            .map(|shown| {
                let mut narrow = [0.0; 4];
                narrow[shown] = 0.2;
                vec![look("narrow", &narrow), look("broad", &[0.1 + 0.01 * shown as f32; 4])]
            })
            .collect();
        let args = ProbeArgs {
            model: vec!["narrow".into(), "broad".into()],
            data: "d".into(),
            media_root: None,
            samples: 4,
            frames: 4,
            seed: 0,
            workers: 1,
            output: "o".into(),
        };
        let summary = summarize(&args, &rows, 0);
        let near = |got: f64, want: f64| assert!((got - want).abs() < 1e-5, "{got}, not {want}");
        let [narrow, broad] = &summary.models[..] else { panic!("two models") };
        near(narrow.breadth.mean, 1.0);
        near(broad.breadth.mean, 4.0);
        // By position both are even; by rank they are not.
        narrow.per_frame.iter().for_each(|mean| near(mean.mean, 0.25));
        assert_eq!(narrow.ranked.iter().map(|m| m.mean).collect::<Vec<_>>(), [1.0, 0.0, 0.0, 0.0]);
        near(broad.ranked[0].mean, 0.25);
        near(broad.layers[0].mass[2], 0.115);
        let [difference] = &summary.differences[..] else { panic!("one difference") };
        near(difference.breadth.mean, 3.0);
        near(difference.top.mean, -0.75);
        // 0.4, 0.44, 0.48, 0.52 less 0.2: mean 0.26, deviation 0.05164, t(3) = 3.182.
        near(difference.visual.mean, 0.26);
        assert!((difference.visual.interval[1] - 0.26 - 3.1824 * 0.051_640 / 2.0).abs() < 1e-4);
        assert_eq!((difference.from.as_str(), difference.model.as_str()), ("narrow", "broad"));
    }
}
