"""Asks a running `utr serve` through OpenAI's own Python client, in one piece and streamed.

Usage: openai_client.py URL [TOKEN]. Exits 0 and prints one JSON line where everything is as an ordinary client expects it.
"""

import json
import sys

from openai import BadRequestError, OpenAI

url, token = sys.argv[1], (sys.argv[2:] or ["none"])[0]
client = OpenAI(base_url=f"{url}/v1", api_key=token, max_retries=0, timeout=60)

model = client.models.list().data[0].id
question = [{"role": "user", "content": "Describe the video."}]

whole = client.chat.completions.create(model=model, messages=question, max_tokens=8, temperature=0)
assert whole.object == "chat.completion" and whole.model == model, whole
choice = whole.choices[0]
assert choice.message.role == "assistant" and choice.message.content, choice
assert choice.finish_reason in ("stop", "length"), choice
assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens, whole.usage
assert whole.usage.completion_tokens <= 8

video = [
    {
        "role": "user",
        "content": [
            {"type": "video_url", "video_url": {"url": "live:default?last=4"}},
            {"type": "text", "text": "Describe the video."},
        ],
    }
]
text, finish, usage, facts = "", None, None, None
stream = client.chat.completions.create(
    model=model,
    messages=video,
    stream=True,
    stream_options={"include_usage": True},
    extra_body={"evidence": True},
)
pieces = 0
for chunk in stream:
    assert chunk.object == "chat.completion.chunk", chunk
    usage = chunk.usage or usage
    for part in chunk.choices:
        text += part.delta.content or ""
        pieces += 1
        finish = part.finish_reason or finish
    facts = (chunk.model_extra or {}).get("utr") or facts
assert text and pieces > 2 and finish == "stop" and usage.completion_tokens > 0, (text, pieces, finish, usage)
assert len(facts["frames"]) == len(facts["evidence"]["per_frame"]) <= 4, facts

try:
    client.chat.completions.create(model=model, messages=question, n=2)
except BadRequestError as error:
    assert error.body["param"] == "n", error.body
else:
    sys.exit("n=2 was taken")

print(json.dumps({"text": text, "pieces": pieces, "finish": finish}))
