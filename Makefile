# `make demo` and `make test` do their own set-up. `make help` lists the rest.
#
# PYTHON=python3.12   another interpreter for the environment (3.11 or newer)
# VENV=.venv          where the environment lies
# PIP_FLAGS=...       more flags for pip, an --extra-index-url with CPU builds of torch, say

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

BIN := $(VENV)/bin
STAMP := $(VENV)/.fastdat-installed
COMPAT_STAMP := $(COMPAT_VENV)/.fastdat-installed
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS)
# A hung test ends the run with its traceback; the slowest takes a fraction of this.
PYTEST := -m pytest --timeout=600

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format types kernel-resources bench gpu-plan compat gpu-check check-python check-compiler clean

help:
	@echo "make demo       nine Gaussians with and without DAT (Fig. 3): picture and table in $(DEMO_DIR)"
	@echo "make test       the test suite, and the kernels under Triton's interpreter"
	@echo "make lint       ruff: check and formatting    (make format: put it right)"
	@echo "make types      mypy, strict"
	@echo "make kernel-resources  registers, spills, shared memory of the kernels, and all that their tests launch compiled"
	@echo "make bench      the speed of a step, into bench/results"
	@echo "make gpu-plan   launches, bytes and FLOPs of a step on an H200 that is not there, into bench/results/gpu-plan.json"
	@echo "make compat     the test suite on the oldest supported torch, in $(COMPAT_VENV)"
	@echo "make gpu-check  on a machine with a GPU, installing nothing: GPU tests and bench"
	@echo "make clean      remove environments, caches and build output"

setup: $(STAMP)

demo: $(STAMP) check-compiler
	$(BIN)/fastdat reproduce fig3 --outdir $(DEMO_DIR) $(DEMO_FLAGS)
	@echo "Picture, table and JSON are in $(DEMO_DIR)"

# What runs beside the rest, on another core, after the kernels.
BESIDE := tests/data tests/metrics tests/report tests/training tests/bench

# Three runs, since Triton reads TRITON_INTERPRET once: the kernels run on the CPU and then $(BESIDE), both beside the rest,
# in which kernels are compiled for GPUs that are not there. Each has half of the cores: threads that wait for others'
# cores spin. Status 5 is a run of which PYTEST_FLAGS selected nothing.
define RUN_TESTS
log=$$(mktemp); echo 1 1 >$$log.status; \
cores=$$(nproc); export OMP_NUM_THREADS=$${OMP_NUM_THREADS:-$$(((cores + 1) / 2))}; \
{ trap 'kill $$run; exit 1' TERM; \
  TRITON_INTERPRET=1 $(1)/python $(PYTEST) tests/kernels $(PYTEST_FLAGS) & run=$$!; wait $$run; kernels=$$?; \
  $(1)/python $(PYTEST) $(BESIDE) $(PYTEST_FLAGS) & run=$$!; wait $$run; echo $$kernels $$? >$$log.status; \
} >$$log 2>&1 & beside=$$!; \
trap 'kill $$beside; rm -f $$log $$log.status' INT TERM; \
$(1)/python $(PYTEST) $(addprefix --ignore=,$(BESIDE)) $(PYTEST_FLAGS); suite=$$?; \
wait $$beside; cat $$log; statuses="$$suite $$(cat $$log.status)"; rm -f $$log $$log.status; \
for status in $$statuses; do test $$status -eq 0 || test $$status -eq 5 || exit 1; done; test "$$statuses" != "5 5 5"
endef

test: $(STAMP) check-compiler
	@$(call RUN_TESTS,$(BIN))

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

bench: $(STAMP) check-compiler
	$(BIN)/python -m pytest bench --benchmark-only \
	    --benchmark-json="$$($(BIN)/python -m bench.environment)" $(BENCH_FLAGS)

# torch's CUDA build lowers for a GPU without one; a test holds what it makes of the step to this file.
gpu-plan: $(COMPAT_STAMP) check-compiler
	$(COMPAT_VENV)/bin/python -m bench.gpu_plan --json bench/results/gpu-plan.json $(PLAN_FLAGS)

compat: $(COMPAT_STAMP) check-compiler
	@$(call RUN_TESTS,$(COMPAT_VENV)/bin)

# Runs on whatever torch, triton and pytest `python3` has there. PART="smoke step64" are two of the parts.
gpu-check:
	$(PYTHON) -m bench.gpu_check $(PART)

$(STAMP): pyproject.toml constraints.txt | check-python
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing fastdat and what it needs into $(VENV) (minutes, once) ..."
	$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e '.[train,dev]'
	@touch $@

$(COMPAT_STAMP): pyproject.toml constraints.txt constraints-compat.txt | check-python
	test -x $(COMPAT_VENV)/bin/python || $(PYTHON) -m venv $(COMPAT_VENV)
	grep -vE "^($$(sed -n 's/==.*//p' constraints-compat.txt | paste -sd '|'))==" constraints.txt > $(COMPAT_VENV)/constraints.txt
	@echo "Installing fastdat on torch 2.11.0 (CUDA build, 5 GB) into $(COMPAT_VENV) ..."
	$(COMPAT_VENV)/bin/python $(PIP_INSTALL) -c $(COMPAT_VENV)/constraints.txt -c constraints-compat.txt -e '.[train,dev]'
	@touch $@

check-python:
	@command -v $(PYTHON) >/dev/null || { echo "error: no '$(PYTHON)' on the PATH; set PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(None if sys.version_info >= (3, 11, 4) else \
	    f"error: fastdat needs Python 3.11.4 or newer, but {sys.executable} is {v}; set PYTHON=python3.11, say")'

# torch.compile builds C++ kernels and their Python bindings on a machine without a GPU.
check-compiler:
	@command -v $${CXX:-g++} >/dev/null || { echo "error: torch.compile needs a C++ compiler and found no '$${CXX:-g++}':" \
	    "install g++ (Debian, Ubuntu: apt-get install g++) or set CXX" >&2; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; header = os.path.join(sysconfig.get_path("include"), "Python.h"); \
	    sys.exit(None if os.path.exists(header) else \
	    f"error: torch.compile needs the Python headers and found no {header}: install python3-dev")'

clean:
	rm -rf $(VENV) $(COMPAT_VENV) .cache build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
