//! The pixels behind everything: flat tints, gradients, checkers and speckles, and random choices of them.
//!
//! In: a [`Backdrop`] and a size. Out: RGBA bytes of a square picture, drawn once per clip. Dark and greyish on purpose, so that all
//! six object colours stand out. Knows nothing of objects.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::script::{Backdrop, BackdropKind};

/// A random backdrop; `patterns` off gives one dark tint.
pub fn random_backdrop(rng: &mut ChaCha8Rng, patterns: bool) -> Backdrop {
    let mut tint = |low: u8, high: u8| {
        let level = rng.random_range(low..=high) as i32;
        [0; 3].map(|_: i32| (level + rng.random_range(-10..=10)).clamp(0, 255) as u8)
    };
    let tints = if patterns { [tint(28, 62), tint(40, 84)] } else { [tint(24, 48), [0; 3]] };
    let kind = match rng.random_range(0..4) {
        _ if !patterns => BackdropKind::Flat,
        0 => BackdropKind::Flat,
        1 => BackdropKind::Gradient,
        2 => BackdropKind::Checker,
        _ => BackdropKind::Speckle,
    };
    Backdrop { kind, tints, seed: rng.random() }
}

fn mix(tints: &[[u8; 3]; 2], share: f32) -> [u8; 3] {
    let [a, b] = tints;
    let mut out = [0; 3];
    for (o, (&x, &y)) in out.iter_mut().zip(a.iter().zip(b)) {
        *o = (x as f32 + (y as f32 - x as f32) * share + 0.5) as u8;
    }
    out
}

/// RGBA bytes of a square of `side` pixels whose pattern is scaled to a picture of `size` pixels.
pub fn paint(backdrop: &Backdrop, size: u32, side: u32) -> Vec<u8> {
    const CELLS: usize = 24;
    let mut rng = ChaCha8Rng::seed_from_u64(backdrop.seed);
    let grain: Vec<f32> = (0..CELLS * CELLS).map(|_| rng.random::<f32>()).collect();
    let (slope_x, slope_y) = (rng.random_range(-1.0f32..1.0), rng.random_range(-1.0f32..1.0));
    let cell = rng.random_range(0.08f32..0.2);
    let mut data = Vec::with_capacity((side * side * 4) as usize);
    for row in 0..side {
        for column in 0..side {
            let (x, y) = (column as f32 / size as f32, row as f32 / size as f32);
            let share = match backdrop.kind {
                BackdropKind::Flat => 0.0,
                BackdropKind::Gradient => {
                    (0.5 + 0.5 * (slope_x * (2.0 * x - 1.0) + slope_y * (2.0 * y - 1.0))).clamp(0.0, 1.0)
                }
                BackdropKind::Checker => (((x / cell) as u32 + (y / cell) as u32) % 2) as f32,
                BackdropKind::Speckle => {
                    let at = |v: f32| ((v * 20.0) as usize).min(CELLS - 1);
                    grain[at(y) * CELLS + at(x)]
                }
            };
            let [r, g, b] = mix(&backdrop.tints, share);
            data.extend_from_slice(&[r, g, b, 255]);
        }
    }
    data
}
