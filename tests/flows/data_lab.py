"""Rows like those of the flights, with what honest data has: a season, bad weather that hides sensors, rare values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from core.batch_model import feature_frame
from core.durations import DAY, HOUR
from core.settings import Settings
from flows.checks.report import DataCheck, DataReport
from flows.checks.run import check_data
from flows.examples import Examples, LeftOut
from flows.splits import split_by_time

START = 1_356_998_400_000
KINDS = {
    "temp": "number",
    "rain": "number",
    "distance": "number",
    "delay": "number",
    "inbound": "bool",
    "carrier": "category",
    "tailnum": "category",
}


def settings(task: str = "binary", **changes: Any) -> Settings:
    content = {"name": "toy", "task": task, "id": "id", "time": "at", "fields": KINDS, "label": "late"}
    return Settings.model_validate({**content, **changes})


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows that a test changes before they are checked."""

    frame: pd.DataFrame
    outcomes: list[Any]
    event_time: Any
    settings: Settings
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def holdout(self) -> Any:
        """The latest week."""
        return self.event_time >= self.event_time.max() + 1 - 7 * DAY

    def given(self, **changes: Any) -> Rows:
        """Return the rows with other settings."""
        return replace(self, settings=settings(self.settings.task, **changes))

    def check(self, accepted: Any = ()) -> DataReport:
        clock = self.event_time + 3 * HOUR
        ids = pa.table({"id": [str(row) for row in range(len(self.frame))]})
        rows = Examples(ids, self.frame, self.outcomes, self.event_time, self.event_time, clock)
        split = split_by_time(self.event_time, clock, span=7 * DAY, after=None)
        return check_data(rows, split, self.left_out, self.settings, wait=3 * HOUR, accepted=accepted)

    def failed(self, **kwargs: Any) -> list[tuple[str, str | None]]:
        return [(check.name, check.feature) for check in self.check(**kwargs).checks if not check.passed]

    def only(self, name: str, feature: str | None) -> DataCheck:
        """Return the one check that failed, which must be this one."""
        (check,) = [check for check in self.check().checks if not check.passed]
        assert (check.name, check.feature) == (name, feature)
        return check


def flights_like(seed: int = 0, days: int = 120, rows: int = 24_000, task: str = "binary") -> Rows:
    """Make honest rows: the strongest feature alone has an AUC of about 0.75; temp moves by seasons and by weeks."""
    draw = np.random.default_rng(seed)
    event_time = START + np.sort(draw.integers(0, days * DAY, rows))
    day = (event_time - START) / DAY
    weather = np.repeat(draw.normal(size=days + 1), 1)[day.astype(int)]  # a day's weather is every flight's
    temp = 45.0 - 25.0 * np.cos(2 * np.pi * day / 365) + 6.0 * weather + 5.0 * draw.normal(size=rows)
    rain = np.where(weather > 1.0, np.round(draw.exponential(0.1, rows), 2), 0.0)
    delay, inbound = draw.normal(size=rows), draw.random(rows) < 0.3
    signal = 1.3 * delay + 0.5 * weather + 0.3 * inbound + draw.normal(scale=1.4, size=rows)
    cancelled = draw.random(rows) < 0.012 * np.exp(weather)
    late = (signal > 1.2) | cancelled
    hidden = draw.random(rows) < 0.002 + 0.02 * (weather > 1.5)  # a sensor fails in bad weather, and so do flights
    columns = {
        "temp": np.where(hidden, np.nan, temp),
        "rain": rain,
        "distance": draw.choice([200.0, 500.0, 760.0, 1100.0, 2475.0], rows),
        "delay": delay,
        "inbound": inbound,
        "carrier": draw.choice(["AA", "B6", "UA", "DL"], rows).astype(object),
        "tailnum": np.array([f"N{number}" for number in draw.integers(0, 3_000, rows)], dtype=object),
    }
    outcomes: list[Any] = late.astype(int).tolist()
    if task == "multiclass":
        outcomes = np.select([signal < -1, signal < 1], ["early", "on time"], "late").tolist()
    elif task == "regression":
        outcomes = signal.tolist()
    made = settings(task)
    return Rows(feature_frame(columns, made.batch_kinds), outcomes, event_time, made)
