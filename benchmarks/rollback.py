"""How long a rollback takes: from the command's start to the first event that the former champion serves.

``python benchmarks/rollback.py PROJECT [--runs N]``: PROJECT has a champion and a previous version in its state folder
(a finished demo has); a copy of the state is used. It starts a worker on an embedded broker, sends five events a
second, and gives ``headrace rollback`` again and again: each goes back to the version before.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from functools import reduce
from itertools import islice
from pathlib import Path
from typing import Any

from core.processes import end, start_tied
from core.project import Project, load_project
from streaming.embedded import EmbeddedBroker
from streaming.kafka_client import KafkaBroker
from streaming.replay import read_source
from streaming.topics import ensure_topics
from streaming.transport import OutRecord, TopicPartition

PATIENCE_S = 300.0
EVERY_S = 0.2


def send_events(project: Project, stop: threading.Event) -> None:
    """Send recorded events under new ids, as if they happened now."""
    broker = KafkaBroker(str(project.bootstrap_servers), transactional=False)
    producer, settings = broker.producer(), project.settings
    events = list(islice((payload for _, kind, _, payload in read_source(project, 30) if kind == "event"), 1_000))
    number = 0
    while not stop.wait(EVERY_S):
        payload: dict[str, Any] = json.loads(json.dumps(events[number % len(events)]))
        *outer, name = settings.id.split(".")
        reduce(dict.__getitem__, outer, payload)[name] = f"now-{number}"
        key, value = f"now-{number}".encode(), json.dumps(payload).encode()
        producer.send(OutRecord(settings.events_topic, key, value, round(time.time() * 1000), 0))
        number += 1
    producer.close()


class Served(threading.Thread):
    """Notes when each champion version is seen first in the predictions topic since it was asked for."""

    def __init__(self, project: Project, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._project, self._stopped = project, stop
        self.latest: int | None = None
        self.seen_at: dict[int, float] = {}

    def run(self) -> None:
        consumer = KafkaBroker(str(self._project.bootstrap_servers), transactional=False).consumer("rollback-watch")
        consumer.assign({TopicPartition(self._project.settings.predictions_topic, 0): 0})
        while not self._stopped.is_set():
            for record in consumer.poll(50, 500):
                self.latest = json.loads(record.value or b"{}").get("champion_version")
                if self.latest is not None:
                    self.seen_at.setdefault(self.latest, time.monotonic())
        consumer.close()


def await_that(found: Any, what: str) -> None:
    """Wait until `found` says so."""
    until = time.monotonic() + PATIENCE_S
    while not found():
        if time.monotonic() > until:
            raise SystemExit(f"waited {PATIENCE_S:g} s for {what}")
        time.sleep(0.02)


def measure(project: Project, runs: int) -> list[dict[str, float]]:
    """Roll back `runs` times beside a worker that runs."""
    stop = threading.Event()
    environment = {**os.environ, "HEADRACE_STATE": str(project.state)}
    command = [sys.executable, "-m", "headrace"]
    with contextlib.ExitStack() as running:
        broker = running.enter_context(EmbeddedBroker(project.state))
        connected = project.with_broker(broker.bootstrap_servers)
        ensure_topics(KafkaBroker(str(connected.bootstrap_servers), transactional=False), project.settings)
        worker = start_tied(
            [*command, "worker", str(project.folder), "--bootstrap", str(connected.bootstrap_servers)],
            log=project.state / "rollback-worker.log",
            cwd=project.folder,
            environment={"HEADRACE_STATE": str(project.state)},
        )
        running.callback(end, worker, 60.0)
        running.callback(stop.set)
        served = Served(connected, stop)
        served.start()
        threading.Thread(target=send_events, args=(connected, stop), daemon=True).start()
        await_that(lambda: served.latest is not None, "the first event that a champion serves")
        return [roll_back(project, served, command, environment) for _ in range(runs)]


def roll_back(project: Project, served: Served, command: list[str], environment: dict[str, str]) -> dict[str, float]:
    before = served.latest
    served.seen_at.clear()
    await_that(lambda: before in served.seen_at, "events")
    served.seen_at.clear()
    began = time.monotonic()
    subprocess.run(
        [*command, "rollback", str(project.folder), "--why", "measured"],
        env=environment, check=True, capture_output=True,
    )  # fmt: skip
    ended = time.monotonic()
    await_that(lambda: set(served.seen_at) - {before}, "the former champion")
    first = min(at for version, at in served.seen_at.items() if version != before)
    return {"to_first_event_s": round(first - began, 2), "command_s": round(ended - began, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    loaded = load_project(given.project)
    with tempfile.TemporaryDirectory(prefix="headrace-rollback-") as folder:
        state = Path(folder, "state")
        shutil.copytree(loaded.state, state, ignore=shutil.ignore_patterns("prefect", "reports", "logs", "status"))
        took = measure(load_project(given.project, state=state), given.runs)
    times = [run["to_first_event_s"] for run in took]
    print(json.dumps({"runs": took, "median_s": statistics.median(times), "most_s": max(times)}, indent=2))


if __name__ == "__main__":
    main()
