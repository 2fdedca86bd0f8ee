"""Makes a random model nobody has seen, clips, questions, and what transformers answers: the judge of `utr ask`.

In:  --seed N --out DIR. Out, under DIR:
  model/          a Hugging Face LLaVA-OneVision folder with its own tokenizer and both chat templates
  clips/NAME/     numbered PNG frames (not zero-padded) of odd sizes
  data.jsonl      the same clips and questions as LLaVA conversations with made-up answers
  expected.json   ask: prompt ids, greedy tokens, text, log-probabilities, frame indices, for both templates
                  tpl: per sample the answer's mean negative log-likelihood, given all frames and each single one
Frames are taken by linspace, resized by PIL's bicubic, and the prompt is built by transformers' own tokenizer.
Questions and weights are redrawn until no greedy choice is closer than GAP, so that equality of tokens is a fair demand.
It does not run anything of ours.
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer

from make_golden import make_model, saved_name

FRAMES = 8
MAX_TOKENS = 24
GAP = 1e-3
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]
# What reference says the two templates render; the wording of the Jinja is ours.
TOKENIZER_TEMPLATE = """{%- if messages[0].role != 'system' -%}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}
{%- endif -%}
{%- for turn in messages -%}
    {{- '<|im_start|>' ~ turn['role'] ~ '\\n' ~ turn['content'] ~ '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
PROCESSOR_TEMPLATE = """{% for turn in messages %}{{ '<|im_start|>' + turn['role'] + '\\n' }}
    {%- for part in turn['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}
    {%- for part in turn['content'] | selectattr('type', 'equalto', 'video') %}{{ '<video>\\n' }}{% endfor %}
    {%- for part in turn['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] }}{% endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

SUBJECTS = ["the red ball", "a striped box", "the small kite", "another wheel", "Übergröße 7", "the 红色 cube"]
VERBS = ["moves left", "spins twice", "isn't moving", "grows", "hides behind", "swaps with", "stopped at frame 12"]
PLACES = ["near the top.", "in the middle?", "at [120,340,560,780];", "— then leaves!", "before 3.5 s\nand after", "🙂"]


def sentence(rng):
    return " ".join(rng.choice(p) for p in (SUBJECTS, VERBS, PLACES))


def make_tokenizer(folder, rng):
    """A byte-level BPE as Qwen2 has it, special tokens last; returns its length."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated", invert=False)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator((sentence(rng) for _ in range(400)), trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = dict(
        tokenizer_class="PreTrainedTokenizerFast",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )
    if rng.random() < 0.5:
        config["chat_template"] = TOKENIZER_TEMPLATE
    else:
        (folder / "chat_template.jinja").write_text(TOKENIZER_TEMPLATE)
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))
    (folder / "chat_template.json").write_text(json.dumps(dict(chat_template=PROCESSOR_TEMPLATE), indent=1))
    return tokenizer.get_vocab_size()


def make_shape(seed, rng, tokens):
    """Random sizes: odd and even grids by turns, pixels beyond the last patch, grouped heads."""
    patch = rng.choice([7, 8, 10])
    grid = 4 + seed % 4
    vision_heads, kv, group, head = rng.choice([2, 3]), rng.choice([1, 2]), rng.choice([2, 3]), rng.choice([8, 12])
    vision = dict(
        hidden_size=vision_heads * rng.choice([8, 16]),
        intermediate_size=rng.choice([40, 56]),
        num_hidden_layers=rng.choice([2, 3]),
        num_attention_heads=vision_heads,
        image_size=patch * grid + rng.choice([0, 3, 5]),
        patch_size=patch,
    )
    text = dict(
        hidden_size=kv * group * head,
        intermediate_size=rng.choice([64, 88]),
        num_hidden_layers=rng.choice([2, 3]),
        num_attention_heads=kv * group,
        num_key_value_heads=kv,
        vocab_size=-(-tokens // 64) * 64,
        max_position_embeddings=4096,
        rope_parameters=dict(rope_type="default", rope_theta=rng.choice([1e4, 1e6])),
    )
    return vision, text


def draw_clip(folder, frames, rng):
    """Moving blocks over a gradient with noise; PNG, sizes that are multiples of nothing."""
    folder.mkdir(parents=True)
    width, height = rng.randrange(37, 141), rng.randrange(31, 129)
    numbers = np.random.default_rng(rng.randrange(2**32))
    blocks = [(numbers.uniform(0, 1, 2), numbers.uniform(-0.05, 0.05, 2), numbers.integers(0, 256, 3)) for _ in range(4)]
    slope = numbers.uniform(-1, 1, (3, 2))
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    for t in range(frames):
        image = np.stack([128 + 90 * (a * x + b * y) for a, b in slope], axis=-1)
        for at, speed, colour in blocks:
            left, top = ((at + t * speed) % 1 * (width, height)).astype(int)
            image[top : top + height // 4, left : left + width // 4] = colour
        image += numbers.normal(0, 6, image.shape)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"frame_{t + 1}.png")


def load_pixels(folder, preprocessing):
    """The reference's frames: linspace indices, PIL bicubic to the square, scaled and normalized; [F,3,S,S]."""
    files = sorted(folder.glob("*.png"), key=lambda f: int(f.stem.split("_")[1]))
    indices = np.linspace(0, len(files) - 1, FRAMES, dtype=int)
    side = preprocessing["size"]["height"]
    mean, std = np.array(preprocessing["image_mean"]), np.array(preprocessing["image_std"])
    frames = []
    for i in indices:
        image = Image.open(files[i]).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        frames.append((np.asarray(image) / 255.0 - mean) / std)
    return indices.tolist(), torch.tensor(np.stack(frames)).float().permute(0, 3, 1, 2).contiguous()


def prompt(tokenizer, question, media_tokens, kind, said=()):
    """Prompt ids with the one <video> repeated as the processor repeats it; `said` are the turns before."""
    if kind == "tokenizer":
        messages = []
        for asked, answered in said:
            messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        messages.append({"role": "user", "content": question})
        messages[0]["content"] = "<video>\n" + messages[0]["content"]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    else:
        messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
        text = tokenizer.apply_chat_template(
            messages, chat_template=PROCESSOR_TEMPLATE, tokenize=False, add_generation_prompt=True
        )
    assert text.count("<video>") == 1
    ids = tokenizer(text.replace("<video>", "<video>" * media_tokens), add_special_tokens=False).input_ids
    return torch.tensor(ids)


def ask(model, tokenizer, ids, pixels):
    """Greedy generate(); None where a choice was too close, or where the model would emit a media token."""
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    media = [tokenizer.convert_tokens_to_ids(t) for t in ("<image>", "<video>")]
    out = model.generate(
        input_ids=ids[None],
        attention_mask=torch.ones_like(ids[None]),
        pixel_values_videos=pixels[None],
        do_sample=False,
        max_new_tokens=MAX_TOKENS,
        eos_token_id=stop,
        pad_token_id=stop,
        output_logits=True,
        return_dict_in_generate=True,
    )
    tokens = out.sequences[0, len(ids) :].tolist()
    logits = torch.cat(out.logits)
    top = logits.topk(2).values
    if (top[:, 0] - top[:, 1]).min() < GAP or set(tokens) & set(media) or len(set(tokens)) < 3:
        return None
    kept = tokens[: tokens.index(stop)] if stop in tokens else tokens
    logprobs = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0].tolist()
    text = tokenizer.decode(kept, skip_special_tokens=True)
    return dict(tokens=kept, finish="stop" if stop in tokens else "length", text=text, logprobs=logprobs)


def ask_clip(model, tokenizer, clip, per_frame, rng):
    """Asks under both templates; draws another question while a choice is too close. Empty when none will do."""
    for _ in range(30):
        clip["question"], asked = sentence(rng), []
        for kind in ("tokenizer", "processor"):
            ids = prompt(tokenizer, clip["question"], FRAMES * per_frame + 1, kind)
            with torch.no_grad():
                answer = ask(model, tokenizer, ids, clip["pixels"])
            if answer is None:
                break
            head = dict(clip=clip["clip"], question=clip["question"], template=kind, indices=clip["indices"])
            asked.append(dict(**head, prompt_tokens=len(ids), prompt=ids.tolist(), **answer))
        if len(asked) == 2:
            return asked
    return []


def likelihood(model, ids, answer, pixels):
    """Negative log-likelihood of the answer's tokens after the prompt, summed."""
    both = torch.cat([ids, answer])
    logits = model(input_ids=both[None], pixel_values_videos=pixels[None]).logits[0]
    return torch.nn.functional.cross_entropy(logits[len(ids) - 1 : -1], answer, reduction="sum").item()


def score(model, tokenizer, turns, pixels, per_frame):
    """Means over the tokens of all answers; each turn sees the ones before it."""
    targets = [torch.tensor(tokenizer(a + "<|im_end|>", add_special_tokens=False).input_ids) for _, a in turns]
    target = torch.cat(targets)

    def nll(frames):
        total, said = 0.0, []
        for (question, answer), wanted in zip(turns, targets):
            ids = prompt(tokenizer, question, len(frames) * per_frame + 1, "tokenizer", said)
            total += likelihood(model, ids, wanted, frames)
            said.append((question, answer))
        return total / len(target)

    single = [nll(pixels[i : i + 1]) for i in range(len(pixels))]
    repeat = [nll(pixels[i : i + 1].repeat(len(pixels), 1, 1, 1)) for i in range(len(pixels))]
    return dict(answer_tokens=len(target), nll_full=nll(pixels), nll_single=single, nll_repeat=repeat)


def dialogues(clip):
    """A single question, and the same with another one after it."""
    first = (clip["question"], clip["answer"])
    return [(clip["clip"], [first]), (clip["clip"] + "-then", [first, clip["then"]])]


def write_model(folder, model):
    """Config as transformers writes it, weights under the names it saves."""
    model.config.save_pretrained(folder)
    tied = model.config.tie_word_embeddings
    tensors = {saved_name(k): v for k, v in model.state_dict().items() if not (tied and k.startswith("lm_head"))}
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--seed", type=int, required=True)
    arguments.add_argument("--out", type=Path, required=True)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(options.seed)
    folder = options.out / "model"
    folder.mkdir(parents=True)

    length = make_tokenizer(folder, rng)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    special = {t: tokenizer.convert_tokens_to_ids(t) for t in SPECIAL}
    vision, text = make_shape(options.seed, rng, length)
    mean, std = rng.choice([([0.5] * 3, [0.5] * 3), ([0.48, 0.46, 0.41], [0.27, 0.26, 0.28])])
    side = vision["image_size"]
    preprocessing = dict(
        image_processor_type="LlavaOnevisionImageProcessor",
        size=dict(height=side, width=side),
        image_mean=mean,
        image_std=std,
        resample=3,
        rescale_factor=1 / 255,
    )
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=1))
    stops = dict(eos_token_id=[special["<|im_end|>"]], pad_token_id=special["<|endoftext|>"])
    (folder / "generation_config.json").write_text(json.dumps(stops, indent=1))

    clips = []
    for name, frames in (("long", rng.randrange(20, 40)), ("short", rng.randrange(2, 8)), ("one", 1)):
        draw_clip(options.out / "clips" / name, frames, rng)
        indices, pixels = load_pixels(options.out / "clips" / name, preprocessing)
        then = (sentence(rng), sentence(rng))
        clips.append(dict(clip=name, indices=indices, pixels=pixels, answer=sentence(rng), then=then))

    patches = (side // vision["patch_size"]) ** 2
    per_frame = int(np.ceil(np.sqrt(patches) / 2)) ** 2
    token_ids = dict(image=special["<image>"], video=special["<video>"])
    for attempt in range(20):
        model = make_model(options.seed * 1000 + attempt, vision, text, token_ids, tied=options.seed % 2 == 0)
        asked = [both for clip in clips for both in ask_clip(model, tokenizer, clip, per_frame, rng)]
        if len(asked) == 2 * len(clips):
            break
    else:
        raise SystemExit("no model without near ties in 20 draws: choose another seed")

    write_model(folder, model)
    with torch.no_grad():
        scored = []
        for c in clips:
            for name, turns in dialogues(c):
                numbers = score(model, tokenizer, turns, c["pixels"], per_frame)
                scored.append(dict(id=name, **numbers))
    with open(options.out / "data.jsonl", "w") as data:
        for c in clips:
            for name, turns in dialogues(c):
                said = [(("human", q), ("gpt", a)) for q, a in turns]
                messages = [{"from": who, "value": text} for both in said for who, text in both]
                messages[0]["value"] = "<image>\n" + messages[0]["value"]
                data.write(json.dumps(dict(id=name, video=c["clip"], conversations=messages)) + "\n")
    expected = dict(seed=options.seed, frames=FRAMES, max_tokens=MAX_TOKENS, ask=asked, tpl=scored)
    (options.out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    print(f"seed {options.seed}: {attempt + 1} draws, grid {int(patches**0.5)}, {per_frame} tokens a frame, {asked[0]['text']!r}")


if __name__ == "__main__":
    main()
