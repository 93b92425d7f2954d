# Two commands matter: `make course` runs the experiment, `make test` checks it. Each first installs into .venv what it needs, once.
PYTHON ?= python3
PART ?= 1
VENV := .venv
BIN := $(VENV)/bin

# The extras of pyproject.toml that each command needs.
PART_1 := run,audit,bench,documents,ocr,store
PART_2 := $(PART_1),scale
PART_all := $(PART_2)
LAB := $(PART_2),lab,serve
TEST := $(LAB),site,test

NOTEBOOKS_1 := $(sort $(wildcard notebooks/0[0-7]_*.ipynb notebooks/a[0-9]*_*.ipynb))
NOTEBOOKS_2 := $(sort $(wildcard notebooks/08_*.ipynb notebooks/09_*.ipynb notebooks/1[0-9]_*.ipynb))
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))

.DEFAULT_GOAL := help
.PHONY: help setup course check test test-all lint code-tests notebook-tests all-code-tests all-notebook-tests site lab notebooks pretrain clean-outputs clean
.DELETE_ON_ERROR:

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.has-LAB ## create .venv with all that the notebooks need (the other commands install what they need by themselves)

$(BIN)/uv:
	@$(PYTHON) -c '$(NEW_ENOUGH)' 2>/dev/null || { echo 'This course needs Python 3.11 or newer, but "$(PYTHON)" is' \
	  "$$($(PYTHON) --version 2>/dev/null || echo not there). Name a newer one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements.txt)"

# Runs again only when the pins or the package's metadata change. Compiled at once: imports take half the time.
$(VENV)/.has-%: requirements.txt pyproject.toml | $(BIN)/uv
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python -c requirements.txt -e '.[$($*)]'
	@touch $@

course: $(VENV)/.has-PART_$(PART) ## run Part I, headless, and print what fine-tuning gained; PART=2 runs the rest, PART=all everything
	$(BIN)/python -m tools.run_course --part $(PART)

check: lint ## what an edit needs: ruff, spelling, import rules, quick tests, the notebooks as files
	$(BIN)/python -m pytest -m "not slow and not long"

# Two jobs of one thread each, side by side: on two cores that is faster than one after the other with two threads each.
test: $(VENV)/.has-TEST ## all of check, the slow tests, and the notebooks of Part I against their stored outputs
	@OMP_NUM_THREADS=1 $(MAKE) --no-print-directory -j2 code-tests notebook-tests

test-all: $(VENV)/.has-TEST ## all of test, and what takes longer: Part II, every exercise in a browser, `full` on stand-ins
	@OMP_NUM_THREADS=1 $(MAKE) --no-print-directory -j2 all-code-tests all-notebook-tests

lint: $(VENV)/.has-TEST
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/lint-imports --no-logo
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format --default-filetype yaml CITATION.cff

code-tests: lint
	$(BIN)/python -m pytest -m "not long"

all-code-tests: lint
	$(BIN)/python -m pytest

# In order and in one process: each notebook finds what the one before left in an outputs folder that starts empty.
notebook-tests all-notebook-tests: $(VENV)/.has-TEST
	@outputs=$$(mktemp -d) && trap 'rm -rf "$$outputs"' EXIT && \
	  echo "the notebooks run beside the tests of the code; their report follows" && \
	  VDR_OUTPUTS="$$outputs" $(BIN)/python -m pytest --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg \
	  $(NOTEBOOKS_1) $(if $(findstring all,$@),$(NOTEBOOKS_2)) > "$$outputs/report.txt" 2>&1; \
	  status=$$?; cat "$$outputs/report.txt"; exit $$status

site: $(VENV)/.has-TEST ## build the course as web pages in outputs/site
	$(BIN)/sphinx-build -q -W --keep-going -c site . outputs/site
	@echo "open outputs/site/index.html"

lab: $(VENV)/.has-LAB ## open JupyterLab at notebook 00
	$(BIN)/jupyter lab notebooks/00_start_here.ipynb

notebooks: $(VENV)/.has-PART_all ## for maintainers: run the notebooks and store their outputs in them, to be committed
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.run_course --store  # one thread, as in the tests: sums are made in the same order

pretrain: $(VENV)/.has-PART_1 ## make the tiny base model from random weights in outputs/pretrain, under three hours; goes on where it was stopped
	$(BIN)/python -m tools.pretrain

clean-outputs: $(VENV)/.has-PART_1 ## list what lies under outputs/ and what of it your settings use; REMOVE=1 deletes the rest
	$(BIN)/python -m tools.outputs $(if $(REMOVE),--remove)

clean: ## remove .venv and caches; outputs/ is yours and stays
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache *.egg-info
	find vdr_helpers tiny_vdr tools benchmarks tests notebooks -name __pycache__ -prune -exec rm -rf {} +
