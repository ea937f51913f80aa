# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test lint clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/tested: .venv/installed requirements-test.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	@touch $@

demo: .venv/installed ## make the environment, fine-tune on the sample, show the figures
	$(BIN)/python train.py
	@echo "First      . $(BIN)/activate   (python is then this environment's)"

lint: .venv/tested ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint ## lint, then every test, on all cores; the slow integration tests begin
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

clean: ## remove the environment and caches, keep outputs/
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
