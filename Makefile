# The agent and its tests need a Python of at least 3.11 with venv, and make. uv is used when it is there.
# Everything that is installed comes from the lock files, by hash.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell if command -v uv >/dev/null 2>&1; then echo uv; elif $(PYTHON) -m uv --version >/dev/null 2>&1; then echo "$(PYTHON) -m uv"; fi)
SOURCES := kiki_agent plugins tests $(wildcard benchmarks)
# A new plugin folder or entry point is unknown to an editable install until it is installed again.
PROJECT := pyproject.toml plugins $(wildcard plugins/*/__init__.py)

.DEFAULT_GOAL := help
.PHONY: help run test lint bench fuzz-consent chaos crash forks powercut simulate demo-hour image lock clean system-packages image-packages

help: ## show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.runtime ## install what the agent needs and start the demo, which says where its page is (ARGS="--speed 60")
	@exec $(BIN)/kiki-agent demo $(ARGS)

test: lint system-packages image-packages ## install everything, check style and types, run all tests
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.dev ## style, format, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(VENV)/.dev ## run all benchmarks, one after the other
	@for each in $(wildcard benchmarks/*.py); do echo "== $$each"; $(BIN)/python $$each || exit 1; done

fuzz-consent: $(VENV)/.dev ## mutate a million consent strings (N=1000000)
	$(BIN)/python -m tests.consent.fuzz $(or $(N),1000000)

chaos: $(VENV)/.dev ## break the agent in every way, at full count, and show one table (takes an hour or more)
	$(BIN)/python -m kiki_agent.testing.chaos $(ARGS)

crash: $(VENV)/.dev ## kill the agent again and again behind a bad network, and audit what it left (N=100)
	$(BIN)/python -m kiki_agent.testing.crash --kills $(or $(N),100) $(ARGS)

forks: $(VENV)/.dev ## kill a spending process at random points (N=10000)
	$(BIN)/python -m kiki_agent.testing.forks --kills $(or $(N),10000) $(ARGS)

powercut: $(VENV)/.dev ## rebuild disks as a power cut may leave them, and open them (N=300)
	$(BIN)/python -m kiki_agent.testing.powercut --disks $(or $(N),300) $(ARGS)

simulate: $(VENV)/.dev ## simulate agents by seed with faults at every seam (SEEDS=20, FIRST=1)
	$(BIN)/python -m kiki_agent.testing.simulate --seeds $(or $(SEEDS),20) --seed $(or $(FIRST),1) $(ARGS)

demo-hour: $(VENV)/.dev ## one hour of the demo at speed 60 on a bad day, ledger against the platforms' logs
	$(BIN)/python -m kiki_agent.testing.demo_hour $(ARGS)

image: $(VENV)/.dev image-packages ## build the container image as root on Debian (NAME=kiki-agent, BASE=image, REFRESH=1)
	@BASE="$(BASE)" REFRESH="$(REFRESH)" deploy/build-image $(or $(NAME),kiki-agent)

lock: ## resolve the lock files again (needs uv)
	@test -n "$(UV)" || { echo "make lock needs uv, which is neither a command nor a module of $(PYTHON)"; exit 1; }
	echo "setuptools>=77" | $(UV) pip compile $(LOCK) --output-file requirements.lock pyproject.toml -
	echo "setuptools>=77" | $(UV) pip compile $(LOCK) --extra dev --constraints requirements.lock --output-file requirements-dev.lock pyproject.toml -
LOCK := --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate

clean: ## remove what make and the tools made; the databases in data/ stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .cache
	find kiki_agent plugins tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "$(PYTHON) is missing or older than 3.11; name a newer one: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -n "$(UV)" || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "the venv module of $(PYTHON) is missing; as root: apt-get install python3-venv"; exit 1; }
	@$(if $(UV),$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV),$(PYTHON) -m venv $(VENV))

# The runtime's stamp is newer or equal when the developers' set, which contains it, was installed.
$(VENV)/.runtime: requirements.lock $(PROJECT) | $(BIN)/python
	$(call install,requirements.lock)
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(PROJECT) | $(BIN)/python
	$(call install,requirements-dev.lock)
	@touch $@ $(VENV)/.runtime

ifneq ($(UV),)
define install
	@echo "Installing $(1) into $(VENV) ..."
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes --requirement $(1)
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
endef
else
define install
	@echo "Installing $(1) into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $(1)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
endef
endif

# Tests of the page drive Chromium, tests of the metrics ask promtool; without them those tests say so and are skipped.
system-packages:
	@if command -v chromium >/dev/null 2>&1 && command -v promtool >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && [ -f /etc/debian_version ]; then \
		echo "Installing chromium and prometheus (for promtool) ..."; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium prometheus >/dev/null; \
	else echo "chromium or promtool is missing, their tests will be skipped; on Debian, as root: apt-get install chromium prometheus"; fi

# The image is built without a registry: buildah builds it, mmdebstrap makes the Debian under it.
image-packages:
	@if command -v buildah >/dev/null 2>&1 && command -v mmdebstrap >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && [ -f /etc/debian_version ]; then \
		echo "Installing buildah and mmdebstrap ..."; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends buildah mmdebstrap >/dev/null; \
	else echo "buildah or mmdebstrap is missing, no image can be built here; on Debian, as root: apt-get install buildah mmdebstrap"; fi
