# Every command sets up what it needs; nothing has to be exported. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help setup build demo study test torture check audit sbom fuzz format peers bench-peers bench bench-instructions bench-watching bench-defaults bench-nightly clean

DEMO ?= demo-data
STUDY ?= noh2023-small
FAULTS ?= 500
SEED ?= 1
WORLDS ?= 1
PYTHON := .venv/bin/python
PEERS := .venv-peers/bin/python

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: ## check the tools this machine needs, fetch libtorch
	@.ci/setup

build: setup ## release binaries: target/release/torcula and torcula-training
	@cargo build --release --workspace

demo: build ## the whole pipeline on a synthetic registry, ends with a report
	@test -e $(DEMO)/registry/participants.tsv || \
		target/release/torcula synth $(DEMO)/registry --cases 100 --sites 4 --seed 7 --matrix 64 --slices 16 --broken 0.05
	@target/release/torcula run pipelines/demo.yaml --set data=$(DEMO)

study: build ## the study of pipelines/noh2023-small.yaml on four synthetic registries, ends with a report
	@synth() { to=$(STUDY)/$$1; shift; \
			test -e $$to/participants.tsv || target/release/torcula synth $$to "$$@" --matrix 48 --slices 12; }; \
		synth internal --cases 320 --sites 10 --seed 11 --broken 0.02 && \
		synth external --cases 160 --sites 1 --seed 12 --source external && \
		synth ancillary1 --cases 20 --sites 3 --seed 13 --source externalaf && \
		synth ancillary2 --cases 30 --sites 3 --seed 14 --source externalisles
	@target/release/torcula run pipelines/noh2023-small.yaml --set data=$(STUDY)

test: setup $(PYTHON) ## every test
	@cargo build --workspace
	@TORCULA_PYTHON=$(CURDIR)/$(PYTHON) TORCULA_TORCH_PYTHON=$(wildcard $(CURDIR)/$(PEERS)) cargo test --workspace

check: setup $(PYTHON) ## format, lints, layers, licences, spelling, documentation
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets -- --deny warnings
	@cargo test --quiet --workspace --test suite layers
	@RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps --quiet
	@.ci/licences
	@.venv/bin/typos

audit: ## known holes, licences and sources of all crates (cargo-deny, cargo-audit; fetches the advisory database)
	@command -v cargo-deny > /dev/null || cargo install --locked cargo-deny
	@command -v cargo-audit > /dev/null || cargo install --locked cargo-audit
	@cargo deny --workspace check
	@cargo audit $$(sed -n 's/.*id = "\(RUSTSEC-[0-9-]*\)".*/--ignore \1/p' deny.toml)

sbom: ## a bill of materials (CycloneDX 1.5, JSON) of each binary: target/sbom
	@command -v cargo-cyclonedx > /dev/null || cargo install --locked cargo-cyclonedx
	@cargo cyclonedx --format json --spec-version 1.5 --target x86_64-unknown-linux-gnu --override-filename bom --quiet
	@mkdir -p target/sbom
	@mv bom.json target/sbom/torcula.cdx.json && mv src/training/bom.json target/sbom/torcula-training.cdx.json
	@echo "target/sbom: $$(cd target/sbom && ls | tr '\n' ' ')"

FUZZ_SECONDS ?= 600
FUZZ ?=
fuzz: ## the fuzzers, FUZZ_SECONDS each, two at a time; FUZZ="nifti gzip" chooses
	@tests/fuzz/run $(FUZZ_SECONDS) $(FUZZ)

format: ## format the code
	@cargo fmt --all

peers: setup $(PEERS) ## every kernel against the reference tools: do they agree?
	@$(PEERS) benches/peers/run.py agree $(if $(TORCULA_REAL_DATA),--real $(TORCULA_REAL_DATA))
	@TORCULA_TORCH_PYTHON=$(CURDIR)/$(PEERS) cargo test --package torcula-training --test end_to_end models

bench-peers: setup $(PEERS) ## every kernel against the reference tools: CPU time; writes benches/peers/RESULTS.md
	@cargo build --release --bin torcula
	@$(PEERS) benches/peers/run.py speed

bench-instructions: setup ## instructions of the hot kernels (valgrind) against benches/instructions.tsv
	@command -v valgrind > /dev/null || { echo "error: valgrind counts the instructions; install it (apt install valgrind)"; exit 1; }
	@python3 benches/instructions.py

torture: setup $(PYTHON) ## FAULTS=500 SEED=1 WORLDS=1: kills, power losses, full disks, I/O errors while a pipeline runs
	@TORCULA_PYTHON=$(CURDIR)/$(PYTHON) TORCULA_TORTURE_FAULTS=$(FAULTS) TORCULA_TORTURE_SEED=$(SEED) \
		TORCULA_TORTURE_WORLDS=$(WORLDS) cargo test --release --package torcula --test torture -- --nocapture

bench-watching: setup ## what logs, metrics and traces cost, in CPU time of a run
	@cargo build --release --bin torcula
	@python3 benches/watching.py

bench-defaults: setup $(PEERS) ## what N4's settings remove of a field with local structure
	@$(PEERS) benches/peers/defaults.py

bench-nightly: build ## what a night costs: nothing new, 1 % changed, another model, on 2,777 tiny cases
	@python3 benches/nightly.py

bench: setup ## criterion benches: kernels, engine overhead, shards
	@cargo bench --bench '*'

clean: ## remove what was built and the demo's data
	@cargo clean
	@rm -rf tests/fuzz/corpus tests/fuzz/artifacts .venv .venv-peers $(DEMO) $(STUDY)

$(PYTHON): tests/requirements.txt
	@python3 -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/requirements.txt || \
		{ echo "error: PyPI cannot be reached: the tests read our files with nibabel, pyarrow and deltalake"; exit 1; }
	@touch $(PYTHON)

$(PEERS): benches/peers/requirements.txt
	@for python in python3.13 python3.12 python3; do \
		$$python -c "" 2>/dev/null && exec $$python -m venv .venv-peers; \
	done
	@$(PEERS) -m pip install --quiet --disable-pip-version-check --requirement benches/peers/requirements.txt || \
		{ echo "error: PyPI cannot be reached, or has no SimpleITK, TorchIO and MONAI for this Python"; exit 1; }
	@touch $(PEERS)
