# The same commands by hand and in CI. `make demo` and `make test` each set up all they need.

PYTHON ?= python3
BIN := .venv/bin
LOCKED := .venv/.locked
READY := .venv/.ready
COMPILED := worker/detector.py worker/merge.py $(wildcard worker/surge/*.py) # some of them: see hatch_build.py
SOURCES := schemas stacknorm worker tests hatch_build.py

.PHONY: help setup demo test test-all faults check bench format lock schemas clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## the Python environment in .venv, from the lock

$(LOCKED): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit("stacknorm needs Python 3.11 or newer; this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@echo "==> setting up .venv: $$(grep -c '^[a-z].*==' requirements.lock) locked packages, about 3 GB to fetch and 6 GB on disk (torch with CUDA is most of it), once"
	@$(PYTHON) -m venv .venv
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > .venv/uv.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement .venv/uv.lock
	@$(BIN)/uv pip install --python $(BIN)/python --require-hashes --requirement requirements.lock
	@touch $(LOCKED)

$(READY): $(LOCKED) pyproject.toml hatch_build.py $(COMPILED)
	@echo "==> compiling the detector where a C compiler is there: a minute, after each change of it"
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python -c 'from worker.detector import is_compiled; is_compiled() or print("==> it runs uncompiled, and more slowly: a C compiler and the headers of Python are needed")'
	@touch $(READY)

demo: $(READY) ## real headlines through a real Apache Kafka: labels, and an alert (ARGS="--keep" leaves it running)
	@$(BIN)/stacknorm-worker demo $(ARGS)

test: $(READY) ## the tests, those against a real Apache Kafka included
	@$(BIN)/stacknorm-worker broker --fetch
	@$(BIN)/pytest -m "not slow" $(ARGS)

test-all: $(READY) ## all tests, the slow ones too
	@$(BIN)/stacknorm-worker broker --fetch
	@$(BIN)/pytest $(ARGS)

faults: $(READY) ## workers on three nodes of Kafka, hit fifty times; then a tally (ARGS="--records 2000 --seed 7 ...")
	@$(BIN)/stacknorm-worker broker --fetch
	@$(BIN)/python -m tests.faults $(ARGS)

check: $(READY) ## ruff, mypy strict, import directions, the Dockerfile
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/hadolint deploy/Dockerfile

bench: $(READY) ## the engine and the worker beside what one would use instead
	@$(BIN)/stacknorm-worker broker --fetch
	@$(BIN)/python -m tests.bench $(ARGS)

format: $(READY) ## rewrite the code in the house's format
	@$(BIN)/ruff check --fix --quiet $(SOURCES) || true
	@$(BIN)/ruff format $(SOURCES)

schemas: $(READY) ## rewrite the JSON Schemas from the models
	@$(BIN)/python -m schemas

lock: $(READY) ## resolve the dependencies anew
	@$(BIN)/uv pip compile --quiet --upgrade pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header --output-file requirements.lock

clean: ## remove what was built here
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f surge__mypyc.*.so worker/*.so worker/surge/*.so
