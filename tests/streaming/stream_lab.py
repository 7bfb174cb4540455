"""Small projects, raw records and a canonical digest of a partition's state."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from core.features import load_features
from core.predictions import Features, Prediction
from core.project import Project, load_project
from streaming.experts import build_experts
from streaming.machine import Machine
from streaming.state import State
from streaming.transport import OutRecord, RawRecord

START = 1_700_000_000_000
MINUTE = 60_000
TASKS = ("binary", "multiclass", "regression")
EVENTS, LABELS = "small.events", "small.labels"


def make_project(folder: Path, task: str = "binary", code: str | None = None, **changes: Any) -> Project:
    """Write and load a project; `code` becomes its code.py."""
    content: dict[str, Any] = {
        "name": "small",
        "task": task,
        "id": "id",
        "time": "at",
        "fields": {"x": "number", "z": "number", "c": {"type": "category", "max_categories": 4}},
        "label": {"path": "y", "horizon": "1h"},
        "online": ["linear", "prior"],
    }
    if task == "binary":
        content["label"] |= {"positive": 1, "negative": 0}
    content["label"] |= changes.pop("label", {})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "headrace.yaml").write_text(yaml.safe_dump({**content, **changes}))
    if code is not None:
        (folder / "code.py").write_text(code)
    return load_project(folder, state=folder / "state")


def make_machine(project: Project) -> Machine:
    return Machine(project.settings, load_features(project), State.fresh(project.settings, build_experts(project)))


def outputs_of(machine: Machine, records: Iterable[RawRecord], kind: type) -> list[Any]:
    """Step through records; return what follows of one kind."""
    return [output for output in machine.process(list(records)) if isinstance(output, kind)]


def event(offset: int, event_id: str, time: int, *, stamp: int | None = None, **fields: Any) -> RawRecord:
    value = {"id": event_id, "at": time, "x": 0.5, "z": -1.0, "c": "a", **fields}
    return raw(EVENTS, offset, time if stamp is None else stamp, value)


def label(offset: int, event_id: str, stamp: int, outcome: Any) -> RawRecord:
    return raw(LABELS, offset, stamp, {"id": event_id, "y": outcome})


def raw(topic: str, offset: int, stamp: int, value: Any, partition: int = 0) -> RawRecord:
    content = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    return RawRecord(topic, partition, offset, stamp, b"k", content)


def outcome_of(task: str, x: float, z: float) -> Any:
    """What the easy stream's label follows from."""
    if task == "regression":
        return 10.0 + 3.0 * x - 2.0 * z
    if task == "binary":
        return int(x > z)
    return "low" if x < -0.4 else "high" if x > 0.4 else "mid"


def easy_stream(task: str, count: int, seed: int = 0, delay: int = 3) -> list[OutRecord]:
    """Events a minute apart, each labelled `delay` minutes later, in the order of their times."""
    draw = random.Random(seed)
    records = []
    for number in range(count):
        x, z, time = round(draw.uniform(-1, 1), 6), round(draw.uniform(-1, 1), 6), START + number * MINUTE
        key = f"e{number}".encode()
        value = {"id": f"e{number}", "at": time, "x": x, "z": z, "c": draw.choice("abcdef")}
        records.append(OutRecord(EVENTS, key, json.dumps(value).encode(), time))
        outcome = {"id": f"e{number}", "y": outcome_of(task, x, z)}
        records.append(OutRecord(LABELS, key, json.dumps(outcome).encode(), time + delay * MINUTE))
    return sorted(records, key=lambda record: (record.timestamp, record.topic))


def as_raw(records: Iterable[OutRecord]) -> list[RawRecord]:
    """The records of one partition as they would be read, in the given order."""
    offsets: dict[str, int] = {}
    found = []
    for record in records:
        offset = offsets.get(record.topic, 0)
        offsets[record.topic] = offset + 1
        found.append(
            RawRecord(record.topic, 0, offset, record.timestamp or 0, record.key, record.value, record.headers)
        )
    return found


class FakeChampion:
    """A batch model that answers each row by a function."""

    def __init__(self, version: int = 1, answer: Any = lambda row: 0.5) -> None:
        self.version = version
        self.rows = 0
        self._answer = answer

    def predict(self, rows: Sequence[Features]) -> list[Prediction]:
        self.rows += len(rows)
        return [self._answer(row) for row in rows]


def digest(state: object) -> str:
    """Equal for states that go on equally; pickles of equal states differ, this does not."""
    return hashlib.sha256(repr(canonical(state, set())).encode()).hexdigest()


def canonical(value: Any, path: set[int]) -> Any:  # noqa: PLR0911
    if value is None or isinstance(value, (bool, int, str, bytes)):
        return value
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, np.ndarray):
        return ("array", value.shape, value.dtype.str, value.tobytes())
    if id(value) in path:
        return "loop"
    path = path | {id(value)}
    if isinstance(value, (set, frozenset)):
        return ("set", sorted(repr(canonical(item, path)) for item in value))
    if type(value) in (list, tuple):
        return [canonical(item, path) for item in value]
    if type(value) is dict:
        return [(canonical(key, path), canonical(item, path)) for key, item in value.items()]
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return f"{value.__module__}.{value.__qualname__}"
    if type(value).__module__.startswith("river.proba"):  # holds an unseeded generator that is never drawn from
        return [type(value).__qualname__, canonical({k: v for k, v in vars(value).items() if k != "_rng"}, path)]
    parts = value.__reduce_ex__(4)
    if isinstance(parts, str):
        return parts
    return [type(value).__qualname__, *(canonical(list(p) if i > 2 and p else p, path) for i, p in enumerate(parts))]
