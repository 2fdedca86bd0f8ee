//! Forward and backward: the micro-batches of one update, each with its loss and its gradient.
//!
//! Comes in: a place in the recipe, the network and the numbers of the micro-batches wanted. Goes out: one [`Share`] each, in their order, and their gradients. Each worker is one
//! thread that draws its own clips and renders them, or takes what was read from disk ahead of it, and runs forward and backward alone; a device's worker takes
//! what other threads drew. A share that is not a number is an error that names its samples.

use super::data::feed::{Feed, Ready};
use super::encode::Encoder;
use super::features::Features;
use super::ranks::add;
use super::recipe::Stage;
use super::{flops, guard};
use crate::sample::Sample;
use crate::world::stream::world_stream;
use crate::world::{Split, clip_seed};
use anyhow::{Context, Result, anyhow, bail};
use candle_core::{Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use utr_models::backward::{Gradient, Pass};
use utr_models::network::{Example, Network};

/// One micro-batch's part of an update.
pub struct Share {
    /// Weighted sum of the losses of its targets.
    pub loss: f64,
    /// Sum of the weights.
    pub weight: f64,
    /// Rows that the decoder read.
    pub tokens: usize,
    /// Floating-point operations it needed (see [`flops`]).
    pub flops: f64,
}

/// A gradient, one flat vector per variable.
pub type Term = Vec<Vec<f32>>;

/// What the workers have done so far.
struct Done {
    shares: Vec<Option<Result<Share>>>,
    /// Gradients that are not in a sum yet.
    terms: Vec<Option<Term>>,
    /// Sum of the first gradients, and of how many.
    sum: Option<Term>,
    summed: usize,
}

impl Done {
    /// Adds what has come to the sum, in the order of the micro-batches and not beyond one that is missing.
    fn fold(&mut self) {
        while let Some(term) = self.terms.get_mut(self.summed).and_then(Option::take) {
            match &mut self.sum {
                None => self.sum = Some(term),
                Some(sum) => sum.iter_mut().zip(&term).for_each(|(sum, term)| add(sum, term)),
            }
            self.summed += 1;
        }
    }
}

/// Micro-batches that other threads make, each thread the next of its turn.
struct Ahead {
    receivers: Vec<Receiver<Result<Ready>>>,
    taken: usize,
}

impl Ahead {
    /// The next micro-batch; waits for it.
    fn take(&mut self) -> Result<Ready> {
        let receiver = self.receivers.get(self.taken % self.receivers.len().max(1));
        self.taken += 1;
        let ready = receiver.and_then(|receiver| receiver.recv().ok());
        ready.context("a thread that draws clips stopped early")?
    }
}

/// One update: where in the recipe it stands, and what it runs.
pub struct Batch<'a> {
    /// Seed of the recipe.
    pub seed: u64,
    /// Stage, from 0.
    pub number: usize,
    /// Its description.
    pub stage: &'a Stage,
    /// Update within the stage, from 0.
    pub step: usize,
    /// The network over the variables.
    pub network: &'a Network,
    /// Samples to examples.
    pub encoder: &'a Encoder,
    /// Micro-batches read from disk, where the stage has `data`.
    pub feed: Option<&'a Feed>,
    /// Names of the variables.
    pub names: &'a [String],
    /// The variables, in gradient order.
    pub vars: &'a [Var],
    /// See [`super::recipe::Recipe::checkpointing`].
    pub checkpointing: bool,
    /// See [`super::recipe::Recipe::rank_sums`].
    pub rank_sums: bool,
    /// Features of clips that come again.
    pub features: Option<&'a Features>,
}

impl Batch<'_> {
    /// The micro-batches `range`, spread over one-thread `pools`, and their gradients: where they begin with the update's first, or ranks add up their own, the sum in their order;
    /// else each of them, since what comes before is another rank's. Nobody waits for a slower worker, whose micro-batch may be of many more frames: the
    /// gradients that come after it are kept until it is done. A single worker may have `makers`, which draw its clips ahead of it: at most one each that
    /// is being made and one that waits.
    pub fn shares(
        &self,
        range: Range<usize>,
        pools: &[rayon::ThreadPool],
        makers: &[rayon::ThreadPool],
    ) -> Result<(Vec<Share>, Vec<Term>)> {
        // What is read from disk comes ahead by itself.
        let makers = if pools.len() == 1 && self.feed.is_none() { makers } else { &[] };
        let next = AtomicUsize::new(range.start);
        let (shares, terms) = range.clone().map(|_| (None, None)).unzip();
        let done = Mutex::new(Done { shares, terms, sum: None, summed: 0 });
        let work = |mut ahead: Option<Ahead>| {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= range.end {
                    break;
                }
                let ready = ahead.as_mut().map_or_else(|| self.ready(i), Ahead::take);
                let (share, term) = match ready.and_then(|ready| self.share(ready)) {
                    Ok((share, term)) => (Ok(share), Some(term)),
                    Err(error) => {
                        // What comes after it is not wanted any more.
                        next.store(range.end, Ordering::Relaxed);
                        (Err(error), None)
                    }
                };
                if let Ok(mut done) = done.lock() {
                    done.shares[i - range.start] = Some(share);
                    done.terms[i - range.start] = term;
                    if range.start == 0 || self.rank_sums {
                        done.fold();
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            let mut receivers = Vec::new();
            for (place, maker) in makers.iter().enumerate() {
                let (sender, receiver) = sync_channel(1);
                receivers.push(receiver);
                let mut mine = range.clone().skip(place).step_by(makers.len());
                // Until all are made, or nobody takes them any more.
                let make = move || while mine.next().is_some_and(|i| sender.send(self.ready(i)).is_ok()) {};
                scope.spawn(move || maker.install(make));
            }
            let mut ahead = (!receivers.is_empty()).then_some(Ahead { receivers, taken: 0 });
            for pool in pools {
                let (work, ahead) = (&work, ahead.take());
                scope.spawn(move || pool.install(|| work(ahead)));
            }
        });
        let done = done.into_inner().map_err(|_| anyhow!("a training worker panicked"))?;
        let shares = done.shares.into_iter().map(|share| share.context("a training worker stopped early")?);
        let shares = shares.collect::<Result<_>>()?;
        Ok((shares, done.sum.into_iter().chain(done.terms.into_iter().flatten()).collect()))
    }

    /// The clips of one micro-batch: they follow from the recipe's seed, the stage and the update, and from nothing else. Twins stand in the same
    /// update, side by side where the micro-batch is even: what their questions have in common cancels in the gradient, what tells the
    /// clips apart stays.
    fn samples(&self, index: usize) -> impl Iterator<Item = Sample> {
        let Self { seed, number, stage, .. } = *self;
        let batch = stage.micro_batch as u64;
        let first = self.step as u64 * batch * stage.accumulate as u64 + index as u64 * batch;
        let mut rng = ChaCha8Rng::seed_from_u64(clip_index(seed, number, first));
        let odds: f32 = stage.frames.iter().map(|(_, odds)| odds).sum();
        let mut draw = if odds > 0.0 { rng.random_range(0.0..odds) } else { 0.0 };
        let frames = stage.frames.iter().find(|(_, odds)| {
            draw -= odds;
            draw < 0.0
        });
        let frames = frames.or(stage.frames.last()).map_or(1, |(n, _)| *n);
        let world = stage.clips_of_world();
        (0..batch).filter_map(move |i| {
            let (mix, world) = world?;
            let (pair, twin) = ((first + i) / 2, (first + i) % 2 == 1);
            let clip = clip_index(seed, number, pair);
            let listed = stage.only.get((clip % stage.only.len().max(1) as u64) as usize);
            let seed = clip_seed(Split::Train, *listed.unwrap_or(&clip));
            Some(world_stream(seed, twin, mix, world, frames, stage.window))
        })
    }

    /// The ids of the samples of some micro-batches; they are drawn again, so this is for errors.
    pub fn ids(&self, range: Range<usize>) -> String {
        match self.feed {
            Some(feed) => feed.ids(self.step, range),
            None => {
                range.flat_map(|i| self.samples(i)).map(|sample| sample.id).collect::<Vec<_>>().join(", ")
            }
        }
    }

    /// The examples of one micro-batch.
    fn ready(&self, index: usize) -> Result<Ready> {
        if let Some(feed) = self.feed {
            return feed.take(self.step, index);
        }
        let mut ready = Ready { examples: Vec::new(), ids: Vec::new() };
        for sample in self.samples(index) {
            ready.examples.push(self.encoder.example(&sample, &self.network.vision)?);
            ready.ids.push(sample.id);
        }
        Ok(ready)
    }

    fn share(&self, Ready { examples, ids }: Ready) -> Result<(Share, Term)> {
        let work = self.network.work(&examples)?;
        let pass = Pass { checkpointing: self.checkpointing, features: self.seen(&ids, &examples)? };
        let Gradient { loss, weight, grads } = self.network.gradient(&examples, self.vars, &pass)?;
        let sick = guard::sick(self.names, &grads);
        if !loss.is_finite() || sick.is_some() {
            bail!(
                "the loss is {loss} on the samples {}; gradients are not finite in {}; {}. Lower lr or raise warmup",
                ids.join(", "),
                sick.unwrap_or("no group".into()),
                guard::largest(self.names, self.vars)?
            );
        }
        let flops = flops::flops(&self.network.config, self.stage.tower_frozen(), &work);
        Ok((Share { loss, weight, tokens: work.rows, flops }, grads))
    }

    /// The features of all that a micro-batch shows, clips first and then pictures (as [`Network`] wants them), from the cache where there is one.
    fn seen(&self, ids: &[String], examples: &[Example]) -> Result<Option<Tensor>> {
        let Some(cache) = self.features else { return Ok(None) };
        let mut shown: Vec<(&String, &Example)> = ids.iter().zip(examples).collect();
        shown.sort_by_key(|(_, example)| !example.pictures.is_empty());
        let shown = shown.into_iter().filter_map(|(id, e)| Some((id, e.patches.as_ref()?)));
        let device = self.network.decoder.device();
        let get = |(id, patches): (&String, &Tensor)| {
            cache.get(id, &patches.to_device(device)?, &self.network.vision)
        };
        let all = shown.map(get).collect::<Result<Vec<_>>>()?;
        Ok(if all.is_empty() { None } else { Some(Tensor::cat(&all, 0)?) })
    }
}

/// Index within the training split of clip `n` of a stage; those of other seeds and stages lie elsewhere (2^62 places, so that a
/// collision is as good as impossible).
pub fn clip_index(seed: u64, stage: usize, n: u64) -> u64 {
    let digest = Sha256::digest(format!("{seed}/{stage}/{n}").as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(bytes) >> 2
}

#[cfg(test)]
mod tests {
    use super::super::encode::Masking;
    use super::super::recipe::Recipe;
    use super::super::stage::{network, variables};
    use super::super::start::start;
    use super::*;
    use candle_core::{DType, Device};
    use utr_models::{Config, weights};

    const RECIPE: &str = r#"
name = "tiny"
seed = 3
checkpoint_every = 4
validate_every = 1000
quant = "q8_0"
[sizes]
image_size = 32
patch = 8
vision = [32, 64, 1, 2]
decoder = [64, 96, 2, 4, 2]
rope_theta = 10000.0
max_positions = 2048
vocab = 640
[[stages]]
name = "tune"
kind = "tune"
steps = 1
micro_batch = 1
accumulate = 7
frames = [[1, 1.0], [6, 1.0]]
schedule = { lr = 3e-3, muon = true }
mix = { skill_turns = 2, utr_turns = 1, caption_turns = 0, instruction_turns = 1 }
world = { min_objects = 1, max_objects = 2, max_occluders = 0, camera = false, textures = false, backdrops = false, large_only = true, held_out = "never" }
"#;

    /// Losses and gradients, to the bit, of one worker alone, of several, and of one for whom others draw; also of a rank that adds up its own.
    #[test]
    fn who_draws_and_who_computes_changes_no_bit() {
        let folder = tempfile::tempdir().unwrap();
        let recipe: Recipe = toml::from_str(RECIPE).unwrap();
        start(&recipe, folder.path()).unwrap();
        let mut config = Config::load(folder.path()).unwrap();
        let loaded = weights::load(folder.path(), &mut config, DType::F32, &Device::Cpu).unwrap();
        let stage = &recipe.stages[0];
        let (computed, vars) = variables(&loaded, stage, DType::F32, &Device::Cpu).unwrap();
        let (names, vars): (Vec<String>, Vec<Var>) = vars.into_iter().unzip();
        let network = network(&config, &computed, None).unwrap();
        let encoder = Encoder::load(folder.path(), &config, Masking::Answer, 0.0).unwrap();
        let pool = |_| rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let pools: Vec<_> = (0..4).map(pool).collect();
        let run = |rank_sums, range: Range<usize>, computing: usize, drawing: usize| {
            let batch = Batch {
                seed: 3,
                number: 0,
                stage,
                step: 0,
                network: &network,
                encoder: &encoder,
                feed: None,
                names: &names,
                vars: &vars,
                checkpointing: false,
                rank_sums,
                features: None,
            };
            let (pools, makers) = (&pools[..computing], &pools[computing..computing + drawing]);
            let (shares, terms) = batch.shares(range, pools, makers).unwrap();
            (shares.iter().map(|share| share.loss.to_bits()).collect::<Vec<_>>(), terms)
        };
        let (losses, whole) = run(false, 0..7, 1, 0);
        assert_eq!((losses.len(), whole.len()), (7, 1));
        for (computing, drawing) in [(3, 0), (1, 1), (1, 3)] {
            assert!(run(false, 0..7, computing, drawing) == (losses.clone(), whole.clone()));
        }
        let (_, each) = run(false, 4..7, 1, 2);
        let (_, sum) = run(true, 4..7, 1, 2);
        assert_eq!((each.len(), sum.len()), (3, 1));
        let mut want = each[0].clone();
        for term in &each[1..] {
            want.iter_mut().zip(term).for_each(|(sum, term)| add(sum, term));
        }
        assert!(sum[0] == want);
    }
}
