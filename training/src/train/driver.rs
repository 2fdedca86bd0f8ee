//! The loop: draw clips, run workers, add gradients, update, log, checkpoint.
//!
//! Comes in: a recipe and a run folder. Goes out: the finished checkpoint. Each worker is one thread that draws its own clips, renders them and runs
//! forward and backward alone; gradients are added in the order of the micro-batches, so that the result does not depend on
//! how many workers there are. A stopped run goes on from its last checkpoint with the same clips and the same losses.

use super::checkpoint::{self, State};
use super::curves::{self, Record};
use super::encode::Encoder;
use super::optimizer::AdamW;
use super::recipe::{Kind, Recipe, Stage};
use crate::validate::Validation;
use crate::world::stream::world_stream;
use crate::world::{Split, clip_seed};
use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Var};
use indicatif::{ProgressBar, ProgressStyle};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;
use utr_models::network::Network;
use utr_models::weights::{self, Weights};
use utr_models::{Config, atomic};

/// One worker's share of an update.
struct Share {
    loss: f64,
    weight: f64,
    grads: Vec<Vec<f32>>,
}

/// A recipe in progress.
pub struct Driver<'a> {
    recipe: &'a Recipe,
    run: PathBuf,
    pools: Vec<rayon::ThreadPool>,
    validation: Option<Validation>,
    amend: bool,
    stop: &'a AtomicBool,
}

impl<'a> Driver<'a> {
    /// Prepares `workers` threads; `stop` asks for a checkpoint and an early, clean end. A run goes on only with the recipe it began with, as
    /// far as it has come; with `amend` another one is taken and the change is written down.
    pub fn new(
        recipe: &'a Recipe,
        run: &Path,
        workers: usize,
        validation: Option<Validation>,
        amend: bool,
        stop: &'a AtomicBool,
    ) -> Result<Self> {
        let pool = |_| rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let pools = (0..workers.max(1)).map(pool).collect::<Result<_, _>>().context("starting workers")?;
        std::fs::create_dir_all(run).with_context(|| format!("creating {}", run.display()))?;
        Ok(Self { recipe, run: run.to_path_buf(), pools, validation, amend, stop })
    }

    /// The model that the run began with; its files besides the weights belong to every checkpoint.
    fn start(&self) -> PathBuf {
        self.run.join("start")
    }

    /// Runs all stages that are not done, from the last checkpoint or from nothing. `only` limits the run to stages of one kind.
    /// Returns the final checkpoint, or `None` where it was stopped.
    pub fn train(&self, only: Option<Kind>) -> Result<Option<PathBuf>> {
        let mut model = match checkpoint::latest(&self.run)? {
            Some(folder) => folder,
            None => {
                let folder = self.start();
                if !folder.join("model.safetensors").exists() {
                    super::start::start(self.recipe, &folder)?;
                }
                folder
            }
        };
        let mut state = if model.ends_with("start") { State::default() } else { checkpoint::state(&model)? };
        self.bind(&state)?;
        let before = state.total_steps;
        while let Some(stage) = self.recipe.stages.get(state.stage) {
            if only.is_some_and(|kind| kind != stage.kind) {
                ensure!(
                    state.total_steps > before,
                    "nothing of this kind is next: stage {} of the recipe is {:?}",
                    stage.name,
                    stage.kind
                );
                break;
            }
            model = self.stage(stage, &model, &mut state)?;
            if self.stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
        }
        Ok(Some(model))
    }

    /// Ties the run folder to its recipe, so that a bundle names the recipe that made it.
    fn bind(&self, state: &State) -> Result<()> {
        let path = self.run.join("recipe.toml");
        if path.exists() {
            let change = Recipe::load(&path)?.departs(self.recipe, state.stage);
            if let Some(what) = change {
                ensure!(
                    self.amend,
                    "{} was made with another recipe: {what} differs. Go on with {}, name another folder with --output, or take the \
                     change with --amend",
                    self.run.display(),
                    path.display()
                );
                let line = format!("after update {}: {what} changed\n", state.total_steps);
                let known = amendments(&self.run)?;
                atomic::write(&self.run.join(AMENDMENTS), (known + &line).as_bytes())?;
            }
        }
        Ok(atomic::write(&path, toml::to_string(self.recipe)?.as_bytes())?)
    }

    /// Trains one stage from a checkpoint; returns its last checkpoint.
    fn stage(&self, stage: &Stage, model: &Path, state: &mut State) -> Result<PathBuf> {
        let mut config = Config::load(model)?;
        let mut weights = weights::load(model, &mut config, DType::F32, &Device::Cpu)?;
        let vars = variables(&mut weights, stage.kind)?;
        let mut optimizer = AdamW::new(vars);
        let moments = model.join("optimizer.safetensors");
        if state.step > 0 {
            optimizer.restore(&moments)?;
        }
        let network = Network::new(config.clone(), &weights)?;
        let encoder = Encoder::load(model, &config, self.recipe.masking, self.recipe.length_power)?;
        let log = self.run.join("log.jsonl");
        curves::cut(&log, state.total_steps)?;
        let bar = progress(stage, state.step);
        let mut last = model.to_path_buf();
        while state.step < stage.steps && !self.stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let factor = stage.schedule.factor(state.step, stage.steps);
            let (loss, grads) = self.gradients(stage, state, &network, &encoder, &optimizer)?;
            let norm = optimizer.step(&grads, &stage.schedule, factor, &self.pools)?;
            if !loss.is_finite() || !norm.is_finite() {
                bail!(
                    "stage {} diverged at update {}: loss {loss}, gradient norm {norm}; the last good checkpoint is {}. Lower lr or raise warmup.",
                    stage.name,
                    state.step,
                    last.display()
                );
            }
            let clips = (stage.micro_batch * stage.accumulate) as u64;
            let seconds = begun.elapsed().as_secs_f64();
            (state.step, state.total_steps, state.samples) =
                (state.step + 1, state.total_steps + 1, state.samples + clips);
            state.seconds += seconds;
            let validation = match &self.validation {
                Some(v) if state.total_steps.is_multiple_of(self.recipe.validate_every) => {
                    v.run(&network, &encoder, &self.pools)?
                }
                _ => BTreeMap::new(),
            };
            let record = Record {
                step: state.total_steps,
                stage: stage.name.clone(),
                loss,
                lr: stage.schedule.lr * factor,
                grad_norm: norm,
                samples_per_s: clips as f64 / seconds,
                samples: state.samples,
                validation,
            };
            curves::append(&log, &record)?;
            show(&bar, &record);
            if state.total_steps.is_multiple_of(self.recipe.checkpoint_every) && state.step < stage.steps {
                last = checkpoint::save(&self.run, &self.start(), &weights, &optimizer, state)?;
                curves::draw(&curves::read(&log)?, &self.run.join("loss.svg"))?;
            }
        }
        if state.step >= stage.steps {
            (state.stage, state.step) = (state.stage + 1, 0);
        }
        last = checkpoint::save(&self.run, &self.start(), &weights, &optimizer, state)?;
        curves::draw(&curves::read(&log)?, &self.run.join("loss.svg"))?;
        bar.finish();
        Ok(last)
    }

    /// Mean loss of one update and its gradients, one flat vector per variable.
    fn gradients(
        &self,
        stage: &Stage,
        state: &State,
        network: &Network,
        encoder: &Encoder,
        optimizer: &AdamW,
    ) -> Result<(f64, Vec<Vec<f32>>)> {
        let next = AtomicUsize::new(0);
        let shares: Mutex<Vec<Option<Result<Share>>>> =
            Mutex::new((0..stage.accumulate).map(|_| None).collect());
        std::thread::scope(|scope| {
            for pool in &self.pools {
                scope.spawn(|| {
                    pool.install(|| {
                        loop {
                            let i = next.fetch_add(1, Ordering::Relaxed);
                            if i >= stage.accumulate {
                                break;
                            }
                            let share = self.share(stage, state, i, network, encoder, optimizer);
                            if let Ok(mut shares) = shares.lock() {
                                shares[i] = Some(share);
                            }
                        }
                    })
                });
            }
        });
        let shares = shares.into_inner().map_err(|_| anyhow::anyhow!("a training worker panicked"))?;
        let mut sum: Option<Share> = None;
        for share in shares {
            let share = share.context("a training worker stopped early")??;
            match &mut sum {
                None => sum = Some(share),
                Some(sum) => {
                    (sum.loss, sum.weight) = (sum.loss + share.loss, sum.weight + share.weight);
                    for (a, b) in sum.grads.iter_mut().flatten().zip(share.grads.iter().flatten()) {
                        *a += b;
                    }
                }
            }
        }
        let Share { loss, weight, mut grads } = sum.context("an update without micro-batches")?;
        ensure!(weight > 0.0, "an update without a single target token");
        grads.iter_mut().flatten().for_each(|g| *g /= weight as f32);
        Ok((loss / weight, grads))
    }

    /// One micro-batch: its clips follow from the recipe's seed, the stage and the update, and from nothing else. Twins stand in the same
    /// update, side by side where the micro-batch is even: what their questions have in common cancels in the gradient, what tells the
    /// clips apart stays.
    fn share(
        &self,
        stage: &Stage,
        state: &State,
        index: usize,
        network: &Network,
        encoder: &Encoder,
        optimizer: &AdamW,
    ) -> Result<Share> {
        let batch = stage.micro_batch as u64;
        let first = state.step as u64 * batch * stage.accumulate as u64 + index as u64 * batch;
        let mut rng = ChaCha8Rng::seed_from_u64(clip_index(self.recipe.seed, state.stage, first));
        let odds: f32 = stage.frames.iter().map(|(_, odds)| odds).sum();
        let mut draw = rng.random_range(0.0..odds);
        let frames = stage.frames.iter().find(|(_, odds)| {
            draw -= odds;
            draw < 0.0
        });
        let frames = frames.or(stage.frames.last()).map_or(1, |(n, _)| *n);
        let examples = (0..batch)
            .map(|i| {
                let (pair, twin) = ((first + i) / 2, (first + i) % 2 == 1);
                let seed = clip_seed(Split::Train, clip_index(self.recipe.seed, state.stage, pair));
                let sample = world_stream(seed, twin, &stage.mix, &stage.world, frames, stage.window);
                encoder.example(&sample, &network.vision)
            })
            .collect::<Result<Vec<_>>>()?;
        let (loss, weight) = network.loss(&examples)?;
        let grads = loss.backward()?;
        let flat = |var: &Var| match grads.get(var) {
            Some(grad) => Ok(grad.flatten_all()?.to_vec1::<f32>()?),
            None => Ok(vec![0.0; var.elem_count()]),
        };
        let grads = optimizer.vars().iter().map(flat).collect::<Result<_>>()?;
        Ok(Share { loss: f64::from(loss.to_scalar::<f32>()?), weight, grads })
    }
}

/// What was changed of a run's recipe on the way; lines of text.
const AMENDMENTS: &str = "amendments.txt";

/// The changes that a run's recipe went through, empty where there were none.
pub fn amendments(run: &Path) -> Result<String> {
    let path = run.join(AMENDMENTS);
    if !path.exists() {
        return Ok(String::new());
    }
    std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// Index within the training split of clip `n` of a stage; those of other seeds and stages lie elsewhere (2^62 places, so that a
/// collision is as good as impossible).
pub fn clip_index(seed: u64, stage: usize, n: u64) -> u64 {
    let digest = Sha256::digest(format!("{seed}/{stage}/{n}").as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(bytes) >> 2
}

/// Makes the tensors that a stage moves into variables, in place; the others stay constants and cost no gradient.
fn variables(weights: &mut Weights, kind: Kind) -> Result<Vec<(String, Var)>> {
    let mut vars = Vec::new();
    for (name, tensor) in weights.iter_mut() {
        let moves = match kind {
            Kind::Align => name.starts_with("multi_modal_projector"),
            // The tower's last norm is saved for others but never used.
            Kind::Tune => !name.contains("post_layernorm"),
        };
        if moves {
            let var = Var::from_tensor(tensor)?;
            *tensor = var.as_tensor().clone();
            vars.push((name.clone(), var));
        }
    }
    Ok(vars)
}

fn progress(stage: &Stage, done: usize) -> ProgressBar {
    let bar = ProgressBar::new(stage.steps as u64).with_position(done as u64);
    if let Ok(style) = ProgressStyle::with_template("{prefix:>10} {wide_bar} {pos}/{len} {msg} eta {eta}") {
        bar.set_style(style);
    }
    bar.set_prefix(stage.name.clone());
    bar.reset_eta();
    bar
}

fn show(bar: &ProgressBar, record: &Record) {
    bar.inc(1);
    let Record { step, loss, lr, samples_per_s, .. } = record;
    bar.set_message(format!("loss {loss:.3} lr {lr:.1e} {samples_per_s:.1} clips/s"));
    if !record.validation.is_empty() {
        let skills = record.validation.iter().map(|(skill, share)| format!("{skill} {:.0}", share * 100.0));
        bar.println(format!(
            "update {step}: loss {loss:.3}; validation % {}",
            skills.collect::<Vec<_>>().join(", ")
        ));
    }
    if bar.is_hidden() && (step % 20 == 0 || !record.validation.is_empty()) {
        // A closed pipe must not end the training.
        let line = serde_json::to_string(record).unwrap_or_default();
        writeln!(std::io::stdout(), "{line}").ok();
    }
}
