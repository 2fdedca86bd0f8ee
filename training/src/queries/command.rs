//! `utr-train queries`: tracks in, conversations out.
//!
//! Comes in: a tracks file. Goes out: LLaVA conversations as JSON lines and, beside them, a card (`NAME.card.md`, `.card.json`). Every share of the work goes
//! through all clips, because the balance of the data depends on those before, and writes only its own: the parts one after the other are the
//! same bytes for any number of shares.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::absent::Vocabulary;
use super::card::{Card, Facts};
use super::dialogue::{Maker, Plan, Report, clean};
use super::llava::Conversation;
use super::tracks::{ClipTracks, read_tracks};
use crate::files::{distinct, write_jsonl};
use crate::parts::Shard;
use crate::tracks::filter::Limits;

/// Tracks in, conversations out
#[derive(Clone, Debug, clap::Args)]
pub struct QueriesArgs {
    /// Tracks, JSON lines
    #[arg(long)]
    pub tracks: PathBuf,
    /// Conversations, JSON lines; a card goes beside them
    #[arg(long)]
    pub output: PathBuf,
    /// Only part I of N of the clips, such as 0/4, so that several machines can share them
    #[arg(long, value_name = "I/N", default_value = "0/1")]
    pub shard: Shard,
    /// What is asked.
    #[command(flatten)]
    pub plan: Plan,
    /// Which tracks are asked about.
    #[command(flatten, next_help_heading = "Which tracks are asked about")]
    pub limits: Limits,
}

/// Runs `utr-train queries`.
///
/// # Errors
/// A tracks file that cannot be read, limits out of range, an output that cannot be written.
pub fn run(args: &QueriesArgs) -> Result<()> {
    distinct(&[&args.tracks], &args.output)?;
    args.limits.check()?;
    let clips = read_tracks(&args.tracks)?;
    ensure!(!clips.is_empty(), "{} holds no clip", args.tracks.display());
    let count = clips.len();
    let (conversations, report) = make(clips, &args.plan, &args.limits, args.shard);
    write_jsonl(&args.output, &conversations)?;
    eprintln!("{report}");
    if args.shard.of == 1 {
        let facts = Facts { report: Some(report), ..Facts::default() };
        Card::of(&conversations, facts).write(&card_path(&args.output))?;
    }
    ensure!(
        !conversations.is_empty() || args.shard.of > 1,
        "no conversation could be made of {count} clips; the counts above say why (--min-frames and the other limits)"
    );
    println!("{}", args.output.display());
    Ok(())
}

/// Where the card of a data set goes; its ending is added.
pub fn card_path(data: &Path) -> PathBuf {
    data.with_extension("card")
}

/// The conversations of a share of the clips, and the counts of all.
pub fn make(
    mut clips: Vec<ClipTracks>,
    plan: &Plan,
    limits: &Limits,
    shard: Shard,
) -> (Vec<Conversation>, Report) {
    clips.iter_mut().flat_map(|c| &mut c.tracks).for_each(clean);
    let vocabulary = Vocabulary::of(clips.iter().flat_map(|c| &c.tracks));
    let mut maker = Maker::new(plan, limits, &vocabulary);
    let mine = shard.range(clips.len());
    let mut made = Vec::new();
    for (place, clip) in clips.iter().enumerate() {
        let conversations = maker.clip(clip);
        if mine.contains(&place) {
            made.extend(conversations);
        }
    }
    (made, maker.report)
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { clips, silent, tracks: t, unsampled, ambiguous, queries, absent, balance } = self;
        writeln!(
            f,
            "{clips} clips ({} without a conversation), {queries} queries, {absent} for what is absent",
            silent.len()
        )?;
        writeln!(
            f,
            "tracks: {} kept; dropped {} short, {} brief, {} size, {} score, {} still, {} fragmented; of the kept {unsampled} too rare \
             on the sampled frames, {ambiguous} queries given up (ambiguous, or fewer than two boxes to list)",
            t.kept, t.short, t.brief, t.size, t.score, t.still, t.fragmented
        )?;
        let listed = |pairs: Vec<(String, usize)>| {
            pairs.iter().map(|(word, count)| format!("{word} {count}")).collect::<Vec<_>>().join(", ")
        };
        let attributes = balance.attributes.iter().map(|(a, n)| (a.word().to_owned(), *n)).collect();
        let boxes = balance.boxes.iter().map(|(b, n)| (format!("up to {b}"), *n)).collect();
        writeln!(f, "attributes, later turns too: {}", listed(attributes))?;
        write!(f, "query frame by quarter: {:?}; boxes listed: {}", balance.quarters, listed(boxes))
    }
}
