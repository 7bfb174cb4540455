#!/bin/sh
# Deploys the flows of prefect.yaml for the project in HEADRACE_PROJECT; doing it again updates them.
# The deployments bear the name in the project file: that is where the monitor looks for them.
set -eu
: "${PREFECT_API_URL:?is to name the Prefect server, such as http://localhost:4200/api}"
: "${HEADRACE_PROJECT:?is to name the project folder}"
HEADRACE_NAME=$(python -c 'import os; from core.project import load_project; print(load_project(os.environ["HEADRACE_PROJECT"]).settings.name)')
: "${HEADRACE_STATE:=$(python -c 'import os; from core.project import load_project; print(load_project(os.environ["HEADRACE_PROJECT"]).state)')}"
: "${HEADRACE_SCHEDULES:=true}" "${HEADRACE_PYTHON:=python}"
export HEADRACE_NAME HEADRACE_STATE HEADRACE_SCHEDULES HEADRACE_PYTHON
exec prefect --no-prompt deploy --all
