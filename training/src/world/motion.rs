//! The state of every object at any time: a pure function of the script.
//!
//! In: a [`Script`] and a played time in steps. Out: [`ObjectState`]s in script order: where, how large, what colour, how much is
//! seen. Draws no pixels. Sines come from `libm`, so that states are equal on every platform.

use super::script::{Behaviour, Category, EventKind, LAST_STEP, ObjectSpec, Script};
use super::shape::{REACH, outline};

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

/// The colour of a flashing object.
pub const FLASH_RGB: [u8; 3] = [255, 255, 255];
/// Height of a hop as a fraction of the picture.
const HOP: f32 = 0.17;
/// How far swapping objects swerve.
const SWAP_ARC: f32 = 0.17;
/// Steps that a `MoveOnce` takes.
pub const MOVE_STEPS: f32 = 8.0;

fn sine(turns: f32) -> f32 {
    libm::sinf(turns * core::f32::consts::TAU)
}

fn fraction(x: f32) -> f32 {
    x - libm::floorf(x)
}

/// A wave that runs 0 → 1 → 0 over one unit.
fn triangle_wave(x: f32) -> f32 {
    let u = fraction(x);
    if u < 0.5 { 2.0 * u } else { 2.0 - 2.0 * u }
}

/// Camera offset at base time `t`, to be added to every position.
pub fn camera_offset(script: &Script, t: f32) -> [f32; 2] {
    let c = &script.camera;
    let axis = |amplitude: f32, phase: f32, rate: f32| {
        amplitude * sine(t / c.period.max(1.0) + phase) + c.shake * sine(t * rate + phase)
    };
    [axis(c.amplitude[0], c.phase[0], 0.31), axis(c.amplitude[1], c.phase[1], 0.37)]
}

/// States of all objects at played time `t`: 0 to 31 steps within the clip, any other time before or after it.
pub fn state_at(script: &Script, t: f32) -> Vec<ObjectState> {
    let base = script.base_time(t);
    let shift = camera_offset(script, base);
    let places = places_at(script, base);
    let mut states: Vec<ObjectState> = script
        .objects
        .iter()
        .zip(&places)
        .map(|(object, &place)| {
            let mut state = resting(object, place);
            apply_behaviour(script, object, base, &mut state);
            apply_events(object, base, &mut state);
            state.centre = [state.centre[0] + shift[0], state.centre[1] + shift[1]];
            state
        })
        .collect();
    let boxes: Vec<_> =
        script.objects.iter().zip(&states).map(|(o, s)| visible_box(script, shift, o.category, s)).collect();
    let shares: Vec<f32> = (0..states.len()).map(|i| visible_share(script, shift, &states, i)).collect();
    for ((state, bbox), share) in states.iter_mut().zip(boxes).zip(shares) {
        state.visibility = if bbox.is_some() { share } else { 0.0 };
        state.bbox = bbox;
    }
    states
}

fn resting(object: &ObjectSpec, place: [f32; 2]) -> ObjectState {
    ObjectState {
        centre: place,
        half: object.size.half(),
        angle: 0.0,
        rgb: object.colour.rgb(),
        flash: false,
        present: true,
        visibility: 1.0,
        bbox: None,
    }
}

/// Rest positions at base time `t`: homes, exchanged by every finished swap, on the way during a swap.
fn places_at(script: &Script, t: f32) -> Vec<[f32; 2]> {
    let mut places: Vec<[f32; 2]> = script.objects.iter().map(|o| o.home).collect();
    let mut swaps: Vec<(f32, f32, usize, usize, bool)> = Vec::new();
    for (i, object) in script.objects.iter().enumerate() {
        for event in &object.events {
            if let EventKind::Swap { partner, above } = event.kind
                && i < partner
                && partner < places.len()
            {
                swaps.push((event.start, event.steps, i, partner, above));
            }
        }
    }
    swaps.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (start, steps, i, j, above) in swaps {
        let u = ((t - start) / steps).clamp(0.0, 1.0);
        let (a, b) = (places[i], places[j]);
        let arc = if above { -SWAP_ARC } else { SWAP_ARC } * 4.0 * u * (1.0 - u);
        let way = |from: [f32; 2], to: [f32; 2], lift: f32| {
            [from[0] + (to[0] - from[0]) * u, from[1] + (to[1] - from[1]) * u + lift]
        };
        (places[i], places[j]) = (way(a, b, arc), way(b, a, -arc));
    }
    places
}

/// Position along the axis of movement on the torus that lets an object leave the picture wholly before it returns.
fn torus(object: &ObjectSpec, phase: f32, way: f32) -> f32 {
    let margin = object.size.half() * REACH;
    let length = 1.0 + 2.0 * margin;
    length * fraction(phase + way / length) - margin
}

fn scroll(object: &ObjectSpec, behaviour: &Behaviour, t: f32, behind: f32, state: &mut ObjectState) {
    let (heading, phase, way) = match *behaviour {
        Behaviour::Scroll { heading, speed, phase } => (heading, phase, speed * t),
        Behaviour::Accelerate { heading, from, to, phase } => (heading, phase, accelerated(from, to, t)),
        _ => return,
    };
    let [x, y] = heading.vector();
    let along = torus(object, phase, (way - behind) * (x + y));
    let axis = if heading.is_horizontal() { 0 } else { 1 };
    state.centre[axis] = along;
}

/// The way after `t` steps at a speed that runs from `from` to `to` over the clip and is even before and after it.
fn accelerated(from: f32, to: f32, t: f32) -> f32 {
    let inside = t.clamp(0.0, LAST_STEP);
    let outside = t - inside;
    let way = from * inside + (to - from) * inside * inside / (2.0 * LAST_STEP);
    if outside == 0.0 { way } else { way + outside * if outside < 0.0 { from } else { to } }
}

fn apply_behaviour(script: &Script, object: &ObjectSpec, t: f32, state: &mut ObjectState) {
    match object.behaviour {
        Behaviour::Still => {}
        Behaviour::Scroll { .. } | Behaviour::Accelerate { .. } => {
            scroll(object, &object.behaviour, t, 0.0, state)
        }
        Behaviour::Follow { leader, gap } => {
            if let Some(other) = script.objects.get(leader) {
                state.centre = other.home;
                scroll(object, &other.behaviour, t, gap, state);
            }
        }
        Behaviour::Orbit { clockwise, radius, period, phase } => {
            let turns = phase + if clockwise { t / period } else { -t / period };
            state.centre[0] += radius * sine(turns + 0.25);
            state.centre[1] += radius * sine(turns);
        }
        Behaviour::Pulse { growing, period, phase } => {
            let u = fraction(phase + t / period);
            state.half *= 0.5 + 0.9 * if growing { u } else { 1.0 - u };
        }
        Behaviour::Cycle { colours, dwell, phase } => {
            let index = (fraction(phase + t / (3.0 * dwell)) * 3.0) as usize;
            state.rgb = colours[index.min(2)].rgb();
        }
        Behaviour::Routine { events, dwell, phase } => {
            let time = t + phase as f32;
            let slot = libm::floorf(time / dwell as f32);
            let u = (time - slot * dwell as f32) / 3.0;
            let index = (slot as i32).rem_euclid(3) as usize;
            if u > 0.0 && u < 1.0 {
                apply_transient(object.category, events[index], u, state);
            }
        }
        Behaviour::Bounce { velocity, phase } => {
            let margin = state.half * REACH;
            let room = 1.0 - 2.0 * margin;
            for axis in 0..2 {
                state.centre[axis] =
                    margin + room * triangle_wave(phase[axis] + velocity[axis] * t / (2.0 * room));
            }
        }
        Behaviour::MoveOnce { heading, distance, at, starts } => {
            let way = if starts {
                ((t - at) / MOVE_STEPS).clamp(0.0, 1.0)
            } else {
                ((t - at) / MOVE_STEPS + 1.0).clamp(0.0, 1.0) - 1.0
            };
            let [x, y] = heading.vector();
            state.centre = [state.centre[0] + x * distance * way, state.centre[1] + y * distance * way];
        }
        Behaviour::Collide { toward, distance, period, phase, .. } => {
            let way = distance * triangle_wave(phase + t / period);
            state.centre = [state.centre[0] + toward[0] * way, state.centre[1] + toward[1] * way];
        }
    }
}

fn apply_events(object: &ObjectSpec, t: f32, state: &mut ObjectState) {
    for event in &object.events {
        let u = (t - event.start) / event.steps;
        match event.kind {
            EventKind::Appear => state.present &= u > 0.5,
            EventKind::Disappear => state.present &= u < 0.5,
            EventKind::ChangeColour { from, to } => state.rgb = if u > 0.5 { to } else { from }.rgb(),
            EventKind::Grow => state.half *= 1.0 + 0.6 * u.clamp(0.0, 1.0),
            EventKind::Shrink => state.half *= 1.0 - 0.4 * u.clamp(0.0, 1.0),
            kind => {
                if u > 0.0 && u < 1.0 {
                    apply_transient(object.category, kind, u, state);
                }
            }
        }
    }
}

/// A passing event at progress `u` in (0,1).
fn apply_transient(category: Category, kind: EventKind, u: f32, state: &mut ObjectState) {
    let bump = 4.0 * u * (1.0 - u);
    match kind {
        EventKind::Hop => state.centre[1] -= HOP * bump,
        EventKind::Blink => state.present = false,
        EventKind::Flash => {
            state.flash = true;
            state.rgb = FLASH_RGB;
        }
        EventKind::Swell => state.half *= 1.0 + 0.75 * bump,
        EventKind::Spin => state.angle = spin_angle(category, u),
        _ => {}
    }
}

/// A full turn whose angles at a third and two thirds look most unlike the rest position.
fn spin_angle(category: Category, u: f32) -> f32 {
    let third = match category {
        Category::Triangle | Category::Star => 170.0,
        _ => 135.0,
    };
    if u < 1.0 / 3.0 {
        third * 3.0 * u
    } else if u < 2.0 / 3.0 {
        third + (360.0 - 2.0 * third) * (3.0 * u - 1.0)
    } else {
        360.0 - third * 3.0 * (1.0 - u)
    }
}

fn visible_box(
    script: &Script,
    shift: [f32; 2],
    category: Category,
    state: &ObjectState,
) -> Option<[f32; 4]> {
    if !state.present {
        return None;
    }
    let [x0, y0, x1, y1] = outline(category, state.centre, state.half, state.angle).bounds();
    let mut b = [x0.clamp(0.0, 1.0), y0.clamp(0.0, 1.0), x1.clamp(0.0, 1.0), y1.clamp(0.0, 1.0)];
    for bar in &script.occluders {
        let axis = if bar.vertical { 0 } else { 1 };
        let (from, to) = (bar.centre - bar.half + shift[axis], bar.centre + bar.half + shift[axis]);
        if from <= b[axis] && to > b[axis] {
            b[axis] = to.min(b[axis + 2]);
        }
        if to >= b[axis + 2] && from < b[axis + 2] {
            b[axis + 2] = from.max(b[axis]);
        }
    }
    (b[2] - b[0] > 0.004 && b[3] - b[1] > 0.004).then_some(b)
}

/// Sample points of the visibility estimate, in half widths.
const PROBES: [[f32; 2]; 13] = [
    [0.0, 0.0],
    [0.4, 0.0],
    [-0.4, 0.0],
    [0.0, 0.4],
    [0.0, -0.4],
    [0.55, 0.55],
    [-0.55, 0.55],
    [0.55, -0.55],
    [-0.55, -0.55],
    [0.8, 0.0],
    [-0.8, 0.0],
    [0.0, 0.8],
    [0.0, -0.8],
];

/// Share of 13 probes inside the picture and not behind a bar or a nearer object (taken as a disc).
fn visible_share(script: &Script, shift: [f32; 2], states: &[ObjectState], index: usize) -> f32 {
    let (state, depth) = (&states[index], script.objects[index].depth);
    if !state.present {
        return 0.0;
    }
    let nearer: Vec<&ObjectState> = script
        .objects
        .iter()
        .zip(states)
        .filter(|(o, s)| {
            o.depth > depth && s.present && {
                let reach = s.half + state.half;
                let (dx, dy) = (s.centre[0] - state.centre[0], s.centre[1] - state.centre[1]);
                dx * dx + dy * dy < reach * reach
            }
        })
        .map(|(_, s)| s)
        .collect();
    let seen = |probe: &[f32; 2]| {
        let p = [state.centre[0] + probe[0] * state.half, state.centre[1] + probe[1] * state.half];
        let inside = p.iter().all(|v| (0.0..=1.0).contains(v));
        let barred = script.occluders.iter().any(|bar| {
            let axis = if bar.vertical { 0 } else { 1 };
            (p[axis] - shift[axis] - bar.centre).abs() < bar.half
        });
        let covered = nearer.iter().any(|s| {
            let (dx, dy) = (p[0] - s.centre[0], p[1] - s.centre[1]);
            dx * dx + dy * dy < 0.9 * s.half * s.half
        });
        inside && !barred && !covered
    };
    PROBES.iter().filter(|p| seen(p)).count() as f32 / PROBES.len() as f32
}
