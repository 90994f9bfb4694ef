# Everything a developer does, from a fresh clone. `make help` lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCHMARKS := decoding losses creating_shards reading_shards training_step prediction scaling

.PHONY: help setup test lint bench interop clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

setup: $(READY) ## make .venv with the exact versions that were tested

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

lint: $(READY) ## ruff, mypy and the layers of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint ## lint, then the doctests and the tests
	$(BIN)/pytest

# BENCH passes options on, such as BENCH="--folder folder/with/pngs --tensorflow-python .venv-tensorflow/bin/python"
bench: $(READY) ## benchmarks, on a machine that does nothing else (about 15 minutes)
	for name in $(BENCHMARKS); do $(BIN)/python benchmarks/$$name.py $(BENCH) || exit 1; done

interop: $(READY) ## TensorFlow's own parser reads our shards (installs TensorFlow in a venv of its own)
	sh interop/run.sh

clean: ## delete the environments and caches
	rm -rf .venv .venv-* build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
