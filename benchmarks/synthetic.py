"""A made stream, its project and a made champion, for the benchmarks: any size, the same for the same seed."""

from __future__ import annotations

import heapq
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from core.predictions import Features, Prediction
from core.project import Project, load_project
from streaming.ordering import CLOCK_HEADER
from streaming.transport import OutRecord

START = 1_700_000_000_000
STEP_MS = 1_000
HORIZON_MS = 3_600_000
BAD = (
    b"",
    b"{",
    b"[]",
    b'{"id": "n", "at": NaN}',
    b'{"id": "n", "at": 1e999}',
    b'{"id": "\\ud800", "at": 1}',
    b'{"id": "d", "id": "e", "at": 1}',
    b'{"id": "i", "at": ' + b"9" * 5_000 + b"}",
    b"[" * 50_000,
    b"\xff\xfe\x00",
    b'{"id": null, "at": 1}',
    b'{"id": "t", "at": "yesterday"}',
)


def write_project(folder: Path, name: str, inputs: str, partitions: int, **changes: Any) -> Project:
    """Write and load a project that reads ``<inputs>.events`` and ``<inputs>.labels``."""
    content: dict[str, Any] = {
        "name": name,
        "id": "id",
        "time": "at",
        "fields": {"x": "number", "z": "number", "kind": {"type": "category", "max_categories": 50}},
        "label": {"path": "y", "horizon": f"{HORIZON_MS // 60_000}m", "positive": 1, "negative": 0},
        "online": ["linear", "tree", "prior", "no_change"],
        "topics": {"events": f"{inputs}.events", "labels": f"{inputs}.labels", "partitions": partitions},
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "headrace.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_project(folder, state=folder / "state")


@dataclass
class Counts:
    """What a stream holds."""

    events: int = 0
    repeated: int = 0
    labels: int = 0
    bad: int = 0


def stream(inputs: str, events: int, seed: int, bad_share: float, counts: Counts) -> Iterator[OutRecord]:
    """Yield records in time order: events a second apart, labels late, early, twice, contradicting or never."""
    draw = random.Random(seed)
    waiting: list[tuple[int, int, OutRecord]] = []
    for number in range(events):
        now = START + number * STEP_MS
        while waiting and waiting[0][0] <= now:
            yield heapq.heappop(waiting)[2]
        if draw.random() < bad_share:
            topic = f"{inputs}.{draw.choice(['events', 'labels'])}"
            counts.bad += 1
            yield OutRecord(topic, b"bad-%d" % number, draw.choice(BAD), now)
        record, outcome = _event(inputs, number, now, events, draw)
        counts.events += 1
        yield record
        if draw.random() < 0.005:
            counts.repeated += 1
            heapq.heappush(waiting, (now + 5_000, counts.repeated, record_at(record, now + 5_000)))
        for at, label in _labels(inputs, record.key or b"", now, outcome, draw):
            counts.labels += 1
            heapq.heappush(waiting, (at, events + counts.labels, label))
    while waiting:
        yield heapq.heappop(waiting)[2]


def record_at(record: OutRecord, time_ms: int) -> OutRecord:
    """Return the same record at another time."""
    return OutRecord(record.topic, record.key, record.value, time_ms)


def clock_records(inputs: str, partitions: int, time_ms: int) -> list[OutRecord]:
    """Return what tells every partition that all before `time_ms` has come."""
    header = ((CLOCK_HEADER, b"1"),)
    topics = (f"{inputs}.events", f"{inputs}.labels")
    return [OutRecord(topic, b"clock", None, time_ms, part, header) for topic in topics for part in range(partitions)]


def _event(inputs: str, number: int, now: int, events: int, draw: random.Random) -> tuple[OutRecord, int]:
    x, z, kind = draw.gauss(0, 1), draw.gauss(0, 1), f"k{int(draw.expovariate(0.1))}"
    drifted = 1.0 if number < events / 2 else -1.0
    chance = 1.0 / (1.0 + math.exp(-(1.5 * x * drifted - z + (0.5 if kind < "k5" else -0.5))))
    key = f"e{number:09d}"
    value = json.dumps({"id": key, "at": now, "x": x, "z": z, "kind": kind}).encode()
    return OutRecord(f"{inputs}.events", key.encode(), value, now), int(draw.random() < chance)


def _labels(inputs: str, key: bytes, now: int, outcome: int, draw: random.Random) -> Iterator[tuple[int, OutRecord]]:
    fate = draw.random()
    if fate < 0.03:
        return
    delay = int(draw.expovariate(1 / 300_000))
    if fate < 0.05:
        delay = HORIZON_MS + 60_000
    times = [(now + delay, outcome)]
    if fate > 0.98:
        times.append((now + delay + 10_000, outcome))
    if fate > 0.995:
        times.append((now + delay + 20_000, 1 - outcome))
    for at, said in times:
        value = json.dumps({"id": key.decode(), "y": said}).encode()
        yield at, OutRecord(f"{inputs}.labels", key, value, at)


class MadeChampion:
    """A batch model that needs no training; bit-equal however its rows are batched."""

    version = 1

    def predict(self, rows: Sequence[Features]) -> list[Prediction]:
        """Return a chance a row."""
        return [1.0 / (1.0 + math.exp(float(row["z"] or 0.0) - float(row["x"] or 0.0))) for row in rows]
