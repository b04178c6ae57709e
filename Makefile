# Each target sets up what it needs. Only Python 3.11+, make and the package registries are required.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
BENCHES ?= $(basename $(notdir $(shell grep -l __main__ bench/*.py)))

.PHONY: setup demo test test-real test-peers test-cluster check bench clean

setup: $(VENV)/.installed
demo: setup            ## run the whole loop on an example and watch it scale
	@$(BIN)/flyball demo

test: $(VENV)/.dev     ## unit, property and conformance tests; no root, no cluster
	@$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal -m "not real and not peer and not cluster"

test-real: $(VENV)/.dev ## the same product under the stock kubectl
	@FLYBALL_KUBECTL="$$($(BIN)/python tools/kubectl.py)" $(BIN)/python -m pytest -m real

test-peers: $(VENV)/.dev ## beside peers that Go builds: Prometheus, prometheus-adapter, helm (the first build takes minutes)
	@$(BIN)/python -m pytest -m peer

test-cluster: $(VENV)/.dev ## beside a real control plane: etcd, kube-apiserver, controllers (needs Go)
	@$(BIN)/python tests/cluster/build.py >/dev/null || echo "make: what needs them is skipped" >&2
	@$(BIN)/python -m pytest -m cluster -rs tests/cluster

check: $(VENV)/.dev    ## lint, types, layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

bench: $(VENV)/.dev    ## the measurements, hours of them; BENCHES="query ingest" takes some (their peers need Go and Debian)
	@failed=""; for name in $(BENCHES); do echo "bench.$$name"; $(BIN)/python -m bench.$$name || failed="$$failed $$name"; \
	done; test -z "$$failed" || { echo "make: not measured:$$failed" >&2; exit 1; }

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(VENV)/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 or newer is needed; none was found on the PATH" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing flyball into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fast]'
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	@echo "installing the development tools ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fast,dev]'
	@touch $@
