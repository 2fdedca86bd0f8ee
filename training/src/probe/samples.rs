//! Which clips are looked at.
//!
//! Comes in: a data file and how many samples are wanted. Goes out: a random choice of them, each of another clip, read when it is asked for. Samples
//! without a clip (text, single pictures) are left out before the draw. Nothing is scored.

use super::ProbeArgs;
use crate::eval::world::frames;
use crate::parts::generator;
use crate::queries::llava::{self, Media, Record};
use crate::sample::Sample;
use crate::tpl;
use crate::world::Skill;
use crate::world::suite::Suite;
use anyhow::{Context, Result, ensure};
use rand::Rng;
use rand::seq::{SliceRandom, index};
use std::collections::HashSet;
use std::path::PathBuf;
use utr_runtime::sample::uniform_indices;

/// The drawn samples.
pub struct Samples {
    frames: usize,
    from: Origin,
}

enum Origin {
    /// Conversations, below a media root.
    Talk(Vec<Record>, PathBuf),
    /// Items of a suite: pair, its number, which twin. Boxed: a suite is large.
    World(Box<Suite>, Vec<(Skill, usize, usize)>),
}

impl Samples {
    /// Draws samples.
    ///
    /// # Errors
    /// Unreadable data; data without clips; a media root that is missing, or that a suite has no use for.
    pub fn open(args: &ProbeArgs) -> Result<Self> {
        let data = args.data.display();
        let mut rng = generator(args.seed, "probe");
        let mut draw = |total: usize| {
            let mut chosen = index::sample(&mut rng, total, args.samples.min(total)).into_vec();
            chosen.sort_unstable();
            chosen
        };
        let from = if args.data.extension().is_some_and(|ending| ending == "toml") {
            ensure!(args.media_root.is_none(), "{data} is a suite, drawn in memory; leave --media-root away");
            let suite = Suite::load(&args.data)?;
            let pairs = suite.pairs_per_skill;
            let chosen = draw(suite.skills.len() * pairs);
            let item = |i: usize| {
                let twin = generator(args.seed, &format!("twin {i}")).random_range(0..2);
                (suite.skills[i / pairs], i % pairs, twin)
            };
            let items = chosen.into_iter().map(item).collect();
            Origin::World(Box::new(suite), items)
        } else {
            let root = args.media_root.clone().with_context(|| {
                format!("--media-root is missing: the folder that the media paths in {data} start from")
            })?;
            let all = llava::read(&args.data)?;
            let count = all.len();
            let mut clips: Vec<Option<Record>> =
                all.into_iter().filter(|r| matches!(r.media, Media::Video(_))).map(Some).collect();
            ensure!(!clips.is_empty(), "{data} holds {count} conversations, none of them about a video");
            if clips.len() < count {
                eprintln!("{} samples without a video were left out", count - clips.len());
            }
            // Conversations about one video would count as independent samples: each video has one, drawn by lot.
            clips.shuffle(&mut generator(args.seed, "videos"));
            let (mut seen, all) = (HashSet::new(), clips.len());
            clips.retain(|r| r.as_ref().is_some_and(|r| seen.insert(r.media.clone())));
            if clips.len() < all {
                eprintln!("{} further conversations about the same videos were left out", all - clips.len());
            }
            let chosen = draw(clips.len());
            Origin::Talk(chosen.into_iter().filter_map(|i| clips.get_mut(i)?.take()).collect(), root)
        };
        Ok(Self { frames: usize::from(args.frames), from })
    }

    /// How many were drawn.
    pub fn len(&self) -> usize {
        match &self.from {
            Origin::Talk(records, _) => records.len(),
            Origin::World(_, items) => items.len(),
        }
    }

    /// Whether none was drawn.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads or draws one, 0 to [`Samples::len`].
    ///
    /// # Errors
    /// A clip that cannot be read, or that has other than the wanted number of frames.
    pub fn load(&self, place: usize) -> Result<Sample> {
        let sample = match &self.from {
            Origin::Talk(records, root) => {
                let record = records.get(place).context("a sample beyond the drawn ones")?;
                tpl::load(record, root, self.frames)?
            }
            Origin::World(suite, items) => {
                let (skill, n, twin) = *items.get(place).context("a sample beyond the drawn ones")?;
                let pair = suite.pair(skill, n);
                let posed = &pair.twins[twin];
                let all = frames(posed);
                let shown = uniform_indices(all.len(), self.frames).into_iter();
                Sample {
                    fills: Vec::new(),
                    id: format!("{}-{}", pair.id, ["a", "b"][twin]),
                    frames: shown.filter_map(|t| Some(all.get(t)?.image.clone())).collect(),
                    turns: vec![posed.item.turn()],
                    linked: false,
                    window: None,
                }
            }
        };
        ensure!(
            sample.frames.len() == self.frames,
            "sample {} has {} frames, not {}",
            sample.id,
            sample.frames.len(),
            self.frames
        );
        Ok(sample)
    }
}
