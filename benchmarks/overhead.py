"""What a retraining costs beside its search and its fits: the flow's process from its start to its end.

``python benchmarks/overhead.py PROJECT [--seconds 0,300]``: PROJECT has a champion and newer labels in its state (a
finished demo has); a copy is used for each budget. ``headrace retrain`` is given there as a user would: it starts
Prefect, which starts the flow's process, and that process is what is timed. A budget of 0 is the project's own trials.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from core.project import load_project
from core.project_file import FILE_NAME

SEARCH_AND_FITS = ("search", "fit", "refit")
LOOK_EVERY_S = 0.05


def measure(project: Path, state: Path, seconds: float, folder: Path) -> dict[str, Any]:
    """Retrain a copy of the project and its state within a budget of search seconds."""
    copy, out = folder / f"project-{seconds:g}", folder / f"{seconds:g}.json"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns(".headrace"))
    shutil.copytree(state, folder / f"state-{seconds:g}", ignore=shutil.ignore_patterns("prefect", "reports", "logs"))
    if seconds:
        file = copy / FILE_NAME
        content = yaml.safe_load(file.read_text())
        content["batch"] = {**content.get("batch", {}), "trials": 10_000, "seconds": seconds}
        file.write_text(yaml.safe_dump(content))
    environment = {**os.environ, "HEADRACE_STATE": str(folder / f"state-{seconds:g}")}
    command = [sys.executable, "-m", "headrace", "retrain", str(copy), "--json", str(out)]
    running = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    flow_s = life_of_the_flow(running)
    ended = json.loads(out.read_text())
    steps = ended["steps"]
    beside = flow_s - sum(steps.get(name, 0.0) for name in SEARCH_AND_FITS)
    return {
        "status": ended["status"],
        "flow_s": round(flow_s, 1),
        "beside_s": round(beside, 1),
        "share": round(beside / flow_s, 3),
        "steps": steps,
    }


def life_of_the_flow(running: subprocess.Popen[bytes]) -> float:
    """Return how long the process that ran the flow lived, s: from the kernel's start of it to when it is gone."""
    began, ended = 0.0, 0.0
    while running.poll() is None:
        if found := flow_processes(running.pid):
            began, ended = began or min(found), time.time()
        time.sleep(LOOK_EVERY_S)
    return ended - began


def flow_processes(root: int) -> list[float]:
    """Return when the descendants that run a flow were started, s since the epoch."""
    try:
        below = psutil.Process(root).children(recursive=True)
        return [one.create_time() for one in below if "prefect.engine" in one.cmdline()]
    except psutil.NoSuchProcess:
        return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path)
    parser.add_argument("--seconds", default="0,300")
    given = parser.parse_args()
    state = load_project(given.project).state
    with tempfile.TemporaryDirectory(prefix="headrace-overhead-") as folder:
        budgets = [float(text) for text in given.seconds.split(",")]
        took = {f"{seconds:g}": measure(given.project, state, seconds, Path(folder)) for seconds in budgets}
    print(json.dumps(took, indent=2))


if __name__ == "__main__":
    main()
