//! Draws clips from seeds: what each object looks like, what it does, and the scene.
//!
//! In: a seed and a [`WorldConfig`]. Out: a [`Script`]. Every choice is as likely as its time reversal: directions are fair, phases uniform,
//! times of events symmetric, and half of the clips are played backwards. Questions are not its business.

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::backdrop::random_backdrop;
use super::config::{HoldOut, WorldConfig};
use super::placement::{assign_depths, bars, move_window, settle};
use super::script::{
    Behaviour, Camera, Category, Colour, Event, EventKind, Heading, ObjectSpec, STEPS, Script, Size, Texture,
};

/// Steps of a transient event: it shows on two sampled frames.
pub const EVENT_STEPS: f32 = 3.0;
/// The transient events.
pub const TRANSIENTS: [EventKind; 5] =
    [EventKind::Hop, EventKind::Blink, EventKind::Flash, EventKind::Swell, EventKind::Spin];

/// What one object will do, before it has a look.
#[derive(Clone, Debug)]
pub struct Part {
    /// All the time.
    pub behaviour: Behaviour,
    /// For a moment.
    pub events: Vec<Event>,
}

impl Part {
    /// Only a behaviour.
    pub fn of(behaviour: Behaviour) -> Self {
        Self { behaviour, events: Vec::new() }
    }

    /// Only events.
    pub fn with(events: Vec<Event>) -> Self {
        Self { behaviour: Behaviour::Still, events }
    }
}

/// A general clip: random behaviours, many questions possible.
pub fn generate(seed: u64, config: &WorldConfig) -> Script {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let count =
        rng.random_range(config.min_objects.max(1)..=config.max_objects.clamp(config.min_objects.max(1), 6));
    let mut objects = Vec::new();
    fill(&mut rng, config, &mut objects, count);
    settle(&mut rng, &mut objects, 0);
    finish(&mut rng, seed, config, objects)
}

/// Adds random objects until there are `count`.
pub fn fill(rng: &mut ChaCha8Rng, config: &WorldConfig, objects: &mut Vec<ObjectSpec>, count: usize) {
    while objects.len() < count {
        let parts = random_parts(rng, objects.len(), count - objects.len());
        for part in parts {
            let object = dress(rng, config, objects, part, false);
            objects.push(object);
        }
    }
}

/// Depths, bars, camera and backdrop around placed objects; half of the clips are played backwards.
pub fn finish(rng: &mut ChaCha8Rng, seed: u64, config: &WorldConfig, mut objects: Vec<ObjectSpec>) -> Script {
    assign_depths(rng, &mut objects);
    let occluders = bars(rng, &objects, config.max_occluders.min(2));
    let strength = if config.camera { 1.0 } else { 0.0 };
    let camera = Camera {
        amplitude: [rng.random_range(0.0f32..0.02) * strength, rng.random_range(0.0f32..0.02) * strength],
        period: rng.random_range(10.0f32..40.0),
        phase: [rng.random(), rng.random()],
        shake: rng.random_range(0.0f32..0.006) * strength,
    };
    let backdrop = random_backdrop(rng, config.backdrops);
    Script { seed, objects, occluders, backdrop, camera, reversed: rng.random() }
}

/// Gives a part a look that no other object of the clip has. `subject` wants a held-out look where the config says `Only`.
pub fn dress(
    rng: &mut ChaCha8Rng,
    config: &WorldConfig,
    others: &[ObjectSpec],
    part: Part,
    subject: bool,
) -> ObjectSpec {
    let size = match part.behaviour {
        // What must stay readable while it shrinks starts large; what shares a lane has one size.
        Behaviour::Pulse { .. } => Size::Large,
        Behaviour::Follow { leader, .. } => others.get(leader).map_or(Size::Large, |o| o.size),
        _ if config.large_only => Size::Large,
        _ => *[Size::Small, Size::Large].choose(rng).unwrap_or(&Size::Large),
    };
    let texture =
        if config.textures { *Texture::ALL.choose(rng).unwrap_or(&Texture::Plain) } else { Texture::Plain };
    let candidate = |category: Category, colour: Colour| {
        let mut events = part.events.clone();
        for event in &mut events {
            if let EventKind::ChangeColour { from, .. } = &mut event.kind {
                *from = colour;
            }
        }
        let behaviour = match part.behaviour {
            Behaviour::Cycle { colours: [_, b, c], dwell, phase } => {
                Behaviour::Cycle { colours: [colour, b, c], dwell, phase }
            }
            other => other,
        };
        let home = [0.5, 0.5];
        ObjectSpec { category, colour, size, texture, home, depth: 0, behaviour, events, identical: false }
    };
    let looks: Vec<ObjectSpec> = (Category::ALL.iter())
        .flat_map(|&category| Colour::ALL.iter().map(move |&colour| (category, colour)))
        .map(|(category, colour)| candidate(category, colour))
        .filter(|o| fits(o, others))
        .collect();
    let wanted: Vec<&ObjectSpec> = match config.held_out {
        HoldOut::Never => looks.iter().filter(|o| !o.is_held_out()).collect(),
        HoldOut::Only if subject => {
            let held: Vec<&ObjectSpec> = looks.iter().filter(|o| o.is_held_out()).collect();
            if held.is_empty() { looks.iter().collect() } else { held }
        }
        _ => looks.iter().collect(),
    };
    match wanted.choose(rng) {
        Some(object) => (*object).clone(),
        // No look is left for this part: something that stands still always finds one.
        None => dress(rng, config, others, Part::of(Behaviour::Still), false),
    }
}

/// Whether a look can be told apart from the others and shows what the object does.
fn fits(object: &ObjectSpec, others: &[ObjectSpec]) -> bool {
    let mut kinds: Vec<EventKind> = object.events.iter().map(|e| e.kind).collect();
    if let Behaviour::Routine { events, .. } = object.behaviour {
        kinds.extend(events);
    }
    // A small turned star looks like a star.
    let round = matches!(object.category, Category::Ball | Category::Ring | Category::Star);
    let legible = kinds.iter().all(|kind| match kind {
        EventKind::Spin => !round,
        EventKind::Flash => object.colour != Colour::White,
        EventKind::ChangeColour { from, to } => from != to,
        _ => true,
    });
    let cycle = match object.behaviour {
        Behaviour::Cycle { colours: [a, b, c], .. } => a != b && b != c && a != c,
        _ => true,
    };
    let apart = others.iter().all(|o| {
        if o.category != object.category {
            return true;
        }
        !(o.identical || o.changes_colour() || object.changes_colour() || o.colour == object.colour)
    });
    legible && cycle && apart
}

fn fair_heading(rng: &mut ChaCha8Rng) -> Heading {
    *Heading::ALL.choose(rng).unwrap_or(&Heading::Left)
}

/// A uniform scroll.
pub fn scroll(rng: &mut ChaCha8Rng) -> Behaviour {
    Behaviour::Scroll {
        heading: fair_heading(rng),
        speed: rng.random_range(0.05f32..0.11),
        phase: rng.random(),
    }
}

/// A scroll that speeds up or slows down, each as likely.
pub fn accelerate(rng: &mut ChaCha8Rng) -> Behaviour {
    let (slow, fast) = (rng.random_range(0.012f32..0.025), rng.random_range(0.10f32..0.13));
    let (from, to) = if rng.random() { (slow, fast) } else { (fast, slow) };
    Behaviour::Accelerate { heading: fair_heading(rng), from, to, phase: rng.random() }
}

/// A circle.
pub fn orbit(rng: &mut ChaCha8Rng) -> Behaviour {
    Behaviour::Orbit {
        clockwise: rng.random(),
        radius: rng.random_range(0.14f32..0.22),
        period: rng.random_range(8.0f32..18.0),
        phase: rng.random(),
    }
}

/// Keeps growing or shrinking.
pub fn pulse(rng: &mut ChaCha8Rng) -> Behaviour {
    Behaviour::Pulse { growing: rng.random(), period: rng.random_range(6.0f32..12.0), phase: rng.random() }
}

/// Three colours in turn (the first is replaced by the colour of the look).
pub fn cycle(rng: &mut ChaCha8Rng) -> Behaviour {
    let mut pick = || *Colour::ALL.choose(rng).unwrap_or(&Colour::Red);
    let (a, b) = (pick(), pick());
    let mut c = pick();
    while c == b {
        c = pick();
    }
    Behaviour::Cycle { colours: [a, b, c], dwell: rng.random_range(2..=4) as f32, phase: rng.random() }
}

/// Three different events in turn.
pub fn routine(rng: &mut ChaCha8Rng) -> Behaviour {
    let [a, b, c] = distinct_kinds(rng);
    let dwell = rng.random_range(3..=4u32);
    Behaviour::Routine { events: [a, b, c], dwell, phase: rng.random_range(0..3 * dwell) }
}

/// Flies about.
pub fn bounce(rng: &mut ChaCha8Rng) -> Behaviour {
    let mut speed = || rng.random_range(0.03f32..0.09);
    let velocity = [speed(), speed()];
    Behaviour::Bounce { velocity, phase: [rng.random(), rng.random()] }
}

/// Three different transient events in random order.
pub fn distinct_kinds(rng: &mut ChaCha8Rng) -> [EventKind; 3] {
    let mut kinds = TRANSIENTS;
    for i in 0..3 {
        let j = rng.random_range(i..kinds.len());
        kinds.swap(i, j);
    }
    [kinds[0], kinds[1], kinds[2]]
}

/// A transient event at `start`.
pub fn transient(kind: EventKind, start: u32) -> Event {
    Event { kind, start: start as f32, steps: EVENT_STEPS }
}

/// Starts of two events that follow each other: the time of the couple has a triangular distribution, which is what keeps
/// "an early one is the first" from helping (2 points at the best single frame; zero is impossible).
pub fn couple(rng: &mut ChaCha8Rng) -> [u32; 2] {
    let gap = if rng.random_range(0..3) == 0 { 4 } else { 3u32 };
    let room = STEPS as u32 - 1 - EVENT_STEPS as u32 - gap;
    let first = rng.random_range(0..=room / 2) + rng.random_range(0..=room - room / 2);
    [first, first + gap]
}

/// Starts of `count` events at least 5 steps apart.
pub fn separated(rng: &mut ChaCha8Rng, count: u32) -> Vec<u32> {
    let room = STEPS as u32 - 1 - EVENT_STEPS as u32 - 5 * (count - 1);
    let mut starts: Vec<u32> = (0..count).map(|_| rng.random_range(0..=room)).collect();
    starts.sort_unstable();
    starts.iter().zip(0..).map(|(s, i)| s + 5 * i).collect()
}

/// One to two parts that belong together; `next` is the index of the first, `room` how many fit.
fn random_parts(rng: &mut ChaCha8Rng, next: usize, room: usize) -> Vec<Part> {
    let [kind, second, _] = distinct_kinds(rng);
    match rng.random_range(0..100) {
        0..16 => vec![Part::of(scroll(rng))],
        16..25 => vec![Part::of(accelerate(rng))],
        25..36 => vec![Part::of(orbit(rng))],
        36..46 => vec![Part::of(pulse(rng))],
        46..56 => vec![Part::of(cycle(rng))],
        56..65 => vec![Part::of(routine(rng))],
        65..75 if room >= 2 => {
            let mut times = couple(rng);
            if rng.random() {
                times.swap(0, 1);
            }
            let other = *TRANSIENTS.choose(rng).unwrap_or(&second);
            vec![Part::with(vec![transient(kind, times[0])]), Part::with(vec![transient(other, times[1])])]
        }
        65..79 => {
            let [a, b] = couple(rng);
            vec![Part::with(vec![transient(kind, a), transient(second, b)])]
        }
        79..85 => {
            let count = rng.random_range(1..=4);
            vec![Part::with(separated(rng, count).into_iter().map(|s| transient(kind, s)).collect())]
        }
        85..90 if room >= 2 => follow_couple(rng, next).to_vec(),
        85..90 => vec![Part::of(scroll(rng))],
        90..92 if room >= 2 => collide_couple(rng, next).to_vec(),
        90..92 => vec![Part::of(bounce(rng))],
        92..97 => vec![once(rng)],
        _ => vec![Part::of(Behaviour::Still)],
    }
}

/// A leader and a follower in one lane.
pub fn follow_couple(rng: &mut ChaCha8Rng, next: usize) -> [Part; 2] {
    let gap = rng.random_range(0.26f32..0.34) * if rng.random() { 1.0 } else { -1.0 };
    [Part::of(scroll(rng)), Part::of(Behaviour::Follow { leader: next, gap })]
}

fn collide_couple(rng: &mut ChaCha8Rng, next: usize) -> [Part; 2] {
    let axis = if rng.random() { [1.0, 0.0] } else { [0.0, 1.0] };
    let distance = rng.random_range(0.10f32..0.14);
    let (period, phase) = (rng.random_range(8.0f32..14.0), rng.random());
    let side = |partner, toward| Part::of(Behaviour::Collide { partner, toward, distance, period, phase });
    [side(next + 1, axis), side(next, axis.map(|v: f32| -v))]
}

/// Something that happens once and stays, or a short visit.
fn once(rng: &mut ChaCha8Rng) -> Part {
    let change = |kind, start: u32| Event { kind, start: start as f32, steps: 1.0 };
    let at = rng.random_range(6..=24u32);
    match rng.random_range(0..8) {
        0 => Part::with(vec![change(EventKind::Appear, at)]),
        1 => Part::with(vec![change(EventKind::Disappear, at)]),
        2 => {
            let to = *Colour::ALL.choose(rng).unwrap_or(&Colour::Red);
            Part::with(vec![change(EventKind::ChangeColour { from: to, to }, at)])
        }
        3 => Part::with(vec![transient(EventKind::Grow, rng.random_range(4..=24))]),
        4 => Part::with(vec![transient(EventKind::Shrink, rng.random_range(4..=24))]),
        5 => visit(rng),
        _ => {
            let (low, high) = move_window();
            Part::of(Behaviour::MoveOnce {
                heading: fair_heading(rng),
                distance: rng.random_range(0.25f32..0.4),
                at: rng.random_range(low..high),
                starts: rng.random(),
            })
        }
    }
}

/// Seen for 4 to 6 steps only.
pub fn visit(rng: &mut ChaCha8Rng) -> Part {
    let length = rng.random_range(4..=6u32);
    let from = rng.random_range(1..=29 - length);
    let change = |kind, start: u32| Event { kind, start: start as f32, steps: 1.0 };
    Part::with(vec![change(EventKind::Appear, from), change(EventKind::Disappear, from + length)])
}
