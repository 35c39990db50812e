# What one can do with a checkout. Everything happens in .venv, which is made when it is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install -c constraints.txt
MINIMAL := build/minimal
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help train test check docs format tools chromium nginx screenshots bench leaderboard device soak start wheel release clean

help: ## List these targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F '\t' '{printf "make %-11s %s\n", $$1, $$2}'

train: $(VENV)/run ## Train the default run: a small GPT on English text (ARGS="trainer.max_step=100")
	@$(BIN)/python -m darkit.train $(ARGS)

test: $(VENV)/test tools chromium nginx ## Run all tests (ARGS="tests/runs -k lock")
	@$(BIN)/python -m pytest -q -n 2 --dist=worksteal --timeout=900 $(ARGS)

check: $(VENV)/test docs ## Check format, lint, types and the documentation's links
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

docs: $(VENV)/test ## Build the documentation site into build/site; a broken link is an error
	@$(BIN)/python docs/stage.py
	@cd build && ../$(BIN)/zensical build --clean --strict

format: $(VENV)/test ## Put the code into its format and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

tools: ## Get Debian's strace, with which the tests let system calls fail, where it is missing and can be had
	@sh tests/faults/get-strace

chromium: ## Get Debian's Chromium, which the dashboard's tests drive, where it is missing and can be had
	@sh tests/dashboard/get-chromium

nginx: ## Get Debian's nginx, behind which a test looks at the dashboard, where it is missing and can be had
	@sh tests/dashboard/get-nginx

screenshots: $(VENV)/test chromium ## Make the pictures of the dashboard for the README
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.dashboard.screenshots

bench: $(VENV)/bench $(MINIMAL)/run ## Measure against the plain loop, Lightning and Hugging Face (ARGS=quick, ARGS="steps")
	@$(BIN)/python tests/benchmarks/run.py $(ARGS)

leaderboard: $(VENV)/test ## Train the built-in models and write docs/leaderboard.md
	@$(BIN)/python tests/benchmarks/leaderboard.py

device: $(VENV)/test ## Run the checks that need a GPU, and print a table
	@$(BIN)/python -m tests.device

soak: $(VENV)/test tools chromium nginx ## Run the long tests
	@$(BIN)/python -m pytest -q -m soak $(ARGS)

start: $(VENV)/run ## Show the dashboard
	@$(BIN)/darkit start $(ARGS)

wheel: $(VENV)/test ## Build the wheel into dist/
	@$(BIN)/python -m build --wheel --no-isolation --outdir dist .

release: $(VENV)/test ## Set the version, build, and check the build on each installed Python (VERSION=0.2.0)
	@$(BIN)/python .ci/release.py $(VERSION)

clean: ## Remove .venv and everything that was built
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "darkit needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "This Python has no venv: on Debian, apt install python3-venv"; exit 1; }

$(VENV)/run: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing darkit and what it needs into $(VENV) ..."
	@$(PIP) -e .
	@touch $@

$(VENV)/test: $(VENV)/run
	@echo "Installing what the tests need into $(VENV) ..."
	@$(PIP) -e '.[test,dev]'
	@$(PIP) --no-deps norse spikingjelly # whose torchvision, for data sets, needs a CUDA build of torch
	@touch $@

$(MINIMAL)/run: pyproject.toml constraints.txt # darkit as its users install it, without what the tests add
	@$(PYTHON) -m venv $(MINIMAL)
	@$(MINIMAL)/bin/python -m pip --disable-pip-version-check --quiet install -c constraints.txt -e .
	@touch $@

$(VENV)/bench: $(VENV)/test
	@$(PIP) -e '.[bench]'
	@touch $@
