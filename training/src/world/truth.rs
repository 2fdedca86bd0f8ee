//! The exact truth about a clip: boxes and visibility at every whole step, and who did what when, in played time.
//!
//! In: a [`Script`]. Out: [`Truth`], serializable. Holds no pixels and asks nothing.

use serde::{Deserialize, Serialize};

use super::script::Script;

/// Everything that is true of a clip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Truth {
    /// Objects in script order.
    pub objects: Vec<TruthObject>,
    /// The 32 sampled frames.
    pub frames: Vec<TruthFrame>,
    /// All actions, by object and start.
    pub actions: Vec<Action>,
}

/// What an object is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TruthObject {
    /// "red ball".
    pub name: String,
    /// "ball".
    pub category: String,
    /// "large red striped ball".
    pub appearance: String,
}

/// One sampled frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TruthFrame {
    /// Box of the visible part of each object, xyxy in [0,1]; `None` where nothing of it is seen.
    pub boxes: Vec<Option<[f32; 4]>>,
    /// Share of each object that is seen, 0 to 1.
    pub visibility: Vec<f32>,
}

/// Something an object does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// Who.
    pub object: usize,
    /// First whole step on which it shows.
    pub start: usize,
    /// Last whole step on which it shows.
    pub end: usize,
    /// "moves left".
    pub text: String,
}

/// The truth of a clip at its 32 sampled frames.
pub fn truth(script: &Script) -> Truth {
    let _ = script;
    unreachable!()
}
