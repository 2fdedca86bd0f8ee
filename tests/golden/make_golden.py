"""Makes the golden models and numbers under tests/golden/ with transformers.

In:  nothing but seeds. Out: one folder per model: a Hugging Face checkpoint and `golden.safetensors`.
Run: python tests/golden/make_golden.py   (torch, transformers, safetensors; versions used are in versions.json)

Models
  odd_tied     5x5 patches -> 3x3 tokens, 30 of 32 pixel rows read, head tied to the embedding, rope theta 1e6
  even_untied  4x4 patches -> 2x2 tokens, 6 query heads on 2 key heads, own head, rope theta 1e4, two turns
  layouts/*    one micro model saved in every tensor-name layout, sharded, and in f16 and bf16

Keys of golden.safetensors (F is the number of frames; frames are the first F of the five)
  pixel_values [5,3,S,S]   siglip [5,T,C] the selected feature   projected [5,T,H]   pooled [5,t,H]
  F{F}.ids [L]  F{F}.logits [L,V]  F{F}.prompt_len []  F{F}.greedy [16] continues ids[:prompt_len]
  F{F}.labels_reference / F{F}.labels_clean [L]   F{F}.loss_reference / F{F}.loss_clean []
  grad.NAME   d loss_clean / d parameter at F=2, NAME as in model.safetensors
This script does not write preprocessing goldens (preprocess.py does).
"""

import json
import shutil
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

HERE = Path(__file__).resolve().parent
FRAMES = (1, 2, 5)
GREEDY = 16


def make_model(seed, vision, text, tokens, tied, feature_layer=-1):
    """A LLaVA-OneVision with weights large enough that every part of it shows in the logits."""
    config = LlavaOnevisionConfig(
        vision_config=dict(model_type="siglip_vision_model", vision_use_head=False, **vision),
        text_config=dict(model_type="qwen2", tie_word_embeddings=tied, **text),
        image_token_index=tokens["image"],
        video_token_index=tokens["video"],
        image_grid_pinpoints=[[vision["image_size"]] * 2],
        tie_word_embeddings=tied,
        vision_feature_layer=feature_layer,
    )
    config._attn_implementation = "eager"
    model = LlavaOnevisionForConditionalGeneration(config).float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.1 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.1 * noise)
            elif "embed_tokens" in name:
                parameter.copy_(0.3 * noise)  # small: a tied head must not simply repeat the last token
            elif "newline" in name or "position_embedding" in name:
                parameter.copy_(0.5 * noise)
            elif "o_proj" in name or "down_proj" in name:
                parameter.copy_(noise * 2 * parameter[0].numel() ** -0.5)
            else:
                fan_in = parameter[0].numel()
                parameter.copy_(noise * fan_in**-0.5)
    model.tie_weights()
    return model


def saved_name(name):
    """The name under which transformers 5 saves a parameter (layout C)."""
    if name.startswith("lm_head."):
        return "language_model." + name
    name = name.removeprefix("model.")
    if name.startswith("language_model."):
        return "language_model.model." + name.removeprefix("language_model.")
    return name


def conversation(tokens, video_tokens, turns, generator, words):
    """Ids of system, then user/assistant turns; labels of both maskings; and where the first answer starts."""

    def some(n):
        return torch.randint(words[0], words[1], (n,), generator=generator).tolist()

    start, end, newline, video = (tokens[k] for k in ("im_start", "im_end", "newline", "video"))
    ids, reference, clean, prompt_len = [], [], [], None

    def add(part, trained, answer):
        ids.extend(part)
        kept = (start, end, newline)
        reference.extend(t if trained or t in kept else -100 for t in part)
        clean.extend(t if answer else -100 for t in part)

    add([start, tokens["system"], newline, *some(3), end, newline], False, False)
    for turn in range(turns):
        media = [video] * video_tokens + [newline] if turn == 0 else []
        add([start, tokens["user"], newline, *media, *some(4), end, newline], False, False)
        add([start, tokens["assistant"], newline], True, False)
        prompt_len = prompt_len or len(ids)
        add([*some(5), end], True, True)
        add([newline], True, False)
    return torch.tensor(ids), torch.tensor(reference), torch.tensor(clean), prompt_len


def greedy(model, ids, pixels):
    """Argmax by whole forward passes, checked against generate(); refuses near ties."""
    current, gap = ids[None], float("inf")
    for _ in range(GREEDY):
        logits = model(input_ids=current, pixel_values_videos=pixels).logits[0, -1]
        top = logits.topk(2).values
        gap = min(gap, (top[0] - top[1]).item())
        current = torch.cat([current, logits.argmax()[None, None]], dim=1)
    ours = current[0, len(ids) :]
    theirs = model.generate(
        input_ids=ids[None],
        attention_mask=torch.ones_like(ids[None]),
        pixel_values_videos=pixels,
        do_sample=False,
        max_new_tokens=GREEDY,
        min_new_tokens=GREEDY,
        pad_token_id=0,
    )[0, len(ids) :]
    assert torch.equal(ours, theirs), (ours, theirs)
    assert gap > 2e-3, f"near tie ({gap}): choose another seed"
    assert len(set(ours.tolist())) >= 4, f"dull continuation {ours.tolist()}: choose another seed"
    return ours


def features(model, pixels):
    """Selected SigLIP feature, projected, pooled."""
    inner = model.model
    layer = model.config.vision_feature_layer
    siglip = inner.vision_tower(pixels, output_hidden_states=True).hidden_states[layer]
    projected = inner.multi_modal_projector(siglip)
    return siglip, projected, inner.apply_pooling(projected)


def goldens(model, seed, tokens, words, turns, frames=FRAMES, gradients=True):
    generator = torch.Generator().manual_seed(seed)
    size = model.config.vision_config.image_size
    pixels = torch.rand(max(frames), 3, size, size, generator=generator) * 2 - 1
    with torch.no_grad():
        siglip, projected, pooled = features(model, pixels)
    out = dict(pixel_values=pixels, siglip=siglip, projected=projected, pooled=pooled)
    for count in frames:
        video_tokens = count * pooled.shape[1] + 1
        ids, reference, clean, prompt_len = conversation(tokens, video_tokens, turns, generator, words)
        video = pixels[None, :count]
        with torch.no_grad():
            run = model(input_ids=ids[None], pixel_values_videos=video, labels=reference[None])
            loss_clean = model(input_ids=ids[None], pixel_values_videos=video, labels=clean[None]).loss
            out[f"F{count}.greedy"] = greedy(model, ids[:prompt_len], video)
        by_hand = torch.nn.functional.cross_entropy(run.logits[0, :-1], reference[1:])
        assert abs(by_hand - run.loss) < 1e-5
        out[f"F{count}.ids"] = ids
        out[f"F{count}.prompt_len"] = torch.tensor(prompt_len)
        out[f"F{count}.logits"] = run.logits[0]
        out[f"F{count}.labels_reference"] = reference
        out[f"F{count}.labels_clean"] = clean
        out[f"F{count}.loss_reference"] = run.loss
        out[f"F{count}.loss_clean"] = loss_clean
        if gradients and count == 2:
            model.zero_grad()
            model(input_ids=ids[None], pixel_values_videos=video, labels=clean[None]).loss.backward()
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    out["grad." + saved_name(name)] = parameter.grad
    return {k: v.detach().contiguous().clone() for k, v in out.items()}


def save(model, folder, golden):
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    saved = load_file(folder / "model.safetensors")
    for key in golden:
        if key.startswith("grad."):
            assert golden[key].shape == saved[key.removeprefix("grad.")].shape, key
    assert not any("post_layernorm" in k for k in golden), "the selected feature lies before post_layernorm"
    unused = [k for k in saved if "grad." + k not in golden and "post_layernorm" not in k]
    if any(k.startswith("grad.") for k in golden):
        assert not unused, f"no gradient: {unused}"
    save_file(golden, folder / "golden.safetensors")
    for file in folder.iterdir():
        file.chmod(0o644)


def old_style(config):
    """The config.json that transformers 4.48 wrote for the same model."""
    config = json.loads(json.dumps(config))
    config["torch_dtype"] = config.pop("dtype", "float32")
    config["transformers_version"] = "4.48.3"
    text = config["text_config"]
    text["rope_theta"] = text.pop("rope_parameters")["rope_theta"]
    for key in ("layer_types", "dtype", "pad_token_id", "bos_token_id", "eos_token_id", "hidden_act"):
        text.pop(key, None)
    for key in ("dtype", "hidden_act", "layer_norm_eps", "num_channels"):
        config["vision_config"].pop(key, None)
    return config


def rename(name, layout):
    """From layout C (as saved by transformers 5) to another."""
    part, rest = name.split(".", 1) if "." in name else (name, "")
    if part == "vision_tower":
        old = "vision_tower.vision_model." + rest
        lln = "model.vision_tower.vision_tower.vision_model." + rest
        return {"a": old, "b": "model." + old, "c": name, "d": "model." + name, "lln": lln}[layout]
    if part == "multi_modal_projector":
        lln = "model.mm_projector." + rest.replace("linear_1", "0").replace("linear_2", "2")
        return {"a": name, "b": "model." + name, "c": name, "d": "model." + name, "lln": lln}[layout]
    if part == "image_newline":
        return {"a": name, "c": name}.get(layout, "model." + name)
    if rest.startswith("lm_head"):
        return {"a": name, "c": name}.get(layout, rest)
    inner = rest.removeprefix("model.")
    return {"a": name, "c": name, "lln": "model." + inner}.get(layout, "model.language_model." + inner)


def write_layouts(folder, seed):
    """One micro model in every spelling a loader must read. `golden*.safetensors` are shared by the folders."""
    shutil.rmtree(folder, ignore_errors=True)
    tokens = dict(system=1, user=2, assistant=3, newline=4, im_start=40, im_end=41, image=42, video=43)
    vision = dict(
        hidden_size=12, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=14, patch_size=4
    )
    text = dict(
        hidden_size=16,
        intermediate_size=20,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=44,
        max_position_embeddings=512,
        rope_parameters=dict(rope_type="default", rope_theta=1e6),
    )
    # Two vision layers with feature layer -2 read the output of the first: said literally by the config.
    model = make_model(seed, vision, text, tokens, tied=False, feature_layer=-2)
    save(model, folder / "c", {})
    (folder / "c/golden.safetensors").unlink()
    config = json.loads((folder / "c/config.json").read_text())
    tensors = load_file(folder / "c/model.safetensors")

    def write(name, tensors, config):
        (folder / name).mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / name / "model.safetensors", metadata={"format": "pt"})
        (folder / name / "config.json").write_text(json.dumps(config, indent=1) + "\n")

    for layout in ("a", "b", "d", "lln"):
        style = config if layout == "d" else old_style(config)
        write(layout, {rename(k, layout): v.clone() for k, v in tensors.items()}, style)

    shards = folder / "sharded"
    shards.mkdir()
    names, where = sorted(tensors), {}
    for i in range(3):
        file = f"model-{i + 1:05}-of-00003.safetensors"
        part = {k: tensors[k] for k in names[i::3]}
        save_file(part, shards / file, metadata={"format": "pt"})
        where.update({k: file for k in part})
    size = sum(t.numel() * 4 for t in tensors.values())
    index = dict(metadata=dict(total_size=size), weight_map=where)
    (shards / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
    (shards / "config.json").write_text(json.dumps(config, indent=1) + "\n")

    save_file(goldens(model, seed, tokens, (5, 40), 1, (2,), False), folder / "golden.safetensors")
    for name, dtype in (("f16", torch.float16), ("bf16", torch.bfloat16)):
        cast = {k: v.to(dtype) for k, v in tensors.items()}
        write(name, cast, dict(config, dtype=str(dtype).removeprefix("torch.")))
        with torch.no_grad():  # the rounded weights, computed in f32
            for key, parameter in model.named_parameters():
                parameter.copy_(cast[saved_name(key)].float())
        out = goldens(model, seed, tokens, (5, 40), 1, (2,), False)
        save_file(out, folder / f"golden_{name}.safetensors")


def main():
    torch.set_num_threads(1)
    tokens = dict(system=1, user=2, assistant=3, newline=10, im_start=60, im_end=61, image=62, video=63)
    vision = dict(
        hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=6
    )
    text = dict(
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=64,
        max_position_embeddings=4096,
        rope_parameters=dict(rope_type="default", rope_theta=1e6),
    )
    model = make_model(109, vision, text, tokens, tied=True)
    save(model, HERE / "odd_tied", goldens(model, 21, tokens, (11, 60), turns=1))

    vision = dict(vision, image_size=32, patch_size=8)
    rope = dict(rope_type="default", rope_theta=1e4)
    text = dict(text, hidden_size=36, intermediate_size=32, num_attention_heads=6, num_key_value_heads=2, rope_parameters=rope)
    model = make_model(19, vision, text, tokens, tied=False)
    save(model, HERE / "even_untied", goldens(model, 22, tokens, (11, 60), turns=2))

    write_layouts(HERE / "layouts", 11)
    versions = dict(torch=torch.__version__, transformers=transformers.__version__)
    (HERE / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")
    for folder in sorted(p for p in HERE.iterdir() if p.is_dir()):
        size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        print(f"{folder.name}: {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
