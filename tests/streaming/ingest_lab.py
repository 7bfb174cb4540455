"""A history in every form that can be ingested, and the same as a stream that a worker's machine has seen."""

from __future__ import annotations

import gzip
import json
import random
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from stream_lab import EVENTS, LABELS, MINUTE, START, as_raw, make_machine, make_project

from core.durations import format_time
from core.project import Project
from core.store import TableStore
from core.tables import CORRECTIONS, EXAMPLES, PREDICTIONS
from core.tables import EVENTS as KEPT
from streaming.ingest import ingest
from streaming.ingest_tally import Ingested
from streaming.table_writer import TableWriter
from streaming.transport import OutRecord

TABLES = (PREDICTIONS, EXAMPLES, CORRECTIONS, KEPT)
CODE = """
def features(fields, time):
    return {"x2": None if fields["x"] is None else 2 * fields["x"], "c": fields["c"], "hour": time // 3_600_000 % 24}
"""
FEATURES = {"function": "code.py:features", "outputs": {"x2": "number", "c": "category", "hour": "number"}}
HISTORY = {"past": {"file": "past.csv", "label_time": "known"}}


def history_rows(count: int = 400, seed: int = 0) -> list[dict[str, Any]]:
    """Rows out of order: some without a label, some with gaps, some labelled too late, one event twice."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        at = START + number * MINUTE + draw.randrange(3) * 1_000
        delay = draw.choice([3, 10, 50, 61]) * MINUTE + draw.randrange(1_000)
        x, z = round(draw.uniform(-1, 1), 17), round(draw.gauss(0, 1), 6)
        rows.append(
            {
                "id": f"e{number}",
                "at": format_time(at),
                "x": None if draw.random() < 0.1 else x,
                "z": z,
                "c": draw.choice("abcdefg"),
                "y": None if draw.random() < 0.1 else int(x > z),
                "known": format_time(at + delay),
            }
        )
    rows.append({**rows[7], "y": 1 - (rows[7]["y"] or 0), "known": rows[9]["known"]})
    draw.shuffle(rows)
    return rows


def project_with(folder: Path, history: dict[str, Any] | None = None, **changes: Any) -> Project:
    changes = {
        "features": FEATURES,
        "state": {"kept_events": 5},
        "history": HISTORY if history is None else history,
        **changes,
    }
    return make_project(folder, code=CODE, **changes)


def frame_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series([row[name] for row in rows], dtype=object) for name in rows[0]})


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    text = frame_of(rows).to_csv(index=False)
    path.write_bytes(gzip.compress(text.encode())) if path.suffix == ".gz" else path.write_text(text)


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(rows)
    for name in ("at", "known"):
        times = pd.to_datetime(pd.Series(table[name].to_pylist()), utc=True, format="ISO8601")
        table = table.set_column(table.column_names.index(name), name, pa.array(times))
    path.parent.mkdir(parents=True, exist_ok=True)
    pa.parquet.write_table(table, path, row_group_size=50)


def write_sqlite(path: Path, rows: list[dict[str, Any]]) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE payments (id TEXT, at TEXT, x REAL, z REAL, c TEXT, y INTEGER, known TEXT)")
        names = ", ".join(f":{name}" for name in rows[0])
        database.executemany(f"INSERT INTO payments VALUES ({names})", rows)
    database.close()


def run(project: Project, name: str = "past") -> Ingested:
    done = ingest(project, name, lambda *_: None, threading.Event())
    assert done is not None
    return done


def read_rows(project: Project, table: str) -> list[dict[str, Any]]:
    store = TableStore(project.tables)
    return store.read(table).to_pylist() if store.exists(table) else []


def streamed(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> dict[str, list[dict[str, Any]]]:
    """What a worker writes when the same comes as messages, each at its own time."""
    project = project_with(folder, **changes)
    records = []
    for row in rows:
        event = {name: row[name] for name in ("id", "at", "x", "z", "c")}
        records.append(_record(EVENTS, row["at"], event))
        if row["y"] is not None:
            records.append(_record(LABELS, row["known"], {"id": row["id"], "y": row["y"]}))
    ordered = sorted(records, key=lambda record: (record.timestamp, record.topic))
    machine, store = make_machine(project), TableStore(project.tables)
    writer = TableWriter(store, project.settings, 0)
    writer.add(machine.process(as_raw(ordered)))
    writer.flush(machine.state.step)
    return {table: read_rows(project, table) for table in TABLES}


def _record(topic: str, time: str, content: dict[str, Any]) -> OutRecord:
    stamp = int(pd.Timestamp(time).timestamp() * 1000 + 0.5)
    return OutRecord(topic, content["id"].encode(), json.dumps(content).encode(), stamp)
