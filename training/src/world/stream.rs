//! Streams: clips that have been watched for longer than the window holds.
//!
//! Comes in: what a clip comes from (a seed, or a pair of a suite) and how many frames the stream has. Goes out: samples and items whose questions are about
//! the newest frames alone, with all frames in order. The newest frames and their questions are those of the clip without a past, bit by bit. The
//! network that reads streams, and the runtime that would be fed with them, are not known here.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utr_models::RgbFrame;

use super::conversations::{FRAME_SIZE, Mix, piece, world_sample};
use super::past::Past;
use super::suite::{Suite, SuitePair};
use super::{Item, Renderer, STEPS, Skill, WorldConfig};
use crate::sample::Sample;

/// The longest stream, in frames.
pub const LONGEST: usize = 128;

/// A training sample of a stream of `frames` frames: that of [`world_sample`] with `window` frames (1 to 32), and its past in front.
/// As many frames as the window or fewer are an ordinary sample.
pub fn world_stream(
    seed: u64,
    twin: bool,
    mix: &Mix,
    config: &WorldConfig,
    frames: usize,
    window: usize,
) -> Sample {
    if frames <= window {
        return world_sample(seed, twin, mix, config, frames);
    }
    let piece = piece(seed, twin, mix, config, window);
    let past = Past::draw(&piece.script, config, piece.first, frames - window, None);
    let mut all = past.frames(FRAME_SIZE);
    all.extend(piece.sample.frames);
    let id = format!("{}-of-{frames}", piece.sample.id);
    Sample { id, frames: all, window: Some(window), ..piece.sample }
}

/// How a suite's clips are shown as streams.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamSpec {
    /// Frames of each stream, the clip's 32 last.
    pub frames: usize,
}

impl StreamSpec {
    pub(super) fn check(&self) -> Result<(), String> {
        let longer = STEPS + 1..=LONGEST;
        if longer.contains(&self.frames) {
            return Ok(());
        }
        Err(format!("stream.frames must be {} to {LONGEST}, found {}", STEPS + 1, self.frames))
    }
}

/// An item of a suite of streams.
#[derive(Clone, Debug)]
pub struct StreamItem {
    /// Such as `direction-017-a`.
    pub id: String,
    /// The skill.
    pub skill: Skill,
    /// Drawn from held-out combinations only.
    pub held_out: bool,
    /// Other scenes came before the item's; else its own went on all the while.
    pub cut: bool,
    /// All frames in time order, [`FRAME_SIZE`] pixels a side.
    pub frames: Vec<RgbFrame>,
    /// The newest frames, which the question is about.
    pub window: usize,
    /// The question.
    pub item: Item,
    /// What only frames before the window showed, such as "red ball". Said in a reply to the question or to [`LEAK_PROBES`], it may have leaked:
    /// a model that saw the newest frames alone says some of these names by mistake, and how often it does is what to compare with.
    pub gone: BTreeSet<String>,
}

/// Questions whose answers name what is in view, in words that training uses.
pub const LEAK_PROBES: [&str; 2] = ["Describe the clip.", "Tell what each object does."];

impl StreamItem {
    /// The names of gone objects that a reply says.
    pub fn leaks(&self, reply: &str) -> Vec<&str> {
        let words: Vec<String> =
            reply.to_lowercase().split(|c: char| !c.is_ascii_alphanumeric()).map(String::from).collect();
        // A surface may stand between size and colour, never between colour and shape.
        let said = |name: &&str| {
            let name: Vec<&str> = name.split(' ').collect();
            words.windows(name.len()).any(|w| w == name)
        };
        self.gone.iter().map(String::as_str).filter(said).collect()
    }
}

impl Suite {
    /// Pair `n` of a skill as two streams; every second pair's streams are cut. `None` where the suite has no `stream`.
    pub fn streams(&self, skill: Skill, n: usize) -> Option<[StreamItem; 2]> {
        let frames = self.stream?.frames;
        let SuitePair { id, skill, held_out, twins } = self.pair(skill, n);
        let mut letters = ["a", "b"].into_iter();
        Some(twins.map(|posed| {
            let past = Past::draw(&posed.script, &self.world, 0, frames - STEPS, Some(n % 2 == 1));
            let mut renderer = Renderer::new(&posed.script, FRAME_SIZE);
            let mut all = past.frames(FRAME_SIZE);
            all.extend((0..STEPS).map(|t| renderer.frame(t as f32)));
            let letter = letters.next().unwrap_or_default();
            StreamItem {
                id: format!("{id}-{letter}"),
                skill,
                held_out,
                cut: past.cut,
                frames: all,
                window: STEPS,
                gone: past.gone(),
                item: posed.item,
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Posed, Split, clip_seed};
    use std::path::Path;

    fn suite() -> Suite {
        Suite::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("worlds/stream.toml")).unwrap()
    }

    #[test]
    fn a_stream_cut_to_its_newest_frames_is_asked_and_answered_as_before() {
        for (frames, window) in [(64, 32), (96, 32), (40, 16), (33, 8), (128, 1)] {
            for index in 0..12 {
                let (seed, mix) = (clip_seed(Split::Train, index), Mix::default());
                for twin in [false, true] {
                    let stream = world_stream(seed, twin, &mix, &WorldConfig::full(), frames, window);
                    let clip = world_sample(seed, twin, &mix, &WorldConfig::full(), window);
                    assert_eq!((stream.frames.len(), stream.window), (frames, Some(window)));
                    assert!(stream.frames[frames - window..] == clip.frames[..], "{}", stream.id);
                    assert_eq!(stream.turns, clip.turns);
                }
            }
        }
    }

    #[test]
    fn a_clip_within_the_window_is_no_stream() {
        let (seed, mix, config) = (clip_seed(Split::Train, 5), Mix::default(), WorldConfig::full());
        for (frames, window) in [(1, 32), (32, 32), (8, 8)] {
            let (a, b) = (
                world_stream(seed, false, &mix, &config, frames, window),
                world_sample(seed, false, &mix, &config, frames),
            );
            assert_eq!((a.id, a.frames, a.turns, a.window), (b.id, b.frames, b.turns, None));
        }
    }

    #[test]
    fn the_committed_suite_asks_about_its_newest_frames_and_names_what_is_gone() {
        let suite = suite();
        assert!(suite.skills.len() == 8 && suite.skills.iter().all(|s| s.is_order()));
        let mut named = 0;
        for &skill in &suite.skills {
            for n in 0..4 {
                let streams = suite.streams(skill, n).unwrap();
                let pair = suite.pair(skill, n);
                for (stream, Posed { script, item }) in streams.iter().zip(&pair.twins) {
                    assert_eq!((stream.frames.len(), stream.window, stream.cut), (96, 32, n % 2 == 1));
                    assert_eq!(&stream.item, item);
                    let mut renderer = Renderer::new(script, FRAME_SIZE);
                    let newest: Vec<_> = (0..STEPS).map(|t| renderer.frame(t as f32)).collect();
                    assert!(stream.frames[64..] == newest[..], "{}", stream.id);
                    let said = [&item.question, &item.answer].map(|text| stream.leaks(text).len());
                    assert_eq!(said, [0, 0], "{}: {:?} in {item:?}", stream.id, stream.gone);
                    named += usize::from(!stream.gone.is_empty());
                }
                assert!(n % 2 == 0 || streams[0].frames[..48] == streams[1].frames[..48]);
            }
        }
        assert!(named >= 60, "{named} of 64 streams have something gone");
    }

    #[test]
    fn a_leak_is_a_whole_name() {
        let mut item = suite().streams(Skill::Direction, 0).unwrap()[0].clone();
        item.gone = ["red ball", "blue star"].map(String::from).into();
        assert_eq!(item.leaks("A large dotted Red ball."), ["red ball"]);
        assert!(item.leaks("the red box is right of the blue ball").is_empty());
    }
}
