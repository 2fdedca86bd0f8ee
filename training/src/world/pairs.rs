//! Minimal pairs: two clips that differ in one thing, with one question whose answers differ.
//!
//! In: a skill, a seed, a config. Out: two [`Posed`] items. For order skills the second clip is the first played backwards.

use super::config::WorldConfig;
use super::questions::Item;
use super::script::{Script, Skill};

/// A clip with a question about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Posed {
    /// The clip.
    pub script: Script,
    /// The question.
    pub item: Item,
}

/// The pair of a skill for a seed: the same question text, different answers, in random order of twins.
pub fn pair(skill: Skill, seed: u64, config: &WorldConfig) -> [Posed; 2] {
    let _ = (skill, seed, config);
    unreachable!()
}
