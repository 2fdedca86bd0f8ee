//! The words of a query: hints by attribute, and the request with its format instruction.
//!
//! Comes in: what is to be said, and how varied. Goes out: sentences. [`Wording::Short`] has few forms, for models of a few million parameters that learn
//! English on the way; [`Wording::Varied`] has many, so that a large model learns the task and not the phrase. Every request ends with the
//! form of the answer: without a precise form, tracking suffers (reference.md §7.2). What is true is decided elsewhere.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::conversation::Attribute;

/// How varied the words are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wording {
    /// One hint an attribute and three requests.
    Short,
    /// All of them.
    #[default]
    Varied,
}

/// Hints by attribute, the short one first. `{frame}` is `frame7:`.
fn hints(attribute: Attribute) -> &'static [&'static str] {
    match attribute {
        Attribute::Coordinate => &[
            "What is at {frame}{box}?",
            "Which object has the box {box} in {frame}?",
            "Look at {frame}{box}.",
            "An object is at {box} in {frame}.",
            "{frame}{box} marks something.",
            "Start from the box {frame}{box}.",
        ],
        Attribute::Location => &[
            "What is at the {place} in {frame}?",
            "In {frame} one object is at the {place}.",
            "Look at the {place} of {frame}.",
            "Which object does {frame} show at the {place}?",
            "Take the object that is at the {place} in {frame}.",
        ],
        Attribute::Appearance => &[
            "Find the {name} of {frame}.",
            "{frame} shows {a_name}.",
            "Look for the {name} in {frame}.",
            "Which object is the {name} that {frame} shows?",
            "The {name} can be seen in {frame}.",
        ],
        Attribute::Identity => &[
            "{name}<id{id}>{frame}{box}</id{id}>: follow <id{id}>.",
            "Given {name}<id{id}>{frame}{box}</id{id}>, where does <id{id}> go, and where was it before?",
            "<id{id}> is introduced as {name}<id{id}>{frame}{box}</id{id}>.",
            "Keep hold of <id{id}>, which is {name}<id{id}>{frame}{box}</id{id}>.",
        ],
        Attribute::Action => &[
            "What {action} in {frame}?",
            "In {frame} one object {action}.",
            "Something {action} in {frame}.",
            "Which object {action} when {frame} is shown?",
            "Find what {action} in {frame}.",
        ],
        Attribute::FrameSpan => &[
            "What {act} {span}?",
            "One object {act} {span}.",
            "Which object {act} {span}?",
            "What is it that {act} {span}?",
        ],
        Attribute::TimeSpan => &[
            "What {act} {span} of {length}?",
            "The clip lasts {length}. One object {act} {span}.",
            "Which object of this clip of {length} {act} {span}?",
            "What is it that {act} {span} of these {length}?",
        ],
    }
}

/// Requests, the three short ones first.
const REQUESTS: [&str; 14] = [
    "Give its track {every} as {form} and its actions.",
    "Where is it {every}, and what does it do? Use {form}.",
    "Track it {every}, then say what it does. Format: {form}.",
    "Report where it is {every}, before and after, in the format {form}; end with what it does.",
    "List its boxes {every} as {form}, followed by its actions.",
    "Say what it is, where it is {every} and what it does. Stay consistent with the format {form}.",
    "Follow it both ways through the whole video, {every}, in {form} format, and describe its actions.",
    "Write its whole trajectory, {every}, as {form}. Then tell what it does.",
    "What is its path {every}? Adhere to {form}. What does it do?",
    "Give name, trajectory ({every}) and actions; the trajectory as {form}.",
    "Trace it from the first to the last frame, {every}. Answer with {form} and its actions.",
    "Locate it {every} throughout the video using {form}, and add what it is doing.",
    "From start to end, where is it ({every})? Write {form}, then its actions.",
    "Describe its movement as a list of boxes {every}, written {form}, and name its actions.",
];
/// How many of them are short.
const SHORT_REQUESTS: usize = 3;

impl Wording {
    fn of<'a>(self, all: &[&'a str], short: usize, rng: &mut ChaCha8Rng) -> &'a str {
        let count = if self == Wording::Short { short.min(all.len()) } else { all.len() };
        all.get(rng.random_range(0..count.max(1))).copied().unwrap_or_default()
    }

    /// A hint with its slots filled.
    pub fn hint(
        self,
        attribute: Attribute,
        frame: &str,
        slots: &[(&str, String)],
        rng: &mut ChaCha8Rng,
    ) -> String {
        let filled = self.of(hints(attribute), 1, rng).replace("{frame}", frame);
        slots.iter().fold(filled, |text, (slot, value)| text.replace(&format!("{{{slot}}}"), value))
    }

    /// What is wanted, and in which form; `every` is `in each frame` or `every 4 frames`.
    pub fn request(self, id: u32, every: &str, rng: &mut ChaCha8Rng) -> String {
        let form = format!("name<id{id}>frame1:[box];...</id{id}>");
        self.of(&REQUESTS, SHORT_REQUESTS, rng).replace("{every}", every).replace("{form}", &form)
    }

    /// Any of several forms; the first where short.
    pub fn any<'a>(self, forms: &[&'a str], rng: &mut ChaCha8Rng) -> &'a str {
        self.of(forms, 1, rng)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn no_slot_is_left_open_and_every_request_holds_the_form() {
        let rng = &mut ChaCha8Rng::seed_from_u64(3);
        let slots: Vec<(&str, String)> =
            ["box", "place", "name", "a_name", "id", "action", "act", "span", "length"]
                .map(|slot| (slot, "7".to_string()))
                .to_vec();
        for attribute in Attribute::ALL {
            let mut seen = std::collections::BTreeSet::new();
            for _ in 0..200 {
                let hint = Wording::Varied.hint(attribute, "frame2:", &slots, rng);
                assert!(!hint.contains(['{', '}']), "{hint}");
                seen.insert(hint);
            }
            assert_eq!(seen.len(), hints(attribute).len(), "{attribute:?}");
            let short = Wording::Short.hint(attribute, "frame2:", &slots, rng);
            assert_eq!(short, Wording::Short.hint(attribute, "frame2:", &slots, rng));
        }
        for _ in 0..200 {
            let request = Wording::Varied.request(4, "every 4 frames", rng);
            assert!(
                request.contains("name<id4>frame1:[box];...</id4>") && request.contains("every 4 frames")
            );
        }
    }
}
