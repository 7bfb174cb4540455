"""A small project whose tables, references and worker status are made up, without a stream."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.audit import Ledger, LedgerRecord
from core.durations import DAY, HOUR
from core.project import Project, load_project
from core.status import write_status
from core.store import TableStore
from core.tables import EXAMPLES, PREDICTIONS, examples_schema, predictions_schema

START = 1_356_998_400_000  # 2013-01-01
ROWS = 80

PROJECT = """
name: small
id: id
time: t
fields: {speed: number, colour: category, wet: bool}
label: {path: y, horizon: 6h}
online: [linear, prior]
windows: {span: 1d, sample: 400}
drift:
  {feature_threshold: 0.25, prediction_threshold: 0.2, label_threshold: 0.2, quality_drop: 0.1, min_rows: 30,
   cooldown: 3d, persistence: 2, of_windows: 3}
retrain: {bootstrap_after: 2d, min_examples: 100, every: 30d}
"""


@dataclass
class Lab:
    """Everything a monitor reads, and what it may write."""

    project: Project
    ledger: Ledger
    store: TableStore
    sent: list[LedgerRecord] = field(default_factory=list)
    written: int = 0

    def fill(self, days: range, *, shift: float = 0.0, champion: int | None = None, wrong: bool = False) -> None:
        """Append the events and labels of some days; `shift` moves features, `wrong` the predictions."""
        for day in days:
            self.append(day_rows(day, shift=shift, champion=champion, wrong=wrong))

    def append(self, *days: list[dict[str, object]]) -> None:
        """Append events and labels, a batch a day."""
        for rows in days:
            self.written += 1
            kinds = ((PREDICTIONS, predictions_schema), (EXAMPLES, examples_schema))
            for table, schema in kinds:
                content = pa.Table.from_pylist(rows, schema=schema(self.project.settings))
                self.store.append(table, content, app="worker-0", sequence=self.written)

    def reach(self, moment: int) -> None:
        """Let the worker say that the stream is at `moment`, ms."""
        partition = {"first_event": START + HOUR, "clock": moment, "flushed_through": moment}
        write_status(self.project.status, "worker", {"state": "running", "partitions": {"0": partition}})

    def promote(self, version: int, effective_at: int | None) -> None:
        body = {"version": version, "effective_at": effective_at}
        self.ledger.record("promotion", f"v{version}", event_time=effective_at, body=body)

    def reference(self, version: int, *, loss: float = 0.7, served: float | None = None) -> Path:
        """Write the reference of a version: what the stream looks like without a shift."""
        rows = [row for day in range(5) for row in day_rows(day, seed=100)]
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=examples_schema(self.project.settings)), buffer)
        folder = self.project.state / "references"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{version}.parquet"
        path.write_bytes(buffer.getvalue())
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        stamp = {
            "version": version,
            "digest": digest,
            "rows": len(rows),
            "validation": {"loss": loss, "served_loss": served},
        }
        (folder / f"{version}.json").write_text(json.dumps(stamp))
        return path


def day_rows(
    day: int, *, shift: float = 0.0, champion: int | None = None, wrong: bool = False, seed: int = 0
) -> list[dict[str, object]]:
    random = np.random.default_rng(seed + day)
    chances = random.uniform(0.05, 0.95, ROWS)
    rows = []
    for number, chance in enumerate(chances.tolist()):
        moment = START + day * DAY + HOUR + number * (DAY - 2 * HOUR) // ROWS
        served = 1 - chance if wrong else chance
        rows.append(
            {
                "id": f"{seed}-{day}-{number}",
                "event_time": moment * 1000,
                "clock": moment * 1000,
                "partition": 0,
                "offset": day * ROWS + number,
                "champion_version": champion,
                "f_speed": float(random.normal(shift)),
                "f_colour": "red" if random.uniform() < 0.5 - shift / 10 else "blue",
                "f_wet": bool(random.uniform() < 0.3 + shift / 10),
                "p_served": served,
                "p_champion": served if champion is not None else None,
                "p_linear": chance,
                "p_prior": 0.5,
                "label": int(random.uniform() < chance),
                "label_time": (moment + HOUR) * 1000,
                "label_clock": (moment + HOUR) * 1000,
                "implied": False,
            }
        )
    return rows


def open_lab(folder: Path) -> Lab:
    """Return the project's lab below a folder, empty but for the project file."""
    (folder / "headrace.yaml").write_text(PROJECT)
    project = load_project(folder, state=folder / "state")
    return Lab(project, Ledger(project.ledger), TableStore(project.tables))
