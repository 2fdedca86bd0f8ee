//! Where things rest: homes, depths and bars, so that nothing that is asked about is hidden.
//!
//! In: objects with their behaviours, a random generator. Out: homes with little overlap, depths (what stays is in front of what
//! travels), bars that cover no resting object. No choice depends on the direction of time, so that the reversed
//! clip is as likely as the clip itself.

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::motion::MOVE_STEPS;
use super::script::{Behaviour, EventKind, ObjectSpec, Occluder};

/// Room for the camera's sway.
const PAD: f32 = 0.03;
/// Candidate homes per object.
const CANDIDATES: usize = 24;

/// How far an object reaches from its home: left, up, right, down. A band across the picture reaches 1 both ways.
fn extents(object: &ObjectSpec) -> [f32; 4] {
    let mut half = object.size.half();
    let events = object.events.iter().map(|e| e.kind).chain(match object.behaviour {
        Behaviour::Routine { events, .. } => events.to_vec(),
        _ => Vec::new(),
    });
    let (mut grown, mut hop) = (1.0f32, 0.0);
    for kind in events {
        match kind {
            EventKind::Swell | EventKind::Grow => grown = grown.max(1.5),
            EventKind::Hop => hop = 0.17,
            _ => {}
        }
    }
    if matches!(object.behaviour, Behaviour::Pulse { .. }) {
        grown = 1.3;
    }
    half *= grown;
    let mut e = [half, half + hop, half, half];
    let mut reach = |x: f32, y: f32| {
        e[0] += (-x).max(0.0);
        e[2] += x.max(0.0);
        e[1] += (-y).max(0.0);
        e[3] += y.max(0.0);
    };
    match object.behaviour {
        Behaviour::Orbit { radius, .. } => e = [half + radius; 4],
        Behaviour::Scroll { heading, .. } | Behaviour::Accelerate { heading, .. } => {
            let (a, b) = if heading.is_horizontal() { (0, 2) } else { (1, 3) };
            (e[a], e[b]) = (1.0, 1.0);
        }
        Behaviour::MoveOnce { heading, distance, starts, .. } => {
            let [x, y] = heading.vector();
            let way = if starts { distance } else { -distance };
            reach(x * way, y * way);
        }
        Behaviour::Collide { toward, distance, .. } => {
            let way = 2.0 * distance + 2.0 * object.size.half();
            reach(toward[0] * way, toward[1] * way);
        }
        _ => {}
    }
    e
}

fn is_band(object: &ObjectSpec) -> bool {
    matches!(
        object.behaviour,
        Behaviour::Scroll { .. } | Behaviour::Accelerate { .. } | Behaviour::Follow { .. }
    )
}

fn is_free(object: &ObjectSpec) -> bool {
    matches!(object.behaviour, Behaviour::Bounce { .. })
}

/// The area an object uses, xyxy.
pub fn footprint(object: &ObjectSpec) -> [f32; 4] {
    let [left, up, right, down] = extents(object);
    let [x, y] = object.home;
    [x - left, y - up, x + right, y + down]
}

fn overlap(a: [f32; 4], b: [f32; 4]) -> f32 {
    let side = |i: usize| (a[i + 2].min(b[i + 2]) - a[i].max(b[i])).max(0.0);
    side(0) * side(1)
}

fn clash(a: &ObjectSpec, b: &ObjectSpec) -> f32 {
    if is_free(a) || is_free(b) {
        return 0.0;
    }
    let weight = if is_band(a) || is_band(b) { 0.5 } else { 4.0 };
    weight * overlap(footprint(a), footprint(b))
}

/// Chooses homes for `objects[placed..]`; the ones before stay. A follower takes its leader's lane, the second of a
/// colliding couple its place opposite to the first.
pub fn settle(rng: &mut ChaCha8Rng, objects: &mut [ObjectSpec], placed: usize) {
    for index in placed..objects.len() {
        match objects[index].behaviour {
            Behaviour::Follow { leader, .. } => {
                objects[index].home = objects[leader].home;
                continue;
            }
            Behaviour::Collide { partner, toward, distance, .. } if partner < index => {
                // The couple's toward vectors point at each other; both touch in the middle.
                let gap = 2.0 * distance + objects[index].size.half() + objects[partner].size.half();
                let home = objects[partner].home;
                objects[index].home = [home[0] - toward[0] * gap, home[1] - toward[1] * gap];
                continue;
            }
            _ => {}
        }
        let [left, up, right, down] = extents(&objects[index]);
        let mut best = ([0.5, 0.5], f32::MAX);
        for _ in 0..CANDIDATES {
            let home = [axis(rng, left, right), axis(rng, up, down)];
            objects[index].home = home;
            let cost: f32 = objects[..index].iter().map(|o| clash(o, &objects[index])).sum();
            if cost < best.1 {
                best = (home, cost);
            }
        }
        objects[index].home = best.0;
    }
}

fn axis(rng: &mut ChaCha8Rng, before: f32, after: f32) -> f32 {
    let (low, high) = (before + PAD, 1.0 - after - PAD);
    let share: f32 = rng.random();
    if high > low { low + (high - low) * share } else { 0.5 }
}

/// Distinct depths: travelling objects behind, resting ones in front, random within.
pub fn assign_depths(rng: &mut ChaCha8Rng, objects: &mut [ObjectSpec]) {
    let mut order: Vec<usize> = (0..objects.len()).collect();
    order.shuffle(rng);
    order.sort_by_key(|&i| objects[i].behaviour.travels() != Some(true));
    for (depth, index) in order.into_iter().enumerate() {
        objects[index].depth = depth as u8;
    }
}

/// Up to `most` bars that cover no resting object and no lane along their length.
pub fn bars(rng: &mut ChaCha8Rng, objects: &[ObjectSpec], most: usize) -> Vec<Occluder> {
    let wanted = rng.random_range(0..=most);
    let mut bars: Vec<Occluder> = Vec::new();
    for _ in 0..wanted {
        for _ in 0..10 {
            let bar = Occluder {
                vertical: rng.random(),
                centre: rng.random_range(0.15f32..0.85),
                half: rng.random_range(0.03f32..0.05),
            };
            let (from, to) = (bar.centre - bar.half - PAD, bar.centre + bar.half + PAD);
            let area = if bar.vertical { [from, 0.0, to, 1.0] } else { [0.0, from, 1.0, to] };
            let crosses = |o: &ObjectSpec| {
                let b = footprint(o);
                if bar.vertical { b[2] - b[0] > 1.5 } else { b[3] - b[1] > 1.5 }
            };
            let free = objects.iter().all(|o| is_free(o) || crosses(o) || overlap(area, footprint(o)) == 0.0);
            let apart =
                bars.iter().all(|b| b.vertical != bar.vertical || (b.centre - bar.centre).abs() > 0.2);
            if free && apart {
                bars.push(bar);
                break;
            }
        }
    }
    bars
}

/// The latest time at which a `MoveOnce` may stop, and the earliest at which it may start, keep its way inside the clip.
pub fn move_window() -> (f32, f32) {
    (MOVE_STEPS + 1.0, super::script::LAST_STEP - MOVE_STEPS - 1.0)
}
