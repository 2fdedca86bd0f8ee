//! The plain alternatives: SORT (Bewley et al., 2016) and the IoU tracker (Bochinski et al., 2017).
//!
//! Comes in: detections, frame by frame. Goes out: the tracks seen in that frame. SORT predicts with the filter of [`super::kalman`] and matches
//! once; the IoU tracker predicts nothing and extends each track by its best overlap. Both forget a track soon: what they miss is
//! what ByteTrack is for.

use super::assign::{Costs, Xyxy, iou, match_within};
use super::kalman::{Kalman, measured};
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

#[derive(Clone, Debug)]
struct Predicted {
    id: u32,
    kalman: Kalman,
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
}

impl Tracker for Sort {
    fn update(&mut self, detections: &[Detection]) -> Vec<Seen> {
        self.frame += 1;
        for track in &mut self.tracks {
            track.kalman.predict();
            track.streak = if track.unseen > 0 { 0 } else { track.streak };
            track.unseen += 1;
        }
        let strong: Vec<usize> =
            (0..detections.len()).filter(|&i| detections[i].score > self.params.min_score).collect();
        let boxes: Vec<Xyxy> = self.tracks.iter().map(|t| t.kalman.xyxy()).collect();
        let cost = |row: usize, column: usize| 1.0 - iou(&boxes[row], &detections[strong[column]].xyxy);
        let matching = match_within(&Costs::new(boxes.len(), strong.len(), cost), 1.0 - self.params.min_iou);
        for &(row, column) in &matching.pairs {
            let (track, index) = (&mut self.tracks[row], strong[column]);
            track.kalman.update(measured(&detections[index].xyxy));
            (track.unseen, track.streak) = (0, track.streak + 1);
            (track.score, track.detection) = (detections[index].score, index);
        }
        for index in matching.columns.iter().map(|&column| strong[column]) {
            let kalman = Kalman::new(measured(&detections[index].xyxy));
            let score = detections[index].score;
            self.tracks.push(Predicted {
                id: self.next_id,
                kalman,
                streak: 0,
                unseen: 0,
                score,
                detection: index,
            });
            self.next_id += 1;
        }
        let Self { params, frame, tracks, .. } = self;
        tracks.retain(|track| track.unseen <= params.max_age);
        let shown = |track: &&Predicted| {
            track.unseen == 0 && (track.streak >= params.min_hits || *frame <= params.min_hits)
        };
        let seen =
            |t: &Predicted| Seen { id: t.id, tlwh: t.kalman.tlwh(), score: t.score, detection: t.detection };
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
