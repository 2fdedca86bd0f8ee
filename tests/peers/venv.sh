#!/usr/bin/env bash
# Makes the virtual environment $1 with the pinned peers. Silent and quick when it is already right.
set -euo pipefail
venv=$1
requirements=$(dirname "$0")/requirements.txt
[ -f "$venv/requirements.txt" ] && cmp -s "$requirements" "$venv/requirements.txt" && exit 0

if ! python3 -c 'import ensurepip, venv' 2> /dev/null; then
    "$(dirname "$0")/../../.ci/setup" python3 python3-venv
fi
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
fi
echo "test-peers: installing $(grep -c == "$requirements") pinned packages into $venv (torch is large, llama.cpp is compiled)"
# The wheel of llama-cpp-python is built from source for this machine's instructions.
CMAKE_ARGS="${CMAKE_ARGS:--DGGML_NATIVE=ON}" "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
cp "$requirements" "$venv/requirements.txt.tmp" && mv "$venv/requirements.txt.tmp" "$venv/requirements.txt"
