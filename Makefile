# Groundcrew. `make help` lists what there is.

PYTHON ?= python3
AIRFLOW ?= 3
KEEP ?=
NAME ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TESTS ?= tests

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast check fix generate bench clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv with the groundcrew command

$(READY): pyproject.toml scripts/setup
	PYTHON="$(PYTHON)" scripts/setup "$(VENV)"
	@touch $@

demo: setup ## Play the main job on a real Airflow (AIRFLOW=2.11, KEEP=1 to leave it running)
	$(BIN)/groundcrew demo --airflow $(AIRFLOW) $(if $(KEEP),--keep)

test: setup ## All tests, the whole way on real Airflow included (TESTS=path for some)
	$(BIN)/pytest $(TESTS)

test-fast: setup ## All tests that do not take minutes
	$(BIN)/pytest -m "not slow" $(TESTS)

check: setup ## Format, ruff, mypy strict, layers, generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m gitsource.schema --check

fix: setup ## Format, and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

generate: setup ## Write the JSON Schema and docs/definitions.md anew
	$(BIN)/python -m gitsource.schema

bench: setup ## Run the benchmarks beside what a user would do instead (NAME=one of them)
	$(BIN)/python -m benchmarks $(NAME)

clean: ## Remove .venv, caches and what the demo made
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
