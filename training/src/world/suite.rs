//! A test distribution as one committed file: which clips are drawn, from which seeds, and which one is the demo.
//!
//! Comes in: a TOML file such as `training/worlds/test.toml`. Goes out: minimal pairs, the same on every machine, and the
//! demo clip with its questions. The file is fixed before training; changing it voids earlier scores, which is why every
//! report carries its hash. Nothing is rendered here.

use std::path::Path;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utr_models::{Error, Result};

use super::stream::StreamSpec;
use super::{HoldOut, Item, Posed, Script, Skill, Split, WorldConfig, clip_seed, generate, pair, questions};

/// Seeds set aside for each skill; more pairs than this per skill are refused.
const SEEDS_PER_SKILL: u64 = 1 << 20;

/// The content of a suite file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// Named in every report.
    pub name: String,
    /// Which split the seeds come from.
    pub split: Split,
    /// Index of the first seed within the split.
    pub first_seed: u64,
    /// Minimal pairs per skill.
    pub pairs_per_skill: usize,
    /// Share of pairs whose subject shows a combination that training never saw.
    pub held_out_share: f64,
    /// Index (within the split) of the demo clip.
    pub demo_seed: u64,
    /// Skills, in report order.
    pub skills: Vec<Skill>,
    /// Clips are the ends of longer streams; see [`Suite::streams`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamSpec>,
    /// How rich the clips are. `held_out` holds for the pairs beyond `held_out_share`.
    pub world: WorldConfig,
}

/// A pair with its name.
#[derive(Clone, Debug)]
pub struct SuitePair {
    /// Such as `direction-017`.
    pub id: String,
    /// The skill.
    pub skill: Skill,
    /// Drawn from held-out combinations only.
    pub held_out: bool,
    /// The twins.
    pub twins: [Posed; 2],
}

/// The demo clip, the same clip played backwards, and the questions that both decide.
#[derive(Clone, Debug)]
pub struct Demo {
    /// The clip.
    pub script: Script,
    /// Its time reversal.
    pub twin: Script,
    /// About the clip; `twin_answer` says what is right for the twin. Over as many skills as the clip has, each with a
    /// different answer for the twin where the skill is one of order.
    pub items: Vec<Item>,
}

impl Suite {
    /// Reads a suite file.
    ///
    /// # Errors
    /// Names the file and the key that is missing, unknown or out of range.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let suite: Suite = toml::from_str(&text).map_err(|e| Error::format(path, e.to_string()))?;
        suite.check().map_err(|reason| Error::format(path, reason))?;
        Ok(suite)
    }

    fn check(&self) -> Result<(), String> {
        if self.pairs_per_skill == 0 || self.pairs_per_skill as u64 > SEEDS_PER_SKILL {
            return Err(format!(
                "pairs_per_skill must be 1 to {SEEDS_PER_SKILL}, found {}",
                self.pairs_per_skill
            ));
        }
        if !(0.0..=1.0).contains(&self.held_out_share) {
            return Err(format!("held_out_share must be 0 to 1, found {}", self.held_out_share));
        }
        if self.skills.is_empty() {
            return Err("skills is empty; name at least one".into());
        }
        self.stream.map_or(Ok(()), |stream| stream.check())?;
        self.world.check()
    }

    /// SHA-256 over the suite's values (not its layout or comments), in hexadecimal.
    pub fn hash(&self) -> String {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
    }

    /// All pairs, skill by skill.
    pub fn pairs(&self) -> impl Iterator<Item = SuitePair> + '_ {
        self.skills.iter().flat_map(move |&skill| (0..self.pairs_per_skill).map(move |n| self.pair(skill, n)))
    }

    /// Pair `n` of a skill.
    pub fn pair(&self, skill: Skill, n: usize) -> SuitePair {
        // Spread evenly: pair n is held out where the running share passes a whole number.
        let share = |n: usize| (n as f64 * self.held_out_share) as usize;
        let held_out = share(n + 1) > share(n);
        let rule = if held_out { HoldOut::Only } else { self.world.held_out };
        let config = self.world.clone().with_held_out(rule);
        let seed = clip_seed(self.split, self.first_seed + skill as u64 * SEEDS_PER_SKILL + n as u64);
        SuitePair {
            id: format!("{}-{n:03}", skill.word()),
            skill,
            held_out,
            twins: pair(skill, seed, &config),
        }
    }

    /// The demo clip and its questions.
    pub fn demo(&self) -> Demo {
        demo_clip(clip_seed(self.split, self.demo_seed), &self.world)
    }
}

/// The general clip of a seed with one question per fact, order skills first, so that both directions of time are
/// asked the same.
pub fn demo_clip(seed: u64, world: &WorldConfig) -> Demo {
    let script = generate(seed, world);
    let twin = script.time_reversed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x4445_4D4F);
    let mut items: Vec<Item> = questions(&script, &mut rng);
    items.retain(|i| i.skill.is_order() && i.twin_answer.is_some());
    // One of each skill first, then second ones.
    let mut ranked: Vec<(usize, Item)> = Vec::new();
    for item in items {
        let rank = ranked.iter().filter(|(_, other)| other.skill == item.skill).count();
        ranked.push((rank, item));
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    Demo { script, twin, items: ranked.into_iter().map(|(_, item)| item).collect() }
}

/// The first demo index from `from` on whose clip has at least `questions` order questions over at least `skills` skills.
pub fn find_demo(suite: &Suite, from: u64, questions: usize, skills: usize) -> Option<u64> {
    (from..from + 10_000).find(|&index| {
        let demo = demo_clip(clip_seed(suite.split, index), &suite.world);
        let mut found: Vec<Skill> = demo.items.iter().map(|i| i.skill).collect();
        found.sort();
        found.dedup();
        demo.items.len() >= questions && found.len() >= skills
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::*;
    use crate::world::{grade, split_of};

    fn committed(name: &str) -> Suite {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("worlds").join(name);
        Suite::load(&path).unwrap()
    }

    #[test]
    fn the_committed_suites_pose_questions_whose_twins_differ() {
        for (name, least) in [("test.toml", 200), ("val.toml", 40)] {
            let suite = committed(name);
            assert!(suite.pairs_per_skill >= least);
            assert!((suite.world.min_objects, suite.world.max_objects) == (2, 6));
            for &skill in &suite.skills {
                for n in 0..6 {
                    let SuitePair { id, twins: [a, b], .. } = suite.pair(skill, n);
                    assert_eq!(a.item.question, b.item.question, "{id}");
                    assert_ne!(a.item.answer, b.item.answer, "{id}");
                    assert!(!grade(&a.item, &b.item.answer), "{id}");
                    assert_eq!(split_of(a.script.seed), Some(suite.split), "{id}");
                }
            }
        }
    }

    #[test]
    fn about_the_written_share_is_held_out() {
        let suite = committed("test.toml");
        let held = (0..suite.pairs_per_skill).filter(|&n| suite.pair(Skill::Direction, n).held_out).count();
        let share = held as f64 / suite.pairs_per_skill as f64;
        assert!((share - suite.held_out_share).abs() < 0.02 && share >= 0.3, "{share}");
    }

    #[test]
    fn the_demo_clip_decides_questions_on_five_skills_in_both_directions() {
        let demo = committed("test.toml").demo();
        let skills: BTreeSet<Skill> = demo.items.iter().map(|i| i.skill).collect();
        assert!(demo.items.len() >= 5 && skills.len() >= 5, "{} over {skills:?}", demo.items.len());
        for item in &demo.items {
            let twin = item.twin_answer.as_deref().unwrap();
            assert!(grade(item, &item.answer) && !grade(item, twin), "{item:?}");
        }
        assert_eq!(demo.twin, demo.script.time_reversed());
    }

    #[test]
    fn an_unknown_key_and_a_bad_share_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("suite.toml");
        let mut suite = committed("val.toml");
        let text = toml::to_string(&suite).unwrap();
        std::fs::write(&path, format!("colour = 1\n{text}")).unwrap();
        assert!(Suite::load(&path).unwrap_err().to_string().contains("colour"));
        suite.held_out_share = 2.0;
        std::fs::write(&path, toml::to_string(&suite).unwrap()).unwrap();
        assert!(Suite::load(&path).unwrap_err().to_string().contains("held_out_share"));
    }
}
