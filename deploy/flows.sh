#!/bin/sh
# Deploys the flows of prefect.yaml for the project in HEADRACE_PROJECT; doing it again updates them.
# The deployments bear the name in the project file: that is where the monitor looks for them.
set -eu
HEADRACE_NAME=$(python -c 'import os; from core.project import load_project; print(load_project(os.environ["HEADRACE_PROJECT"]).settings.name)')
export HEADRACE_NAME
exec prefect --no-prompt deploy --all
