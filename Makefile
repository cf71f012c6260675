# Two commands matter: `make dev` runs the cluster, `make test` passes the tests.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
ARGS ?=

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: dev
dev: nats-server ## run the whole cluster on this machine (ARGS="--edges 3" and the like)
	cargo run -p carillon -- dev $(ARGS)

.PHONY: test
test: tools ## run all tests (ARGS="-p carillon-edge" and the like go to cargo test)
	deploy/tools/run-tests $(ARGS)

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
