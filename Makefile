# Needs only Python, make and the package index. `make help` lists the words.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Without bytecode every worker compiles all tests anew.
unexport PYTHONDONTWRITEBYTECODE
# Processes that tests run in, one thread each.
WORKERS ?= 2
PYTEST := $(BIN)/pytest -q -n $(WORKERS) --dist worksteal
TOGETHER := $(MAKE) --no-print-directory --jobs=2

.PHONY: help demo test test-all test-peers coverage lint types unit unit-all wheel format clean

help: ## List the words
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/'

demo: $(VENV)/.installed ## Run the demo on the bundled model and images
	$(BIN)/smoothed demo --plot smoothed-demo.png --json smoothed-demo.json

test: lint ## Style, types and every test of less than 5 seconds
	@$(TOGETHER) types unit

test-all: lint ## Style, types and all tests, slow ones too: with test-peers and demo, what CI checks
	@$(TOGETHER) types unit-all

lint: $(VENV)/.installed-test ## Style
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks

types: $(VENV)/.installed-test ## Types
	$(BIN)/basedpyright

unit: $(VENV)/.installed-test ## Tests and doctests of less than 5 seconds
	$(PYTEST) -m "not slow" --ignore=tests/peers

unit-all: $(VENV)/.installed-test ## Tests and doctests, slow ones too
	$(PYTEST) --ignore=tests/peers

test-peers: $(VENV)/.installed-peers ## Side by side with other libraries
	$(PYTEST) tests/peers

coverage: $(VENV)/.installed-test ## Lines that no test runs
	COVERAGE_FILE=$(VENV)/.coverage $(PYTEST) --ignore=tests/peers --cov=smoothed --cov-report=term-missing:skip-covered

wheel: $(VENV)/.installed-test ## Build the wheel and try it outside the checkout
	PYTHON=$(BIN)/python .ci/wheel

format: $(VENV)/.installed-test ## Rewrite the sources in style
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/ruff check --fix src tests benchmarks

clean: ## Remove the environment and what tests leave
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --constraint constraints.txt --editable '.[test]'
	touch $@
	touch $(VENV)/.installed

# These ask for torchvision or TensorFlow, which the attacks we compare with don't use.
$(VENV)/.installed-peers: $(VENV)/.installed-test
	$(PIP) install --constraint constraints.txt --editable '.[peers]'
	$(PIP) install --constraint constraints.txt --no-deps cleverhans pyautoattack torchattacks
	touch $@
