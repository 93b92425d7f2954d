# Two commands matter: `make course` runs the whole experiment, `make test` checks everything. Both set up .venv first, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PART ?= 1
STAMP := $(VENV)/.installed
NOTEBOOKS := $(sort $(wildcard notebooks/[0-9a][0-9]_*.ipynb))
AFTER_THE_NOTEBOOKS := tests/test_in_jupyterlab.py
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))

.DEFAULT_GOAL := help
.PHONY: help setup course check test lint code-tests notebook-tests site lab notebooks pretrain clean
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

course: $(STAMP) ## run Part I, headless, and print what fine-tuning gained; PART=2 runs the rest, PART=all everything
	$(BIN)/python -m tools.run_course --part $(PART)

check: lint ## what an edit needs: ruff, spelling, import rules, quick tests, the notebooks as files
	$(BIN)/python -m pytest -m "not slow"

# Two jobs of one thread each, side by side: on two cores that is faster than one after the other with two threads each.
test: $(STAMP) ## all of check, the slow tests, and every notebook against its stored outputs
	@OMP_NUM_THREADS=1 $(MAKE) --no-print-directory -j2 code-tests notebook-tests

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/lint-imports --no-logo
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

# The quick tests and the slow ones in one process: what is imported, drawn or built for some serves the others.
code-tests: lint
	$(BIN)/python -m pytest $(addprefix --ignore=,$(AFTER_THE_NOTEBOOKS))

# In order and in one process: each notebook finds what the one before left in an outputs folder that starts empty. Some tests follow,
# so that both jobs end at about the same time.
notebook-tests: $(STAMP)
	@outputs=$$(mktemp -d) && trap 'rm -rf "$$outputs"' EXIT && echo "the notebooks run beside the tests of the code; their report follows" && \
	  { VDR_OUTPUTS="$$outputs" $(BIN)/python -m pytest --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg \
	  $(NOTEBOOKS) > "$$outputs/report.txt" 2>&1; status=$$?; cat "$$outputs/report.txt"; \
	  $(BIN)/python -m pytest $(AFTER_THE_NOTEBOOKS) && exit $$status; }

site: $(STAMP) ## build the course as web pages in outputs/site
	$(BIN)/sphinx-build -q -W --keep-going -c site . outputs/site
	@echo "open outputs/site/index.html"

lab: $(STAMP) ## open JupyterLab at notebook 00
	$(BIN)/jupyter lab notebooks/00_start_here.ipynb

notebooks: $(STAMP) ## for maintainers: run the notebooks and store their outputs in them, to be committed
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.run_course --store  # one thread, as in the tests: sums are made in the same order

pretrain: $(STAMP) ## make the tiny base model from random weights in outputs/pretrain, under two hours; goes on where it was stopped
	$(BIN)/python -m tools.pretrain

clean: ## remove .venv and caches; outputs/ is yours and stays
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache *.egg-info
	find vdr_helpers tiny_vdr tools benchmarks tests notebooks -name __pycache__ -prune -exec rm -rf {} +
