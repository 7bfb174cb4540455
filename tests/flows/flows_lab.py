"""Synthetic projects with an examples table, for each task."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from core.audit import Ledger, RetrainRequest
from core.durations import DAY, HOUR
from core.errors import HeadraceError
from core.model_versions import ModelVersion
from core.project import Project, load_project
from core.registry import Registry
from core.store import TableStore
from core.tables import EXAMPLES, examples_schema
from flows.apart import Answer, Ask
from flows.execution import execute
from flows.lease import take
from flows.training import Retraining

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

START = 1_700_000_000_000
DAYS = 40

HEAD = """
name: {name}
task: {task}
id: id
time: at
fields: {{n0: number, n1: number, n2: number, flag: bool, hub: category, note: text}}
label: {{path: y, horizon: 2d}}
online: [linear, prior]
retrain: {{min_examples: 300}}
promotion: {{shadow: false}}
"""
BATCH = "batch: {trials: 1, candidates: [linear]}\n"


def write_project(folder: Path, task: str, extra: str = BATCH) -> Project:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "headrace.yaml").write_text(HEAD.format(name=f"toy-{task}", task=task) + extra, encoding="utf-8")
    return load_project(folder, state=folder / "state")


def examples(project: Project, rows: int = 2_000, seed: int = 0, start: int = START, days: int = DAYS) -> pa.Table:
    """Rows in the form of the examples table; the label follows from n0, flag and hub."""
    draw, settings = np.random.default_rng(seed), project.settings
    n0, n1 = draw.normal(size=rows), draw.normal(size=rows)
    flag, hub = draw.random(rows) < 0.3, draw.integers(0, 12, rows)
    signal = 1.5 * n0 + flag - 0.2 * hub + draw.normal(scale=0.7, size=rows)
    events = start + np.sort(draw.integers(0, days * DAY, rows))
    clocks = events + draw.integers(HOUR, 6 * HOUR, rows)
    columns: dict[str, list[Any]] = {
        "id": [f"{start}-{row}" for row in range(rows)],
        "f_n0": n0.tolist(),
        "f_n1": [None if gap else value for gap, value in zip(draw.random(rows) < 0.1, n1.tolist(), strict=True)],
        "f_n2": draw.normal(size=rows).tolist(),
        "f_flag": flag.tolist(),
        "f_hub": [None if value == 11 else f"h{value}" for value in hub],
        "f_note": ["x"] * rows,
        "event_time": stamps(events),
        "clock": stamps(events),
        "label_time": stamps(clocks),
        "label_clock": stamps(clocks),
        "implied": [False] * rows,
    }
    columns |= _outcomes(settings.task, signal, draw)
    schema = examples_schema(settings)
    filled = {field.name: columns.get(field.name, [None] * rows) for field in schema}
    return pa.table(filled, schema=schema)


def stamps(times: Any) -> list[datetime]:
    return [datetime.fromtimestamp(int(time) / 1000, UTC) for time in times]


def _outcomes(task: str, signal: Any, draw: Any) -> dict[str, list[Any]]:
    if task == "regression":
        weak = (signal * 0.5).tolist()
        middle = [float(np.median(signal))] * len(signal)
        return {"label": signal.tolist(), "p_linear": weak, "p_prior": middle, "p_served": weak}
    if task == "binary":
        label = (signal > 0).astype(int).tolist()
        weak = np.clip(0.5 + 0.1 * signal, 0.05, 0.95).tolist()
        rate = [float(np.mean(label))] * len(signal)
        return {"label": label, "p_linear": weak, "p_prior": rate, "p_served": weak}
    label = np.select([signal < -1, signal < 0.5], ["low", "mid"], "high").tolist()
    flat = [{"low": 0.3, "mid": 0.4, "high": 0.3}] * len(signal)
    hint = [{name: 0.5 if name == true else 0.25 for name in ("low", "mid", "high")} for true in label]
    return {"label": label, "p_linear": hint, "p_prior": flat, "p_served": hint}


@cache
def empty_registry() -> bytes:
    """An MLflow database without models: making one takes seconds, so it is made once."""
    with tempfile.TemporaryDirectory() as folder:
        Registry(write_project(Path(folder), "binary"))
        with closing(sqlite3.connect(Path(folder) / "state" / "mlflow.sqlite")) as made:
            return made.serialize()


@dataclass
class Toy:
    """A project with a filled examples table."""

    project: Project
    store: TableStore
    ledger: Ledger
    table: pa.Table

    @property
    def now(self) -> int:
        """Stream time right after the last label, ms."""
        return int(max(self.table["label_clock"].to_pylist()).timestamp() * 1000) + 1

    def append(self, table: pa.Table) -> None:
        self.table = table
        self.store.append(EXAMPLES, table, app="test", sequence=(self.store.version(EXAMPLES) or 0) + 2)

    def request(self, request_id: str = "r1", trigger: str = "bootstrap") -> RetrainRequest:
        made = RetrainRequest(request_id, trigger, self.now, self.now + HOUR)
        assert self.ledger.request_retrain(made)
        return made

    def retrain(self, request_id: str = "r1", trigger: str = "bootstrap", **kwargs: Any) -> dict[str, Any]:
        self.request(request_id, trigger)
        lease = take(self.ledger, request_id, None)
        assert lease is not None
        return execute(Retraining(self.project, lease, self.store, **{"apart": in_this_process, **kwargs}))

    def bodies(self, kind: Any) -> list[dict[str, Any]]:
        return [record.body for record in self.ledger.history(kind)]


@contextmanager
def in_this_process(project: Project) -> Iterator[Ask]:
    """Answer as the process would that a flow starts for it, some seconds sooner; test_refusals has the real one."""

    def ask(version: ModelVersion, frame: Any) -> Answer:
        try:
            return list(Registry(project).load(version.version, digest=version.tags["digest"]).predict_frame(frame)), ""
        except HeadraceError as error:
            return None, str(error)

    yield ask


def make_toy(folder: Path, task: str = "binary", rows: int = 2_000, extra: str = BATCH) -> Toy:
    project = write_project(folder, task, extra)
    store, table = TableStore(project.tables), examples(project, rows)
    store.append(EXAMPLES, table, app="test", sequence=1)
    (project.state / "mlflow.sqlite").write_bytes(empty_registry())
    return Toy(project, store, Ledger(project.ledger), table)


def later(project: Project, rows: int = 800, seed: int = 7) -> pa.Table:
    """The ten days after those of `examples`."""
    return examples(project, rows, seed, start=START + DAYS * DAY, days=10)
