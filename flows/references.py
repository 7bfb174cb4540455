"""The reference of a version: a digest-stamped sample of what it was trained on, for monitoring.

Two files under ``<state>/references``: ``<version>.parquet`` and ``<version>.json``. They are written
before the version is promoted, and never changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import StoreError
from core.settings import Settings
from core.tables import PREDICTIONS, ReadsTables, prediction_column
from flows.examples import Examples
from monitoring.calibration import Calibrations
from monitoring.volume import Volume, usual_volume

MAX_ROWS = 20_000


@dataclass(frozen=True)
class Validation:
    """What the hold-out says of the version.

    Attributes
    ----------
    loss : float
        The challenger's mean loss.
    served_loss : float or None
        That of the blend served with it; None where no online expert had predicted, as in ingested rows: what is served
        will be another blend.
    skill : float or None
        The challenger's (:func:`core.metrics.skill`).
    """

    loss: float
    served_loss: float | None
    skill: float | None


def write_reference(
    folder: Path,
    version: int,
    rows: Examples,
    *,
    validation: Validation,
    data_cut: int,
    table_version: int,
    calibrations: Calibrations,
    volume: Volume | None,
    seed: int,
) -> list[Path]:
    """Write both files of a version and return their paths; the same rows and seed give the same sample.

    Parameters
    ----------
    data_cut : int
        End of the data that the version was trained on, event time, ms.
    calibrations : dict
        What is usual for windows of these rows.
    volume : Volume or None
        How many events are usual.

    Raises
    ------
    StoreError
        If they cannot be written.
    """
    kept = reference_rows(rows, seed)
    data, about = folder / f"{version}.parquet", folder / f"{version}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = data.with_suffix(".part")
        pq.write_table(kept, part)
        digest = hashlib.sha256(part.read_bytes()).hexdigest()
        _put(part, data)
        content = {
            "version": version,
            "digest": digest,
            "rows": len(kept),
            "validation": asdict(validation),
            "data_cut": data_cut,
            "table_version": table_version,
            "trained_rows": len(rows),
            "calibrations": {stage: usual.to_json() for stage, usual in calibrations.items()},
            "volume": None if volume is None else volume.to_json(),
        }
        part.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
        _put(part, about)
    except (OSError, ValueError) as error:
        raise StoreError(f"reference of version {version} cannot be written to {folder}: {error}") from error
    return [data, about]


def reference_rows(rows: Examples, seed: int) -> pa.Table:
    """Return the sample of these rows that a reference holds."""
    return _columns(rows.table).take(pa.array(sample(len(rows), seed)))


def volume_of(tables: ReadsTables, rows: Examples, settings: Settings, until: int) -> Volume | None:
    """Return how many events are usual over the days of these rows; None where that cannot be told.

    The predictions are counted and not the rows: an event may never get a label, one in quarantine is not trained on,
    and the windows that are to be judged have neither left out.

    Parameters
    ----------
    until : int
        Stream time of the request, ms.

    Raises
    ------
    StoreError
        If the predictions cannot be read.
    """
    if not tables.exists(PREDICTIONS) or not len(rows):
        return None
    first, last, now = (
        datetime.fromtimestamp(moment / 1000, UTC) for moment in (rows.event_time[0], rows.event_time[-1], until)
    )
    where = [("event_time", ">=", first), ("event_time", "<=", last), ("clock", "<=", now)]
    predictions = tables.read(PREDICTIONS, columns=["event_time", "clock"], where=where)
    volume = usual_volume(predictions, settings)
    return None if volume is None else replace(volume, labelled=min(len(rows) / predictions.num_rows, 1.0))


def _put(part: Path, path: Path) -> None:
    """Rename durably: the promotion that comes next must not outlive its reference."""
    with part.open("rb") as written:
        os.fsync(written.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def sample(rows: int, seed: int, at_most: int = MAX_ROWS) -> list[int]:
    """Return at most `at_most` positions, ascending, the same for the same seed.

    Examples
    --------
    >>> sample(3, seed=1), len(sample(50_000, seed=1))
    ([0, 1, 2], 20000)
    """
    if rows <= at_most:
        return list(range(rows))
    chosen = np.random.default_rng(seed).choice(rows, size=at_most, replace=False)
    return sorted(int(position) for position in chosen)


def _columns(table: pa.Table) -> pa.Table:
    wanted = {prediction_column("served"), "label", "event_time"}
    return table.select([name for name in table.column_names if name.startswith("f_") or name in wanted])
