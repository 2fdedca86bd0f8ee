//! UTR-World: a procedural video world with exact ground truth, drawn from seeds.
//!
//! In: a seed, a [`WorldConfig`] and, for the test suite, a [`Skill`]. Out: a [`Script`] (a pure description of a clip),
//! its state and its frames at any time, the truth about it, and questions in minimal pairs.
//! Time runs from 0 to [`LAST_STEP`] "steps"; a clip shot with `31 k + 1` frames shows `t = frame / k`, so that 32 uniformly
//! sampled frames always fall on whole steps and playing backwards samples the same frames.
//! Nothing here knows about tokens, tracks, files or the network. No floating-point function that differs between
//! platforms is used: states and frames are equal on every machine.

pub mod backdrop;
pub mod ceilings;
pub mod command;
pub mod config;
pub mod conversations;
pub mod encode;
pub mod extra_trees;
pub mod facts;
pub mod filler;
pub mod generate;
pub mod grade;
pub mod hash;
pub mod motion;
pub mod observe;
pub mod pairs;
pub mod past;
pub mod placement;
pub mod played;
pub mod questions;
pub mod render;
pub mod scene_facts;
pub mod script;
pub mod shape;
pub mod stream;
pub mod suite;
pub mod templates;
pub mod timeline;
pub mod truth;
pub mod watched;
pub mod words;
pub mod write;

pub use config::{HoldOut, Split, WorldConfig, clip_seed, is_held_out, split_of};
pub use generate::generate;
pub use grade::grade;
pub use hash::world_hash;
pub use motion::{ObjectState, state_at};
pub use pairs::{Posed, pair};
pub use questions::{Item, Kind, image_questions, questions};
pub use render::{Renderer, contact_sheet, render};
pub use script::{
    Behaviour, Category, Colour, Event, EventKind, Heading, LAST_STEP, ObjectSpec, STEPS, Script, Size,
    Skill, Texture,
};
pub use truth::{Action, Truth, TruthFrame, TruthObject, truth};

#[cfg(test)]
mod tests;
