//! A fingerprint of a clip that must be equal on every machine.
//!
//! In: a [`Script`]. Out: SHA-256 in hexadecimal over its states (in units of 1e-4) and its raw 64 x 64 frames at the 32 sampled steps.
//! Encoded video is not covered: encoders differ.

use sha2::{Digest, Sha256};

use super::motion::state_at;
use super::render::Renderer;
use super::script::{STEPS, Script};

/// The fingerprint of state and frames.
pub fn world_hash(script: &Script) -> String {
    let mut hasher = Sha256::new();
    let mut renderer = Renderer::new(script, 64);
    for step in 0..STEPS {
        for state in state_at(script, step as f32) {
            let numbers = [state.centre[0], state.centre[1], state.half, state.angle, state.visibility];
            for value in numbers.into_iter().chain(state.bbox.into_iter().flatten()) {
                hasher.update((libm::floorf(value * 1e4 + 0.5) as i32).to_le_bytes());
            }
            hasher.update([state.rgb[0], state.rgb[1], state.rgb[2], state.present as u8, state.flash as u8]);
        }
        hasher.update(&renderer.frame(step as f32).data);
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
