# Every target sets up what it needs first: Python >= 3.11 with pip is enough.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=
# a new stamp name whenever pyproject.toml changes; while it exists pip is not called at all
STAMP  := $(VENV)/.installed-$(shell cksum < pyproject.toml | tr ' ' '-')

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test slow check format docs clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## create .venv and install the package with everything for development

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Expected PYTHON to be Python 3.11 or newer, but got $$($(PYTHON) --version 2>&1);" \
	       "name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV), once; PyTorch is the big download."
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'
	@rm -f $(VENV)/.installed-* && touch $@

quickstart: $(STAMP)  ## fine-tune on 25 % of the full cost, against full training on 50 % (ARGS="key=value ...")
	$(BIN)/python -m recipes.quickstart $(ARGS)

test: $(STAMP)  ## the default tests, offline (ARGS="-k name")
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(ARGS)

slow: $(STAMP)  ## the tests marked slow
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "slow and not gpu" $(ARGS)

check: $(STAMP)  ## lint, format, types, import direction
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## apply the formatter and the safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)  ## build the documentation into build/docs; warnings are errors
	$(BIN)/mkdocs build --strict -f docs/mkdocs.yml

clean:  ## remove the environment, caches and runs
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis runs
