//! Studies: what difference does one thing make, all else being equal?
//!
//! Comes in: a [`Study`](study::Study), a file that was written before anything ran. Goes out: for each arm and seed a trained model and its scores; over all of them
//! `results.json`, `results.md` and figures. Runs are single-threaded, so many at a time as there are workers, and each gives the same bits whoever runs it.
//! A study that was stopped goes on where it was, and can be reported before it is over.

pub mod pool;
pub mod report;
pub mod score;
pub mod study;

use crate::eval::work::spread;
use crate::files::{hexadecimal, write_atomic};
use crate::train::data::Corpora;
use crate::train::data::feed::Reading;
use crate::train::driver::{Driver, Options};
use crate::train::encode::{Encoder, Masking};
use crate::train::gradient::clip_index;
use crate::train::ranks::Alone;
use crate::train::recipe::Recipe;
use crate::world::conversations::world_sample;
use crate::world::suite::Suite;
use crate::world::{Skill, Split, clip_seed};
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device};
use score::Scores;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use study::{Arm, Measure, Study};
use utr_models::Network;

/// Which measures these are: another word here voids what was measured before. Changed with every change of what `score` measures.
const MEASURES: &str = "";
/// Samples over which supervised tokens are counted.
const COUNTED: u64 = 300;
/// Multiples of it, without their whole parts, lie evenly between 0 and 1.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// Runs a study.
#[derive(Clone, Debug, clap::Args)]
pub struct AblateArgs {
    /// components, tpl-correlation, mix-ratio, experts, frames, or the path of a study (TOML)
    #[arg(long)]
    pub study: String,
    /// Where it goes: STUDY/ARM/SEED for each run, and the weights that studies of one base share
    #[arg(long, default_value = "runs/studies")]
    pub output: PathBuf,
    /// Runs at a time, each on one thread
    #[arg(long, default_value_t = 2, value_parser = crate::eval::at_least_one)]
    pub workers: usize,
    /// Only say what would be trained and measured
    #[arg(long, conflicts_with = "report")]
    pub dry_run: bool,
    /// Train nothing: tables and figures of the seeds that are done in all arms
    #[arg(long)]
    pub report: bool,
}

/// One trained and measured model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// What was trained and measured, as a hash: another recipe or measure voids it.
    pub of: String,
    /// The arm.
    pub arm: String,
    /// The seed.
    pub seed: u64,
    /// Supervised tokens per clip: in answers to questions, and beside them.
    pub supervised: [f64; 2],
    /// Clips trained on.
    pub clips: u64,
    /// What was measured.
    pub scores: Scores,
}

/// Runs `utr-train ablate`.
pub fn run(args: &AblateArgs, stop: &AtomicBool) -> Result<()> {
    let study = Study::load(&args.study)?;
    let recipe = Recipe::load(&study.base)?;
    let folder = args.output.join(&study.name);
    let control = study.arms.iter().find(|arm| arm.name == study.control).context("a control")?;
    let items = score::skills(&study.measure(control)?)?;
    tell(&study, &items)?;
    if args.dry_run {
        return Ok(());
    }
    let from = match &study.from {
        Some(model) => model.clone(),
        None if args.report => begun(&recipe, &args.output.join(&recipe.name))?,
        None => begin(&recipe, &args.output.join(&recipe.name), args.workers, stop)?,
    };
    let base = digest(&from.join("model.safetensors"))?;
    let parts = match args.report {
        true => pool::known(&study, &folder)?
            .context("the pool is not scored yet; without --report the same command does that")?,
        false => pool::score(&study, &folder, args.workers, stop)?,
    };
    // Seed by seed, so that a study that is stopped has whole comparisons.
    let jobs: Vec<(u64, &Arm)> =
        study.seeds.iter().flat_map(|seed| study.arms.iter().map(move |arm| (*seed, arm))).collect();
    let alone = || rayon::ThreadPoolBuilder::new().num_threads(1).build().context("starting a worker");
    let job = |n: usize| {
        let (seed, arm) = jobs[n];
        let mut recipe = study.recipe(&recipe, &from, arm, seed)?;
        if let (Some(part), Some(stage)) = (arm.pool, recipe.stages.first_mut()) {
            stage.only = parts.between(part);
        }
        let place = folder.join(&arm.name).join(seed.to_string());
        Job::new(&study, arm, seed, recipe, place, &base)
    };
    let named = |n: usize| format!("arm {}, seed {}", jobs[n].1.name, jobs[n].0);
    if args.report {
        let known = |n| job(n).and_then(|job| job.known()).with_context(|| named(n));
        let known = (0..jobs.len()).map(known).collect::<Result<Vec<_>>>()?;
        let outcomes = whole_seeds(&study, known.into_iter().flatten().collect(), &folder)?;
        return report::write(&study, &items, &outcomes, &parts, &folder);
    }
    let done = AtomicUsize::new(0);
    let outcomes = spread(jobs.len(), args.workers, stop, alone, |pool, n| {
        let outcome = pool.install(|| job(n)?.run(stop)).with_context(|| named(n))?;
        let primary = outcome.scores.get(&study.primary).copied().unwrap_or(f64::NAN);
        let count = done.fetch_add(1, Ordering::Relaxed) + 1;
        eprintln!("{count} of {}: {}, {} {primary:.3}", jobs.len(), named(n), study.primary);
        Ok(outcome)
    })?;
    report::write(&study, &items, &outcomes, &parts, &folder)
}

/// The outcomes of the seeds that are done in all arms.
fn whole_seeds(study: &Study, mut outcomes: Vec<Outcome>, folder: &Path) -> Result<Vec<Outcome>> {
    let arms = study.arms.len();
    let done = |seed: u64| outcomes.iter().filter(|outcome| outcome.seed == seed).count() == arms;
    let seeds: Vec<u64> = study.seeds.iter().copied().filter(|seed| done(*seed)).collect();
    ensure!(
        !seeds.is_empty(),
        "{} has no seed that is done in all {arms} arms with this study, these weights and this suite; without --report \
         the same command trains what is missing",
        folder.display()
    );
    outcomes.retain(|outcome| seeds.contains(&outcome.seed));
    Ok(outcomes)
}

/// What is going to happen, for people.
fn tell(study: &Study, items: &[(Skill, usize)]) -> Result<()> {
    eprintln!("{}: {}", study.name, study.question);
    for arm in &study.arms {
        let stage = study.stage(arm)?;
        eprintln!(
            "  {}: {}; {} updates of {} clips, {} seeds",
            arm.name,
            arm.about,
            stage.steps,
            stage.clips(),
            study.seeds.len()
        );
    }
    let skills: Vec<String> =
        items.iter().filter(|(_, n)| *n > 0).map(|(s, n)| format!("{} {n}", s.word())).collect();
    eprintln!("  measured items: {}", skills.join(", "));
    Ok(())
}

/// The weights that all arms begin from.
fn begin(base: &Recipe, run: &Path, workers: usize, stop: &AtomicBool) -> Result<PathBuf> {
    let options = options(workers, None);
    let model = Driver::new(base, run, options, Box::new(Alone), stop)?.train(None)?;
    model.context("stopped; the same command goes on")
}

/// The same where they are there already.
fn begun(base: &Recipe, run: &Path) -> Result<PathBuf> {
    let latest = std::fs::read_to_string(run.join("latest")).unwrap_or_default();
    ensure!(
        latest.trim().ends_with(&format!("-stage-{}", base.stages.len())),
        "the weights that all arms begin from are not trained yet; without --report the same command does that"
    );
    Ok(run.join(latest.trim()))
}

/// SHA-256 of a file.
fn digest(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(hexadecimal(&Sha256::digest(bytes)))
}

fn options(workers: usize, label: Option<String>) -> Options {
    let (reading, corpora) = (Reading::default(), Corpora::default());
    let device = Device::Cpu;
    Options { device, workers, amend: false, log_every: 100, label, validation: None, reading, corpora }
}

/// One arm with one seed.
struct Job<'a> {
    arm: &'a Arm,
    seed: u64,
    recipe: Recipe,
    place: PathBuf,
    measure: Measure,
    /// Hash of what is trained: the recipe and the weights it begins with.
    trained: String,
    /// Hash of that and of what is measured.
    of: String,
}

impl<'a> Job<'a> {
    fn new(
        study: &Study,
        arm: &'a Arm,
        seed: u64,
        recipe: Recipe,
        place: PathBuf,
        base: &str,
    ) -> Result<Self> {
        let measure = study.measure(arm)?;
        let trained = hexadecimal(&Sha256::digest(toml::to_string(&recipe)? + base));
        let suite = Suite::load(&measure.suite)?.hash();
        let of =
            hexadecimal(&Sha256::digest(trained.clone() + &toml::to_string(&measure)? + &suite + MEASURES));
        Ok(Self { arm, seed, recipe, place, measure, trained, of })
    }

    fn path(&self) -> PathBuf {
        self.place.join("outcome.json")
    }

    /// What it came to, where it was run just so before.
    fn known(&self) -> Result<Option<Outcome>> {
        let path = self.path();
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let known: Outcome = serde_json::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        Ok((known.of == self.of).then_some(known))
    }

    /// Trains and measures what is not done yet.
    fn run(&self, stop: &AtomicBool) -> Result<Outcome> {
        if let Some(known) = self.known()? {
            return Ok(known);
        }
        self.anew_unless_trained_so()?;
        let options = options(1, Some(format!("{} seed {}", self.arm.name, self.seed)));
        let trained = Driver::new(&self.recipe, &self.place, options, Box::new(Alone), stop)?.train(None)?;
        let model = trained.context("stopped; the same command goes on")?;
        let [stage] = &self.recipe.stages[..] else { anyhow::bail!("an arm trains one stage") };
        let scores = score::score(&model, &self.measure, Study::world(stage)?.1, stop)?;
        if let Some((name, value)) = scores.iter().find(|(_, value)| !value.is_finite()) {
            anyhow::bail!("{name} came out as {value}");
        }
        let outcome = Outcome {
            of: self.of.clone(),
            arm: self.arm.name.clone(),
            seed: self.seed,
            supervised: self.supervised(&model)?,
            clips: stage.steps as u64 * stage.clips(),
            scores,
        };
        let text = serde_json::to_string_pretty(&outcome)? + "\n";
        write_atomic(&self.path(), |out| out.write_all(text.as_bytes()))?;
        // As the next run will read it.
        Ok(serde_json::from_str(&text)?)
    }

    /// Sets aside what was trained otherwise.
    fn anew_unless_trained_so(&self) -> Result<()> {
        let (place, mark) = (&self.place, self.place.join("trained-as"));
        if place.exists() && std::fs::read_to_string(&mark).ok().as_ref() != Some(&self.trained) {
            let free = |n: &usize| !place.with_extension(format!("before-{n}")).exists();
            let aside = place.with_extension(format!("before-{}", (1..).find(free).unwrap_or_default()));
            std::fs::rename(place, &aside).with_context(|| format!("renaming {}", place.display()))?;
            eprintln!("{} was trained otherwise; it is {} now", place.display(), aside.display());
        }
        std::fs::create_dir_all(place).with_context(|| format!("creating {}", place.display()))?;
        Ok(write_atomic(&mark, |out| out.write_all(self.trained.as_bytes()))?)
    }

    /// Mean supervised tokens of a training clip: in answers to questions, and in what is said beside them.
    fn supervised(&self, model: &Path) -> Result<[f64; 2]> {
        let [stage] = &self.recipe.stages[..] else { anyhow::bail!("an arm trains one stage") };
        let network = Network::load(model, DType::F32, &Device::Cpu)?;
        let encoder = Encoder::load(model, &network.config, Masking::Answer, 0.0)?;
        let (mix, world) = Study::world(stage)?;
        let mut sums = [0.0, 0.0];
        let odds: f64 = stage.frames.iter().map(|(_, odds)| f64::from(*odds)).sum();
        for i in 0..COUNTED {
            // Spread evenly over the lengths, as often as their odds say.
            let mut place = (i as f64 * GOLDEN).fract() * odds;
            let drawn = stage.frames.iter().find(|(_, odds)| {
                place -= f64::from(*odds);
                place < 0.0
            });
            let (frames, _) = drawn.or(stage.frames.last()).copied().context("a stage has lengths")?;
            let clip = clip_index(self.seed, 0, i);
            let listed = stage.only.get((clip % stage.only.len().max(1) as u64) as usize);
            let seed = clip_seed(Split::Train, *listed.unwrap_or(&clip));
            let sample = world_sample(seed, false, mix, world, frames);
            let example = encoder.example(&sample, &network.vision)?;
            for (n, branch) in example.branches.iter().enumerate() {
                let beside = usize::from(n >= sample.turns.len());
                sums[beside] += branch.weights.iter().filter(|w| **w > 0.0).count() as f64;
            }
        }
        ensure!(sums[0] > 0.0, "arm {} asks nothing", self.arm.name);
        Ok(sums.map(|sum| sum / COUNTED as f64))
    }
}
