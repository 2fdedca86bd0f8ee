//! What is seen when a clip is played: behaviours and events under time reversal, and their words.
//!
//! In: base behaviours and event kinds of a script. Out: the same in played time (left becomes right, growing becomes
//! shrinking, orders turn round …), and phrases such as "moves left" or "blinks". Draws and decides nothing.

use super::script::{Behaviour, Colour, EventKind};

impl Behaviour {
    /// This behaviour as seen forwards, or backwards.
    pub fn played(self, reversed: bool) -> Self {
        if !reversed {
            return self;
        }
        match self {
            Behaviour::Scroll { heading, speed, phase } => {
                Behaviour::Scroll { heading: heading.opposite(), speed, phase }
            }
            Behaviour::Accelerate { heading, from, to, phase } => {
                Behaviour::Accelerate { heading: heading.opposite(), from: to, to: from, phase }
            }
            Behaviour::Orbit { clockwise, radius, period, phase } => {
                Behaviour::Orbit { clockwise: !clockwise, radius, period, phase }
            }
            Behaviour::Pulse { growing, period, phase } => {
                Behaviour::Pulse { growing: !growing, period, phase }
            }
            Behaviour::Cycle { colours: [a, b, c], dwell, phase } => {
                Behaviour::Cycle { colours: [a, c, b], dwell, phase }
            }
            Behaviour::Routine { events: [a, b, c], dwell, phase } => {
                Behaviour::Routine { events: [a, c, b], dwell, phase }
            }
            Behaviour::Follow { leader, gap } => Behaviour::Follow { leader, gap: -gap },
            Behaviour::MoveOnce { heading, distance, at, starts } => Behaviour::MoveOnce {
                heading: heading.opposite(),
                distance,
                at: super::script::LAST_STEP - at,
                starts: !starts,
            },
            Behaviour::Still | Behaviour::Bounce { .. } | Behaviour::Collide { .. } => self,
        }
    }

    /// A number for the held-out rule; the same in both directions of time.
    pub fn kind_index(&self) -> u32 {
        match self {
            Behaviour::Still => 0,
            Behaviour::Scroll { .. } => 1,
            Behaviour::Accelerate { .. } => 2,
            Behaviour::Orbit { .. } => 3,
            Behaviour::Pulse { .. } => 4,
            Behaviour::Cycle { .. } => 5,
            Behaviour::Routine { .. } => 6,
            Behaviour::Bounce { .. } => 7,
            Behaviour::Follow { .. } => 8,
            Behaviour::MoveOnce { .. } => 9,
            Behaviour::Collide { .. } => 10,
        }
    }

    /// Whether the object travels, where that is beyond doubt.
    pub fn travels(&self) -> Option<bool> {
        match self {
            Behaviour::Still | Behaviour::Cycle { .. } => Some(false),
            Behaviour::Scroll { .. }
            | Behaviour::Accelerate { .. }
            | Behaviour::Orbit { .. }
            | Behaviour::Bounce { .. }
            | Behaviour::Follow { .. }
            | Behaviour::MoveOnce { .. }
            | Behaviour::Collide { .. } => Some(true),
            Behaviour::Pulse { .. } | Behaviour::Routine { .. } => None,
        }
    }
}

impl EventKind {
    /// This event as seen forwards, or backwards.
    pub fn played(self, reversed: bool) -> Self {
        if !reversed {
            return self;
        }
        match self {
            EventKind::Appear => EventKind::Disappear,
            EventKind::Disappear => EventKind::Appear,
            EventKind::Grow => EventKind::Shrink,
            EventKind::Shrink => EventKind::Grow,
            EventKind::ChangeColour { from, to } => EventKind::ChangeColour { from: to, to: from },
            other => other,
        }
    }

    /// A number for the held-out rule; the same in both directions of time.
    pub fn kind_index(&self) -> u32 {
        match self {
            EventKind::Hop => 11,
            EventKind::Blink => 12,
            EventKind::Flash => 13,
            EventKind::Swell => 14,
            EventKind::Spin => 15,
            EventKind::Swap { .. } => 16,
            EventKind::Appear | EventKind::Disappear => 17,
            EventKind::ChangeColour { .. } => 18,
            EventKind::Grow | EventKind::Shrink => 19,
        }
    }

    /// Third person: "hops".
    pub fn verb(&self) -> String {
        match self {
            EventKind::Hop => "hops".into(),
            EventKind::Blink => "blinks".into(),
            EventKind::Flash => "flashes".into(),
            EventKind::Swell => "swells".into(),
            EventKind::Spin => "spins".into(),
            EventKind::Swap { .. } => "swaps places".into(),
            EventKind::Appear => "appears".into(),
            EventKind::Disappear => "disappears".into(),
            EventKind::ChangeColour { to, .. } => format!("turns {}", to.word()),
            EventKind::Grow => "grows".into(),
            EventKind::Shrink => "shrinks".into(),
        }
    }

    /// Infinitive: "hop".
    pub fn infinitive(&self) -> String {
        match self {
            EventKind::Flash => "flash".into(),
            EventKind::Swap { .. } => "swap places".into(),
            EventKind::ChangeColour { to, .. } => format!("turn {}", to.word()),
            other => other.verb().trim_end_matches('s').to_string(),
        }
    }
}

/// "red, blue and green".
pub fn colour_list(colours: &[Colour; 3]) -> String {
    let [a, b, c] = colours;
    format!("{}, {} and {}", a.word(), b.word(), c.word())
}
