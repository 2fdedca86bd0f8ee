//! The plain alternatives: SORT (Bewley et al., 2016) and the IoU tracker (Bochinski et al., 2017).
//!
//! Comes in: detections, frame by frame. Goes out: the tracks seen in that frame, by id. SORT predicts with a filter of its own and matches once; its
//! boxes and their tracks are the original's, a threshold on scores is added. Tracks that begin in the same frame are numbered in the order of
//! their detections; the original leaves that to its solver. The IoU tracker predicts nothing and extends each track by its best
//! overlap. Both forget a track soon: what they miss is what ByteTrack is for.

use super::assign::{Xyxy, iou, match_within};
use super::kalman::Axis;
use super::{Detection, Seen, Tracker};

/// Thresholds of SORT; the defaults are the original's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SortParams {
    /// Frames that a track lives without a match.
    pub max_age: u32,
    /// Matches in a row before a track is shown (the first frames of a clip excepted).
    pub min_hits: u32,
    /// Least overlap of a match.
    pub min_iou: f64,
    /// Detections at or below are not looked at.
    pub min_score: f64,
}

impl Default for SortParams {
    fn default() -> Self {
        Self { max_age: 1, min_hits: 3, min_iou: 0.3, min_score: 0.5 }
    }
}

/// Intersection over union without the added pixel.
fn overlap(a: &Xyxy, b: &Xyxy) -> f64 {
    let width = a[2].min(b[2]) - a[0].max(b[0]);
    let height = a[3].min(b[3]) - a[1].max(b[1]);
    if width <= 0.0 || height <= 0.0 {
        return 0.0;
    }
    let area = |c: &Xyxy| (c[2] - c[0]) * (c[3] - c[1]);
    let both = width * height;
    both / (area(a) + area(b) - both)
}

/// SORT's filter: centre x, centre y, area, w/h. The last is believed not to change; noise is the same for large and for small boxes.
#[derive(Clone, Copy, Debug)]
struct AreaFilter {
    axes: [Axis; 4],
}

impl AreaFilter {
    fn measured(xyxy: &Xyxy) -> [f64; 4] {
        let [left, top, right, bottom] = *xyxy;
        let (width, height) = (right - left, bottom - top);
        [left + width / 2.0, top + height / 2.0, width * height, width / height]
    }

    fn new(xyxy: &Xyxy) -> Self {
        let z = Self::measured(xyxy);
        let velocity = [1e4, 1e4, 1e4, 0.0];
        Self { axes: std::array::from_fn(|i| Axis::new(z[i], [10.0, velocity[i]])) }
    }

    fn predict(&mut self) {
        const NOISE: [[f64; 2]; 4] = [[1.0, 0.01], [1.0, 0.01], [1.0, 0.0001], [1.0, 0.0]];
        let area = &mut self.axes[2];
        if area.value + area.velocity <= 0.0 {
            area.velocity = 0.0;
        }
        self.axes.iter_mut().zip(NOISE).for_each(|(axis, noise)| axis.predict(noise));
    }

    fn update(&mut self, xyxy: &Xyxy) {
        const VARIANCES: [f64; 4] = [1.0, 1.0, 10.0, 10.0];
        for ((axis, z), variance) in self.axes.iter_mut().zip(Self::measured(xyxy)).zip(VARIANCES) {
            axis.update(z, variance);
        }
    }

    fn tlwh(&self) -> [f64; 4] {
        let [x, y, area, aspect] = self.axes.map(|axis| axis.value);
        let width = (area * aspect).sqrt();
        let height = area / width;
        [x - width / 2.0, y - height / 2.0, width, height]
    }

    fn xyxy(&self) -> Xyxy {
        let [left, top, width, height] = self.tlwh();
        [left, top, left + width, top + height]
    }
}

#[derive(Clone, Debug)]
struct Predicted {
    id: u32,
    filter: AreaFilter,
    streak: u32,
    unseen: u32,
    score: f64,
    detection: usize,
}

/// SORT.
#[derive(Clone, Debug)]
pub struct Sort {
    params: SortParams,
    frame: u32,
    next_id: u32,
    tracks: Vec<Predicted>,
}

impl Sort {
    /// Before the first frame.
    pub fn new(params: SortParams) -> Self {
        Self { params, frame: 0, next_id: 1, tracks: Vec::new() }
    }

    /// The detection of every track that has one. Where each overlaps enough with one other at most, that settles it; otherwise the largest sum of
    /// overlaps does, and what then overlaps too little is parted again.
    fn associate(&self, boxes: &[Xyxy]) -> Vec<Option<usize>> {
        let min_iou = self.params.min_iou;
        let places: Vec<Xyxy> = self.tracks.iter().map(|t| t.filter.xyxy()).collect();
        let enough = |place: &Xyxy, other: &Xyxy| overlap(place, other) > min_iou;
        let partners = |place| boxes.iter().filter(|other| enough(place, other)).count();
        let suitors = |other| places.iter().filter(|place| enough(place, other)).count();
        let clear = places.iter().all(|place| partners(place) <= 1) && boxes.iter().all(|b| suitors(b) <= 1);
        if clear && places.iter().any(|place| partners(place) == 1) {
            return places.iter().map(|place| boxes.iter().position(|b| enough(place, b))).collect();
        }
        // Any overlap at all counts here.
        let cost = |row: usize, column: usize| 1.0 - overlap(&places[row], &boxes[column]);
        let mut matching = match_within(places.len(), boxes.len(), 1.0 - f64::EPSILON, cost).column_of;
        for (place, column) in places.iter().zip(&mut matching) {
            *column = column.filter(|&column| overlap(place, &boxes[column]) >= min_iou);
        }
        matching
    }
}

impl Tracker for Sort {
    fn update(&mut self, detections: &[Detection]) -> Vec<Seen> {
        self.frame += 1;
        for track in &mut self.tracks {
            track.filter.predict();
            track.streak = if track.unseen > 0 { 0 } else { track.streak };
            track.unseen += 1;
        }
        let strong: Vec<usize> =
            (0..detections.len()).filter(|&i| detections[i].score > self.params.min_score).collect();
        let boxes: Vec<Xyxy> = strong.iter().map(|&i| detections[i].xyxy).collect();
        let mut free = vec![true; boxes.len()];
        let matching = self.associate(&boxes);
        for (track, column) in self.tracks.iter_mut().zip(matching) {
            let Some(column) = column else { continue };
            free[column] = false;
            track.filter.update(&boxes[column]);
            (track.unseen, track.streak) = (0, track.streak + 1);
            (track.score, track.detection) = (detections[strong[column]].score, strong[column]);
        }
        for (column, &detection) in strong.iter().enumerate().filter(|(column, _)| free[*column]) {
            let (filter, score) = (AreaFilter::new(&boxes[column]), detections[detection].score);
            self.tracks.push(Predicted { id: self.next_id, filter, streak: 0, unseen: 0, score, detection });
            self.next_id += 1;
        }
        let Self { params, frame, tracks, .. } = self;
        tracks.retain(|track| track.unseen <= params.max_age);
        let shown = |track: &&Predicted| {
            track.unseen == 0 && (track.streak >= params.min_hits || *frame <= params.min_hits)
        };
        let seen =
            |t: &Predicted| Seen { id: t.id, tlwh: t.filter.tlwh(), score: t.score, detection: t.detection };
        tracks.iter().filter(shown).map(seen).collect()
    }
}

/// The IoU tracker: each track takes the detection that overlaps its last box most, the longest track first.
#[derive(Clone, Debug)]
pub struct IouTracker {
    min_iou: f64,
    min_score: f64,
    next_id: u32,
    /// Id and last box, oldest first.
    tracks: Vec<(u32, Xyxy)>,
}

impl IouTracker {
    /// Before the first frame; matches need `min_iou`, detections `min_score`.
    pub fn new(min_iou: f64, min_score: f64) -> Self {
        Self { min_iou, min_score, next_id: 1, tracks: Vec::new() }
    }
}

impl Tracker for IouTracker {
    fn update(&mut self, detections: &[Detection]) -> Vec<Seen> {
        let mut free: Vec<usize> =
            (0..detections.len()).filter(|&i| detections[i].score >= self.min_score).collect();
        let mut kept = Vec::new();
        for (id, last) in &self.tracks {
            let overlap = |i: &usize| iou(last, &detections[*i].xyxy);
            let best = (0..free.len()).max_by(|a, b| overlap(&free[*a]).total_cmp(&overlap(&free[*b])));
            if let Some(place) = best.filter(|place| overlap(&free[*place]) >= self.min_iou) {
                kept.push((*id, free.remove(place)));
            }
        }
        for index in free {
            kept.push((self.next_id, index));
            self.next_id += 1;
        }
        self.tracks = kept.iter().map(|(id, index)| (*id, detections[*index].xyxy)).collect();
        let seen = |&(id, index): &(u32, usize)| {
            let Detection { xyxy: [left, top, right, bottom], score } = detections[index];
            Seen { id, tlwh: [left, top, right - left, bottom - top], score, detection: index }
        };
        kept.iter().map(seen).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Golden {
        scenarios: Vec<Scenario>,
    }

    #[derive(Deserialize)]
    struct Scenario {
        name: String,
        params: Params,
        frames: Vec<Vec<[f64; 5]>>,
        /// Id and box.
        expected: Vec<Vec<[f64; 5]>>,
    }

    #[derive(Deserialize)]
    struct Params {
        max_age: u32,
        min_hits: u32,
        iou_threshold: f64,
    }

    /// Ids and boxes of the original in crowds (tests/golden/sort.py).
    #[test]
    fn crowds_are_tracked_as_by_the_original() {
        let text = include_str!("../../../tests/golden/sort_golden.json");
        let scenarios = serde_json::from_str::<Golden>(text).unwrap().scenarios;
        assert_eq!(scenarios.len(), 3);
        for Scenario { name, params, frames, expected } in scenarios {
            let Params { max_age, min_hits, iou_threshold: min_iou } = params;
            let mut sort = Sort::new(SortParams { max_age, min_hits, min_iou, min_score: 0.0 });
            for (frame, (detections, expected)) in frames.iter().zip(&expected).enumerate() {
                let detections: Vec<Detection> = detections
                    .iter()
                    .map(|&[x1, y1, x2, y2, score]| Detection { xyxy: [x1, y1, x2, y2], score })
                    .collect();
                let seen = sort.update(&detections);
                assert_eq!(seen.len(), expected.len(), "{name}, frame {frame}");
                for (ours, &[id, x1, y1, x2, y2]) in seen.iter().zip(expected) {
                    assert_eq!(f64::from(ours.id), id, "{name}, frame {frame}");
                    let [x, y, w, h] = ours.tlwh;
                    let apart = [x - x1, y - y1, x + w - x2, y + h - y2].map(f64::abs);
                    assert!(apart.into_iter().fold(0.0, f64::max) < 1e-6, "{name}, frame {frame}: {ours:?}");
                }
            }
        }
    }

    fn at(x: f64) -> Detection {
        Detection { xyxy: [x, 10.0, x + 20.0, 40.0], score: 0.9 }
    }

    #[test]
    fn both_keep_ids_of_objects_that_pass_each_other_at_a_distance() {
        let mut sort = Sort::new(SortParams::default());
        let mut plain = IouTracker::new(0.3, 0.5);
        for frame in 0..20 {
            let x = f64::from(frame) * 3.0;
            let far = Detection { xyxy: [200.0 - x, 100.0, 220.0 - x, 140.0], score: 0.8 };
            let detections = if frame % 2 == 0 { [at(x), far] } else { [far, at(x)] };
            for seen in [sort.update(&detections), plain.update(&detections)] {
                let ids: Vec<u32> = seen.iter().map(|s| s.id).collect();
                assert_eq!(ids, [1, 2], "frame {frame}");
                assert!(seen[0].tlwh[1] < 50.0 && seen[1].tlwh[1] > 50.0);
                assert!(seen.iter().all(|s| (s.tlwh[1] < 50.0) == (detections[s.detection].xyxy[1] < 50.0)));
            }
        }
    }

    #[test]
    fn a_gap_ends_an_iou_track_and_a_short_one_does_not_end_sort() {
        let mut sort = Sort::new(SortParams::default());
        let mut plain = IouTracker::new(0.3, 0.5);
        for frame in 0..6 {
            sort.update(&[at(f64::from(frame))]);
            plain.update(&[at(f64::from(frame))]);
        }
        assert!(sort.update(&[]).is_empty() && plain.update(&[]).is_empty());
        assert_eq!(plain.update(&[at(7.0)])[0].id, 2);
        for frame in 7..11 {
            if let [seen] = sort.update(&[at(f64::from(frame))])[..] {
                assert_eq!(seen.id, 1);
            }
        }
        assert_eq!(sort.update(&[at(11.0)])[0].id, 1);
    }
}
