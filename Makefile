# Every target works in a fresh clone: the first one that is asked for makes .venv.
BIN := .venv/bin
FIND_PYTHON := for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done
PYTHON ?= $(shell $(FIND_PYTHON))
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

.PHONY: help demo test fast soak lint docs bench
help:
	@echo "make demo   learn the digits, draw new ones, write a report"
	@echo "make test   every test; make fast: those under five seconds; make soak: 200 kills, 5,000 damaged checkpoints"
	@echo "make lint   style and types; make docs: the documentation; make bench: the figures of the README"

.venv/.ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "undiffuse needs Python 3.11 or newer; install it or say make PYTHON=/path/to/python"; exit 1; }
	@echo "Installing into .venv (about 1 GB; a few minutes the first time)."
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: .venv/.ready
	$(BIN)/undiffuse train digits --out runs/digits
	$(BIN)/undiffuse sample runs/digits --n 100 --label all --out runs/digits/samples.png
	$(BIN)/undiffuse report runs/digits

test: .venv/.ready
	$(PYTEST)

fast: .venv/.ready
	$(PYTEST) -m "not slow"

soak: .venv/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --durations=0 tests/training/soak.py

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: .venv/.ready
	@test -f docs/conf.py || { echo "There is no docs/conf.py yet."; exit 1; }
	@$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e ".[docs]"
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build -q -W docs docs/_build

bench: .venv/.ready
	@test -f benchmarks/__main__.py || { echo "There are no benchmarks yet."; exit 1; }
	$(BIN)/python -m benchmarks
