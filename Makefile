# The verbs of this project; each sets up .venv by itself. `make demo` and `make test` are all that a newcomer needs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test check fix slow faults bench

setup: .venv/.ready

.venv/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Thinslice needs Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || { echo "Python's venv module is missing: on Debian, apt install python3-venv"; exit 1; }
	@echo "Setting up .venv (once, about two minutes) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch .venv/.ready

demo: setup
	@$(BIN)/thinslice demo

test: setup
	@$(BIN)/python tests/run.py test

check: setup
	@$(BIN)/ruff check src tests benchmarks
	@$(BIN)/ruff format --check src tests benchmarks
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/mypy

fix: setup
	@$(BIN)/ruff check --fix src tests benchmarks
	@$(BIN)/ruff format src tests benchmarks

slow: setup
	@$(BIN)/python tests/run.py slow

faults: setup
	@$(BIN)/python tests/run.py faults

bench: setup
	@$(BIN)/python -m benchmarks
