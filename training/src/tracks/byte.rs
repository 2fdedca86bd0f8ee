//! ByteTrack: every detection counts, the strong ones first.
//!
//! Comes in: one frame's detections after the other, empty ones too. Goes out: the tracks seen in that frame, with filtered
//! boxes. The order of steps, the lists and their one-frame-late removal are the original's (reference.md §3.3), because identities
//! depend on them. Classes, appearance and files are not its business.

use std::collections::{BTreeMap, HashSet};

use super::assign::{Costs, Matching, Xyxy, iou, match_within};
use super::kalman::{Kalman, measured};
use super::{Detection, Seen, Tracker};

/// Thresholds; the defaults are the original's demo.
#[derive(Clone, Copy, Debug, PartialEq, clap::Args)]
pub struct ByteParams {
    /// Score above which a detection is strong; a new track needs 0.1 more
    #[arg(long, default_value_t = 0.5)]
    pub track_thresh: f64,
    /// Highest cost of the first association, 1 - IoU times score
    #[arg(long, default_value_t = 0.8)]
    pub match_thresh: f64,
    /// Frames that a lost track is kept, at 30 frames a second
    #[arg(long, default_value_t = 30)]
    pub track_buffer: u32,
    /// Frames a second of the video
    #[arg(skip = 30.0)]
    pub frame_rate: f64,
    /// Scores do not weigh in (as for MOT20)
    #[arg(long)]
    pub mot20: bool,
}

impl Default for ByteParams {
    fn default() -> Self {
        Self { track_thresh: 0.5, match_thresh: 0.8, track_buffer: 30, frame_rate: 30.0, mot20: false }
    }
}

/// Score at and below which a detection is not looked at.
const FLOOR: f64 = 0.1;
/// Highest cost with a weak detection.
const WEAK_LIMIT: f64 = 0.5;
/// Highest cost between a track seen once and a detection.
const UNCONFIRMED_LIMIT: f64 = 0.7;
/// Cost below which a tracked and a lost track are the same.
const DUPLICATE: f64 = 0.15;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Tracked,
    Lost,
    Removed,
}

#[derive(Clone, Debug)]
struct Track {
    kalman: Kalman,
    score: f64,
    state: State,
    /// Whether it was matched a second time (or began in the first frame).
    confirmed: bool,
    /// Frame of the first and of the last match.
    frames: [u32; 2],
    detection: usize,
}

impl Track {
    fn take(&mut self, detection: &Detection, index: usize, frame: u32) {
        self.kalman.update(measured(&detection.xyxy));
        (self.score, self.detection, self.frames[1]) = (detection.score, index, frame);
        (self.state, self.confirmed) = (State::Tracked, true);
    }
}

/// Tracks of one clip. Ids count from 1.
#[derive(Clone, Debug)]
pub struct ByteTracker {
    params: ByteParams,
    frame: u32,
    next_id: u32,
    tracks: BTreeMap<u32, Track>,
    tracked: Vec<u32>,
    lost: Vec<u32>,
    /// Ids that were removed but are still listed; one that is found again vanishes at its next loss.
    removed: HashSet<u32>,
}

impl ByteTracker {
    /// Before the first frame.
    pub fn new(params: ByteParams) -> Self {
        let (tracked, lost) = (Vec::new(), Vec::new());
        Self { params, frame: 0, next_id: 1, tracks: BTreeMap::new(), tracked, lost, removed: HashSet::new() }
    }

    /// Cost of every pair, and the best matching within `limit`.
    fn associate(
        &self,
        ids: &[u32],
        detections: &[Detection],
        candidates: &[usize],
        limit: f64,
        weigh_scores: bool,
    ) -> Matching {
        let boxes: Vec<Xyxy> = ids.iter().map(|id| self.tracks[id].kalman.xyxy()).collect();
        let cost = |row: usize, column: usize| {
            let detection = &detections[candidates[column]];
            let cost = 1.0 - iou(&boxes[row], &detection.xyxy);
            if weigh_scores { 1.0 - (1.0 - cost) * detection.score } else { cost }
        };
        match_within(&Costs::new(ids.len(), candidates.len(), cost), limit)
    }

    fn take(
        &mut self,
        ids: &[u32],
        detections: &[Detection],
        candidates: &[usize],
        matching: &Matching,
        activated: &mut Vec<u32>,
        found: &mut Vec<u32>,
    ) {
        for &(row, column) in &matching.pairs {
            let Some(track) = self.tracks.get_mut(&ids[row]) else { continue };
            let list = if track.state == State::Tracked { &mut *activated } else { &mut *found };
            list.push(ids[row]);
            track.take(&detections[candidates[column]], candidates[column], self.frame);
        }
    }

    /// A new track, where the detection is strong enough for one.
    fn begin(&mut self, detections: &[Detection], index: usize) -> Option<u32> {
        let detection = &detections[index];
        if detection.score < self.params.track_thresh + 0.1 {
            return None;
        }
        let track = Track {
            kalman: Kalman::new(measured(&detection.xyxy)),
            score: detection.score,
            state: State::Tracked,
            confirmed: self.frame == 1,
            frames: [self.frame; 2],
            detection: index,
        };
        let id = self.next_id;
        self.next_id += 1;
        self.tracks.insert(id, track);
        Some(id)
    }

    fn mark(&mut self, ids: &[u32], state: State) {
        for id in ids {
            self.tracks.entry(*id).and_modify(|track| track.state = state);
        }
    }

    /// The lists after a frame. Lost tracks leave by the removals of earlier frames: this frame's count from the next one on.
    fn settle(&mut self, activated: &[u32], found: &[u32], newly_lost: &[u32], removed: &[u32]) {
        let tracks = &self.tracks;
        self.tracked.retain(|id| tracks[id].state == State::Tracked);
        join(&mut self.tracked, activated);
        join(&mut self.tracked, found);
        self.lost.retain(|id| !self.tracked.contains(id));
        self.lost.extend_from_slice(newly_lost);
        self.lost.retain(|id| !self.removed.contains(id));
        self.removed.extend(removed);
        self.drop_duplicates();
        let (tracked, lost) = (&self.tracked, &self.lost);
        self.tracks.retain(|id, _| tracked.contains(id) || lost.contains(id));
        let tracks = &self.tracks;
        self.removed.retain(|id| tracks.contains_key(id));
    }

    /// Of a tracked and a lost track at the same place the younger goes; of equals the tracked one.
    fn drop_duplicates(&mut self) {
        let (mut drop_tracked, mut drop_lost) = (HashSet::new(), HashSet::new());
        let age = |track: &Track| track.frames[1] - track.frames[0];
        let lost: Vec<(u32, Xyxy)> =
            self.lost.iter().map(|id| (*id, self.tracks[id].kalman.xyxy())).collect();
        for a in &self.tracked {
            let place = self.tracks[a].kalman.xyxy();
            for (b, _) in lost.iter().filter(|(_, other)| 1.0 - iou(&place, other) < DUPLICATE) {
                if age(&self.tracks[a]) > age(&self.tracks[b]) {
                    drop_lost.insert(*b);
                } else {
                    drop_tracked.insert(*a);
                }
            }
        }
        self.tracked.retain(|id| !drop_tracked.contains(id));
        self.lost.retain(|id| !drop_lost.contains(id));
    }

    fn seen(&self) -> Vec<Seen> {
        let seen = |id: &u32| {
            let track = &self.tracks[id];
            track.confirmed.then(|| Seen {
                id: *id,
                tlwh: track.kalman.tlwh(),
                score: track.score,
                detection: track.detection,
            })
        };
        self.tracked.iter().filter_map(seen).collect()
    }
}

impl Tracker for ByteTracker {
    fn update(&mut self, detections: &[Detection]) -> Vec<Seen> {
        self.frame += 1;
        let strong = indices(detections, |score| score > self.params.track_thresh);
        let weak = indices(detections, |score| FLOOR < score && score < self.params.track_thresh);
        let (confirmed, unconfirmed): (Vec<u32>, Vec<u32>) =
            self.tracked.iter().partition(|id| self.tracks[*id].confirmed);
        let mut pool = confirmed;
        join(&mut pool, &self.lost);
        for id in &pool {
            let Some(track) = self.tracks.get_mut(id) else { continue };
            if track.state != State::Tracked {
                track.kalman.rest_height();
            }
            track.kalman.predict();
        }
        let (mut activated, mut found) = (Vec::new(), Vec::new());

        let first = self.associate(&pool, detections, &strong, self.params.match_thresh, !self.params.mot20);
        self.take(&pool, detections, &strong, &first, &mut activated, &mut found);
        let still: Vec<u32> = first
            .rows
            .iter()
            .map(|&r| pool[r])
            .filter(|id| self.tracks[id].state == State::Tracked)
            .collect();
        let second = self.associate(&still, detections, &weak, WEAK_LIMIT, false);
        self.take(&still, detections, &weak, &second, &mut activated, &mut found);
        let newly_lost: Vec<u32> = second.rows.iter().map(|&r| still[r]).collect();
        self.mark(&newly_lost, State::Lost);

        let left: Vec<usize> = first.columns.iter().map(|&c| strong[c]).collect();
        let third = self.associate(&unconfirmed, detections, &left, UNCONFIRMED_LIMIT, !self.params.mot20);
        self.take(&unconfirmed, detections, &left, &third, &mut activated, &mut found);
        let mut removed: Vec<u32> = third.rows.iter().map(|&r| unconfirmed[r]).collect();
        for &column in &third.columns {
            activated.extend(self.begin(detections, left[column]));
        }
        let patience = (self.params.frame_rate / 30.0 * f64::from(self.params.track_buffer)) as u32;
        removed.extend(self.lost.iter().filter(|id| {
            let track = &self.tracks[*id];
            // A lost track that was found again this frame has just been seen.
            self.frame - track.frames[1] > patience
        }));
        self.mark(&removed, State::Removed);
        self.settle(&activated, &found, &newly_lost, &removed);
        self.seen()
    }
}

fn indices(detections: &[Detection], wanted: impl Fn(f64) -> bool) -> Vec<usize> {
    (0..detections.len()).filter(|&i| wanted(detections[i].score)).collect()
}

/// Appends what is not there yet.
fn join(list: &mut Vec<u32>, more: &[u32]) {
    let known: HashSet<u32> = list.iter().copied().collect();
    list.extend(more.iter().filter(|id| !known.contains(id)));
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
        expected: Vec<Vec<Expected>>,
    }

    #[derive(Deserialize)]
    struct Params {
        track_thresh: f64,
        match_thresh: f64,
        track_buffer: u32,
        mot20: bool,
        frame_rate: f64,
    }

    #[derive(Deserialize)]
    struct Expected {
        id: u32,
        tlwh: [f64; 4],
        score: f64,
    }

    /// Ids, boxes and scores of the original: hand-made cases, and crowds (tests/golden/bytetrack.py).
    #[test]
    fn every_scenario_equals_the_originals_box_for_box() {
        let read = |text: &str| serde_json::from_str::<Golden>(text).unwrap().scenarios;
        let mut scenarios = read(include_str!("../../../tests/golden/bytetrack_golden.json"));
        scenarios.extend(read(include_str!("../../../tests/golden/bytetrack_dense.json")));
        assert_eq!(scenarios.len(), 8);
        for Scenario { name, params, frames, expected } in scenarios {
            let Params { track_thresh, match_thresh, track_buffer, mot20, frame_rate } = params;
            let mut tracker =
                ByteTracker::new(ByteParams { track_thresh, match_thresh, track_buffer, frame_rate, mot20 });
            for (frame, (detections, expected)) in frames.iter().zip(&expected).enumerate() {
                let detections: Vec<Detection> = detections
                    .iter()
                    .map(|&[x1, y1, x2, y2, score]| Detection { xyxy: [x1, y1, x2, y2], score })
                    .collect();
                let seen = tracker.update(&detections);
                assert_eq!(seen.len(), expected.len(), "{name}, frame {frame}");
                for (ours, theirs) in seen.iter().zip(expected) {
                    assert_eq!(ours.id, theirs.id, "{name}, frame {frame}");
                    assert!((ours.score - theirs.score).abs() < 1e-9, "{name}, frame {frame}");
                    let apart = ours.tlwh.iter().zip(&theirs.tlwh).map(|(a, b)| (a - b).abs());
                    assert!(apart.fold(0.0, f64::max) < 1e-6, "{name}, frame {frame}: {ours:?}");
                    assert_eq!(detections[ours.detection].score, ours.score);
                }
            }
        }
    }

    #[test]
    fn memory_does_not_grow_with_what_came_and_went() {
        let mut tracker = ByteTracker::new(ByteParams { track_buffer: 2, ..ByteParams::default() });
        for frame in 0..500u32 {
            let x = f64::from(frame / 5 * 97 % 1000);
            tracker.update(&[Detection { xyxy: [x, 10.0, x + 30.0, 70.0], score: 0.9 }]);
        }
        assert!(tracker.tracks.len() < 5 && tracker.removed.len() < 5);
    }
}
