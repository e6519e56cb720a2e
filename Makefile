# make run      install, start the service on 127.0.0.1:8000 and answer a first question
# make test     install what tests need and run every check
# make chaos    kill, starve and confuse the service for an hour or so, and print a table of how it went
# make bench    measure quality and speed with DATA=<evaluation data>, into benchmarks/reports
# make fuzz     let schemathesis try the whole API: 20,000 requests and more, and 30 minutes along its links
# make install  the set-up part alone, into .venv
PYTHON ?= python3
VENV ?= .venv
HOST ?= 127.0.0.1
PORT ?= 8000
DOCS ?=
DATA ?= ../shared/data
BIN := $(VENV)/bin
# Tests start hundreds of processes; where Python may not keep what it compiled, each compiles all of it again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run install test check chaos bench fuzz clean

run: install
	$(BIN)/rag quickstart --host $(HOST) --port $(PORT) $(if $(DOCS),--docs "$(DOCS)")

install: $(VENV)/.installed

test: $(VENV)/.installed-dev check
	$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

chaos: $(VENV)/.installed-dev
	$(BIN)/python -m tests.chaos $(SCENARIO)

bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks.report --data "$(DATA)"

fuzz: $(VENV)/.installed-dev
	$(BIN)/python -m tests.security.fuzz --examples 250 --phases examples,coverage,fuzzing
	$(BIN)/python -m tests.security.fuzz --examples 250 --phases stateful --seconds 1800

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
