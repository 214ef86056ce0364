# Every target may be run again at any time. `make` alone lists them.
PYTHON ?= python3
export PYTHON
# Tests start hundreds of processes; compiled code makes each start an eighth cheaper.
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin

.PHONY: help setup up run demo test soak down reset
.NOTPARALLEL:
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

setup: ## Debian packages (as root, if missing), .venv, the project in it
	@devstack/setup.sh

up: setup ## the services and .env; no process of the pipeline
	@$(BIN)/python -m devstack up

run: up ## the pipeline's processes (Procfile), restarted when they end, until Ctrl-C
	@exec $(BIN)/python -m devstack run

demo: up ## the whole way in one go: rows committed, killed on the way, verified
	@$(BIN)/python -m example.demo

test: up ## every gate: ruff, mypy, import-linter, all tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -m "not soak" --numprocesses=2 --dist=loadfile --no-loadscope-reorder --durations=20

soak: up ## the long chaos and property runs
	SOAK=1 $(BIN)/pytest --hypothesis-profile=soak tests/properties tests/acceptance
	SOAK=1 $(BIN)/pytest -m soak tests/integration

down: ## stop every process of this clone, keep its data
	@test ! -x $(BIN)/python || $(BIN)/python -m devstack down

reset: ## stop every process and delete the services' data
	@test ! -x $(BIN)/python || $(BIN)/python -m devstack reset --yes
