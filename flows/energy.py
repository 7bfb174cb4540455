"""Seconds of a stretch of work, and its energy where codecarbon is installed. The only codecarbon import.

It is no dependency: ``pip install codecarbon`` beside headrace, and evaluations have ``energy_kwh``. The offline
tracker is used, which asks nobody where this machine is. What fails in it leaves the energy unknown.
"""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Any, Self

_log = logging.getLogger("headrace.retrain")


class Meter:
    """Measures what is done in its ``with``.

    Attributes
    ----------
    seconds : float or None
        Wall clock, s; None before it ended.
    energy_kwh : float or None
        Of the whole machine, kWh; None where codecarbon is not installed, or could not tell.

    Examples
    --------
    >>> meter = Meter()
    >>> with meter:
    ...     _ = sum(range(1000))
    >>> meter.seconds > 0.0
    True
    """

    def __init__(self) -> None:
        self.seconds: float | None = None
        self.energy_kwh: float | None = None
        self._tracker: Any = None
        self._began = 0.0

    def __enter__(self) -> Self:
        self._tracker = _started()
        self._began = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._began
        self.energy_kwh = _energy_of(self._tracker)


def _started() -> Any:
    """Return a tracker that runs; None where there is none."""
    try:
        from codecarbon import OfflineEmissionsTracker
    except ImportError:
        return None
    try:  # the country decides on emissions, which are not asked for
        tracker = OfflineEmissionsTracker(country_iso_code="USA", save_to_file=False, log_level="critical")
        tracker.start()
    except Exception as error:  # noqa: BLE001  it reads sensors of all kinds, and may raise what these raise
        _log.warning("codecarbon does not start: %s: %s", type(error).__name__, error)
        return None
    return tracker


def _energy_of(tracker: Any) -> float | None:
    if tracker is None:
        return None
    try:
        tracker.stop()
        return float(tracker.final_emissions_data.energy_consumed)
    except Exception as error:  # noqa: BLE001  as above
        _log.warning("codecarbon cannot tell the energy: %s: %s", type(error).__name__, error)
        return None
