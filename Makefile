# Needs only Python, make and the package index. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Without bytecode files, every test process would compile all tests again.
unexport PYTHONDONTWRITEBYTECODE
# Number of test processes. Each runs one thread.
WORKERS ?= 2
PYTEST := $(BIN)/pytest -q -n $(WORKERS) --dist worksteal
# Tests that have targets of their own.
ELSEWHERE := --ignore=tests/peers --ignore=tests/browser
TOGETHER := $(MAKE) --no-print-directory --jobs=2

.PHONY: help demo docs test test-all test-browser test-peers test-peers-all coverage lint types unit unit-all wheel format clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/'

demo: $(VENV)/.installed ## Run the demo on the bundled network and images
	$(BIN)/smoothed demo --plot smoothed-demo.png --json smoothed-demo.json

test: lint ## Check style and types, and run all tests but the slow ones
	@$(TOGETHER) types unit

test-all: lint ## Check style and types, and run all tests
	@$(TOGETHER) types unit-all

lint: $(VENV)/.installed-test ## Check style
	$(BIN)/ruff format --check src tests benchmarks docs
	$(BIN)/ruff check src tests benchmarks docs

types: $(VENV)/.installed-test ## Check types
	$(BIN)/basedpyright

unit: $(VENV)/.installed-test ## Run tests and doctests but the slow ones
	$(PYTEST) -m "not slow" $(ELSEWHERE)

unit-all: $(VENV)/.installed-test ## Run all tests and doctests
	$(PYTEST) $(ELSEWHERE)

test-peers: $(VENV)/.installed-peers ## Compare attacks and certificates with other libraries, but for AutoAttack
	$(PYTEST) -m "not slow" tests/peers

test-peers-all: $(VENV)/.installed-peers ## The same with AutoAttack, which takes up to an hour
	$(PYTEST) tests/peers

test-browser: $(VENV)/.installed-browser ## Open pages in Chromium; the tests are skipped where it can't be installed
	$(PYTEST) tests/browser

docs: $(VENV)/.installed-docs ## Build the site with its examples into docs/_build/html; warnings are errors
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build/html

coverage: $(VENV)/.installed-test ## List the lines that no test runs
	COVERAGE_FILE=$(VENV)/.coverage $(PYTEST) $(ELSEWHERE) --cov=smoothed --cov-report=term-missing:skip-covered

wheel: $(VENV)/.installed-test ## Build the wheel and run it outside the checkout
	PYTHON=$(BIN)/python .ci/wheel

format: $(VENV)/.installed-test ## Format the sources
	$(BIN)/ruff format src tests benchmarks docs
	$(BIN)/ruff check --fix src tests benchmarks docs

clean: ## Remove the environment, the site and the caches of the tools
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
	rm -rf docs/_build docs/auto_gallery docs/api/generated docs/api/backreferences

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --constraint constraints.txt --editable '.[test]'
	touch $@
	touch $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --constraint constraints.txt --editable '.[docs]'
	touch $@
	touch $(VENV)/.installed

# Chromium is a package of Debian's, which root alone can install. Elsewhere it may be there already.
$(VENV)/.installed-browser: $(VENV)/.installed-test
	$(PIP) install --constraint constraints.txt --editable '.[browser]'
	command -v chromium || { [ "$$(id -u)" = 0 ] && timeout 300 apt-get update -q && timeout 600 apt-get install -q -y --no-install-recommends chromium; } || true
	touch $@

# These require torchvision or TensorFlow, which the attacks compared here do not use.
$(VENV)/.installed-peers: $(VENV)/.installed-test
	$(PIP) install --constraint constraints.txt --editable '.[peers]'
	$(PIP) install --constraint constraints.txt --no-deps cleverhans pyautoattack torchattacks
	touch $@
