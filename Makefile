# `make help` lists what there is. CARGO_TARGET_DIR is honoured.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
TARGET := $(or $(CARGO_TARGET_DIR),target)
VENV := .venv
APT := $(if $(filter 0,$(shell id -u)),apt-get,sudo apt-get)
# NAME=PACKAGE: the command that must exist, and the package that brings it.
TOOLS := cmake=cmake redis-server=redis-server nginx=nginx wrk=wrk cc=build-essential \
  mariadb-install-db=mariadb-server pg_ctlcluster=postgresql

.PHONY: help run test check lint bench fuzz deps build-deps tools

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build-deps ## Build and start proxy and executor on embedded defaults (ARGS="--listen 127.0.0.1:8087")
	cargo run --locked -- up $(ARGS)

test: deps ## Run every test: unit, integration, and the Python clients
	cargo test --locked

lint: build-deps ## Format and clippy, warnings as errors
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

check: lint tools ## lint, cargo-deny (bans, licences, sources), then the tests
	cargo deny --locked check --config .deny.toml bans licenses sources
	$(MAKE) test

bench: deps ## Criterion benches, then sidecar and nginx side by side (BENCH_ARGS="--pairs 7 --seconds 5")
	cargo bench --locked
	cargo build --release --locked
	python3 benches/e2e/run.py --binary $(TARGET)/release/mcp-sidecar $(BENCH_ARGS)

fuzz: build-deps ## Run the property tests with many cases (PROPTEST_CASES=20000)
	PROPTEST_CASES=$${PROPTEST_CASES:-20000} cargo test --locked --lib

build-deps: ## Install what the build needs (cmake, a C compiler), if missing
	@$(call apt_install,$(filter cmake=% cc=%,$(TOOLS)))

deps: $(VENV)/.ready ## Install what tests and benches need, once: apt packages and .venv with the MCP SDK
	@$(call apt_install,$(TOOLS))

tools: ## Install cargo-deny, once (some minutes)
	@command -v cargo-deny >/dev/null || { echo "deps: installing cargo-deny"; cargo install cargo-deny --locked; }

$(VENV)/.ready:
	@echo "deps: making $(VENV) with the Python MCP SDK"
	@python3 -m venv $(VENV) || { $(APT) update -q && $(APT) install -yq python3-venv && python3 -m venv $(VENV); }
	@$(VENV)/bin/pip install --quiet 'mcp>=2,<3'
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
