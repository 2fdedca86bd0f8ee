//! `utr-train inspect`: a data set in, pages out.
//!
//! Comes in: conversations, tracks, a media folder. Goes out: a folder with `index.html`, a page per clip in `clips/`, and the pictures they show. A
//! clip that cannot be read gets a page with the reason and never stops the others. All files are written anew and whole; the same inputs give the
//! same bytes. Several machines may write into one folder, each its own share with an index of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use super::audit::{Measure, judge};
use super::html::{SCRIPT, STYLE, counted, file_names};
use super::index::{self, Summary, Whole};
use super::page::{self, Clip, Links};
use super::shape::{judge_shape, judge_tracks};
use super::strip;
use crate::files::write_atomic;
use crate::parts::Shard;
use crate::queries::ClipTracks;
use crate::queries::llava::{self, Media, Record};
use crate::queries::tracks::read_tracks;

/// Pages that show clips, tracks and conversations of a data set, and where they contradict each other
#[derive(Clone, Debug, clap::Args)]
pub struct InspectArgs {
    /// LLaVA conversations (JSON or JSON lines)
    #[arg(long)]
    pub data: PathBuf,
    /// Tracks of the clips, JSON lines
    #[arg(long)]
    pub tracks: PathBuf,
    /// Folder that the data's media paths start from
    #[arg(long)]
    pub media_root: PathBuf,
    /// Folder for the pages; what they are called in is written over
    #[arg(long)]
    pub output: PathBuf,
    /// Frames taken uniformly from each clip: as many as the conversations count
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub frames: u8,
    /// Show only so many clips, spread evenly over the data
    #[arg(long, value_name = "N")]
    pub limit: Option<std::num::NonZeroUsize>,
    /// Only part I of N of the clips, such as 0/4, so that several machines can share them
    #[arg(long, value_name = "I/N", default_value = "0/1")]
    pub shard: Shard,
    /// How far a box in a text may be from the track's, in thousandths of a side; by default half of the usual grid of 20, and 1
    #[arg(long, value_name = "THOUSANDTHS", default_value_t = 11, value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub tolerance: u16,
}

/// A clip's name and the records about it.
type Said<'a> = (&'a str, Vec<&'a Record>);

/// Runs `utr-train inspect`.
///
/// # Errors
/// Inputs that cannot be read, data without media, an output that cannot be written, and the case that no clip could be read.
pub fn run(args: &InspectArgs) -> Result<()> {
    let InspectArgs { media_root, output, .. } = args;
    ensure!(media_root.is_dir(), "--media-root {} is not a folder", media_root.display());
    let records = llava::read(&args.data)?;
    let tracks = read_tracks(&args.tracks)?;
    let by_name: BTreeMap<&str, &ClipTracks> =
        tracks.iter().map(|clip| (clip.video.as_str(), clip)).collect();
    let clips = by_clip(&records);
    ensure!(
        !clips.is_empty(),
        "none of the {} in {} names a video or an image: there is nothing to look at",
        counted(records.len(), "record"),
        args.data.display()
    );
    check_output(output, media_root)?;
    // Names are made of all clips, so that shares of the work do not write over each other.
    let files = file_names(&clips.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>());
    let shown = spread(clips.len(), args.limit.map_or(clips.len(), usize::from));
    let mine = shown.get(args.shard.range(shown.len())).unwrap_or_default();
    let index_name = match args.shard {
        Shard { of: 1, .. } => "index.html".to_owned(),
        Shard { index, of } => format!("index-{index}-of-{of}.html"),
    };
    write_atomic(&output.join("style.css"), |out| out.write_all(STYLE.as_bytes()))?;
    write_atomic(&output.join("script.js"), |out| out.write_all(SCRIPT.as_bytes()))?;
    let bar = progress(mine.len());
    let mut summaries = Vec::new();
    let file = |place: Option<&usize>| place.and_then(|place| files.get(*place)).map(String::as_str);
    for (n, place) in mine.iter().enumerate() {
        let (Some((name, said)), Some(own)) = (clips.get(*place), file(Some(place))) else { continue };
        bar.set_message((*name).to_owned());
        let clip = examine(args, name, own, said, by_name.get(name).copied())?;
        if let Err(reason) = &clip.footage {
            bar.suspend(|| eprintln!("not read: {name}: {reason}"));
        }
        let before = n.checked_sub(1).and_then(|n| mine.get(n));
        let links = Links { index: &index_name, before: file(before), after: file(mine.get(n + 1)) };
        let html = page::html(&clip, &links);
        write_atomic(&output.join("clips").join(format!("{own}.html")), |out| {
            out.write_all(html.as_bytes())
        })?;
        summaries.push(Summary::new(&clip));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let whole = whole(args, &records, &clips, &by_name, mine.len());
    let index = output.join(index_name);
    write_atomic(&index, |out| out.write_all(index::html(&whole, &summaries).as_bytes()))?;
    finish(args, &summaries, &index)
}

/// Reads and judges one clip.
fn examine<'a>(
    args: &InspectArgs,
    name: &'a str,
    file: &'a str,
    said: &[&Record],
    whole: Option<&'a ClipTracks>,
) -> Result<Clip<'a>> {
    let frames = u32::from(args.frames);
    let folder = args.output.join("clips");
    let footage = match strip::locate(&args.media_root, name) {
        Ok(path) => strip::shoot(&path, usize::from(args.frames), whole, &folder, file)?,
        Err(error) => Err(error),
    };
    let footage = footage.map_err(|error| format!("{error:#}"));
    let mut notes = Vec::new();
    match whole {
        Some(tracks) => {
            notes.extend(judge_tracks(tracks));
            let shape = footage.as_ref().map(|f| judge_shape(tracks, f.width, f.height, f.total, f.fps));
            notes.extend(shape.unwrap_or_default());
        }
        // Single images are mixed in without tracks.
        None if said.iter().all(|record| matches!(record.media, Media::Image(_))) => {}
        None => notes.push("the tracks file does not have this clip: answers cannot be checked".into()),
    }
    let sampled = whole.map(|tracks| tracks.sampled(frames));
    let source = whole.map(|tracks| tracks.sampled_frames(frames)).unwrap_or_default();
    let by = Measure { clip: sampled.as_ref(), source: &source, frames, tolerance: args.tolerance };
    let talks = said.iter().map(|record| judge(record, &by)).collect();
    Ok(Clip { name, file, footage, whole, sampled, talks, notes, frames })
}

/// Records by the clip they are about, in the order in which clips first appear.
fn by_clip(records: &[Record]) -> Vec<Said<'_>> {
    let mut clips: Vec<Said> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for record in records {
        let (Media::Video(name) | Media::Image(name)) = &record.media else { continue };
        let place = *places.entry(name).or_insert(clips.len());
        match clips.get_mut(place) {
            Some((_, said)) => said.push(record),
            None => clips.push((name, vec![record])),
        }
    }
    clips
}

/// `wanted` of the places 0 to `total` - 1, spread evenly, first and last included where there are two or more.
fn spread(total: usize, wanted: usize) -> Vec<usize> {
    if wanted >= total {
        return (0..total).collect();
    }
    (0..wanted).map(|i| i * (total - 1) / (wanted - 1).max(1)).collect()
}

/// Refuses an output whose pages could lie between the media, or that is a file.
fn check_output(output: &Path, media_root: &Path) -> Result<()> {
    ensure!(output.is_dir() || !output.exists(), "--output {} is not a folder", output.display());
    let real = |path: &Path| path.canonicalize().with_context(|| format!("reading {}", path.display()));
    ensure!(
        !output.exists() || !real(media_root)?.starts_with(real(output)?),
        "--output {} holds the media; name a folder of its own for the pages",
        output.display()
    );
    Ok(())
}

/// What the index says of the data set as a whole.
fn whole(
    args: &InspectArgs,
    records: &[Record],
    clips: &[Said],
    tracks: &BTreeMap<&str, &ClipTracks>,
    shown: usize,
) -> Whole {
    let mut notes = Vec::new();
    if shown < clips.len() {
        notes.push(format!("{shown} of {} are shown; all numbers are theirs.", counted(clips.len(), "clip")));
    }
    let silent = records.iter().filter(|record| record.media == Media::None).count();
    if silent > 0 {
        notes.push(format!("{} without video or image left out.", counted(silent, "record")));
    }
    let named: std::collections::BTreeSet<&str> = clips.iter().map(|(name, _)| *name).collect();
    let unused = tracks.keys().filter(|name| !named.contains(*name)).count();
    if unused > 0 {
        notes.push(format!("{} of the tracks file without a conversation.", counted(unused, "clip")));
    }
    let title = args.data.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Whole { title, frames: u32::from(args.frames), tolerance: args.tolerance, notes }
}

fn finish(args: &InspectArgs, clips: &[Summary], index: &Path) -> Result<()> {
    let sum = |of: fn(&Summary) -> usize| clips.iter().map(of).sum::<usize>();
    let failed = sum(|c| usize::from(c.failed()));
    eprintln!(
        "{}, {failed} not read, {}, {} with an answer that disagrees with the tracks",
        counted(clips.len(), "clip"),
        counted(sum(Summary::conversations), "conversation"),
        sum(Summary::disagreements)
    );
    ensure!(
        args.shard.of > 1 || failed < clips.len(),
        "none of the {} could be read: does --media-root {} fit the data? The reasons are in {}",
        counted(clips.len(), "clip"),
        args.media_root.display(),
        index.display()
    );
    println!("{}", index.display());
    Ok(())
}

fn progress(clips: usize) -> ProgressBar {
    let bar = ProgressBar::new(clips as u64);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} eta {eta} {msg}") {
        bar.set_style(style);
    }
    bar
}
