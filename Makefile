# Start with `make quickstart` or `make test`; both create their environment in .venv.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
WHEEL_SITE := build/wheel-site
TEST_PROCESSES ?= 4
# Tests of what packaging can break: the wheel's files and command, and code that reads the packaged definitions.
WHEEL_TESTS := $(addprefix tests/end_to_end/test_,wheel.py command_line.py data_command.py report_commands.py) \
	$(addprefix tests/unit/,sampling/test_recipes.py datasets/test_dataset_cards.py baselines/test_method_cards.py \
	reports/test_published.py)

# lvis depends on opencv-python, which needs libGL and libglib. If cv2 cannot be imported, install the same headless
# release instead; both packages provide cv2, so the first must be uninstalled.
CHECK_OPENCV = $(BIN)/python -c "import cv2" 2>/dev/null || { \
	release=$$($(BIN)/python -c "from importlib.metadata import version; print(version('opencv-python'))") && \
	$(BIN)/python -m pip uninstall --quiet --yes opencv-python && \
	$(INSTALL) --no-deps "opencv-python-headless==$$release"; }

INSTALL := $(BIN)/python -m pip install --quiet

# Many containers set this, and then every process that the tests start would recompile all its imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart test check types unit wheel-test faults dist lint benchmark speed clean

quickstart: $(VENV)/.installed
	$(BIN)/disbench quickstart --out quickstart

# mypy uses a single core, so it runs in parallel with the tests.
test: lint
	$(MAKE) --no-print-directory -j2 types unit
	$(MAKE) --no-print-directory wheel-test

check: lint types

types: $(VENV)/.installed-dev
	$(BIN)/mypy

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

unit: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist worksteal

# Tests run on a copy outside the checkout, so that only the wheel can be imported.
wheel-test: dist
	rm -rf build/wheel-tests $(WHEEL_SITE)
	$(INSTALL) --no-deps --target $(WHEEL_SITE) dist/*.whl
	mkdir -p build/wheel-tests && cp -r tests pyproject.toml build/wheel-tests/
	cd build/wheel-tests && PYTHONPATH=$(CURDIR)/$(WHEEL_SITE) DISBENCH_CHECKOUT=$(CURDIR) \
		DISBENCH_EXPECTED_SITE=$(CURDIR)/$(WHEEL_SITE) \
		$(CURDIR)/$(BIN)/python -m pytest -q -p no:cacheprovider -m "not slow" $(WHEEL_TESTS)

# Tests that kill processes at random times, repeated REPEAT times.
REPEAT ?= 20
faults: $(VENV)/.installed-dev
	for run in $$(seq $(REPEAT)); do DISBENCH_KILLS=10 $(BIN)/python -m pytest -q -m fault -n $(TEST_PROCESSES) tests || exit 1; done

dist: $(VENV)/.installed-dev
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

benchmark: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/hierarchy.py
	$(BIN)/python benchmarks/run_lengths.py
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/clicks.py --stand-in
	$(BIN)/python benchmarks/reports.py --page

# The speed suite, compared with the last run on the same processor (docs/performance.md).
speed: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/suite.py --compare

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) --constraint constraints.txt --editable .
	$(CHECK_OPENCV)
	touch $@

# Compiling all packages takes longer than installing them; Python compiles what the tests import.
$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) --no-compile --constraint constraints.txt --editable ".[dev,interop,onnx,models,maxflow,ray,demo]"
	$(CHECK_OPENCV)
	touch $@

clean:
	rm -rf $(VENV) build dist quickstart
