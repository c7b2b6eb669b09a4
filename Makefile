# make demo   set up and turn the whole wheel (QUICK=1: a short look; ENGINE=vllm: on a vLLM server)
# make test   set up and run every test
# make up     a Prefect server on loopback, a worker and the deployments; make down stops them
# make engine set up the vLLM environment that ENGINE=vllm and the tests of it use
# make check  lint, types, import contracts, tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := $(if $(QUICK),demo-quick,demo)
CHANGES := $(if $(ENGINE),--set engine.type=$(ENGINE) --set home=runs/$(DEMO)-$(ENGINE))
export PREFECT_HOME ?= $(CURDIR)/runs/prefect
# One thread: the shipped model is so small that a second one only gets in the way of a neighbour.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test browser up down engine check lint clean
demo: $(VENV)/.installed $(if $(filter vllm,$(ENGINE)),engine)
	mkdir -p "$(PREFECT_HOME)"
	$(BIN)/rlrf run deployments/$(DEMO).toml $(CHANGES)

# Without an engine the tests of vLLM are skipped, without a Chromium those of pages, each with the reason.
test: $(VENV)/.installed browser
	-$(BIN)/rlrf engine install
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 3 --no-loadscope-reorder

up: $(VENV)/.installed
	mkdir -p "$(PREFECT_HOME)"
	$(BIN)/rlrf up

down: $(VENV)/.installed
	$(BIN)/rlrf down

# As root on a machine with apt it is installed; anybody else is told how.
browser:
	@command -v chromium chromium-browser google-chrome > /dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null \
		&& { apt-get install -y -qq --no-install-recommends chromium > /dev/null 2>&1 \
			|| { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } > /dev/null 2>&1; }; } \
		|| echo "No Chromium: tests of pages are skipped; install one (apt install chromium)"

engine: $(VENV)/.installed
	$(BIN)/rlrf engine install

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
