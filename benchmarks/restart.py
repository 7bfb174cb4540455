"""How long a restart takes at one and at ten times the state: ``python benchmarks/restart.py --json FILE``.

The state of a partition is a forest of ten, trained, and events that wait for their label. It is saved and loaded in
this process (the median of `--runs`), and loaded once in a fresh one, imports included, which is what a worker that
takes a partition over has to do before it can go on. Beside the time that passed there is that of the processor, which
says the same on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from core.features import load_features
from core.project import Project, load_project
from streaming.checkpoint import Checkpoints, Snapshot
from streaming.experts import build_experts
from streaming.join import Predicted
from streaming.machine import Machine
from streaming.state import State
from streaming.transport import RawRecord

START = 1_700_000_000_000
SIZES = {"1x": (1_000, 10_000), "10x": (10_000, 100_000)}
PROJECT = """
name: restart
id: id
time: at
fields: {a: number, b: number, c: number, d: number, kind: category, place: {type: category, max_categories: 200}}
label: {path: y, horizon: 7d, positive: 1, negative: 0}
online:
  - {name: forest, factory: forest, params: {n_models: 10}}
  - linear
  - prior
"""


def event(number: int, draw: random.Random) -> dict[str, Any]:
    numbers = {name: draw.gauss(0, 1) for name in "abcd"}
    stamp = START + number * 100
    return {
        "id": f"event-{number:09d}",
        "at": stamp,
        **numbers,
        "kind": draw.choice("abcdef"),
        "place": f"p{draw.randrange(200)}",
    }


def labelled_records(count: int, draw: random.Random) -> Iterator[RawRecord]:
    """Events, each followed by its label."""
    for number in range(count):
        sent = event(number, draw)
        yield RawRecord("restart.events", 0, number, sent["at"], None, json.dumps(sent).encode())
        outcome = int(sent["a"] + sent["b"] * sent["c"] + (sent["kind"] in "ab") + draw.gauss(0, 0.3) > 0)
        label = {"id": sent["id"], "y": outcome}
        yield RawRecord("restart.labels", 0, number, sent["at"] + 1, None, json.dumps(label).encode())


def build(project: Project, labelled: int, pending: int, seed: int) -> State:
    """Learn from `labelled` examples; then let `pending` events wait, which nobody needs to predict for that."""
    draw = random.Random(seed)
    machine = Machine(project.settings, load_features(project), State.fresh(project.settings, build_experts(project)))
    machine.process(list(labelled_records(labelled, draw)))
    state = machine.state
    for number in range(labelled, labelled + pending):
        sent = event(number, draw)
        made = {expert.name: draw.random() for expert in state.experts}
        features = {name: sent[name] for name in project.settings.feature_kinds}
        waits = Predicted(
            state.step, sent["id"], sent["at"], sent["at"], 0, number, None, features, made, draw.random()
        )
        state.join.add_event(waits)
    return state


def timed(do: Callable[[], Any]) -> tuple[Any, float, float]:
    """What `do` returns, the time that passed, and that of the processor, s."""
    began, used = time.perf_counter(), time.process_time()
    result = do()
    return result, time.perf_counter() - began, time.process_time() - used


def medians(what: str, took: list[Any]) -> dict[str, float]:
    passed, used = (statistics.median(entry[index] for entry in took) for index in (0, 1))
    return {f"{what}_s": round(passed, 3), f"{what}_cpu_s": round(used, 3)}


def measure(labelled: int, pending: int, seed: int, runs: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "headrace.yaml").write_text(PROJECT)
        project = load_project(folder, state=Path(folder, "state"))
        checkpoints = Checkpoints(project)
        began = time.perf_counter()
        state = build(project, labelled, pending, seed)
        built_s = time.perf_counter() - began
        saves, loads = [], []
        for _ in range(runs):
            path, *took = timed(lambda: checkpoints.save(0, Snapshot(state, "cluster")))
            saves.append(took)
            loads.append(timed(lambda: checkpoints.load(0))[1:])
        file = checkpoints.inspect(0)
        assert file is not None
        began = time.perf_counter()
        child = subprocess.run([sys.executable, __file__, "--load", folder], check=True, capture_output=True, text=True)
        fresh_s = time.perf_counter() - began
        return {
            "examples_learned": labelled,
            "pending": state.join.pending,
            "build_s": round(built_s, 2),
            "file_bytes": Path(path).stat().st_size,
            "pickled_bytes": {name: len(content) for name, content in file.sections.items()},
            **medians("save", saves),
            **medians("load", loads),
            "fresh_process_s": round(fresh_s, 2),
            **json.loads(child.stdout),
        }


def load(folder: str) -> dict[str, Any]:
    """What a fresh process does; its own times and memory."""
    project = load_project(folder, state=Path(folder, "state"))
    load_features(project)
    build_experts(project)
    found, passed, used = timed(lambda: Checkpoints(project).load(0))
    assert found is not None
    return {
        "fresh_load_s": round(passed, 3),
        "fresh_load_cpu_s": round(used, 3),
        "fresh_process_cpu_s": round(time.process_time(), 2),
        "fresh_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", default="-", help="file of the result; - is standard output")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--load", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.load:
        print(json.dumps(load(given.load)))
        return
    result = {name: measure(*SIZES[name], given.seed, given.runs) for name in given.sizes}
    text = json.dumps(result, indent=2)
    if given.json == "-":
        print(text)
    else:
        Path(given.json).write_text(text + "\n")


if __name__ == "__main__":
    main()
