//! The description of a clip: objects, what they do, and the scene around them.
//!
//! A [`Script`] is plain data, drawn by `generate` and `pairs`, read by `motion` (state), `render` (pixels), `truth` and
//! `questions`. Coordinates are fractions of the picture (x to the right, y downwards); times are steps in *base* time.
//! `reversed` plays the base clip backwards; [`Behaviour::played`] and [`EventKind::played`] say what is then seen.

use serde::{Deserialize, Serialize};

pub use super::words::{Category, Colour, Heading, Size, Skill, Texture};

/// Sampled frames of a clip: the whole steps 0 to 31.
pub const STEPS: usize = 32;
/// The time of the last step.
pub const LAST_STEP: f32 = 31.0;

/// What an object does all the time. Phases are uniform, so that one frame says nothing about the direction of time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Behaviour {
    /// Stays at home.
    Still,
    /// Moves through the picture on a torus; `speed` per step, `phase` in [0,1) of the torus.
    Scroll {
        /// Direction.
        heading: Heading,
        /// Displacement per step.
        speed: f32,
        /// Start on the torus, in [0,1).
        phase: f32,
    },
    /// As `Scroll`, with a speed that runs linearly from `from` to `to` over the clip.
    Accelerate {
        /// Direction.
        heading: Heading,
        /// Speed at the start.
        from: f32,
        /// Speed at the end.
        to: f32,
        /// Start on the torus, in [0,1).
        phase: f32,
    },
    /// Circles around its home.
    Orbit {
        /// As seen on the picture.
        clockwise: bool,
        /// Radius as a fraction of the picture.
        radius: f32,
        /// Steps per turn.
        period: f32,
        /// In [0,1) of a turn.
        phase: f32,
    },
    /// Grows (or shrinks) steadily and snaps back, again and again.
    Pulse {
        /// Growing, else shrinking.
        growing: bool,
        /// Steps per cycle.
        period: f32,
        /// In [0,1) of a cycle.
        phase: f32,
    },
    /// Shows three colours in cyclic order.
    Cycle {
        /// The order.
        colours: [Colour; 3],
        /// Steps per colour.
        dwell: f32,
        /// In [0,1) of the whole cycle.
        phase: f32,
    },
    /// Repeats three events in cyclic order.
    Routine {
        /// The order.
        events: [EventKind; 3],
        /// Steps per event; the event itself takes 3.
        dwell: u32,
        /// Whole steps already gone.
        phase: u32,
    },
    /// Flies around inside the picture (a distractor).
    Bounce {
        /// Displacement per step.
        velocity: [f32; 2],
        /// In [0,1) of the way to and fro, for each axis.
        phase: [f32; 2],
    },
    /// Goes the same way as object `leader` at a constant distance behind it (negative: ahead of it).
    Follow {
        /// Index of the other object, which scrolls.
        leader: usize,
        /// Distance behind as a fraction of the picture.
        gap: f32,
    },
    /// Moves by `distance` until `at`, then stands at home (`starts`: stands, and leaves at `at`).
    MoveOnce {
        /// Direction.
        heading: Heading,
        /// Total way as a fraction of the picture.
        distance: f32,
        /// The time it stops or starts; the movement takes 8 steps.
        at: f32,
        /// Starts instead of stops.
        starts: bool,
    },
    /// Two objects swing towards each other, touch and part, again and again.
    Collide {
        /// The other one.
        partner: usize,
        /// Unit direction towards the partner and back.
        toward: [f32; 2],
        /// Way of this object from home to the touch.
        distance: f32,
        /// Steps per cycle.
        period: f32,
        /// In [0,1).
        phase: f32,
    },
}

/// What an object does for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// Jumps up and comes back.
    Hop,
    /// Is invisible in between.
    Blink,
    /// Turns white with a halo.
    Flash,
    /// Grows and returns.
    Swell,
    /// Turns round once.
    Spin,
    /// Walks to the place of another object, which comes here.
    Swap {
        /// The other one, which carries the mirror event.
        partner: usize,
        /// Passes above, else below.
        above: bool,
    },
    /// Is absent before.
    Appear,
    /// Is absent after.
    Disappear,
    /// Has another colour after.
    ChangeColour {
        /// The colour before.
        from: Colour,
        /// The colour after.
        to: Colour,
    },
    /// Is larger after.
    Grow,
    /// Is smaller after.
    Shrink,
}

/// An event with its place in base time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// What happens.
    pub kind: EventKind,
    /// First moment, in steps; the state at exactly this time is still the one before.
    pub start: f32,
    /// Length in steps; transient events of 3 steps show on two sampled frames.
    pub steps: f32,
}

impl Event {
    /// The last moment, in steps.
    pub fn end(&self) -> f32 {
        self.start + self.steps
    }
}

/// One object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectSpec {
    /// Shape.
    pub category: Category,
    /// Colour (the first of a cycle; the one before a change).
    pub colour: Colour,
    /// Size.
    pub size: Size,
    /// Surface.
    pub texture: Texture,
    /// Centre where it rests; for scrolling objects only the coordinate across the movement counts.
    pub home: [f32; 2],
    /// Higher is nearer to the viewer. Distinct within a clip.
    pub depth: u8,
    /// What it does all the time.
    pub behaviour: Behaviour,
    /// What it does for a moment, by start time.
    pub events: Vec<Event>,
    /// One of a trio that looks the same (object shuffle): never named by colour and category.
    pub identical: bool,
}

/// A static opaque bar across the whole picture, in front of everything.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Occluder {
    /// Vertical bar (else horizontal).
    pub vertical: bool,
    /// Centre across the bar.
    pub centre: f32,
    /// Half its width.
    pub half: f32,
}

/// How the backdrop is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackdropKind {
    /// One tint.
    Flat,
    /// From one tint to the other.
    Gradient,
    /// Squares of both tints.
    Checker,
    /// Random small cells between the tints.
    Speckle,
}

/// The backdrop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backdrop {
    /// Pattern.
    pub kind: BackdropKind,
    /// Two dark greyish tints.
    pub tints: [[u8; 3]; 2],
    /// Seed of the pattern.
    pub seed: u64,
}

/// A camera that sways; everything shifts by its offset.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Camera {
    /// Sway along x and y, at most 0.03.
    pub amplitude: [f32; 2],
    /// Steps per sway.
    pub period: f32,
    /// In [0,1) for each axis.
    pub phase: [f32; 2],
    /// Shake, at most 0.008: a fast second sway.
    pub shake: f32,
}

/// A clip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Script {
    /// The seed it was drawn from.
    pub seed: u64,
    /// What is seen.
    pub objects: Vec<ObjectSpec>,
    /// Bars in front.
    pub occluders: Vec<Occluder>,
    /// Behind everything.
    pub backdrop: Backdrop,
    /// Sway.
    pub camera: Camera,
    /// Played backwards: the state at `t` is the base state at `31 - t`.
    pub reversed: bool,
}

impl Script {
    /// The same clip played the other way: the same frames in opposite order.
    pub fn time_reversed(&self) -> Self {
        Self { reversed: !self.reversed, ..self.clone() }
    }

    /// Base time of played time `t` (and the other way round).
    pub fn base_time(&self, t: f32) -> f32 {
        if self.reversed { LAST_STEP - t } else { t }
    }

    /// The events of object `index` in played time: kinds as they are seen, sorted by start.
    pub fn played_events(&self, index: usize) -> Vec<Event> {
        let Some(object) = self.objects.get(index) else { return Vec::new() };
        let mut events: Vec<Event> = object.events.clone();
        if self.reversed {
            for event in &mut events {
                *event = Event {
                    kind: event.kind.played(true),
                    start: LAST_STEP - event.end(),
                    steps: event.steps,
                };
            }
        }
        events.sort_by(|a, b| a.start.total_cmp(&b.start));
        events
    }

    /// The behaviour of object `index` as it is seen.
    pub fn played_behaviour(&self, index: usize) -> Behaviour {
        self.objects.get(index).map_or(Behaviour::Still, |o| o.behaviour.played(self.reversed))
    }

    /// "red ball", or "ball" where the colour changes (its category is then unique in the clip).
    pub fn name(&self, index: usize) -> String {
        let Some(object) = self.objects.get(index) else { return String::from("object") };
        if object.changes_colour() || object.identical {
            object.category.word().to_string()
        } else {
            format!("{} {}", object.colour.word(), object.category.word())
        }
    }
}

impl ObjectSpec {
    /// Whether its colour differs between frames (a short flash does not count).
    pub fn changes_colour(&self) -> bool {
        matches!(self.behaviour, Behaviour::Cycle { .. })
            || self.events.iter().any(|e| matches!(e.kind, EventKind::ChangeColour { .. }))
    }

    /// "a large red striped ball" without the article.
    pub fn description(&self) -> String {
        let mut words = vec![self.size.word()];
        if !self.changes_colour() {
            words.push(self.colour.word());
        }
        if self.texture != Texture::Plain {
            words.push(self.texture.word());
        }
        words.push(self.category.word());
        words.join(" ")
    }
}
