//! The loop: gradients of the micro-batches, their sum over the ranks, update, log, checkpoint.
//!
//! Comes in: a recipe, a run folder and the other ranks. Goes out: the finished checkpoint. Gradients are added in the order of the micro-batches, so
//! that the result does not depend on how many workers there are, nor ranks (but see [`Recipe::rank_sums`]). A stopped run goes on from its last checkpoint with the same
//! clips and the same losses; one that fails keeps it and tells the other ranks. Only rank 0 writes; all read the run folder.

use super::checkpoint::{self, State};
use super::curves;
use super::data::Corpora;
use super::data::corpus::Record;
use super::data::feed::{Feed, Reading, Source};
use super::data::order::Order;
use super::encode::Encoder;
use super::features::Features;
use super::gradient::Batch;
use super::guard::{self, Guard};
use super::lora::{ADAPTERS, Adapters};
use super::optimizer::{AdamW, squares};
use super::ranks::{Transport, agree, barrier, exchange_numbers};
use super::recipe::{Kind, Recipe, Stage};
use super::report::{self, Report};
use super::stage::{digest, network, variables};
use super::{events, flops, folder};
use crate::parts::Shard;
use crate::validate::Validation;
use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use utr_models::Config;
use utr_models::network::Network;
use utr_models::weights::{self, Weights};

/// How a recipe is run.
pub struct Options {
    /// Where weights, examples and products are. The optimizer's moments stay with the CPU.
    pub device: Device,
    /// Threads of this rank; each trains on its own clips. With a CUDA device one computes and the others draw clips of the world ahead of it. All step the optimizer.
    pub workers: usize,
    /// Takes a changed recipe and writes the change down.
    pub amend: bool,
    /// Updates between plain progress lines.
    pub log_every: usize,
    /// Of several runs at once, this one's name: its progress comes in plain lines that begin with it.
    pub label: Option<String>,
    /// What is watched meanwhile.
    pub validation: Option<Validation>,
    /// How data on disk are read.
    pub reading: Reading,
    /// The data of each stage, as [`super::data::settle`] read them.
    pub corpora: Corpora,
}

/// A recipe in progress.
pub struct Driver<'a> {
    recipe: &'a Recipe,
    run: PathBuf,
    /// One thread each. All step the optimizer; on a device the first alone computes, on clips that the others draw.
    pools: Vec<rayon::ThreadPool>,
    options: Options,
    ranks: Box<dyn Transport>,
    stop: &'a AtomicBool,
}

/// What one update came to, on all ranks.
struct Update {
    loss: f64,
    /// Norm of the whole gradient.
    norm: f64,
    /// Sum of squares of each variable's gradient.
    squares: Vec<f64>,
    tokens: f64,
    flops: f64,
    /// Some rank was asked to stop.
    stop: bool,
}

/// A stage on the way: everything that lives as long as it.
struct Training<'a> {
    stage: &'a Stage,
    config: Config,
    /// What does not move, in f32; also the matrices under adapters.
    frozen: Weights,
    /// What the network is built over, without the adapters.
    computed: Weights,
    features: Option<Features>,
    adapters: Option<Adapters>,
    optimizer: AdamW,
    network: Network,
    encoder: Arc<Encoder>,
    /// What is read ahead, where the stage has `data`.
    feed: Option<Feed>,
    /// The checkpoint that is known to be good.
    last: PathBuf,
}

impl<'a> Driver<'a> {
    /// Prepares the workers; `stop` asks for a checkpoint and an early, clean end. A run goes on only with the recipe it began with, as
    /// far as it has come, or with an amended one.
    pub fn new(
        recipe: &'a Recipe,
        run: &Path,
        options: Options,
        ranks: Box<dyn Transport>,
        stop: &'a AtomicBool,
    ) -> Result<Self> {
        for stage in &recipe.stages {
            ensure!(
                ranks.size() <= stage.accumulate,
                "stage {} has {} micro-batches an update (accumulate): too few for {} ranks",
                stage.name,
                stage.accumulate,
                ranks.size()
            );
        }
        let pool = |_| rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let pools =
            (0..options.workers.max(1)).map(pool).collect::<Result<_, _>>().context("starting workers")?;
        Ok(Self { recipe, run: run.to_path_buf(), pools, options, ranks, stop })
    }

    /// The threads that compute, and those that draw clips for them.
    fn hands(&self) -> (&[rayon::ThreadPool], &[rayon::ThreadPool]) {
        self.pools.split_at(if self.options.device.is_cpu() { self.pools.len() } else { 1 })
    }

    /// Runs all stages that are not done, from the last checkpoint or from nothing. `only` limits the run to stages of one kind, which may all be done.
    /// Returns the final checkpoint, or `None` where it was stopped.
    pub fn train(&mut self, only: Option<Kind>) -> Result<Option<PathBuf>> {
        let result = self.stages(only);
        if let Err(error) = &result {
            self.ranks.abort(&format!("{error:#}"));
        }
        result
    }

    fn stages(&mut self, only: Option<Kind>) -> Result<Option<PathBuf>> {
        let told = format!("{}\n{only:?}\n{}", env!("CARGO_PKG_VERSION"), toml::to_string(self.recipe)?);
        agree(&mut *self.ranks, "the recipe, the command or the program's version", &Sha256::digest(told))?;
        let claimed = match self.ranks.rank() {
            0 => Some(folder::claim(&self.run)?),
            _ => None,
        };
        if claimed.is_some() {
            folder::begin(self.recipe, &self.run, self.options.amend)?;
        }
        barrier(&mut *self.ranks)?;
        let (mut model, mut state) = self.place()?;
        let before = state.total_steps;
        while let Some(stage) = self.recipe.stages.get(state.stage) {
            if let Some(kind) = only.filter(|kind| *kind != stage.kind) {
                let done = self.recipe.stages.iter().take(state.stage).any(|stage| stage.kind == kind);
                ensure!(
                    done,
                    "nothing of this kind is next: stage {} of the recipe is {:?}",
                    stage.name,
                    stage.kind
                );
                if state.total_steps == before && self.ranks.rank() == 0 {
                    eprintln!("already done; next is stage {} of the recipe, {:?}", stage.name, stage.kind);
                }
                break;
            }
            let stopped;
            (model, stopped) = self.stage(stage, &model, &mut state)?;
            if stopped {
                return Ok(None);
            }
        }
        Ok(Some(model))
    }

    /// Where the run is, in rank 0's word: another machine may not see yet what was written last.
    fn place(&mut self) -> Result<(PathBuf, State)> {
        let told = match self.ranks.rank() {
            0 => {
                let (model, state) = folder::place(&self.run)?;
                serde_json::to_vec(&(model.file_name().map(|name| name.to_string_lossy()), state))?
            }
            _ => Vec::new(),
        };
        let all = self.ranks.exchange(&told)?;
        let (name, state): (String, State) =
            serde_json::from_slice(all.first().context("rank 0 is silent")?)?;
        Ok((self.run.join(name), state))
    }

    /// Loads what a stage needs from a checkpoint; all ranks must find the same.
    fn load<'s>(&mut self, stage: &'s Stage, model: &Path, state: &State) -> Result<Training<'s>> {
        if self.ranks.rank() > 0 {
            folder::shows(model)?;
        }
        let mut config = Config::load(model)?;
        let mut weights = weights::load(model, &mut config, DType::F32, &Device::Cpu)?;
        agree(&mut *self.ranks, "the weights or their place in the recipe", &digest(&weights, state)?)?;
        let adapters = match &stage.lora {
            Some(lora) if state.step > 0 => Some(Adapters::restore(lora, &mut weights, model)?),
            Some(lora) => Some(Adapters::new(lora, &weights, self.recipe.seed)?),
            None => None,
        };
        let (dtype, device) = (self.recipe.precision.dtype(), &self.options.device);
        let (computed, mut vars) = variables(&weights, stage, dtype, device)?;
        let mut masters = weights.clone();
        masters.extend(adapters.iter().flat_map(Adapters::variables).map(|(n, v)| (n, v.into_inner())));
        let adapters = adapters.map(|adapters| adapters.cast(dtype, device)).transpose()?;
        vars.extend(adapters.iter().flat_map(Adapters::variables));
        let optimizer = AdamW::new(vars, self.ranks.rank(), self.ranks.size());
        let mut optimizer = optimizer.with_masters(&masters)?;
        drop(masters);
        weights.retain(|name, _| !optimizer.names().contains(name));
        if state.step > 0 {
            optimizer.restore(&model.join(MOMENTS))?;
        }
        let masking = (self.recipe.masking, self.recipe.length_power);
        let encoder = Arc::new(Encoder::load(model, &config, masking.0, masking.1)?);
        Ok(Training {
            stage,
            feed: self.feed(stage, state, &encoder)?,
            encoder,
            network: network(&config, &computed, adapters.as_ref())?,
            features: stage.feature_cache.as_ref().map(|c| Features::new(c, &computed)).transpose()?,
            config,
            frozen: weights,
            computed,
            adapters,
            optimizer,
            last: model.to_path_buf(),
        })
    }

    /// Starts to read what a stage trains on, from `state` on.
    fn feed(&self, stage: &Stage, state: &State, encoder: &Arc<Encoder>) -> Result<Option<Feed>> {
        let Some(data) = &stage.data else { return Ok(None) };
        let corpus = self.options.corpora.get(state.stage).cloned().flatten();
        let corpus = corpus.with_context(|| format!("the data of stage {} were not read", stage.name))?;
        let lengths = corpus.records.iter().map(Record::length).collect();
        let (batch, world) = (stage.micro_batch, stage.accumulate);
        let order = Order::new(lengths, batch, world, data.group_by_length, (self.recipe.seed, state.stage));
        let source = Source { data: data.clone(), corpus, order, encoder: encoder.clone() };
        let place = Shard { index: self.ranks.rank(), of: self.ranks.size() };
        Feed::start(source, state.step, place.range(world), self.options.reading).map(Some)
    }

    /// Trains one stage from a checkpoint; returns its last checkpoint and whether it was stopped.
    fn stage(&mut self, stage: &Stage, model: &Path, state: &mut State) -> Result<(PathBuf, bool)> {
        let mut training = self.load(stage, model, state)?;
        let own = flops::ceiling(&self.options.device, self.recipe.precision.dtype(), &self.pools)?;
        let ceiling = exchange_numbers(&mut *self.ranks, &[own])?.iter().flatten().sum::<f64>();
        let mut report = match self.ranks.rank() {
            0 => Some(Report::open(&self.run, stage, state, &self.options)?),
            _ => None,
        };
        let known = if report.is_some() { curves::read(&report::log(&self.run))? } else { Vec::new() };
        let mut guard = Guard::new(known[known.len().saturating_sub(state.step)..].iter().map(|r| r.loss));
        let mut stopped = false;
        while state.step < stage.steps && !stopped {
            let begun = Instant::now();
            let stops = format!(
                "stage {} stopped at its update {} (update {} of the run); the last good checkpoint is {}",
                stage.name,
                state.step + 1,
                state.total_steps + 1,
                training.last.display()
            );
            let update = self.update(&mut training, state).with_context(|| stops.clone())?;
            guard.add(update.loss);
            if let Some(what) = guard.diverged().filter(|_| report.is_some()) {
                return Err(self.runaway(&training, state, &update, &what)?.context(stops));
            }
            stopped = update.stop;
            state.advance(stage, begun.elapsed().as_secs_f64());
            if let Some(report) = &mut report {
                let record =
                    self.record(&training, state, &update, [begun.elapsed().as_secs_f64(), ceiling])?;
                report.add(&record).context(stops)?;
            }
            if state.total_steps.is_multiple_of(self.recipe.checkpoint_every) && state.step < stage.steps {
                self.save(&mut training, state, guard.calm())?;
                report.iter().try_for_each(Report::draw)?;
            }
        }
        if let Some(count) = training.feed.as_ref().map(Feed::unreadable).filter(|count| *count > 0) {
            eprintln!("{}: {count} samples could not be read and were replaced (named above)", stage.name);
        }
        let finished = state.step >= stage.steps;
        if finished {
            (state.stage, state.step) = (state.stage + 1, 0);
        }
        self.save(&mut training, state, finished || guard.calm())?;
        report.iter().try_for_each(|report| {
            report.finish();
            report.draw()
        })?;
        Ok((training.last, stopped))
    }

    /// What is written down of the update that led to `state`, which took so many seconds where these threads could have done so many
    /// operations per second.
    fn record(
        &self,
        training: &Training<'_>,
        state: &State,
        update: &Update,
        [seconds, ceiling]: [f64; 2],
    ) -> Result<curves::Record> {
        let stage = training.stage;
        let validation = match &self.options.validation {
            Some(v) if state.total_steps.is_multiple_of(self.recipe.validate_every) => {
                v.run(&training.network, &training.encoder, self.hands().0)?
            }
            _ => BTreeMap::new(),
        };
        Ok(curves::Record {
            step: state.total_steps,
            stage: stage.name.clone(),
            loss: update.loss,
            lr: stage.schedule.lr * stage.schedule.factor(state.step - 1, stage.steps),
            grad_norm: update.norm,
            samples_per_s: stage.clips() as f64 / seconds,
            samples: state.samples,
            tokens_per_s: update.tokens / seconds,
            utilization: update.flops / seconds / ceiling,
            time: events::seconds(),
            validation,
        })
    }

    /// Why a run ends whose loss has run away.
    fn runaway(
        &self,
        training: &Training<'_>,
        state: &State,
        update: &Update,
        what: &str,
    ) -> Result<anyhow::Error> {
        let (names, vars) = (training.optimizer.names(), training.optimizer.vars());
        Ok(anyhow::anyhow!(
            "{what}; {}; {}. The samples of this update: {}. Lower lr or raise warmup",
            guard::steepest(names, &update.squares),
            guard::largest(names, vars)?,
            self.batch(training, state).ids(0..training.stage.accumulate)
        ))
    }

    /// The update that `state` is at.
    fn batch<'t>(&self, training: &'t Training<'_>, state: &State) -> Batch<'t> {
        Batch {
            seed: self.recipe.seed,
            number: state.stage,
            stage: training.stage,
            step: state.step,
            network: &training.network,
            encoder: &training.encoder,
            feed: training.feed.as_ref(),
            names: training.optimizer.names(),
            vars: training.optimizer.vars(),
            checkpointing: self.recipe.checkpointing,
            rank_sums: self.recipe.rank_sums,
            features: training.features.as_ref(),
        }
    }

    /// One update: this rank's micro-batches, the sum of all, this rank's variables, everybody's variables.
    fn update(&mut self, training: &mut Training<'_>, state: &State) -> Result<Update> {
        let stage = training.stage;
        let place = Shard { index: self.ranks.rank(), of: self.ranks.size() };
        let (computing, drawing) = self.hands();
        let batch = self.batch(training, state);
        let (shares, terms) = batch.shares(place.range(stage.accumulate), computing, drawing)?;
        let ranks = &mut *self.ranks;
        let mut mine = vec![f64::from(u8::from(self.stop.load(Ordering::Relaxed)))];
        mine.extend(shares.iter().flat_map(|s| [s.loss, s.weight, s.tokens as f64, s.flops]));
        let all = exchange_numbers(ranks, &mine)?;
        let sum = |column: usize| {
            let micro = all.iter().flat_map(|numbers| numbers.get(1..).unwrap_or_default().chunks_exact(4));
            micro.map(|numbers| numbers[column]).sum::<f64>()
        };
        let (loss, weight) = (sum(0), sum(1));
        ensure!(weight > 0.0, "an update without a single target token");
        let mut grads = ranks.reduce(terms, training.optimizer.owners())?;
        grads.iter_mut().flatten().for_each(|g| *g /= weight as f32);
        let squares: Vec<f64> = exchange_numbers(ranks, &squares(&grads))?.into_iter().flatten().collect();
        let norm = squares.iter().sum::<f64>().sqrt();
        if !norm.is_finite() {
            bail!(
                "the gradient's norm is {norm}; {}. The samples of this update: {}. Lower lr or raise warmup",
                guard::largest(training.optimizer.names(), training.optimizer.vars())?,
                self.batch(training, state).ids(0..stage.accumulate)
            );
        }
        let factor = stage.schedule.factor(state.step, stage.steps);
        training.optimizer.step(&grads, norm, &stage.schedule, factor, &self.pools)?;
        training.optimizer.spread(ranks)?;
        if training.adapters.is_some() {
            training.network = network(&training.config, &training.computed, training.adapters.as_ref())?;
        }
        let stop = all.iter().any(|numbers| numbers.first() == Some(&1.0));
        Ok(Update { loss: loss / weight, norm, squares, tokens: sum(2), flops: sum(3), stop })
    }

    /// Writes a checkpoint, on rank 0, unless rank 0 finds it not worth keeping.
    fn save(&mut self, training: &mut Training<'_>, state: &State, calm: bool) -> Result<()> {
        let ranks = &mut *self.ranks;
        let word = exchange_numbers(ranks, &[f64::from(u8::from(calm))])?;
        if word.first().and_then(|word| word.first()) != Some(&1.0) {
            return Ok(());
        }
        let moments = training.optimizer.moments(ranks)?;
        let wide = training.optimizer.wide(ranks)?;
        if ranks.rank() == 0 {
            let (names, vars) = (training.optimizer.names(), training.optimizer.vars());
            ensure!(
                guard::finite(vars)?,
                "after update {} {}: it is not saved. The last good checkpoint is {}. Lower lr or raise warmup",
                state.total_steps,
                guard::largest(names, vars)?,
                training.last.display()
            );
            let mut tensors = vec![(MOMENTS, moments)];
            let mut whole = training.frozen.clone();
            if let Some(adapters) = &training.adapters {
                let adapters = adapters.valued(&wide)?;
                tensors.push((ADAPTERS, adapters.tensors(&whole)?));
                whole = adapters.merge(&whole)?;
            }
            whole.extend(wide.into_iter().filter(|(name, _)| training.computed.contains_key(name)));
            let saved = checkpoint::save(&self.run, &folder::start(&self.run), &whole, &tensors, state);
            saved.with_context(|| format!("the last good checkpoint is {}", training.last.display()))?;
        }
        barrier(&mut *self.ranks)?;
        // By its name: another machine may not see yet what rank 0 wrote.
        training.last = self.run.join(checkpoint::name(state));
        Ok(())
    }
}

/// The moments' file in a checkpoint.
const MOMENTS: &str = "optimizer.safetensors";
