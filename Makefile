# `make demo` trains on built-in demo data, `make test` runs lint and all tests, `make check` lint, types and those that
# take seconds, `make test-long` all of them at their whole size, `make api` serves what MODEL_URI points at (the demo's
# model unless it is set), `make docs` builds the pages of docs into docs/_build. Each sets up .venv first.

PYTHONS := $(PYTHON) python3.12 python3.13 python3.11 python3
IN := .venv/bin/python
INSTALL = $(IN) -m pip install --disable-pip-version-check --quiet --require-hashes
COMPILE = UV_CUSTOM_COMPILE_COMMAND='make lock' .venv/bin/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-annotate
# A process that has nothing left takes the last tests of another: those of one file stay together until then. Three for
# two cores, since a sixth of the time of the tests is waiting.
TESTS = $(IN) -m pytest --numprocesses $${WORKERS:-3} --dist worksteal

.PHONY: demo test test-long check units lint types docs api lock clean
.DELETE_ON_ERROR:

# A second run shows the result of the first; a run that was cut short goes on where it stopped.
demo: runs/demo/result.txt
	@cat $<
	@echo "(the table is in $<; delete that file to train again)"

runs/demo/result.txt: configs/demo.toml | .venv/.installed
	$(IN) -m jobs.prepare --source demo --output runs/demo/data
	$(IN) -m jobs.train --config $< --output runs/demo/nrms --resume
	$(IN) -m jobs.train --model context --data runs/demo/data --output runs/demo/context --epochs 3 --resume
	$(IN) -m jobs.train --config $< --context true --epochs 1 --beside runs/demo/nrms,runs/demo/context --resume > $@

test: lint types
	$(TESTS)

test-long: lint types
	$(TESTS) --long

# Types and tests at once: each alone keeps a core busy, and mypy says all it has to say in one piece.
check: lint
	$(MAKE) --no-print-directory --jobs=2 types units

# Two processes, since these tests wait for nothing, and each imports TensorFlow.
units: export WORKERS ?= 2
units: .venv/.installed_dev
	$(TESTS) --units

lint: .venv/.installed_dev
	$(IN) -m ruff check
	$(IN) -m ruff format --check

types: .venv/.installed_dev
	$(IN) -m mypy

# A test does the same.
docs: .venv/.installed_dev
	$(IN) -m sphinx --fresh-env --fail-on-warning --keep-going --quiet docs docs/_build
	@echo "open docs/_build/index.html"

api: export MODEL_URI ?= runs/demo/models
api: export EVENTS ?= true
api: .venv/.installed
	exec $(IN) -m api

clean:
	rm -rf .venv docs/_build runs/demo .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The exact versions that pass the tests. One lock fits Python 3.11 to 3.13 on every system. `make lock` follows the
# ranges of requirements*.txt and keeps what still fits; `make lock UPGRADE=--upgrade` takes the newest.
lock: .venv/.installed_dev
	$(COMPILE) requirements_dev.txt --output-file requirements_dev.lock $(UPGRADE)
	for name in requirements requirements_api requirements_gpu; do \
		$(COMPILE) $$name.txt --output-file $$name.lock --constraint requirements_dev.lock $(UPGRADE) || exit; \
	done

.venv/.installed: requirements.lock requirements_api.lock | $(IN)
	@echo "Installing $<: minutes the first time, seconds after that"
	$(INSTALL) -r requirements.lock -r requirements_api.lock
	touch $@

.venv/.installed_dev: requirements_dev.lock .venv/.installed
	$(INSTALL) -r $<
	touch $@

# TensorFlow 2.21 has packages for Python 3.11 to 3.13.
$(IN):
	@for python in $(PYTHONS); do \
		if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
			echo "$$python -m venv .venv"; exec $$python -m venv --clear .venv; \
		fi; \
	done; \
	echo "Python 3.11, 3.12 or 3.13 is needed and none was found: install one, or name it: make PYTHON=/path/to/python" >&2; \
	exit 1
