# `make` lists the targets.
PYTHON := .venv/bin/python

.PHONY: help check lint types imports migrations tests clients slow postgres cluster wheel format docs lock

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

check: lint types imports migrations tests ## run all checks and tests

lint: ## check rules and format with ruff
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types: ## check types with mypy: strict in the package and scripts, in most tests without required annotations
	$(PYTHON) -m mypy

imports: ## check the layers of ARCHITECTURE.md with import-linter
	.venv/bin/lint-imports

migrations: ## check that the migrations produce the schema of tables.py
	$(PYTHON) scripts/check_migrations.py

# Three processes, as tests wait for servers, workers and browsers; the order of files is that of tests/conftest.py.
PARALLEL := -n 3 --dist loadfile --no-loadscope-reorder

tests: ## run the test suite, three files at a time
	$(PYTHON) -m pytest $(PARALLEL)

clients: ## install clients of the compatibility APIs for `slow` (Python and npm packages, into .cache)
	scripts/clients

slow: ## run the soak tests and full sweeps, which `check` skips
	$(PYTHON) -m pytest $(PARALLEL) -m slow

ON_POSTGRES := tests/boards tests/conformance tests/downloads tests/images tests/models tests/presets tests/queue tests/recall tests/shims tests/users tests/workflows

postgres: ## run the tests of all packages with SQL on PostgreSQL
	$(PYTHON) -m pytest $(PARALLEL) --postgresql $(ON_POSTGRES)

CLUSTER := tests/conformance tests/kit/storage tests/cluster tests/server/joined tests/server/peers tests/whole/test_cluster_faults.py \
	tests/whole/test_joined_workers.py tests/whole/test_ray.py tests/whole/test_run_cluster.py tests/whole/test_s3.py tests/whole/test_several_servers.py

cluster: ## run the tests of installations on several machines, with 20 minutes of faults, and their benchmark; needs `.[ray]`
	$(PYTHON) -m pytest -m "slow or not slow" $(CLUSTER)
	$(PYTHON) scripts/benchmark_cluster.py

wheel: ## build the wheel, install it outside the checkout, serve and generate an image; other Pythons without torch
	$(PYTHON) scripts/check_wheel.py

format: ## format the code and apply ruff's fixes
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

docs: ## update the generated parts of the documents and configs/invokeai.example.yaml
	$(PYTHON) scripts/write_docs.py

lock: ## update configs/lock.txt from the installed versions
	$(PYTHON) scripts/write_lock.py
