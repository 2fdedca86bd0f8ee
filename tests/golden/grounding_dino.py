"""Makes tests/golden/grounding_dino/: tiny random Grounding DINO graphs and what the references say of a few frames.

Out, under tests/golden/grounding_dino/:
  tokenizer.json             a small BERT WordPiece with BERT's ids of [CLS] [SEP] . ?
  dynamic/model.onnx         batch, height, width and text length free; its preprocessor_config.json asks for sides of 96 and 160
  fixed/model.onnx           one frame of 160x160 and 16 tokens, nothing else
  original/model.onnx        the inputs and outputs that exports of the original code have, all free
  frames/NAME.png            frames of several sizes; walk1 to walk5 are a clip
  golden.json                per processor and frame: pixels (sampled), ids, raw logits and boxes, and what is found at several thresholds
                             with the phrases of both references
The three graphs hold one network. Its logits and boxes are transformers' in PyTorch; the pixels are those of its slow processor (Pillow);
sizes, pixels and phrases of the original come from its own functions, run from a checkout. The graphs are compared with PyTorch in
onnxruntime before golden.json is written. Weights are redrawn until no value lies so close to a threshold or a rank that rounding decides.

Run: python tests/golden/grounding_dino.py --original GroundingDINO     Python 3.11, a CPU is enough
  --original: a checkout of IDEA-Research/GroundingDINO (made with commit 856dde20aee6)
  PyPI: torch==2.6.0 torchvision==0.21.0 transformers==4.51.3 onnx==1.17.0 onnxruntime==1.31.1 pillow==13.0.0 numpy==2.2.6
        tokenizers==0.21.4, and what the original imports: timm opencv-python-headless supervision addict yapf pycocotools
"""

import argparse
import contextlib
import hashlib
import io
import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from PIL import Image
from transformers import (
    BertConfig,
    BertTokenizerFast,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    SwinConfig,
)
from transformers.models.grounding_dino import modeling_grounding_dino as reference
from transformers.models.swin import modeling_swin as swin

HERE = Path(__file__).resolve().parent / "grounding_dino"
CLASSES = ["a cat", "Remote Controller", "person", "red cup"]
WORDS = ["a", "cat", "remote", "control", "##ler", "person", "red", "cup", "dog", "ball", "the", "blue", "box"]
# The first pair is the default; the others lie where this network decides: some boxes pass, some words.
THRESHOLDS = [(0.25, 0.25), (0.6, 0.7), (0.9, 0.8), (0.95, 0.25)]
QUERIES = 12
FIXED_SIDE, FIXED_TOKENS = 160, 16
SIZES = {
    "dynamic": {"shortest_edge": 96, "longest_edge": 160},
    "fixed": {"height": FIXED_SIDE, "width": FIXED_SIDE},
    "defaults": {"shortest_edge": 800, "longest_edge": 1333},
}
# (width, height); `walk` is a clip of five frames. `long` is where the two roundings part, and only there the sizes are 800 and 1333.
FRAMES = {"walk": (120, 96), "odd": (131, 97), "portrait": (90, 150), "long": (500, 125)}
CLIP = 5
INPUTS = ["pixel_values", "input_ids", "token_type_ids", "attention_mask", "pixel_mask"]
OUTPUTS = ["logits", "pred_boxes"]
ORIGINAL_INPUTS = ["img", "input_ids", "attention_mask", "position_ids", "token_type_ids", "text_token_mask"]
# Least distance of a probability from a threshold, and between neighbouring scores; the graphs differ from PyTorch by less.
MARGIN = 5e-5
GRAPH_TOLERANCE = 2e-5


def tokenizer():
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    vocab = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029, ",": 1010}
    vocab |= {word: 1037 + i for i, word in enumerate(WORDS)}
    made = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 101), ("[SEP]", 102)]
    )
    made.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return made


def picture(name, width, height, step, rng):
    """A shaded ground with a few boxes that move with `step`."""
    y, x = np.mgrid[:height, :width]
    tilt = rng.uniform(-0.8, 0.8, (3, 2))
    ground = np.stack([120 + t[0] * (x - width / 2) + t[1] * (y - height / 2) for t in tilt], -1)
    for _ in range(5):
        w, h = rng.integers(12, max(14, width // 3)), rng.integers(12, max(14, height // 2))
        dx, dy = rng.integers(-4, 5, 2)
        left, top = rng.integers(0, width - w), rng.integers(0, height - h)
        left, top = np.clip(left + step * dx, 0, width - w), np.clip(top + step * dy, 0, height - h)
        ground[top : top + h, left : left + w] = rng.integers(0, 256, 3)
    return Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))


def frames():
    made = {}
    for i, (name, (width, height)) in enumerate(FRAMES.items()):
        for step in range(CLIP if name == "walk" else 1):
            key = f"{name}{step + 1}" if name == "walk" else name
            made[key] = picture(name, width, height, step, np.random.default_rng(100 + i))
    return made


def model(seed):
    backbone = SwinConfig(
        image_size=FIXED_SIDE, embed_dim=4, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2, mlp_ratio=1.0,
        out_features=["stage2", "stage3", "stage4"], initializer_range=0.3,
    )  # fmt: skip
    text = BertConfig(
        vocab_size=1037 + len(WORDS), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=32, initializer_range=0.3,
    )  # fmt: skip
    config = GroundingDinoConfig(
        backbone_config=backbone, text_config=text, num_queries=QUERIES, d_model=32, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, encoder_n_points=2,
        decoder_n_points=2, num_feature_levels=3, max_text_len=256, init_std=0.3, disable_custom_kernels=True,
    )  # fmt: skip
    torch.manual_seed(seed)
    made = GroundingDinoForObjectDetection(config).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.dim() > 1 and "embed" not in name:
                parameter.normal_(0, 0.6 / parameter.shape[-1] ** 0.5)
            elif parameter.dim() > 1 or name.endswith("bias"):
                parameter.normal_(0, 0.3)
            if "bbox_embed" in name:
                parameter.mul_(0.5)
        # The first channel is a constant on both sides, so that logits spread around a negative mean and thresholds have something to do.
        fusion = made.model.encoder.layers[-1]
        for norm, constant in [(fusion.text_enhancer_layer.layer_norm_after, 1.0), (made.model.decoder.layer_norm, -0.6)]:
            norm.weight.fill_(0.75)
            norm.bias.normal_(0, 0.1)
            norm.weight[0], norm.bias[0] = 0.0, constant
    return made


def traceable_masks(input_ids):
    """`generate_masks_with_special_tokens_and_transfer_map` without loops, for captions whose last block is closed."""
    special = torch.zeros_like(input_ids, dtype=torch.bool)
    for token in reference.SPECIAL_TOKENS:
        special = special | (input_ids == token)
    count = special.long()
    block = torch.cumsum(count, 1) - count
    closed = block < count.sum(1, keepdim=True)
    same = (block[:, :, None] == block[:, None, :]) & closed[:, :, None]
    place = torch.arange(input_ids.shape[1])
    before = (place[None, :] < place[:, None])[None]
    positions = (same & before).long().sum(-1)
    own = (place[None, :] == place[:, None])[None]
    return same | own, positions


def traceable_pad(self, pixel_values, height, width):
    size_h, size_w = self.patch_size
    return torch.nn.functional.pad(pixel_values, (0, (-width) % size_w, 0, (-height) % size_h))


def traceable_merge_pad(self, feature, height, width):
    return torch.nn.functional.pad(feature, (0, 0, 0, width % 2, 0, height % 2))


def traceable_window_pad(self, states, height, width):
    size = self.window_size
    padded = torch.nn.functional.pad(states, (0, 0, 0, (-width) % size, 0, (-height) % size))
    # The caller cuts back to height and width where one of these is positive; that does no harm where nothing was added.
    return padded, (0, 0, 0, 1, 0, 1)


def traceable_as_tensor(kept):
    def as_tensor(data, **options):
        if isinstance(data, list) and data and isinstance(data[0], tuple):
            return torch.stack([torch.stack([torch.scalar_tensor(0, dtype=torch.long) + side for side in pair]) for pair in data])
        return kept(data, **options)

    return as_tensor


@contextlib.contextmanager
def traceable():
    """Replaces what tracing would freeze: loops over tokens, and branches on sizes."""
    places = [
        (reference, "generate_masks_with_special_tokens_and_transfer_map", traceable_masks),
        (swin.SwinPatchEmbeddings, "maybe_pad", traceable_pad),
        (swin.SwinPatchMerging, "maybe_pad", traceable_merge_pad),
        (swin.SwinLayer, "maybe_pad", traceable_window_pad),
        (torch, "as_tensor", traceable_as_tensor(torch.as_tensor)),
    ]
    kept = [getattr(owner, name) for owner, name, _ in places]
    for owner, name, new in places:
        setattr(owner, name, new)
    try:
        yield
    finally:
        for (owner, name, _), old in zip(places, kept):
            setattr(owner, name, old)


class Flat(torch.nn.Module):
    """The network with tensors in and tensors out, as an export wants it."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, pixel_values, input_ids, token_type_ids, attention_mask, pixel_mask):
        done = self.inner(
            pixel_values=pixel_values, input_ids=input_ids, token_type_ids=token_type_ids,
            attention_mask=attention_mask, pixel_mask=pixel_mask, return_dict=True,
        )  # fmt: skip
        return done.logits, done.pred_boxes


class OriginalContract(Flat):
    """The same network behind the inputs of the original's exports: blocks and positions come from the caller, no mask of pixels."""

    def forward(self, img, input_ids, attention_mask, position_ids, token_type_ids, text_token_mask):
        reference.generate_masks_with_special_tokens_and_transfer_map = lambda _ids: (text_token_mask, position_ids)
        everywhere = torch.ones_like(img[:, 0], dtype=torch.long)
        return super().forward(img, input_ids, token_type_ids, attention_mask, everywhere)


def one_of_each(graph):
    """Every constant once: the exporter writes one for each use."""
    names, kept, renamed = {}, [], {}
    for node in graph.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        if node.op_type == "Constant":
            value = node.attribute[0].SerializeToString()
            renamed[node.output[0]] = names.setdefault(value, node.output[0])
            if names[value] != node.output[0]:
                continue
        kept.append(node)
    del graph.graph.node[:]
    graph.graph.node.extend(kept)
    return graph


def short_names(graph, kept):
    """Short names and no remarks: half the size."""
    names = {}

    def name(old):
        return old if old in kept or not old else names.setdefault(old, f"{len(names):x}")

    def walk(part):
        for tensor in part.initializer:
            tensor.name, tensor.doc_string = name(tensor.name), ""
        for node in part.node:
            node.name, node.doc_string = "", ""
            node.input[:] = [name(old) for old in node.input]
            node.output[:] = [name(old) for old in node.output]
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    walk(attribute.g)
        for value in [*part.output, *part.input]:
            value.name = name(value.name)
        del part.value_info[:]

    walk(graph.graph)
    return graph


def export(made, kind, path):
    """Writes the graph of one kind: `dynamic`, `fixed` or `original`."""
    fixed = kind == "fixed"
    batch, height, width, tokens = (1, FIXED_SIDE, FIXED_SIDE, FIXED_TOKENS) if fixed else (2, 97, 131, 11)
    ids = torch.zeros(batch, tokens, dtype=torch.long)
    ids[:, :8] = torch.tensor([101, 1037, 1038, 1012, 1043, 1044, 1012, 102])
    mask, types = (ids > 0).long(), torch.zeros_like(ids)
    pixels, pixel_mask = torch.randn(batch, 3, height, width), torch.ones(batch, height, width, dtype=torch.long)
    if kind == "original":
        blocks, positions = traceable_masks(ids)
        network, names = OriginalContract(made), ORIGINAL_INPUTS
        inputs, outputs = (pixels, ids, mask.bool(), positions, types, blocks), ["logits", "boxes"]
    else:
        network, names = Flat(made), INPUTS
        inputs, outputs = (pixels, ids, types, mask, pixel_mask), OUTPUTS
    axes = {name: {0: "batch", 1: "tokens"} for name in names} | {name: {0: "batch"} for name in outputs}
    axes[names[0]] = {0: "batch", 2: "height", 3: "width"}
    if kind == "original":
        axes["text_token_mask"] = {0: "batch", 1: "tokens", 2: "tokens"}
    else:
        axes["pixel_mask"] = {0: "batch", 1: "height", 2: "width"}
    with traceable(), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        torch.onnx.export(
            network.eval(), inputs, str(file), input_names=names, output_names=outputs, opset_version=17, dynamo=False,
            dynamic_axes=None if fixed else axes,
        )  # fmt: skip
        graph = onnx.load(file)
    graph = short_names(one_of_each(graph), {*names, *outputs})
    onnx.checker.check_model(graph)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(graph, path)
    return path.stat().st_size


def original_functions(folder):
    sys.path.insert(0, str(folder))
    with contextlib.redirect_stdout(io.StringIO()):
        from groundingdino.datasets import transforms
        from groundingdino.util.inference import predict
    return transforms, predict


def original_pixels(transforms, image, size):
    steps = [transforms.RandomResize([size["shortest_edge"]], max_size=size["longest_edge"]), transforms.ToTensor()]
    steps.append(transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    return transforms.Compose(steps)(image, None)[0][None]


def processor(words, size):
    return GroundingDinoProcessor(GroundingDinoImageProcessor(size=size), words)


def sample(pixels):
    """The picture's bytes as a hash (each value is a byte, normalised), and some values."""
    mean, std = (np.array(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    values = pixels[0].double().numpy()
    levels = (values * std + mean) * 255
    assert np.abs(levels - levels.round()).max() < 1e-3
    at = np.random.default_rng(0).choice(values.size, 60, replace=False)
    return {
        "sha256": hashlib.sha256(levels.round().astype(np.uint8).tobytes()).hexdigest(),
        "values": [[int(i), float(values.reshape(-1)[i])] for i in at],
    }


def by_class(probabilities, ids):
    """The class whose words or full stop hold the likeliest token, straight from the ids."""
    at = int(probabilities.argmax())
    block = sum(1 for id in ids[:at] if id in (101, 1012)) - 1
    return CLASSES[block].strip().lower() if ids[at] not in (101, 102) else ""


def limits(done, inputs, helper, predict, words, source):
    """What passes each pair of thresholds, in the graph's order, with the phrases of every rule."""
    found = []
    ids = inputs.input_ids[0].tolist()
    probabilities = done.logits[0].sigmoid()
    for box, text in THRESHOLDS:
        ours = helper.post_process_grounded_object_detection(
            done, inputs.input_ids, threshold=box, text_threshold=text, target_sizes=[source]
        )[0]
        phrases = {}
        for rule, combined in [("original", False), ("combined", True)]:
            given = Given(words, done)
            boxes, scores, phrases[rule] = predict(
                given, torch.zeros(3, 1, 1), given.caption, box, text, device="cpu", remove_combined=combined
            )
            assert torch.equal(scores, ours["scores"]) and len(boxes) == len(scores)
        kept = probabilities[probabilities.max(-1).values > box]
        found.append({
            "box_threshold": box,
            "text_threshold": text,
            "boxes": ours["boxes"].tolist(),
            "scores": ours["scores"].tolist(),
            "tokens": ours["text_labels"],
            "original": phrases["original"],
            "combined": phrases["combined"],
            "class": [by_class(row, ids) for row in kept],
        })
    return found


class Given:
    """What the original's `predict` wants of a model: it answers with numbers that are there already."""

    def __init__(self, words, done):
        self.tokenizer, self.done = words, done
        self.caption = ". ".join(name.strip().lower() for name in CLASSES) + "."

    def to(self, _device):
        return self

    def __call__(self, _image, captions):
        assert captions == [self.caption]
        return {"pred_logits": self.done.logits, "pred_boxes": self.done.pred_boxes}


def near_decisions(done):
    """Distance of the closest call: a probability at a threshold, two scores at each other, two of the proposals that become queries."""
    probabilities = done.logits[0].sigmoid()
    scores = probabilities.max(-1).values
    gaps = [(probabilities - limit).abs().min().item() for pair in THRESHOLDS for limit in pair]
    ranked = scores.sort().values
    gaps.append((ranked[1:] - ranked[:-1]).min().item())
    two = probabilities.topk(2, -1).values
    gaps.append((two[:, 0] - two[:, 1]).min().item())
    proposals = done.enc_outputs_class[0].max(-1).values.sort(descending=True).values
    gaps.append((proposals[:QUERIES] - proposals[1 : QUERIES + 1]).min().item())
    return min(gaps)


def run(made, pixels, inputs):
    with torch.no_grad():
        return made(
            pixel_values=pixels, pixel_mask=torch.ones(pixels.shape[0], *pixels.shape[2:], dtype=torch.long),
            input_ids=inputs.input_ids, token_type_ids=inputs.token_type_ids, attention_mask=inputs.attention_mask,
        )  # fmt: skip


def cases(made, words, pictures, transforms, predict):
    plan = [("dynamic", name, "hugging-face") for name in pictures if name != "long"]
    plan += [("defaults", "long", "hugging-face"), ("defaults", "long", "original")]
    plan += [("fixed", name, "hugging-face") for name in ("walk1", "odd", "portrait", "long")]
    for sizes, name, rounding in plan:
        image, helper = pictures[name], processor(words, SIZES[sizes])
        padding = {"padding": "max_length", "max_length": FIXED_TOKENS} if sizes == "fixed" else {}
        inputs = helper(images=image, text=[CLASSES], return_tensors="pt", **padding)
        pixels = inputs.pixel_values
        assert inputs.pixel_mask.all()
        if rounding == "original":
            pixels = original_pixels(transforms, image, SIZES[sizes])
        done = run(made, pixels, inputs)
        yield sizes, name, rounding, image, helper, inputs, pixels, done


def tell(case, words, predict):
    sizes, name, rounding, image, helper, inputs, pixels, done = case
    real = int(inputs.attention_mask.sum())
    assert torch.isinf(done.logits[..., real:]).all() and torch.isfinite(done.logits[..., :real]).all()
    return {
        "sizes": sizes,
        "frame": name,
        "rounding": rounding,
        "shape": list(pixels.shape),
        "pixels": sample(pixels),
        "input_ids": inputs.input_ids[0].tolist(),
        "token_type_ids": inputs.token_type_ids[0].tolist(),
        "attention_mask": inputs.attention_mask[0].tolist(),
        "logits": done.logits[0, :, :real].tolist(),
        "boxes": done.pred_boxes[0].tolist(),
        "found": limits(done, inputs, helper, predict, words, (image.height, image.width)),
    }


def check_graphs(sessions, told, made):
    """Largest difference between onnxruntime and PyTorch, over all cases, and with a batch of the clip's frames."""
    worst = 0.0
    for sizes, _, _, _, _, inputs, pixels, done in told:
        for kind in ["fixed"] if sizes == "fixed" else ["dynamic", "original"]:
            worst = max(worst, compare(sessions[kind], pixels, inputs, done))
    walk = [case for case in told if case[0] == "dynamic" and case[1].startswith("walk")]
    inputs = walk[0][5]
    for key in ("input_ids", "token_type_ids", "attention_mask"):
        inputs[key] = inputs[key].repeat(len(walk), 1)
    pixels = torch.cat([case[6] for case in walk])
    return max(worst, compare(sessions["dynamic"], pixels, inputs, run(made, pixels, inputs)))


def compare(session, pixels, inputs, done):
    blocks, positions = reference.generate_masks_with_special_tokens_and_transfer_map(inputs.input_ids)
    mask = torch.ones(pixels.shape[0], *pixels.shape[2:], dtype=torch.long)
    feed = {"pixel_values": pixels, "img": pixels, "pixel_mask": mask, "position_ids": positions, "text_token_mask": blocks}
    feed |= {key: inputs[key] for key in ("input_ids", "token_type_ids", "attention_mask")}
    if "img" in [wanted.name for wanted in session.get_inputs()]:
        feed["attention_mask"] = inputs.attention_mask.bool()
    logits, boxes = session.run(None, {wanted.name: feed[wanted.name].numpy() for wanted in session.get_inputs()})
    theirs = done.logits.numpy()
    assert (np.isinf(logits) == np.isinf(theirs)).all()
    seen = np.isfinite(theirs)
    return max(np.abs(logits[seen] - theirs[seen]).max(), np.abs(boxes - done.pred_boxes.numpy()).max())


def telling(results):
    """Whether the findings are a fair test: some pass, some do not, every rule says something of its own."""
    rows = [found for case in results for found in case["found"]]
    counts = [len(found["scores"]) for found in rows]
    phrases = lambda rule: [phrase for found in rows for phrase in found[rule]]
    every = {name.lower() for name in CLASSES}
    return (
        min(len(case["found"][0]["scores"]) for case in results) >= 2
        and sum(count < QUERIES for count in counts) > len(counts) // 2
        and set(phrases("class")) - {""} == every
        and "" in phrases("combined")
        and any(len(set(a.split()) - set(b.split())) > 1 for a, b in zip(phrases("tokens"), phrases("combined")))
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--original", type=Path, required=True, help="a checkout of IDEA-Research/GroundingDINO")
    parser.add_argument("--seed", type=int, default=55, help="where the search for weights begins (1 to 54 were no fair test)")
    options = parser.parse_args()
    transforms, predict = original_functions(options.original)
    warnings.simplefilter("ignore")
    HERE.mkdir(exist_ok=True)
    tokenizer().save(str(HERE / "tokenizer.json"))
    words = BertTokenizerFast(tokenizer_file=str(HERE / "tokenizer.json"))
    pictures = frames()
    (HERE / "frames").mkdir(exist_ok=True)
    for name, image in pictures.items():
        image.save(HERE / "frames" / f"{name}.png", optimize=True)
    for seed in range(options.seed, options.seed + 400):
        made = model(seed)
        told, near = [], 1.0
        for case in cases(made, words, pictures, transforms, predict):
            near = min(near, near_decisions(case[-1]))
            if near < MARGIN:
                break
            told.append(case)
        results = [tell(case, words, predict) for case in told]
        if near >= MARGIN and telling(results):
            break
        print(f"seed {seed}: no fair test ({len(told)} cases, closest call {near:.1e})", flush=True)
    else:
        raise SystemExit("no seed is a fair test")
    sessions = {}
    for kind in ("dynamic", "fixed", "original"):
        folder = HERE / kind
        size = export(made, kind, folder / "model.onnx")
        sessions[kind] = onnxruntime.InferenceSession(str(folder / "model.onnx"))
        GroundingDinoImageProcessor(size=SIZES["fixed" if kind == "fixed" else "dynamic"]).save_pretrained(folder)
        print(f"{kind}: {size} bytes")
    worst = check_graphs(sessions, told, made)
    print(f"seed {seed}, {len(results)} cases; onnxruntime differs from PyTorch by at most {worst:.1e}")
    assert worst < GRAPH_TOLERANCE
    golden = {"classes": CLASSES, "seed": seed, "onnxruntime_differs_by": float(worst), "cases": results}
    (HERE / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
