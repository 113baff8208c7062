# Every target sets up .venv by itself when it is missing or older than the lock.
.DEFAULT_GOAL := help
SHELL := /bin/sh

# The first Python that starts and fits; if none fits, python3 says why.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null \
	&& echo $$p && exit; done; echo python3)
BIN := .venv/bin
RUN := $(BIN)/python -m
UV_VERSION := 0.13.9
# A worker per core; each needs up to 3 GB with the servers that it starts, so four at most.
# OpenMP's threads wait by spinning, so that workers with several would only hold each other up.
PYTEST := OMP_NUM_THREADS=1 $(RUN) pytest -q -n logical --maxprocesses=4 --dist=loadfile \
	--no-loadscope-reorder --durations=10
SELECT = -m "not slow and not docker"

# What's longer than a few minutes: years that are replayed, models that are ruined, loops killed.
REPLAYS := augmentation gate_bad_candidates gate_replay loop_kills loop_time more_data \
	pipeline_kills policy_prices release_end_to_end
RECORDED := $(basename $(notdir $(wildcard benchmarks/*.md)))

# What `make mlflow` shows, and where.
WORKSPACE := runs/pipeline
PORT := 5000

.PHONY: help loop test lab check unit notebooks portable refresh render bench replays image containers compose platforms mlflow \
	lock clean ready

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-16s %s\n", $$1, $$2}'

loop: ready  ## play a year in production, or WEEKS=8: train, judge, release, watch, retrain
	@$(BIN)/mlops-mini loop $(if $(WEEKS),--weeks $(WEEKS))

test: SELECT := -m "not docker"
test: check unit notebooks render  ## everything that must hold: check, all tests, notebooks

lab: ready  ## JupyterLab, at the index
	@$(BIN)/jupyter lab --ServerApp.ip=127.0.0.1 --ServerApp.root_dir=$(CURDIR) \
		--LabApp.default_url=/lab/tree/notebooks/00_index.ipynb --LabApp.news_url=None \
		--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate $(LAB) \
		$(if $(filter 0,$(shell id -u)),--allow-root)

check: ready  ## formatting, types, layers, spelling, size: no test is run
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet .
	@$(RUN) mypy --no-error-summary
	@layers=$$($(BIN)/lint-imports 2>&1) || { echo "$$layers"; exit 1; }
	@$(BIN)/codespell
	@$(RUN) tools.notebooks check notebooks/*.ipynb
	@$(RUN) tools.code_lines mlops_mini

unit: ready  ## the tests of the package but the slow ones, and the ten slowest of these
	@$(PYTEST) $(SELECT)

notebooks: ready  ## the notebooks and their solutions, compared output by output
	@$(RUN) tools.notebooks test notebooks/*.ipynb

portable: ready  ## would notebooks pass on another processor? All, or NB=notebooks/08_*.ipynb
	@$(RUN) tools.notebooks test --all-passes $(or $(NB),notebooks/*.ipynb)

refresh: ready  ## run notebooks anew and save their outputs: all, or NB=notebooks/08_*.ipynb
	@$(RUN) tools.notebooks refresh $(or $(NB),notebooks/*.ipynb)

render: ready  ## the notebooks as nbviewer shows them, checked, into runs/html
	@$(RUN) tools.notebooks render notebooks/*.ipynb

bench: ready  ## the short side-by-side measurements, into benchmarks/*.md; not part of the tests
	@for name in $(filter-out $(REPLAYS),$(RECORDED)); do $(RUN) benchmarks.$$name || exit 1; done

replays: ready  ## the long ones, minutes to half an hour each; one: REPLAYS=gate_replay
	@for name in $(REPLAYS); do $(RUN) benchmarks.$$name || exit 1; done

image: ready  ## the Docker images: the model server's and those of the pipeline's components
	@$(RUN) tools.image

containers: ready  ## tests that need a Docker engine, and notebook 09 with one; builds the images
	@$(RUN) tools.docker_engine sh -c '$(PYTEST) -rs -m docker $$(grep -rl mark.docker tests) && \
		$(RUN) tools.notebooks test notebooks/09_*.ipynb'

compose: ready  ## two versions behind Envoy by Docker Compose: a canary gets one request in ten
	@$(RUN) tools.compose

platforms: ready  ## the notes' platforms given our objects, into docs/platforms.md; one: ONLY=feast
	@$(RUN) tools.docker_engine $(RUN) tools.platforms $(ONLY:%=--only %) $(UNTIL:%=--until %)

mlflow: ready  ## MLflow's web page of runs and versions, on loopback: of WORKSPACE=runs/pipeline
	@$(BIN)/mlops-mini reconcile --workspace $(WORKSPACE)
	@$(PYTHON) tools/set_up.py .cache/environments/mlflow-ui --lock environments/mlflow-ui.txt
	@MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
		.cache/environments/mlflow-ui/bin/mlflow server --host 127.0.0.1 --port $(PORT) --workers 1 \
		--backend-store-uri sqlite:///$(abspath $(WORKSPACE))/models/registry.sqlite

lock:  ## compile requirements.txt anew from pyproject.toml
	@$(PYTHON) tools/lock.py --uv $(UV_VERSION)

clean:  ## remove what the other targets made, .venv included
	@rm -rf .venv .cache runs dist .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache \
		.import_linter_cache *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

ready:
	@$(PYTHON) tools/set_up.py
