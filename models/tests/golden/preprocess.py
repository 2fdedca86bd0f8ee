"""Writes tests/golden/preprocess/: pictures and what Pillow's resize makes of them (bicubic, then bilinear).

cases.json lists the sizes; cases.bin holds, for each case in order, the source bytes and then the resized bytes.
Run: python tests/golden/preprocess.py   (needs pillow 13 or later and numpy)
"""
import json
import pathlib

import numpy as np
from PIL import Image

CASES = [  # source width, height, target width, height
    (40, 30, 64, 64),
    (97, 61, 64, 64),
    (128, 96, 48, 48),
    (33, 77, 75, 75),
    (64, 64, 64, 64),
    (64, 50, 64, 64),
    (50, 64, 64, 64),
    (1, 1, 14, 14),
    (1, 40, 28, 28),
    (40, 1, 28, 28),
    (300, 2, 31, 33),
    (2, 300, 33, 31),
    (160, 120, 1, 1),
    (9, 7, 70, 84),
    (17, 13, 18, 14),
    (19, 15, 18, 14),
    (60, 82, 38, 38),  # Pillow 13 starts with the vertical pass above twice as many rows as columns to lose
    (60, 83, 38, 38),
    (54, 96, 19, 19),
    (90, 67, 52, 8),
]
BILINEAR = [(40, 30, 64, 64), (97, 61, 64, 40), (33, 77, 75, 75), (1, 40, 28, 28), (60, 83, 38, 38), (90, 67, 52, 8)]


def picture(width, height, rng, kind):
    if kind == 0:  # noise with hard edges: the filter overshoots and must clip
        return rng.choice(np.array([0, 255, 17, 240], np.uint8), (height, width, 3))
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([x * 7 + y * 3, 255 - x * 2 + y * 5, (x * y) // 2], -1) + rng.integers(0, 9, (height, width, 3))
    return (smooth % 256).astype(np.uint8)


def main():
    out = pathlib.Path(__file__).parent / "preprocess"
    out.mkdir(exist_ok=True)
    rng = np.random.default_rng(20250213)
    listing, blob = [], bytearray()
    cases = [(case, "BICUBIC") for case in CASES] + [(case, "BILINEAR") for case in BILINEAR]
    for i, ((w, h, ow, oh), name) in enumerate(cases):
        source = picture(w, h, rng, i % 2)
        resized = np.asarray(Image.fromarray(source).resize((ow, oh), Image.Resampling[name]))
        listing.append({"width": w, "height": h, "out_width": ow, "out_height": oh, "filter": name.lower()})
        blob += source.tobytes() + resized.tobytes()
    (out / "cases.json").write_text(json.dumps(listing, indent=1) + "\n")
    (out / "cases.bin").write_bytes(bytes(blob))
    print(len(blob), "bytes")


if __name__ == "__main__":
    main()
