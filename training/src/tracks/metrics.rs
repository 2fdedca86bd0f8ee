//! How good tracks are: CLEAR-MOT, identity and HOTA scores, counted as TrackEval counts them.
//!
//! Comes in: true and found boxes with their ids, frame by frame. Goes out: [`Scores`]. Overlap is plain IoU here (no pixel added), as
//! in the evaluation kits; true boxes marked 0 are left out before. Which files, and averages over clips, are the caller's.

use std::collections::HashMap;

use lsap::solve;
use serde::Serialize;

use super::mot::Labelled;

/// Overlap from which a true and a found box may be the same.
const SAME: f64 = 0.5;
/// Rounding that comparisons forgive.
const EPSILON: f64 = f64::EPSILON;

/// Shares are 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Scores {
    /// 1 - (misses + false boxes + switches) / true boxes (Bernardin and Stiefelhagen, 2008); may be negative.
    pub mota: f64,
    /// Mean overlap of matched boxes.
    pub motp: f64,
    /// True boxes without a found one.
    pub misses: usize,
    /// Found boxes without a true one.
    pub false_boxes: usize,
    /// Times a true object was taken over by another found one.
    pub switches: usize,
    /// Identity F1 (Ristani et al., 2016).
    pub idf1: f64,
    /// Mean over 19 overlaps of sqrt(DetA AssA) (Luiten et al., 2021).
    pub hota: f64,
    /// Detection accuracy within HOTA.
    pub det_a: f64,
    /// Association accuracy within HOTA.
    pub ass_a: f64,
    /// True boxes.
    pub true_boxes: usize,
    /// Found boxes.
    pub found_boxes: usize,
}

fn overlap(a: &[f64; 4], b: &[f64; 4]) -> f64 {
    let width = (a[0] + a[2]).min(b[0] + b[2]) - a[0].max(b[0]);
    let height = (a[1] + a[3]).min(b[1] + b[3]) - a[1].max(b[1]);
    if width <= 0.0 || height <= 0.0 {
        return 0.0;
    }
    let both = width * height;
    both / (a[2] * a[3] + b[2] * b[3] - both)
}

/// One frame: ids as places in the list of all ids, and all overlaps, row by row.
struct Frame {
    truth: Vec<usize>,
    found: Vec<usize>,
    overlaps: Vec<f64>,
}

impl Frame {
    fn at(&self, row: usize, column: usize) -> f64 {
        self.overlaps[row * self.found.len() + column]
    }

    /// The pairs with the greatest sum of `worth`; what is worth nothing is left out.
    fn best(&self, worth: impl Fn(usize, usize) -> f64) -> Vec<(usize, usize)> {
        let (rows, columns) = (self.truth.len(), self.found.len());
        if rows == 0 || columns == 0 {
            return Vec::new();
        }
        let values: Vec<f64> =
            (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c))).map(|(r, c)| worth(r, c)).collect();
        let pairs = solve(rows, columns, &values, true).unwrap_or_default();
        let kept = |&(r, c): &(usize, usize)| values[r * columns + c] > EPSILON;
        pairs.0.into_iter().zip(pairs.1).filter(kept).collect()
    }
}

/// Everything counted once: the frames, and how often each id occurs.
struct Clip {
    frames: Vec<Frame>,
    truth: Vec<usize>,
    found: Vec<usize>,
}

/// Places of ids in the order they first come.
#[derive(Default)]
struct Ids {
    places: HashMap<u32, usize>,
    counts: Vec<usize>,
}

impl Ids {
    fn place(&mut self, id: u32) -> usize {
        let place = *self.places.entry(id).or_insert(self.counts.len());
        self.counts.resize(self.counts.len().max(place + 1), 0);
        self.counts[place] += 1;
        place
    }
}

impl Clip {
    fn new(truth: &[Vec<Labelled>], found: &[Vec<Labelled>]) -> Self {
        let (mut true_ids, mut found_ids) = (Ids::default(), Ids::default());
        let frames = (0..truth.len().max(found.len())).map(|i| {
            let counted = |list: &[Vec<Labelled>]| list.get(i).cloned().unwrap_or_default();
            let truth: Vec<Labelled> = counted(truth).into_iter().filter(|t| t.score != 0.0).collect();
            let found = counted(found);
            let overlaps =
                truth.iter().flat_map(|t| found.iter().map(|f| overlap(&t.tlwh, &f.tlwh))).collect();
            Frame {
                truth: truth.iter().map(|t| true_ids.place(t.id)).collect(),
                found: found.iter().map(|f| found_ids.place(f.id)).collect(),
                overlaps,
            }
        });
        let frames = frames.collect();
        Self { frames, truth: true_ids.counts, found: found_ids.counts }
    }

    fn true_boxes(&self) -> usize {
        self.truth.iter().sum()
    }

    fn found_boxes(&self) -> usize {
        self.found.iter().sum()
    }
}

/// Scores of one clip.
pub fn evaluate(truth: &[Vec<Labelled>], found: &[Vec<Labelled>]) -> Scores {
    let clip = Clip::new(truth, found);
    let mut scores =
        Scores { true_boxes: clip.true_boxes(), found_boxes: clip.found_boxes(), ..Scores::default() };
    clear(&clip, &mut scores);
    scores.idf1 = identity(&clip);
    hota(&clip, &mut scores);
    scores
}

/// CLEAR-MOT at an overlap of 0.5; what was matched in the frame before stays matched where it can.
fn clear(clip: &Clip, scores: &mut Scores) {
    let mut last: Vec<Option<usize>> = vec![None; clip.truth.len()];
    let mut before: Vec<Option<usize>> = vec![None; clip.truth.len()];
    let (mut matched, mut sum) = (0, 0.0);
    for frame in &clip.frames {
        let worth = |row: usize, column: usize| {
            let same = before[frame.truth[row]] == Some(frame.found[column]);
            let overlap = frame.at(row, column);
            if overlap < SAME - EPSILON { 0.0 } else { overlap + if same { 1000.0 } else { 0.0 } }
        };
        let pairs = frame.best(worth);
        before.fill(None);
        for &(row, column) in &pairs {
            let (object, id) = (frame.truth[row], frame.found[column]);
            scores.switches += usize::from(last[object].is_some_and(|other| other != id));
            (last[object], before[object]) = (Some(id), Some(id));
            sum += frame.at(row, column);
        }
        matched += pairs.len();
    }
    scores.misses = scores.true_boxes - matched;
    scores.false_boxes = scores.found_boxes - matched;
    let wrong = (scores.misses + scores.false_boxes + scores.switches) as f64;
    scores.mota = 1.0 - wrong / scores.true_boxes.max(1) as f64;
    scores.motp = sum / matched.max(1) as f64;
}

/// F1 of the boxes whose id is right under the one-to-one assignment of ids that makes most of them right.
fn identity(clip: &Clip) -> f64 {
    let (rows, columns) = (clip.truth.len(), clip.found.len());
    let total = clip.true_boxes() + clip.found_boxes();
    if rows == 0 || columns == 0 {
        return 0.0;
    }
    let mut together = vec![0.0; rows * columns];
    for frame in &clip.frames {
        for (row, object) in frame.truth.iter().enumerate() {
            for (column, id) in frame.found.iter().enumerate() {
                together[object * columns + id] += f64::from(u8::from(frame.at(row, column) >= SAME));
            }
        }
    }
    let (objects, ids) = solve(rows, columns, &together, true).unwrap_or_default();
    let right: f64 = objects.into_iter().zip(ids).map(|(object, id)| together[object * columns + id]).sum();
    2.0 * right / total as f64
}

/// HOTA at overlaps 0.05, 0.10, …, 0.95.
fn hota(clip: &Clip, scores: &mut Scores) {
    const LEVELS: usize = 19;
    let (rows, columns) = (clip.truth.len(), clip.found.len());
    let mut shared = vec![0.0; rows * columns];
    for frame in &clip.frames {
        let by_row: Vec<f64> =
            (0..frame.truth.len()).map(|r| (0..frame.found.len()).map(|c| frame.at(r, c)).sum()).collect();
        let by_column: Vec<f64> =
            (0..frame.found.len()).map(|c| (0..frame.truth.len()).map(|r| frame.at(r, c)).sum()).collect();
        for (r, object) in frame.truth.iter().enumerate() {
            for (c, id) in frame.found.iter().enumerate() {
                let union = by_row[r] + by_column[c] - frame.at(r, c);
                if union > EPSILON {
                    shared[object * columns + id] += frame.at(r, c) / union;
                }
            }
        }
    }
    let alignment = |object: usize, id: usize| {
        let both = shared[object * columns + id];
        both / (clip.truth[object] as f64 + clip.found[id] as f64 - both)
    };
    let mut matches = vec![vec![0usize; rows * columns]; LEVELS];
    for frame in &clip.frames {
        let pairs = frame.best(|r, c| alignment(frame.truth[r], frame.found[c]) * frame.at(r, c));
        for (r, c) in pairs {
            let reached = (0..LEVELS).filter(|l| frame.at(r, c) >= 0.05 * (l + 1) as f64 - EPSILON);
            reached.for_each(|level| matches[level][frame.truth[r] * columns + frame.found[c]] += 1);
        }
    }
    let boxes = scores.true_boxes + scores.found_boxes;
    for level in &matches {
        let right: usize = level.iter().sum();
        let detection = right as f64 / (boxes - right).max(1) as f64;
        let associated: f64 = (0..rows * columns)
            .filter(|&i| level[i] > 0)
            .map(|i| {
                let both = level[i] as f64;
                both * both
                    / (clip.truth[i / columns] as f64 + clip.found[i % columns] as f64 - both).max(1.0)
            })
            .sum();
        let association = associated / right.max(1) as f64;
        scores.det_a += detection / LEVELS as f64;
        scores.ass_a += association / LEVELS as f64;
        scores.hota += (detection * association).sqrt() / LEVELS as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(id: u32, x: f64) -> Vec<Vec<Labelled>> {
        (0..10)
            .map(|t| vec![Labelled { id, tlwh: [x + f64::from(t), 0.0, 10.0, 10.0], score: 1.0 }])
            .collect()
    }

    /// Scores of TrackEval and motmetrics on clips with mistakes of every kind (tests/golden/mot_metrics.py).
    #[test]
    fn scores_equal_trackevals() {
        let text = include_str!("../../../tests/golden/mot_metrics.json");
        let golden: serde_json::Value = serde_json::from_str(text).unwrap();
        let clips = golden["clips"].as_array().unwrap();
        assert_eq!(clips.len(), 4);
        for clip in clips {
            let frames = |key: &str| -> Vec<Vec<Labelled>> {
                let rows: Vec<Vec<[f64; 5]>> = serde_json::from_value(clip[key].clone()).unwrap();
                let labelled =
                    |&[id, x, y, w, h]: &[f64; 5]| Labelled { id: id as u32, tlwh: [x, y, w, h], score: 1.0 };
                rows.iter().map(|row| row.iter().map(labelled).collect()).collect()
            };
            let scores = evaluate(&frames("truth"), &frames("found"));
            let wanted = &clip["scores"];
            let close = |name: &str, ours: f64, theirs: &serde_json::Value| {
                let theirs = theirs.as_f64().unwrap();
                assert!((ours - theirs).abs() < 1e-9, "{name}: {ours}, {theirs}");
            };
            close("mota", scores.mota, &wanted["mota"]);
            close("motp", scores.motp, &wanted["motp"]);
            close("idf1", scores.idf1, &wanted["idf1"]);
            close("hota", scores.hota, &wanted["hota"]);
            close("det_a", scores.det_a, &wanted["det_a"]);
            close("ass_a", scores.ass_a, &wanted["ass_a"]);
            close("idf1", scores.idf1, &wanted["motmetrics"]["idf1"]);
            let counts = [scores.misses, scores.false_boxes, scores.switches].map(|n| n as u64);
            let theirs = ["misses", "false_boxes", "switches"].map(|k| wanted[k].as_u64().unwrap());
            assert_eq!(counts, theirs);
        }
    }

    #[test]
    fn a_perfect_result_scores_one_and_an_empty_one_nothing() {
        let truth = walk(4, 0.0);
        let perfect = evaluate(&truth, &walk(9, 0.0));
        for score in [perfect.mota, perfect.motp, perfect.idf1, perfect.hota, perfect.det_a, perfect.ass_a] {
            assert!((score - 1.0).abs() < 1e-12, "{perfect:?}");
        }
        let empty = evaluate(&truth, &[]);
        assert_eq!((empty.mota, empty.idf1, empty.hota, empty.misses), (0.0, 0.0, 0.0, 10));
    }

    #[test]
    fn a_switch_costs_one_in_mota_and_half_in_identity() {
        let truth = walk(1, 0.0);
        let mut found = walk(1, 0.0);
        found[5..].iter_mut().flatten().for_each(|box_| box_.id = 2);
        let scores = evaluate(&truth, &found);
        assert_eq!(scores.switches, 1);
        assert!((scores.mota - 0.9).abs() < 1e-12 && (scores.idf1 - 0.5).abs() < 1e-12);
        assert!((scores.ass_a - 0.5).abs() < 1e-12 && (scores.det_a - 1.0).abs() < 1e-12);
    }

    #[test]
    fn true_boxes_marked_zero_do_not_count() {
        let mut truth = walk(1, 0.0);
        truth[0][0].score = 0.0;
        let scores = evaluate(&truth, &walk(1, 0.0));
        assert_eq!((scores.true_boxes, scores.false_boxes, scores.misses), (9, 1, 0));
    }
}
