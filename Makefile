PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCHMARKS := $(filter-out benchmarks/__init__.py,$(wildcard benchmarks/*.py))

.PHONY: setup demo test lint bench proto check-proto clean

setup: $(READY)  ## a virtual environment with everything, from PyPI alone

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "attnpriv needs Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(READY)  ## the main job: train privately, audit, serve, ask
	$(BIN)/python examples/demo.py

test: $(READY)  ## import rules, doctests, unit and end-to-end tests
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest -q

lint: $(READY) check-proto  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## every benchmark, one JSON object each
	@for file in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$(basename $$file .py) || exit 1; done

proto: $(READY)  ## regenerate attnpriv/v1 from proto/
	$(BIN)/python -m grpc_tools.protoc -I proto --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
	  --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
	  --python_out=. --grpc_python_out=. --mypy_out=. --mypy_grpc_out=. proto/attnpriv/v1/*.proto

check-proto: proto  ## the committed generated code is what the .proto files give
	@git diff --exit-code --stat -- attnpriv/v1 || { echo "generated code is stale: run make proto"; exit 1; }

clean:
	rm -rf $(VENV) build *.egg-info
