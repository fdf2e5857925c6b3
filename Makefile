# Everything from a bare clone: `make quickstart` trains and scores the small world model, `make test` runs all checks.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export RSW_RUNS ?= runs

.PHONY: install quickstart test lint weights clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: set PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

quickstart: install
	$(BIN)/rsw train configs/quickstart.yaml

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

weights: install
	$(BIN)/python -m rsw_rewards.training.embedded

clean:
	rm -rf $(VENV) build dist *.egg-info runs
