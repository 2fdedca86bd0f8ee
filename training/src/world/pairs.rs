//! Minimal pairs: two clips that differ in one thing, with one question whose answers differ.
//!
//! In: a skill, a seed, a config. Out: two [`Posed`] items with the same question text. For order skills the second clip is the first
//! played backwards: the same frames in opposite order. For the others one thing of the script is changed. A draw whose
//! fact cannot be seen in both clips is thrown away; later attempts draw simpler scenes.

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::config::{HoldOut, WorldConfig};
use super::facts::{Fact, facts};
use super::generate::{
    Part, TRANSIENTS, accelerate, bounce, couple, cycle, distinct_kinds, dress, fill, finish, follow_couple,
    orbit, pulse, routine, scroll, separated, transient, visit,
};
use super::placement::settle;
use super::questions::{Item, pose};
use super::script::{Behaviour, Colour, Event, EventKind, Heading, ObjectSpec, Script, Size, Skill};

/// A clip with a question about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Posed {
    /// The clip.
    pub script: Script,
    /// The question.
    pub item: Item,
}

/// Attempts before the scene is drawn without bars and with the fewest objects.
const ATTEMPTS: usize = 30;

/// The pair of a skill for a seed: the same question text, different answers, in random order of twins. Draws until both
/// clips show their fact.
pub fn pair(skill: Skill, seed: u64, config: &WorldConfig) -> [Posed; 2] {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(skill as u64 + 1);
    let mut simple = config.clone();
    for attempt in 0.. {
        if attempt == ATTEMPTS {
            simple.max_occluders = 0;
            simple.max_objects = simple.min_objects.min(3);
        }
        if let Some(pair) = attempt_pair(skill, seed, &simple, &mut rng) {
            return pair;
        }
    }
    unreachable!("the attempts have no end")
}

fn attempt_pair(skill: Skill, seed: u64, config: &WorldConfig, rng: &mut ChaCha8Rng) -> Option<[Posed; 2]> {
    let (script, twin) = draw(skill, seed, config, rng)?;
    if config.held_out == HoldOut::Never && (twin.objects.iter().any(ObjectSpec::is_held_out)) {
        return None;
    }
    let fact = subject_fact(skill, &script, rng)?;
    let other = subject_fact(skill, &twin, rng)?;
    // The twin's truth is the alternative; both clips must ask about the same words.
    let same = fact.slots == other.slots && fact.right != other.right;
    let reversal = !skill.is_order() || (fact.twin == other.right && other.twin == fact.right);
    if !same || !reversal {
        return None;
    }
    let mut options = fact.options.clone();
    if skill == Skill::MovingAttribute || skill == Skill::Existence || skill == Skill::Attribute {
        options = vec![fact.right.clone(), other.right.clone()];
        options.sort();
    }
    let known = options.contains(&other.right);
    let fact = Fact { twin: other.right.clone(), options, ..fact };
    known.then_some(())?;
    let item = pose(&fact, rng);
    let twin_item = Item { subjects: other.subjects.clone(), ..item.twin(other.window)? };
    let mut pair = [Posed { script, item }, Posed { script: twin, item: twin_item }];
    if rng.random() {
        pair.reverse();
    }
    Some(pair)
}

/// The fact of the skill that concerns the subject, which is always object 0.
fn subject_fact(skill: Skill, script: &Script, rng: &mut ChaCha8Rng) -> Option<Fact> {
    let mut found: Vec<Fact> = facts(script, rng).into_iter().filter(|f| f.skill == skill).collect();
    let concerned = |f: &Fact| match skill {
        Skill::EventOrder | Skill::Follow => f.subjects == [0, 1] || f.subjects == [0],
        Skill::MovingAttribute => f.subjects == [0] || f.subjects == [1],
        Skill::Location => f.subjects == [0, 1],
        Skill::ObjectShuffle | Skill::MovingCount => true,
        _ => f.subjects == [0],
    };
    found.retain(concerned);
    let [fact] = found.try_into().ok()?;
    Some(fact)
}

/// A clip for the skill with its subjects first, and its twin.
fn draw(skill: Skill, seed: u64, config: &WorldConfig, rng: &mut ChaCha8Rng) -> Option<(Script, Script)> {
    match skill {
        Skill::ObjectShuffle => return shuffle(seed, config, rng),
        Skill::MovingCount => return moving_count(seed, config, rng),
        Skill::MovingAttribute => return moving_attribute(seed, config, rng),
        _ => {}
    }
    let parts = subject_parts(skill, rng);
    let mut objects = Vec::new();
    for part in parts {
        let object = dress(rng, config, &objects, part, objects.is_empty());
        objects.push(object);
    }
    let least = config.min_objects.max(objects.len());
    let count = rng.random_range(least..=config.max_objects.clamp(least, 6));
    fill(rng, config, &mut objects, count);
    if matches!(skill, Skill::Existence | Skill::Attribute | Skill::Location) {
        calm_rivals(skill, &mut objects);
    }
    settle(rng, &mut objects, 0);
    let script = finish(rng, seed, config, objects);
    let twin = match skill {
        Skill::ActionCount => recount(&script, rng)?,
        Skill::Existence => replace_visitor(&script, config, rng),
        Skill::Attribute => recolour(&script, rng)?,
        Skill::Location => exchange(&script),
        _ => script.time_reversed(),
    };
    Some((script, twin))
}

/// What the subjects do.
fn subject_parts(skill: Skill, rng: &mut ChaCha8Rng) -> Vec<Part> {
    let [kind, second, _] = distinct_kinds(rng);
    match skill {
        Skill::Direction => vec![Part::of(scroll(rng))],
        Skill::Rotation => vec![Part::of(orbit(rng))],
        Skill::Antonym => vec![Part::of(pulse(rng))],
        Skill::Speed => vec![Part::of(accelerate(rng))],
        Skill::AttributeChange => vec![Part::of(cycle(rng))],
        Skill::ActionSequence => vec![Part::of(routine(rng))],
        Skill::Follow => follow_couple(rng, 0).to_vec(),
        Skill::EventOrder => {
            let [a, b] = couple(rng);
            if rng.random_range(0..3) == 0 {
                return vec![Part::with(vec![transient(kind, a), transient(second, b)])];
            }
            let other = *TRANSIENTS.choose(rng).unwrap_or(&second);
            let mut parts = vec![Part::with(vec![transient(kind, a)]), Part::with(vec![transient(other, b)])];
            parts.shuffle(rng);
            parts
        }
        Skill::Localization => {
            let start = rng.random_range(0..=11) + if rng.random() { 17 } else { 0 };
            vec![Part::with(vec![transient(kind, start)])]
        }
        Skill::ActionCount => {
            let count = rng.random_range(1..=4);
            vec![Part::with(separated(rng, count).into_iter().map(|s| transient(kind, s)).collect())]
        }
        Skill::Existence => vec![visit(rng)],
        Skill::Location => vec![Part::of(Behaviour::Still), Part::of(Behaviour::Still)],
        _ => vec![Part::of(Behaviour::Still)],
    }
}

/// Takes away what would make the question ambiguous: a second visitor, a third resting object.
fn calm_rivals(skill: Skill, objects: &mut [ObjectSpec]) {
    let subjects = if skill == Skill::Location { 2 } else { 1 };
    for object in objects.iter_mut().skip(subjects) {
        match skill {
            Skill::Existence => {
                object.events.retain(|e| !matches!(e.kind, EventKind::Appear | EventKind::Disappear))
            }
            Skill::Location if object.behaviour == Behaviour::Still && object.events.is_empty() => {
                object.behaviour = Behaviour::Bounce { velocity: [0.05, 0.04], phase: object.home };
            }
            _ => {}
        }
    }
}

/// The same event another number of times.
fn recount(script: &Script, rng: &mut ChaCha8Rng) -> Option<Script> {
    let mut twin = script.clone();
    let subject = twin.objects.first_mut()?;
    let counts: Vec<u32> = (1..=4).filter(|&n| n as usize != subject.events.len()).collect();
    let count = *counts.choose(rng)?;
    let kind = subject.events.first()?.kind;
    subject.events = separated(rng, count).into_iter().map(|s| transient(kind, s)).collect();
    Some(twin)
}

/// Another object appears instead.
fn replace_visitor(script: &Script, config: &WorldConfig, rng: &mut ChaCha8Rng) -> Script {
    let mut twin = script.clone();
    let visitor = twin.objects.remove(0);
    let mut others = twin.objects.clone();
    others.push(visitor.clone());
    let part = Part { behaviour: visitor.behaviour, events: visitor.events.clone() };
    let new = dress(rng, config, &others, part, true);
    let new = ObjectSpec { size: visitor.size, home: visitor.home, depth: visitor.depth, ..new };
    twin.objects.insert(0, new);
    twin
}

/// The subject in another colour.
fn recolour(script: &Script, rng: &mut ChaCha8Rng) -> Option<Script> {
    let mut twin = script.clone();
    let subject = twin.objects.first_mut()?;
    let others: Vec<_> = Colour::ALL.iter().filter(|&&c| c != subject.colour).collect();
    subject.colour = **others.choose(rng)?;
    Some(twin)
}

/// The two subjects in each other's place.
fn exchange(script: &Script) -> Script {
    let mut twin = script.clone();
    if let [a, b, ..] = &mut twin.objects[..] {
        std::mem::swap(&mut a.home, &mut b.home);
    }
    twin
}

/// Still objects of which another number moves in the twin.
fn moving_count(seed: u64, config: &WorldConfig, rng: &mut ChaCha8Rng) -> Option<(Script, Script)> {
    let total = rng.random_range(3..=config.max_objects.clamp(3, 5));
    let mut counts = [0usize, 1, 2, 3];
    counts.shuffle(rng);
    let more = counts[0].max(counts[1]);
    let mut objects: Vec<ObjectSpec> = Vec::new();
    for index in 0..total {
        let mover = match rng.random_range(0..3) {
            0 => scroll(rng),
            1 => orbit(rng),
            _ => bounce(rng),
        };
        let part = Part::of(if index < more { mover } else { Behaviour::Still });
        let object = dress(rng, config, &objects, part, index == 0);
        objects.push(object);
    }
    settle(rng, &mut objects, 0);
    let full = finish(rng, seed, config, objects);
    let mut clips = [counts[0], counts[1]].map(|count| {
        let mut clip = full.clone();
        for (index, object) in clip.objects.iter_mut().enumerate() {
            if index < more && index >= count {
                object.behaviour = Behaviour::Still;
            }
        }
        clip
    });
    clips.shuffle(rng);
    let [a, b] = clips;
    Some((a, b))
}

/// One of two objects does something; in the twin the other one does.
fn moving_attribute(seed: u64, config: &WorldConfig, rng: &mut ChaCha8Rng) -> Option<(Script, Script)> {
    let [kind, _, _] = distinct_kinds(rng);
    let deed = match rng.random_range(0..3) {
        0 => Part::of(orbit(rng)),
        1 => Part::of(scroll(rng)),
        _ => Part::with(separated(rng, 1).into_iter().map(|s| transient(kind, s)).collect()),
    };
    let mut objects: Vec<ObjectSpec> = Vec::new();
    let first = dress(rng, config, &objects, deed.clone(), true);
    objects.push(first);
    // Drawn as one that could do the same, then kept still.
    let second = dress(rng, config, &objects, deed, true);
    objects.push(ObjectSpec { behaviour: Behaviour::Still, events: Vec::new(), ..second });
    let least = config.min_objects.max(2);
    let count = rng.random_range(least..=config.max_objects.clamp(least, 6));
    let changing = |rng: &mut ChaCha8Rng| match rng.random_range(0..3) {
        0 => pulse(rng),
        1 => cycle(rng),
        _ => Behaviour::Still,
    };
    while objects.len() < count {
        let part = Part::of(changing(rng));
        let object = dress(rng, config, &objects, part, false);
        objects.push(object);
    }
    settle(rng, &mut objects, 0);
    let script = finish(rng, seed, config, objects);
    let mut twin = script.clone();
    if let [a, b, ..] = &mut twin.objects[..] {
        std::mem::swap(&mut a.behaviour, &mut b.behaviour);
        std::mem::swap(&mut a.events, &mut b.events);
        // The look changes sides, so that places and movements stay as they were.
        std::mem::swap(&mut a.home, &mut b.home);
        std::mem::swap(&mut a.size, &mut b.size);
        std::mem::swap(&mut a.depth, &mut b.depth);
    }
    Some((script, twin))
}

/// Three equal objects in a row, one flashes, they change places; in the twin another one flashes.
fn shuffle(seed: u64, config: &WorldConfig, rng: &mut ChaCha8Rng) -> Option<(Script, Script)> {
    let mut objects: Vec<ObjectSpec> = Vec::new();
    let flash = Part::with(vec![transient(EventKind::Flash, 0)]);
    let model = dress(rng, config, &objects, flash, true);
    for place in 0..3 {
        let home = [[0.2, 0.5], [0.5, 0.5], [0.8, 0.5]][place];
        objects.push(ObjectSpec {
            home,
            size: Size::Small,
            events: Vec::new(),
            identical: true,
            ..model.clone()
        });
    }
    let mut time = rng.random_range(4..=5) as f32;
    let steps = 6.0;
    for _ in 0..rng.random_range(2..=4) {
        let mut couple = [0usize, 1, 2];
        couple.shuffle(rng);
        let [a, b, _] = couple;
        let above: bool = rng.random();
        let swap = |partner, above| Event { kind: EventKind::Swap { partner, above }, start: time, steps };
        objects[a].events.push(swap(b, above));
        objects[b].events.push(swap(a, !above));
        time += steps;
    }
    let extra = config.max_objects.saturating_sub(3).min(2);
    let count = 3 + rng.random_range(0..=extra);
    for row in 3..count {
        let part = Part::of(if rng.random() { cycle(rng) } else { scroll(rng) });
        let mut object = dress(rng, config, &objects, part, false);
        if let Behaviour::Scroll { heading, .. } = &mut object.behaviour
            && !heading.is_horizontal()
        {
            *heading = if rng.random() { Heading::Left } else { Heading::Right };
        }
        object.size = Size::Small;
        object.home = [rng.random_range(0.15f32..0.85), if row == 3 { 0.13 } else { 0.87 }];
        objects.push(object);
    }
    let mut script = finish(rng, seed, &WorldConfig { max_occluders: 0, ..config.clone() }, objects);
    // The mark must come first.
    script.reversed = false;
    let mut marked = [0usize, 1, 2];
    marked.shuffle(rng);
    let mut clips = [marked[0], marked[1]].map(|index| {
        let mut clip = script.clone();
        clip.objects[index].events.insert(0, transient(EventKind::Flash, 0));
        clip
    });
    clips.shuffle(rng);
    let [a, b] = clips;
    Some((a, b))
}
