"""What a challenger costs: its fit, its size, and the time that a prediction takes."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass

import numpy as np

from core.batch_model import FittedModel
from core.model_files import pickled_bytes
from core.predictions import Features
from flows.examples import Examples

_BATCH = 256
_REPEATS = 5
_ENOUGH_S = 2.0


@dataclass(frozen=True)
class FitCost:
    """What the challenger's fit took: seconds, and kWh; None where that was not measured (:mod:`flows.energy`)."""

    seconds: float | None = None
    energy_kwh: float | None = None


UNMEASURED = FitCost()


@dataclass(frozen=True)
class Cost:
    """What the challenger takes.

    Attributes
    ----------
    fit_seconds, energy_kwh : float or None
        Of its fit; None where that was not measured.
    bytes : int or None
        Of the pickled pipeline; None where it cannot be pickled.
    prediction_us : float
        Microseconds a prediction takes, in batches of 256.
    call_ms : float
        Milliseconds that asking for one prediction takes.
    """

    fit_seconds: float | None
    energy_kwh: float | None
    bytes: int | None
    prediction_us: float
    call_ms: float


def cost_of(model: FittedModel, rows: Examples, fit: FitCost) -> Cost:
    """Measure what a model takes; nan where there are no rows to ask about."""
    return Cost(
        fit_seconds=fit.seconds,
        energy_kwh=fit.energy_kwh,
        bytes=pickled_bytes(model.pipeline),
        prediction_us=1000.0 * _milliseconds(model, rows, _BATCH) / _BATCH,
        call_ms=_milliseconds(model, rows, 1),
    )


def _milliseconds(model: FittedModel, rows: Examples, batch_rows: int) -> float:
    """Return what asking about so many rows of features takes, ms: the median of some calls, after a first one."""
    if not len(rows):
        return math.nan
    positions = np.arange(batch_rows) % len(rows)
    batch: list[Features] = rows.frame.iloc[positions].to_dict("records")  # type: ignore[assignment]
    times: list[float] = []
    began = time.perf_counter()
    while len(times) <= _REPEATS and (len(times) < 2 or time.perf_counter() - began < _ENOUGH_S):
        begin = time.perf_counter()
        model.predict(batch)
        times.append(time.perf_counter() - begin)
    return 1000.0 * statistics.median(times[1:])
