PYTHON ?= python3
BENCH ?= --output docs/bench.json --page docs/speed.md
BIN := .venv/bin

.PHONY: help quickstart test test-all test-nightly check bench
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/ready: setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "This needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 ..."; exit 1; }
	@echo "== installing into .venv (once; a few minutes, mostly torch)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
	@echo "== .venv is ready"

quickstart: .venv/ready  ## set up, render faces, train a small model on them, show what it learned (minutes on a laptop, no network)
	$(BIN)/accelerate launch --quiet scripts/finetune.py recipes/quickstart.yaml

test: .venv/ready  ## set up, run the tests (ten minutes on two quiet cores, no GPU)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not long'

test-all: test  ## after them the long ones: killed runs, every architecture, browsers, the wheel
	$(BIN)/python -m pytest -n 3 --dist worksteal -m 'long and not nightly'

test-nightly: test-all  ## and the longest: the bench itself, memory, two machines, hundreds of extreme faces
	$(BIN)/python -m pytest -n 3 --dist worksteal -m nightly

check: .venv/ready  ## set up, ruff, mypy and the fast tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 -m 'not slow and not long'

bench: .venv/ready  ## set up, measure speed and memory beside the stock way (15 minutes on two quiet cores; on a GPU: make bench BENCH="--device cuda")
	$(BIN)/python -m scripts.bench $(BENCH)
