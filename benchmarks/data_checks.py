"""The checks of a retraining's data on the flights of 2013: what they find in them, and in rows with something planted.

``python benchmarks/data_checks.py --json out.json``

Rows known at the fifth of each month are checked as a retraining then would check them, with a hold-out of seven days;
then with a leak (the tail number), a label written into a feature, units that change in the hold-out or in its latest
days, a value that stands still there, a feature that is gone from there, and one that never varies (which is no fault).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from core.batch_model import feature_frame
from core.project import load_project
from core.settings import Settings
from flows.checks.run import check_data
from flows.examples import Examples, LeftOut, only_mature
from flows.splits import split_by_time

FLIGHTS = Path(__file__).resolve().parent.parent / "examples" / "flights"
Plant = Callable[[pd.DataFrame, Any, Any], None]


def nothing(frame: pd.DataFrame, holdout: Any, labels: Any) -> None:
    """Leave the rows as they are."""


def leaked_label(frame: pd.DataFrame, holdout: Any, labels: Any) -> None:
    frame["duration"] = 30.0 * labels + np.random.default_rng(0).normal(scale=5.0, size=len(frame))


def celsius(frame: pd.DataFrame, holdout: Any, labels: Any) -> None:
    frame.loc[holdout, "temp"] = (frame.loc[holdout, "temp"] - 32.0) / 1.8


def celsius_lately(frame: pd.DataFrame, holdout: Any, labels: Any) -> None:
    late = np.flatnonzero(holdout)[-int(0.4 * holdout.sum()) :]
    frame.loc[late, "temp"] = (frame.loc[late, "temp"] - 32.0) / 1.8


def hours(frame: pd.DataFrame, holdout: Any, labels: Any) -> None:
    frame.loc[holdout, "duration"] /= 60.0


def metres_a_second(frame: pd.DataFrame, holdout: Any, labels: Any) -> None:
    frame.loc[holdout, "wind_speed"] /= 2.23694


def kilometres(frame: pd.DataFrame, holdout: Any, labels: Any) -> None:
    frame.loc[holdout, "distance"] *= 1.609344


def stands_still(frame: pd.DataFrame, holdout: Any, labels: Any) -> None:
    frame.loc[holdout, "origin"] = "JFK"


def gone(frame: pd.DataFrame, holdout: Any, labels: Any) -> None:
    frame.loc[holdout, "wind_gust"] = np.nan


def constant(frame: pd.DataFrame, holdout: Any, labels: Any) -> None:
    frame["visib"] = 10.0


PLANTS: dict[str, tuple[Plant, tuple[str, str] | None]] = {
    "nothing": (nothing, None),
    "tail number": (nothing, ("absence", "tailnum")),
    "leaked label": (leaked_label, ("leak", "duration")),
    "Fahrenheit to Celsius": (celsius, ("shift", "temp")),
    "Fahrenheit to Celsius, its latest 40 %": (celsius_lately, ("shift", "temp")),
    "minutes to hours": (hours, ("shift", "duration")),
    "miles an hour to metres a second": (metres_a_second, ("shift", "wind_speed")),
    "miles to kilometres": (kilometres, ("shift", "distance")),
    "stands still": (stands_still, ("constant", "origin")),
    "gone": (gone, ("missing", "wind_gust")),
    "constant": (constant, ("constant", "visib")),
}


def flights(settings: Settings) -> Examples:
    spec = importlib.util.spec_from_file_location("flights_stream", FLIGHTS / "stream.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = module.load().dropna(subset=["known_at"])
    rows["duration"], rows["departure"] = rows["scheduled_minutes"], rows["local"]
    rows["weekday"] = pd.to_datetime(rows["date"]).dt.weekday
    kinds = settings.batch_kinds
    columns = {name: rows[name].astype(object).where(rows[name].notna(), None).tolist() for name in kinds}
    times, clocks = (
        rows[name].astype("datetime64[ms, UTC]").astype("int64").to_numpy() for name in ("departs", "known_at")
    )
    ids = pa.table({"id": [str(row) for row in range(len(rows))]})
    return Examples(ids, feature_frame(columns, kinds), rows["late"].astype(int).tolist(), times, times, clocks)


def checked(
    rows: Examples, until: int, settings: Settings, plant: Plant
) -> tuple[list[tuple[str, str | None]], float, int]:
    """Return what failed, the seconds of processor time, and how many rows there were."""
    known = rows.take(rows.label_clock <= until)
    known, left_out, wait = only_mature(known, LeftOut(), settings, until)
    split = split_by_time(known.event_time, known.label_clock, span=settings.batch.holdout, after=None)
    frame = known.frame.copy()
    plant(frame, known.event_time >= split.start, np.array(known.outcomes))
    began = time.process_time()
    report = check_data(replace(known, frame=frame), split, left_out, settings, wait=wait)
    seconds = time.process_time() - began
    return [(check.name, check.feature) for check in report.checks if not check.passed], seconds, len(known)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(PLANTS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as state:
        settings = load_project(FLIGHTS, state=Path(state)).settings
    assert settings.features is not None
    outputs = {**settings.features.outputs, "tailnum": "category"}
    leaking = settings.model_copy(update={"features": settings.features.model_copy(update={"outputs": outputs})})
    whole = flights(leaking)
    plain = replace(whole, frame=whole.frame.drop(columns="tailnum"))
    ends = [
        int(datetime(2013 + month // 12, month % 12 + 1, 5, tzinfo=UTC).timestamp() * 1000) for month in range(1, 13)
    ]
    result: dict[str, Any] = {}
    for name in arguments.only:
        plant, wanted = PLANTS[name]
        rows, given = (whole, leaking) if name == "tail number" else (plain, settings)
        runs = [checked(rows, end, given, plant) for end in ends]
        result[name] = {
            "found": sum(wanted in failed for failed, _, _ in runs),
            "of": len(runs),
            "else": [one for failed, _, _ in runs for one in failed if one != wanted],
            "last": {"rows": runs[-1][2], "seconds": round(runs[-1][1], 2)},
        }
        print(name, json.dumps(result[name]), flush=True)
    arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
