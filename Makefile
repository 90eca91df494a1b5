# Needs only Python, make and the package index. `make help` lists the words.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo test test-peers lint types unit format clean

help: ## List the words
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/'

demo: $(VENV)/.installed ## Run the demo on the bundled model and images
	$(BIN)/smoothed demo --plot smoothed-demo.png --json smoothed-demo.json

test: lint types unit ## Everything CI checks

lint: $(VENV)/.installed-test ## Style
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks

types: $(VENV)/.installed-test ## Types
	$(BIN)/basedpyright

unit: $(VENV)/.installed-test ## Tests and doctests
	$(BIN)/pytest -q --ignore=tests/peers

test-peers: $(VENV)/.installed-peers ## Side by side with other libraries
	$(BIN)/pytest -q tests/peers

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
