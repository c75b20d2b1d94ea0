# Two commands do everything on a machine with Python ≥ 3.11 and make: `make demo` and `make test`.
PYTHON ?= python3
# The CPU build where the package index or a local folder offers one. On a machine with a GPU:
# make demo TORCH=torch   (the index's newest CUDA build)
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
# What everything needs, what the demo needs, and what tests and checks need besides.
TORCHED := $(VENV)/torch
RUNTIME := $(VENV)/runtime
STAMP := $(VENV)/installed

.PHONY: demo test test-slow lint install clean

demo: $(RUNTIME)
	@echo "3/3  running the demo: verdicts and tables in a few minutes"
	@$(BIN)/sfumato demo

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-slow: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow or not slow" -n 2

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(STAMP)

$(TORCHED):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sfumato needs Python 3.11 or newer")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import torch' 2>/dev/null || { \
	echo "1/3  installing $(TORCH) into $(VENV): the largest part, minutes without a word"; \
	$(BIN)/python -m pip install -q "$(TORCH)"; }
	@touch $@

$(RUNTIME): pyproject.toml setup.py | $(TORCHED)
	@echo "2/3  installing sfumato, numpy, scipy, ase, plotly, tblite and others: about a minute"
	@$(BIN)/python -m pip install -q -e ".[xtb]"
	@touch $@

$(STAMP): pyproject.toml setup.py | $(TORCHED)
	@echo "installing sfumato and what its tests need, PySCF, RDKit, mypy and others: minutes without a word"
	@$(BIN)/python -m pip install -q -e ".[dev]"
	@touch $(RUNTIME) $@

clean:
	rm -rf $(VENV) build demo runs .mypy_cache .ruff_cache .pytest_cache .hypothesis
