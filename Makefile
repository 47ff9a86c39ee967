# `make run` and `make test` need nothing but Python >= 3.11 (or uv) and git; they make .venv on their first call.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install run test test-faults test-sites lint lock

help:
	@echo "make run    install into $(VENV) if need be, then: kedro run --pipeline fal"
	@echo "make test   install into $(VENV) if need be, then the tests"
	@echo "make test-faults   the slow tests: runs killed again and again, full disks, trackers that go down"
	@echo "make test-sites    the tests that need Flower, in an environment of its own"
	@echo "make lint   ruff, mypy, import rules"
	@echo "make lock   bring requirements.lock up to date with pyproject.toml (needs uv)"

install: $(VENV)/.installed

# Versions come from requirements.lock, which names no host: packages come from whatever index this machine uses.
$(VENV)/.installed: requirements.lock pyproject.toml
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --allow-existing --python ">=3.11" $(VENV) && \
		uv pip install --python $(BIN)/python --compile-bytecode -r requirements.lock && \
		uv pip install --python $(BIN)/python --no-deps --no-build-isolation -e . ; \
	else \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, found " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")' && \
		$(PYTHON) -m venv $(VENV) && \
		$(BIN)/python -m pip install --disable-pip-version-check -r requirements.lock && \
		$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e . ; \
	fi
	@touch $@

run: install
	$(BIN)/kedro run --pipeline fal

test: install
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term:skip-covered --cov-fail-under=90

test-faults: install
	$(BIN)/python -m pytest -m slow tests/faults

# Flower and the other packages disagree about versions (requirements-flower.lock): an environment of its own. Here it holds
# only what differs from $(VENV), whose packages it finds behind its own; a server has one of its own, see docs/federation.md.
FLOWER := .venv-flower
$(FLOWER)/.installed: requirements-flower.lock $(VENV)/.installed
	@$(BIN)/python -m venv --without-pip --clear $(FLOWER)
	@grep -Fxvf requirements.lock requirements-flower.lock > $(FLOWER)/differing.txt
	@printf 'import site; site.addsitedir("%s")\n' "$$(echo $(CURDIR)/$(VENV)/lib/python3*/site-packages)" \
		> "$$(echo $(FLOWER)/lib/python3*/site-packages)/behind.pth"
	@if command -v uv >/dev/null 2>&1; then \
		uv pip install --quiet --python $(FLOWER)/bin/python --no-deps -r $(FLOWER)/differing.txt ; \
	else \
		$(BIN)/python -m pip --python $(FLOWER)/bin/python install --quiet --disable-pip-version-check --no-deps -r $(FLOWER)/differing.txt ; \
	fi
	@touch $@

test-sites: $(FLOWER)/.installed
	$(FLOWER)/bin/python -m pytest tests/sites/test_limits.py tests/sites/test_over_flower.py tests/sites/test_wire.py

lint: install
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/ruff format --check src tests benchmarks tools
	$(BIN)/mypy
	$(BIN)/lint-imports

# Flower wants older versions of some packages than the others have: with it there is a lock of its own, as near as can be.
COMPILE := uv pip compile --universal --python-version 3.11 --no-emit-index-url --no-annotate --no-header
lock:
	$(COMPILE) --upgrade pyproject.toml --extra dev -o requirements.lock
	cp requirements.lock requirements-flower.lock && $(COMPILE) pyproject.toml --extra dev --extra flower -o requirements-flower.lock
	cp requirements.lock requirements-site.lock && $(COMPILE) --group site -o requirements-site.lock
