# Two commands matter: `make course` runs the whole experiment, `make test` checks everything. Both set up .venv first, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NOTEBOOKS := $(sort $(wildcard notebooks/[0-9]*.ipynb))
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
MINUTES ?= 106

.DEFAULT_GOAL := help
.PHONY: help setup course test lab notebooks pretrain clean
.DELETE_ON_ERROR:

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv and install the pinned packages (the other commands do this by themselves)

# Runs again only when the pins or the package's metadata change.
$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c '$(NEW_ENOUGH)' 2>/dev/null || { echo 'This course needs Python 3.11 or newer, but "$(PYTHON)" is' \
	  "$$($(PYTHON) --version 2>/dev/null || echo not there). Name a newer one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements.txt)"
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python -r requirements.txt -e .  # compiled once: imports take half the time
	@touch $@

course: $(STAMP) ## run all seven notebooks, headless, and print what fine-tuning gained
	$(BIN)/python -m vdr_helpers.run_course

# The notebooks run in order and in one process: each one finds what the one before left in an outputs folder that starts empty.
test: $(STAMP) ## ruff, the tests in tests/, then every notebook against its stored outputs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest
	@outputs=$$(mktemp -d) && trap 'rm -rf "$$outputs"' EXIT && \
	  VDR_OUTPUTS="$$outputs" $(BIN)/python -m pytest --nbval --nbval-current-env \
	  --nbval-sanitize-with tests/nbval_sanitize.cfg $(NOTEBOOKS)

lab: $(STAMP) ## open JupyterLab at notebook 00
	$(BIN)/jupyter lab notebooks/00_start_here.ipynb

notebooks: $(STAMP) ## for maintainers: run the notebooks and store their outputs in them, to be committed
	$(BIN)/python -m vdr_helpers.run_course --store

pretrain: $(STAMP) ## pre-train a tiny base model from random weights in outputs/pretrain (106 minutes; MINUTES=… to change that)
	$(BIN)/python -m vdr_helpers.pretrain --minutes $(MINUTES) --output outputs/pretrain

clean: ## remove .venv and caches; outputs/ is yours and stays
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache *.egg-info
	find vdr_helpers tests notebooks -name __pycache__ -prune -exec rm -rf {} +
