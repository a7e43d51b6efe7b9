# make demo | test | lint | bench | fuzz | test-hosts | clean
#
# Each target sets itself up on a fresh Debian or Ubuntu machine: an interpreter (PYTHON=… to choose one), .venv
# in this folder, packages by hash, the wheel built once and installed as a user would get it. A second run does
# only what has changed. Paths are relative, so the folder's own path may hold spaces.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lint format bench fuzz test-hosts clean locks runtime dev

PY := .venv/bin/python
ROOMS := supervisor/plugsec policies/plugsec_policies signing/plugsec_signing plugins/plugsec_plugins
# Folders are listed too: a removed module changes nothing but its folder. The wheel carries examples and error pages.
SOURCES := pyproject.toml README.md LICENSE $(shell find $(ROOMS) plugins/examples docs/errors -name __pycache__ -prune -o -print 2>/dev/null)
# make's own variables would travel into the tests, which start plugsec and other programs.
CLEAN_ENV := env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS -u PYTHONPATH -u PYTHONHOME

help:
	@echo 'make demo        a plugin packed, signed, verified, run; a hostile one contained'
	@echo 'make test        the whole suite against the installed wheel (PYTEST_ARGS="…" to narrow it)'
	@echo 'make lint        ruff, mypy --strict, pyright, import-linter'
	@echo 'make bench       speed against bubblewrap in the same run, written to docs/benchmarks.md'
	@echo 'make fuzz        a million spoilt inputs for every reader (FUZZ_ARGS="--examples N --seed N --target NAME")'
	@echo 'make test-hosts  the command line and every attack on emulated Debian 12 hosts (root once, for the image)'
	@echo 'make clean       removes .venv, dist and caches'

demo: runtime
	@.ci/prepare system libseccomp ssh-keygen
	@$(CLEAN_ENV) .venv/bin/plugsec demo

test: dev dist/.built
	@.ci/prepare wheel
	@.ci/prepare system libseccomp ssh-keygen
	@$(CLEAN_ENV) $(PY) -m pytest $(PYTEST_ARGS)

# The sources, not the wheel, are read: a finding must name the file that one edits. All four tools speak
# before the target fails. Tables that are aligned by hand say `# fmt: skip`.
lint: dev
	@failed=; \
	$(PY) -m ruff check . || failed="$$failed ruff"; \
	$(PY) -m ruff format --check --output-format concise . || failed="$$failed ruff-format(make format)"; \
	$(PY) -m mypy || failed="$$failed mypy"; \
	$(PY) -m pyright --pythonpath $(PY) || failed="$$failed pyright"; \
	PYTHONPATH=supervisor:policies:signing:plugins $(PY) -c 'from importlinter.cli import lint_imports_command as lint; lint()' \
	  || failed="$$failed import-linter"; \
	if [ -n "$$failed" ]; then echo "make lint: findings by$$failed" >&2; exit 1; fi

format: dev
	@$(PY) -m ruff format .

bench: runtime
	@.ci/prepare system libseccomp bwrap
	@$(CLEAN_ENV) $(PY) tests/bench/run.py $(BENCH_ARGS)

# Nightly: 10⁶ examples take a few minutes on one core. A few thousand are part of `make test`.
fuzz: dev dist/.built
	@.ci/prepare wheel
	@$(CLEAN_ENV) $(PY) tests/fuzz/run.py $(FUZZ_ARGS)

test-hosts: runtime
	@$(CLEAN_ENV) $(PY) tests/hosts/run.py $(HOSTS)

# -- set-up --------------------------------------------------------------------------------------------

runtime: dist/.built
	@.ci/prepare packages requirements.lock
	@.ci/prepare wheel

dev:
	@.ci/prepare venv
	@.ci/prepare packages requirements-dev.lock

# Built in .venv from locked tools: with build isolation pip would fetch hatchling by name alone.
dist/.built: $(SOURCES)
	@.ci/prepare venv
	@.ci/prepare packages requirements-build.lock
	@rm -rf dist
	@out=$$($(PY) -m hatchling build -t wheel 2>&1) || { echo "$$out"; exit 1; }
	@touch $@

# For whoever changes a dependency: needs uv. The files name no index, so they hold for any mirror.
LOCK := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --no-emit-find-links --no-header --no-annotate
locks:
	$(LOCK) pyproject.toml -o requirements.lock
	$(LOCK) pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock
	$(LOCK) --group build -c requirements-dev.lock -o requirements-build.lock

clean:
	@rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.*
	@find $(ROOMS) plugins/examples tests -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
