//! Captions and plain instructions: what UTR queries are mixed with.
//!
//! Comes in: a clip's tracks. Goes out: dense captions of the clip and of single frames, and short questions on place,
//! number, order and time, with answers that follow from the tracks alone. A question is left out where the tracks do
//! not decide it with a margin.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::conversation::Listing;
use super::scene;
use super::tracks::{ClipTracks, Track, TrackAction, TrackBox};
use crate::sample::Turn;

/// Least distance between two centres, in shares of the width, for "left of" to be asked.
const SIDE_MARGIN: f32 = 0.06;

/// Least distance between the starts of two actions, in frames, for "first … then" to be said.
const ORDER_MARGIN: u32 = 2;

/// More events than this make no list.
const MOST_EVENTS: usize = 5;

fn turn(question: impl Into<String>, answer: impl Into<String>) -> Turn {
    Turn { question: question.into(), answer: answer.into() }
}

fn pick<'a>(rng: &mut ChaCha8Rng, options: &[&'a str]) -> &'a str {
    options.choose(rng).copied().unwrap_or_default()
}

/// Every object and what it does: `A large red ball moves left. A small blue box hops from frame5: to frame8:.`
/// Nothing where no track has an action (a still picture).
pub fn clip_caption(clip: &ClipTracks, rng: &mut ChaCha8Rng) -> Option<Turn> {
    let told = clip.tracks.iter().filter_map(|t| Some((t, scene::actions_text(clip, t)?)));
    let sentences: Vec<String> =
        told.map(|(t, a)| format!("{} {a}.", capitalised(&scene::with_article(&t.name())))).collect();
    let question =
        pick(rng, &["Describe the clip.", "Tell what each object does.", "What happens in this video?"]);
    (!sentences.is_empty()).then(|| turn(question, sentences.join(" ")))
}

/// What is seen in one frame, from left to right: `frame7: red ball [..]; blue box [..]`.
pub fn frame_caption(clip: &ClipTracks, frame: u32, listing: &Listing, rng: &mut ChaCha8Rng) -> Turn {
    let seen = scene::seen_in(clip, frame);
    let items: Vec<String> = seen
        .iter()
        .map(|(t, b)| format!("{} at {}", scene::with_article(&t.name()), scene::box_text(clip, b, listing)))
        .collect();
    let question = match rng.random_range(0..3) {
        0 => format!("Describe frame{frame}: with boxes."),
        1 => format!("List the objects of frame{frame}: with boxes."),
        _ => format!("What is in frame{frame}:? Give boxes."),
    };
    let answer = if items.is_empty() { "nothing".to_owned() } else { items.join("; ") };
    turn(question, format!("frame{frame}: {answer}."))
}

/// The brief actions of the whole clip in the order of their starts; nothing with fewer than two or with many, or where
/// two start together.
pub fn events(clip: &ClipTracks, rng: &mut ChaCha8Rng) -> Option<Turn> {
    let mut brief: Vec<(&Track, &TrackAction)> =
        clip.tracks.iter().flat_map(|t| t.actions.iter().map(move |a| (t, a))).collect();
    brief.retain(|(_, a)| !scene::lasts(clip, a));
    brief.sort_by_key(|(_, a)| a.start);
    let apart = brief.windows(2).all(|w| matches!(w, [(_, a), (_, b)] if b.start - a.start >= ORDER_MARGIN));
    if !(2..=MOST_EVENTS).contains(&brief.len()) || !apart {
        return None;
    }
    let told: Vec<String> =
        brief.iter().map(|(t, a)| format!("the {} {}", scene::short_name(clip, t), a.text)).collect();
    let question = pick(
        rng,
        &["What happens, in order?", "List the events in order.", "Tell the events first to last."],
    );
    Some(turn(question, format!("{}.", capitalised(&told.join(", then ")))))
}

/// Short questions, one of each sort that this clip decides, in random order. Each looks at one random frame or at
/// one random action.
pub fn instructions(clip: &ClipTracks, listing: &Listing, rng: &mut ChaCha8Rng) -> Vec<Turn> {
    let frame = rng.random_range(1..=clip.frames.max(1));
    let seen = scene::seen_in(clip, frame);
    let one = seen.choose(rng).copied();
    let mut turns: Vec<Turn> = Vec::new();
    turns.push(count(&seen, frame, rng));
    turns.extend(left_to_right(clip, &seen, frame, rng));
    turns.extend(left_of(clip, &seen, frame, rng));
    turns.extend(when(clip, rng));
    if let Some((track, b)) = one.filter(|(t, _)| scene::has_own_name(clip, t)) {
        turns.extend(where_is(clip, track, b, rng));
        turns.push(locate(clip, track, b, listing, rng));
        turns.extend(looks(clip, track, rng));
    }
    if let Some((track, b)) = one {
        turns.extend(refer(clip, track, b, &seen, listing, rng));
    }
    turns.shuffle(rng);
    turns
}

fn count(seen: &[(&Track, &TrackBox)], frame: u32, rng: &mut ChaCha8Rng) -> Turn {
    let question = match rng.random_range(0..2) {
        0 => format!("How many objects are in frame{frame}:?"),
        _ => format!("Count the objects of frame{frame}:."),
    };
    turn(question, number(seen.len()))
}

fn left_to_right(
    clip: &ClipTracks,
    seen: &[(&Track, &TrackBox)],
    frame: u32,
    rng: &mut ChaCha8Rng,
) -> Option<Turn> {
    let x = |b: &TrackBox| scene::centre(clip, b)[0];
    let apart = seen.windows(2).all(|w| matches!(w, [(_, a), (_, b)] if x(b) - x(a) >= SIDE_MARGIN));
    if seen.len() < 2 || !apart {
        return None;
    }
    let names: Vec<String> = seen.iter().map(|(t, _)| scene::short_name(clip, t)).collect();
    let question = match rng.random_range(0..2) {
        0 => format!("Name the objects of frame{frame}: from left to right."),
        _ => format!("From left to right, what is in frame{frame}:?"),
    };
    Some(turn(question, format!("{}.", names.join(", "))))
}

fn left_of(
    clip: &ClipTracks,
    seen: &[(&Track, &TrackBox)],
    frame: u32,
    rng: &mut ChaCha8Rng,
) -> Option<Turn> {
    let mut two: Vec<_> = seen.iter().filter(|(t, _)| scene::has_own_name(clip, t)).collect();
    two.shuffle(rng);
    let [(first, a), (second, b), ..] = two.as_slice() else { return None };
    let axis = rng.random_range(0..2usize);
    let (word, opposite) = if axis == 0 { ("left of", "right of") } else { ("above", "below") };
    let word = if rng.random() { word } else { opposite };
    let gap = scene::centre(clip, b)[axis] - scene::centre(clip, a)[axis];
    if gap.abs() < SIDE_MARGIN {
        return None;
    }
    let truth = (gap > 0.0) == (word == "left of" || word == "above");
    let (first, second) = (scene::short_name(clip, first), scene::short_name(clip, second));
    Some(turn(
        format!("Is the {first} {word} the {second} in frame{frame}:?"),
        if truth { "yes" } else { "no" },
    ))
}

/// When a brief action that nobody repeats takes place.
fn when(clip: &ClipTracks, rng: &mut ChaCha8Rng) -> Option<Turn> {
    let brief: Vec<(&Track, &TrackAction)> = clip
        .tracks
        .iter()
        .filter(|t| scene::has_own_name(clip, t))
        .flat_map(|t| t.actions.iter().map(move |a| (t, a)))
        .filter(|(t, a)| !scene::lasts(clip, a) && t.actions.iter().filter(|b| b.text == a.text).count() == 1)
        .collect();
    let (track, action) = brief.choose(rng)?;
    let name = scene::short_name(clip, track);
    Some(turn(
        format!("The {name} {}. In which frames?", action.text),
        format!("{}.", capitalised(&scene::span_text(action))),
    ))
}

fn where_is(clip: &ClipTracks, track: &Track, b: &TrackBox, rng: &mut ChaCha8Rng) -> Option<Turn> {
    let place = scene::place(clip, b)?;
    let (name, frame) = (scene::short_name(clip, track), b.frame);
    let question = match rng.random_range(0..2) {
        0 => format!("Where is the {name} in frame{frame}:?"),
        _ => format!("In frame{frame}: where do you see the {name}?"),
    };
    Some(turn(question, place))
}

fn locate(clip: &ClipTracks, track: &Track, b: &TrackBox, listing: &Listing, rng: &mut ChaCha8Rng) -> Turn {
    let (name, frame) = (scene::short_name(clip, track), b.frame);
    let question = match rng.random_range(0..2) {
        0 => format!("Give the box of the {name} in frame{frame}:."),
        _ => format!("Box of the {name} at frame{frame}:?"),
    };
    turn(question, scene::box_text(clip, b, listing))
}

/// What an object of a unique category looks like.
fn looks(clip: &ClipTracks, track: &Track, rng: &mut ChaCha8Rng) -> Option<Turn> {
    let unique = clip.tracks.iter().all(|t| t.id == track.id || t.category != track.category);
    if !unique || track.appearance.is_empty() {
        return None;
    }
    let question = match rng.random_range(0..2) {
        0 => format!("What does the {} look like?", track.category),
        _ => format!("Describe the {}.", track.category),
    };
    Some(turn(question, track.appearance.clone()))
}

/// The name of what a box holds.
fn refer(
    clip: &ClipTracks,
    track: &Track,
    b: &TrackBox,
    seen: &[(&Track, &TrackBox)],
    listing: &Listing,
    rng: &mut ChaCha8Rng,
) -> Option<Turn> {
    let apart = seen.iter().all(|(t, o)| t.id == track.id || scene::iou(o.xyxy, b.xyxy) < 0.4);
    let at = scene::box_text(clip, b, listing);
    let question = match rng.random_range(0..2) {
        0 => format!("What is at frame{}:{at}?", b.frame),
        _ => format!("Name the object at frame{}:{at}.", b.frame),
    };
    apart.then(|| turn(question, scene::with_article(&track.name())))
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn number(n: usize) -> String {
    const WORDS: [&str; 10] =
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    WORDS.get(n).map_or_else(|| n.to_string(), |w| (*w).to_owned())
}
