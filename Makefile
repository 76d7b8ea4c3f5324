# make quick   a first ranking, in minutes          make test    lint, types and tests; (test-all: of everything)
# make laptop  the same questions, in about an hour make check   lint and types only
# make fair    what changes with what is held equal
# make zoo     every architecture once, ~25 minutes make proofs  the oracle tests, and docs/zoo.md from what they measure
# make speed   what docs/speed.md shows            make docs    the pages of architectures and tasks
# make statistics  how often rankings err: the tables of docs/statistics.md
# make scale   a leaderboard on clusters that fail: the table of docs/scale.md
# make site    the documentation, in build/site
# make gpu     an hour on a GPU: its tests, kernels, speeds and `quick`, into docs/gpu.md
# make questions  six architectures, asked lm-evaluation-harness
# make lm …    a family of tasks: lm lra recall state seq2seq images extrapolation; make findings, what they should show
# make frontier  what language models since 2024 are made of, tuned
# make CONSTRAINTS=constraints.txt …   with the versions that the tests last passed with
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONSTRAINTS ?=
# Packages come without bytecode; whatever is imported first writes its own, in a container that forbids it too.
unexport PYTHONDONTWRITEBYTECODE
INSTALL = $(BIN)/python -m pip install --quiet --no-compile $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) --editable
SUITES := quick laptop fair zoo findings frontier questions lm lra recall state seq2seq images extrapolation

.PHONY: $(SUITES) test test-all check proofs docs site speed statistics scale gpu format clean

$(SUITES): $(VENV)/.data
	$(BIN)/zoobench run $@ --ignore-published

questions: $(VENV)/.questions

PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test: check
	$(PYTEST)

test-all: check
	$(PYTEST) --all

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

proofs: $(VENV)/.dev
	$(PYTEST) tests/oracles --proofs
	$(MAKE) docs

docs: $(VENV)/.dev
	$(BIN)/zoobench ls architectures --markdown > docs/zoo.md
	$(BIN)/zoobench ls tasks --markdown > docs/tasks.md
	$(BIN)/python benchmarks/quick_tables.py

site: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

speed: $(VENV)/.dev
	$(BIN)/python benchmarks/architectures.py docs/speed
	$(BIN)/python benchmarks/kernels.py docs/speed
	$(BIN)/python benchmarks/training_loop.py docs/speed
	$(BIN)/python benchmarks/log_likelihoods.py

statistics: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/rankings.py docs/statistics.md

gpu:
	@nvidia-smi -L > /dev/null 2>&1 || { echo "make gpu needs an NVIDIA GPU, and nvidia-smi finds none"; exit 1; }
	$(MAKE) VENV=build/venv-gpu build/venv-gpu/.dev  # of its own, as transformers takes fla's kernels on a CPU too
	build/venv-gpu/bin/python -m pip install --quiet flash-linear-attention setuptools wheel ninja packaging
	build/venv-gpu/bin/python benchmarks/gpu.py

scale: $(VENV)/.data
	$(BIN)/python benchmarks/cluster_queue.py docs/scale.md

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "zoobench needs Python 3.10 or newer; name one with: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip  # Python's own takes twice as long to install the rest

$(VENV)/.data: pyproject.toml | $(BIN)/python
	$(INSTALL) '.[data,vision]'
	@touch $@

$(VENV)/.questions: pyproject.toml | $(BIN)/python
	$(INSTALL) '.[data,vision,lm-eval]'
	@touch $@ $(VENV)/.data

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(INSTALL) '.[data,vision,tuning,hub,lm-eval,dev,oracles]'
	@touch $@ $(VENV)/.data

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	$(INSTALL) '.[docs]'
	@touch $@
