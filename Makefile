# Works with GNU make 3.81 and BSD tools. `make help` lists the targets.
.DEFAULT_GOAL := all
SHELL := /bin/sh

PYTHON ?= python3
STORE ?= bench
DATA ?= demo-data
WORKERS ?= 2
TEST_WORKERS ?= 2
BENCH_UV := .uv/bin/uv
RUN := $(BENCH_UV) run --no-sync
CLUSTER := $(PYTHON) tools/cluster
VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' pyproject.toml)
LOCAL = $(or $(IMAGE),defectbench:$(VERSION))

.PHONY: all help sync demo test lint format sbom audit docs site bench submit-all submit-one mlflow parts parts-bench cluster \
	cluster-down image image-push image-slim image-test clean

all: test

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)$$/\1	\2/p' Makefile

# uv lives in a venv of its own: plain pip refuses to touch a managed Python.
$(BENCH_UV):
	$(PYTHON) -m venv .uv
	.uv/bin/pip install --quiet --disable-pip-version-check 'uv>=0.5,<1'

# Compiled at once, our own modules too: where Python may not write bytecode, every start would compile them anew.
.venv/.synced: $(BENCH_UV) uv.lock pyproject.toml
	$(BENCH_UV) sync --locked --all-extras --compile-bytecode
	.venv/bin/python -m compileall -q src
	touch .venv/.synced

sync: .venv/.synced ## the Python environment, as locked

demo: .venv/.synced ## train both families on four categories, then open bench/report/index.html
	@test -d $(DATA) || $(RUN) defectbench data synth $(DATA) --size 160 --defects 12
	$(RUN) defectbench data import $(DATA) --name demo --store $(STORE) \
	--any-orientation grass --any-orientation gravel
	$(RUN) defectbench run jobs/local/demo.yaml --store $(STORE) --workers $(WORKERS)
	$(RUN) defectbench report demo --store $(STORE) --out $(STORE)/report
	@echo "The report: $(STORE)/report/index.html    The runs: make mlflow"

# Only a cluster of `make cluster`, or one that is named by hand, is ever touched.
test: lint ## lint, then all tests; what needs a part that is missing is skipped by name
	DEFECTBENCH_TEST_KUBECONFIG="$${DEFECTBENCH_TEST_KUBECONFIG-$$($(CLUSTER) kubeconfig)}" \
	OMP_NUM_THREADS=1 $(RUN) pytest -n $(TEST_WORKERS) --dist loadgroup $(PYTEST)

lint: .venv/.synced ## ruff and mypy
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy

format: .venv/.synced ## ruff, mending
	$(RUN) ruff check --fix
	$(RUN) ruff format

sbom: .venv/.synced ## what the environment is made of, as CycloneDX: dist/sbom.json
	mkdir -p dist
	$(BENCH_UV) export --locked --all-extras --format cyclonedx1.5 --output-file dist/sbom.json > /dev/null

audit: .venv/.synced ## ask a database of known weaknesses about the locked packages; needs the internet
	mkdir -p dist
	$(BENCH_UV) export --locked --all-extras --no-emit-project --output-file dist/requirements.txt > /dev/null
	.uv/bin/uvx pip-audit --requirement dist/requirements.txt --require-hashes --disable-pip

docs: .venv/.synced ## write docs/commands.md and the table of the chart's values anew
	$(RUN) python docs/commands.py
	$(RUN) python docs/values.py

site: docs ## the docs as a site, site/index.html; a warning or a broken link is an error
	$(RUN) python -m sphinx -W --keep-going -q -d .parts/doctrees -b html docs site

bench: .venv/.synced ## measure, minutes to an hour; figures and machine to standard output
	for script in benchmarks/*.py; do OMP_NUM_THREADS=2 $(RUN) python $$script || exit 1; done

SWEEPS = $(or $(SWEEP),$(wildcard jobs/*.yaml))
WHERE = $(if $(NAMESPACE),--namespace $(NAMESPACE)) $(if $(CONTEXT),--kube-context $(CONTEXT))
GIVEN = --store $(STORE) $(foreach file,$(VALUES),-f $(file)) $(if $(IMAGE),--image $(IMAGE))

submit-all: .venv/.synced ## GPU Jobs of every sweep in jobs/ [IMAGE= VALUES= NAMESPACE= CONTEXT= STORE= SWEEP=]
	@test -n "$(SWEEPS)" || { echo "no sweep in jobs/: add one, or name it by SWEEP=FILE"; exit 66; }
	$(RUN) defectbench submit $(SWEEPS) $(GIVEN) $(WHERE)

submit-one: .venv/.synced ## a single Job: SWEEP= MODEL= CATEGORY= [and those of submit-all, SET=resources.gpu=0]
	@test -n "$(SWEEP)" && test -n "$(MODEL)" && test -n "$(CATEGORY)" || \
	{ echo "make submit-one needs SWEEP=jobs/x.yaml MODEL=name CATEGORY=name"; exit 64; }
	$(RUN) defectbench submit $(SWEEP) --model $(MODEL) --category $(CATEGORY) \
	$(foreach each,$(SET),--set $(each)) $(GIVEN) $(WHERE)

mlflow: .venv/.synced ## MLflow's page over the runs of bench/, on a free port
	STORE=$(STORE) $(RUN) python docs/mlflow_server.py

parts: ## build the servers that tests use (Go 1.26), what changed only; as root on Debian also install packages
	@$(PYTHON) tools/parts.py

parts-bench: ## build what only benchmarks use: kwok
	@$(PYTHON) tools/parts.py kwok

cluster: ## start a Kubernetes for tests, or what of it died; as root on Linux with a node
	@$(CLUSTER) up

cluster-down: ## stop it, and undo all that it changed
	@$(CLUSTER) down

image: ## the worker's image by docker, podman or buildah; IMAGE= BASE= TORCH=locked|cpu|cu126...
	docker/build.sh full $(LOCAL) "$(BASE)" "$(TORCH)"

image-push: ## bring it to REGISTRY=host/project
	docker/push.sh $(LOCAL) "$(REGISTRY)"

# Without a registry's images: the base from Debian's packages, by buildah, as root.
image-slim: ## its small form (baselines, no torch) and an S3 server's, for the test cluster
	ENGINE=buildah docker/build.sh slim defectbench:$(VERSION)-slim "$${BASE:-$$(docker/base.sh)}"
	docker/load.sh docker.io/library/defectbench:$(VERSION)-slim $$(docker/s3.sh)

image-test: ## build the whole image likewise, run deep models in it; size and time to the first batch
	ENGINE=buildah docker/build.sh full $(LOCAL) "$${BASE:-$$(docker/base.sh)}" "$(TORCH)"
	docker/try.sh docker.io/library/$(LOCAL)

clean: cluster-down ## remove the environment, the parts and the demo's pictures; never a store
	rm -rf .venv .uv .parts site .pytest_cache .mypy_cache .ruff_cache .hypothesis demo-data
