//! A quick look at skills while training: is the right answer what greedy decoding would say?
//!
//! Comes in: a suite of minimal pairs (validation split) and the network under training. Goes out: per skill the share of items whose
//! answer is the likeliest token at every place, word for word. Stricter than grading a reply, and one forward pass per clip; the
//! scores that are reported come from `eval`, which generates.

use crate::sample::Sample;
use crate::train::encode::Encoder;
use crate::world::stream::StreamItem;
use crate::world::suite::Suite;
use crate::world::{Posed, Renderer, STEPS, Skill};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use utr_models::network::Network;

/// The clip of an item as the model sees it in memory: `frames` of its 32 at `size` pixels, from the first that shows the answer, with its
/// one question. The piece is too short for what takes longer than `frames`.
pub fn sample(posed: &Posed, size: u32, frames: usize, id: &str) -> Sample {
    let mut renderer = Renderer::new(&posed.script, size);
    let first = posed.item.window[0].min(STEPS - frames);
    Sample {
        id: id.to_string(),
        frames: (first..first + frames).map(|t| renderer.frame(t as f32)).collect(),
        turns: vec![posed.item.turn()],
        fills: Vec::new(),
        linked: false,
        window: None,
    }
}

/// A stream of a suite, all of its frames.
fn streamed(stream: StreamItem) -> Sample {
    let turns = vec![stream.item.turn()];
    Sample {
        id: stream.id,
        frames: stream.frames,
        turns,
        fills: Vec::new(),
        linked: false,
        window: Some(stream.window),
    }
}

/// Some pairs of each skill of a suite. Where the suite is one of streams, those are shown, whatever `frames` says.
pub struct Validation {
    suite: Suite,
    pairs: Vec<(Skill, usize)>,
    frames: usize,
}

impl Validation {
    /// The first `pairs` pairs of each skill that `frames` frames (1 to 32) can show.
    pub fn load(path: &Path, pairs: usize, frames: usize) -> Result<Self> {
        ensure!((1..=STEPS).contains(&frames), "a clip has 1 to {STEPS} frames, {frames} were asked for");
        let suite =
            Suite::load(path).with_context(|| format!("loading the validation suite {}", path.display()))?;
        let count = pairs.min(suite.pairs_per_skill);
        let pairs = suite.skills.iter().flat_map(|skill| (0..count).map(|n| (*skill, n)).collect::<Vec<_>>());
        let shown = |(skill, n): &(Skill, usize)| {
            let fits = |posed: &Posed| posed.item.window[1] - posed.item.window[0] < frames;
            suite.stream.is_some() || suite.pair(*skill, *n).twins.iter().all(fits)
        };
        Ok(Self { pairs: pairs.filter(shown).collect(), suite, frames })
    }

    fn twins(&self, skill: Skill, n: usize, size: u32) -> [Sample; 2] {
        match self.suite.streams(skill, n) {
            Some(streams) => streams.map(streamed),
            None => {
                let pair = self.suite.pair(skill, n);
                pair.twins.map(|posed| sample(&posed, size, self.frames, &pair.id))
            }
        }
    }

    /// Share of right items per skill, on the given one-thread pools.
    pub fn run(
        &self,
        network: &Network,
        encoder: &Encoder,
        pools: &[rayon::ThreadPool],
    ) -> Result<BTreeMap<String, f64>> {
        let next = AtomicUsize::new(0);
        let right: Mutex<BTreeMap<String, (usize, usize)>> = Mutex::default();
        let work = || -> Result<()> {
            while let Some((skill, n)) = self.pairs.get(next.fetch_add(1, Ordering::Relaxed)) {
                let size = network.config.vision.image_size as u32;
                let twins = self.twins(*skill, *n, size);
                let example = |twin| encoder.example(twin, &network.vision);
                let examples = twins.iter().map(example).collect::<Result<Vec<_>>>()?;
                // Spans come as trunk and branch of each example; only branches have targets.
                let said =
                    network.says(&examples)?.into_iter().skip(1).step_by(2).filter(|said| *said).count();
                let mut right = right.lock().map_err(|_| anyhow::anyhow!("a validation worker panicked"))?;
                let entry = right.entry(skill.word().to_string()).or_default();
                *entry = (entry.0 + said, entry.1 + examples.len());
            }
            Ok(())
        };
        let results: Vec<Result<()>> = std::thread::scope(|scope| {
            let handles: Vec<_> = pools.iter().map(|pool| scope.spawn(|| pool.install(work))).collect();
            handles
                .into_iter()
                .map(|h| h.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a validation worker panicked"))))
                .collect()
        });
        results.into_iter().collect::<Result<()>>()?;
        let right = right.into_inner().map_err(|_| anyhow::anyhow!("a validation worker panicked"))?;
        Ok(right.into_iter().map(|(skill, (right, all))| (skill, right as f64 / all.max(1) as f64)).collect())
    }
}
