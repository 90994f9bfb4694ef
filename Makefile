# Everything a developer does, from a fresh clone. `make help` lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo test lint bench fuzz interop clean

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

demo: $(READY) ## everything once, on simulated galaxies: about five minutes, ends with a report
	$(BIN)/zoobot demo --save-dir demo

test: lint ## lint, then the doctests and the tests
	$(BIN)/pytest

# IMAGES=folder/with/pngs takes real images; TensorFlow takes part once `make interop` has installed it
IMAGES_OPTION = $(if $(IMAGES),--folder $(IMAGES))
TENSORFLOW_OPTION = $(if $(wildcard .venv-tensorflow/.ready),--tensorflow-python .venv-tensorflow/bin/python)

bench: $(READY) ## benchmarks, on a machine that does nothing else (about 25 minutes)
	$(BIN)/python benchmarks/decoding.py $(IMAGES_OPTION)
	$(BIN)/python benchmarks/decoding.py --file-format jpg
	$(BIN)/python benchmarks/decoding.py --file-format fits
	$(BIN)/python benchmarks/catalogs.py
	$(BIN)/python benchmarks/creating_shards.py $(IMAGES_OPTION) $(TENSORFLOW_OPTION)
	$(BIN)/python benchmarks/reading_shards.py $(IMAGES_OPTION) $(TENSORFLOW_OPTION)
	$(BIN)/python benchmarks/losses.py
	$(BIN)/python benchmarks/training_step.py $(TENSORFLOW_OPTION)
	$(BIN)/python benchmarks/prediction.py $(IMAGES_OPTION) $(TENSORFLOW_OPTION)
	$(BIN)/python benchmarks/predict_pipeline.py $(IMAGES_OPTION)
	$(BIN)/python benchmarks/kill_prediction.py
	$(BIN)/python benchmarks/runtimes.py
	$(BIN)/python benchmarks/posteriors.py
	$(BIN)/python benchmarks/simulating.py
	$(BIN)/python benchmarks/scaling.py

FUZZ_SECONDS ?= 600

fuzz: $(READY) ## fuzz every parser of strangers' files, ten minutes each (installs atheris)
	$(BIN)/pip install --quiet atheris
	for parser in tree tfrecord catalog image fits; do $(BIN)/python tests/fuzzing/fuzz.py $$parser $(FUZZ_SECONDS) || exit 1; done
	! find findings -type f | grep .

interop: $(READY) ## TensorFlow's own parser reads our shards (installs TensorFlow in a venv of its own)
	PYTHON=$(PYTHON) interop/run.sh

clean: ## delete the environments and caches
	rm -rf .venv .venv-* build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis findings
