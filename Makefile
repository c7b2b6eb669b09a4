# make demo   set up and turn the whole wheel (QUICK=1: a short look)
# make test   set up and run every test
# make check  lint, types, import contracts, tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONFIG := deployments/$(if $(QUICK),demo-quick,demo).toml
export PREFECT_HOME ?= $(CURDIR)/runs/prefect
# One thread: the shipped model is so small that a second one only gets in the way of a neighbour.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test check lint clean
demo: $(VENV)/.installed
	mkdir -p "$(PREFECT_HOME)"
	$(BIN)/rlrf run $(CONFIG)

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) runs
