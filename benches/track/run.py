"""ByteTrack side by side: the original and ours on the same crowds, in turn, on the same machine. Fails on any difference.

In:  a checkout of ByteTrack (github.com/ifzhang/ByteTrack, commit d1bf0191) and numpy, scipy, lap, cython_bbox, opencv.
Out: a table and one line of JSON last. Exit 1 when one identity, score or box differs (boxes: by more than 1e-6 pixels).
Run: cargo build --release --workspace --bin utr-train --bin bench-track
     python benches/track/run.py CHECKOUT [--seed N] [--rounds 7] [--objects 40 80] [--frames 1000]

  tracker  the loop over `update()` alone, detections in memory: the original's in this process, ours in bench-track
  program  detections as MOTChallenge text to results as text, whole processes: original.py against `utr-train track`. The original's
           time is told twice: with and without Python's start and imports. Ours always includes the start of the program.
  floor    what no tracker could save: ours reading the same text; the start of `utr-train` with nothing to do

The crowds are drawn anew from a random seed (printed, --seed repeats it), so no side has seen them. All times are medians over rounds in which
both sides take turns, ratios are medians of the rounds' ratios. Shorter crowds with other thresholds, rates and patience are compared, not timed.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from original import SIZE, new_tracker, read

from bytetrack import SCENARIOS, crowd, original

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
PIXELS = 1e-6
# In hundredths two equal numbers may be rounded apart.
HUNDREDTH = 0.0101
# Of the crowd: jitter in pixels, share missed, share weak.
CROWD = (2.0, 0.1, 0.3)


def write_detections(path, sequence):
    with open(path, "w") as file:
        for frame, boxes in enumerate(sequence, 1):
            for x1, y1, x2, y2, score in boxes:
                file.write(f"{frame},-1,{x1:.1f},{y1:.1f},{x2 - x1:.1f},{y2 - y1:.1f},{score:.2f},-1,-1,-1\n")


def rows(tracks):
    return [[t.track_id, *t.tlwh.tolist(), float(t.score)] for t in tracks]


def compare(theirs, ours, pixels, what):
    """Largest distance of two lists of frames; ends the run at a difference."""
    worst, boxes = 0.0, 0
    if len(theirs) != len(ours):
        sys.exit(f"{what}: {len(theirs)} frames against {len(ours)}")
    for frame, (a, b) in enumerate(zip(theirs, ours), 1):
        if [r[0] for r in a] != [r[0] for r in b]:
            sys.exit(f"{what}, frame {frame}: identities {[r[0] for r in a]}, ours {[r[0] for r in b]}")
        for r, s in zip(a, b):
            apart = max(abs(v - w) for v, w in zip(r[1:5], s[1:5]))
            if apart > pixels or r[5] != s[5]:
                sys.exit(f"{what}, frame {frame}, identity {r[0]}: {r[1:]}, ours {s[1:]}")
            worst, boxes = max(worst, apart), boxes + 1
    return worst, boxes


def read_results(path, frames):
    """Results by frame, as rows() makes them."""
    by_frame = [[] for _ in range(frames)]
    for line in path.read_text().splitlines():
        frame, identity, *numbers = line.split(",")
        by_frame[int(frame) - 1].append([int(identity), *map(float, numbers[:5])])
    return by_frame


def timed(function):
    began = time.perf_counter()
    result = function()
    return time.perf_counter() - began, result


def call(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\nexit {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def tracker_against_tracker(classes, detections, work, rounds):
    frames = read(detections)
    results = work / "all-digits.jsonl"
    tracker = new_tracker(*classes)
    theirs = [rows(tracker.update(boxes, SIZE, SIZE)) for boxes in frames]

    def loop():
        tracker = new_tracker(*classes)
        for boxes in frames:
            tracker.update(boxes, SIZE, SIZE)

    child = subprocess.Popen(
        [BIN / "bench-track", detections, results], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def ask(word):
        child.stdin.write(word + "\n")
        child.stdin.flush()
        return float(child.stdout.readline())

    ask("track")
    worst, boxes = compare(theirs, [json.loads(line) for line in results.open()], PIXELS, "update()")
    times = [(timed(loop)[0], ask("track"), ask("read")) for _ in range(rounds)]
    child.stdin.close()
    child.wait()
    return {
        "boxes": boxes,
        "identities": max(r[0] for frame in theirs for r in frame),
        "worst_pixels": worst,
        "original_fps": len(frames) / statistics.median(t[0] for t in times),
        "ours_fps": len(frames) / statistics.median(t[1] for t in times),
        "ratio": statistics.median(t[0] / t[1] for t in times),
        "read_text_s": statistics.median(t[2] for t in times),
    }


def program_against_program(checkout, detections, work, rounds, frames):
    script = Path(__file__).resolve().parent / "original.py"
    theirs, ours = work / "theirs.txt", work / "ours.txt"

    def original_program():
        seconds, said = timed(lambda: call(sys.executable, script, checkout, detections, theirs))
        parts = json.loads(said)
        return seconds, sum(parts[name] for name in ("read", "track", "write"))

    def our_program():
        return timed(lambda: call(BIN / "utr-train", "track", "--detections", detections, "--output", ours))[0]

    def start():
        return timed(lambda: call(BIN / "utr-train", "--version"))[0]

    original_program(), our_program()
    compare(read_results(theirs, frames), read_results(ours, frames), HUNDREDTH, "results as text")
    times = [(*original_program(), our_program(), start()) for _ in range(rounds)]
    return {
        "same_bytes": theirs.read_bytes() == ours.read_bytes(),
        "original_s": statistics.median(t[0] for t in times),
        "original_without_start_s": statistics.median(t[1] for t in times),
        "ours_s": statistics.median(t[2] for t in times),
        "start_s": statistics.median(t[3] for t in times),
        "ratio": statistics.median(t[0] / t[2] for t in times),
        "ratio_without_start": statistics.median(t[1] / t[2] for t in times),
    }


def compare_other_parameters(classes, seed, work):
    """`utr-train track` with the parameters of the goldens on fresh crowds; returns the number of boxes that are equal."""
    detections, ours, total = work / "det.txt", work / "ours.txt", 0
    for number, (*shape, changes) in enumerate(SCENARIOS):
        write_detections(detections, crowd(seed + number, *shape))
        frames = read(detections)
        tracker = new_tracker(*classes, changes)
        theirs = [rows(tracker.update(boxes, SIZE, SIZE)) for boxes in frames]
        flags = [f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}") for name, value in changes.items()]
        call(BIN / "utr-train", "track", "--detections", detections, "--output", ours, "--min-box-area", 0, *flags)
        for row in (row for frame in theirs for row in frame):
            row[5] = float(f"{row[5]:.2f}")
        total += compare(theirs, read_results(ours, len(frames)), HUNDREDTH, f"{changes}")[1]
    return total


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("checkout", type=Path)
    arguments.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1000, 10**9))
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--objects", type=int, nargs="+", default=[40, 80])
    arguments.add_argument("--frames", type=int, default=1000)
    options = arguments.parse_args()
    classes = original(options.checkout)
    with tempfile.TemporaryDirectory() as folder:
        others = compare_other_parameters(classes, options.seed, Path(folder))
    print(f"seed {options.seed}: {len(SCENARIOS)} sets of parameters, {others} boxes equal")
    report = {"seed": options.seed, "frames": options.frames, "boxes_other_parameters": others}
    for objects in options.objects:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            detections = work / "det.txt"
            write_detections(detections, crowd(options.seed + objects, objects, options.frames, *CROWD))
            a = tracker_against_tracker(classes, detections, work, options.rounds)
            b = program_against_program(options.checkout, detections, work, options.rounds, options.frames)
        report[f"objects_{objects}"] = {"tracker": a, "program": b}
        print(f"{objects} objects, {options.frames} frames, seed {options.seed}: {a['boxes']} boxes of {a['identities']} identities equal,")
        print(f"  boxes at most {a['worst_pixels']:.1e} pixels apart; results as text {'the same bytes' if b['same_bytes'] else 'equal but for roundings'}")
        print(f"  tracker  original {a['original_fps']:8.0f} frames/s   ours {a['ours_fps']:8.0f} frames/s   {a['ratio']:6.1f}x")
        whole, bare, ours = (b[name] * 1e3 for name in ("original_s", "original_without_start_s", "ours_s"))
        print(f"  program  original {whole:8.0f} ms         ours {ours:8.1f} ms         {b['ratio']:6.1f}x")
        print(f"           without Python's start and imports {bare:.0f} ms      {b['ratio_without_start']:6.1f}x")
        print(f"  floor    our start {b['start_s'] * 1e3:.1f} ms, reading the text {a['read_text_s'] * 1e3:.1f} ms")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
