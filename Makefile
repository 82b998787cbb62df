# Headrace: one command file, the same commands on a laptop and in CI. `make help` lists them.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

# The first interpreter that runs and is 3.11 or 3.12. A name that a version manager lists but does not run is passed over.
PYTHON ?= $(shell for p in python3.11 python3.12 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
VERSION := $(if $(PYTHON),$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null))

VENV := .venv
BIN := $(VENV)/bin
DEMO := $(VENV)/.installed-demo-$(VERSION)
DEV := $(VENV)/.installed-dev-$(VERSION)
KAFKA_VERSION := 4.1.0
KAFKA := .cache/kafka/$(KAFKA_VERSION)
PEERS := .cache/peers
APICURIO_VERSION := 2.6.13.Final
APICURIO := .cache/apicurio/$(APICURIO_VERSION)

.PHONY: help
help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo; echo "  PYTHON=python3.12 chooses the interpreter; without it the first of 3.11 and 3.12 that runs: $(or $(PYTHON),none found)"

# --- use it ----------------------------------------------------------------------------------------------------------

.PHONY: demo dev
demo: $(DEMO) ## a year of real flights, end to end, in under three minutes
	@$(BIN)/headrace demo $(ARGS)

dev: $(DEMO) ## the embedded stack, all pipelines and the service, until Ctrl-C
	@$(BIN)/headrace dev $(ARGS)

# --- check it --------------------------------------------------------------------------------------------------------

.PHONY: install test test-kafka chaos mutations check lint types imports format surface bench
install: $(DEV) ## a virtual environment with everything, in .venv

test: $(DEV) ## the whole suite, on every service that is there; ARGS='-k lanes' narrows it
	@$(BIN)/python -m pytest $(ARGS)

test-kafka: $(DEV) $(KAFKA)/.complete ## the suite, where a missing Apache Kafka or Redis is a failure
	@HEADRACE_TEST_REQUIRE=kafka,redis $(BIN)/python -m pytest $(ARGS)

chaos: $(DEV) $(KAFKA)/.complete ## break everything for a while (15 min); ARGS='--runs 3 --on cluster' or '--seed 7' to repeat
	@$(BIN)/python -m tests.recovery.chaos $(ARGS)

mutations: $(DEV) ## the protocol with one rule taken away at a time: what is lost or counted twice without it
	@$(BIN)/python -m tests.recovery.mutations

check: lint types imports ## all static checks

lint: $(DEV) ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(DEV) ## mypy, strict, over all packages
	@$(BIN)/mypy

imports: $(DEV) ## the direction of imports between the rooms
	@$(BIN)/lint-imports --cache-dir .cache/import-linter

format: $(DEV) ## rewrite the sources in the house's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

surface: $(DEV) ## write the public names anew into tests/architecture/public_surface.txt
	@$(BIN)/python -m tests.architecture.surface

.PHONY: reference
reference: $(DEV) ## the reference, made of the docstrings, as a page: build/reference/headrace.html
	@$(BIN)/python -m pdoc --docformat google --no-show-source -o build/reference headrace
	@echo "open build/reference/headrace.html"

bench: $(DEMO) ## the numbers, each with its floor or peer in the same run
	@$(BIN)/python -m ops.benchmarks $(ARGS)

.PHONY: bench-quick bench-peers bench-serving bench-training peers
bench-quick: $(DEMO) ## some minutes of it, without the peers: did a ratio fall?
	@$(BIN)/python -m ops.benchmarks --quick $(ARGS)

bench-serving: $(DEV) ## predictions and features beside Feast, MLServer and BentoML (5 min)
	@$(BIN)/python -m ops.benchmarks.peers.serving $(ARGS)

bench-training: $(DEV) ## datasets beside DuckDB, Polars and Feast (10 min)
	@$(BIN)/python -m ops.benchmarks.peers.training $(ARGS)

bench-peers: $(DEMO) $(KAFKA)/.complete peers ## Headrace beside Flink, Kafka Streams, Pathway, Quix Streams and Bytewax (45 min)
	@$(BIN)/python -m ops.benchmarks.peers $(ARGS)

peers: $(DEMO) ## fetch the peers, each into an environment of its own (some need Java 17 with its compiler, and Maven)
	@sh ops/benchmarks/peers/fetch.sh $(BIN)/python $(PEERS)

.PHONY: clean
clean: ## remove everything that these commands made
	@rm -rf $(VENV) .cache dist build
	@find . \( -name __pycache__ -o -name .headrace -o -name .hypothesis \) -type d -prune -exec rm -rf {} +
	@echo "removed .venv, .cache, every .headrace and compiled files"

# --- how -------------------------------------------------------------------------------------------------------------

# Both stamps are inside the environment: another interpreter, or a changed pyproject.toml, installs again.
$(DEMO): pyproject.toml
	@sh ops/install.sh "$(PYTHON)" $(VENV) demo
	@touch $@

$(DEV): pyproject.toml
	@sh ops/install.sh "$(PYTHON)" $(VENV) dev
	@touch $@ $(DEMO)

# Apache Kafka for the tests: its jars from Maven Central. Needs Java 17 and Maven; a local `redis-server` is expected beside it.
.PHONY: kafka
kafka: $(KAFKA)/.complete ## fetch Apache Kafka's jars for the tests (Java 17 and Maven needed)
$(KAFKA)/.complete: ops/kafka/pom.xml ops/kafka/fetch.sh
	@sh ops/kafka/fetch.sh $(KAFKA) $(KAFKA_VERSION)
	@touch $@

.PHONY: registry
registry: $(APICURIO)/.complete ## fetch the Apicurio schema registry for the tests (Java 17 and Maven needed)
$(APICURIO)/.complete: ops/kafka/fetch_registry.sh
	@sh ops/kafka/fetch_registry.sh $(APICURIO) $(APICURIO_VERSION)
	@touch $@
