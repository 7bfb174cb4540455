"""A small project, and every service of the loop as a thread of one process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from core.audit import Ledger
from core.project import Project, load_project
from core.registry import Registry
from core.store import TableStore
from flows.execution import execute
from flows.lease import take
from flows.shadowing import Shadowing
from flows.training import Retraining
from monitoring.monitor import Monitor
from streaming.books import Books
from streaming.champion import ChampionWatcher
from streaming.lockstep import LockstepPace
from streaming.replay import publish, read_source
from streaming.topics import ensure_topics
from streaming.transport import Broker
from streaming.worker import Worker

_SOURCE = """
import random

MINUTE = 60_000
START = 1_700_006_400_000
TASK = "{task}"


def outcome(x, hub, turned, noise):
    signal = (-x if turned else x) + {{"a": 0.0, "b": 0.8, "c": -0.8}}[hub] + noise
    if TASK == "binary":
        return 1 if signal > 0 else 0
    if TASK == "multiclass":
        return "low" if signal < -0.5 else "high" if signal > 0.5 else "mid"
    return 10.0 * signal + 50.0


def stream():
    draw = random.Random(7)
    items = []
    for number in range({events}):
        time = START + number * 2 * MINUTE
        turned = number >= {turns_at}
        x, hub = draw.gauss(1.5 if turned else 0.0, 1.0), draw.choice("abc")
        payload = {{"id": f"e{{number}}", "at": time, "x": x, "where": {{"hub": hub}}}}
        items.append((time, "event", f"e{{number}}", payload))
        known = time + draw.randint(10, 90) * MINUTE
        y = outcome(x, hub, turned, draw.gauss(0, 0.3))
        y = 1 - y if number in range{flipped} else y
        items.append((known, "label", f"e{{number}}", {{"id": f"e{{number}}", "y": y}}))
    items.sort(key=lambda item: item[0])
    yield from items
"""


def make_loop_project(
    folder: Path,
    task: str,
    *,
    events: int = 1_800,
    turns_at: int = 10**9,
    flipped: tuple[int, int] = (0, 0),
    **more: Any,
) -> Project:
    """A stream of one event every two minutes, labels up to 90 minutes later, windows of six hours.

    Labels of the events from `flipped[0]` on, and before `flipped[1]`, are the wrong way round.
    """
    content: dict[str, Any] = {
        "name": f"loop-{task}",
        "task": task,
        "id": "id",
        "time": "at",
        "fields": {"x": "number", "hub": {"type": "category", "path": "where.hub"}},
        "label": {"path": "y", "horizon": "2h"},
        "online": ["linear", "tree", "no_change", "prior"],
        "windows": {"span": "6h"},
        "drift": {"min_rows": 50, "cooldown": "6h", "persistence": 1, "of_windows": 1},
        "retrain": {"bootstrap_after": "12h", "every": None, "duration": "30m", "min_examples": 100},
        "batch": {"trials": 1, "candidates": ["linear"], "holdout": "4h"},
        "gates": {"max_relative_loss": 1.5, "max_latency_ms": 1000, "max_call_ms": 10_000, "min_holdout_rows": 50},
        "replay": {"source": "source.py:stream"},
    }
    if task == "binary":
        content["label"] |= {"positive": 1, "negative": 0}
    folder.mkdir(parents=True)
    (folder / "headrace.yaml").write_text(yaml.safe_dump({**content, **more}))
    (folder / "source.py").write_text(_SOURCE.format(task=task, events=events, turns_at=turns_at, flipped=flipped))
    return load_project(folder, state=folder / "state")


class Loop:
    """Worker, monitor and retrainings of one project in threads; the replay in the caller's, in lockstep."""

    def __init__(self, project: Project, broker: Broker, *, champion_poll_s: float = 0.1) -> None:
        self._champion_poll_s = champion_poll_s
        self.project = project
        self.broker = broker
        self.books = Books()
        self.failures: list[BaseException] = []
        self._stop = threading.Event()
        self._shadowing = Shadowing(project, Ledger(project.ledger), TableStore(project.tables))

    def replay(self) -> Books:
        """Replay the whole stream, end everything, and return the books."""
        _, partitions = ensure_topics(self.broker, self.project.settings)
        self._shadowing.announce()
        with self._threads(self._work, self._monitor, self._shadow, self._retrain):
            producer = self.broker.producer()
            pace = LockstepPace(self.project, Ledger(self.project.ledger), self._stop, timeout_s=300.0)
            publish(read_source(self.project, None), self.project.settings, producer, partitions, pace, self._stop)
            producer.close()
        if self.failures:
            raise self.failures[0]
        return self.books

    @contextlib.contextmanager
    def _threads(self, *services: Any) -> Iterator[None]:
        threads = [threading.Thread(target=self._guard, args=(service,), daemon=True) for service in services]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(timeout=60.0)

    def _guard(self, service: Any) -> None:
        try:
            service()
        except BaseException as error:  # noqa: BLE001  raised again in the caller's thread
            self.failures.append(error)
            self._stop.set()

    def _work(self) -> None:
        watcher = ChampionWatcher(lambda: Registry(self.project), poll_s=self._champion_poll_s)
        self.books = Worker(self.project, self.broker, watcher, lockstep=True).run(self._stop)

    def _monitor(self) -> None:
        ledger = Ledger(self.project.ledger)
        sent: list[Any] = []
        Monitor(self.project, ledger, TableStore(self.project.tables), send_alert=sent.append).run(self._stop, 0.02)

    def _shadow(self) -> None:
        self._shadowing.run(self._stop, 0.02)

    def _retrain(self) -> None:
        ledger = Ledger(self.project.ledger)
        while not self._stop.wait(0.05):
            for request in ledger.open_requests():
                lease = take(ledger, request.id, None) if self._shadowing.has_judged(request) else None
                if lease is not None:
                    execute(Retraining(self.project, lease, TableStore(self.project.tables)))
