# Everything runs in .venv, which the targets make and fill as they need it.
TORCH ?= torch==2.13.0
VENV ?= .venv
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,\
            $(if $(shell $(p) -c 'import sys; print(sys.version_info >= (3, 11) or "")' 2>/dev/null),$(p))))
BIN := $(VENV)/bin
# one thread each: the tests compare bits, and threads that share cores only wait for each other;
# worksteal: neighbours stay together, so that what a file trains for its tests is trained once
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-slow test-cuda test-oldest test-newest coverage rooms lint package release-check format docs bench bench-cuda clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) lacks the venv module; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch first: left to the resolver, it may come as a build with gigabytes of CUDA packages
$(VENV)/.torch: | $(BIN)/python
	@echo "installing $(TORCH) into $(VENV) ..."
	@$(PIP) "$(TORCH)" -c constraints.txt && touch $@

$(VENV)/.demo: pyproject.toml constraints.txt $(VENV)/.torch
	@echo "installing skqfair ..."
	@$(PIP) -e '.[plot]' -c constraints.txt && touch $@

$(VENV)/.all: pyproject.toml constraints.txt tests/references.txt $(VENV)/.torch
	@echo "installing skqfair with what tests and documentation need ..."
	@$(PIP) -e '.[plot,save,onnx,test,docs]' -c constraints.txt
	@$(PIP) --no-deps -r tests/references.txt && touch $@ $(VENV)/.demo

demo: $(VENV)/.demo  ## What rounding costs whom, and what gives it back: tables and picture (1 to 3 minutes)
	$(BIN)/python examples/plot_rounding.py

test: lint docs  ## Lint, tests, doctests, documentation
	$(PYTEST)

test-fast: $(VENV)/.all  ## Tests and doctests only
	$(PYTEST)

test-slow: $(VENV)/.all  ## The tests that take minutes
	$(PYTEST) -m slow -o timeout=7200

test-cuda: $(VENV)/.all  ## The tests of a CUDA device; TORCH must be a build with CUDA (4 minutes at most)
	@$(BIN)/python -c 'import torch; assert torch.cuda.is_available(), "no CUDA device; see README.md on TORCH"'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cuda -o timeout=240 tests/cuda

coverage: $(VENV)/.all  ## Which lines the tests run: a table, and build/coverage/index.html
	$(PYTEST) --cov=skqfair --cov-report=term --cov-report=html:build/coverage

NEEDS_ONNX := tests/architectures tests/export tests/diagnostics tests/examples tests/test_package.py tests/test_items.py \
  tests/classifiers/test_one_logit.py tests/networks/test_torch_classifier.py
# warnings are no errors here: old packages warn of each other, new ones of what goes in a year
OTHER_VERSIONS := -m pytest -n auto --maxprocesses 8 --dist worksteal -o filterwarnings=default
test-oldest: $(BIN)/python  ## Tests with the lowest versions of pyproject.toml, in .venv-oldest
	$(BIN)/python -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet -r tests/oldest.txt -e '.[plot,images,save,test]'
	OMP_NUM_THREADS=1 .venv-oldest/bin/python $(OTHER_VERSIONS) $(addprefix --ignore=,$(NEEDS_ONNX)) tests
	.venv-oldest/bin/python -m pip install --quiet -r tests/oldest-onnx.txt
	OMP_NUM_THREADS=1 .venv-oldest/bin/python $(OTHER_VERSIONS) $(NEEDS_ONNX)

test-newest: $(BIN)/python  ## Tests with the newest versions there are, in .venv-newest
	$(BIN)/python -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --upgrade -e '.[plot,images,save,onnx,test]'
	OMP_NUM_THREADS=1 .venv-newest/bin/python $(OTHER_VERSIONS) tests

lint: package  ## Style, docstring and import rules, and the packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

package: $(VENV)/.all  ## Build sdist and wheel into dist, and check both
	@rm -rf dist
	$(BIN)/python -m build --outdir dist . >/dev/null
	@tar tzf dist/*.tar.gz | sed 's,[^/]*/,,' | sort >dist/packed.txt
	@git ls-files | grep -v '^\.' | sort | comm -23 - dist/packed.txt >dist/missing.txt
	@test ! -s dist/missing.txt || { echo "not in the sdist, see MANIFEST.in:"; cat dist/missing.txt; exit 1; }
	$(BIN)/python -m twine check --strict dist/*.tar.gz dist/*.whl
	$(BIN)/check-wheel-contents dist/*.whl

release-check: package  ## Install the wheel into an empty environment and run the README's code there
	rm -rf .venv-release && $(PYTHON) -m venv .venv-release
	.venv-release/bin/python -m pip install --quiet "$(TORCH)" -c constraints.txt
	.venv-release/bin/python -m pip install --quiet dist/*.whl -c constraints.txt
	mkdir dist/empty && sed -n '/^```python$$/,/^```$$/{/^```/d;p;}' README.md >dist/empty/readme.py
	cd dist/empty && ../../.venv-release/bin/python readme.py

rooms: $(BIN)/python  ## The rooms of the package: lines, and who imports whom
	@$(BIN)/python tests/rooms.py

format: $(VENV)/.all  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.all  ## Documentation with the gallery, in docs/_build/html
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

bench: $(VENV)/.all  ## Benchmarks against peers; writes docs/benchmarks.md
	$(BIN)/python tests/benchmarks/run.py

bench-cuda: $(VENV)/.all  ## Seconds on a CUDA device beside a loop by hand (5 minutes at most)
	$(BIN)/python tests/benchmarks/cuda.py

clean:  ## Remove what was built, but not .venv
	rm -rf docs/_build docs/auto_examples docs/generated docs/sg_execution_times.rst build dist .venv-release *.egg-info
