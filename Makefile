# Every target sets itself up: only python3 (3.11 or newer), make and a network are needed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# The tests start hundreds of Pythons: where one may not keep what it compiled, each compiles the tree again.
unexport PYTHONDONTWRITEBYTECODE
# Tests wait for servers as much as they compute.
JOBS   ?= 5
# Every program of a new machine that the tests call. Their Redis and PostgreSQL are those of wheels.
BARE   := cat chmod dirname env git make mkdir nohup od rm setpriv sh sleep tr

.PHONY: demo test test-bare check e2e convoy bench soak simulate mutants programs docs clean

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[demo,dev]'
	@touch $@

demo: $(STAMP) ## embedded Redis, simulated Convoy workload, exporter on 127.0.0.1:9464
	@$(BIN)/otel-queue demo $(ARGS)

test: $(STAMP) check ## lint, types, layers, declared imports, docs, then every test that can run here
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-bare: $(STAMP) ## `make test` as on a machine that has python3, make, git and a network, and nothing else
	@bare=$$(mktemp -d) && trap 'rm -rf "$$bare"' EXIT && mkdir "$$bare/bin" && \
	for program in $(BARE); do ln -s "$$(command -v $$program)" "$$bare/bin" || exit 1; done && \
	env -u TESTS_REQUIRE_ALL PATH="$$bare/bin" TESTS_CACHE="$$bare" $(MAKE) --no-print-directory test

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry otel_queue
	$(BIN)/python -m tests.docs_check

e2e: $(STAMP) ## everything real on one machine: each number of the dashboard is what was driven
	$(BIN)/python -m pytest -n 0 tests/e2e/whole $(ARGS)

convoy: $(STAMP) ## a real Convoy, built from CONVOY_SOURCE=DIR, driven and killed: each number compared; ten minutes
	@CONVOY_SOURCE="$(CONVOY_SOURCE)" CONVOY_REPLACE="$(CONVOY_REPLACE)" \
	$(BIN)/python -m pytest -n 0 -rs tests/convoy $(ARGS)

bench: $(STAMP) ## one JSON object a line; make bench ONLY=inspector-wall runs one
	@$(BIN)/python -m tests.bench $(ONLY)

soak: $(STAMP) ## an hour of the whole pipeline under load, a fault a minute; or ARGS='exactness', 'seeding', 'whole --minutes 5'
	@$(BIN)/python -m tests.soak $(or $(ARGS),whole)

mutants: $(STAMP) ## small changes to a room of the package, and how many its tests notice: ARGS='redis_client --sample 50'
	@$(BIN)/python -m pip install --quiet --editable '.[mutants]'
	@$(BIN)/python -m tests.mutants $(ARGS)

simulate: $(STAMP) ## schedules of faults drawn from seeds, on virtual time: ARGS="--schedules 2000", "--planted", "--show --seed 7"
	@$(BIN)/python -m tests.simulation $(ARGS)

programs: $(STAMP) ## the Go programs that tests need, built beforehand; minutes the first time
	$(BIN)/python -m tests.go_program

docs: $(STAMP) ## regenerate what is generated
	$(BIN)/python -m tests.docs_check --write

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
