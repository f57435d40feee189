# One command for each thing people do here. Needs Linux, make and Python 3.11; everything else is fetched.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
ISA := $(BIN)/isa
ARGS ?=

# uv asks the index that pip is told to ask.
export UV_DEFAULT_INDEX ?= $(or $(PIP_INDEX_URL),https://pypi.org/simple)
export UV_PROJECT_ENVIRONMENT := $(VENV)

.PHONY: help setup setup-tests run start stop status demo test check unit lint format generate bench chaos compose-test deploy-test dr-drill

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/uv: runtime/bootstrap.txt
	@version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true); \
	if [ "$$version" != 3.11 ]; then echo "Python 3.11 is needed (make PYTHON=/path/to/python3.11 ...)." >&2; exit 1; fi
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --upgrade >/dev/null
	@echo "Installing uv into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r runtime/bootstrap.txt
	@touch $@

$(VENV)/synced: $(BIN)/uv uv.lock pyproject.toml client/pyproject.toml
	@echo "Installing the packages of uv.lock into $(VENV)"
	@$(BIN)/uv sync --frozen --quiet --all-groups
	@touch $@

setup: $(VENV)/synced ## Set up: virtual environment from uv.lock, engines into the cache (the first time: minutes)
	@$(ISA) setup

setup-tests: $(VENV)/synced ## The same, and what only tests run: Helm, promtool, Terraform's providers, Consul, ...
	@$(ISA) setup --tests

run: $(VENV)/synced ## Set up, start everything, tell the story, stay up with a table of the parts (Ctrl-C stops all)
	@exec $(ISA) run $(ARGS)

start: $(VENV)/synced ## Start everything in the background
	@$(ISA) start $(ARGS)

stop: $(VENV)/synced ## Stop everything; the data stays (isa down --wipe deletes it)
	@$(ISA) stop

status: $(VENV)/synced ## Show every part: state, pid, port, memory
	@$(ISA) status

demo: $(VENV)/synced ## Tell the story against the started set
	@$(ISA) demo $(ARGS)

test: setup-tests ## Every test; starts what it needs on ports and data of its own
	@$(BIN)/python -m pytest $(ARGS)

check: setup-tests ## What every commit passes, without a running set: lint, unit tests, charts, rules, Terraform
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m pytest tests/unit tests/architecture tests/deploy $(ARGS)

unit: $(VENV)/synced ## The tests that need no engine: a minute
	@$(BIN)/python -m pytest tests/unit tests/architecture $(ARGS)

lint: $(VENV)/synced ## ruff, mypy, import contracts, buf
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/buf lint schemas

format: $(VENV)/synced ## Format the code
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

generate: $(VENV)/synced ## Regenerate what is made from the sources: schemas/gen, docs/reference, charts/derived
	@$(BIN)/python -m schemas.generate $(ARGS)
	@$(BIN)/python -m tests.requirements $(ARGS)
	@$(BIN)/python -m docs.configuration $(ARGS)
	@$(BIN)/python -m docs.attack $(ARGS)
	@$(BIN)/python -m charts.derive $(ARGS)
	@$(BIN)/python -m charts.copies $(ARGS)

bench: $(VENV)/synced ## The benchmarks: make bench ARGS=adapters, pipeline or tasks
	@$(BIN)/python -m bench $(ARGS)

chaos: $(VENV)/synced ## Kill parts under load and count what was lost
	@$(BIN)/python -m pytest tests/chaos $(ARGS)

compose-test: $(VENV)/synced ## The same set in containers: up, story, restart, data still there (long)
	@ISA_COMPOSE_TEST=1 $(BIN)/python -m pytest -q -s tests/compose/test_up.py $(ARGS)

deploy-test: $(VENV)/synced ## A real Kubernetes on this machine, and all that git says in it (root; an hour the first time)
	@$(ISA) setup --cluster
	@ISA_DEPLOY_TEST=1 $(BIN)/python -m pytest -q -s tests/deploy/cluster $(ARGS)
	@ISA_DEPLOY_TEST=1 ISA_TERRAFORM=all $(BIN)/python -m pytest -q tests/deploy -k terraform $(ARGS)

dr-drill: $(VENV)/synced ## Lose everything of a set of its own, restore it, compare what is there (minutes)
	@ISA_DR_DRILL=1 $(BIN)/python -m pytest -q tests/integration/test_dr_drill.py $(ARGS)
