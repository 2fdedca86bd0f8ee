//! ByteTrack: every detection counts, the strong ones first.
//!
//! Comes in: one frame's detections after the other, empty ones too. Goes out: the tracks seen in that frame, with filtered
//! boxes. The order of steps, the lists and their one-frame-late removal are the original's (reference.md §3.3), because identities
//! depend on them. Classes, appearance and files are not its business.

use super::assign::{Xyxy, iou, match_within};
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
    id: u32,
    kalman: Kalman,
    score: f64,
    state: State,
    /// Whether it was matched a second time (or began in the first frame).
    confirmed: bool,
    /// Whether its time has run out once: if it is found again, it vanishes at its next loss.
    expired: bool,
    /// Frame of the first and of the last match.
    frames: [u32; 2],
    detection: usize,
}

impl Track {
    fn predict(&mut self) {
        if self.state != State::Tracked {
            self.kalman.rest_height();
        }
        self.kalman.predict();
    }

    fn take(&mut self, detection: &Detection, index: usize, frame: u32) {
        self.kalman.update(measured(&detection.xyxy));
        (self.score, self.detection, self.frames[1]) = (detection.score, index, frame);
        (self.state, self.confirmed) = (State::Tracked, true);
    }

    fn age(&self) -> u32 {
        self.frames[1] - self.frames[0]
    }

    fn seen(&self) -> Seen {
        Seen { id: self.id, tlwh: self.kalman.tlwh(), score: self.score, detection: self.detection }
    }
}

/// Tracks of one clip. Ids count from 1.
#[derive(Clone, Debug)]
pub struct ByteTracker {
    params: ByteParams,
    frame: u32,
    next_id: u32,
    tracked: Vec<Track>,
    lost: Vec<Track>,
}

impl ByteTracker {
    /// Before the first frame.
    pub fn new(params: ByteParams) -> Self {
        Self { params, frame: 0, next_id: 1, tracked: Vec::new(), lost: Vec::new() }
    }

    /// A new track, where the detection is strong enough for one.
    fn begin(&mut self, detection: &Detection, index: usize) -> Option<Track> {
        if detection.score < self.params.track_thresh + 0.1 {
            return None;
        }
        let track = Track {
            id: self.next_id,
            kalman: Kalman::new(measured(&detection.xyxy)),
            score: detection.score,
            state: State::Tracked,
            confirmed: self.frame == 1,
            expired: false,
            frames: [self.frame; 2],
            detection: index,
        };
        self.next_id += 1;
        Some(track)
    }

    /// The lists after a frame, from the states of their tracks. A lost track whose time runs out now leaves in the next frame, unless it is found there.
    fn settle(&mut self, begun: Vec<Track>) {
        let patience = (self.params.frame_rate / 30.0 * f64::from(self.params.track_buffer)) as u32;
        let newly_lost: Vec<Track> = self.tracked.extract_if(.., |t| t.state == State::Lost).collect();
        self.tracked.retain(|t| t.state == State::Tracked);
        self.tracked.extend(begun);
        self.tracked.extend(self.lost.extract_if(.., |t| t.state == State::Tracked));
        self.lost.retain(|t| !t.expired);
        for track in &mut self.lost {
            track.expired = self.frame - track.frames[1] > patience;
        }
        self.lost.extend(newly_lost.into_iter().filter(|t| !t.expired));
    }

    /// Of a tracked and a lost track at the same place the younger goes; of equals the tracked one.
    fn drop_duplicates(&mut self) {
        let places: Vec<Xyxy> = self.lost.iter().map(|t| t.kalman.xyxy()).collect();
        for a in &mut self.tracked {
            let place = a.kalman.xyxy();
            for (b, other) in self.lost.iter_mut().zip(&places) {
                if 1.0 - iou(&place, other) < DUPLICATE {
                    let younger = if a.age() > b.age() { &mut *b } else { &mut *a };
                    younger.state = State::Removed;
                }
            }
        }
        self.tracked.retain(|t| t.state != State::Removed);
        self.lost.retain(|t| t.state != State::Removed);
    }
}

impl Tracker for ByteTracker {
    fn update(&mut self, detections: &[Detection]) -> Vec<Seen> {
        self.frame += 1;
        let frame = self.frame;
        let ByteParams { track_thresh, match_thresh, mot20, .. } = self.params;
        let strong = indices(detections, |score| score > track_thresh);
        let weak = indices(detections, |score| FLOOR < score && score < track_thresh);
        let (mut pool, unconfirmed): (Vec<&mut Track>, Vec<&mut Track>) =
            self.tracked.iter_mut().partition(|t| t.confirmed);
        pool.extend(&mut self.lost);
        pool.iter_mut().for_each(|track| track.predict());
        let associate = |tracks, candidates: &[usize], limit, weigh_scores| {
            associate(tracks, detections, candidates, frame, limit, weigh_scores)
        };

        let (mut left, strong) = associate(pool, &strong, match_thresh, !mot20);
        left.retain(|track| track.state == State::Tracked);
        let (out_of_sight, _) = associate(left, &weak, WEAK_LIMIT, false);
        out_of_sight.into_iter().for_each(|track| track.state = State::Lost);
        let (never_confirmed, strong) = associate(unconfirmed, &strong, UNCONFIRMED_LIMIT, !mot20);
        never_confirmed.into_iter().for_each(|track| track.state = State::Removed);

        let begun = strong.into_iter().filter_map(|i| self.begin(&detections[i], i)).collect();
        self.settle(begun);
        self.drop_duplicates();
        self.tracked.iter().filter(|t| t.confirmed).map(Track::seen).collect()
    }
}

/// Gives the candidates among the detections to the tracks, at the least cost within the limit. Returns the tracks and the candidates left over.
fn associate<'a>(
    tracks: Vec<&'a mut Track>,
    detections: &[Detection],
    candidates: &[usize],
    frame: u32,
    limit: f64,
    weigh_scores: bool,
) -> (Vec<&'a mut Track>, Vec<usize>) {
    let places: Vec<Xyxy> = tracks.iter().map(|t| t.kalman.xyxy()).collect();
    let cost = |row: usize, column: usize| {
        let Detection { xyxy, score } = &detections[candidates[column]];
        let cost = 1.0 - iou(&places[row], xyxy);
        if weigh_scores { 1.0 - (1.0 - cost) * score } else { cost }
    };
    let matching = match_within(tracks.len(), candidates.len(), limit, cost);
    let mut left = Vec::new();
    for (track, column) in tracks.into_iter().zip(matching.column_of) {
        match column.map(|column| candidates[column]) {
            Some(index) => track.take(&detections[index], index, frame),
            None => left.push(track),
        }
    }
    (left, matching.free_columns.into_iter().map(|column| candidates[column]).collect())
}

fn indices(detections: &[Detection], wanted: impl Fn(f64) -> bool) -> Vec<usize> {
    (0..detections.len()).filter(|&i| wanted(detections[i].score)).collect()
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
        assert!(tracker.tracked.len() < 5 && tracker.lost.len() < 5);
    }
}
