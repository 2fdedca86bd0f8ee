//! What worlds may be drawn: sizes of the scene, splits of the seeds, held-out combinations.
//!
//! In: TOML or code. Out: [`WorldConfig`], seeds that no two splits share, and the fixed rule that keeps about one in eleven
//! (colour, category, behaviour) combinations for the test split. Draws nothing itself.

use serde::{Deserialize, Serialize};

use super::script::{Category, Colour, ObjectSpec};

/// Which held-out combinations a clip may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldOut {
    /// None (training).
    Never,
    /// Any (validation and test). Only the colour that an object begins with counts: of one that changes it, training has seen the later ones.
    Any,
    /// The subject of the question must be one (part of test).
    Only,
}

/// How rich the drawn clips are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorldConfig {
    /// Fewest objects, 1 to 6. A skill may need more.
    pub min_objects: usize,
    /// Most objects, 1 to 6.
    pub max_objects: usize,
    /// Most occluding bars, 0 to 2.
    pub max_occluders: usize,
    /// Whether the camera sways and shakes.
    pub camera: bool,
    /// Whether objects wear stripes and dots.
    pub textures: bool,
    /// Whether backdrops have patterns (else one dark tint).
    pub backdrops: bool,
    /// Only large objects.
    pub large_only: bool,
    /// Held-out combinations.
    pub held_out: HoldOut,
}

impl WorldConfig {
    /// For the start of training: up to `objects` large plain objects on one tint, nothing in front, a fixed camera.
    pub fn easy(objects: usize) -> Self {
        Self {
            min_objects: 1,
            max_objects: objects.clamp(1, 6),
            max_occluders: 0,
            camera: false,
            textures: false,
            backdrops: false,
            large_only: true,
            held_out: HoldOut::Never,
        }
    }

    /// The full distribution: 2 to 6 objects, up to 2 occluders, camera, textures, backdrops; nothing held out appears.
    pub fn full() -> Self {
        Self {
            min_objects: 2,
            max_objects: 6,
            max_occluders: 2,
            camera: true,
            textures: true,
            backdrops: true,
            large_only: false,
            held_out: HoldOut::Never,
        }
    }

    /// What is out of range, in words.
    pub fn check(&self) -> Result<(), String> {
        let Self { min_objects, max_objects, max_occluders, .. } = *self;
        if !(1..=6).contains(&min_objects) || !(min_objects..=6).contains(&max_objects) {
            return Err(format!(
                "min_objects {min_objects} and max_objects {max_objects} must be 1 to 6, the least first"
            ));
        }
        if max_occluders > 2 {
            return Err(format!("max_occluders is {max_occluders}; at most 2 are drawn"));
        }
        Ok(())
    }

    /// The same with another rule for held-out combinations.
    pub fn with_held_out(self, held_out: HoldOut) -> Self {
        Self { held_out, ..self }
    }
}

/// A part of the seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Seeds 0 to 2^62 - 1.
    Train,
    /// The next quarter.
    Val,
    /// The third quarter.
    Test,
}

/// The seed of clip `index` of a split; no two (split, index below 2^62) share one.
pub fn clip_seed(split: Split, index: u64) -> u64 {
    const LOW: u64 = (1 << 62) - 1;
    // An odd factor permutes the numbers below 2^62, so neighbours do not look alike.
    let mixed = index.wrapping_mul(0x9E37_79B9_7F4A_7C15) & LOW;
    mixed | (split as u64) << 62
}

/// The split a seed belongs to; `None` for the unused quarter.
pub fn split_of(seed: u64) -> Option<Split> {
    match seed >> 62 {
        0 => Some(Split::Train),
        1 => Some(Split::Val),
        2 => Some(Split::Test),
        _ => None,
    }
}

/// Whether (colour, category, behaviour or event kind) is kept for the test split: 3 or 4 of the 36 looks of every kind.
/// `Still` (kind 0) is never held out, or else nothing could stand beside the subject.
pub fn is_held_out(colour: Colour, category: Category, kind: u32) -> bool {
    kind != 0 && (colour as u32 + 6 * category as u32 + 7 * kind).is_multiple_of(11)
}

impl ObjectSpec {
    /// Whether its look together with anything it does is held out.
    pub fn is_held_out(&self) -> bool {
        let mut kinds = vec![self.behaviour.kind_index()];
        if let super::script::Behaviour::Routine { events, .. } = &self.behaviour {
            kinds.extend(events.iter().map(|e| e.kind_index()));
        }
        kinds.extend(self.events.iter().map(|e| e.kind.kind_index()));
        kinds.into_iter().any(|kind| is_held_out(self.colour, self.category, kind))
    }
}
