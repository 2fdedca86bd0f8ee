//! The state of every object at any time: a pure function of the script.
//!
//! In: a [`Script`] and a played time in steps. Out: [`ObjectState`]s in script order. Draws no pixels.

use super::script::Script;

/// Where and how an object is at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectState {
    /// Centre as a fraction of the picture, camera included; may lie outside of [0,1].
    pub centre: [f32; 2],
    /// Half the current width (before rotation) as a fraction of the picture.
    pub half: f32,
    /// Rotation in degrees, clockwise on the picture, in [0,360).
    pub angle: f32,
    /// Current colour.
    pub rgb: [u8; 3],
    /// Flashing: drawn white with a halo.
    pub flash: bool,
    /// Exists at this moment (neither blinked away nor absent).
    pub present: bool,
    /// Share of it that is seen: neither out of view nor covered, 0 to 1.
    pub visibility: f32,
    /// Box of the part in view and not behind a bar, xyxy in [0,1] (covering by other objects does not shrink it).
    pub bbox: Option<[f32; 4]>,
}

/// States of all objects at played time `t`.
pub fn state_at(script: &Script, t: f32) -> Vec<ObjectState> {
    let _ = (script, t);
    unreachable!()
}
