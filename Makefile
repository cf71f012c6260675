# Two commands matter: `make dev` runs the cluster, `make test` passes the tests.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
ARGS ?=
ENV ?=
SCENARIO ?=
SECONDS ?= 60
TARGET ?=
COMPOSE = $$(docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose) \
	$(if $(ENV),--env-file deploy/compose/$(ENV).env)

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: dev
dev: nats-server ## run the whole cluster on this machine (ARGS="--edges 3" and the like)
	cargo run -p carillon -- dev $(ARGS)

.PHONY: test
test: tools ## run all tests (ARGS="-p carillon-edge" and the like go to cargo test)
	deploy/tests/run --after deploy/tools/run-tests $(ARGS)

.PHONY: test-cluster
test-cluster: tools ## kill a cluster of processes part by part (CARILLON_CHAOS_MINUTES=10, CARILLON_CHAOS_SEED=…)
	cargo test -p carillon --test cluster -- --nocapture $(ARGS)

.PHONY: fuzz
fuzz: ## fuzz the parsers of what peers send, SECONDS=60 for each target (TARGET=names for some)
	@deploy/tools/fetch-cargo-fuzz
	deploy/tools/fuzz $(SECONDS) $(TARGET)

.PHONY: test-deploy
test-deploy: nats-server ## test the image, docker-compose.yml, the chart, alerts, dashboards and load scripts
	deploy/tests/run

.PHONY: up
up: ## run the cluster in containers (ENV=cluster, observability or all)
	$(COMPOSE) up --build --detach
	@echo "http://127.0.0.1:8080/demo is ready when 'docker ps' says healthy; make down stops everything"

.PHONY: check-up
check-up: ## check a cluster that make up has started, with stock clients
	@deploy/tools/fetch-clients
	@node deploy/tools/check-up.mjs

.PHONY: check-rollout
check-rollout: ## count what stock clients get while a cluster is restarted (EDGE=URL, PUBLISHER=URL, SECONDS=120)
	@deploy/tools/fetch-clients
	@node deploy/tools/check-rollout.mjs

.PHONY: down
down: ## stop the containers, and keep what NATS stored (ARGS=--volumes removes it)
	$(COMPOSE) down $(ARGS)

.PHONY: load
load: nats-server ## a short load test of a cluster that it starts (SCENARIO=storm, unicast, room, chat, kill, soak)
	loadtest/k6/run $(SCENARIO)

.PHONY: bench
bench: nats-server ## measure an edge beside two reference servers (ARGS="--only saturation,idle --rounds 1")
	cargo build --release -p carillon -p carillon-loadtest
	$${CARGO_TARGET_DIR:-target}/release/carillon-bench table \
		--carillon $${CARGO_TARGET_DIR:-target}/release/carillon $(ARGS)

.PHONY: bench-cluster
bench-cluster: nats-server ## hold 250 000 connections at 14 edges (ARGS="--edges 4 --connections 60000")
	cargo build --release -p carillon -p carillon-loadtest
	$${CARGO_TARGET_DIR:-target}/release/carillon-bench cluster \
		--carillon $${CARGO_TARGET_DIR:-target}/release/carillon $(ARGS)

.PHONY: fmt
fmt: ## format the sources
	cargo fmt --all

.PHONY: lint
lint: ## check format, lints and, where cargo-deny is installed, licences and sources
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check bans licenses sources; \
	else echo "lint: cargo-deny is not installed, licences were not checked"; fi

.PHONY: tools
tools: nats-server ## fetch what the tests need beside Rust, Python 3 and Node
	@deploy/tools/fetch-clients
	@deploy/tools/fetch-optional

.PHONY: nats-server
nats-server:
	@deploy/tools/fetch-nats-server

.PHONY: clean
clean: ## remove what was built and fetched
	cargo clean
	rm -rf .tools crates/testkit/clients/node_modules
