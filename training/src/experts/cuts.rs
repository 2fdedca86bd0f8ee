//! Shot cuts: frames that have nothing to do with the frame before.
//!
//! Comes in: frames in order. Goes out: whether each begins a new shot. A cut is a large change of the whole picture that stands out from the changes before
//! it (the rule of PySceneDetect's adaptive detector, on small pictures, looking back only); slow dissolves are not found.

use utr_models::RgbFrame;

/// Side of the small pictures that are compared.
const SIDE: usize = 32;
/// Least mean difference between neighbours, in grey levels.
const LEAST: f32 = 16.0;
/// Least share of the picture that changes by half of that: a large object that jumps is no cut.
const SPREAD: f32 = 0.6;
/// Least ratio to the usual difference (3 in PySceneDetect, too): a cut out of a fast shot stands out less.
const RATIO: f32 = 3.0;
/// Frames that the usual difference is taken from.
const MEMORY: usize = 16;

/// Watches a stream for cuts.
#[derive(Clone, Debug, Default)]
pub struct Cuts {
    before: Option<Vec<[f32; 3]>>,
    changes: Vec<f32>,
}

impl Cuts {
    /// Whether `frame` begins a new shot; the first frame of a stream does not.
    pub fn begins(&mut self, frame: &RgbFrame) -> bool {
        let small = thumbnail(frame);
        let Some(before) = self.before.replace(small) else { return false };
        let Some(now) = &self.before else { return false };
        let each: Vec<f32> = now.iter().zip(&before).map(|(a, b)| difference(a, b)).collect();
        let count = each.len() as f32;
        let change = each.iter().sum::<f32>() / count;
        let spread = each.iter().filter(|d| **d >= LEAST / 2.0).count() as f32 / count;
        let mut sorted = self.changes.clone();
        sorted.sort_by(f32::total_cmp);
        let usual = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
        let cut = change >= LEAST && spread >= SPREAD && change >= RATIO * usual;
        if cut {
            self.changes.clear();
        } else {
            self.changes.push(change);
            let surplus = self.changes.len().saturating_sub(MEMORY);
            self.changes.drain(..surplus);
        }
        cut
    }
}

/// Mean over the channels.
fn difference(a: &[f32; 3], b: &[f32; 3]) -> f32 {
    (0..3).map(|c| (a[c] - b[c]).abs()).sum::<f32>() / 3.0
}

/// Rows of a block that are looked at, at most.
const ROWS: usize = 8;

/// Means of blocks, [`SIDE`] a row (fewer where the frame is smaller), over some rows of each.
fn thumbnail(frame: &RgbFrame) -> Vec<[f32; 3]> {
    let (columns, rows) = (SIDE.min(frame.width), SIDE.min(frame.height));
    let edge = |i: usize, parts: usize, whole: usize| i * whole / parts;
    let mut means = Vec::with_capacity(columns * rows);
    let mut sums = vec![0u16; frame.width * 3];
    for row in 0..rows {
        let ys = edge(row, rows, frame.height)..edge(row + 1, rows, frame.height);
        let step = ys.len().div_ceil(ROWS).max(1);
        let picked = ys.step_by(step);
        let count = picked.len();
        sums.fill(0);
        for y in picked {
            let line = &frame.data[y * frame.width * 3..][..frame.width * 3];
            sums.iter_mut().zip(line).for_each(|(s, v)| *s += u16::from(*v));
        }
        for column in 0..columns {
            let (from, to) = (edge(column, columns, frame.width), edge(column + 1, columns, frame.width));
            let mut sum = [0u32; 3];
            sums[from * 3..to * 3]
                .chunks_exact(3)
                .for_each(|p| (0..3).for_each(|c| sum[c] += u32::from(p[c])));
            let count = ((to - from) * count).max(1) as f32;
            means.push(sum.map(|s| s as f32 / count));
        }
    }
    means
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{STEPS, Split, WorldConfig, clip_seed, generate, render};

    #[test]
    fn a_cut_is_found_where_two_clips_meet_and_nowhere_else() {
        let mut found = 0;
        for index in 0..12 {
            let clips = [2 * index, 2 * index + 1].map(|n| {
                let mut config = WorldConfig::full();
                config.camera = true;
                generate(clip_seed(Split::Train, n), &config)
            });
            let mut cuts = Cuts::default();
            for (clip, script) in clips.iter().enumerate() {
                for step in 0..STEPS {
                    let mut frame = render(script, step as f32, 64);
                    // The second clip is shot by day.
                    frame.data.iter_mut().for_each(|v| *v = v.saturating_add(90 * clip as u8));
                    let cut = cuts.begins(&frame);
                    assert!(!cut || (clip, step) == (1, 0), "a cut at step {step} of clip {clip}");
                    found += usize::from(cut);
                }
            }
        }
        assert_eq!(found, 12);
    }

    #[test]
    fn a_flash_of_light_of_the_whole_picture_is_a_cut_and_noise_is_none() {
        let plain = |level: u8| RgbFrame::new(8, 4, vec![level; 96]).unwrap();
        let mut cuts = Cuts::default();
        let said: Vec<bool> = [20, 24, 20, 23, 180, 182, 178].map(|l| cuts.begins(&plain(l))).to_vec();
        assert_eq!(said, [false, false, false, false, true, false, false]);
    }

    #[test]
    fn a_cut_out_of_a_fast_shot_is_found_and_fast_movement_is_none() {
        let plain = |level: u8| RgbFrame::new(64, 64, vec![level; 64 * 64 * 3]).unwrap();
        let mut cuts = Cuts::default();
        // Steps of up to 18 levels over the whole picture, then one of 60.
        let levels = [20, 30, 44, 60, 78, 96, 114, 98, 82, 66, 126, 140, 158];
        let said: Vec<usize> = (0..levels.len()).filter(|i| cuts.begins(&plain(levels[*i]))).collect();
        assert_eq!(said, [10]);
    }

    #[test]
    fn thumbnails_are_means_of_blocks_of_any_size() {
        let frame = RgbFrame::new(100, 70, (0..21_000).map(|i| (i / 300) as u8).collect()).unwrap();
        let small = thumbnail(&frame);
        assert_eq!(small.len(), SIDE * SIDE);
        // Rows 0 and 1; rows 67 to 69.
        assert_eq!((small[0], small[SIDE * SIDE - 1]), ([0.5; 3], [68.0; 3]));
    }
}
