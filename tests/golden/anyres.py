"""Makes tests/golden/anyres.safetensors and anyres_tiles.json: pictures of any resolution, as transformers and LLaVA-NeXT read them.

In:  tests/golden/odd_tied (made by make_golden.py) and the path of LLaVA-NeXT's llava/mm_utils.py. Out: logits, losses and gradients of prompts with pictures, and
     SHA-256 of the tiles that pictures are cut into.
Run: python tests/golden/anyres.py MM_UTILS   (torch, transformers, safetensors, pillow 13)

Keys of anyres.safetensors, for each case NAME
  NAME.pixels [tiles,3,S,S] bytes; the network reads (x / 255 - 0.5) / 0.5   NAME.sizes [pictures,2] height, width   NAME.ids [L]   NAME.logits [8,V] of the last rows
  NAME.labels [L]   NAME.loss []   NAME.grad.PARAMETER d loss / d parameter
"""

import ast
import hashlib
import json
import math
import sys
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import LlavaOnevisionForConditionalGeneration

HERE = Path(__file__).resolve().parent
GRADIENTS = {
    "image_newline": "model.image_newline",
    "multi_modal_projector.linear_1.weight": "model.multi_modal_projector.linear_1.weight",
    "vision_tower.embeddings.position_embedding.weight": "model.vision_tower.embeddings.position_embedding.weight",
}
# Name, sizes (height, width) of its pictures. Several pictures are not tiled.
CASES = {
    "one": [(20, 20)],
    "wide": [(33, 90)],
    "tall": [(95, 40)],
    "many": [(120, 150)],
    "list": [(40, 30), (30, 40), (32, 32)],
}
TILES = [(3, 8, 4), (33, 90, 32), (95, 40, 32), (120, 150, 32), (200, 37, 28), (31, 31, 32), (7, 301, 16)]


def originals(path):
    """The functions of mm_utils.py that cut a picture, without what else the file imports."""
    names = {"select_best_resolution", "resize_and_pad_image", "divide_to_patches", "expand2square"}
    tree = ast.parse(Path(path).read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    space = {"Image": Image, "math": math}
    exec(compile(tree, path, "exec"), space)
    return space


def picture(height, width):
    data = bytes((x * 7 + y * 13 + c * 50 + x * y // 3) % 256 for y in range(height) for x in range(width) for c in range(3))
    return Image.frombytes("RGB", (width, height), data)


def sha(image):
    return hashlib.sha256(image.tobytes()).hexdigest()


def tiles(space):
    rows = []
    for height, width, side in TILES:
        image = picture(height, width)
        best = space["select_best_resolution"](image.size, [(i * side, j * side) for i in range(1, 7) for j in range(1, 7)])
        cut = space["divide_to_patches"](space["resize_and_pad_image"](image, best), side)
        square = space["expand2square"](image, (127, 127, 127)).resize((side, side))
        seen = [image.resize((side, side)), *cut]
        rows.append(dict(height=height, width=width, side=side, best=[best[1], best[0]], tiles=[sha(t) for t in seen], square=sha(square)))
    return rows


def expected_tiles(space, size, side):
    """How many pictures the tower sees of one of `size`."""
    best = space["select_best_resolution"](size[::-1], [(i * side, j * side) for i in range(1, 7) for j in range(1, 7)])
    return 1 + best[0] // side * (best[1] // side)


def main():
    space = originals(sys.argv[1])
    (HERE / "anyres_tiles.json").write_text(json.dumps(tiles(space), indent=1) + "\n")
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(HERE / "odd_tied", attn_implementation="eager").float().eval()
    config = model.config
    side = config.vision_config.image_size
    config.image_grid_pinpoints = [[side * i, side * j] for i in range(1, 7) for j in range(1, 7)]
    config.vision_aspect_ratio = "anyres_max_9"
    generator = torch.Generator().manual_seed(5)
    words = config.text_config.vocab_size - 20
    out = {}
    for name, sizes in CASES.items():
        counts = [expected_tiles(space, size, side) if len(sizes) == 1 else 1 for size in sizes]
        pixels = torch.randint(0, 256, (sum(counts), 3, side, side), generator=generator, dtype=torch.uint8)
        values = (pixels.float() / 255 - 0.5) / 0.5
        values = values[None] if len(sizes) == 1 else values[:, None]
        inputs = dict(pixel_values=values, image_sizes=torch.tensor(sizes), batch_num_images=torch.tensor([len(sizes)]))
        with torch.no_grad():
            found = model.model.get_image_features(**inputs)
        found = getattr(found, "pooler_output", found)
        rows = [len(one) for one in found] if isinstance(found, (list, tuple)) else [found.shape[0]]
        if len(rows) != len(sizes):
            assert len(rows) == 1 and rows[0] % len(sizes) == 0
            rows = [rows[0] // len(sizes)] * len(sizes)
        text = lambda n: torch.randint(0, words, (n,), generator=generator).tolist()
        ids, labels = text(3), [-100] * 3
        for count in rows:
            ids += [config.image_token_id] * count
            labels += [-100] * count
            part = text(4)
            ids += part
            labels += part
        ids, labels = torch.tensor(ids), torch.tensor(labels)
        model.zero_grad()
        run = model(input_ids=ids[None], labels=labels[None], **inputs)
        run.loss.backward()
        parameters = dict(model.named_parameters())
        out |= {f"{name}.pixels": pixels, f"{name}.sizes": torch.tensor(sizes), f"{name}.ids": ids, f"{name}.labels": labels}
        out |= {f"{name}.logits": run.logits[0][-8:], f"{name}.loss": run.loss}
        out |= {f"{name}.grad.{key}": parameters[spelled].grad.clone() for key, spelled in GRADIENTS.items()}
        print(name, counts, rows, float(run.loss))
    save_file({k: v.detach().contiguous().clone() for k, v in out.items()}, HERE / "anyres.safetensors")


main()
