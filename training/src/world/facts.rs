//! Facts of a clip that can be seen in its 32 sampled frames, each with the alternative that its twin clip would show.
//!
//! In: a [`Script`]. Out: [`Fact`]s in played time, without wording. Left out: what is hidden, out of view, ambiguous or not nameable.
//! Visibility is judged alike in both directions of time. Random choices only concern alternatives that no twin fixes.

use rand_chacha::ChaCha8Rng;

use super::motion::{ObjectState, state_at};
use super::scene_facts::{
    attribute_facts, colour_fact, location_fact, moving_count_fact, shuffle_fact, visit_fact,
};
use super::script::{Behaviour, Event, EventKind, LAST_STEP, STEPS, Script, Skill};
use super::truth::{routine_events, shown_steps};

/// Something that is true, with the false alternative.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// What it tests.
    pub skill: Skill,
    /// Objects concerned, in the order they are named.
    pub subjects: Vec<usize>,
    /// First and last step that show it.
    pub window: [usize; 2],
    /// Words for the template besides the options.
    pub slots: Vec<String>,
    /// All answers that are possible in principle, in a fixed order.
    pub options: Vec<String>,
    /// What is true.
    pub right: String,
    /// What the twin clip shows instead.
    pub twin: String,
}

/// The states of a clip at its sampled steps, kept to judge what can be seen.
pub struct Seen {
    pub(super) steps: Vec<Vec<ObjectState>>,
}

impl Seen {
    /// Looks at all 32 steps.
    pub fn new(script: &Script) -> Self {
        Self { steps: (0..STEPS).map(|t| state_at(script, t as f32)).collect() }
    }

    /// Share of `object` seen at `step`, 0 where it is absent.
    pub(super) fn share(&self, object: usize, step: usize) -> f32 {
        self.steps.get(step).and_then(|s| s.get(object)).map_or(0.0, |s| s.visibility)
    }

    /// Steps from `from` to `to` on which at least half of `object` is seen.
    pub(super) fn count(&self, object: usize, from: usize, to: usize) -> usize {
        (from..=to).filter(|&s| self.share(object, s) >= 0.5).count()
    }

    pub(super) fn always(&self, object: usize) -> bool {
        self.count(object, 0, STEPS - 1) == STEPS
    }

    /// The first `length` steps in a row that show all `objects`.
    pub(super) fn stretch(&self, objects: &[usize], length: usize) -> Option<[usize; 2]> {
        let shown = |from| objects.iter().all(|&o| self.count(o, from, from + length - 1) == length);
        (0..=STEPS.checked_sub(length)?).find(|&from| shown(from)).map(|from| [from, from + length - 1])
    }

    /// Whether a transient event shows: the object is seen just before, just after and (unless it blinks) during it.
    pub(super) fn shows(&self, object: usize, event: &Event) -> bool {
        let Some([first, last]) = shown_steps(event.start, event.end()) else { return false };
        let rest = [first.saturating_sub(1), (last + 1).min(STEPS - 1)];
        rest.iter().all(|&s| self.share(object, s) >= 0.6)
            && (event.kind == EventKind::Blink || self.count(object, first, last) == last + 1 - first)
    }
}

/// Whether the object is as before once the event is over.
pub fn is_transient(kind: EventKind) -> bool {
    use EventKind::*;
    matches!(kind, Hop | Blink | Flash | Swell | Spin)
}

pub(super) fn window_of(event: &Event) -> [usize; 2] {
    let [first, last] = shown_steps(event.start, event.end()).unwrap_or([0, STEPS - 1]);
    [first.saturating_sub(1), (last + 1).min(STEPS - 1)]
}

pub(super) fn texts<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(String::from).to_vec()
}

fn the(script: &Script, index: usize) -> String {
    format!("the {}", script.name(index))
}

pub(super) const WHOLE: [usize; 2] = [0, STEPS - 1];

/// All decidable facts of a clip.
pub fn facts(script: &Script, rng: &mut ChaCha8Rng) -> Vec<Fact> {
    let seen = Seen::new(script);
    let trio: Vec<usize> = (0..script.objects.len()).filter(|&i| script.objects[i].identical).collect();
    let named: Vec<usize> = (0..script.objects.len()).filter(|i| !trio.contains(i)).collect();
    let mut facts = Vec::new();
    for &index in &named {
        facts.extend(travel_fact(script, &seen, index));
        facts.extend(change_fact(script, &seen, index));
        facts.extend(event_facts(script, &seen, index));
        facts.extend(visit_fact(script, &seen, index, rng));
        facts.extend(colour_fact(script, &seen, index, rng));
    }
    facts.extend(order_facts(script, &seen, &named));
    facts.extend(shuffle_fact(script, &seen, &trio, rng));
    facts.extend(moving_count_fact(script, &seen, rng));
    facts.extend(attribute_facts(script, &seen, &named, rng));
    facts.extend(location_fact(script, &seen, &named, rng));
    facts
}

/// How an object travels.
fn travel_fact(script: &Script, seen: &Seen, index: usize) -> Option<Fact> {
    let name = script.name(index);
    let fact = |skill, window, slots: Vec<String>, [right, twin]: [&str; 2], options: Vec<String>| {
        Some(Fact {
            skill,
            subjects: vec![index],
            window,
            slots,
            options,
            right: right.into(),
            twin: twin.into(),
        })
    };
    let pair = |right: bool, [yes, no]: [&'static str; 2]| if right { [yes, no] } else { [no, yes] };
    let visible = seen.count(index, 0, STEPS - 1);
    match script.played_behaviour(index) {
        Behaviour::Scroll { heading, .. } => {
            let window = seen.stretch(&[index], 4)?;
            let options =
                if heading.is_horizontal() { texts(["left", "right"]) } else { texts(["up", "down"]) };
            (visible >= 14).then_some(())?;
            fact(Skill::Direction, window, vec![name], [heading.word(), heading.opposite().word()], options)
        }
        Behaviour::Accelerate { from, to, .. } => {
            // Halves, not ends: a slow phase lingers in or out of view, and a stricter rule would show in single frames.
            (seen.count(index, 0, 15) >= 5 && seen.count(index, 16, 31) >= 5).then_some(())?;
            let words = ["speeding up", "slowing down"];
            // Short pieces show it where the object stays in view.
            let window = seen.stretch(&[index], 12).unwrap_or(WHOLE);
            fact(Skill::Speed, window, vec![name], pair(to > from, words), texts(words))
        }
        Behaviour::Orbit { clockwise, period, .. } => {
            let window = seen.stretch(&[index], (period / 2.0) as usize + 1)?;
            (visible >= 20).then_some(())?;
            let words = ["clockwise", "anticlockwise"];
            fact(Skill::Rotation, window, vec![name], pair(clockwise, words), texts(words))
        }
        Behaviour::Follow { leader, gap } => {
            (visible >= 14 && seen.count(leader, 0, STEPS - 1) >= 14).then_some(())?;
            let (me, other) = (the(script, index), the(script, leader));
            let mut options = vec![me.clone(), other.clone()];
            options.sort();
            let (right, twin) = if gap < 0.0 { (me, other) } else { (other, me) };
            let subjects = vec![leader.min(index), leader.max(index)];
            let window = seen.stretch(&[index, leader], 4).unwrap_or(WHOLE);
            Some(Fact { skill: Skill::Follow, subjects, window, slots: vec![], options, right, twin })
        }
        _ => None,
    }
}

/// How an object changes in place, again and again.
fn change_fact(script: &Script, seen: &Seen, index: usize) -> Option<Fact> {
    let name = script.name(index);
    let fact = |skill, window, slots: Vec<String>, [right, twin]: [&str; 2], options: Vec<String>| {
        Some(Fact {
            skill,
            subjects: vec![index],
            window,
            slots,
            options,
            right: right.into(),
            twin: twin.into(),
        })
    };
    let pair = |right: bool, [yes, no]: [&'static str; 2]| if right { [yes, no] } else { [no, yes] };
    let visible = seen.count(index, 0, STEPS - 1);
    match script.played_behaviour(index) {
        Behaviour::Pulse { growing, .. } => {
            let window = seen.stretch(&[index], 4)?;
            (visible >= 22).then_some(())?;
            let words = ["growing", "shrinking"];
            fact(Skill::Antonym, window, vec![name], pair(growing, words), texts(words))
        }
        Behaviour::Cycle { colours, dwell, .. } => {
            (visible >= 24).then_some(())?;
            let window = seen.stretch(&[index], (3.0 * dwell) as usize + 1)?;
            // Which of the three is asked about is fixed by names, so that both directions ask the same.
            let first = (0..3).min_by_key(|&i| (colours[i] as usize * 7 + script.seed as usize % 5) % 6)?;
            let (after, before) = (colours[(first + 1) % 3].word(), colours[(first + 2) % 3].word());
            let mut options = texts([after, before]);
            options.sort();
            fact(
                Skill::AttributeChange,
                window,
                vec![name, colours[first].word().into()],
                [after, before],
                options,
            )
        }
        Behaviour::Routine { events, dwell, .. } => {
            let base = script.objects.get(index)?.behaviour;
            let shown = routine_events(&base).iter().filter(|e| played_shows(script, seen, index, e)).count();
            (shown >= 5).then_some(())?;
            let window = [0, (3 * dwell as usize + 3).min(STEPS - 1)];
            let first = (0..3).min_by_key(|&i| (events[i].kind_index() + script.seed as u32 % 5) % 5)?;
            let (after, before) = (events[(first + 1) % 3].verb(), events[(first + 2) % 3].verb());
            let mut options = vec![after.clone(), before.clone()];
            options.sort();
            fact(Skill::ActionSequence, window, vec![name, events[first].verb()], [&after, &before], options)
        }
        _ => None,
    }
}

fn played_shows(script: &Script, seen: &Seen, index: usize, base: &Event) -> bool {
    let start = if script.reversed { LAST_STEP - base.end() } else { base.start };
    seen.shows(index, &Event { start, ..*base })
}

/// Counting and placing in time the transient events of an object.
fn event_facts(script: &Script, seen: &Seen, index: usize) -> Vec<Fact> {
    let events = script.played_events(index);
    let mut facts = Vec::new();
    let Some(first) = events.first() else { return facts };
    if !events.iter().all(|e| is_transient(e.kind) && seen.shows(index, e)) {
        return facts;
    }
    let subjects = vec![index];
    if events.iter().all(|e| e.kind == first.kind) && events.len() <= 4 {
        let twin = if events.len() == 1 { 2 } else { events.len() - 1 };
        facts.push(Fact {
            skill: Skill::ActionCount,
            subjects: subjects.clone(),
            window: WHOLE,
            slots: vec![script.name(index), first.kind.infinitive()],
            options: texts(["1", "2", "3", "4"]),
            right: events.len().to_string(),
            twin: twin.to_string(),
        });
    }
    let half = |early: bool| if early { "first half" } else { "second half" }.to_string();
    let early = first.end() <= 14.0;
    if events.len() == 1 && (early || first.start >= 17.0) {
        facts.push(Fact {
            skill: Skill::Localization,
            subjects,
            window: WHOLE,
            slots: vec![script.name(index), first.kind.infinitive()],
            options: texts(["first half", "second half"]),
            right: half(early),
            twin: half(!early),
        });
    }
    facts
}

/// Which of two single events comes first.
fn order_facts(script: &Script, seen: &Seen, named: &[usize]) -> Vec<Fact> {
    let mut singles: Vec<(usize, Event)> = Vec::new();
    for &index in named {
        let events = script.played_events(index);
        for event in &events {
            let alone = events.iter().filter(|e| e.kind == event.kind).count() == 1;
            if alone && is_transient(event.kind) && seen.shows(index, event) {
                singles.push((index, *event));
            }
        }
    }
    // The order in which the two are named must not depend on time.
    singles.sort_by_key(|(index, event)| (*index, event.kind));
    let mut facts = Vec::new();
    for (i, (a, first)) in singles.iter().enumerate() {
        for (b, second) in &singles[i + 1..] {
            let gap = second.start - first.start;
            if !(3.0..=8.0).contains(&gap.abs()) {
                continue;
            }
            let options = vec![
                format!("{} {}", the(script, *a), first.kind.verb()),
                format!("{} {}", the(script, *b), second.kind.verb()),
            ];
            let (right, twin) = if gap > 0.0 { (0, 1) } else { (1, 0) };
            let (w, v) = (window_of(first), window_of(second));
            facts.push(Fact {
                skill: Skill::EventOrder,
                subjects: if a == b { vec![*a] } else { vec![*a, *b] },
                window: [w[0].min(v[0]), w[1].max(v[1])],
                slots: vec![],
                right: options[right].clone(),
                twin: options[twin].clone(),
                options,
            });
        }
    }
    facts
}
