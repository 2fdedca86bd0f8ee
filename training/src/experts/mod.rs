//! Experts: raw video becomes boxes with names, looks and deeds. The first stage of the pipeline (design.md §2).
//!
//! Comes in: a [`Clip`] that can be read again from its start. Goes out: the objects of every frame, in pixels of the source. Three experts behind
//! one trait: [`motion`] needs no weights, [`world`] tells the truth with dials for every kind of mistake, [`grounding_dino`] runs an
//! ONNX graph. No object has an identity yet; `tracks` gives it one.

pub mod clip;
pub mod command;
pub mod content;
pub mod cuts;
pub mod grounding_dino;
pub mod motion;
pub mod world;

pub use clip::Clip;

use anyhow::Result;
use clip::Shape;

use crate::tracks::detections::Object;

/// Finds objects, frame by frame.
pub trait Expert {
    /// All that decides its findings, in words; a stopped run goes on only with the same.
    fn settings(&self) -> String;

    /// Looks at a clip from its first frame to its last and hands out the objects of each, empty lists included; returns what the clip is
    /// like.
    ///
    /// # Errors
    /// A clip that cannot be read, with the frame it broke at; the expert can go on with the next clip.
    fn annotate(&mut self, clip: &Clip, found: &mut dyn FnMut(Vec<Object>)) -> Result<Shape>;
}
