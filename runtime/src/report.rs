//! What is said about an answer: the object that `--json` prints.
//!
//! Comes in: what the stages measured. Goes out: serializable values with the field names of the command line's
//! contract. It computes and prints nothing.

use serde::{Deserialize, Serialize};
use utr_models::manifest::WindowMode;

use crate::capture::Stamp;
use crate::decode::Finish;
use crate::evidence::Evidence;

/// One question's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The decoded answer.
    pub text: String,
    /// Its tokens, without the stop token.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// The frames it stands on, in window order.
    pub frames: Vec<FrameUsed>,
    /// How the window was read.
    pub window_mode: WindowMode,
    /// The oldest frame that can have had an influence: in `rolling` one that slid out long ago, else the first of `frames`.
    pub history_reaches: Option<FrameUsed>,
    /// Frames lost before they reached the window.
    pub dropped: u64,
    /// Time between the oldest and the newest of the frames.
    pub window_span_ms: u64,
    /// Age of the newest frame when the first token came, since it was captured.
    pub newest_age_ms: u64,
    /// Where the time went.
    pub timings: Timings,
    /// What answered.
    pub bundle: BundleName,
    /// Which frames the answer stands on, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

/// A frame an answer stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameUsed {
    /// Counted from 0 in the source.
    pub index: usize,
    /// Since the source's start.
    pub pts_ms: u64,
}

impl From<Stamp> for FrameUsed {
    fn from(stamp: Stamp) -> Self {
        Self { index: stamp.index, pts_ms: stamp.pts_ms }
    }
}

/// Where the time of an answer went, in milliseconds, and how many tokens were handled.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Timings {
    /// Reading, decoding and choosing the frames that came since the previous answer.
    pub capture_ms: f64,
    /// Resizing and encoding them; 0 where no new frame came.
    pub encode_ms: f64,
    /// Reading the prompt, the frames where that was not done before, and the question.
    pub prefill_ms: f64,
    /// From the moment the question was known to the first token. The program knows its first question before it opens
    /// the source, so that this one includes capture and encoding; loading the bundle is never included.
    pub ttft_ms: f64,
    /// From the first token to the last.
    pub decode_ms: f64,
    /// Positions before the answer: text and frames.
    pub prompt_tokens: usize,
    /// Of these, taken over from the previous question.
    pub reused_tokens: usize,
    /// Tokens of the answer.
    pub output_tokens: usize,
    /// Tokens after the first, per second of `decode_ms`; 0 where there was one.
    pub tokens_per_s: f64,
}

/// The bundle that answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleName {
    /// From the manifest, or the folder's name.
    pub name: String,
    /// SHA-256 of the manifest; none for a Hugging Face folder.
    pub hash: Option<String>,
}
