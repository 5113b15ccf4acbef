PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
COMMANDS := $(VENV)/.commands
READY := $(VENV)/.ready
PYTEST = $(BIN)/python -m pytest -q --numprocesses 2 --dist worksteal
# Without --no-compile, pip compiles every module of every package, which takes a minute; Python
# compiles what it imports at the first use.
INSTALL = $(BIN)/pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt
# protoc finds google/rpc/status.proto where googleapis-common-protos has it: beside its Python.
PROTOC = $(BIN)/python -m grpc_tools.protoc -I proto \
  -I $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
PROTOS := $(wildcard proto/attnpriv/*/*.proto)
DESCRIPTORS := build/protos.binpb
# Clients that exist already and schemas of manifests, each in an environment of its own outside the repository.
INTEROP ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/attnpriv-interop
CLIENTS := tritonclient kserve grpcurl kubernetes
# playwright-core and axe-core, outside the repository too; node and a chromium are the system's.
BROWSER ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/attnpriv-browser
# What takes a folder or a file to go on with, and hours, is not among them, like hardening_frontier.
LONG := bounded_audit leakage_table robustness robustness_table vision_comparison
BENCHMARKS := $(filter-out __init__ machine quick tables timing variants $(LONG),$(basename $(notdir $(wildcard benchmarks/*.py)))) \
  release scale serving

.PHONY: setup demo demo-vision test test-exhaustive test-all interop soak fuzz browser docs lint bench bench-quick proto check-proto lint-proto release-proto clean

setup: $(READY)  ## make a virtual environment with everything, from PyPI alone

$(COMMANDS): pyproject.toml constraints.txt  # what running the commands takes
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "attnpriv needs Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[train,pretrained,audit,server]'
	touch $@

$(READY): $(COMMANDS)  # and what developing them takes
	$(INSTALL) -e '.[dev]'
	touch $@

demo: $(COMMANDS)  ## run the main job: train privately, audit, serve, ask
	$(BIN)/python examples/demo.py

demo-vision: $(COMMANDS)  ## the same with images, in a few minutes
	$(BIN)/python examples/demo_vision.py

test: $(READY)  ## check import rules and run doctests, unit and end-to-end tests, in minutes
	$(BIN)/lint-imports --no-logo
	$(PYTEST) -m 'not exhaustive'

test-exhaustive: $(READY)  ## run what `make test` leaves out: whole grids, long kill loops, 100-draw nulls
	$(PYTEST) -m exhaustive

test-all: test test-exhaustive  ## run every test, once

interop: $(READY) $(CLIENTS:%=$(INTEROP)/%/.ready)  ## try unmodified clients of the Open Inference Protocol on the server, and check manifests
	ATTNPRIV_INTEROP=$(INTEROP) $(BIN)/python -m pytest -q tests/interop

$(INTEROP)/%/.ready: tests/interop/%.txt
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/pip install --quiet --no-compile --disable-pip-version-check -r $<
	touch $@

soak: $(READY)  ## send the server ten times more requests than it can answer, for minutes
	$(BIN)/python -m tests.soak

fuzz: $(VENV)/.fuzz  ## send random bytes to every method, for minutes; findings are kept in build/fuzz
	$(BIN)/python -m tests.fuzz

$(VENV)/.fuzz: $(READY)
	$(INSTALL) -e '.[fuzz]'
	touch $@

browser: $(READY) $(BROWSER)/.ready  ## open the report of a small audit in headless Chromium, as people do
	$(BIN)/python -m tests.browser $(BROWSER) build/browser

$(BROWSER)/.ready: tests/browser/package.json
	mkdir -p $(@D)
	cp $< $(@D)
	npm install --prefix $(@D) --silent --no-audit --no-fund
	touch $@

docs: $(VENV)/.docs  ## build the documentation as a site in build/site; a dead link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

$(VENV)/.docs: $(READY)
	$(INSTALL) -e '.[docs]'
	touch $@

lint: $(READY) check-proto lint-proto  ## check style, types and the protos
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## run the benchmarks; each prints one JSON object
	@for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name || exit 1; done

bench-quick: $(READY)  ## measure every ratio with few rounds, in ten minutes, on one page
	$(BIN)/python -m benchmarks.quick

proto: $(READY)  ## regenerate attnpriv/v1 and attnpriv/inference from proto/
	$(PROTOC) --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
	  --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
	  --python_out=. --grpc_python_out=. --mypy_out=. --mypy_grpc_out=. $(PROTOS)

check-proto: proto  ## check that the committed generated code fits the .proto files
	@git diff --exit-code --stat -- attnpriv/v1 attnpriv/inference \
	  || { echo "generated code is stale: run make proto"; exit 1; }

lint-proto: $(READY)  ## check the style of the protos, and that they break no released client
	mkdir -p build
	$(PROTOC) --include_imports --include_source_info -o $(DESCRIPTORS) $(PROTOS)
	$(BIN)/buf lint $(DESCRIPTORS) --config proto/buf.yaml
	$(BIN)/buf breaking $(DESCRIPTORS) --against proto/released.txtpb --config proto/buf.yaml

release-proto: lint-proto  ## release the protos as they are; later changes must not break them
	$(BIN)/buf build $(DESCRIPTORS) --exclude-source-info -o proto/released.txtpb

clean:
	rm -rf $(VENV) build *.egg-info
