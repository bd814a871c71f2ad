# Commands for development; `make` alone lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Where Python keeps no compiled modules, every worker and every process that a test starts compiles all of them.
unexport PYTHONDONTWRITEBYTECODE

# The demo: its run folder, and further settings of train.py for it.
DEMO_RUN ?= runs/demo
DEMO_ARGS ?=
# A step of an environment and an order, which compile and store the machine code.
WARM_UP := import portfolio_env as pe; from baselines import make_baseline as make; \
	from portfolio_env.live import AccountOptions as Account, Predictor, orders_at; \
	env = pe.PortfolioEnv("synthetic"); env.reset(seed=0); env.step(env.action_space.sample()); \
	env = pe.PortfolioEnv("synthetic", action="weights"); \
	orders_at(Predictor(make("equal_weight", env.market), env), Account(capital=10000))
# Each worker takes a half and helps the other when done, so that most files stay with one worker.
PYTEST_ARGS ?= -n auto --dist=worksteal
MINUTES ?= 10
DATA ?=
MUTANTS ?=
KILLS ?= 100
# What is compiled and what is not must give the same numbers: these run both ways.
ECONOMICS := tests/simulation tests/environment

# Examples with other libraries: those that are quick to set up, and all.
EXAMPLES := torchrl skrl
ALL_EXAMPLES := $(EXAMPLES) tianshou rllib sbx rl_zoo3 minari

.DEFAULT_GOAL := help
.PHONY: help setup format lint type test test-slow test-plain demo bench bench-gpu learn verdicts edge fuzz kills \
	mutants tables docs docs-serve tutorials examples examples-all clean

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: $(STAMP) ## Create .venv and install everything, pinned by constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3 ..."; exit 1; }
	@echo "Installing into $(VENV); the first time this takes a few minutes."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --progress-bar on -c constraints.txt -e '.[rl,contrib,data,yahoo,baselines,evaluation,search,postgres,docs,dev]'
	@$(BIN)/python -c '$(WARM_UP)'
	@touch $@

format: setup ## Format the code and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: setup ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: setup ## Check types
	$(BIN)/mypy

test: setup ## Run the quick tests and the docstrings' examples on all cores (a quarter of an hour on two)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

test-slow: setup ## Run the slow tests (kills, learning, whole evaluations) and more examples of every property
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow or hypothesis" --hypothesis-profile=thorough $(PYTEST_ARGS)

test-plain: setup ## Run the tests of the economics without the compiler
	NUMBA_DISABLE_JIT=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS) $(ECONOMICS)

demo: setup ## Train on a planted edge and on real prices and evaluate, in 90 seconds after the installation
	rm -rf $(DEMO_RUN)
	$(BIN)/python examples/demo.py --run $(DEMO_RUN) -- $(DEMO_ARGS)

bench: setup ## Measure the speed tables of docs/speed.md
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/speed/throughput.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/speed/features.py

bench-gpu: setup ## Measure training on a GPU
	$(BIN)/python benchmarks/speed/gpu.py

learn: setup ## Measure what agents learn, on planted markets and on noise (about 15 minutes)
	$(BIN)/python benchmarks/learning.py

verdicts: setup ## Measure how often verdicts are wrong, on markets whose truth is known (an hour)
	$(BIN)/python benchmarks/verdicts.py

tables: setup ## Print published tables beside this environment's numbers (DATA for the folder of their data)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.tables $(if $(DATA),--data $(DATA))

edge: setup ## Search for an edge over equal weight by the plan of benchmarks/edge.toml (DATA for the folder of its files)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/edge.py --data $(DATA)

fuzz: setup ## Compare the environment with a slow account for MINUTES (10)
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz.py --minutes $(MINUTES)

mutants: setup ## List the small faults that the tests would not notice (hours; MUTANTS for a part)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/mutants.py $(MUTANTS)

kills: setup ## Kill trainings, evaluations, downloads and the store at KILLS random moments and compare
	$(BIN)/python benchmarks/kills.py --count $(KILLS)

docs: setup ## Build the documentation into site/, warnings being errors
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -q -W --keep-going -d build/doctrees docs site

docs-serve: docs ## Build the documentation and serve it on this machine
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory site

tutorials: setup ## Execute the notebooks of docs/tutorials and store what they print
	$(BIN)/python docs/run_tutorials.py

examples: setup ## Train by the examples in plain torch, TorchRL and skrl, each in an environment of its own
examples: example-cleanrl $(EXAMPLES:%=example-%)

examples-all: examples $(ALL_EXAMPLES:%=example-%) ## Train by all examples, with all libraries of docs/libraries.md

example-cleanrl: setup
	OMP_NUM_THREADS=1 $(BIN)/python examples/cleanrl_ppo.py

example-%: .examples/%/.installed
	OMP_NUM_THREADS=1 .examples/$*/bin/python $(firstword $(wildcard examples/$*_*.py examples/$*/run.py))

# An environment of its own over that of the project: what the library wants in other versions comes first in it.
.PRECIOUS: .examples/%/.installed
.examples/%/.installed: examples/requirements/%.txt $(STAMP)
	$(BIN)/python -m venv --clear .examples/$*
	.examples/$*/bin/python -c 'import pathlib, sysconfig as s; \
		below = s.get_path("purelib", vars={"base": "$(abspath $(VENV))"}); \
		pathlib.Path(s.get_path("purelib"), "project.pth").write_text(below + "\n$(CURDIR)\n")'
	grep '^torch==' constraints.txt > .examples/torch.txt
	.examples/$*/bin/python -m pip install --quiet -c .examples/torch.txt -r $<
	@touch $@

clean: ## Remove what the tools cache and build; .venv and runs stay
	rm -rf build dist site docs/api jupyter_execute *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
