# ChatGGLM. `make help` lists the targets; the README shows the same steps without make.

PORT ?= 8000
TORCH_INDEX ?=
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install -c constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

# The first interpreter that is new enough; PYTHON=… chooses another one.
ifndef PYTHON
PYTHON := $(shell for p in python3 python python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
endif

.DEFAULT_GOAL := help
.PHONY: help install extras run test lint format types bench docs widget train constraints clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  PORT=8000         port of \`make run\`"
	@echo "  TORCH_INDEX=URL   extra package index; PyTorch's CPU index saves gigabytes without a GPU"
	@echo "  PYTHON=python3    interpreter that creates the virtual environment (3.11 or newer)"
	@echo "  ARGS=…            further arguments of test, bench and train"

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "ChatGGLM needs Python 3.11 or newer, and none was found on the PATH." >&2; \
		echo "Install it, or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "ChatGGLM needs Python 3.11 or newer; $(PYTHON) is older." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "Python could not create a virtual environment (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) -e '.[test,train,onnx]'
	@touch $@

extras: $(VENV)/.installed-test ## Install Milvus Lite and Ray (520 MB); their tests skip without
	$(PIP) -e '.[milvus,ray]'

install: $(VENV)/.installed ## Create .venv and install ChatGGLM into it

run: install ## Install, put the user guide into an empty knowledge base, start the server
	@$(BIN)/chatgglm serve --port $(PORT)

test: $(VENV)/.installed-test ## Run the whole test suite
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.installed-test ## Check the code with ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-test ## Sort imports and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-test ## Check the types with mypy
	$(BIN)/mypy

bench: $(VENV)/.installed-test ## Measure everything and write docs/benchmarks.md
	$(BIN)/python benchmarks/run_all.py $(ARGS)

docs: $(VENV)/.installed-test ## Write docs/cli.md from the commands themselves
	$(BIN)/typer api.cli utils docs --name chatgglm --title "Command line" | $(BIN)/python -c \
		'import html, sys; sys.stdout.write(html.unescape(sys.stdin.read()).rstrip() + "\n")' > docs/cli.md

widget: ## Build the chat widget (needs Node 20 or newer)
	cd api/widget && npm ci && npm run build

train: $(VENV)/.installed-test ## Train: make train ARGS="pretrain --help"
	$(BIN)/chatgglm train $(ARGS)

constraints: $(VENV)/.installed-test ## Pin what a fresh .venv holds into constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable | sed -E 's/\+[^ ]+$$//' > constraints.txt

clean: ## Remove .venv and caches (your data stays)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
