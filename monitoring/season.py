"""What a window is compared with: the champion's reference, or the same season of a year earlier.

A year is 52 weeks, so that weekdays match. Around the window as it was then as much is taken to either side as a window
is long, at least a week: the days of that season. What is usual is calibrated from these very rows, as it is from the
champion's (:func:`monitoring.calibration.calibrate`): the champion's own calibration says how far its training days are
from each other, and nothing of those of another year.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from core.durations import DAY, WEEK
from core.quarantine import Span, outside
from core.settings import Settings
from core.tables import milliseconds
from monitoring.calibration import Calibrations, Surprise, calibrate
from monitoring.comparison import compare_data
from monitoring.distances import distances
from monitoring.reference import Reference
from monitoring.rows import WindowRows
from monitoring.signals import Calibrated
from monitoring.windows import Stage, WindowStage

YEAR = 52 * WEEK

_CALIBRATED: dict[Stage, tuple[Calibrated, ...]] = {"data": ("data", "prediction"), "labels": ("labels",)}


@dataclass(frozen=True)
class Baseline:
    """Rows that a window is compared with, and what is usual among them.

    Attributes
    ----------
    rows : pyarrow.Table
        Columns as in the ``predictions`` or ``examples`` table, as far as the stage needs them.
    calibrations : dict of str to Calibration
        What is usual for windows of these rows.
    season : tuple of int or None
        Event time of the season that they are of [start, end), ms; None for the champion's reference.
    """

    rows: pa.Table
    calibrations: Calibrations
    season: Span | None = None


class Baselines:
    """Finds what windows are compared with.

    Parameters
    ----------
    settings : Settings
        The project file.
    rows : WindowRows
        Reads the season.
    kept_out : callable
        Returns the windows in quarantine at an event time, ms: a break is no season.
    """

    def __init__(self, settings: Settings, rows: WindowRows, kept_out: Callable[[int], Sequence[Span]]) -> None:
        self._settings = settings
        self._rows = rows
        self._kept_out = kept_out
        self._known: dict[Stage, tuple[tuple[WindowStage, list[Span]], Baseline]] = {}

    def of(self, stage: WindowStage, reference: Reference) -> Baseline:
        """Return what a window is compared with.

        The champion's reference, where the project file does not ask for the season, where the tables hold fewer rows
        of it than ``drift.min_rows``, and where they are too few days to be calibrated though the champion's are not.

        Raises
        ------
        StoreError
            If a table cannot be read.
        """
        champion = Baseline(reference.sample, reference.calibrations)
        if self._settings.drift.reference != "season":
            return champion
        season = self._season(stage)
        too_few = season.rows.num_rows < self._settings.drift.min_rows
        uncalibrated = stage.stage in champion.calibrations and stage.stage not in season.calibrations
        return champion if too_few or uncalibrated else season

    def _season(self, stage: WindowStage) -> Baseline:
        """Return the season's rows; windows of the same day share it, since to calibrate takes seconds."""
        then = season_of(stage)
        broken = [span for span in self._kept_out(stage.due) if span[0] < then.end and then.start < span[1]]
        key = then, broken
        known = self._known.get(stage.stage)
        if known is not None and known[0] == key:
            return known[1]
        read = self._rows.predictions if stage.stage == "data" else self._rows.examples
        rows = read(then).sort_by([("event_time", "ascending"), ("id", "ascending")])
        rows = rows.filter(pa.array(outside(milliseconds(rows["event_time"]), broken)))
        usual = {what: calibrate(rows, self._settings, what) for what in _CALIBRATED[stage.stage] if rows.num_rows}
        calibrations = {what: found for what, found in usual.items() if found is not None}
        made = Baseline(rows, calibrations, (then.start, then.end))
        self._known[stage.stage] = key, made
        return made


def champions_surprise(
    stage: WindowStage, current: pa.Table, reference: Reference, settings: Settings
) -> Surprise | None:
    """Return how unusual a window's data are for the champion's reference: what breaks are held against.

    None for its labels, whose breaks take no notice of it, and where the reference is not calibrated.
    """
    usual = reference.calibrations.get("data")
    if stage.stage == "labels" or usual is None:
        return None
    sample = settings.windows.sample
    compared = compare_data(current, reference.sample, kinds=settings.batch_kinds, task=settings.task, sample=sample)
    return usual.surprise(compared.report(distances(compared.columns)).features, stage.start)


def season_of(stage: WindowStage) -> WindowStage:
    """Return the window's season of a year earlier, as known when the window's (first) day began.

    Its labels, as known when those of that moment are due.

    Examples
    --------
    >>> stage = WindowStage(YEAR, YEAR + DAY, "data", YEAR + DAY)
    >>> (season_of(stage).start, season_of(stage).end) == (-WEEK, DAY + WEEK)
    True
    """
    margin = max(stage.end - stage.start, WEEK)
    first, last = stage.start // DAY * DAY, -(-stage.end // DAY) * DAY
    due = first + stage.due - stage.end
    return WindowStage(first - YEAR - margin, last - YEAR + margin, stage.stage, due, stage.clock)
