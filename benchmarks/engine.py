"""How much of bare River's speed is left: ``python benchmarks/engine.py --events 20000 --runs 5 --json FILE``.

The same model (an adaptive Hoeffding tree) sees the same events and labels in the same order: River alone on decoded
values; headrace's machine without any I/O; a worker on a real Kafka with `at_least_once` and with `exactly_once`. The
runs are interleaved, so that a busy machine is busy for all of them; figures are medians, and ratios to bare River.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import json
import pstats
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "kafka"))

from kafka_server import KafkaServer
from synthetic import HORIZON_MS, START, STEP_MS, Counts, clock_records, stream, write_project

from core.features import load_features
from core.project import Project
from streaming.experts import build_experts
from streaming.kafka_client import KafkaBroker
from streaming.machine import Machine
from streaming.state import State
from streaming.topics import ensure_topics
from streaming.transport import OutRecord, RawRecord
from streaming.worker import Worker

_BATCH = 256
MODES = ("bare River", "machine", "at_least_once", "exactly_once")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    records = list(stream("made", given.events, 1, 0.0, Counts()))
    seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(KafkaServer(folder / "kafka"))
        broker = KafkaBroker(server.bootstrap_servers)
        fill(broker, records, folder, given.events)
        for run in range(given.runs):
            seconds["bare River"].append(bare_river(records))
            seconds["machine"].append(machine_alone(project_in(folder / f"m{run}", f"m{run}"), records))
            for mode in ("at_least_once", "exactly_once"):
                name = f"{mode[0]}{run}"
                seconds[mode].append(worker(broker, project_in(folder / name, name, mode), len(records) + 2))
            print({mode: round(given.events / found[-1]) for mode, found in seconds.items()}, file=sys.stderr)
        profile = cProfile.Profile()
        profile.runcall(worker, broker, project_in(folder / "p", "p", "exactly_once"), len(records) + 2)
    per_second = {mode: statistics.median(given.events / one for one in found) for mode, found in seconds.items()}
    result = {
        "events": given.events,
        "runs": given.runs,
        "events_per_second": {mode: round(value) for mode, value in per_second.items()},
        "ratio_to_bare_river": {mode: round(value / per_second["bare River"], 3) for mode, value in per_second.items()},
        "all": {mode: [round(given.events / one) for one in found] for mode, found in seconds.items()},
    }
    print(json.dumps(result, indent=2))
    print(shown(profile))
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def project_in(folder: Path, name: str, guarantee: str = "exactly_once") -> Project:
    """Make a project with one online expert and nothing else to do."""
    return write_project(folder, name, "made", 1, online=["tree"], state={"guarantee": guarantee})


def fill(broker: KafkaBroker, records: list[OutRecord], folder: Path, events: int) -> None:
    """Publish the records, and say at their end that time has passed."""
    ensure_topics(broker, project_in(folder / "fill", "fill").settings)
    producer = broker.producer()
    for record in [*records, *clock_records("made", 1, START + events * STEP_MS + 3 * HORIZON_MS)]:
        producer.send(record)
    producer.close()


def bare_river(records: list[OutRecord]) -> float:
    """River alone, on values decoded beforehand: predict each event, learn from its first label."""
    from river import tree

    model = tree.HoeffdingAdaptiveTreeClassifier(seed=1, leaf_prediction="nba")
    decoded = [(record.topic.endswith("events"), json.loads(record.value or b"")) for record in records]
    waiting: dict[str, dict[str, Any]] = {}
    began = time.perf_counter()
    for is_event, content in decoded:
        if is_event:
            features = {name: content[name] for name in ("x", "z", "kind")}
            model.predict_proba_one(features)
            waiting[content["id"]] = features
        elif (known := waiting.pop(content["id"], None)) is not None:
            model.learn_one(known, bool(content["y"]))
    return time.perf_counter() - began


def machine_alone(project: Project, records: list[OutRecord]) -> float:
    """Everything a partition does, from bytes on, without any I/O."""
    machine = Machine(project.settings, load_features(project), State.fresh(project.settings, build_experts(project)))
    raw = [
        RawRecord(record.topic, 0, offset, record.timestamp or 0, record.key, record.value)
        for offset, record in enumerate(records)
    ]
    began = time.perf_counter()
    for start in range(0, len(raw), _BATCH):
        machine.process(raw[start : start + _BATCH])
    return time.perf_counter() - began


def worker(broker: KafkaBroker, project: Project, records: int) -> float:
    """A whole worker, from its first record until the last is committed."""
    times: list[float] = []

    def until(running: Worker) -> bool:
        if running.records and not times:
            times.append(time.perf_counter())
        return running.records >= records

    Worker(project, broker, None, lockstep=True).run(threading.Event(), until=until)
    return time.perf_counter() - times[0]


def shown(profile: cProfile.Profile) -> str:
    """Return where the time of the worker's own thread went."""
    text = io.StringIO()
    pstats.Stats(profile, stream=text).sort_stats("tottime").print_stats(25)
    return text.getvalue()


if __name__ == "__main__":
    sys.exit(main())
