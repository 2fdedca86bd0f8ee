"""Makes bytetrack_dense.json: crowded sequences, tracked by the original ByteTrack.

In:  a checkout of ByteTrack (github.com/ifzhang/ByteTrack, commit d1bf0191) and numpy, scipy, lap, cython_bbox, opencv.
Out: scenarios with their parameters, the detections of every frame ([x1, y1, x2, y2, score]) and what `BYTETracker.update` gave for it.
Run: python tests/golden/bytetrack.py CHECKOUT   (the original runs unmodified; names that NumPy has dropped since are put back first)
"""

import json
import sys
import types
from pathlib import Path

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.spatial.distance

HERE = Path(__file__).resolve().parent
# objects, frames, jitter in pixels, share missed, share weak, parameters
SCENARIOS = [
    (25, 60, 2.0, 0.10, 0.3, {}),
    (15, 80, 5.0, 0.35, 0.4, {"track_buffer": 5}),
    (20, 60, 3.0, 0.15, 0.3, {"mot20": True, "match_thresh": 0.9, "track_thresh": 0.6}),
    (10, 90, 6.0, 0.30, 0.5, {"frame_rate": 10, "track_thresh": 0.4}),
]
DEFAULTS = {"track_thresh": 0.5, "match_thresh": 0.8, "track_buffer": 30, "mot20": False, "frame_rate": 30}


def original(checkout):
    """The tracker's class and its counter of ids. Its file imports torch for a function that is never called."""
    np.float, np.int = float, int
    for name in ("torch", "torch.nn", "torch.nn.functional"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["torch"].nn = sys.modules["torch.nn"]
    sys.modules["torch.nn"].functional = sys.modules["torch.nn.functional"]
    # Its package pulls in the whole detector; only the tracker's folder is wanted.
    package = types.ModuleType("yolox")
    package.__path__ = [str(checkout / "yolox")]
    sys.modules["yolox"] = package
    from yolox.tracker.basetrack import BaseTrack
    from yolox.tracker.byte_tracker import BYTETracker

    return BYTETracker, BaseTrack


def crowd(seed, objects, frames, jitter, missed, weak):
    """Walkers that turn at the borders and keep their pace in the long run, some unseen, some seen badly, and false boxes."""
    rng = np.random.default_rng(seed)
    place = rng.uniform([50, 50], [900, 500], (objects, 2))
    pace = rng.normal(0, 4, (objects, 2))
    size = rng.uniform([20, 30], [100, 160], (objects, 2))
    sequence = []
    for _ in range(frames):
        place += pace
        pace = 0.98 * pace + rng.normal(0, 0.4, (objects, 2))
        for axis, limit in ((0, 950), (1, 550)):
            inward = np.sign(limit / 2 - place[:, axis])
            out = np.abs(place[:, axis] - limit / 2) > limit / 2
            pace[out, axis] = (inward * np.abs(pace[:, axis]))[out]
        boxes = []
        for i in range(objects):
            if rng.random() < missed:
                continue
            score = rng.uniform(0.11, 0.5) if rng.random() < weak else rng.uniform(0.5, 0.99)
            centre, half = place[i] + rng.normal(0, jitter, 2), size[i] * (1 + rng.normal(0, 0.03, 2)) / 2
            boxes.append([*(centre - half), *(centre + half), score])
        for _ in range(rng.poisson(1)):
            corner, side = rng.uniform([0, 0], [900, 500]), rng.uniform(20, 120, 2)
            boxes.append([*corner, *(corner + side), rng.uniform(0.1, 0.8)])
        rng.shuffle(boxes)
        sequence.append([[round(float(v), 1) for v in box[:4]] + [round(float(box[4]), 2)] for box in boxes])
    return sequence


def main():
    tracker_class, counter = original(Path(sys.argv[1]))
    scenarios = []
    for seed, (objects, frames, jitter, missed, weak, changes) in enumerate(SCENARIOS):
        params = {**DEFAULTS, **changes}
        counter._count = 0
        tracker = tracker_class(types.SimpleNamespace(**params), frame_rate=params["frame_rate"])
        sequence = crowd(seed, objects, frames, jitter, missed, weak)
        expected = []
        for boxes in sequence:
            seen = tracker.update(np.array(boxes, dtype=float).reshape(-1, 5), [600, 1000], [600, 1000])
            row = [
                {"id": int(t.track_id), "tlwh": [round(float(v), 7) for v in t.tlwh], "score": float(t.score)}
                for t in seen
            ]
            expected.append(row)
        scenarios.append({"name": f"crowd{seed}", "params": params, "frames": sequence, "expected": expected})
        print(scenarios[-1]["name"], sum(map(len, expected)), "boxes")
    (HERE / "bytetrack_dense.json").write_text(json.dumps({"scenarios": scenarios}, separators=(",", ":")))


if __name__ == "__main__":
    main()
