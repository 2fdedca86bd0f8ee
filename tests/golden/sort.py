"""Makes sort_golden.json: crowded sequences, tracked by the original SORT.

In:  a checkout of SORT (github.com/abewley/sort, commit 2236dff5) and numpy, scipy, lap, filterpy 1.4.5.
Out: scenarios with their parameters, the detections of every frame ([x1, y1, x2, y2, score]) and what `Sort.update` gave for it
     ([id, x1, y1, x2, y2], by id).
Run: python tests/golden/sort.py CHECKOUT   (the original runs unmodified; what it needs only to draw is not loaded)
"""

import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np

from bytetrack import crowd

HERE = Path(__file__).resolve().parent
# objects, frames, jitter in pixels, share missed, share weak, parameters
SCENARIOS = [
    (20, 60, 2.0, 0.05, 0.2, {}),
    (15, 80, 4.0, 0.25, 0.4, {"max_age": 5}),
    (12, 60, 6.0, 0.15, 0.3, {"max_age": 3, "min_hits": 1, "iou_threshold": 0.5}),
]
DEFAULTS = {"max_age": 1, "min_hits": 3, "iou_threshold": 0.3}


def original(checkout):
    """The module. It loads matplotlib and scikit-image to draw."""
    for name in ("matplotlib", "matplotlib.pyplot", "matplotlib.patches", "skimage"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["matplotlib"].use = lambda backend: None
    sys.modules["matplotlib"].pyplot = sys.modules["matplotlib.pyplot"]
    sys.modules["matplotlib"].patches = sys.modules["matplotlib.patches"]
    sys.modules["skimage"].io = None
    specification = importlib.util.spec_from_file_location("original_sort", checkout / "sort.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def main():
    module = original(Path(sys.argv[1]))
    scenarios = []
    for seed, (objects, frames, jitter, missed, weak, changes) in enumerate(SCENARIOS):
        params = {**DEFAULTS, **changes}
        module.KalmanBoxTracker.count = 0
        tracker = module.Sort(**params)
        sequence = crowd(100 + seed, objects, frames, jitter, missed, weak)
        expected = []
        for boxes in sequence:
            seen = tracker.update(np.array(boxes, dtype=float).reshape(-1, 5)).tolist()
            expected.append(sorted([int(t[4]), *(round(v, 7) for v in t[:4])] for t in seen))
        scenarios.append({"name": f"crowd{seed}", "params": params, "frames": sequence, "expected": expected})
        print(scenarios[-1]["name"], sum(map(len, expected)), "boxes,", module.KalmanBoxTracker.count, "ids")
    (HERE / "sort_golden.json").write_text(json.dumps({"scenarios": scenarios}, separators=(",", ":")))


if __name__ == "__main__":
    main()
