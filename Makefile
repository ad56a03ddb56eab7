PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Without compiled bytecode each start would compile PyTorch and its companions anew: 25 s, not 10.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup run test test-all lint docs types clean

setup: $(STAMP)

# Redone only when what it installs changes. uv makes it quick; torch and torchvision come
# together from one index, at the versions that constraints.txt pins. On Linux the default index
# has the CUDA builds: about 3 GB of libraries beside torch itself. `make setup CPU=1` takes the CPU
# builds from PyTorch's own index instead.
ifeq ($(CPU),1)
TORCH := --torch-backend cpu
SIZE := about 1.5 GB, for the CPU only
else
SIZE := about 6 GB on Linux, most of it CUDA libraries (make setup CPU=1 leaves them out)
endif

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "zerocon needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "zerocon is installed into $(VENV): $(SIZE)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python $(TORCH) --constraints constraints.txt --editable '.[dev]'
	touch $(STAMP)

# Edits the 20 cases of the small benchmark, prints the table, writes the gallery.
run: setup
	$(BIN)/python run.py $(ARGS)

test: setup
	$(BIN)/python -m pytest

test-all: setup
	$(BIN)/python -m pytest -m ''

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-logo

# All pages as a site in site/, with a reference made from the code; a broken link is an error.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

clean:
	rm -rf $(VENV) outputs site
