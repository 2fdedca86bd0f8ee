//! World clips as files: pictures or MP4, with truth, tracks, questions and conversations beside them.
//!
//! Comes in: settings (which clips, what size, how encoded). Goes out: `clips/`, `truth.jsonl`, `tracks.jsonl`,
//! `questions.jsonl`, `data.jsonl` and `world.json` (the settings). Every file is renamed into place when complete, so a run
//! that was stopped continues where it was; a folder written with other settings is refused. MP4 is in `encode`.

use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utr_models::{Error, Result, RgbFrame};

use super::ceilings::Ceilings;
use super::conversations::{STEPS_PER_SECOND, world_tracks_at};
use super::encode::Encoder;
use super::suite::Suite;
use super::{
    Item, Renderer, STEPS, Script, Split, Truth, WorldConfig, clip_seed, generate, questions, truth,
    world_hash,
};
use crate::files::{write_atomic, write_jsonl};
use crate::queries::llava::{self, Conversation};
use crate::queries::{ClipTracks, Listing, QueryFrame, caption, utr_turns};
use crate::sample::Turn;

/// Which clips are written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// General clips `first..first + clips` of a split.
    Seeds {
        /// The split.
        split: Split,
        /// Index of the first clip within it.
        first: u64,
        /// How many.
        clips: usize,
        /// How rich.
        world: WorldConfig,
    },
    /// Both twins of every pair of a suite, each with its one question.
    Suite(Suite),
    /// The demo clip of a suite and its time reversal.
    Demo(Suite),
}

/// How frames are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encode {
    /// A folder of PNG files: exact pixels.
    Frames,
    /// One video file through GStreamer (feature `gst`).
    Mp4,
}

/// Everything that decides what is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Which clips.
    pub source: Source,
    /// Side of the square frames in pixels.
    pub size: u32,
    /// Frames per step: a clip has `31 k + 1` frames at `4 k` frames a second.
    pub frames_per_step: u32,
    /// How they are stored.
    pub encode: Encode,
    /// How conversations list boxes.
    pub listing: Listing,
    /// Where UTR queries take their attribute from.
    pub query: QueryFrame,
}

/// One clip to be written.
struct Plan {
    id: String,
    script: Script,
    items: Vec<Item>,
}

/// One line of `truth.jsonl`.
#[derive(Serialize)]
struct TruthLine<'a> {
    id: &'a str,
    video: &'a str,
    hash: String,
    script: &'a Script,
    truth: &'a Truth,
}

/// Writes (or completes) the clips of `settings` under `output`; `progress` is told after each clip how many of how many
/// are there. `ceilings` are added to the questions where given.
///
/// # Errors
/// A folder that was written with other settings, a missing GStreamer element, or a file system that refuses.
pub fn write_clips(
    output: &Path,
    settings: &Settings,
    ceilings: Option<&Ceilings>,
    progress: &dyn Fn(usize, usize),
) -> Result<()> {
    let encoder = match settings.encode {
        Encode::Frames => None,
        Encode::Mp4 => Some(Encoder::find()?),
    };
    claim(output, settings)?;
    let plans = settings.source.plans();
    let (mut truths, mut tracks, mut asked, mut told) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (done, plan) in (1..).zip(&plans) {
        let extension = encoder.as_ref().map_or("", |e| e.extension());
        let video = format!("clips/{}{extension}", plan.id);
        write_media(&output.join(&video), &plan.script, settings, encoder.as_ref())?;
        let facts = truth(&plan.script);
        let line = TruthLine {
            id: &plan.id,
            video: &video,
            hash: world_hash(&plan.script),
            script: &plan.script,
            truth: &facts,
        };
        truths.push(serde_json::to_value(&line).map_err(|e| Error::format(output, e.to_string()))?);
        let shot = world_tracks_at(
            &plan.script,
            &facts,
            &video,
            settings.size,
            &settings.times(),
            STEPS_PER_SECOND * f64::from(settings.frames_per_step),
        );
        asked.extend(plan.items.iter().enumerate().map(|(n, i)| question_line(plan, &video, n, i, ceilings)));
        told.extend(conversations(plan, &video, &shot, settings));
        tracks.push(shot);
        progress(done, plans.len());
    }
    write_jsonl(&output.join("truth.jsonl"), truths)?;
    write_jsonl(&output.join("tracks.jsonl"), tracks)?;
    write_jsonl(&output.join("questions.jsonl"), asked)?;
    write_jsonl(&output.join("data.jsonl"), told)
}

impl Settings {
    /// Times of the frames, in steps.
    pub fn times(&self) -> Vec<f32> {
        let k = self.frames_per_step.max(1);
        (0..=(STEPS as u32 - 1) * k).map(|f| f as f32 / k as f32).collect()
    }
}

impl Source {
    fn plans(&self) -> Vec<Plan> {
        match self {
            Source::Seeds { split, first, clips, world } => (0..*clips as u64)
                .map(|n| {
                    let script = generate(clip_seed(*split, first + n), world);
                    let mut rng = ChaCha8Rng::seed_from_u64(script.seed ^ 0x4153_4B00);
                    let items = questions(&script, &mut rng);
                    Plan { id: format!("{}-{:06}", split_word(*split), first + n), script, items }
                })
                .collect(),
            Source::Suite(suite) => suite
                .pairs()
                .flat_map(|p| {
                    let id = p.id;
                    p.twins.into_iter().zip(["a", "b"]).map(move |(posed, twin)| Plan {
                        id: format!("{id}-{twin}"),
                        script: posed.script,
                        items: vec![posed.item],
                    })
                })
                .collect(),
            Source::Demo(suite) => {
                let demo = suite.demo();
                let mirrored = demo.items.iter().filter_map(mirror).collect();
                vec![
                    Plan { id: "demo".into(), script: demo.script, items: demo.items },
                    Plan { id: "demo-twin".into(), script: demo.twin, items: mirrored },
                ]
            }
        }
    }
}

/// The same question about the twin clip.
fn mirror(item: &Item) -> Option<Item> {
    let answer = item.twin_answer.clone()?;
    Some(Item { answer, twin_answer: Some(item.answer.clone()), ..item.clone() })
}

fn split_word(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Val => "val",
        Split::Test => "test",
    }
}

/// Writes `world.json`, or checks that it holds these settings.
fn claim(output: &Path, settings: &Settings) -> Result<()> {
    let path = output.join("world.json");
    let wanted =
        serde_json::to_string_pretty(settings).map_err(|e| Error::format(&path, e.to_string()))? + "\n";
    match std::fs::read_to_string(&path) {
        Ok(found) if found == wanted => Ok(()),
        Ok(_) => Err(Error::format(
            &path,
            "this folder was written with other settings; choose another output folder, or remove this one",
        )),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            write_atomic(&path, |file| file.write_all(wanted.as_bytes()))
        }
        Err(e) => Err(Error::io(&path)(e)),
    }
}

/// Writes the frames of a clip unless they are there.
fn write_media(path: &Path, script: &Script, settings: &Settings, encoder: Option<&Encoder>) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
    let mut renderer = Renderer::new(script, settings.size);
    let mut frames = settings.times().into_iter().map(|t| renderer.frame(t));
    let temporary = temporary_beside(path);
    match encoder {
        Some(encoder) => {
            let rate = STEPS_PER_SECOND as u32 * settings.frames_per_step;
            encoder.write(&temporary, settings.size, rate, &mut frames)?;
        }
        None => write_folder(&temporary, &mut frames)?,
    }
    std::fs::rename(&temporary, path).map_err(Error::io(path))
}

/// A hidden name in the same folder, kept for the next attempt to overwrite.
fn temporary_beside(path: &Path) -> PathBuf {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".writing-{name}"))
}

fn write_folder(folder: &Path, frames: &mut dyn Iterator<Item = RgbFrame>) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(folder)(e)),
        _ => std::fs::create_dir_all(folder).map_err(Error::io(folder))?,
    }
    for (n, frame) in frames.enumerate() {
        write_png(&folder.join(format!("{n:05}.png")), &frame)?;
    }
    Ok(())
}

/// Writes one frame as PNG.
///
/// # Errors
/// The file cannot be written.
pub fn write_png(path: &Path, frame: &RgbFrame) -> Result<()> {
    let (width, height) = (frame.width as u32, frame.height as u32);
    image::save_buffer_with_format(
        path,
        &frame.data,
        width,
        height,
        image::ExtendedColorType::Rgb8,
        image::ImageFormat::Png,
    )
    .map_err(|e| match e {
        image::ImageError::IoError(e) => Error::io(path)(e),
        other => Error::format(path, other.to_string()),
    })
}

/// One line of `questions.jsonl`: the item, its clip, and what is attainable without watching it.
fn question_line(
    plan: &Plan,
    video: &str,
    n: usize,
    item: &Item,
    ceilings: Option<&Ceilings>,
) -> serde_json::Value {
    let attainable = ceilings.and_then(|c| c.skill(item.skill)).map(|c| {
        json!({
            "chance": c.chance, "blind": c.blind.accuracy, "single": c.single.accuracy, "two": c.two.accuracy,
            "four": c.four.accuracy, "bag": c.bag.accuracy,
        })
    });
    json!({
        "id": format!("{}-q{n}", plan.id), "video": video, "order": item.skill.is_order(), "item": item,
        "ceilings": attainable,
    })
}

/// UTR queries, captions, instructions and skill questions of a clip, one conversation each, over its 32 sampled frames.
fn conversations(plan: &Plan, video: &str, shot: &ClipTracks, settings: &Settings) -> Vec<Conversation> {
    let mut rng = ChaCha8Rng::seed_from_u64(plan.script.seed ^ 0x5441_4C4B);
    let clip = shot.sampled(STEPS as u32);
    let mut lines: Vec<(Turn, serde_json::Value)> = Vec::new();
    for utr in utr_turns(&clip, settings.query, &settings.listing, &mut rng) {
        let meta = json!({
            "task": "utr", "query_attribute": utr.attribute, "query_frame": utr.frame, "track_ids": [utr.track],
        });
        lines.push((utr.turn, meta));
    }
    let captions = [caption::clip_caption(&clip, &mut rng), caption::events(&clip, &mut rng)];
    lines.extend(captions.into_iter().flatten().map(|t| (t, json!({"task": "caption"}))));
    let short = caption::instructions(&clip, &settings.listing, &mut rng);
    lines.extend(short.into_iter().map(|t| (t, json!({"task": "instruction"}))));
    lines.extend(plan.items.iter().map(|i| (i.turn(), json!({"task": "skill", "skill": i.skill}))));
    let numbered = lines.into_iter().enumerate();
    numbered
        .map(|(n, (turn, meta))| llava::conversation(&format!("{}-{n}", plan.id), video, &[turn], Some(meta)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::read_jsonl;
    use crate::queries::tracks::read_tracks;

    fn settings(encode: Encode) -> Settings {
        let world = WorldConfig::easy(2);
        Settings {
            source: Source::Seeds { split: Split::Train, first: 5, clips: 2, world },
            size: 64,
            frames_per_step: if encode == Encode::Mp4 { 2 } else { 1 },
            encode,
            listing: Listing::default(),
            query: QueryFrame::Random,
        }
    }

    #[test]
    fn frames_truth_tracks_questions_and_conversations_are_written_and_agree() {
        let folder = tempfile::tempdir().unwrap();
        write_clips(folder.path(), &settings(Encode::Frames), None, &|_, _| {}).unwrap();
        let clip = folder.path().join("clips/train-000005");
        assert_eq!(std::fs::read_dir(&clip).unwrap().count(), 32);
        let picture = image::open(clip.join("00007.png")).unwrap().into_rgb8();
        let script = generate(clip_seed(Split::Train, 5), &WorldConfig::easy(2));
        assert_eq!(picture.into_raw(), Renderer::new(&script, 64).frame(7.0).data);
        let tracks = read_tracks(&folder.path().join("tracks.jsonl")).unwrap();
        assert_eq!((tracks.len(), tracks[0].video.as_str()), (2, "clips/train-000005"));
        let records = llava::read(&folder.path().join("data.jsonl")).unwrap();
        assert!(records.len() > 8);
        let truths: Vec<serde_json::Value> = read_jsonl(&folder.path().join("truth.jsonl")).unwrap();
        assert_eq!(truths[0]["hash"], world_hash(&script));
        let asked: Vec<serde_json::Value> = read_jsonl(&folder.path().join("questions.jsonl")).unwrap();
        assert!(asked.iter().all(|q| q["item"]["question"].is_string()));
    }

    #[test]
    fn a_stopped_run_is_completed_and_other_settings_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(Encode::Frames);
        write_clips(folder.path(), &settings, None, &|_, _| {}).unwrap();
        let kept = folder.path().join("clips/train-000005/00000.png");
        std::fs::write(&kept, "kept").unwrap();
        std::fs::remove_dir_all(folder.path().join("clips/train-000006")).unwrap();
        std::fs::create_dir(folder.path().join("clips/.writing-train-000006")).unwrap();
        write_clips(folder.path(), &settings, None, &|_, _| {}).unwrap();
        assert_eq!(std::fs::read(&kept).unwrap(), b"kept");
        assert!(folder.path().join("clips/train-000006/00031.png").exists());
        let other = Settings { size: 32, ..settings };
        let message = write_clips(folder.path(), &other, None, &|_, _| {}).unwrap_err().to_string();
        assert!(message.contains("other settings"), "{message}");
    }

    #[cfg(feature = "gst")]
    #[test]
    fn a_video_is_written_where_an_encoder_is_installed() {
        let Ok(encoder) = Encoder::find() else {
            eprintln!("no encoder on this machine");
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        write_clips(folder.path(), &settings(Encode::Mp4), None, &|_, _| {}).unwrap();
        let file = folder.path().join(format!("clips/train-000005{}", encoder.extension()));
        assert!(std::fs::metadata(&file).unwrap().len() > 2000);
        let tracks = read_tracks(&folder.path().join("tracks.jsonl")).unwrap();
        assert_eq!((tracks[0].frames, tracks[0].fps), (63, 8.0));
    }
}
