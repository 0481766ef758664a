# Everything runs from .venv, which is made on first use from constraints.txt.
PYTHON ?= python3
# Passed to pip, for example to choose another build of torch (see README.md).
PIP_OPTIONS ?=
# Test processes, and what else to hand to pytest: make test PYTEST_OPTIONS="-k resume"
WORKERS ?= 2
PYTEST_OPTIONS ?=
# What make torture kills, and the seed of the moments.
KILLS ?= 200
SEED ?= 0

BIN := .venv/bin
EXTRAS := train,metrics,lora,plots,video,export,demo,docs,dev
OFFLINE := HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_EVALUATE_OFFLINE=1

.DEFAULT_GOAL := help
.PHONY: help demo cards test test-slow test-browser torture check format docs install clean

help:  ## show this list
	@echo "usage: make [TARGET] [PYTHON=python3.12] [PIP_OPTIONS=...]"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-12s %s\n", $$1, $$2}'

demo: .venv/installed  ## train a language model, a translator and a GAN on bundled data, and show what they make
	$(OFFLINE) $(BIN)/python -m hf_genmodels.training.demo

cards: .venv/installed  ## write the cards of the released presets again, from their runs in runs/
	$(OFFLINE) $(BIN)/genmodels card --released

test: .venv/installed  ## run the tests, without the network
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m "not slow and not browser" $(PYTEST_OPTIONS)

test-slow: .venv/installed  ## run the tests that take minutes
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m slow $(PYTEST_OPTIONS)

torture: .venv/installed  ## kill KILLS=200 training runs at random moments and check that nothing is lost
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m tests.torture --kills $(KILLS) --seed $(SEED)

check: .venv/installed  ## lint, format, types and import contracts, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-browser: .venv/installed  ## run the tests that drive the demo in a headless browser, such as chromium of Debian
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_OPTIONS) -e ".[demo,browser]"
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser $(PYTEST_OPTIONS) tests/demo

docs: .venv/installed  ## build the pages of docs/ into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html"

install: .venv/installed  ## make .venv with everything

.venv/installed: setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "error: $(PYTHON) is `$(PYTHON) --version 2>&1`, Python 3.10 or newer is needed." \
	         "Name one with: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv || { \
	    echo "error: $(PYTHON) cannot make a virtual environment." \
	         "On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_OPTIONS) -e ".[$(EXTRAS)]"
	@touch $@

clean:  ## remove .venv, builds and caches; runs/ stays
	rm -rf .venv build dist *.egg-info .coverage* htmlcov \
	    .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find hf_genmodels training model_cards tests -name __pycache__ -prune -exec rm -rf {} +
