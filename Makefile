# The commands of the project. `make` alone lists them.
CARGO ?= cargo
# Where `make test` keeps cargo-deny.
TOOLS ?= $(HOME)/.cache/gnomon-tools
DENY := $(TOOLS)/bin/cargo-deny
DENY_VERSION := 0.20.2
FUZZ_SECONDS ?= 60
RACE_SECONDS ?= 60

.PHONY: help demo build setup setup-test test format lint doc deny unit bench fuzz race clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: build ## install what is missing, build, and send a made capture with attacks through gnomon
	@scripts/demo.sh

build: setup ## optimised program, target/release/gnomon
	$(CARGO) build --release --locked

setup: ## packages that building needs, if any is missing
	@scripts/setup.sh build

setup-test:
	@scripts/setup.sh test

test: setup-test ## everything that continuous integration checks
	$(MAKE) --no-print-directory format lint doc deny unit

format: ## is the source formatted?
	$(CARGO) fmt --check

lint: ## compiler and clippy warnings, as errors
	$(CARGO) clippy --locked --all-targets -- -D warnings

doc: ## broken links and the like in the documentation, as errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

deny: $(DENY) ## licences, sources and duplicates of dependencies
	$(DENY) --locked check licenses bans sources

$(DENY):
	CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=256 \
	$(CARGO) install cargo-deny --version $(DENY_VERSION) --locked --quiet --no-default-features --root $(TOOLS)

unit: ## tests of the source and of the built program
	$(CARGO) test --locked

bench: setup ## measurements, as tables
	$(CARGO) bench --locked

fuzz: setup-test ## each fuzz target for FUZZ_SECONDS (60)
	command -v cargo-fuzz >/dev/null || $(CARGO) install cargo-fuzz --locked --quiet
	@for target in $$($(CARGO) fuzz list); do \
	    RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --sanitizer none $$target -- -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

race: setup-test ## data races between commits and lookups, for RACE_SECONDS (60); needs a nightly compiler
	RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer" \
	TSAN_OPTIONS="suppressions=$(CURDIR)/scripts/tsan.supp" STRESS_SECONDS=$(RACE_SECONDS) \
	$(CARGO) +nightly test --locked --target x86_64-unknown-linux-gnu --target-dir target/race --test generations

clean: ## remove what was built and made
	$(CARGO) clean
	rm -rf demo-out
