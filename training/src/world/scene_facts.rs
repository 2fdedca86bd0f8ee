//! Facts about the scene rather than about the order of time: who visits, moves, is marked, how many, which colour, where.
//!
//! In: a [`Script`] and what of it is seen. Out: [`Fact`]s. Facts of order and events are in `facts`.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::facts::{Fact, Seen, WHOLE, is_transient, texts, window_of};
use super::motion::{ObjectState, state_at};
use super::script::{Behaviour, Category, Colour, Event, EventKind, STEPS, Script, Skill};
use super::truth::routine_events;

/// An object that is seen for some steps only.
pub(super) fn visit_fact(script: &Script, seen: &Seen, index: usize, rng: &mut ChaCha8Rng) -> Option<Fact> {
    let events = script.played_events(index);
    let [Event { kind: EventKind::Appear, start, .. }, Event { kind: EventKind::Disappear, start: end, .. }] =
        events[..]
    else {
        return None;
    };
    let (from, to) = (start as usize + 1, end as usize);
    (seen.count(index, from, to) == to + 1 - from).then_some(())?;
    let mut absent: Vec<String> = Vec::new();
    for &category in Category::ALL {
        // Whatever could be named like something in the clip is no fair alternative.
        for &colour in Colour::ALL {
            let taken = |o: &super::script::ObjectSpec| {
                o.category == category && (o.colour == colour || o.changes_colour() || o.identical)
            };
            if !script.objects.iter().any(taken) {
                absent.push(format!("a {} {}", colour.word(), category.word()));
            }
        }
    }
    let twin = absent.choose(rng)?.clone();
    let right = format!("a {}", script.name(index));
    let mut options = vec![right.clone(), twin.clone()];
    options.sort();
    let window = [from.saturating_sub(1), (to + 1).min(STEPS - 1)];
    Some(Fact { skill: Skill::Existence, subjects: vec![index], window, slots: vec![], options, right, twin })
}

/// Where the marked one of three equal objects ends.
pub(super) fn shuffle_fact(
    script: &Script,
    seen: &Seen,
    trio: &[usize],
    rng: &mut ChaCha8Rng,
) -> Option<Fact> {
    (trio.len() == 3 && trio.iter().all(|&i| seen.always(i))).then_some(())?;
    let flashes =
        |&&i: &&usize| script.played_events(i).iter().any(|e| e.kind == EventKind::Flash && e.end() < 8.0);
    let marked = *trio.iter().find(flashes)?;
    let places = ["left", "middle", "right"];
    let last = seen.steps.last()?;
    let rank = |i: usize| trio.iter().filter(|&&j| last[j].centre[0] < last[i].centre[0]).count();
    let right = places[rank(marked)];
    let twin = *places.iter().filter(|&&p| p != right).collect::<Vec<_>>().choose(rng)?;
    Some(Fact {
        skill: Skill::ObjectShuffle,
        subjects: trio.to_vec(),
        window: WHOLE,
        slots: vec![script.objects[marked].category.word().into()],
        options: texts(places),
        right: right.into(),
        twin: twin.to_string(),
    })
}

/// How many objects travel, where that is beyond doubt for all.
pub(super) fn moving_count_fact(script: &Script, seen: &Seen, rng: &mut ChaCha8Rng) -> Option<Fact> {
    let mut count = 0;
    for (index, object) in script.objects.iter().enumerate() {
        let travels = object.behaviour.travels()?;
        (object.events.is_empty() && seen.count(index, 0, STEPS - 1) >= 14).then_some(())?;
        count += usize::from(travels);
    }
    let most = script.objects.len().clamp(3, 4);
    (count <= most).then_some(())?;
    let others: Vec<usize> = (0..=most).filter(|&n| n != count).collect();
    Some(Fact {
        skill: Skill::MovingCount,
        subjects: (0..script.objects.len()).collect(),
        window: WHOLE,
        slots: vec![],
        options: (0..=most).map(|n| n.to_string()).collect(),
        right: count.to_string(),
        twin: others.choose(rng)?.to_string(),
    })
}

/// The colour or shape of the only object that does something.
pub(super) fn attribute_facts(
    script: &Script,
    seen: &Seen,
    named: &[usize],
    rng: &mut ChaCha8Rng,
) -> Vec<Fact> {
    let mut facts = Vec::new();
    if named.len() != script.objects.len() || named.len() < 2 {
        return facts;
    }
    // (who, verb, window) of everything that could be asked about.
    let mut deeds: Vec<(usize, String, [usize; 2])> = Vec::new();
    for &index in named {
        let object = &script.objects[index];
        let events = script.played_events(index);
        let routine: Vec<Event> = routine_events(&object.behaviour);
        for kind in events.iter().chain(&routine).map(|e| e.kind).filter(|k| is_transient(*k)) {
            if !deeds.iter().any(|(i, verb, _)| *i == index && *verb == kind.verb()) {
                let window = events.iter().find(|e| e.kind == kind).map_or(WHOLE, window_of);
                deeds.push((index, kind.verb(), window));
            }
        }
        if object.behaviour.travels() == Some(true) {
            deeds.push((index, "moves".into(), WHOLE));
        }
    }
    for (index, verb, window) in &deeds {
        let object = &script.objects[*index];
        let shown = match script.played_events(*index).iter().find(|e| e.kind.verb() == *verb) {
            Some(event) => seen.shows(*index, event),
            None => seen.count(*index, 0, STEPS - 1) >= 20,
        };
        if deeds.iter().filter(|d| d.1 == *verb).count() != 1 || !shown || object.changes_colour() {
            continue;
        }
        let others: Vec<usize> = named.iter().copied().filter(|i| i != index).collect();
        let Some(other) = others.choose(rng).map(|&i| &script.objects[i]) else { continue };
        let by_colour = object.colour != other.colour && (object.category == other.category || rng.random());
        if by_colour && other.changes_colour() {
            continue;
        }
        let (word, right, twin) = if by_colour {
            ("colour", object.colour.word(), other.colour.word())
        } else {
            ("shape", object.category.word(), other.category.word())
        };
        if right == twin {
            continue;
        }
        let mut options = texts([right, twin]);
        options.sort();
        facts.push(Fact {
            skill: Skill::MovingAttribute,
            subjects: vec![*index],
            window: *window,
            slots: vec![word.into(), verb.clone()],
            options,
            right: right.into(),
            twin: twin.into(),
        });
    }
    facts
}

/// The colour of an object that rests in full view.
pub(super) fn colour_fact(script: &Script, seen: &Seen, index: usize, rng: &mut ChaCha8Rng) -> Option<Fact> {
    let object = script.objects.get(index)?;
    let alone = script.objects.iter().filter(|o| o.category == object.category).count() == 1;
    let resting = object.behaviour == Behaviour::Still && object.events.is_empty();
    (alone && resting && seen.always(index)).then_some(())?;
    Some(colour_of(object.category, object.colour, index, WHOLE, rng))
}

fn colour_of(
    category: Category,
    colour: Colour,
    index: usize,
    window: [usize; 2],
    rng: &mut ChaCha8Rng,
) -> Fact {
    let others: Vec<Colour> = Colour::ALL.iter().copied().filter(|&c| c != colour).collect();
    let twin = others.choose(rng).copied().unwrap_or(Colour::Red);
    let mut options = texts([colour.word(), twin.word()]);
    options.sort();
    Fact {
        skill: Skill::Attribute,
        subjects: vec![index],
        window,
        slots: vec!["colour".into(), category.word().into()],
        options,
        right: colour.word().into(),
        twin: twin.word().into(),
    }
}

/// How two resting objects lie to each other.
pub(super) fn location_fact(
    script: &Script,
    seen: &Seen,
    named: &[usize],
    rng: &mut ChaCha8Rng,
) -> Option<Fact> {
    let rests = |i: &&usize| {
        let o = &script.objects[**i];
        o.behaviour == Behaviour::Still && o.events.is_empty() && seen.always(**i)
    };
    let resting: Vec<usize> = named.iter().filter(rests).copied().collect();
    let [a, b] = resting[..] else { return None };
    relation(script, a, b, seen.steps.first()?, WHOLE, rng)
}

/// Left, right, above or below, along a random axis where the centres are at least 0.2 apart.
fn relation(
    script: &Script,
    a: usize,
    b: usize,
    states: &[ObjectState],
    window: [usize; 2],
    rng: &mut ChaCha8Rng,
) -> Option<Fact> {
    let (p, q) = (states.get(a)?.centre, states.get(b)?.centre);
    let axes: Vec<usize> = (0..2).filter(|&i| (p[i] - q[i]).abs() >= 0.2).collect();
    let axis = *axes.choose(rng)?;
    let words = if axis == 0 { ["left of", "right of"] } else { ["above", "below"] };
    let (right, twin) = if p[axis] < q[axis] { (words[0], words[1]) } else { (words[1], words[0]) };
    Some(Fact {
        skill: Skill::Location,
        subjects: vec![a, b],
        window,
        slots: vec![script.name(a), script.name(b)],
        options: texts(words),
        right: right.into(),
        twin: twin.into(),
    })
}

/// Facts that one frame shows: colours and relations of whatever is in full view at `step`.
pub fn image_facts(script: &Script, step: usize, rng: &mut ChaCha8Rng) -> Vec<Fact> {
    let states = state_at(script, step.min(STEPS - 1) as f32);
    let clear = |i: &usize| {
        let o = &script.objects[*i];
        states[*i].visibility >= 0.75 && !states[*i].flash && !o.changes_colour() && !o.identical
    };
    let visible: Vec<usize> = (0..states.len()).filter(clear).collect();
    let window = [step, step];
    let mut facts = Vec::new();
    for &index in &visible {
        let object = &script.objects[index];
        let alone = script.objects.iter().filter(|o| o.category == object.category).count() == 1;
        if alone {
            facts.push(colour_of(object.category, object.colour, index, window, rng));
        }
        if let Some(&other) = visible.choose(rng)
            && other != index
        {
            facts.extend(relation(script, index, other, &states, window, rng));
        }
    }
    facts
}
