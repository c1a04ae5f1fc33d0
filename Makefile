# Fanfare. `make help` lists the targets; CI calls these and nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
WEB    := services/web
STATE  := .state
PAGE_SOURCES := $(shell find $(WEB)/src $(WEB)/public $(WEB)/index.html $(WEB)/vite.config.ts $(WEB)/package-lock.json -type f 2>/dev/null)
COMPOSE := docker compose
unexport PYTHONDONTWRITEBYTECODE # else each process of a test run compiles all sources and rewrites all asserts again

.DEFAULT_GOAL := help
.PHONY: help run notify page check fmt test unit up down logs smoke cluster faults faults-quick conformance bench bench-quick bench-million asyncapi lock clean

##@ Use it
run: $(STATE)/suite page ## Start everything in one process: NATS, the four services, the page (PORT, default 8080)
	@exec $(BIN)/python -m services

notify: $(STATE)/suite ## Send a notification to a user of `make run`: make notify TO=<user id> (TEXT, NATS_PORT)
	@NATS_URL=nats://127.0.0.1:$(or $(NATS_PORT),4222) $(BIN)/python -m shared.broker.publish notify.user.$(TO) '{"title":"$(or $(TEXT),hi)"}'

up: ## Start the whole suite with docker compose, two of each service (PORT, default 8080)
	$(COMPOSE) up --build --detach --wait

down: ## Stop it and remove its volumes
	$(COMPOSE) down --volumes --remove-orphans

logs: ## Follow the logs of the compose suite
	$(COMPOSE) logs --follow

##@ Work on it
test: $(STATE)/dev $(STATE)/clients page ## All tests that need no engine, on real parts; needs npm (under 5 minutes)
	$(BIN)/python -m pytest -q -n 3 --dist loadfile

unit: $(STATE)/dev ## The tests that need no server
	$(BIN)/python -m pytest -q tests/unit tests/architecture

check: $(STATE)/dev ## Format, lint, types, import directions; what CI refuses
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	@if command -v npm >/dev/null; then cd $(WEB) && npm ci --silent && npm run --silent check && npm test --silent; else echo "npm is not there: the page's sources are not checked"; fi

fmt: $(STATE)/dev ## Format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	@if command -v npm >/dev/null; then cd $(WEB) && npm ci --silent && npm run --silent format; fi

smoke: $(STATE)/dev ## Compose up, two edges, one of them killed, compose down (needs a Docker engine)
	$(BIN)/python -m pytest -q -p no:cacheprovider --timeout 900 tests/compose

conformance: $(STATE)/dev ## The Autobahn suite against our WebSocket (AUTOBAHN=<its runner>, CASES=quick or full); our own cases without it
	@if [ -n "$(AUTOBAHN)" ]; then $(BIN)/python -m tests.conformance "$(AUTOBAHN)" $(or $(CASES),quick); \
	else $(BIN)/python -m pytest -q tests/conformance; fi

cluster: $(STATE)/dev ## The broker's contract and the services on three NATS nodes, any of which is killed or frozen (about 3 minutes)
	$(BIN)/python -m pytest -q --timeout 180 tests/cluster

faults: $(STATE)/dev ## Everything that can go wrong, under load, every message counted; half an hour (ONLY=name, FAULTS_SOAK_S, FAULTS_SEED)
	$(BIN)/python -m pytest -q -s -p no:cacheprovider tests/faults $(if $(ONLY),-k "$(ONLY)")

faults-quick: $(STATE)/dev ## The planted bugs and a few faults, under three minutes
	$(BIN)/python -m pytest -q -s -p no:cacheprovider -m quick tests/faults

bench: $(STATE)/dev ## Measure beside peers, half an hour: tables, and JSON and charts in bench/results (cc, npm, go for the peers)
	$(BIN)/python -m bench

bench-quick: $(STATE)/dev ## The same, small, under three minutes: fails when a delivery is missing or a ratio has got worse
	$(BIN)/python -m bench --quick --json bench/results/quick.json

bench-million: $(STATE)/dev ## Hold as many idle connections as this machine can (CONNECTIONS, EDGES, SECONDS, TRANSPORT)
	$(BIN)/python -m bench.million --connections $(or $(CONNECTIONS),1000000) --edges $(or $(EDGES),53) --seconds $(or $(SECONDS),60) --transport $(or $(TRANSPORT),websocket)

page: ## Build the browser page (needs npm; says so if it is not there)
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(STATE)/page; \
	else echo "npm is not there, so the page is not built; the services run without it (Node.js 20 brings npm)"; fi

asyncapi: $(STATE)/dev ## Write docs/asyncapi.json anew, from the models of shared/contracts
	$(BIN)/python -m shared.contracts.asyncapi > docs/asyncapi.json

lock: ## Pin every dependency with its hashes again (needs uv)
	@for extra in auth chat notifications price_feed suite dev; do \
	  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --no-emit-find-links --no-annotate --no-header --extra $$extra pyproject.toml -o requirements/$$extra.txt; done
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --no-annotate --no-header bench/peers/requirements.in -o bench/peers/requirements.txt

clean: ## Remove what was built and what was stored
	rm -rf $(VENV) $(STATE) .data $(WEB)/dist $(WEB)/node_modules tests/clients/node_modules bench/build bench/results bench/peers/node_modules

help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# -- what the targets stand on: made once, and again when its sources change --------------------------------------------

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Fanfare needs Python 3.11 or later; name one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(STATE)/suite: requirements/suite.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/suite.txt
	@mkdir -p $(STATE) && touch $@

$(STATE)/dev: requirements/dev.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@mkdir -p $(STATE) && touch $@ $(STATE)/suite

$(STATE)/page: $(PAGE_SOURCES)
	cd $(WEB) && npm ci --silent && npm run --silent build
	@mkdir -p $(STATE) && touch $@

$(STATE)/clients: tests/clients/package-lock.json
	cd tests/clients && npm ci --silent
	@mkdir -p $(STATE) && touch $@
