# Commands for a fresh machine with Python 3.10 or later:
#
#   make demo   text from a GPT quantized to int8, with what quantization costs
#   make test   lint, format, types and the whole test-suite
#   make docs   the documentation, every block of it run, as docs/_build/html
#
# Each makes .venv and installs into it; a second call installs nothing. One more for NVIDIA GPUs:
#
#   make native   the kernels in csrc/, built in place with CMake and nvcc, which must be there
#
# Settings, on the command line (make demo PYTHON=python3.12):
#
#   PYTHON  the interpreter that .venv is made with
#   VENV    the folder of the virtual environment
#   TORCH   what pip installs as PyTorch. A PyTorch (2.9 or later) that is in .venv already is
#           kept: for another build, such as one for your GPU's CUDA version, make .venv yourself,
#           install it there, and then call make.
#   JOBS    how many tests run at once
#   TESTS   what pytest runs; everything by default

PYTHON ?= python3
VENV ?= .venv
# The version that the tests are known to pass with, written in one place.
TORCH ?= $(shell sed -n 's/^\(torch==[^ ;]*\).*/\1/p' requirements-dev.txt)
JOBS ?= 2
TESTS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
MADE := $(VENV)/.made
FOR_DEMO := $(VENV)/.installed
FOR_TESTS := $(VENV)/.installed-for-tests

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint native clean docs

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

$(MADE):
	@command -v $(PYTHON) >/dev/null || { \
	  echo "make: there is no $(PYTHON). Install Python 3.10 or later, or name another one:" \
	       "make demo PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "make: $(PYTHON) is $$($(PYTHON) --version 2>&1); tripy needs Python 3.10 or later." \
	       "Name another one: make demo PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "make: $(PYTHON) cannot make a virtual environment. On Debian and Ubuntu:" \
	       "apt install python3-venv" >&2; exit 1; }
	@touch $@

# torch first and by itself: whatever is installed after it is content with the one that is there.
$(FOR_DEMO): $(MADE) pyproject.toml
	@$(BIN)/python -c 'import torch' 2>/dev/null || { \
	  echo "make: installing $(TORCH)"; $(PIP) install '$(TORCH)'; }
	@echo "make: installing tripy and what it needs"
	@$(PIP) install --editable .
	@touch $@

$(FOR_TESTS): $(FOR_DEMO) requirements-dev.txt
	@echo "make: installing the test tools"
	@grep -v '^torch==' requirements-dev.txt >$(VENV)/test-tools.txt
	@$(PIP) install --requirement $(VENV)/test-tools.txt
	@touch $@

demo: $(FOR_DEMO)
	$(BIN)/python examples/nanogpt/example.py --quant-mode int8 --evaluate

lint: $(FOR_TESTS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One thread a test process: several processes with as many threads as cores wait for one another.
test: lint
	TRIPY_VERIFY=1 OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 \
	  $(BIN)/python -m pytest -n $(JOBS) $(TESTS)

native:
	@command -v cmake >/dev/null || { echo "make: there is no cmake: pip install cmake" >&2; exit 1; }
	cmake -S . -B build/native -DTRIPY_NATIVE=ON
	cmake --build build/native --parallel $(JOBS) --target install

docs: $(FOR_TESTS)
	@$(BIN)/python -c 'import sphinx' 2>/dev/null || { \
	  echo "make: the documentation's tools need Python 3.11 or later;" \
	       "try make docs VENV=.venv-docs PYTHON=python3.11" >&2; exit 1; }
	$(BIN)/python docs/tools/reference.py
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 \
	  $(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "make: the pages are made; the first is docs/_build/html/index.html"

clean:
	rm -rf $(VENV) build dist docs/_build docs/reference/api *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
