# Every path below is relative, and the interpreter is always called as "$(PY)": so a clone in a
# folder with spaces works, with make 3.81 too.
PYTHON ?= python3
VENV ?= .venv
OUT ?= build/course
ARGS ?=
PYTEST_ARGS ?= -n 2
TORCH_INDEX ?=

ifeq ($(OS),Windows_NT)
PY = $(VENV)/Scripts/python.exe
else
PY = $(VENV)/bin/python
endif

SIZE = 2 GB of disk, 6 GB with torch's GPU libraries
# pip install that says how far it is
PIP = "$(PY)" pruninglib/course/install.py

# On a busy machine, threads that spin while they wait make small networks many times slower.
OMP_WAIT_POLICY ?= PASSIVE
export OMP_WAIT_POLICY

.PHONY: help course test lab bench results pretrain setup

help:
	@echo "make course   run every lesson, then open $(OUT)/index.html"
	@echo "make test     check style, run the unit tests and the notebook tests"
	@echo "make lab      open the lessons in JupyterLab"
	@echo "make bench    measure against peers"
	@echo "make results  run lessons with cells tagged 'result' on published data, write notebooks/RESULTS.md"
	@echo "make pretrain train the networks of data/models that are missing, write their table"
	@echo ""
	@echo "The first of them also sets up $(VENV). Options, each written NAME=value after the target:"
	@echo "  ARGS=\"02 --data full\"   passed on to the command behind the target, here 'pruninglib run'"
	@echo "  OUT=folder              where make course writes (default: build/course)"
	@echo "  TORCH_INDEX=url         take torch from this index, for example without CUDA"
	@echo "  PYTHON=python3.12       the Python to set up with, 3.11 or later"
	@echo "  VENV=folder             where the packages are installed (default: .venv)"

course: setup
	@"$(PY)" -m pruninglib.course.cli run --out "$(OUT)" $(ARGS)

test: setup
	@"$(PY)" -m ruff check --no-cache .
	@"$(PY)" -m ruff format --check --no-cache .
	@OMP_NUM_THREADS=1 "$(PY)" -m pytest $(PYTEST_ARGS)

lab: setup
	@"$(PY)" -m jupyterlab notebooks $(ARGS)

bench: setup
	@"$(PY)" -m benchmarks $(ARGS)

results: setup
	@"$(PY)" -m pruninglib.course.cli results $(ARGS)

pretrain: setup
	@"$(PY)" -m pruninglib.course.cli pretrain $(ARGS)

# The stamp holds what was installed and from where, and is written last: so set-up is done again
# when the pins change, the clone moves or an installation was cut short, and not otherwise.
setup:
	@{ pwd; cat requirements.lock pyproject.toml; } | cmp -s - "$(VENV)/setup.stamp" 2>/dev/null && exit 0; \
	set -e; \
	if ! "$(PY)" -m pip --version >/dev/null 2>&1; then \
	  "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "$(PYTHON) is not Python 3.11 or later: name one that is, for example make course PYTHON=python3.12." >&2; \
	    exit 1; }; \
	  "$(PYTHON)" -m venv "$(VENV)"; \
	fi; \
	echo "Installing the packages of requirements.lock into $(VENV): a few minutes, once, and $(SIZE)."; \
	if [ -n "$(TORCH_INDEX)" ]; then \
	  $(PIP) --no-deps --index-url "$(TORCH_INDEX)" $$(grep -E '^(torch|torchvision)==' requirements.lock); \
	fi; \
	$(PIP) -r requirements.lock; \
	$(PIP) --no-deps --editable .; \
	{ pwd; cat requirements.lock pyproject.toml; } > "$(VENV)/setup.stamp"
