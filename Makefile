# `make quickstart` runs the main job, `make test` passes the tests; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
PYTHON := .venv/bin/python
export OMP_NUM_THREADS ?= $(shell nproc 2>/dev/null || echo 1)
export TOKENIZERS_PARALLELISM := false
DEMO := examples/01-pig-latin/job.yaml

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.tools/bin/uv:
	@echo "Installing uv into .tools (nothing outside this folder changes)"
	@python3 -m pip install --quiet --disable-pip-version-check --no-warn-script-location --target .tools uv 2>/dev/null \
	  || { python3 -m venv .tools && .tools/bin/python -m pip install --quiet uv; } \
	  || { echo "Could not install uv: install it from https://docs.astral.sh/uv and run again" >&2; exit 1; }

$(UV):

.PHONY: quickstart
quickstart: $(UV) ## Install everything and fine-tune a real 135 M-parameter model on this machine's CPU
	@echo "Installing the locked environment (the first time: about 6 GB with torch)"
	@$(UV) sync --frozen --inexact --compile-bytecode --extra trainer --extra demo
	@.venv/bin/finetune run $(DEMO)

.PHONY: install
install: $(UV) ## Install the environment for development (operator, trainer, demo, tools)
	@$(UV) sync --frozen --all-extras --group dev --compile-bytecode

.PHONY: generate
generate: install ## Generate crds/, the chart's copy of them and the API reference from the models
	@$(PYTHON) -m finetune_operator.api.crd crds charts/finetune-operator/files/crds
	@$(PYTHON) -m tools.reference docs/reference.md

.PHONY: golden
golden: install ## Regenerate the expected files of the golden tests; review them in the diff
	@$(PYTHON) -m tests.golden.regenerate

.PHONY: verify
verify: generate ## Fail when generated files differ from what is committed
	@test -z "$$(git status --porcelain -- crds charts/finetune-operator/files docs/reference.md)" \
	  || { git --no-pager diff --stat -- crds charts docs/reference.md; git status --short -- crds charts docs/reference.md; echo "Generated files are out of date: run 'make generate' and commit them" >&2; exit 1; }

.PHONY: lint
lint: install ## Style (ruff), types (mypy --strict), architecture (import-linter)
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/lint-imports --no-cache
	@.venv/bin/mypy

.PHONY: cluster-build
cluster-build: ## Build the Kubernetes of the tests (about 12 minutes the first time, then cached)
	@python3 -m tests.cluster.harness build

.PHONY: kueue-build
kueue-build: ## Build the Kueue of `make test-kueue` (about 8 minutes the first time, then cached)
	@python3 -m tests.cluster.harness build --kueue

.PHONY: cluster
cluster: install ## Start a real single-node Kubernetes and print its KUBECONFIG
	@$(PYTHON) -m tests.cluster.harness up

.PHONY: cluster-operator
cluster-operator: install ## Run the operator against it, with training pods from this checkout's environment
	@$(PYTHON) -m tests.cluster.support.serve

.PHONY: cluster-down
cluster-down: ## Stop it and remove every trace
	@$(PYTHON) -m tests.cluster.harness down

.PHONY: prepare
prepare: install cluster-build

.PHONY: test
test: ## Everything: lint, types, imports, unit, golden, contract and real-cluster tests
	@$(MAKE) --no-print-directory -j2 prepare
	@$(MAKE) --no-print-directory lint verify
	@$(PYTHON) -m pytest tests -n 2 --dist loadfile

.PHONY: test-kueue
test-kueue: install kueue-build ## The operator under the real Kueue, on the real cluster
	@$(PYTHON) -m pytest tests/cluster -m kueue

.PHONY: test-matrix
test-matrix: install ## Every combination of the compatibility table, by a gang of two (about ten minutes)
	@$(PYTHON) -m pytest tests/unit -m matrix

.PHONY: test-fast
test-fast: install ## Unit, golden and contract tests only
	@$(PYTHON) -m pytest tests/unit tests/golden tests/contract

.PHONY: mutants
mutants: install ## Break plan/ and cluster/ in 9,000 ways and count what no test notices (half an hour of CPU; SAMPLE=200: a minute)
	@$(PYTHON) -m tools.mutants $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED))

.PHONY: bench
bench: install ## Operator and trainer benchmarks; they print tables of ratios
	@$(PYTHON) -m benchmarks.trainer
	@$(PYTHON) -m benchmarks.operator

.PHONY: bench-peers
bench-peers: install ## The operator against Kubeflow Trainer with JobSet (the first time, about ten minutes to build them)
	@$(PYTHON) -m benchmarks.peers

.PHONY: clean
clean: ## Remove the environment, caches and local runs
	@rm -rf .venv .tools .finetune .mypy_cache .ruff_cache .pytest_cache .mutants
