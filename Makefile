# `make demo` and `make test` install what they need by themselves. `make help` lists all targets.
#
# PYTHON=python3.12   interpreter for the environment (3.11 or newer)
# VENV=.venv          folder of the environment
# PIP_FLAGS=...       additional flags for pip, for example an --extra-index-url with CPU builds of torch
# PYTEST_FLAGS=...    additional options for `make test`, `make test-slow` and `make compat`

PYTHON ?= python3
VENV ?= .venv
COMPAT_VENV ?= .venv-compat
PIP_FLAGS ?=
DEMO_DIR ?= runs/demo
DEMO_FLAGS ?=
PART ?=
PYTEST_FLAGS ?=
BENCH_FLAGS ?=
PLAN_FLAGS ?=
RESULTS_DIR ?= build
FUZZ_SEED ?= 0
FUZZ_FLAGS ?=
FAULTS_FLAGS ?=
MUTANTS_SEED ?= 21
MUTANTS_FLAGS ?=
RUNS ?= runs
DATA ?=
GPU_RUN_FLAGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.fastdat-installed
COMPAT_STAMP := $(COMPAT_VENV)/.fastdat-installed
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow fuzz test-faults mutants lint format types kernel-resources keep-results results bench gpu-plan compat gpu-check cifar10-gpu check-python check-compiler clean

help:
	@echo "make demo              nine Gaussians with and without DAT (Fig. 3): picture and table in $(DEMO_DIR)"
	@echo "make test              the tests, 12 minutes on two cores"
	@echo "make test-slow         the long tests: compilations, kills, several processes, and more cases of quick ones"
	@echo "make test-faults       kills, full disks, damaged files and hung ranks, many times, into $(RESULTS_DIR)/faults.json: 15 minutes"
	@echo "make fuzz              more than a million changed files for every reader, about 15 minutes on two cores, into $(RESULTS_DIR)/fuzz.json"
	@echo "make mutants           320 changes of the code, one at a time: which of them do the tests notice? into $(RESULTS_DIR)/mutants.json: 30 minutes"
	@echo "make lint              ruff: check and format (make format fixes both)"
	@echo "make types             mypy, strict"
	@echo "make kernel-resources  registers, spills and shared memory of the kernels, compiled for GPUs"
	@echo "make keep-results      results of \`fastdat reproduce NAME\` from $(RUNS) into bench/results/reproduce, and RESULTS.md"
	@echo "make results           RESULTS.md from the JSONs of bench/results/reproduce"
	@echo "make bench             speed of a step and of the kernels, into bench/results"
	@echo "make gpu-plan          launches, bytes and FLOPs of a step on a GPU, without one, into bench/results/gpu-plan.json"
	@echo "make compat            all tests, the slow ones too, with the oldest supported torch, in $(COMPAT_VENV)"
	@echo "make gpu-check         GPU tests and benchmarks, on a machine with a GPU; installs nothing"
	@echo "make cifar10-gpu       SNGAN with DAT on CIFAR-10 (DATA=DIR) at Table I's settings, 9 minutes at a time, on a GPU; installs nothing"
	@echo "make clean             remove environments, caches and build output"

setup: $(STAMP)

demo: $(STAMP) check-compiler
	$(BIN)/fastdat reproduce fig3 --outdir $(DEMO_DIR) $(DEMO_FLAGS)
	@echo "Picture, table and JSON are in $(DEMO_DIR)"

test: $(STAMP) check-compiler
	@tests/run_suite.sh $(BIN)/python -m "not slow" $(PYTEST_FLAGS)

test-slow: $(STAMP) check-compiler
	@tests/run_suite.sh $(BIN)/python -m slow $(PYTEST_FLAGS)

# RESULTS_DIR=bench/results replaces the committed file; so it does for fuzz.
test-faults: $(STAMP) check-compiler
	@mkdir -p $(RESULTS_DIR)
	$(BIN)/python -m tests.faults --json $(RESULTS_DIR)/faults.json $(FAULTS_FLAGS)

# Inputs follow from FUZZ_SEED alone. One that is not answered as it must be is kept in .fuzz, with how to repeat it.
fuzz: $(STAMP)
	@mkdir -p $(RESULTS_DIR)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --seed $(FUZZ_SEED) --json $(RESULTS_DIR)/fuzz.json $(FUZZ_FLAGS)

# Resumable, as long as neither code nor tests change. MUTANTS_FLAGS=--all is every place: days.
mutants: $(STAMP) check-compiler
	@mkdir -p $(RESULTS_DIR)
	$(BIN)/python -m tests.mutants --seed $(MUTANTS_SEED) --json $(RESULTS_DIR)/mutants.json $(MUTANTS_FLAGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP)
	$(BIN)/mypy

kernel-resources: $(STAMP) check-compiler
	$(BIN)/python -m fastdat.kernels.offline
	$(BIN)/python -m tests.kernels.specialisations

# Experiments train in $(RUNS)/NAME, each in a folder of its own; only their pages, numbers and figures are kept.
keep-results: $(STAMP)
	$(BIN)/python -m fastdat.experiments.keep_results $(RUNS) bench/results/reproduce
	$(MAKE) --no-print-directory results

# A test compares the page with the JSONs.
results: $(STAMP)
	$(BIN)/python -m fastdat.experiments.results_page bench/results/reproduce RESULTS.md

bench: $(STAMP) check-compiler
	$(BIN)/python -m pytest bench --benchmark-only \
	    --benchmark-json="$$($(BIN)/python -m bench.environment)" $(BENCH_FLAGS)

# torch's CUDA build compiles for a GPU that is not there. A test compares today's code with this file.
gpu-plan: $(COMPAT_STAMP) check-compiler
	$(COMPAT_VENV)/bin/python -m bench.gpu_plan --json bench/results/gpu-plan.json $(PLAN_FLAGS)

compat: $(COMPAT_STAMP) check-compiler
	@tests/run_suite.sh $(COMPAT_VENV)/bin/python $(PYTEST_FLAGS)

# Uses the torch, triton and pytest of $(PYTHON). PART="smoke step64" runs two of the parts.
gpu-check:
	$(PYTHON) -m bench.gpu_check $(PART)

# Uses the torch of $(PYTHON), too. Each call goes on where the last one ended.
cifar10-gpu:
	$(PYTHON) -m bench.cifar10_run --data "$(DATA)" $(GPU_RUN_FLAGS)

$(STAMP): pyproject.toml constraints.txt | check-python
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing fastdat and its dependencies into $(VENV) (minutes, once) ..."
	$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e '.[train,dev]'
	@touch $@

$(COMPAT_STAMP): pyproject.toml constraints.txt constraints-compat.txt | check-python
	test -x $(COMPAT_VENV)/bin/python || $(PYTHON) -m venv $(COMPAT_VENV)
	grep -vE "^($$(sed -n 's/==.*//p' constraints-compat.txt | paste -sd '|'))==" constraints.txt > $(COMPAT_VENV)/constraints.txt
	@echo "Installing fastdat with torch 2.11.0 (CUDA build, 5 GB) into $(COMPAT_VENV) ..."
	$(COMPAT_VENV)/bin/python $(PIP_INSTALL) -c $(COMPAT_VENV)/constraints.txt -c constraints-compat.txt -e '.[train,dev]'
	@touch $@

check-python:
	@command -v $(PYTHON) >/dev/null || { echo "error: there is no '$(PYTHON)' on the PATH; set PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(None if sys.version_info >= (3, 11, 4) else \
	    f"error: fastdat needs Python 3.11.4 or newer, but {sys.executable} is {v}; set PYTHON, for example PYTHON=python3.11")'

# On a machine without a GPU torch.compile builds C++ kernels and their Python bindings.
check-compiler:
	@command -v $${CXX:-g++} >/dev/null || { echo "error: torch.compile needs a C++ compiler, and there is no '$${CXX:-g++}':" \
	    "install g++ (Debian, Ubuntu: apt-get install g++) or set CXX" >&2; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; header = os.path.join(sysconfig.get_path("include"), "Python.h"); \
	    sys.exit(None if os.path.exists(header) else \
	    f"error: torch.compile needs the Python headers, and there is no {header}: install python3-dev")'

clean:
	rm -rf $(VENV) $(COMPAT_VENV) .cache build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .fuzz
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
