# Two commands do everything: `make run` and `make test`. Both install what is missing and leave nothing behind.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Test builds carry the named fault points; what `make run` and the images build does not.
FAULTS := --features contract/fault-points
HOSTS ?= 1
SEEDS ?= 20
FROM ?= 1

.PHONY: help setup run stop test check lint fmt page sqlx openapi contract bench bench-queue chaos conformance

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | column -t -s '|'

setup: ## what run and test need: Debian packages (with sudo when not root), tools as wheels
	@.ci/setup

run: setup page ## everything in the foreground on this machine, HOSTS=1; Ctrl-C or `make stop` ends it
	cargo build --workspace --bins
	@exec target/debug/zaguan-stack run --hosts $(HOSTS)

stop: ## ends what `make run` started
	@[ ! -d .run ] || target/debug/zaguan-stack stop

test: setup ## all that CI checks, the tests last
	@.ci/test

check: setup page ## what CI does first: format, lints, walls, unused dependencies, spelling
	cargo fmt --all --check
	cargo clippy --workspace --all-targets $(FAULTS) -- -D warnings
	cargo deny --log-level error check bans licenses sources
	cargo shear
	typos

lint: setup page ## clippy only
	cargo clippy --workspace --all-targets $(FAULTS)

fmt: ## formats the Rust sources
	cargo fmt --all

page: setup ## the script that runs inside the page, from TypeScript
	@.ci/page

sqlx: setup ## rewrites .sqlx after a query or a migration changed (starts a Postgres of its own)
	@.ci/sqlx

openapi: page ## rewrites api/openapi.json, api/asyncapi.json and what docs/ has of problems, event types, rights and settings
	cargo build --quiet --workspace --bins
	target/debug/zaguan-api openapi > api/openapi.json.new
	mv api/openapi.json.new api/openapi.json
	target/debug/zaguan-api asyncapi > api/asyncapi.json.new
	mv api/asyncapi.json.new api/asyncapi.json
	target/debug/zaguan-api events > docs/event-types.md.new
	mv docs/event-types.md.new docs/event-types.md
	target/debug/zaguan-api problems > docs/problems.md
	target/debug/zaguan-api authorization > docs/authorization.md
	.ci/configuration > docs/configuration.md

contract: setup ## others' tools on the document: validator, generated clients, fuzzer (after a build for the tests)
	@.ci/contract

bench: setup page ## ours beside the least that could do the same: ratios, as a table and in target/bench.json
	cargo build --release --workspace --bins
	target/release/zaguan-bench

bench-queue: setup page ## takeover, hand-over, lanes beside BullMQ and raw Redis, leases: a table and target/bench-queue.json
	cargo build --release --workspace --bins
	target/release/zaguan-bench --only beside --only leases --only takeover --only fleet --json target/bench-queue.json

chaos: setup page ## traffic and faults by seeds, SEEDS=20 from FROM=1, two minutes each; a seed that fails says how to run it again
	cargo build --workspace --bins $(FAULTS)
	target/debug/zaguan-chaos --seeds $(SEEDS) --from $(FROM) $(ARGS)

conformance: setup ## third-party clients against the simulator
	@.ci/conformance
