# `make demo` and `make test` need Python >= 3.11 and make, nothing else: they set everything up in .venv.
VENV ?= .venv
BIN := $(VENV)/bin
# Two processes: most tests wait for processes of their own, and share what the machine has. No other one takes the place
# of one that a test's timeout has ended: pytest-xdist may wait for ever then for tests that nobody was given.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 0
export VENV

.PHONY: demo test install lint types check bench chaos matrix pictures clean

demo: $(VENV)/.installed-demo  ## train an agent with the whole graph around it, and check every count
	$(BIN)/runlane demo

test: $(VENV)/.installed-test  ## all tests
	$(PYTEST)

install: $(VENV)/.installed-dev  ## everything a developer needs

lint: $(VENV)/.installed-dev  ## ruff, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=src $(BIN)/lint-imports
	$(BIN)/validate-pyproject pyproject.toml

types: $(VENV)/.installed-dev  ## mypy and pyright, both strict
	$(BIN)/pyright & checked=$$!; $(BIN)/mypy; code=$$?; wait $$checked && exit $$code

check: lint types  ## what CI runs
	$(PYTEST)

bench: $(VENV)/.installed-dev  ## every benchmark; each ends with one JSON line
	for file in benchmarks/bench_*.py; do \
		echo "== $$file"; \
		case $$file in *bench_memory.py) set -- --minutes 1 ;; *) set -- ;; esac; \
		$(BIN)/python $$file "$$@" || exit 1; \
	done

KILLS ?= 1000
chaos: $(VENV)/.installed-test  ## kill -9 of everything at random; SEED, ONLY, FROM, REPORT: see docs/how-to/run-the-kill-matrix.md
	PYTHONPATH=tests $(BIN)/python -m chaos --kills $(KILLS) $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only $(ONLY)) \
		$(if $(FROM),--first-round $(FROM)) $(if $(REPORT),--report $(REPORT))

KINDS := atari cleanrl coach gym pettingzoo sb3 spade tianshou vizdoom
KIND_TESTS := $(addprefix tests/process/test_,agents.py coach.py godot.py libraries.py spade.py vizdoom.py)
matrix: $(VENV)/.installed-test  ## unedited scripts of each library, and every kind of worker; ONLY=part of a name
	for kind in $(KINDS); do .ci/kind $$kind || echo "NO ENVIRONMENT for $$kind: its scripts will be SKIPPED" >&2; done
	$(PYTEST) -rs tests/matrix/whole.py $(KIND_TESTS) $(if $(ONLY),-k "$(ONLY)")

pictures: $(VENV)/.installed-dev  ## the pictures of the GUI in docs/images, from a real graph; needs .[bench] and ale-py, box2d
	$(BIN)/python benchmarks/gui_pictures.py docs/images

clean:  ## what the other targets made
	rm -rf $(VENV) .runlane .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist

$(VENV)/.installed-%: pyproject.toml .ci/bootstrap
	.ci/bootstrap $*
