# Groundcrew. `make help` lists the targets.

PYTHON ?= python3
AIRFLOW ?= 3
KEEP ?=
ALL ?=
NAME ?=
MINUTES ?= 5
SEED ?=
SECONDS ?= 30
TARGETS ?=
BASE ?= registry
UPGRADE ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
TESTS ?= tests
# Tests wait more than they compute: three files run at a time. JOBS=0 uses one process (for --pdb).
JOBS ?= 3
PYTEST = $(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

# Hundreds of short processes import the same modules: none of them compiles these anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo envtest node node-test test-tools test test-fast chaos fuzz audit check fix docs generate manifests bench wheel image lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv with the groundcrew command

setup-dev: $(READY_DEV) ## Add to .venv what checks, tests, docs and benchmarks use

$(READY): pyproject.toml scripts/setup
	@PYTHON="$(PYTHON)" scripts/setup "$(VENV)"
	@touch $@

$(READY_DEV): pyproject.toml scripts/setup
	@PYTHON="$(PYTHON)" scripts/setup "$(VENV)" dev
	@touch $(READY) $@

demo: setup ## Play the main job on a real Airflow (AIRFLOW=2.11, KEEP=1 to leave it running)
	$(BIN)/groundcrew demo --airflow $(AIRFLOW) $(if $(KEEP),--keep)

envtest: setup-dev ## Build a Kubernetes control plane for the tests, once (Go; or set KUBEBUILDER_ASSETS)
	scripts/envtest/build $(VENV)

node: envtest ## Build a real Kubernetes node for the tests, once (root, Go, Debian's runc and CNI)
	scripts/node/build $(if $(ALL),--all)
	$(BIN)/python -m tests.harness.node

node-test: node ## Tests on a real node, with a kubelet and containers (ALL=1 for those of nights too)
	$(if $(ALL),GROUNDCREW_NODE_RESULTS=tests/node/results.md) \
	  $(BIN)/pytest -n 0 $(if $(ALL),,-m "not nightly") tests/node

test-tools: ## Install the packages that the tests use, as far as this user may
	scripts/install-test-tools

test: test-tools setup-dev ## All tests, the whole way on real Airflow included (TESTS=path for some, JOBS=…)
	@scripts/envtest/build $(VENV) || echo "note: no control plane (see above); Kubernetes tests are skipped" >&2
	$(PYTEST) -m "not node" --durations 40 --durations-min 20 $(TESTS)

test-fast: test-tools setup-dev ## All tests that do not take minutes
	$(PYTEST) -m "not slow" $(TESTS)

# In separate namespaces: its mounts and processes end with it, and it sees no other daemon's Airflow.
chaos: setup-dev ## Kill the daemon and break what is around it, over and over (root; MINUTES=5 SEED=… FAULTS=more in each round)
	scripts/install-test-tools
	unshare --mount --pid --fork --kill-child --mount-proc \
	  $(BIN)/python -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) \
	  $(if $(FAULTS),--more-faults $(FAULTS))

fuzz: setup-dev ## Fuzz what parses untrusted input (SECONDS=30 for each target, TARGETS=some, SEED=…)
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(TARGETS)

audit: setup-dev ## Compare what the image installs with advisories and with the index's own releases
	$(BIN)/python -m scripts.audit

check: setup-dev ## Format, ruff, plain names and docstrings, mypy strict, layers, Dockerfile, generated files, docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m scripts.prose
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(BIN)/python -m gitsource.schema --check
	$(BIN)/python -m scripts.docs --check
	$(BIN)/python -m deploy.grafana --check
	$(BIN)/python -m reconciler.api.openapi --check
	$(BIN)/python -m reconciler.cli.reference --check
	$(BIN)/python -m scripts.manifests --check
	$(MKDOCS)

fix: setup-dev ## Format, and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The theme announces its successor on every build, which does not matter here.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
docs: setup-dev ## Build the docs as a site in build/site; a warning is an error
	$(MKDOCS)

generate: setup-dev ## Write the JSON Schema, generated pages of docs/, the dashboards and OpenAPI anew
	$(BIN)/python -m gitsource.schema
	$(BIN)/python -m scripts.docs
	$(BIN)/python -m deploy.grafana
	$(BIN)/python -m reconciler.api.openapi
	$(BIN)/python -m reconciler.cli.reference

manifests: setup-dev ## Write the chart's copies and schema and deploy/manifests anew
	$(BIN)/python -m scripts.manifests

bench: setup-dev ## Run the benchmarks beside what a user would do instead (NAME=one of them)
	$(BIN)/python -m benchmarks $(NAME)

wheel: setup ## Build Groundcrew's own wheel in dist, for a CI that plans
	$(BIN)/uv build --quiet --wheel --out-dir dist

image: ## Build the container image with buildah (BASE=debootstrap where no registry is reached)
	$(PYTHON) scripts/image --base $(BASE)

# Existing pins are kept; UPGRADE=1 takes the newest versions that pyproject.toml allows.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)
lock: setup ## Lock what the image installs, with hashes (UPGRADE=1 for newer versions)
	$(LOCK) --extra forges --extra postgresql --output-file deploy/image/requirements.lock pyproject.toml
	$(LOCK) --output-file deploy/image/build.lock deploy/image/build.in

clean: ## Remove .venv, caches and what the demo made
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
