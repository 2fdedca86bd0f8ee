//! Timelines: everything that happens to an object, in order, as one dense answer.
//!
//! Comes in: a script and the steps of it that a clip shows. Goes out: the colours that an object takes one after the other, what it does one
//! thing after the other, and what happens in the clip frame by frame. A list of the whole course teaches the order of every two neighbours at
//! once. Only for training: no suite asks it.

use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::facts::Seen;
use super::script::{Behaviour, Colour, Script};
use crate::queries::{ClipTracks, TrackAction};
use crate::sample::Turn;

/// A list is cut here.
const MOST_LISTED: usize = 8;

/// The timelines of a clip that shows the steps from `first` on, in random order; `tracks` are its tracks and those of the script's objects.
pub fn timelines(script: &Script, tracks: &ClipTracks, first: usize, rng: &mut ChaCha8Rng) -> Vec<Turn> {
    let last = first + tracks.frames.max(1) as usize - 1;
    let seen = Seen::new(script);
    let mut turns: Vec<Turn> = (0..script.objects.len())
        .filter_map(|index| {
            let told = ask(
                &[
                    "which colours does the {0} show, in order?",
                    "tell the colours of the {0}, first to last.",
                ],
                rng,
            );
            let colours = colours(script, &seen, index, first, last)?;
            list(told, &script.name(index), &colours)
        })
        .collect();
    for track in &tracks.tracks {
        let told = ask(&["what does the {0} do, in order?", "tell what the {0} does, first to last."], rng);
        let named = tracks.tracks.iter().filter(|t| t.name() == track.name()).count() == 1;
        let brief = |a: &&TrackAction| a.end - a.start + 1 < tracks.frames.max(6);
        let deeds: Vec<&str> = track.actions.iter().filter(brief).map(|a| a.text.as_str()).collect();
        turns.extend(
            named.then(|| list(told, &crate::queries::scene::short_name(tracks, track), &deeds)).flatten(),
        );
    }
    turns.extend(dated(tracks, rng));
    turns.shuffle(rng);
    turns
}

/// Everything brief that happens, with the frame in which it begins: `frame4: the red ball hops, frame9: the blue box grows`.
fn dated(tracks: &ClipTracks, rng: &mut ChaCha8Rng) -> Option<Turn> {
    let brief = |a: &&TrackAction| a.end - a.start + 1 < tracks.frames.max(6);
    let named = |track| crate::queries::scene::short_name(tracks, track);
    let mut happened: Vec<(u32, String)> = tracks
        .tracks
        .iter()
        .flat_map(|t| t.actions.iter().filter(brief).map(move |a| (t, a)))
        .map(|(track, a)| (a.start, format!("frame{}: the {} {}", a.start, named(track), a.text)))
        .collect();
    happened.sort();
    let told: Vec<&str> = happened.iter().map(|(_, text)| text.as_str()).collect();
    list(ask(&["what happens when?", "tell what happens, frame by frame."], rng), "", &told)
}

fn ask<'a>(wordings: &[&'a str], rng: &mut ChaCha8Rng) -> &'a str {
    wordings.choose(rng).copied().unwrap_or_default()
}

fn list(question: &str, name: &str, items: &[&str]) -> Option<Turn> {
    let items = items.get(..items.len().min(MOST_LISTED)).filter(|items| items.len() > 1)?;
    Some(Turn { question: question.replace("{0}", name), answer: items.join(", ") })
}

/// The runs of colours of an object that changes them in turn and is seen all the while.
fn colours(
    script: &Script,
    seen: &Seen,
    index: usize,
    first: usize,
    last: usize,
) -> Option<Vec<&'static str>> {
    let cycles = matches!(script.objects.get(index)?.behaviour, Behaviour::Cycle { .. });
    (cycles && seen.count(index, first, last) == last + 1 - first).then_some(())?;
    let word = |step: usize| {
        let state = seen.steps.get(step)?.get(index)?;
        Colour::ALL.iter().find(|c| c.rgb() == state.rgb).map(|c| c.word())
    };
    let mut runs: Vec<&'static str> = (first..=last).map(word).collect::<Option<_>>()?;
    runs.dedup();
    Some(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::conversations::world_tracks;
    use crate::world::{STEPS, Skill, Split, WorldConfig, clip_seed, pair};
    use rand::SeedableRng;

    #[test]
    fn what_happens_is_told_in_the_order_of_its_frames() {
        let mut found = 0;
        for index in 0..20 {
            for posed in pair(Skill::EventOrder, clip_seed(Split::Train, index), &WorldConfig::easy(2)) {
                let tracks = world_tracks(&posed.script, "c", 64, 0, STEPS);
                let Some(turn) = dated(&tracks, &mut ChaCha8Rng::seed_from_u64(1)) else { continue };
                let frame = |text: &str| text.strip_prefix("frame")?.split_once(':')?.0.parse::<u32>().ok();
                let frames: Vec<u32> = turn.answer.split(", ").map(|t| frame(t).unwrap()).collect();
                assert!(frames.len() > 1 && frames.is_sorted(), "{}", turn.answer);
                let [a, b] = [&posed.item.answer, posed.item.twin_answer.as_ref().unwrap()];
                if let (Some(a), Some(b)) = (turn.answer.find(&a[..]), turn.answer.find(&b[..])) {
                    assert!(a < b, "{}: {}", turn.answer, posed.item.question);
                    found += 1;
                }
            }
        }
        assert!(found > 8, "{found}");
    }

    #[test]
    fn a_twin_has_the_same_timeline_backwards() {
        let mut found = 0;
        for (skill, config) in [Skill::AttributeChange, Skill::ActionSequence]
            .into_iter()
            .zip([WorldConfig::easy(1), WorldConfig::easy(1)])
        {
            for index in 0..12 {
                let pair = pair(skill, clip_seed(Split::Train, index), &config);
                let told = pair.map(|posed| {
                    let tracks = world_tracks(&posed.script, "c", 64, 0, STEPS);
                    let turns = timelines(&posed.script, &tracks, 0, &mut ChaCha8Rng::seed_from_u64(1));
                    let list = turns.iter().find(|t| !t.answer.starts_with("frame"));
                    list.map(|t| t.answer.split(", ").map(String::from).collect::<Vec<_>>())
                });
                let [Some(a), Some(mut b)] = told else { continue };
                if a.len() < MOST_LISTED && b.len() < MOST_LISTED {
                    b.reverse();
                    assert_eq!(a, b);
                }
                assert!(a.windows(2).all(|w| w[0] != w[1]), "{a:?}");
                found += 1;
            }
        }
        assert!(found > 12, "{found}");
    }
}
