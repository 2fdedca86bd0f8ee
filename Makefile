# `make demo` and `make test` do all their own set-up: system packages, build, run. Nothing is rebuilt or printed twice.
# One profile (release) and one selection (the whole workspace, development dependencies included) serve everything: cargo
# unites features over what is selected, so that another selection would compile the dependencies again. That selection has the ROS 2 node (a
# development dependency of tests/); `cargo build -p utr-runtime` has not.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help cross cuda cuda-utr gpu peer-python cuda-test demo test test-peers soak fuzz onnxruntime lint deny setup

PACKAGES := build-essential pkg-config libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev \
	libgstrtspserver-1.0-dev \
	gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-tools
VENV := .venv
TARGET := $(or $(CARGO_TARGET_DIR),target)

help:
	@echo "make demo        ask the shipped model five questions about a clip, with the right answers beside"
	@echo "make test        every test of the workspace"
	@echo "make test-peers  compare with transformers, llama.cpp and onnxruntime (a virtual environment, several GB)"
	@echo "make soak        a server under faults over a million frames, SOAK_FRAMES=1000000"
	@echo "make fuzz        every parser of what comes from outside, FUZZ_SECONDS=60 each"
	@echo "make onnxruntime ONNX Runtime's library from PyPI into $(VENV), and what to set (for grounding-dino and --encoder ort)"
	@echo "make cross       utr for aarch64 boards and its .deb, run under emulation against this machine's answers; CUDA=1: with CUDA"
	@echo "make cuda        utr-train for NVIDIA GPUs, without GStreamer, in $(CUDA_FOLDER)/release; it also starts where there is none"
	@echo "make cuda-utr    the same of utr, with GStreamer, for a workstation"
	@echo "make gpu         what waits for a GPU: kernels, gradients, a training step, the comparison with PyTorch (torch, transformers), the largest model"
	@echo "make cuda-test   the kernels and gradients on this machine's GPU (without one, only on the CPU)"
	@echo "make lint        formatting and clippy, warnings are errors"
	@echo "make deny        licences and duplicate crates (needs cargo-deny)"
	@echo "make setup       only the system packages"

demo: setup
	@cargo build --release --quiet --workspace --bin utr --example demo
	@$(TARGET)/release/examples/demo $(TARGET)/release/utr models/demo

# Without ONNX Runtime, OpenAI's client (no network) or multicast (for ROS 2) the tests that need them say so and the others run.
test: setup
	@if library=$$(.ci/onnxruntime $(VENV)); then export ORT_DYLIB_PATH="$$library"; fi; \
	if python=$$(.ci/clients $(VENV)); then export UTR_MCAP_PYTHON="$$python"; fi; cargo test --release --workspace
	@echo "make test: everything passed"

test-peers: setup
	@tests/peers/venv.sh $(VENV)
	@cargo build --release --workspace --bin utr --bin utr-train --example peer
	@$(VENV)/bin/python tests/peers/run.py

FUZZ_SECONDS ?= 60
soak: setup
	@UTR_SOAK_FRAMES=$(or $(SOAK_FRAMES),1000000) cargo test --release --workspace --test soak -- --nocapture

fuzz: setup
	@tests/fuzz/run $(FUZZ_SECONDS)

onnxruntime:
	@library=$$(.ci/onnxruntime $(VENV)) && echo "export ORT_DYLIB_PATH=$$library"

# No container engine: Debian's packages are unpacked into $(TARGET)/cross. With one, see Cross.toml.
cross: setup
	@.ci/setup debian-archive-keyring
	@cross/build

# No GPU, driver or toolkit is needed to build: .ci/cuda fetches nvcc and makes the libraries to link. Apart from the other builds, whose
# features it would change.
CUDA_FOLDER := $(TARGET)/cuda
CUDA_BUILD = environment=$$(.ci/cuda $(CUDA_FOLDER)); eval "$$environment"; RUSTFLAGS="-C target-cpu=x86-64-v3" CARGO_TARGET_DIR=$(CUDA_FOLDER) cargo

cuda:
	@$(CUDA_BUILD) build --release -p utr-training --no-default-features --features cuda --bin utr-train
	@echo "$(CUDA_FOLDER)/release/utr-train"

# The device's program for a workstation; boards get theirs from `CUDA=1 make cross`.
cuda-utr: setup
	@$(CUDA_BUILD) build --release -p utr-runtime --features cuda
	@echo "$(CUDA_FOLDER)/release/utr"

# All that waits for a GPU, in one command, but `utr --device cuda` (`make cuda-utr`).
gpu: export UTR_NEEDS_GPU := 1
gpu: peer-python cuda-test
	@$(CUDA_BUILD) run --release -p utr-training --no-default-features --features cuda --example step -- --device cuda --against-cpu
	@$(CUDA_BUILD) run --release -p utr-training --no-default-features --features cuda --example step -- --device cuda --against-cpu --precision bf16 --checkpointing --frames 2 --text 90
	@benches/train/run
	@benches/train/largest

# Before the long build.
peer-python:
	@python3 -c 'import torch, transformers' || { echo "make gpu: python3 needs torch and transformers for the comparison"; exit 1; }

cuda-test:
	@$(CUDA_BUILD) test --release -p utr-models --features cuda --lib -- --nocapture kernels device network

lint: setup
	@cargo fmt --all --check
	@cargo clippy --release --workspace --all-targets -- -D warnings

deny:
	@command -v cargo-deny > /dev/null || { echo "make deny: cargo-deny is missing; cargo install --locked cargo-deny"; exit 1; }
	@cargo deny check licenses bans sources

setup:
	@.ci/setup $(PACKAGES)
