# Two commands matter: `make lab` to read the course, `make test` to check everything.
# All paths are relative to this file, so a folder name with spaces is fine.

PYTHON ?= python3
LAB_ARGS ?=
LAB_IP ?= 127.0.0.1
QUICKSTART_ARGS ?=
SPEEDRUN_ARGS ?=
TORCH := 2.13.0
LOCK ?= requirements.lock
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
# Two processes share the tests, a file at a time and in their order; `make test PARALLEL=` runs them in one.
PARALLEL ?= --numprocesses 2 --dist loadfile --no-loadscope-reorder
PIP_INSTALL = -m pip install --disable-pip-version-check

# A finished set-up leaves $(READY), which names the folder it was made in. An interrupted one leaves nothing new,
# and a folder that was moved or copied no longer matches: in both cases the set-up runs again.
ifneq ($(shell cat $(READY) 2>/dev/null),$(shell pwd))
$(READY): always
endif

.PHONY: help lab test site demo quickstart speedrun notebooks sweep leaderboard mutants bench check lint types size wheel clean lock audit always

help: ## list these commands
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20
	@echo "Settings: PYTHON=python3.12 picks the interpreter; LAB_ARGS='--port 9999' goes to JupyterLab."

$(READY): $(LOCK) pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null || { \
	  echo "diffkit needs Python 3.11, 3.12 or 3.13, but '$(PYTHON)' is: $$("$(PYTHON)" --version 2>&1 || true)"; \
	  echo "Name another one, for example:  make $(firstword $(MAKECMDGOALS)) PYTHON=python3.12"; exit 1; } >&2
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments (no venv or ensurepip)."; \
	  echo "On Debian and Ubuntu:  apt install python3-venv"; exit 1; } >&2
	@rm -f $(READY)
	@echo "Setting up, once and in this folder only; it takes a few minutes. If it stops, the same command goes on."
	@echo "[1 of 3] A Python environment of its own, in $(VENV)"
	@$(PY) -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear $(VENV)
	@echo "[2 of 3] $$(grep -c == $(LOCK)) packages in pinned versions; PyTorch is the largest by far"
	@$(PY) $(PIP_INSTALL) -r $(LOCK)
	@echo "[3 of 3] diffkit itself"
	@$(PY) $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@pwd > $(READY)
	@echo "Ready."

lab: $(READY) ## set up once, then open the course in JupyterLab
	@echo "Opening JupyterLab at notebook 00. If no browser opens, follow the address below; Ctrl+C twice ends it."
	@root=(); if [ "$$(id -u)" = 0 ]; then root=(--allow-root --no-browser); fi; \
	JUPYTER_CONFIG_PATH="$$PWD/.jupyter" exec $(PY) -m jupyterlab --ServerApp.ip=$(LAB_IP) --ServerApp.root_dir="$$PWD" \
	  --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb "$${root[@]}" $(LAB_ARGS)

demo: $(READY) ## watch a story unmask in the terminal, from the shipped model
	@$(VENV)/bin/diffkit demo

quickstart: $(READY) ## real stories from scratch, on the device there is: says how long, resumes, ends with stories (QUICKSTART_ARGS)
	@$(PY) scripts/train_stories.py --out runs/quickstart $(QUICKSTART_ARGS)

speedrun: $(READY) ## train to 0.05 nats a token above the entropy, and say how long it took (SPEEDRUN_ARGS)
	@OMP_NUM_THREADS=1 $(PY) benchmarks/speedrun/run.py $(SPEEDRUN_ARGS)

lint: $(READY)
	@echo "== format and lint"
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(VENV)/bin/lint-imports --no-cache

types: $(READY)
	@echo "== types"
	@$(PY) -m mypy

size:
	@echo "== size of the package, in lines"
	@find diffkit -name '*.py' | sort | xargs wc -l

check: $(READY) lint types ## the fast part: format, lint, types, quick tests, size report
	@echo "== quick tests"
	@OMP_NUM_THREADS=1 $(PY) -m pytest -q -m "not slow and not browser"
	@$(MAKE) --no-print-directory size

test: $(READY) lint ## everything: format, lint, types, all tests, and every notebook against its stored output
	@echo "== types and tests, side by side"
	@mkdir -p .cache; $(PY) -m mypy > .cache/types.log 2>&1 & types=$$!; \
	  OMP_NUM_THREADS=1 $(PY) -m pytest -q --durations=10 $(PARALLEL); \
	  wait $$types || { cat .cache/types.log; exit 1; }
	@echo "== notebooks"
	@OMP_NUM_THREADS=1 PYTHONPATH=tests $(PY) -m pytest -q -p run_times --nbval --nbval-current-env --nbval-cell-timeout=300 \
	  $(PARALLEL) notebooks
	@echo
	@echo "All passed: format, lint, types, tests, and $$(ls notebooks/[0-9]*.ipynb | wc -l | tr -d ' ') notebooks."

site: $(READY) ## the whole course as web pages in site/, which need no server and no network
	@OMP_NUM_THREADS=1 $(PY) scripts/make_site.py

notebooks: $(READY) ## run all notebooks again in place and normalise them
	@$(PY) scripts/run_notebooks.py

sweep: $(READY) ## train the points of the scaling notebook that are not in its table yet (hours on a CPU; resumes)
	@OMP_NUM_THREADS=1 $(PY) benchmarks/scaling.py

leaderboard: $(READY) ## train and judge the rows of notebook 16 that are not in its table yet (hours on a CPU; resumes)
	@OMP_NUM_THREADS=1 $(PY) benchmarks/leaderboard.py

mutants: $(READY) ## break the mathematics in many places, one at a time: do the tests notice?
	@OMP_NUM_THREADS=1 $(PY) scripts/mutants.py

bench: $(READY) ## measure speed and memory against BERT's and against the machine's own peak (about five minutes)
	@for name in training utilisation data gpu; do echo "== $$name"; $(PY) benchmarks/$$name.py; done

wheel: $(READY) ## build a wheel that works without the repository, and its source archive, in dist/
	@rm -rf dist
	@$(PY) -m build --no-isolation

# $(call RESOLVE,FILE,PINS): what pip makes of the ranges in pyproject.toml with these pins, in an environment of its own.
define RESOLVE
	rm -rf .cache/lock && mkdir -p .cache && "$(PYTHON)" -m venv .cache/lock
	$(2) > .cache/pins.txt
	.cache/lock/bin/python $(PIP_INSTALL) -c .cache/pins.txt -e '.[notebooks,site,test]' setuptools
	{ sed '/^[^#]/,$$d' $(1); .cache/lock/bin/python -m pip freeze --all --exclude-editable --exclude pip \
	  | grep -viE '^(nvidia-|cuda-|triton|wheel)' | sed -E -e 's/\+[a-z0-9.]+$$//' \
	    -e 's/^(pexpect|ptyprocess)==.*/&; sys_platform != "win32"/'; } > .cache/requirements.lock
	mv .cache/requirements.lock $(1)
endef

lock: ## rebuild requirements.lock and requirements-oldest.lock: the newest and oldest that pyproject.toml allows
	$(call RESOLVE,requirements.lock,echo torch==$(TORCH))
	$(call RESOLVE,requirements-oldest.lock,"$(PYTHON)" scripts/lower_bounds.py)

audit: ## ask the advisory database about every locked package (needs a network)
	mkdir -p .cache && "$(PYTHON)" -m venv .cache/audit && .cache/audit/bin/python $(PIP_INSTALL) --quiet pip-audit
	.cache/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement requirements.lock

clean: ## remove caches (keeps .venv, runs/ and downloaded data)
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info screenshots site .cache/lock .cache/audit
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
	find . -name .ipynb_checkpoints -not -path './$(VENV)/*' -prune -exec rm -rf {} +
