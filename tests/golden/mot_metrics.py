"""Makes mot_metrics.json: tracks with mistakes, scored by TrackEval and motmetrics.

Out: clips with the true and the found boxes of every frame ([id, x, y, w, h]) and their scores.
Run: python tests/golden/mot_metrics.py   (PyPI: trackeval, motmetrics, numpy)
"""

import json
from pathlib import Path

import motmetrics
import numpy as np
import trackeval

HERE = Path(__file__).resolve().parent


def clip(seed, objects, frames, missed, swaps, extra, dark=0.0):
    """Objects that cross each other; the found ones are shaken, missed, exchanged and invented. Some frames are without true or without found boxes."""
    rng = np.random.default_rng(seed)
    place, pace = rng.uniform(0, 300, (objects, 2)), rng.normal(0, 5, (objects, 2))
    size = rng.uniform(20, 60, (objects, 2))
    names = list(range(1, objects + 1))
    truth, found = [], []
    for frame in range(frames):
        place += pace
        if rng.random() < swaps:
            a, b = rng.choice(objects, 2, replace=False)
            names[a], names[b] = names[b], names[a]
        if rng.random() < swaps / 2:
            names[rng.integers(objects)] = 1000 + frame
        seen = [i for i in range(objects) if rng.random() > 0.1]
        truth.append([[i + 1, *np.round([*place[i], *size[i]], 1).tolist()] for i in seen])
        row = []
        for i in seen:
            if rng.random() > missed:
                shaken = np.concatenate([place[i] + rng.normal(0, 3, 2), size[i] * (1 + rng.normal(0, 0.08, 2))])
                row.append([names[i], *np.round(shaken, 1).tolist()])
        for k in range(rng.poisson(extra)):
            row.append([5000 + 10 * frame + k, *np.round([*rng.uniform(0, 300, 2), 30, 40], 1).tolist()])
        found.append(row)
        if dark and rng.random() < dark:
            (truth if rng.random() < 0.5 else found)[-1] = []
    return truth, found


def overlaps(a, b):
    a, b = np.array(a, float).reshape(-1, 5)[:, 1:], np.array(b, float).reshape(-1, 5)[:, 1:]
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, :2] + a[:, None, 2:], b[None, :, :2] + b[None, :, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=2)
    return both / (a[:, 2:].prod(1)[:, None] + b[:, 2:].prod(1)[None] - both)


def score(truth, found):
    true_ids = sorted({box[0] for row in truth for box in row})
    found_ids = sorted({box[0] for row in found for box in row})
    data = {
        "num_timesteps": len(truth),
        "num_gt_ids": len(true_ids),
        "num_tracker_ids": len(found_ids),
        "num_gt_dets": sum(map(len, truth)),
        "num_tracker_dets": sum(map(len, found)),
        "gt_ids": [np.array([true_ids.index(box[0]) for box in row], int) for row in truth],
        "tracker_ids": [np.array([found_ids.index(box[0]) for box in row], int) for row in found],
        "similarity_scores": [overlaps(a, b) for a, b in zip(truth, found)],
    }
    quiet = {"PRINT_CONFIG": False}
    clear = trackeval.metrics.CLEAR(quiet).eval_sequence(data)
    identity = trackeval.metrics.Identity(quiet).eval_sequence(data)
    hota = trackeval.metrics.HOTA().eval_sequence(data)
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    for row, other, similarity in zip(truth, found, data["similarity_scores"]):
        distance = np.where(similarity >= 0.5, 1 - similarity, np.nan)
        accumulator.update([box[0] for box in row], [box[0] for box in other], distance)
    summary = motmetrics.metrics.create().compute(accumulator, metrics=["mota", "idf1"], name="clip")
    return {
        "mota": float(clear["MOTA"]),
        "motp": float(clear["MOTP"]),
        "misses": int(clear["CLR_FN"]),
        "false_boxes": int(clear["CLR_FP"]),
        "switches": int(clear["IDSW"]),
        "idf1": float(identity["IDF1"]),
        "hota": float(np.mean(hota["HOTA"])),
        "det_a": float(np.mean(hota["DetA"])),
        "ass_a": float(np.mean(hota["AssA"])),
        "motmetrics": {"mota": float(summary["mota"].iloc[0]), "idf1": float(summary["idf1"].iloc[0])},
    }


# objects, frames, share missed, share of frames with exchanged names, false boxes a frame, share of frames that are empty on one side
CLIPS = [
    (6, 40, 0.1, 0.1, 0.3),
    (12, 60, 0.25, 0.3, 1.0),
    (3, 50, 0.0, 0.0, 0.0),
    (8, 30, 0.6, 0.5, 2.0),
    (7, 60, 0.1, 0.3, 0.5, 0.3),
]
# After a frame that is empty on one side, identity 1 is still the one of the frame before, though identity 2 overlaps more.
BLINK = (
    [[[1, 0, 0, 20, 20]], [], [[1, 0, 0, 20, 20]], [[1, 0, 0, 20, 20]], [[1, 0, 0, 20, 20]]],
    [[[1, 0, 0, 20, 20]], [[1, 0, 0, 20, 20]], [[1, 3, 0, 20, 20], [2, 0, 0, 20, 20]], [], [[1, 3, 0, 20, 20], [2, 0, 0, 20, 20]]],
)


def main():
    clips = []
    for truth, found in [*(clip(seed, *settings) for seed, settings in enumerate(CLIPS)), BLINK]:
        clips.append({"truth": truth, "found": found, "scores": score(truth, found)})
        print(clips[-1]["scores"])
    (HERE / "mot_metrics.json").write_text(json.dumps({"clips": clips}, separators=(",", ":")))


if __name__ == "__main__":
    main()
