# make demo | test | test-all | bench | soak | lint | types | coverage | format | clean
# What the demo runs on: REDIS_URL and ENGINE, also as HA_ENGINE_ADDRESS and HA_ENGINE, all from the environment.
NODES ?= 2
PORT ?= 8000
ENGINE ?=
MINUTES ?= 10
SEED ?=
FRAMES ?= 100000
TOPOLOGY ?= single
SERVERS ?= redis redis-8 redis-6.2
# Most tests wait for clocks and processes, so two at a time take half as long.
JOBS ?= 2
PYTEST = .venv/bin/python -m pytest -n $(JOBS) --dist loadfile
# The pairs of Python and Django that "make test-all" runs (py311-dj52 is "make test"; "tox" alone runs every pair), and
# what the newest Django and the oldest redis-py run.
PAIRS = py312-dj52,py312-dj61,py313-dj60,py313-dj61,py314-dj52,py314-dj61,lint,types,imports
# What every kind of server runs: the engine's contract, and the first rows of the fault matrix.
EVERYWHERE = -m "not slow and not fault and not soak" -k "engines or f1_ or f9_ or f10_ or f12_ or f15_" tests/engines tests/faults
DEEP = -m "not slow and not fault" tests/engines tests/layer tests/sdk
QUICK = -m "not slow and not fault" tests/management $(addprefix tests/,auth clients leadership messages node push streams) $(wildcard tests/test_*.py)

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.14 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
# Interpreters that pyenv keeps beside the one in use, for tox.
PYTHONS = $(shell .venv/bin/python -c "import glob, pathlib, sys; \
	print(':'.join(sorted(glob.glob(str(pathlib.Path(sys.base_prefix).parent / '3.1[1-9]*' / 'bin')))))")

export PIP_DISABLE_PIP_VERSION_CHECK = 1
INSTALL = .venv/bin/python -m pip install --quiet

.PHONY: demo test test-all bench soak lint types coverage format clean

demo: .venv/demo.installed
	NODES=$(NODES) PORT=$(PORT) ENGINE=$(ENGINE) exec .venv/bin/python demo_project/run_demo.py

test: .venv/test.installed
	$(PYTEST) -m "not slow and not fault and not soak" $(ARGS)

test-all: .venv/dev.installed .venv/servers.installed
	$(PYTEST) -m "slow or fault" $(ARGS)
	set -e; for server in $(SERVERS); do echo "== $$server"; \
		TEST_SERVER=$$server $(PYTEST) -q $(EVERYWHERE) $(ARGS); done
	PATH="$(PYTHONS):$$PATH" .venv/bin/python -m tox run -e py311-dj52-redis5,py312-dj61 -- -n $(JOBS) --dist loadfile $(DEEP)
	PATH="$(PYTHONS):$$PATH" .venv/bin/python -m tox run-parallel -p 2 --parallel-no-spinner -e $(PAIRS) -- $(QUICK)

bench: .venv/bench.installed
	.venv/bin/python -m benchmarks $(ARGS)

# 100,000 frames that no client should send; then half of the time for what is published, half for who leads.
soak: HALF = $(shell awk 'BEGIN { print $(MINUTES) / 2 }')
soak: .venv/test.installed
	FUZZ_FRAMES=$(FRAMES) .venv/bin/python -m pytest -q tests/test_fuzz.py
	.venv/bin/python -m tests.faults.soak --minutes $(HALF) --topology $(TOPOLOGY) $(if $(SEED),--seed $(SEED))
	.venv/bin/python -m tests.faults.campaign --minutes $(HALF) $(if $(SEED),--seed $(SEED))

lint: .venv/dev.installed
	.venv/bin/python -m ruff check
	.venv/bin/python -m ruff format --check
	.venv/bin/lint-imports

format: .venv/dev.installed
	.venv/bin/python -m ruff check --fix
	.venv/bin/python -m ruff format

types: .venv/dev.installed
	.venv/bin/python -m mypy

coverage: .venv/test.installed
	.venv/bin/python -m coverage run -m pytest -m "not slow and not fault" $(ARGS)
	.venv/bin/python -m coverage combine
	.venv/bin/python -m coverage report

clean:
	rm -rf .venv .tox .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage* build dist *.egg-info

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "livechannels needs Python 3.11 or newer: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv

# Extras are installed again only when setup.cfg has changed.
.venv/%.installed: setup.cfg pyproject.toml | .venv/bin/python
	$(INSTALL) --editable '.[$*]'
	@touch $@
