"""Reads what `export_for_peers` wrote with other people's programs and compares.

onnxruntime runs vision-*.onnx against the reference tokens; transformers and llama.cpp tokenize the same sentences to the
same ids; llama.cpp continues a prompt with the greedy tokens of transformers (exactly for f32).
Run: python tests/golden/peers.py FOLDER   (needs numpy, onnxruntime, torch, transformers, safetensors, llama-cpp-python)
"""
import json
import pathlib
import sys

import numpy as np


def vision(folder):
    import onnxruntime
    from safetensors.numpy import load_file

    golden = load_file(pathlib.Path(__file__).parent / "tiny_llava_ov_a" / "golden.safetensors")
    for storage, tolerance in [("f32", 2e-5), ("f16", 5e-3)]:
        session = onnxruntime.InferenceSession(folder / f"vision-{storage}.onnx", providers=["CPUExecutionProvider"])
        for frames in (1, 3):
            pixels = golden["pixel_values_videos"][0][:frames]
            tokens, newline = session.run(["tokens", "newline"], {"pixels": pixels})
            worst = np.abs(tokens - golden["pooled"][:frames]).max()
            assert tokens.shape == (frames, 9, 32) and newline.shape == (32,) and worst < tolerance, worst
            print(f"onnxruntime, {storage}, {frames} frames: largest difference {worst:.2e}")


def reference_tokens(folder, sentences):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text, ids in sentences:
        found = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert found == ids, f"transformers tokenizes {text!r} to {found}, we to {ids}"
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "<video>\nWhy?"}], tokenize=False,
                                           add_generation_prompt=True)
    assert prompt == "<|im_start|>user\n<video>\nWhy?<|im_end|>\n<|im_start|>assistant\n", prompt
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token == "<|endoftext|>"
    print(f"transformers: {len(sentences)} sentences tokenize equally ({type(tokenizer).__name__})")


def greedy(folder, prompt, count):
    import torch
    from transformers import Qwen2ForCausalLM

    model = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    ids = torch.tensor([prompt])
    with torch.no_grad():
        for _ in range(count):
            ids = torch.cat([ids, model(ids).logits[:, -1].argmax(-1, keepdim=True)], 1)
    return ids[0, len(prompt):].tolist()


def llama(folder, sentences):
    import llama_cpp

    prompt = sentences[2][1]
    expected = greedy(folder, prompt, 24)
    for format in ("f32", "f16", "q8_0", "q4_0"):
        model = llama_cpp.Llama(str(folder / f"decoder-{format}.gguf"), n_ctx=256, logits_all=True, verbose=False)
        for text, ids in sentences:
            found = model.tokenize(text.encode(), add_bos=False, special=True)
            assert found == ids, f"llama.cpp tokenizes {text!r} to {found}, we to {ids}"
        model.reset()
        model.eval(prompt)
        found = []
        for _ in range(len(expected)):
            found.append(int(np.argmax(model.scores[model.n_tokens - 1])))
            model.eval(found[-1:])
        same = sum(1 for a, b in zip(found, expected) if a == b)
        print(f"llama.cpp, {format}: {len(sentences)} sentences tokenize equally, {same}/{len(expected)} greedy tokens equal")
        assert format != "f32" or found == expected, (found, expected)


def main():
    folder = pathlib.Path(sys.argv[1])
    vision(folder)
    for name in ("tied", "untied"):
        sentences = json.loads((folder / name / "tokens.json").read_text())
        reference_tokens(folder / name, sentences)
        llama(folder / name, sentences)


if __name__ == "__main__":
    main()
