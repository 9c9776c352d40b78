# `make run` and `make test` do all of it; `make env` alone makes the environment. Paths are relative: run from here.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.complete
INPUTS := requirements.txt requirements-installer.txt pyproject.toml

.PHONY: env run test tests drill soak bench docs screenshots lint format lock verify-docker clean

env: $(STAMP)
	@$(BIN)/bigdata-assets jars >/dev/null

$(STAMP): $(INPUTS)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || \
	  { echo "Python 3.11 or 3.12 is needed: install one and run make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@v=$$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p'); test "$${v:-0}" -ge 17 || \
	  { echo "Java 17 or newer is needed: on Debian or Ubuntu, apt-get install openjdk-17-jre-headless"; exit 1; }
	@# One that was cut off in the making may have a python without pip.
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@echo "installing the pinned packages into .venv ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-installer.txt
	@# Compiled once here: where PYTHONDONTWRITEBYTECODE is set, each process would compile what it imports, for seconds.
	@UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$($(BIN)/python -m pip config get global.index-url 2>/dev/null)}}"; \
	  test -n "$$UV_DEFAULT_INDEX" && export UV_DEFAULT_INDEX || unset UV_DEFAULT_INDEX; \
	  $(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.txt && \
	  $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

run: env
	@exec $(BIN)/bigdata-assets run

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint tests

# Two processes: each has engines of its own, and a third one's would take from two cores more than they wait.
tests: env
	$(BIN)/pytest -n 2 --dist loadgroup --no-loadscope-reorder

drill: env
	$(BIN)/pytest --drill

MINUTES ?= 3
RATE ?= 60
SEED ?= 1
soak: env
	$(BIN)/python -m bigdata_assets_tests.soak --minutes $(MINUTES) --rate $(RATE) --seed $(SEED) $(if $(EVERYTHING),--everything)

bench: env
	$(BIN)/python -m benchmarks

# What docs/ says of assets, tables, commands, settings and figures.
docs: env
	$(BIN)/python docs/generate.py

# Of what `make run` has made of the sample: it must be up.
screenshots: env
	$(BIN)/python docs/screenshots.py

verify-docker:
	$(PYTHON) docker/verify

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# uv itself is in requirements.txt too, or `uv pip sync` would take it away.
lock: env
	$(BIN)/uv pip compile pyproject.toml --extra dev --python-version 3.11 --universal --generate-hashes \
	  --no-emit-index-url --no-header --upgrade --output-file requirements.txt
	grep -A 60 '^uv==' requirements.txt | awk 'NR == 1 || /^ +--hash/ {print; next} {exit}' | sed '$$ s/ \\$$//' > requirements-installer.txt
	$(MAKE) env
	$(BIN)/python -m pip check

clean:
	rm -rf .venv var .pytest_cache .mypy_cache .ruff_cache .hypothesis
