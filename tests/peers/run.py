"""Other engines as judges of ours: transformers, llama.cpp and onnxruntime. Fails on any difference and on any skip.

In:  the release binaries `utr`, `utr-train` and the example `peer`; run from the repository by `make test-peers`.
Out: one line per comparison on standard output; exit 1 when one fails or could not be made.

  ask        unseen random models and clips: `utr ask` against transformers, token for token, both chat templates
  tpl        the same models: `utr-train tpl` against transformers' likelihoods, 1e-3 relative
  checkpoint a folder saved by our trainer, and resaved unseen models: loaded by transformers, same logits
  gguf       decoder.gguf in llama.cpp: same tokens for the same text, same greedy continuation as our decoder
  onnx       vision.onnx in onnxruntime: same tokens as tract, candle and our ort encoder
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
UTR, TRAIN, PEER = BIN / "utr", BIN / "utr-train", BIN / "examples" / "peer"
SEEDS = (1, 2, 3)
LOGITS_ABSOLUTE = 1e-4
TPL_RELATIVE = 1e-3
VISION_ABSOLUTE = 1e-3
SENTENCES = 400

sys.path.insert(0, str(ROOT / "tests" / "golden"))


def check(condition, message):
    if not condition:
        raise AssertionError(message)


def call(*command):
    """Runs one of our programs; standard output as text."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT)
    check(done.returncode == 0, f"{' '.join(words)}\n  exit {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def onnxruntime_library():
    import onnxruntime

    files = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"))
    check(files, "onnxruntime came without its library")
    return files[0]


class Unseen:
    """The unseen models, made once, shared by the comparisons."""

    def __init__(self, work):
        self.folders = {}
        for seed in SEEDS:
            folder = work / f"unseen-{seed}"
            script = ROOT / "tests" / "golden" / "unseen.py"
            call(sys.executable, script, "--seed", seed, "--out", folder)
            self.folders[seed] = folder

    def __iter__(self):
        for seed, folder in self.folders.items():
            yield seed, folder, json.loads((folder / "expected.json").read_text())


def compare_ask(unseen, work):
    compared = 0
    for seed, folder, expected in unseen:
        for case in expected["ask"]:
            source = folder / "clips" / case["clip"]
            command = [UTR, "ask", "--bundle", folder / "model", "--source", source]
            command += ["--question", case["question"], "--frames", expected["frames"], "--uniform"]
            command += ["--temperature", 0, "--max-tokens", expected["max_tokens"], "--json"]
            if case["template"] == "processor":
                command += ["--prompt", "processor"]
            ours = json.loads(call(*command))
            where = f"seed {seed}, clip {case['clip']}, {case['template']} template"
            check(ours["tokens"] == case["tokens"], f"{where}: tokens {ours['tokens']}, expected {case['tokens']}")
            check(ours["finish"] == case["finish"], f"{where}: finish {ours['finish']}, expected {case['finish']}")
            check(ours["text"] == case["text"], f"{where}: text {ours['text']!r}, expected {case['text']!r}")
            indices = [frame["index"] for frame in ours["frames"]]
            check(indices == case["indices"], f"{where}: frames {indices}, expected {case['indices']}")
            count = ours["timings"]["prompt_tokens"]
            check(count == case["prompt_tokens"], f"{where}: {count} prompt tokens, expected {case['prompt_tokens']}")
            compared += len(case["tokens"])
    return f"{compared} tokens equal transformers'"


def compare_tpl(unseen, work):
    worst, lines_compared = 0.0, 0
    for seed, folder, expected in unseen:
        wanted = {line["id"]: line for line in expected["tpl"]}
        for mode, key in (("", "nll_single"), ("repeat", "nll_repeat")):
            output = work / f"tpl-{seed}{mode}.jsonl"
            command = [TRAIN, "tpl", "--model", folder / "model", "--data", folder / "data.jsonl"]
            command += ["--media-root", folder / "clips", "--frames", expected["frames"]]
            command += ["--draws", 3, "--seed", seed, "--output", output]
            call(*command, *(["--single", mode] if mode else []))
            lines = [json.loads(line) for line in output.read_text().splitlines()]
            check({line["id"] for line in lines} == set(wanted), f"seed {seed}: other samples than were given")
            for line in lines:
                want = wanted[line["id"]]
                drawn = line["single_frames"]
                check(len(drawn) == 3, f"{line['id']}: {len(drawn)} draws instead of 3")
                single = sum(want[key][i] for i in drawn) / len(drawn)
                pairs = {
                    "nll_full": want["nll_full"],
                    "nll_single": single,
                    "tpl": math.exp(single) - math.exp(want["nll_full"]),
                    "tpl_log": single - want["nll_full"],
                    "tpl_ratio": math.exp(single - want["nll_full"]),
                }
                count = line["answer_tokens"]
                check(count == want["answer_tokens"], f"{line['id']}: {count} answer tokens, expected {want['answer_tokens']}")
                for name, value in pairs.items():
                    # The differences are judged against the numbers they are differences of.
                    scale = {"tpl": math.exp(single), "tpl_log": abs(single)}.get(name, abs(value))
                    error = abs(line[name] - value) / scale
                    worst = max(worst, error)
                    check(error < TPL_RELATIVE, f"seed {seed}, {line['id']}: {name} {line[name]}, expected {value}")
                lines_compared += 1
    return f"{lines_compared} samples, largest relative difference {worst:.1e}"


class Trained:
    """A folder made by our trainer from nothing, and its bundles."""

    def __init__(self, work):
        recipe = ROOT / "tests" / "peers" / "recipe.toml"
        said = call(TRAIN, "tune", "--recipe", recipe, "--output", work / "run").split()
        self.folder = Path(said[-1])
        check((self.folder / "model.safetensors").exists(), f"the trainer named {self.folder}, which holds no model")
        self.bundles = {}
        for quant in ("f32", "q8_0"):
            self.bundles[quant] = work / f"bundle-{quant}"
            call(TRAIN, "export", "--model", self.folder, "--quant", quant, "--output", self.bundles[quant])


def same_logits(folder, inputs, work):
    """Largest difference between transformers' logits and ours for one folder."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import LlavaOnevisionForConditionalGeneration

    model, report = LlavaOnevisionForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        found = [key for key in report[kind] if not (kind == "missing_keys" and key == "lm_head.weight")]
        check(not found, f"{folder.name}: transformers reports {kind} {found}")
    tokens = inputs["video_tokens"]
    at = inputs["ids"].index(model.config.video_token_id)
    expanded = inputs["ids"][:at] + [model.config.video_token_id] * tokens + inputs["ids"][at + 1 :]
    with torch.no_grad():
        theirs = model(input_ids=torch.tensor([expanded]), pixel_values_videos=inputs["pixels"][None]).logits[0]
    save_file(dict(ids=torch.tensor(inputs["ids"]), pixels=inputs["pixels"]), work / "in.safetensors")
    call(PEER, "logits", folder, work / "in.safetensors", work / "out.safetensors")
    ours = load_file(work / "out.safetensors")["logits"]
    check(ours.shape == theirs.shape, f"{folder.name}: logits {tuple(ours.shape)}, expected {tuple(theirs.shape)}")
    return (ours - theirs).abs().max().item()


def compare_checkpoint(unseen, trained, work):
    import torch

    folders = [trained.folder]
    for seed, folder, _ in unseen:
        saved = work / f"resaved-{seed}"
        call(PEER, "resave", folder / "model", saved)
        folders.append(saved)
    worst = 0.0
    for folder in folders:
        config = json.loads((folder / "config.json").read_text())
        vision = config["vision_config"]
        grid = vision["image_size"] // vision["patch_size"]
        generator = torch.Generator().manual_seed(1)
        pixels = torch.rand(3, 3, vision["image_size"], vision["image_size"], generator=generator) * 2 - 1
        text = torch.randint(0, 256, (20,), generator=generator).tolist()
        ids = text[:7] + [config["video_token_index"]] + text[7:]
        inputs = dict(ids=ids, pixels=pixels, video_tokens=3 * math.ceil(grid / 2) ** 2 + 1)
        difference = same_logits(folder, inputs, work)
        check(difference < LOGITS_ABSOLUTE, f"{folder.name}: logits differ by {difference}")
        worst = max(worst, difference)
    return f"{len(folders)} folders load without a missing or extra tensor; logits differ by at most {worst:.1e}"


def sentences(count):
    """Text as the world writes it, and text that nobody would write; NFC, because llama.cpp does not normalize."""
    rng = random.Random(7)
    names = ["red ball", "large blue box", "striped kite", "green star", "dotted wheel"]
    odd = ["Grüße, größer!", "今日は", "naïve café", "🙂🙃", "a\tb\n\nc  d", "x=3.14;y[0]", "I'LL don't WE'VE", "  ", "—"]

    def box():
        return "[" + ",".join(str(20 * rng.randrange(51)) for _ in range(4)) + "]"

    def trajectory():
        steps = ";".join(f"frame{1 + 4 * i}:{box()}" for i in range(rng.randrange(1, 9)))
        track = rng.randrange(1, 9)
        return f"{rng.choice(names)}<id{track}>{steps}</id{track}>"

    out = list(odd)
    while len(out) < count:
        parts = [rng.choice([trajectory, lambda: rng.choice(odd), lambda: rng.choice(names), box])() for _ in range(4)]
        text = " ".join(["The", *parts]) + rng.choice([".", "?", " moves left, then stops.\n", ""])
        out.append(rng.choice([text, f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"]))
    return out


def compare_gguf(trained, work):
    import llama_cpp
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(trained.folder / "tokenizer.json"))
    texts = sentences(SENTENCES)
    continued = 0
    for quant, bundle in trained.bundles.items():
        llama = llama_cpp.Llama(str(bundle / "decoder.gguf"), n_ctx=512, n_threads=1, verbose=False, logits_all=True)
        for text in texts:
            theirs = llama.tokenize(text.encode(), add_bos=False, special=True)
            ours = tokenizer.encode(text, add_special_tokens=False).ids
            check(theirs == ours, f"{quant}: {text!r} is {ours} here and {theirs} in llama.cpp")
        stop = tokenizer.token_to_id("<|im_end|>")
        for text in texts[20:26]:
            prompt = tokenizer.encode(text, add_special_tokens=False).ids
            ours = json.loads(call(PEER, "continue", bundle, 32, ",".join(map(str, prompt))))
            llama.reset()
            llama.eval(prompt)
            theirs = []
            for _ in range(32):
                theirs.append(int(np.argmax(llama.scores[llama.n_tokens - 1])))
                llama.eval([theirs[-1]])
            check(theirs == ours, f"{quant}: {text!r} continues with {ours} here and {theirs} in llama.cpp")
            check(stop is not None, "the tokenizer has no <|im_end|>")
            continued += len(ours)
    return f"{len(texts)} texts tokenize equally, {continued} greedy tokens equal ({', '.join(trained.bundles)})"


def compare_onnx(trained, work):
    import numpy as np
    import onnxruntime
    from safetensors.numpy import load_file, save_file

    config = json.loads((trained.folder / "config.json").read_text())["vision_config"]
    side = config["image_size"]
    pixels = np.random.default_rng(3).uniform(-1, 1, (5, 3, side, side)).astype(np.float32)
    save_file(dict(pixels=pixels), work / "pixels.safetensors")
    worst = 0.0
    for bundle in trained.bundles.values():
        session = onnxruntime.InferenceSession(bundle / "vision.onnx", providers=["CPUExecutionProvider"])
        theirs = dict(zip(("tokens", "newline"), session.run(["tokens", "newline"], dict(pixels=pixels))))
        for engine in ("tract", "candle", "ort"):
            call(PEER, "vision", bundle, engine, work / "pixels.safetensors", work / "tokens.safetensors")
            ours = load_file(work / "tokens.safetensors")
            for name, value in theirs.items():
                check(ours[name].shape == value.shape, f"{engine}: {name} {ours[name].shape}, expected {value.shape}")
                difference = float(np.abs(ours[name] - value).max())
                check(difference < VISION_ABSOLUTE, f"{engine}: {name} differs from onnxruntime's by {difference}")
                worst = max(worst, difference)
    return f"tract, candle and ort agree with onnxruntime within {worst:.1e}"


def versions():
    from importlib.metadata import PackageNotFoundError, version as installed

    def version(name):
        try:
            return installed(name)
        except PackageNotFoundError:
            return "is missing"  # its comparison will fail

    names = ["transformers", "torch", "tokenizers", "llama-cpp-python", "onnxruntime", "pillow"]
    return ", ".join(f"{name} {version(name)}" for name in names)


def main():
    parser = argparse.ArgumentParser(description="compares with transformers, llama.cpp and onnxruntime")
    parser.add_argument("only", nargs="*", help="ask tpl checkpoint gguf onnx; all when left out, and only then a pass")
    options = parser.parse_args()
    for program in (UTR, TRAIN, PEER):
        if not program.exists():
            raise SystemExit(f"{program} is missing; run make test-peers")
    print(versions())
    made = {}

    def once(kind):
        if kind not in made:
            made[kind] = kind(work)
        return made[kind]

    comparisons = {
        "ask": lambda: compare_ask(once(Unseen), work),
        "tpl": lambda: compare_tpl(once(Unseen), work),
        "checkpoint": lambda: compare_checkpoint(once(Unseen), once(Trained), work),
        "gguf": lambda: compare_gguf(once(Trained), work),
        "onnx": lambda: compare_onnx(once(Trained), work),
    }
    failed = []
    with tempfile.TemporaryDirectory(prefix="utr-peers-") as folder:
        work = Path(folder)
        for name in options.only or comparisons:
            try:
                print(f"{name:<11} ok    {comparisons[name]()}", flush=True)
            except AssertionError as problem:
                failed.append(name)
                print(f"{name:<11} FAIL  {problem}", flush=True)
            except Exception:
                failed.append(name)
                print(f"{name:<11} FAIL  could not be compared\n{traceback.format_exc()}", flush=True)
    if failed:
        raise SystemExit(f"test-peers: {', '.join(failed)} failed")
    if options.only:
        print(f"test-peers: only {', '.join(options.only)} ran")
    else:
        print(f"test-peers: all {len(comparisons)} comparisons passed, none skipped")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    ENVIRONMENT = dict(os.environ, ORT_DYLIB_PATH=str(onnxruntime_library()))
    main()
