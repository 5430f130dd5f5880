# Everything one does with Chiffon's repository. `make` lists the targets.
#
# The environment is .venv, made by the first target that needs it and made anew when a lock file or pyproject.toml
# changes; `make bench` has another for the peers, bench/.venv. PYTHON=… names the Python to make them with.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime-installed
DEV := $(VENV)/.dev-installed
BENCH_VENV := bench/.venv
BENCH := $(BENCH_VENV)/.installed
LOCK_TOOLS := $(VENV)/lock-tools
PIP_TOOLS := pip-tools==7.6.2
SOURCES := src tests bench
PYTEST := $(BIN)/python -m pytest
WORKERS ?= $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN) * 2 )))
STARTED := $(shell date +%s)
# Hundreds of processes start in a test run; without compiled modules on disk each of them compiles every module again.
export PYTHONDONTWRITEBYTECODE :=
ELAPSED = $$(( $$(date +%s) - $(STARTED) )) s

.PHONY: help demo demo-run up test packages check format lint types imports pytest coverage fuzz stress bench bench-claims bench-strangers chaos chaos-runs mutants lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(RUNTIME) ## install, start everything on this machine, run real work on two agents, show what happened
	@$(BIN)/chiffon demo

demo-run: $(RUNTIME) ## repair a service of Docker Compose on this machine, break it, show the rollback; says what is missing
	@$(BIN)/chiffon demo-run

up: $(RUNTIME) ## install and start everything on this machine; stays up until Ctrl-C
	@$(BIN)/chiffon up

test: ## everything continuous integration runs: the checks beside every test on real services
	@$(MAKE) -j2 $(DEV) packages && $(MAKE) -j2 pytest check || { echo "make test: failed after $(ELAPSED)"; exit 1; }
	@echo "make test: passed in $(ELAPSED)"

# Debian's packages of the servers that tests use, while pip installs; where that cannot be done, pytest says what is missing.
packages:
	@! command -v python3 >/dev/null || python3 -m tests.services.packages

check: format lint types imports ## formatting, lint, types and import rules

format: $(DEV)
	@echo "ruff format --check" && $(BIN)/ruff format --check --quiet $(SOURCES)

lint: $(DEV)
	@echo "ruff check" && $(BIN)/ruff check --quiet $(SOURCES)

types: $(DEV)
	@echo "mypy --strict" && $(BIN)/mypy --no-error-summary

imports: $(DEV)
	@echo "lint-imports" && report=$$($(BIN)/lint-imports 2>&1) || { echo "$$report"; exit 1; }

# Tests often wait for a process or a server, so there are two workers for each processor; more only wait for each other.
pytest: $(DEV)
	@$(PYTEST) -n $(WORKERS) --durations=20 $(TESTS) </dev/null

coverage: $(DEV) ## every test, and which lines and branches they reach
	@$(PYTEST) -n $(WORKERS) --cov --cov-report=term-missing:skip-covered

# The tests that ask tests/fuzz/bounds.py how much to try.
fuzz: $(DEV) ## the tests of random examples with EXAMPLES=20 times as many of them; SEED=… repeats a run
	@CHIFFON_EXAMPLES=$(or $(EXAMPLES),20) CHIFFON_SEED=$(SEED) $(PYTEST) -n $(WORKERS) --timeout 3600 \
		$$(grep -rl --include='test_*.py' 'tests.fuzz.bounds' tests)

stress: $(DEV) ## run PROGRAMS=10000 programs that try to outlive their attempts, and count what is left of them
	@$(BIN)/python -m tests.stress_attempts --programs $(or $(PROGRAMS),10000)

bench: $(DEV) $(BENCH) ## measure Chiffon beside its peers; JSON=file, PLOT=file.png, OPTIONS='--quick --only bulk'
	@$(BIN)/python -m bench $(if $(JSON),--json $(JSON)) $(if $(PLOT),--plot $(PLOT)) $(OPTIONS)

bench-claims: $(DEV) ## how long a claim over HTTP takes with a thousand jobs waiting and with a million; JSON=file
	@$(BIN)/python -m bench.claims $(if $(JSON),--json $(JSON))

bench-strangers: $(DEV) ## how long a dispatch takes, and what memory does, while strangers attack; JSON=file
	@$(BIN)/python -m bench.strangers $(if $(JSON),--json $(JSON)) $(OPTIONS)

mutants: $(DEV) ## take the safeguards away one at a time and see that tests notice; ONLY='leases policy/name', JSON=file
	@$(BIN)/python -m tests.mutants $(ONLY) $(if $(JSON),--json $(JSON))

chaos: $(DEV) ## break everything for MINUTES=3 as SEED=… decides and see what holds; figures go to JSON=file
	@$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) --minutes $(or $(MINUTES),3) $(if $(JSON),--json $(JSON))

chaos-runs: $(DEV) ## kill KILLS=200 processes in the middle of repairs as SEED=… decides; figures go to JSON=file
	@$(BIN)/python -m tests.chaos.runs $(if $(SEED),--seed $(SEED)) --kills $(or $(KILLS),200) $(if $(JSON),--json $(JSON))

lock: $(LOCK_TOOLS) ## pin and hash the newest packages that pyproject.toml and bench/requirements.in allow
	@tools/lock.sh $(LOCK_TOOLS)/bin/python
	@git --no-pager diff --stat -- requirements.txt requirements-dev.txt bench/requirements.txt

clean: ## remove the environment and everything that tools have cached
	rm -rf $(VENV) $(BENCH_VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage .coverage.* build dist
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUNTIME): requirements.txt pyproject.toml tools/environment.sh
	@tools/environment.sh requirements.txt
	@touch $@

$(BENCH): bench/requirements.txt tools/environment.sh
	@tools/environment.sh bench/requirements.txt $(BENCH_VENV)
	@touch $@

# The dev lock contains the runtime lock.
$(DEV): requirements-dev.txt requirements.txt pyproject.toml tools/environment.sh
	@tools/environment.sh requirements-dev.txt
	@touch $(RUNTIME) $@

$(LOCK_TOOLS): $(DEV)
	@$(BIN)/python -m venv $@ && $@/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_TOOLS)
