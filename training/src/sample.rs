//! What every data source hands to the trainer and the scorers: a clip and what is said about it.
//!
//! Sources: the procedural world (from seeds, in memory) and LLaVA conversation files. No tokens here.

use utr_models::RgbFrame;

/// One question and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// What the person asks.
    pub question: String,
    /// What the model should say.
    pub answer: String,
}

/// Further turns, of which as many are taken as make so many supervised tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Fill {
    /// In the order in which they are taken; again from the first where they are too few.
    pub turns: Vec<Turn>,
    /// Tokens that are taken; the last turn is taken or left by lot, so that the mean over samples is this number.
    pub tokens: usize,
    /// Loss weight of all of them together: each token weighs `weight / tokens`.
    pub weight: f32,
}

/// A clip with questions about it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// A name that is stable across runs.
    pub id: String,
    /// Frames in time order, any size; preprocessing resizes.
    pub frames: Vec<RgbFrame>,
    /// At least one.
    pub turns: Vec<Turn>,
    /// Said beside the turns, each of the clip alone.
    pub fills: Vec<Fill>,
    /// Each turn sees those before it, as in one conversation; else each is asked of the clip alone.
    pub linked: bool,
    /// Frames in view at a time; a clip of more frames is a stream, and its turns are about the newest of them. None: all frames are in view.
    pub window: Option<usize>,
}
