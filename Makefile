# One command each; every target makes .venv by itself. PYTHON=/path/to/python chooses the interpreter (3.10 or newer).
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3.10 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := $(VENV)/.peers
MODELS := build/models
DEMO := build/demo
FUZZ_SECONDS ?= 600

# One thread a process: the tests run in two processes, and numbers do not depend on how a sum was split.
export OMP_NUM_THREADS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow fuzz lint types bench bench-scale clean

help:
	@echo "make demo        optimize GoogLeNet, verify it, build a TensorRT-RTX engine, print the report"
	@echo "make test        the tests, but the slow ones and the fuzzer"
	@echo "make test-slow   the tests that take minutes"
	@echo "make fuzz        random models for FUZZ_SECONDS seconds ($(FUZZ_SECONDS))"
	@echo "make lint types  style and types"
	@echo "make bench       the peers side by side over models/, into docs/benchmarks/"
	@echo "make bench-scale time and memory against size, into docs/benchmarks/"
	@echo "make clean       remove .venv and everything made here"

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev,rtx]'
	touch $@

$(PEERS): $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	touch $@

demo: $(READY)
	$(BIN)/python -m models.zoo googlenet --folder $(MODELS)
	mkdir -p $(DEMO)
	$(BIN)/graphopt optimize $(MODELS)/googlenet.onnx -o $(DEMO)/googlenet.onnx \
		--engine $(DEMO)/googlenet.plan --compute-capability 8.9 --report $(DEMO)/googlenet.json

test: $(READY)
	$(BIN)/python -m pytest -n 2

test-slow: $(READY)
	$(BIN)/python -m pytest -n 2 -m slow

fuzz: $(READY)
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

bench: $(PEERS)
	$(BIN)/python -m benchmarks.peers

bench-scale: $(PEERS)
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.large

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
