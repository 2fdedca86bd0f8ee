//! What is measured of a trained model, beside its loss.
//!
//! Comes in: a model folder and a [`Measure`]. Goes out: named numbers, each a share or a mean over things that training never saw:
//!
//! * `order/ranked`, `scene/ranked`: items of minimal pairs whose right answer is likelier (per token) than that of the twin; chance 0.5
//! * `order/said`, `scene/said`: items whose right answer is word for word what greedy decoding says
//! * `order/margin`, `scene/margin`: by how much it is likelier, in nats per token; moves before answers turn
//! * `skill/NAME`: the same as `ranked`, per skill; `longer/N`: `order/ranked` on clips of N frames; `held-out`: items of combinations never seen
//! * `pictures/ranked`, `pictures/said`: questions about single pictures, the right answer against another colour or, with two objects, another place
//! * `tpl/utr|caption|skills`: mean log TPL of such answers; `skills` are what the world's clips ask by themselves, plain questions included
//! * `invented`: questions for absent objects that are answered with a trajectory (only UTR queries teach to deny them); `found`: questions for objects that are there
//!   which are answered with one that can be read; `iou`: how well their boxes lie
//!
//! Nothing is trained and nothing is compared here.

use super::study::Measure;
use crate::eval::voice::Voice;
use crate::eval::world::drawn;
use crate::queries::absent::absent_object;
use crate::queries::trajectory::{Trajectory, parse_all, quantize_box};
use crate::queries::wording::Wording;
use crate::queries::{ClipTracks, Listing, QueryFrame, Track, utr_turn};
use crate::sample::{Sample, Turn};
use crate::tpl::world::{Clips, compare_tpl};
use crate::train::encode::{Encoder, Masking};
use crate::validate;
use crate::world::conversations::{FRAME_SIZE, world_tracks};
use crate::world::filler::names;
use crate::world::suite::Suite;
use crate::world::{Item, Renderer, STEPS, Skill, Split, WorldConfig, clip_seed, generate, image_questions};
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device};
use rand::Rng;
use rand::SeedableRng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use utr_models::Network;
use utr_runtime::decode::KvPrecision;

/// Named numbers of one model.
pub type Scores = BTreeMap<String, f64>;

/// Where in the test split the clips of these measures begin; suites have their own places.
const FIRST: u64 = 1 << 52;
/// Longest reply to a question for a trajectory, in tokens.
const REPLY_TOKENS: usize = 160;

/// Sums of numbers, or of things that are true.
#[derive(Default)]
struct Shares(BTreeMap<String, (f64, usize)>);

impl Shares {
    fn add(&mut self, name: &str, right: bool) {
        self.sum(name, f64::from(u8::from(right)));
    }

    fn sum(&mut self, name: &str, value: f64) {
        let (sum, all) = self.0.entry(name.to_string()).or_default();
        *sum += value;
        *all += 1;
    }

    fn means(self) -> impl Iterator<Item = (String, f64)> {
        self.0.into_iter().map(|(name, (sum, all))| (name, sum / all as f64))
    }
}

/// What a question tells about a model.
struct Asked {
    /// Log likelihood per token of the right answer less that of the other.
    margin: f64,
    /// Whether the right answer is what greedy decoding says.
    said: bool,
}

/// A model and the tools to ask it by likelihood.
struct Judge<'a> {
    network: Network,
    encoder: Encoder,
    measure: &'a Measure,
    stop: &'a AtomicBool,
}

/// Takes all measures of `model` over worlds like `world`.
pub fn score(model: &Path, measure: &Measure, world: &WorldConfig, stop: &AtomicBool) -> Result<Scores> {
    let network = Network::load(model, DType::F32, &Device::Cpu)?;
    let encoder = Encoder::load(model, &network.config, Masking::Answer, 0.0)?;
    let judge = Judge { network, encoder, measure, stop };
    let mut shares = Shares::default();
    judge.pairs(&mut shares)?;
    judge.pictures(world, &mut shares)?;
    let mut scores: Scores = shares.means().collect();
    let clips = Clips { world: world.clone(), frames: measure.frames };
    for compared in compare_tpl(model, &Device::Cpu, measure.tpl as u64, &clips, stop)? {
        scores.insert(format!("tpl/{}", compared.data), compared.tpl_log);
    }
    scores.extend(trajectories(model, measure, world, stop)?);
    Ok(scores)
}

impl Judge<'_> {
    fn asked(&self, sample: &Sample) -> Result<Asked> {
        ensure!(!self.stop.load(Ordering::Relaxed), "stopped; the same command goes on");
        let example = self.encoder.example(sample, &self.network.vision)?;
        let nll = self.network.nll(std::slice::from_ref(&example))?;
        let says = self.network.says(std::slice::from_ref(&example))?;
        let [_, right, other, ..] = nll[..] else { anyhow::bail!("two answers have two likelihoods") };
        Ok(Asked { margin: other - right, said: says.get(1).copied().unwrap_or_default() })
    }

    fn pairs(&self, shares: &mut Shares) -> Result<()> {
        let suite = Suite::load(&self.measure.suite)?;
        for &skill in &suite.skills {
            for n in 0..self.measure.pairs {
                let pair = suite.pair(skill, n);
                for posed in &pair.twins {
                    let show =
                        |frames| rivals(&posed.item, &validate::sample(posed, FRAME_SIZE, frames, &pair.id));
                    let fits = posed.item.window[1] - posed.item.window[0] < self.measure.window();
                    let Some(sample) = show(self.measure.frames).filter(|_| fits) else { continue };
                    let Asked { margin, said } = self.asked(&sample)?;
                    let ranked = margin > 0.0;
                    let group = if skill.is_order() { "order" } else { "scene" };
                    shares.sum(&format!("{group}/margin"), margin);
                    shares.add(&format!("{group}/ranked"), ranked);
                    shares.add(&format!("{group}/said"), said);
                    shares.add(&format!("skill/{}", skill.word()), ranked);
                    if pair.held_out {
                        shares.add("held-out", ranked);
                    }
                    for &frames in self.measure.longer.iter().filter(|_| skill.is_order()) {
                        if let Some(sample) = show(frames) {
                            shares.add(&format!("longer/{frames}"), self.asked(&sample)?.margin > 0.0);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn pictures(&self, world: &WorldConfig, shares: &mut Shares) -> Result<()> {
        for i in 0..self.measure.pictures as u64 {
            let script = generate(clip_seed(Split::Test, FIRST + i), world);
            let mut rng = ChaCha8Rng::seed_from_u64(i);
            let step = rng.random_range(0..STEPS);
            let items = image_questions(&script, step, &mut rng);
            let Some(item) = items.choose(&mut rng) else { continue };
            let frame = Renderer::new(&script, FRAME_SIZE).frame(step as f32);
            let one = Sample {
                id: format!("picture-{i}"),
                frames: vec![frame],
                turns: vec![item.turn()],
                fills: Vec::new(),
                linked: false,
                window: None,
            };
            let Some(sample) = rivals(item, &one) else { continue };
            let Asked { margin, said } = self.asked(&sample)?;
            shares.add("pictures/ranked", margin > 0.0);
            shares.add("pictures/said", said);
        }
        Ok(())
    }
}

/// The sample with the item's right answer and its twin's, each a turn of its own.
fn rivals(item: &Item, sample: &Sample) -> Option<Sample> {
    let other = item.bare(item.twin_answer.as_deref()?).to_owned();
    let right = item.turn();
    let twin = Turn { question: right.question.clone(), answer: other };
    Some(Sample { turns: vec![right, twin], ..sample.clone() })
}

/// Replies to questions for trajectories, of objects that are there and of others.
fn trajectories(model: &Path, measure: &Measure, world: &WorldConfig, stop: &AtomicBool) -> Result<Scores> {
    let mut voice = Voice::open(model, KvPrecision::default())?;
    let (mut shares, mut overlaps) = (Shares::default(), Vec::new());
    let (listing, names) = (Listing::default(), names());
    for i in 0..measure.absent as u64 {
        ensure!(!stop.load(Ordering::Relaxed), "stopped; the same command goes on");
        let script = generate(clip_seed(Split::Test, 2 * FIRST + i), world);
        let mut rng = ChaCha8Rng::seed_from_u64(i);
        let first = rng.random_range(0..=STEPS - measure.frames);
        let clip = world_tracks(&script, "c", FRAME_SIZE, first, measure.frames);
        voice.clear();
        voice.see(&drawn(&script, first, measure.frames))?;
        if let Some((turn, _)) =
            absent_object((&clip, &clip), &names, (&listing.words(clip.frames), Wording::Short), &mut rng)
        {
            let reply = voice.reply(&turn.question, REPLY_TOKENS)?;
            shares.add("invented", reply.contains("<id"));
        }
        let present = clip.tracks.choose(&mut rng);
        let asked = present.and_then(|t| utr_turn(&clip, t, QueryFrame::Random, &listing, &mut rng));
        if let Some(asked) = asked {
            let reply = voice.reply(&asked.turn.question, REPLY_TOKENS)?;
            let told = parse_all(&reply).unwrap_or_default();
            shares.add("found", !told.is_empty());
            let track =
                clip.tracks.iter().find(|t| t.id == asked.track).context("a track that was asked about")?;
            overlaps.push(told.first().map_or(0.0, |told| overlap(told, track, &clip, &listing)));
        }
    }
    let mut scores: Scores = shares.means().collect();
    if !overlaps.is_empty() {
        scores.insert("iou".into(), overlaps.iter().sum::<f64>() / overlaps.len() as f64);
    }
    Ok(scores)
}

/// Mean intersection over union of the told boxes with the true ones, over the frames that the true answer lists.
fn overlap(told: &Trajectory, track: &Track, clip: &ClipTracks, listing: &Listing) -> f64 {
    let every = listing.every(clip.frames);
    let (mut sum, mut count) = (0.0, 0);
    for seen in track.boxes.iter().filter(|b| (b.frame - 1).is_multiple_of(every)) {
        let truth = quantize_box(seen.xyxy, clip.width, clip.height, listing.grid);
        let guess = told.points.iter().find(|(frame, _)| *frame == seen.frame).map(|(_, b)| b);
        let float = |b: &[u16; 4]| b.map(f32::from);
        sum += guess.map_or(0.0, |g| f64::from(crate::queries::scene::iou(float(g), float(&truth))));
        count += 1;
    }
    if count == 0 { 0.0 } else { sum / f64::from(count) }
}

/// Whether a name is one of the measures above.
pub fn is_measure(name: &str) -> bool {
    const NAMES: [&str; 15] = [
        "order/ranked",
        "order/said",
        "order/margin",
        "scene/ranked",
        "scene/said",
        "scene/margin",
        "held-out",
        "pictures/ranked",
        "pictures/said",
        "tpl/utr",
        "tpl/caption",
        "tpl/skills",
        "invented",
        "found",
        "iou",
    ];
    let skill = |word: &str| Skill::ALL.iter().any(|skill| skill.word() == word);
    NAMES.contains(&name)
        || name.strip_prefix("skill/").is_some_and(skill)
        || name.strip_prefix("longer/").is_some_and(|n| n.parse::<usize>().is_ok())
}

/// Order skills of a suite that the measure's window can show are what `order/ranked` is about; which they are is printed with a study's table.
pub fn skills(measure: &Measure) -> Result<Vec<(Skill, usize)>> {
    let suite = Suite::load(&measure.suite)?;
    let fits = |skill: Skill, n: usize| {
        let twins = suite.pair(skill, n).twins;
        twins.iter().filter(|p| p.item.window[1] - p.item.window[0] < measure.window()).count()
    };
    Ok(suite.skills.iter().map(|&s| (s, (0..measure.pairs).map(|n| fits(s, n)).sum())).collect())
}
