"""Makes tests/golden/grouping.json: the order in which LLaVA-NeXT's trainer takes samples, grouped by modality and length.

In:  the path of LLaVA-NeXT's llava/train/llava_trainer.py. Out: lengths (negative: text alone), the permutations that stood in for torch's, the order.
Run: python tests/golden/grouping.py LLAVA_TRAINER   (nothing but Python)
"""

import ast
import json
import random
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = {"split_to_even_chunks", "get_modality_length_grouped_indices", "get_length_grouped_indices"}


class Permutation(list):
    """What the original asks of a tensor of indices."""

    def __getitem__(self, key):
        found = list.__getitem__(self, key)
        return Permutation(found) if isinstance(key, slice) else found

    def tolist(self):
        return list(self)


class Torch:
    """Stands in for the module torch: draws from `random` and keeps what it drew."""

    def __init__(self, seed):
        self.random, self.drawn = random.Random(seed), []

    def randperm(self, n, generator=None):
        order = list(range(n))
        self.random.shuffle(order)
        self.drawn.append(order)
        return Permutation(order)


def main():
    tree = ast.parse(Path(sys.argv[1]).read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in NAMES]
    code = compile(tree, sys.argv[1], "exec")
    draw = random.Random(1)
    cases = []
    # Samples with media, text alone, samples of a micro-batch, micro-batches of an update.
    for media, text, batch, world in [(40, 17, 2, 4), (64, 0, 4, 4), (0, 9, 2, 3), (37, 0, 1, 8), (5, 3, 2, 4), (48, 32, 1, 8), (1, 1, 1, 1), (23, 30, 3, 2)]:
        lengths = [draw.randint(1, 90) for _ in range(media)] + [-draw.randint(1, 90) for _ in range(text)]
        draw.shuffle(lengths)
        torch = Torch(len(cases))
        space = {"torch": torch}
        exec(code, space)
        order = space["get_modality_length_grouped_indices"](lengths, batch, world)
        assert sorted(order) == list(range(len(lengths)))
        cases.append(dict(lengths=lengths, batch=batch, world=world, permutations=torch.drawn, order=order))
    (HERE / "grouping.json").write_text(json.dumps(cases) + "\n")


main()
