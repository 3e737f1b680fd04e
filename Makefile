# Every target works in a fresh clone: the virtual environment is made at first use.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup run demo check format test conformance bench bench-store hitratio peers profile load clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found: install Python 3.11 or later, or say make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (the first time only)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

setup: $(STAMP) ## Make .venv with everything in it

run: demo ## The same as demo

demo: $(STAMP) ## A small CDN on this machine (ARGS=--check: try it and exit)
	@$(BIN)/cdn demo $(ARGS)

check: $(STAMP) ## Lint, format, types, and the arrows of the house
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(STAMP) ## Let ruff write what it can
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

test: $(STAMP) ## All tests, with coverage (ARGS hands options to pytest)
	@$(BIN)/python -m tests.run $(ARGS)

conformance: $(STAMP) ## The public HTTP cache tests (ARGS=--shield, --peer nginx, --direct URL)
	@$(BIN)/python -m tests.conformance $(ARGS)

bench: $(STAMP) ## Each step of the hot path beside its baseline (ARGS=--save, --json, "-k hot")
	@$(BIN)/python -m bench.steps $(ARGS)

bench-store: $(STAMP) ## The disk store's figures (ARGS="p99", restart, use, kill, upgrade; --json)
	@$(BIN)/python -m bench.store $(ARGS)

hitratio: $(STAMP) ## Traces through the replacement policies (ARGS="--traces DIR", --quick, --json)
	@$(BIN)/python -m bench.hitratio $(ARGS)

peers: $(STAMP) ## CPU per request beside nginx, Varnish, Traffic Server (ARGS="--workload zipf --quick")
	@$(BIN)/python -m bench.peers $(ARGS)

profile: $(STAMP) ## A flame graph of the edge under WORKLOAD (default: hot-1k)
	@$(BIN)/python -m bench.peers.profile --workload $(or $(WORKLOAD),hot-1k) $(ARGS)

load: $(STAMP) ## Locust against HOST (default: a demo's first edge)
	@$(BIN)/locust -f bench/ --headless -u 50 -r 50 -t 20s --host $(or $(HOST),http://127.0.0.1:8080) $(ARGS)

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks .coverage .coverage.*
