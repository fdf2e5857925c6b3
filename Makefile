# Everything from a bare clone: `make quickstart` trains and scores the small world model, `make test` runs the checks.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export RSW_RUNS ?= runs

.PHONY: install quickstart test test-all test-integrations test-vllm lint docs figures weights dist resolve clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: set PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

quickstart: install
	$(BIN)/rsw train configs/quickstart.yaml

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

# The slow tests as well: whole trainings, clusters of several nodes, processes that are killed.
test-all: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The adapters against the real trainers and harnesses, each in packages of its own, which are removed afterwards.
test-integrations: install
	$(BIN)/python tests/integrations/run.py

# The engine's tests against vLLM itself, on a CPU: packages of its own, 3.5 GB in VLLM_ENV, kept for the next time.
VLLM_ENV ?= $(HOME)/.cache/rsw_rewards/vllm
test-vllm: $(VLLM_ENV)/.installed
	PYTHONPATH=$(CURDIR) OMP_NUM_THREADS=1 $(VLLM_ENV)/bin/python -m pytest -p no:cacheprovider --durations=10 tests/rollouts/test_vllm_engine.py

# The wheels of torchaudio and torchcodec are for CUDA and break transformers; vLLM's child processes need the schemas of torchvision too.
$(VLLM_ENV)/.installed: tests/rollouts/vllm_packages.txt
	$(PYTHON) -m venv $(VLLM_ENV)
	$(VLLM_ENV)/bin/pip install --quiet --requirement tests/rollouts/vllm_packages.txt
	$(VLLM_ENV)/bin/pip uninstall --quiet --yes torchaudio torchcodec
	$(VLLM_ENV)/bin/pip install --quiet --no-deps --editable .
	echo "import rsw_rewards" > $$($(VLLM_ENV)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/zz_rsw_rewards.pth
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The pages as a site, in build/site; a broken link or reference stops it.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Runs every command that prints figures of the pages, short ones first, and says which differ. All take half a day: ARGS="--most 5", or
# ARGS="--page statistics.md", or ARGS="--only readings" run some, and ARGS=--list shows them.
figures: install
	$(BIN)/python benchmarks/figures.py $(ARGS)

weights: install
	$(BIN)/python -m rsw_rewards.training.embedded

# Wheel and sdist, each installed where nothing else is, away from the checkout. The wheel is built from the sdist.
dist:
	rm -rf build dist
	$(PYTHON) -m venv build/tools
	build/tools/bin/pip install --quiet build
	build/tools/bin/python -m build --outdir dist .
	rm -rf build/tools *.egg-info
	for made in dist/*.whl dist/*.tar.gz; do \
		rm -rf build/core && $(PYTHON) -m venv build/core && build/core/bin/pip install --quiet $$made && \
		(cd build && core/bin/python -P ../tests/core_examples.py) || exit 1; \
	done
	build/core/bin/python benchmarks/sizes.py

# Whether the package installs beside the trainers that it plugs into; takes a quarter of an hour and installs nothing.
resolve: dist
	build/core/bin/python benchmarks/resolve.py dist/*.whl

clean:
	rm -rf $(VENV) build dist *.egg-info runs
