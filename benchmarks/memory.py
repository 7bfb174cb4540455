"""Does memory, or the time an event takes, grow with the number of events and of distinct categories?

    python benchmarks/memory.py [--events N] [--json F]

One partition's machine, default settings, no Kafka and no champion. A category field takes 1,000,000 distinct values.
Of 20 events 10 get their label after 1,000 events, 8 after 60,000, one too late and one never; the horizon is 100,000
events, so that many more ids wait than `state.max_in_memory`. Goals: memory at the end at most 1.05 times that at
100,000 events; the 99th percentile of the time per record in the last tenth at most 1.2 times that in the second. Times
are given by the wall clock, and as CPU time, which a busy machine does not change as much.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import random
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from core.features import load_features
from core.project import Project, load_project
from streaming.experts import build_experts
from streaming.machine import Machine
from streaming.state import State
from streaming.transport import RawRecord

BATCH = 256
WARM = 100_000
DISTINCT = 1_000_000
HORIZON = 100_000
START, STEP_MS = 1_700_000_000_000, 1_000
PROJECT = f"""
name: memory
id: id
time: at
fields: {{user: category, x: number}}
label: {{path: y, positive: 1, negative: 0, horizon: {HORIZON * STEP_MS // 1_000}s}}
online: [linear, tree, prior]
"""
DELAYS = [1_000] * 10 + [60_000] * 8 + [HORIZON + 5_000, None]


def stream(events: int) -> Iterator[RawRecord]:
    """Yield events and labels in the order of their time stamps; nothing of them is remembered here."""
    draw = random.Random(1)
    labels = 0
    kinds = {delay: {place for place, one in enumerate(DELAYS) if one == delay} for delay in set(DELAYS) - {None}}
    for number in range(events):
        stamp = START + number * STEP_MS
        value = {"id": f"event-{number}", "at": stamp, "user": f"u{number % DISTINCT}", "x": x_of(number)}
        yield RawRecord("memory.events", 0, number, stamp, None, json.dumps(value).encode())
        for delay, places in kinds.items():
            if number >= delay and (number - delay) % len(DELAYS) in places:
                chance = 1.0 / (1.0 + math.exp(-2.0 * x_of(number - delay)))
                value = {"id": f"event-{number - delay}", "y": int(draw.random() < chance)}
                yield RawRecord("memory.labels", 0, labels, stamp, None, json.dumps(value).encode())
                labels += 1


def x_of(number: int) -> float:
    """Return a number between -2 and 2, the same for the same event."""
    return 4.0 * (number * 0.6180339887498949 % 1.0) - 2.0


def resident_mib() -> float:
    gc.collect()
    return psutil.Process().memory_info().rss / 2**20


def make_machine(project: Project) -> Machine:
    state = State.fresh(project.settings, build_experts(project))
    state.join.attach(project.state / "join", project.settings.state.max_in_memory)
    return Machine(project.settings, load_features(project), state)


def run(machine: Machine, events: int) -> tuple[np.ndarray, float]:
    """Work through the stream; return each batch's (wall, CPU) time per record, us, and memory when warm, MiB."""
    records = stream(events)
    times = np.zeros((3 * events // BATCH + 1, 2))
    batches, warm, began = 0, 0.0, time.monotonic()
    while batch := list(islice(records, BATCH)):
        start, cpu = time.perf_counter(), time.process_time()
        machine.process(batch)
        passed = time.perf_counter() - start, time.process_time() - cpu
        times[batches] = [part / len(batch) * 1e6 for part in passed]
        batches += 1
        received = machine.state.books.events.received
        if not warm and received >= min(WARM, events // 2):
            warm = resident_mib()
        if batches % 1_000 == 0:
            rate = batches * BATCH / (time.monotonic() - began)
            print(f"{received:>10,} events, {rate:,.0f} records/s, {resident_mib():.1f} MiB", flush=True)
    return times[:batches], warm


def compare(times: np.ndarray) -> dict[str, Any]:
    """Return percentiles of the time per record in the second and in the last tenth, us, and their ratios."""
    tenth = len(times) // 10
    parts = {"second_tenth": times[tenth : 2 * tenth], "last_tenth": times[-tenth:]}
    found = {name: {f"p{q}_us": float(np.percentile(part, q)) for q in (50, 99)} for name, part in parts.items()}
    second, last = found["second_tenth"], found["last_tenth"]
    ratios = {f"{name[:3]}_ratio": round(last[name] / second[name], 4) for name in second}
    rounded = {part: {name: round(value, 1) for name, value in row.items()} for part, row in found.items()}
    return {**rounded, **ratios, "batch_p99_ms_last_tenth": round(last["p99_us"] * BATCH / 1_000, 1)}


def measure(events: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "headrace.yaml").write_text(PROJECT)
        project = load_project(Path(folder), state=Path(folder) / "state")
        machine = make_machine(project)
        times, warm = run(machine, events)
        end = resident_mib()
        join = machine.state.join
        result = {
            "events": events,
            "distinct_categories": min(DISTINCT, events),
            "books": machine.state.books.as_dict(),
            "imbalances": machine.state.books.imbalances(),
            "ids_in_memory": join.in_memory,
            "ids_on_disk": join.on_disk,
            "memory_warm_mib": round(warm, 1),
            "memory_end_mib": round(end, 1),
            "memory_ratio": round(end / warm, 4),
            "per_record": {"wall": compare(times[:, 0]), "cpu": compare(times[:, 1])},
        }
        join.close()
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--json", type=Path, help="write the result here, too")
    options = parser.parse_args()
    result = measure(options.events)
    text = json.dumps(result, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
