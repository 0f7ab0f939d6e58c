# The front door. Each target is a line or two of programs that are documented and usable alone; `make` lists them.

CARGO  ?= cargo
LAB    := target/debug/kube-ovn-lab
FOCUS  ?=

.DEFAULT_GOAL := help
.PHONY: help preflight packages build cni prepare lint test test-unit test-lab test-labs test-e2e bench demo clean

help: ## this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

preflight: # what must be there before anything is built; said at once, not after the build
	@CARGO='$(CARGO)' tools/preflight

packages: preflight ## install the Debian packages that a lab needs, without starting any service
	@tools/install-packages

build: ## all programs (target/debug)
	@$(CARGO) build --workspace

cni: ## the CNI plugin as installed on nodes: static, below 2 MB
	@crates/cni/build-static

prepare: packages build cni ## what a lab needs and is built once: Kubernetes, container images
	@$(LAB) prepare

lint: ## format, clippy, the arrows between the crates
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	@tools/check-architecture

test: packages test-unit test-lab ## everything that CI runs, from unit tests to packets

test-unit: build ## unit, property and integration tests (root: some use real OVN and network namespaces)
	@$(CARGO) test --workspace --quiet

test-lab: prepare ## scenarios and a short set of Kubernetes' own network tests on real clusters
	@tools/test-lab

test-labs: prepare ## every scenario on labs of every kind: two families, databases as a cluster, another OVN (long)
	@tools/test-labs

test-e2e: prepare ## Kubernetes' network tests: make test-e2e FOCUS='DNS'
	@tools/test-e2e $(if $(FOCUS),'$(FOCUS)')

bench: packages cni ## benchmarks, and five hundred pods on a lab of release builds
	@tools/bench

demo: prepare ## bring a cluster up and walk through the first steps; it stays up
	@$(LAB) demo

clean: ## end all labs, remove what cargo built (the cache of Kubernetes stays: see `kube-ovn-lab prepare`)
	@if [ -x $(LAB) ]; then $(LAB) down --all; fi
	@$(CARGO) clean
