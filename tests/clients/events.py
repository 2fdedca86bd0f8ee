"""Reads the event file of a training run with TensorBoard's own reader and compares it with the run's log.

    pip install tensorboard && python tests/clients/events.py RUN

Exit 0 where every update of `RUN/log.jsonl` is there with its loss, learning rate and speed, and nothing else is.
"""

import json
import math
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

run = Path(sys.argv[1])
events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
events.Reload()
log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
columns = {
    "train/loss": "loss",
    "train/learning_rate": "lr",
    "train/gradient_norm": "grad_norm",
    "speed/tokens_per_s": "tokens_per_s",
    "speed/clips_per_s": "samples_per_s",
    "speed/flops_utilization": "utilization",
}
for tag, column in columns.items():
    found = [(event.step, event.value) for event in events.Scalars(tag)]
    assert [step for step, _ in found] == [record["step"] for record in log], f"{tag}: {len(found)} of {len(log)} updates"
    for (step, value), record in zip(found, log):
        assert math.isclose(value, record[column], rel_tol=1e-6), f"{tag}, update {step}: {value} and {record[column]}"
validated = {f"validation/{skill}" for record in log for skill in record.get("validation", {})}
assert set(events.Tags()["scalars"]) == set(columns) | validated, events.Tags()["scalars"]
print(f"{len(log)} updates, {len(columns) + len(validated)} scalars: as in the log")
