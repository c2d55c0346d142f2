# make demo: everything, on the embedded base. make test: the tests, under ten minutes on two cores; make quick: those that
# take a minute in all; make heavy: those that take tens of seconds each. All set up what is missing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
export DO_NOT_TRACK = 1
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export MLFLOW_DISABLE_TELEMETRY = true

.PHONY: demo test heavy fleet quick soak setup lint clean

demo: setup
	@git rev-parse --git-dir >/dev/null 2>&1 || git init -q # DVC keeps its place by it; a ZIP file has none
	@PATH="$(abspath $(BIN)):$$PATH" dvc repro
	@$(BIN)/arbooth summary

test: setup
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest -n auto --dist loadfile -m "not heavy and not fleet" $(ARGS)

# Whole pipelines in every variation, kills, deployments, the README's blocks, memory against real runs.
heavy: setup
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest -n auto --dist loadfile -m "heavy and not fleet" $(ARGS)

# Several hosts in network namespaces, as root; skipped, with the reason, where PostgreSQL or an SSH server is missing.
fleet: setup
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest tests/fleet $(ARGS)

quick: setup
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest -n auto --dist loadfile -m "not heavy and not slow" $(ARGS)

# Thousands of faults, two hundred kills (both together hours), and every fault of a fleet twenty times; a day.
soak: setup
	@PATH="$(abspath $(BIN)):$$PATH" FAULT_CASES=1000 FAULT_KILLS=34 $(BIN)/python -m pytest -n auto tests/faults $(ARGS)
	@PATH="$(abspath $(BIN)):$$PATH" FLEET_FAULTS=20 $(BIN)/python -m pytest tests/fleet $(ARGS)

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/mypy

setup: $(STAMP)

# Versions are locked; torch is named by its exact version, so that pip may take a CPU build.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "arbooth needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 2; }
	@echo "setting up $(VENV) (once, a few minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' requirements.lock)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[test]'
	@touch $@

clean:
	rm -rf $(VENV)
