"""The original ByteTrack as a program: MOTChallenge detections in, results out. One side of run.py.

In:  CHECKOUT DETECTIONS RESULTS. The tracker runs unmodified; reading is NumPy's; the last filter and the lines of the results are
     those of the original's tools/demo_track.py, and the file is written at once as there.
Out: RESULTS, and on standard output one line of JSON: the seconds of `imports`, `read`, `track` and `write`.
"""

import json
import sys
import time
import types
from pathlib import Path

began = time.perf_counter()
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "golden"))

import numpy as np

from bytetrack import DEFAULTS, original

SIZE = [600, 1000]
LEAST_AREA = 10


def read(path):
    """Frames 1, 2, ... as arrays of x1, y1, x2, y2, score."""
    lines = np.loadtxt(path, delimiter=",", ndmin=2)
    lines = lines[np.argsort(lines[:, 0], kind="stable")]
    boxes = lines[:, 2:7].copy()
    boxes[:, 2:4] += boxes[:, 0:2]
    return np.split(boxes, np.searchsorted(lines[:, 0], np.arange(2, lines[-1, 0] + 1)))


def new_tracker(tracker_class, counter, changes=None):
    """With the parameters of the demo but for `changes`; identities count from 1 again."""
    counter._count = 0
    params = {**DEFAULTS, **(changes or {})}
    return tracker_class(types.SimpleNamespace(**params), frame_rate=params["frame_rate"])


def main():
    checkout, detections, results = sys.argv[1:]
    tracker = new_tracker(*original(Path(checkout)))
    marks = [began, time.perf_counter()]
    frames = read(detections)
    marks.append(time.perf_counter())
    lines = []
    for number, boxes in enumerate(frames, 1):
        for t in tracker.update(boxes, SIZE, SIZE):
            x, y, w, h = t.tlwh
            if w * h > LEAST_AREA:
                lines.append(f"{number},{t.track_id},{x:.2f},{y:.2f},{w:.2f},{h:.2f},{t.score:.2f},-1,-1,-1\n")
    marks.append(time.perf_counter())
    with open(results, "w") as file:
        file.writelines(lines)
    marks.append(time.perf_counter())
    spans = (after - before for before, after in zip(marks, marks[1:]))
    print(json.dumps(dict(zip(("imports", "read", "track", "write"), spans))))


if __name__ == "__main__":
    main()
