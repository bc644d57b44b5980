# Builds, shows, tests, measures and installs bruit. `make help` lists what there is.
# Nothing is installed outside this folder but by `make install`: Python lives in .venv, our own output in build/.

PYTHON ?= python3
CARGO  ?= cargo
CC     ?= cc
CFLAGS ?= -O1 -g -Wall -Wextra -Wpedantic

PREFIX     ?= /usr/local
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
DESTDIR    ?=

MINUTES ?= 30
SEEDS ?= 400
FIRST ?= 0

VERSION := $(shell sed -n '/^\[workspace.package\]/,/^\[[^w]/s/^version = "\(.*\)"/\1/p' Cargo.toml)
SONAME  := libbruit.so.0

RELEASED := build/release/libbruit.so.$(VERSION)

VENV := .venv
BIN  := $(VENV)/bin
SAY  := @printf '== %s\n'

# What the library and the wheel are made of; a newer file among these rebuilds them.
RUST_FILES := Cargo.toml $(wildcard Cargo.lock build.rs) \
              $(shell find core/src core/Cargo.toml ffi -type f 2>/dev/null)
PYTHON_FILES := $(shell find python -type f -not -path '*/__pycache__/*' -not -path '*/tests/*' -not -name '*.so' \
                  -not -path '*/.*' 2>/dev/null)

.DELETE_ON_ERROR:
.PHONY: help tools demo sim test test-rust test-counts test-python test-docs test-install lint bench bench-peers counts papers papers-full soak swarm release install uninstall clean

help:
	@echo 'make demo       five processes, C and Python: they find each other, lose one, get it back; under a minute'
	@echo 'make test       every test: Rust, C, C++, Python, the documentation, the installed library, the demo'
	@echo 'make lint       formatting and static checks'
	@echo 'make bench      figures of this machine beside those of others; about a quarter of an hour'
	@echo 'make bench-peers bruit and its peers on the same works in one run; over two hours; ARGS=--quick: less than one; docs/PEERS.md'
	@echo 'make counts     instructions of the hot paths, under valgrind; fails where one takes 10 % more than docs/BENCHMARKS.md has'
	@echo 'make papers     simulated: what papers say beside what we do; papers-full: as large as the papers'
	@echo 'make soak       false deaths on a busy machine, MINUTES=$(MINUTES)'
	@echo "make sim        simulated clusters: ARGS='nodes=100 loss=0.1 kill=3 trials=20', or files such as examples/sim/crash.scn"
	@echo 'make swarm      random clusters with random faults, held to what must hold: SEEDS=$(SEEDS) FIRST=$(FIRST); docs/SWARM.md'
	@echo 'make install    library, headers, pkg-config and CMake files to DESTDIR=$(DESTDIR) PREFIX=$(PREFIX)'
	@echo 'make uninstall  removes what make install put there'
	@echo 'make clean      removes build/, target/ and .venv'

# Names what is missing, and how to get it, before anything is built.
tools:
	@PYTHON='$(PYTHON)' CARGO='$(CARGO)' CC='$(CC)' VENV='$(VENV)' sh tests/tools.sh

## The library for C, unoptimised: for the demo and the documentation's examples.

LIB := build/debug/libbruit.so

$(LIB): $(RUST_FILES) | tools
	$(SAY) 'building libbruit (a minute or two the first time)'
	@$(CARGO) build --package bruit
	@mkdir -p $(@D)
	@cp -f target/debug/libbruit.so $(@D)/$(SONAME)
	@ln -sf $(SONAME) $@
	@touch -h $@

DEMO_CC = $(CC) -std=c99 -D_POSIX_C_SOURCE=200809L $(CFLAGS) -Iinclude -o $@ $<

build/demo/node: demo/node.c include/bruit.h $(LIB)
	$(SAY) 'compiling demo/node.c'
	@mkdir -p $(@D)
	@$(DEMO_CC) -Lbuild/debug -lbruit '-Wl,-rpath,$$ORIGIN/../debug'

## The wheel, in a Python of its own.

$(VENV)/made: | tools
	$(SAY) 'making .venv'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/maturin: $(VENV)/made
	$(SAY) 'installing maturin into .venv'
	@$(BIN)/pip install --quiet --disable-pip-version-check 'maturin>=1.9.4,<2'
	@touch $@

$(VENV)/wheel: $(VENV)/maturin $(RUST_FILES) $(PYTHON_FILES)
	$(SAY) 'building the wheel (a minute or two the first time)'
	@rm -rf build/wheels
	@. $(BIN)/activate && maturin build --manifest-path python/Cargo.toml --profile dev --interpreter $(BIN)/python --out build/wheels
	@$(BIN)/pip install --quiet --disable-pip-version-check --force-reinstall --no-deps build/wheels/*.whl
	@touch $@

$(VENV)/tested-with: $(VENV)/made tests/requirements.txt python/requirements-dev.txt
	$(SAY) 'installing the test tools into .venv'
	@$(BIN)/pip install --quiet --disable-pip-version-check --requirement tests/requirements.txt
	@touch $@

## What people run.

demo: build/demo/node $(VENV)/wheel
	@$(BIN)/python demo/run.py build/demo/node

test: tools
	@$(MAKE) --no-print-directory test-rust
	@$(MAKE) --no-print-directory papers
	@$(MAKE) --no-print-directory test-counts
	@$(MAKE) --no-print-directory test-python
	@$(MAKE) --no-print-directory test-docs
	@$(MAKE) --no-print-directory test-install
	@$(MAKE) --no-print-directory demo
	@echo; echo 'make test: all passed'

# C and C++ included: tests/*.rs compile and run tests/c and examples/c.
test-rust: tools
	$(SAY) 'Rust, C and C++ tests'
	$(CARGO) test --features bruit-core/sim $(TEST_FLAGS)
	$(SAY) 'the engine alone: no_std'
	$(CARGO) check --package bruit-core --no-default-features

test-python: $(VENV)/wheel $(VENV)/tested-with
	$(SAY) 'Python tests'
	$(BIN)/python -m pytest -q python/tests
	$(BIN)/python -m pytest -q bench/tests

test-docs: $(LIB) $(VENV)/wheel $(VENV)/tested-with
	$(SAY) 'examples in README.md and docs/'
	$(BIN)/python tests/docs.py

test-install: release | tools
	$(SAY) 'the installed library: pkg-config, static, shared, CMake'
	$(PYTHON) tests/install.py

lint: tools $(VENV)/tested-with $(VENV)/wheel
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --features bruit-core/sim --quiet -- -D warnings
	$(CARGO) check --quiet --package bruit-core --no-default-features
	$(BIN)/ruff check demo bench tests python examples
	cd python && ../$(BIN)/mypy src
	cd bench/side_by_side && ../../$(BIN)/mypy --strict . ../peers/python/work.py

# Optimised: ten times as fast, which is worth the build.
sim: tools
	@$(CARGO) run --quiet --release --package bruit-core --features sim --example sim -- $(ARGS)

# With the optimised library and wheel: what is measured is what people run.
build/bench/callbacks: bench/callbacks.c include/bruit.h $(RELEASED)
	@mkdir -p $(@D)
	@cp -f $(RELEASED) $(@D)/$(SONAME)
	@ln -sf $(SONAME) $(@D)/libbruit.so
	@$(DEMO_CC) -L$(@D) -lbruit '-Wl,-rpath,$$ORIGIN'

build/bench/wheel: $(VENV)/maturin $(RUST_FILES) $(PYTHON_FILES)
	$(SAY) 'building the optimised wheel'
	@rm -rf build/bench/wheels build/bench/python
	@. $(BIN)/activate && maturin build --manifest-path python/Cargo.toml --release --interpreter $(BIN)/python --out build/bench/wheels
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target build/bench/python build/bench/wheels/*.whl
	@touch $@

bench: tools build/bench/callbacks build/bench/wheel
	$(SAY) 'building the benchmarks'
	@$(CARGO) bench --package bruit-core --no-run
	$(CARGO) bench --quiet --package bruit-core --bench turn
	$(CARGO) bench --quiet --package bruit-core --bench cluster
	$(CARGO) bench --quiet --package bruit-core --bench messages
	build/bench/callbacks
	PYTHONPATH=build/bench/python $(BIN)/python bench/callbacks.py

# Each peer is built or installed below build/peers, and measured as its users would use it; who cannot be had is named.
# matplotlib draws the pictures.
bench-peers: $(VENV)/tested-with
	$(BIN)/python bench/side_by_side $(ARGS)

# In the simulated world: the same figures on every machine. BRUIT_UPDATE=1 accepts new ones.
PAPERS = $(CARGO) bench --quiet --package bruit-core --features bruit-core/sim --bench papers

papers: tools
	$(SAY) 'the experiments of the papers, short'
	$(PAPERS)

papers-full: tools
	$(SAY) 'the experiments of the papers'
	$(PAPERS) -- full

# Built with the simulator, as the papers are, so that both need one build. BRUIT_UPDATE=1 accepts new counts.
COUNTS = $(CARGO) bench --quiet --package bruit-core --features bruit-core/sim --bench counts

counts: tools
	$(SAY) 'instructions of the hot paths'
	$(COUNTS)

# Without valgrind, or with another compiler than that of the kept counts, there is no answer, and no failure.
test-counts: tools
	$(SAY) 'instructions of the hot paths'
	$(COUNTS) -- --if-comparable

build/soak/node: demo/node.c include/bruit.h $(RELEASED)
	@mkdir -p $(@D)
	@cp -f $(RELEASED) $(@D)/$(SONAME)
	@ln -sf $(SONAME) $(@D)/libbruit.so
	@$(DEMO_CC) -L$(@D) -lbruit '-Wl,-rpath,$$ORIGIN'

soak: build/soak/node
	$(PYTHON) bench/soak.py $< $(MINUTES)

swarm: tools
	$(SAY) 'building the swarm'
	@$(CARGO) build --quiet --release --package bruit-core --features sim --example swarm
	@$(CARGO) build --quiet --package bruit-core --features sim --example swarm
	@target/release/examples/swarm --seeds $(SEEDS) --first $(FIRST) $(SWARM_FLAGS)
	@debug=$$(target/debug/examples/swarm --seeds 40 --first $(FIRST) --hash) && \
	  release=$$(target/release/examples/swarm --seeds 40 --first $(FIRST) --hash) && \
	  if [ "$$debug" = "$$release" ]; then echo "debug and release agree on 40 seeds: $$debug"; \
	  else echo "debug and release differ on 40 seeds: $$debug, $$release"; exit 1; fi

## Installing. `make release` first, so that `sudo make install` compiles nothing.

release: $(RELEASED)

$(RELEASED): $(RUST_FILES) | tools
	$(SAY) 'building libbruit for release'
	@mkdir -p $(@D)
	@$(CARGO) build --release --package bruit
	@cp -f target/release/libbruit.a $(@D)/libbruit.a
	@$(CARGO) rustc --release --package bruit --lib --crate-type staticlib -- --print native-static-libs 2>$(@D)/rustc.log \
	  || { cat $(@D)/rustc.log; exit 1; }
	@sed -n 's/^note: native-static-libs: //p' $(@D)/rustc.log | tail -n 1 >$(@D)/native-static-libs
	@test -s $(@D)/native-static-libs || { echo 'rustc named no native libraries'; cat $(@D)/rustc.log; exit 1; }
	@cp -f target/release/libbruit.so $@

define fill
sed -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@LIBDIR@|$(LIBDIR)|g' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|g' \
    -e 's|@VERSION@|$(VERSION)|g' -e "s|@LIBS_PRIVATE@|$$(cat build/release/native-static-libs)|g"
endef

install: $(RELEASED)
	install -d '$(DESTDIR)$(LIBDIR)/pkgconfig' '$(DESTDIR)$(LIBDIR)/cmake/bruit' '$(DESTDIR)$(INCLUDEDIR)'
	install -m 755 $(RELEASED) '$(DESTDIR)$(LIBDIR)/libbruit.so.$(VERSION)'
	ln -sf libbruit.so.$(VERSION) '$(DESTDIR)$(LIBDIR)/$(SONAME)'
	ln -sf $(SONAME) '$(DESTDIR)$(LIBDIR)/libbruit.so'
	install -m 644 build/release/libbruit.a '$(DESTDIR)$(LIBDIR)/libbruit.a'
	install -m 644 include/bruit.h include/bruit.hpp '$(DESTDIR)$(INCLUDEDIR)'
	@$(fill) ffi/bruit.pc.in >'$(DESTDIR)$(LIBDIR)/pkgconfig/bruit.pc'
	@$(fill) ffi/bruitConfig.cmake.in >'$(DESTDIR)$(LIBDIR)/cmake/bruit/bruitConfig.cmake'
	@$(fill) ffi/bruitConfigVersion.cmake.in >'$(DESTDIR)$(LIBDIR)/cmake/bruit/bruitConfigVersion.cmake'
	@echo 'installed bruit $(VERSION) to $(DESTDIR)$(PREFIX)'

uninstall:
	rm -f '$(DESTDIR)$(LIBDIR)/libbruit.so.$(VERSION)' '$(DESTDIR)$(LIBDIR)/$(SONAME)' '$(DESTDIR)$(LIBDIR)/libbruit.so' \
	      '$(DESTDIR)$(LIBDIR)/libbruit.a' '$(DESTDIR)$(LIBDIR)/pkgconfig/bruit.pc' \
	      '$(DESTDIR)$(INCLUDEDIR)/bruit.h' '$(DESTDIR)$(INCLUDEDIR)/bruit.hpp'
	rm -rf '$(DESTDIR)$(LIBDIR)/cmake/bruit'

clean:
	rm -rf build target $(VENV)
