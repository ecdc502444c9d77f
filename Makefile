# make app    set up on first use, then start the dashboard on http://127.0.0.1:8501
# make test   set up with the development tools and a browser, then lint and run every test
# make lint   check format, style (ruff) and types (basedpyright); make format mends what can be mended without a person
# make wheel  build the package, dist/*.whl, and its source, dist/*.tar.gz
# make bench  measure against a plain implementation (see benchmarks/RESULTS.md); ARGS="layer lora --runs 5"
# make mergekit  install mergekit into an environment of its own, for the benchmark beside it: make bench ARGS=mergekit
# make fuzz   mutate valid files by the thousands, kill merges and jobs at 50 moments a kind, and let atheris search by what the code
#             does, where it can be installed; EXAMPLES=20000 KILLS=500 for more
# make soak   20 visitors move ρ and α and change pages for 10 minutes; ARGS="--visitors 6 --minutes 3" for less
# make audit  compare the installed packages with the known holes (asks the internet; installs pip-audit)
# make clean  remove the environment and everything generated
#
# PYTHON=python3.12             which Python makes the environment (3.11 or newer)
# PIP_ARGS="..."                passed on to `pip install`
# make app  ARGS="--server.port 8600"     passed on to Streamlit
# make test ARGS="-k spectra -x"          passed on to pytest (two processes; ARGS="-n 0" for one)

VENV ?= .venv
ARGS ?=
EXAMPLES ?= 2000
KILLS ?= 50
PIP_ARGS ?=
# The first Python that is new enough; plain python3 comes first.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.14 python3.11 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)

PY := $(VENV)/bin/python
APP_STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev

.PHONY: app test fuzz soak audit lint format wheel bench mergekit screenshots browser install install-dev clean
.DEFAULT_GOAL := app

app: $(APP_STAMP)
	$(PY) -P dcmerge/ui/serve.py app.py $(ARGS)

test: $(DEV_STAMP) lint browser
	$(PY) -m pytest -n 2 --dist loadfile $(ARGS)

fuzz: $(DEV_STAMP)
	FUZZ_EXAMPLES=$(EXAMPLES) FAULT_KILLS=$(KILLS) $(PY) -m pytest -n 0 tests/fuzz tests/faults $(ARGS)
	-$(PY) -m pip install --quiet $(PIP_ARGS) atheris
	$(PY) -m tests.fuzz.guided --runs $(EXAMPLES)

soak: $(DEV_STAMP)
	$(PY) -m tools.soak $(ARGS)

audit: $(DEV_STAMP)
	$(PY) -m pip install --quiet pip-audit
	$(PY) -m pip_audit -r requirements.txt

lint: $(DEV_STAMP)
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m basedpyright --pythonpath $(PY)

format: $(DEV_STAMP)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

browser: $(DEV_STAMP)
	$(PY) -m tools.chromium

wheel: $(DEV_STAMP)
	$(PY) -m hatchling build -d dist

bench: $(DEV_STAMP) browser
	$(PY) -m benchmarks $(ARGS)

# Of an environment of its own: it asks for other versions than we do.
mergekit:
	$(PYTHON) -m venv .venv-mergekit
	.venv-mergekit/bin/python -m pip install $(PIP_ARGS) mergekit==0.1.5

screenshots: $(DEV_STAMP) browser
	$(PY) -m tools.screenshots $(or $(OUT),screenshots) $(ARGS)

install: $(APP_STAMP)

install-dev: $(DEV_STAMP)

$(APP_STAMP): requirements.txt
	@$(if $(PYTHON),,echo "No Python 3.11 or newer was found. Install one, or name it: make app PYTHON=/path/to/python3.11" >&2; exit 1)
	@$(PYTHON) tools/environment.py $(VENV) $@ requirements.txt -- $(PIP_ARGS)

$(DEV_STAMP): requirements-dev.txt $(APP_STAMP)
	@$(PYTHON) tools/environment.py $(VENV) $@ requirements.txt requirements-dev.txt -- $(PIP_ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis test-results screenshots
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
