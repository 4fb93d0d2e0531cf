# `make` alone lists the targets. Every target that needs the environment makes it first, where it
# is missing or older than the files that say what is in it.
SHELL := /bin/sh
PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
PEERS := $(VENV)/.stamp-peers
NEEDS := env/requirements.txt env/requirements-dev.txt env/requirements-cuda.txt pyproject.toml
# Installed by itself first: pip then finds the pin satisfied and never weighs other builds of it.
TORCH := $(shell sed -n 's/^\(torch==[^ #]*\).*/\1/p' env/requirements.txt)
MODERN := import sys; sys.exit(sys.version_info < (3, 11))

.DEFAULT_GOAL := help
.PHONY: help env peers run bench report test lab lint clean

help:  ## list the targets
	@echo "make TARGET [PYTHON=python3.11] [ARGS='...']"
	@sed -n 's/^\([a-z]*\):.*## /  \1|/p' Makefile | while IFS='|' read -r name text; do \
	  printf '  %-6s  %s\n' $$name "$$text"; done

env: $(STAMP)  ## make .venv from env/requirements-dev.txt

peers: $(PEERS)  ## add the frameworks that ours is measured against

run: $(STAMP)  ## run all notebooks, quick profile; ARGS='03 -p batch 8 --profile full --fresh'
	$(BIN)/python -m workbook run $(ARGS)

bench: $(PEERS)  ## time ours against other frameworks; ARGS='--models resnet18 --threads 1'
	$(BIN)/python -m workbook bench $(ARGS)

report: $(STAMP)  ## write index.html (and a PDF, with Chromium) of the newest run; ARGS=RUN
	$(BIN)/python -m workbook report $(ARGS)

test: $(STAMP)  ## run the tests; ARGS='tests/workbook -x'
	$(BIN)/python -m pytest $(ARGS)

lab: $(STAMP)  ## open the notebooks in JupyterLab
	$(BIN)/python -m jupyterlab --config=env/jupyter/jupyter_lab_config.py $(ARGS)

lint: $(STAMP)  ## check the code and that no notebook carries outputs
	$(BIN)/python -m ruff check .
	@for notebook in notebooks/*.ipynb; do [ ! -e "$$notebook" ] || \
	  $(BIN)/python -m nbstripout --keep-id --verify "$$notebook" || exit 1; done

clean:  ## remove .venv, caches and interactive outputs; runs in outputs/ stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist *.egg-info outputs/interactive
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last: an environment without it is half made, and is gone on with.
$(STAMP): $(NEEDS)
	@$(PYTHON) -c '$(MODERN)' 2>/dev/null || { \
	  found=$$($(PYTHON) --version 2>&1 | head -n 1); \
	  echo "Python 3.11 or newer is needed; '$(PYTHON)' says: $$found." \
	    "Name another: make $(or $(MAKECMDGOALS),env) PYTHON=python3.11" >&2; exit 1; }
	@$(BIN)/python -c 'import pip; $(MODERN)' 2>/dev/null || { \
	  rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --disable-pip-version-check -r env/requirements-dev.txt
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -e .
	@touch $@

# Constrained by the pins of the environment, which the peers must not move.
$(PEERS): $(STAMP) env/requirements-peers.txt
	$(BIN)/python -m pip install --disable-pip-version-check -c env/requirements.txt \
	  -r env/requirements-peers.txt
	@touch $@
