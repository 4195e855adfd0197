# `make demo` and `make test` need Python >= 3.11 and make, nothing else: they set everything up in .venv.
VENV ?= .venv
BIN := $(VENV)/bin
export VENV

.PHONY: demo test install lint types check bench clean

demo: $(VENV)/.installed-demo  ## train an agent with the whole graph around it, and check every count
	$(BIN)/runlane demo

test: $(VENV)/.installed-test  ## all tests
	$(BIN)/python -m pytest

install: $(VENV)/.installed-dev  ## everything a developer needs

lint: $(VENV)/.installed-dev  ## ruff, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=src $(BIN)/lint-imports
	$(BIN)/validate-pyproject pyproject.toml

types: $(VENV)/.installed-dev  ## mypy and pyright, both strict
	$(BIN)/mypy
	$(BIN)/pyright

check: lint types  ## what CI runs
	$(BIN)/python -m pytest

bench: $(VENV)/.installed-dev  ## every benchmark; each ends with one JSON line
	for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean:  ## what the other targets made
	rm -rf $(VENV) .runlane .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist

$(VENV)/.installed-%: pyproject.toml .ci/bootstrap
	.ci/bootstrap $*
