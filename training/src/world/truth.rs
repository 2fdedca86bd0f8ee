//! The exact truth about a clip: boxes and visibility at every whole step, and who did what when, in played time.
//!
//! In: a [`Script`]. Out: [`Truth`], serializable. Holds no pixels and asks nothing.

use serde::{Deserialize, Serialize};

use super::motion::{MOVE_STEPS, state_at};
use super::played::colour_list;
use super::script::{Behaviour, Event, LAST_STEP, STEPS, Script};

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
    let objects = (script.objects.iter().enumerate())
        .map(|(i, o)| TruthObject {
            name: script.name(i),
            category: o.category.word().into(),
            appearance: o.description(),
        })
        .collect();
    let frames = (0..STEPS)
        .map(|step| {
            let states = state_at(script, step as f32);
            TruthFrame {
                // A sliver between probes counts as hidden, so that a box always means something to see.
                boxes: states.iter().map(|s| s.bbox.filter(|_| s.visibility > 0.0)).collect(),
                visibility: states.iter().map(|s| s.visibility).collect(),
            }
        })
        .collect();
    let actions = (0..script.objects.len()).flat_map(|i| actions_of(script, i)).collect();
    Truth { objects, frames, actions }
}

/// The whole steps strictly inside (start, end), within the clip.
pub fn shown_steps(start: f32, end: f32) -> Option<[usize; 2]> {
    let first = (libm::floorf(start) + 1.0).max(0.0);
    let last = (libm::ceilf(end) - 1.0).min(LAST_STEP);
    (first <= last).then_some([first as usize, last as usize])
}

/// The three events of a routine, each time they happen, in base time.
pub fn routine_events(behaviour: &Behaviour) -> Vec<Event> {
    let Behaviour::Routine { events, dwell, phase } = behaviour else { return Vec::new() };
    let slots = (STEPS as u32 + phase).div_ceil(*dwell);
    (0..slots)
        .map(|slot| Event {
            kind: events[slot as usize % 3],
            start: (slot * dwell) as f32 - *phase as f32,
            steps: 3.0,
        })
        .filter(|e| shown_steps(e.start, e.end()).is_some())
        .collect()
}

fn actions_of(script: &Script, object: usize) -> Vec<Action> {
    let action = |start: f32, end: f32, text: String| {
        let [start, end] = shown_steps(start, end)?;
        Some(Action { object, start, end, text })
    };
    let whole = |text: String| action(-1.0, LAST_STEP + 1.0, text);
    let mut actions = Vec::new();
    match script.played_behaviour(object) {
        Behaviour::Still if script.played_events(object).is_empty() => {
            actions.push(whole("stands still".into()))
        }
        Behaviour::Still => {}
        Behaviour::Scroll { heading, .. } => actions.push(whole(format!("moves {}", heading.word()))),
        Behaviour::Accelerate { heading, from, to, .. } => {
            let change = if to > from { "speeds up" } else { "slows down" };
            actions.push(whole(format!("moves {} and {change}", heading.word())));
        }
        Behaviour::Orbit { clockwise, .. } => {
            actions.push(whole(format!("circles {}", if clockwise { "clockwise" } else { "anticlockwise" })));
        }
        Behaviour::Pulse { growing, .. } => {
            actions.push(whole(format!("keeps {}", if growing { "growing" } else { "shrinking" })));
        }
        Behaviour::Cycle { colours, .. } => actions.push(whole(format!("turns {}", colour_list(&colours)))),
        Behaviour::Bounce { .. } => actions.push(whole("bounces around".into())),
        Behaviour::Follow { leader, gap } => {
            let text = if gap > 0.0 { "follows" } else { "leads" };
            actions.push(whole(format!("{text} the {}", script.name(leader))));
        }
        Behaviour::MoveOnce { heading, at, starts, .. } => {
            let (from, to) = if starts { (at, at + MOVE_STEPS) } else { (at - MOVE_STEPS, at) };
            let text = if starts { "starts and moves" } else { "moves and stops" };
            actions.push(action(from, to, format!("{text} {}", heading.word())));
        }
        Behaviour::Collide { partner, .. } => {
            actions.push(whole(format!("collides with the {}", script.name(partner))));
        }
        Behaviour::Routine { .. } => {
            let base = script.objects.get(object).map(|o| o.behaviour);
            for event in base.iter().flat_map(routine_events) {
                let [from, to] = if script.reversed {
                    [LAST_STEP - event.end(), LAST_STEP - event.start]
                } else {
                    [event.start, event.end()]
                };
                actions.push(action(from, to, event.kind.verb()));
            }
        }
    }
    for event in script.played_events(object) {
        // A change of one step shows between two samples: it is told on the first sample after it.
        let end = if event.steps < 2.0 { event.end() + 1.0 } else { event.end() };
        actions.push(action(event.start, end, event.kind.verb()));
    }
    let mut actions: Vec<Action> = actions.into_iter().flatten().collect();
    actions.sort_by_key(|a| (a.start, a.end));
    actions
}
