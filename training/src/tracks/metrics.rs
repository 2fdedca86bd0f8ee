//! How good tracks are: CLEAR-MOT, identity and HOTA scores, counted as TrackEval counts them.
//!
//! Comes in: true and found boxes with their ids, frame by frame. Goes out: [`Scores`]. Overlap is plain IoU here (no pixel added), as
//! in the evaluation kits; true boxes marked 0 are left out before. Which files, and averages over clips, are the caller's.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use lsap::solve;
use serde::Serialize;

use super::assign::{Pair, match_pairs};
use super::frames::Frames;
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
    fn new(truth: &Frames<Labelled>, found: &Frames<Labelled>) -> Self {
        let (mut true_ids, mut found_ids) = (Ids::default(), Ids::default());
        let numbers: BTreeSet<u32> = truth.items().chain(found.items()).map(|(number, _)| number).collect();
        let frames = numbers.into_iter().map(|number| {
            let truth: Vec<Labelled> = truth.at(number).iter().filter(|t| t.score != 0.0).copied().collect();
            let found = found.at(number);
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
pub fn evaluate(truth: &Frames<Labelled>, found: &Frames<Labelled>) -> Scores {
    let clip = Clip::new(truth, found);
    let mut scores =
        Scores { true_boxes: clip.true_boxes(), found_boxes: clip.found_boxes(), ..Scores::default() };
    clear(&clip, &mut scores);
    scores.idf1 = identity(&clip);
    hota(&clip, &mut scores);
    scores
}

/// CLEAR-MOT at an overlap of 0.5; what was matched in the frame before stays matched where it can. Frames without true or without found boxes do
/// not count as a frame before.
fn clear(clip: &Clip, scores: &mut Scores) {
    let mut last: Vec<Option<usize>> = vec![None; clip.truth.len()];
    let mut before: Vec<Option<usize>> = vec![None; clip.truth.len()];
    let (mut matched, mut sum) = (0, 0.0);
    for frame in clip.frames.iter().filter(|f| !f.truth.is_empty() && !f.found.is_empty()) {
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
    let mut together: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for frame in &clip.frames {
        for (row, &object) in frame.truth.iter().enumerate() {
            for (column, &id) in frame.found.iter().enumerate() {
                if frame.at(row, column) >= SAME {
                    *together.entry((object, id)).or_default() += 1;
                }
            }
        }
    }
    let pairs = together.iter().map(|(&(row, column), &count)| Pair { row, column, cost: -(count as f64) });
    let matching = match_pairs(clip.truth.len(), clip.found.len(), 0.0, pairs.collect());
    let taken = matching.column_of.iter().enumerate().filter_map(|(object, id)| Some((object, (*id)?)));
    let right: usize = taken.filter_map(|pair| together.get(&pair)).sum();
    2.0 * right as f64 / (clip.true_boxes() + clip.found_boxes()).max(1) as f64
}

/// HOTA at overlaps 0.05, 0.10, …, 0.95.
fn hota(clip: &Clip, scores: &mut Scores) {
    const LEVELS: usize = 19;
    let mut shared: BTreeMap<(usize, usize), f64> = BTreeMap::new();
    for frame in &clip.frames {
        let by_row: Vec<f64> =
            (0..frame.truth.len()).map(|r| (0..frame.found.len()).map(|c| frame.at(r, c)).sum()).collect();
        let by_column: Vec<f64> =
            (0..frame.found.len()).map(|c| (0..frame.truth.len()).map(|r| frame.at(r, c)).sum()).collect();
        for (r, &object) in frame.truth.iter().enumerate() {
            for (c, &id) in frame.found.iter().enumerate() {
                let union = by_row[r] + by_column[c] - frame.at(r, c);
                if frame.at(r, c) > 0.0 && union > EPSILON {
                    *shared.entry((object, id)).or_default() += frame.at(r, c) / union;
                }
            }
        }
    }
    let alignment = |object: usize, id: usize| {
        let both = shared.get(&(object, id)).copied().unwrap_or(0.0);
        both / (clip.truth[object] as f64 + clip.found[id] as f64 - both)
    };
    let mut matches: BTreeMap<(usize, usize), [usize; LEVELS]> = BTreeMap::new();
    for frame in &clip.frames {
        let pairs = frame.best(|r, c| alignment(frame.truth[r], frame.found[c]) * frame.at(r, c));
        for (r, c) in pairs {
            let levels = matches.entry((frame.truth[r], frame.found[c])).or_default();
            let reached = (0..LEVELS).filter(|l| frame.at(r, c) >= 0.05 * (l + 1) as f64 - EPSILON);
            reached.for_each(|level| levels[level] += 1);
        }
    }
    let boxes = scores.true_boxes + scores.found_boxes;
    for level in 0..LEVELS {
        let right: usize = matches.values().map(|levels| levels[level]).sum();
        let detection = right as f64 / (boxes - right).max(1) as f64;
        let associated: f64 = matches
            .iter()
            .map(|(&(object, id), levels)| {
                let both = levels[level] as f64;
                both * both / (clip.truth[object] as f64 + clip.found[id] as f64 - both).max(1.0)
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

    fn walk(id: impl Fn(u32) -> u32) -> Frames<Labelled> {
        let labelled = |t: u32| Labelled { id: id(t), tlwh: [f64::from(t), 0.0, 10.0, 10.0], score: 1.0 };
        (1..=10).map(|t| (t, labelled(t))).collect()
    }

    /// Scores of TrackEval and motmetrics on clips with mistakes of every kind (tests/golden/mot_metrics.py).
    #[test]
    fn scores_equal_trackevals() {
        let text = include_str!("../../../tests/golden/mot_metrics.json");
        let golden: serde_json::Value = serde_json::from_str(text).unwrap();
        let clips = golden["clips"].as_array().unwrap();
        assert_eq!(clips.len(), 6);
        for clip in clips {
            let frames = |key: &str| -> Frames<Labelled> {
                let rows: Vec<Vec<[f64; 5]>> = serde_json::from_value(clip[key].clone()).unwrap();
                let labelled =
                    |&[id, x, y, w, h]: &[f64; 5]| Labelled { id: id as u32, tlwh: [x, y, w, h], score: 1.0 };
                let numbered =
                    (1..).zip(&rows).flat_map(|(n, row)| row.iter().map(move |r| (n, labelled(r))));
                numbered.collect()
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
        let truth = walk(|_| 4);
        let perfect = evaluate(&truth, &walk(|_| 9));
        for score in [perfect.mota, perfect.motp, perfect.idf1, perfect.hota, perfect.det_a, perfect.ass_a] {
            assert!((score - 1.0).abs() < 1e-12, "{perfect:?}");
        }
        let empty = evaluate(&truth, &Frames::from_iter([]));
        assert_eq!((empty.mota, empty.idf1, empty.hota, empty.misses), (0.0, 0.0, 0.0, 10));
        let nothing = evaluate(&Frames::from_iter([]), &Frames::from_iter([]));
        assert_eq!((nothing.idf1, nothing.hota), (0.0, 0.0));
    }

    #[test]
    fn a_switch_costs_one_in_mota_and_half_in_identity() {
        let scores = evaluate(&walk(|_| 1), &walk(|t| if t > 5 { 2 } else { 1 }));
        assert_eq!(scores.switches, 1);
        assert!((scores.mota - 0.9).abs() < 1e-12 && (scores.idf1 - 0.5).abs() < 1e-12);
        assert!((scores.ass_a - 0.5).abs() < 1e-12 && (scores.det_a - 1.0).abs() < 1e-12);
    }

    #[test]
    fn true_boxes_marked_zero_do_not_count() {
        let mut truth: Vec<(u32, Labelled)> = walk(|_| 1).items().map(|(n, label)| (n, *label)).collect();
        truth[0].1.score = 0.0;
        let scores = evaluate(&truth.into_iter().collect(), &walk(|_| 1));
        assert_eq!((scores.true_boxes, scores.false_boxes, scores.misses), (9, 1, 0));
    }
}
