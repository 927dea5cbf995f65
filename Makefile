# `make` lists the targets.
PYTHON := .venv/bin/python

.PHONY: help check lint types imports migrations tests slow wheel format docs lock

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

check: lint types imports migrations tests ## everything that CI checks

lint: ## ruff: rules and format
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types: ## mypy, strict
	$(PYTHON) -m mypy

imports: ## the layers of ARCHITECTURE.md
	.venv/bin/lint-imports

migrations: ## the migrations make what tables.py says
	$(PYTHON) scripts/check_migrations.py

tests: ## the test suite, two files at a time
	$(PYTHON) -m pytest -n 2 --dist loadfile

slow: ## soak tests and full sweeps, which `check` leaves out
	$(PYTHON) -m pytest -n 2 --dist loadfile -m slow

wheel: ## build the wheel, install it elsewhere, serve and make an image; other Pythons without torch
	$(PYTHON) scripts/check_wheel.py

format: ## let ruff write
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

docs: ## write the generated parts of the documents and configs/invokeai.example.yaml anew
	$(PYTHON) scripts/write_docs.py

lock: ## write configs/lock.txt anew from what is installed
	$(PYTHON) scripts/write_lock.py
