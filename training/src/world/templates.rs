//! The wording of questions: a few paraphrases per skill and kind, in short lower-case sentences.
//!
//! In: a skill and a kind. Out: templates with the places `{0}` `{1}` (words of the fact), `{a}` `{b}` `{c}` (options, in random
//! order) and `{x}` (the option a yes/no question asks about). No facts, no choices.

use super::questions::Kind;
use super::script::Skill;

/// Paraphrases for open, yes/no and multiple-choice questions.
struct Wording {
    open: &'static [&'static str],
    yes_no: &'static [&'static str],
    choice: &'static [&'static str],
}

/// The paraphrases of a skill for a kind; never empty.
pub fn templates(skill: Skill, kind: Kind) -> &'static [&'static str] {
    let wording = if let Some(w) = order_wording(skill) { w } else { other_wording(skill) };
    match kind {
        Kind::Open => wording.open,
        Kind::YesNo => wording.yes_no,
        Kind::MultipleChoice => wording.choice,
    }
}

fn order_wording(skill: Skill) -> Option<Wording> {
    Some(match skill {
        Skill::Direction => Wording {
            open: &[
                "does the {0} move {a} or {b}?",
                "which way does the {0} go, {a} or {b}?",
                "is the {0} moving {a} or {b}?",
            ],
            yes_no: &["does the {0} move {x}?", "is the {0} moving {x}?", "does the {0} go {x}?"],
            choice: &[
                "which way does the {0} move?",
                "which way does the {0} go?",
                "where is the {0} moving?",
            ],
        },
        Skill::Rotation => Wording {
            open: &[
                "does the {0} circle {a} or {b}?",
                "which way does the {0} go round, {a} or {b}?",
                "is the {0} circling {a} or {b}?",
            ],
            yes_no: &["does the {0} circle {x}?", "is the {0} circling {x}?", "does the {0} go round {x}?"],
            choice: &[
                "which way does the {0} circle?",
                "which way does the {0} go round?",
                "how does the {0} circle?",
            ],
        },
        Skill::Antonym => Wording {
            open: &[
                "is the {0} {a} or {b}?",
                "what is the {0} doing, {a} or {b}?",
                "does it keep {a} or {b}: the {0}?",
            ],
            yes_no: &["is the {0} {x}?", "does the {0} keep {x}?", "is it true that the {0} is {x}?"],
            choice: &["what is the {0} doing?", "how does the {0} change?", "what happens to the {0}?"],
        },
        Skill::Speed => Wording {
            open: &[
                "is the {0} {a} or {b}?",
                "how does the speed of the {0} change, {a} or {b}?",
                "is the movement of the {0} {a} or {b}?",
            ],
            yes_no: &[
                "is the {0} {x}?",
                "is the movement of the {0} {x}?",
                "is it true that the {0} is {x}?",
            ],
            choice: &[
                "how does the speed of the {0} change?",
                "how does the {0} move?",
                "what does the {0} do?",
            ],
        },
        _ => return sequence_wording(skill),
    })
}

fn sequence_wording(skill: Skill) -> Option<Wording> {
    Some(match skill {
        Skill::AttributeChange => Wording {
            open: &[
                "which colour does the {0} turn right after {1}, {a} or {b}?",
                "after {1}, does the {0} turn {a} or {b}?",
                "the {0} changes colour: what comes right after {1}, {a} or {b}?",
            ],
            yes_no: &[
                "does the {0} turn {x} right after {1}?",
                "after {1}, does the {0} turn {x}?",
                "the {0} changes colour: does {x} come right after {1}?",
            ],
            choice: &[
                "which colour does the {0} turn right after {1}?",
                "the {0} changes colour: what comes right after {1}?",
                "after {1}, what colour does the {0} turn?",
            ],
        },
        Skill::EventOrder => Wording {
            open: &[
                "what happens first, {a} or {b}?",
                "which comes first: {a} or {b}?",
                "first thing: {a} or {b}?",
            ],
            yes_no: &[
                "is the first thing that {x}?",
                "does it happen first that {x}?",
                "is this first: {x}?",
            ],
            choice: &[
                "what happens first?",
                "which of these comes first?",
                "what is the first thing that happens?",
            ],
        },
        Skill::ActionSequence => Wording {
            open: &[
                "right after the {0} {1}, it {a} or it {b}?",
                "what comes next when the {0} {1}: it {a} or it {b}?",
                "the {0} {1}. next, it {a} or it {b}?",
            ],
            yes_no: &[
                "right after the {0} {1}, is it true that it {x}?",
                "the {0} {1}. is the next thing that it {x}?",
                "is it next that it {x}, when the {0} {1}?",
            ],
            choice: &[
                "what does the {0} do right after it {1}?",
                "the {0} {1}. what does it do next?",
                "what comes next when the {0} {1}?",
            ],
        },
        Skill::Follow => Wording {
            open: &[
                "which one leads, {a} or {b}?",
                "which one goes ahead, {a} or {b}?",
                "who leads, {a} or {b}?",
            ],
            yes_no: &["does {x} lead?", "does {x} go ahead of the other?", "is {x} the one that leads?"],
            choice: &["which one leads the other?", "which one goes ahead?", "who leads?"],
        },
        _ => return None,
    })
}

fn other_wording(skill: Skill) -> Wording {
    match skill {
        Skill::ObjectShuffle => Wording {
            open: &[
                "one {0} flashes, then they change places. where is it at the end, left, middle or right?",
                "where does the {0} that flashes end up: left, middle or right?",
                "at the end, is the {0} that flashed left, middle or right?",
            ],
            yes_no: &[
                "one {0} flashes, then they change places. is it the {x} one at the end?",
                "is the {0} that flashes the {x} one at the end?",
                "does the {0} that flashes end up {x}?",
            ],
            choice: &[
                "one {0} flashes, then they change places. where is it at the end?",
                "where does the {0} that flashes end up?",
                "where is the {0} that flashed at the end?",
            ],
        },
        Skill::Localization => Wording {
            open: &[
                "in which half does the {0} {1}, {a} or {b}?",
                "when does the {0} {1}: in the {a} or the {b}?",
            ],
            yes_no: &["does the {0} {1} in the {x}?", "is it in the {x} that you see the {0} {1}?"],
            choice: &["in which half does the {0} {1}?", "when does the {0} {1}?"],
        },
        Skill::ActionCount => Wording {
            open: &[
                "how many times does the {0} {1}?",
                "how often does the {0} {1}?",
                "count: how often does the {0} {1}?",
            ],
            yes_no: &["does the {0} {1} exactly {x} times?", "how often the {0} does {1}: is it {x}?"],
            choice: &["how many times does the {0} {1}?", "how often does the {0} {1}?"],
        },
        Skill::MovingCount => Wording {
            open: &["how many objects move?", "how many things are moving?", "count the objects that move."],
            yes_no: &["do exactly {x} objects move?", "is the number of moving objects {x}?"],
            choice: &["how many objects move?", "how many things are moving?"],
        },
        Skill::MovingAttribute => Wording {
            open: &["what {0} is the object that {1}?", "what is the {0} of the object that {1}?"],
            yes_no: &["is {x} the {0} of the object that {1}?", "the object that {1}: is its {0} {x}?"],
            choice: &["what {0} is the object that {1}?", "what is the {0} of the object that {1}?"],
        },
        Skill::Existence => Wording {
            open: &[
                "which one appears for a moment, {a} or {b}?",
                "what is seen only for a moment, {a} or {b}?",
            ],
            yes_no: &["does {x} appear?", "is there ever {x}?", "can you see {x} at any time?"],
            choice: &["what appears for a moment?", "what is seen only for a moment?"],
        },
        _ => static_wording(skill),
    }
}

fn static_wording(skill: Skill) -> Wording {
    if skill == Skill::Attribute {
        Wording {
            open: &["what {0} is the {1}?", "what is the {0} of the {1}?", "tell the {0} of the {1}."],
            yes_no: &["is {x} the {0} of the {1}?", "the {1}: is its {0} {x}?"],
            choice: &["what {0} is the {1}?", "what is the {0} of the {1}?"],
        }
    } else {
        Wording {
            open: &["is the {0} {a} or {b} the {1}?", "where is the {0}, {a} or {b} the {1}?"],
            yes_no: &["is the {0} {x} the {1}?", "do you see the {0} {x} the {1}?"],
            choice: &["where is the {0}, seen from the {1}?", "how does the {0} lie to the {1}?"],
        }
    }
}

/// Fills the places of a template.
pub fn fill(template: &str, slots: &[String], options: &[String], asked: &str) -> String {
    let mut text = template.replace("{x}", asked);
    for (place, slot) in ["{0}", "{1}"].iter().zip(slots) {
        text = text.replace(place, slot);
    }
    for (place, option) in ["{a}", "{b}", "{c}"].iter().zip(options) {
        text = text.replace(place, option);
    }
    text
}
