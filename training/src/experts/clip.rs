//! The clips of a folder, decoded by the runtime's own capture.
//!
//! Comes in: a folder of videos (and of folders of numbered pictures), at any depth. Goes out: [`Clip`]s in the order of their names, each readable any
//! number of times. What is neither a video nor a picture is passed over; nothing is resized.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use utr_models::RgbFrame;
use utr_runtime::capture::{self, Capture, CaptureOptions, FOLDER_FPS};
use utr_runtime::source::Source;

use super::cuts::Cuts;

/// Endings of files that are taken for videos.
const ENDINGS: [&str; 20] = [
    "mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "mts", "m2ts", "ogv", "flv", "f4v",
    "wmv", "asf", "3gp", "vob", "mxf", "m2v",
];
/// Endings of pictures; a folder that holds some is one clip.
const PICTURES: [&str; 3] = ["png", "jpg", "jpeg"];

/// Least share of the duration that must be readable; sound may be longer than its pictures.
const LEAST_READ: f64 = 0.8;
/// Shorter clips are believed: a single frame has no duration to compare.
const LONG_ENOUGH_MS: u64 = 500;

/// A clip on disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Clip {
    /// Its path below the media root, with `/` between folders: what the data set calls it.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Every how many frames are looked at: 1, 1 + every, 1 + 2 every, …
    pub every: u32,
}

/// What a clip is as a whole, known once it was read to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Frames.
    pub frames: u32,
    /// Frames per second, the mean where the rate varies.
    pub fps: f64,
    /// When each frame is shown, in milliseconds from the first; empty where the rate does not vary.
    pub times_ms: Vec<u64>,
    /// Frames (from 1) that begin a new shot; the first frame is none of them.
    pub cuts: Vec<u32>,
}

impl Clip {
    /// The clips below `root`, sorted by name.
    ///
    /// # Errors
    /// A folder that is missing, cannot be read or holds no clip.
    pub fn all(root: &Path) -> Result<Vec<Clip>> {
        ensure!(root.is_dir(), "--videos {} is not a folder", root.display());
        let mut clips = Vec::new();
        gather(root, root, &mut Vec::new(), &mut clips)?;
        ensure!(
            !clips.is_empty(),
            "{} holds no clip: looked for files ending in {} and for folders of pictures",
            root.display(),
            ENDINGS.join(", ")
        );
        clips.sort();
        Ok(clips)
    }

    /// Opens it at its first frame.
    ///
    /// # Errors
    /// A clip that cannot be decoded, with what GStreamer said.
    pub fn open(&self) -> Result<Footage> {
        let capture = capture::open(&Source::Path(self.path.clone()), &CaptureOptions::default())?;
        let (times_ms, cuts) = (Vec::new(), Vec::new());
        let every = self.every.max(1);
        Ok(Footage { capture, every, size: None, stamps: 0, times_ms, watch: Cuts::default(), cuts })
    }
}

fn ending(path: &Path) -> String {
    path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// `above` are the folders that this one lies in, by their real paths: a link to one of them leads round in a circle.
fn gather(root: &Path, folder: &Path, above: &mut Vec<PathBuf>, clips: &mut Vec<Clip>) -> Result<()> {
    let real = folder.canonicalize().with_context(|| format!("reading {}", folder.display()))?;
    if above.contains(&real) {
        return Ok(());
    }
    above.push(real);
    let mut pictures = false;
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("reading {}", folder.display()))?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        if path.to_str().is_none() {
            eprintln!(
                "passed over: {} has a name that is not UTF-8, which no data set can hold; rename it",
                path.display()
            );
            continue;
        }
        let ending = ending(&path);
        if path.is_dir() {
            gather(root, &path, above, clips)?;
        } else if ENDINGS.contains(&ending.as_str()) {
            clips.push(named(root, path));
        } else {
            pictures |= PICTURES.contains(&ending.as_str());
        }
    }
    if pictures && folder != root {
        clips.push(named(root, folder.to_path_buf()));
    }
    above.pop();
    Ok(())
}

fn named(root: &Path, path: PathBuf) -> Clip {
    let below = path.strip_prefix(root).unwrap_or(&path);
    let parts: Vec<String> =
        below.components().map(|c| c.as_os_str().to_string_lossy().into_owned()).collect();
    Clip { name: parts.join("/"), path, every: 1 }
}

/// A clip being read.
pub struct Footage {
    capture: Box<dyn Capture>,
    every: u32,
    size: Option<(usize, usize)>,
    stamps: u32,
    times_ms: Vec<u64>,
    watch: Cuts,
    cuts: Vec<u32>,
}

impl Footage {
    /// The next frame that is looked at; `None` at the end.
    ///
    /// # Errors
    /// A break in the stream, and a picture of another size than the first.
    pub fn next_frame(&mut self) -> Result<Option<RgbFrame>> {
        loop {
            let Some(stamp) = self.capture.advance()? else { return self.ended() };
            self.stamps += 1;
            self.times_ms.push(stamp.pts_ms);
            if (self.stamps - 1).is_multiple_of(self.every) {
                break;
            }
        }
        let frame = self.capture.image()?;
        let size = *self.size.get_or_insert((frame.width, frame.height));
        if size != (frame.width, frame.height) {
            let ((w, h), n) = (size, self.stamps);
            bail!(
                "frame {n} has {}x{} pixels after {w}x{h}; cut the clip where its size changes",
                frame.width,
                frame.height
            );
        }
        if self.watch.begins(&frame) {
            self.cuts.push(self.stamps);
        }
        Ok(Some(frame))
    }

    /// The end is only believed where the clip is about as long as it says.
    fn ended(&self) -> Result<Option<RgbFrame>> {
        let read_ms = self.times_ms.last().copied().unwrap_or(0);
        if let Some(whole_ms) =
            self.capture.duration_ms().filter(|ms| self.stamps > 0 && *ms > LONG_ENOUGH_MS)
            && (read_ms as f64) < LEAST_READ * whole_ms as f64
        {
            bail!(
                "only {} frames ({:.1} of {:.1} s) could be read: the file is damaged or cut short; record it again",
                self.stamps,
                read_ms as f64 / 1000.0,
                whole_ms as f64 / 1000.0
            );
        }
        Ok(None)
    }

    /// Whether the frame that came last begins a new shot, as far as the frames that are looked at tell.
    pub fn begins_shot(&self) -> bool {
        self.cuts.last() == Some(&self.stamps) && self.stamps > 0
    }

    /// What was read so far.
    ///
    /// # Errors
    /// Nothing was.
    pub fn shape(&self) -> Result<Shape> {
        let Some((width, height)) = self.size else { bail!("the clip has no frame") };
        let (frames, seconds) = (self.stamps, self.times_ms.last().map_or(0.0, |ms| *ms as f64 / 1000.0));
        let fps =
            if frames > 1 && seconds > 0.0 { f64::from(frames - 1) / seconds } else { FOLDER_FPS as f64 };
        Ok(Shape {
            width: width as u32,
            height: height as u32,
            frames,
            fps: (fps * 1000.0).round() / 1000.0,
            times_ms: if varies(&self.times_ms, fps) { self.times_ms.clone() } else { Vec::new() },
            cuts: self.cuts.clone(),
        })
    }
}

/// Whether some frame is shown more than half a frame from where a constant rate has it.
fn varies(times_ms: &[u64], fps: f64) -> bool {
    let period = 1000.0 / fps;
    let off = |(frame, ms): (usize, &u64)| (*ms as f64 - frame as f64 * period).abs() > 0.5 * period + 1.0;
    times_ms.iter().enumerate().any(off)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_varies_where_frames_are_off_by_more_than_half_of_one() {
        let steady: Vec<u64> = (0..90).map(|f| f * 1000 / 30).collect();
        assert!(!varies(&steady, 30.0));
        let held: Vec<u64> =
            steady.iter().enumerate().map(|(f, ms)| ms + if f > 40 { 500 } else { 0 }).collect();
        assert!(varies(&held, 89.0 / (held[89] as f64 / 1000.0)));
    }

    #[test]
    fn clips_are_found_at_any_depth_and_pictures_make_one_clip_a_folder() {
        let root = tempfile::tempdir().unwrap();
        for name in
            ["b.mp4", "notes.txt", "deep/A.MKV", "deep/frames/1.png", "deep/frames/2.png", ".hidden.mp4"]
        {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"").unwrap();
        }
        let names: Vec<String> = Clip::all(root.path()).unwrap().into_iter().map(|c| c.name).collect();
        assert_eq!(names, ["b.mp4", "deep/A.MKV", "deep/frames"]);
        #[cfg(unix)]
        std::os::unix::fs::symlink(root.path(), root.path().join("deep/round")).unwrap();
        assert_eq!(Clip::all(root.path()).unwrap().len(), 3);
        let empty = tempfile::tempdir().unwrap();
        assert!(Clip::all(empty.path()).unwrap_err().to_string().contains("holds no clip"));
    }
}
