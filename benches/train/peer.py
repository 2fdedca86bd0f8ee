#!/usr/bin/env python3
"""Tokens per second of training Qwen2 with PyTorch and transformers: bf16, scaled-dot-product attention, fused AdamW.

The same sizes and data as `train-speed.rs`; one JSON line. Needs `torch` and `transformers`.
"""
import argparse
import json
import time

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

parser = argparse.ArgumentParser()
for name, default in dict(hidden=896, heads=14, intermediate=4864, layers=24, kv_heads=2, vocab=151936, batch=4, rows=2048, steps=10).items():
    parser.add_argument("--" + name.replace("_", "-"), type=int, default=default)
parser.add_argument("--device", default="cuda")
parser.add_argument("--dtype", default="bf16", choices=["bf16", "f32"])
args = parser.parse_args()

dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
config = Qwen2Config(
    hidden_size=args.hidden, num_attention_heads=args.heads, intermediate_size=args.intermediate, num_hidden_layers=args.layers,
    num_key_value_heads=args.kv_heads, vocab_size=args.vocab, rope_theta=1e6, tie_word_embeddings=True, use_cache=False,
    attn_implementation="sdpa",
)
model = Qwen2ForCausalLM(config).to(args.device)
# Master weights stay in f32, products are made in bf16, as on the other side; there they and the moments are the host's, here the device's.
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.0, fused=args.device != "cpu")
ids = torch.tensor(
    [[(i * 7919 + n * 104_729) % (args.vocab - 2) for i in range(args.rows)] for n in range(args.batch)], device=args.device)
wait = torch.cuda.synchronize if args.device != "cpu" else lambda: None

for step in range(args.steps + 2):
    if step == 2:
        wait()
        begun = time.perf_counter()
    with torch.autocast(args.device.split(":")[0], dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
wait()
seconds = (time.perf_counter() - begun) / args.steps
print(json.dumps({
    "program": f"torch {torch.__version__}", "device": args.device, "dtype": args.dtype, "batch": args.batch, "rows": args.rows,
    "seconds_per_step": seconds, "tokens_per_s": args.batch * args.rows / seconds,
}))
