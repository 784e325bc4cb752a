# Works with GNU make 3.81 and BSD tools. `make help` lists the targets.
.DEFAULT_GOAL := all
SHELL := /bin/sh

PYTHON ?= python3
STORE ?= bench
DATA ?= demo-data
WORKERS ?= 2
BENCH_UV := .uv/bin/uv
RUN := $(BENCH_UV) run --no-sync
PARTS := .parts/bin

.PHONY: all help sync demo test lint format docs bench mlflow parts clean

all: test

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)$$/\1	\2/p' Makefile

# uv lives in a venv of its own: plain pip refuses to touch a managed Python.
$(BENCH_UV):
	$(PYTHON) -m venv .uv
	.uv/bin/pip install --quiet --disable-pip-version-check 'uv>=0.5,<1'

.venv/.synced: $(BENCH_UV) uv.lock pyproject.toml
	$(BENCH_UV) sync --locked --all-extras
	touch .venv/.synced

sync: .venv/.synced ## the Python environment, as locked

demo: .venv/.synced ## train both families on four categories, then open bench/report/index.html
	@test -d $(DATA) || $(RUN) defectbench data synth $(DATA) --size 160 --defects 12
	$(RUN) defectbench data import $(DATA) --name demo --store $(STORE)
	$(RUN) defectbench run jobs/local/demo.yaml --store $(STORE) --workers $(WORKERS)
	$(RUN) defectbench report demo --store $(STORE) --out $(STORE)/report
	@echo "The report: $(STORE)/report/index.html    The runs: make mlflow"

test: lint ## lint, then all tests; what needs a part that is missing is skipped by name
	OMP_NUM_THREADS=1 $(RUN) pytest $(PYTEST)

lint: .venv/.synced ## ruff and mypy
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy

format: .venv/.synced ## ruff, mending
	$(RUN) ruff check --fix
	$(RUN) ruff format

docs: .venv/.synced ## write docs/commands.md and the table of the chart's values anew
	$(RUN) python docs/commands.py
	$(RUN) python docs/values.py

bench: .venv/.synced ## measure, minutes to an hour; figures and machine to standard output
	for script in benchmarks/*.py; do OMP_NUM_THREADS=2 $(RUN) python $$script || exit 1; done

mlflow: .venv/.synced ## MLflow's page over the runs of bench/, on a free port
	STORE=$(STORE) $(RUN) python docs/mlflow_server.py

parts: $(PARTS)/versitygw ## build the servers that tests use (Go 1.26); as root on Debian also a browser
	@command -v chromium >/dev/null || command -v apt-get >/dev/null && test "$$(id -u)" = 0 || exit 0; \
	command -v chromium >/dev/null || { apt-get update -q >/dev/null; apt-get install -qy chromium >/dev/null; }

$(PARTS)/versitygw: tools/versitygw/go.mod tools/versitygw/go.sum
	@command -v go >/dev/null || { echo "make parts needs Go 1.26: https://go.dev/dl"; exit 69; }
	mkdir -p $(PARTS)
	cd tools/versitygw && go build -o ../../$@ github.com/versity/versitygw/cmd/versitygw

clean: ## remove the environment, the parts and the demo's pictures; never a store
	rm -rf .venv .uv .parts .pytest_cache .mypy_cache .ruff_cache .hypothesis demo-data
