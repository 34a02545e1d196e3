# Every target sets up what it needs: a .venv, by uv where it is installed, else by pip, reused
# until requirements.txt or pyproject.toml change. `make PYTHON=python3.12 ...` picks the Python.

VENV := .venv
PY := $(VENV)/bin/python
REQUIREMENTS := requirements.txt pyproject.toml
RUNTIME := $(VENV)/.installed
DEVELOPMENT := $(VENV)/.installed-development

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test test-slow test-browser test-gpu faults lint format schema bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(DEVELOPMENT) ## set up .venv with everything: training, export, tests, lint

demo: $(RUNTIME) ## train configs/quickstart.yaml on generated images; ends with the COCO table and a picture
	$(PY) main.py --config configs/quickstart.yaml

test: $(DEVELOPMENT) ## run the test suite, a file of tests on each core
	$(PY) -m pytest -n logical --maxprocesses 4 --dist loadfile -m "not slow and not browser and not gpu" tests

test-slow: $(DEVELOPMENT) ## run the tests that take minutes
	$(PY) -m pytest -m "slow and not browser and not gpu" tests

test-browser: $(DEVELOPMENT) ## drive the demo page in a headless Chromium (needs chromium-driver)
	$(PY) -m pytest -s -m "browser and not gpu" tests

test-gpu: $(DEVELOPMENT) ## run the tests that need a CUDA device (four minutes; skipped where there is none)
	$(PY) -m pytest -m gpu tests

faults: $(DEVELOPMENT) ## test the guarantees in full (continues where it was stopped); writes benchmarks/faults.md
	$(PY) -m tests.faults

lint: $(DEVELOPMENT) ## check style, formatting and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(DEVELOPMENT) ## format the code and fix what ruff can fix
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

schema: $(RUNTIME) ## regenerate the config's JSON files (editors' schema, Albumentations' arguments)
	$(PY) scripts/make_schema.py

bench: $(RUNTIME) ## measure speed and memory on this machine
	$(PY) scripts/benchmark.py

clean: ## remove .venv and caches; data, logs and weights stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUNTIME): $(REQUIREMENTS) | $(PY)
	$(call install_project,.)
	@touch $@

$(DEVELOPMENT): $(REQUIREMENTS) | $(PY)
	$(call install_project,.[export$(,)demo$(,)explain$(,)test])
	@touch $(RUNTIME) $@

, := ,
define install_project
@if uv --version >/dev/null 2>&1; then \
    uv pip install --python $(PY) --editable '$(1)'; \
else \
    $(PY) -m pip install --editable '$(1)'; \
fi
endef

# The first Python of at least 3.10. Version managers leave names on PATH that do not run, so each
# is tried; where none works, uv brings its own.
$(PY):
	@found=; \
	for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.10 python); do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then \
	        found=$$python; break; \
	    fi; \
	done; \
	if uv --version >/dev/null 2>&1; then \
	    uv venv --quiet --seed --clear --python "$${found:-3.12}" $(VENV); \
	elif [ -z "$$found" ]; then \
	    echo "No Python of version 3.10 or later was found: install one, or name it: make PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	elif ! $$found -m venv --clear $(VENV); then \
	    rm -rf $(VENV); \
	    echo "$$found could not make a virtual environment: install its venv module (on Debian and Ubuntu: apt install python3-venv), or install uv" >&2; \
	    exit 1; \
	fi
