PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: test install

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "torch==2.13.0"
	$(BIN)/pip install --quiet --editable ".[picture,dev]"
	touch $@

test: install
	$(BIN)/pytest
