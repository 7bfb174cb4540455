# make demo   runs the whole loop on a year's flights; ARGS="--days 90 --speed max --json out.json"
# make test   lints, type-checks and runs every test; those of a real Apache Kafka where Java 17 and Maven are there
# make kafka  runs a real Apache Kafka on 127.0.0.1:9092 until Ctrl-C; PORT=9093 for another port
# make deploy PROJECT=folder   puts a project's flows on the Prefect server of PREFECT_API_URL
# make extras adds shap, onnx and onnxruntime: headrace explain then gives Shapley values, and versions have an ONNX file
# They set up .venv first, from the pinned constraints, with Python 3.11 or 3.12.

PYTHON ?= $(shell for p in python3.12 python3.11 python3; do $$p -c 'import sys; sys.exit(not (3,11) <= sys.version_info < (3,13))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
ARGS ?=
PORT ?= 9092
PROJECT ?=

.PHONY: demo test kafka deploy lint setup extras compile clean

demo: setup
	@$(BIN)/headrace demo examples/flights $(ARGS)

test: setup lint
	$(BIN)/pytest --cov --cov-report=term --cov-fail-under=85 $(ARGS)

kafka: setup
	@$(BIN)/python tests/kafka/kafka_server.py --port $(PORT)

deploy: setup
	@test -n "$(PROJECT)" || { echo "say which project: make deploy PROJECT=its/folder"; exit 2; }
	@PATH="$(CURDIR)/$(BIN):$$PATH" HEADRACE_PROJECT="$(abspath $(PROJECT))" HEADRACE_PYTHON="$${HEADRACE_PYTHON:-$(CURDIR)/$(BIN)/python}" sh deploy/flows.sh

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: .venv/ready

.venv/ready: constraints.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "headrace needs Python 3.11 or 3.12: install one, or say make PYTHON=/path/to/python"; exit 2; }
	@echo "setting up .venv with $(PYTHON) (two to three minutes, once)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch .venv/ready

# Needs uv; run after changing a dependency, commit the result. What explains and exports models is large, and apart.
COMPILE := uv pip compile --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-header --no-annotate --no-emit-index-url -q
EXTRAS := import tomllib; e = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]
compile:
	$(COMPILE) pyproject.toml --extra build --extra demo --extra dev --extra postgres -o constraints.txt
	python3 -c '$(EXTRAS); print(*e["explain"], *e["onnx"], sep="\n")' | $(COMPILE) - -c constraints.txt -o constraints-extras.txt

extras: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r constraints-extras.txt

clean:
	rm -rf .venv *.egg-info
