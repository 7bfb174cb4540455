"""The days (UTC) of a window of two days or more: a break of some of them is diluted in all of it. Pure.

A day has few rows, and its own weather: what breaks it is held against the reference's days, and against chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from core.durations import DAY
from core.recorded import ROW_TIME
from core.settings import Settings
from core.tables import feature_column, milliseconds
from core.wording import listed
from monitoring.agreement import FEWEST_LABELS, agreement, largest_agreement
from monitoring.columns import take_sample

GONE = 0.9
"""Share of missing values from which a column is gone on a day: rain leaves three quarters of one without pressure."""

WORSE = 0.2
"""... and so much above any day of the reference: a field that is never filled at weekends is not gone then."""

CONTRADICTS = -0.1
"""A day's labels contradict the champion whose agreement is surely lower: on 338 days of the flights the lowest was
-0.05, and none was surely below -0.1, where with labels turned round 70 % were."""

AGREES = 0.2
"""From this agreement on, labels and a champion that belong together say so."""

_FEWEST_ROWS = 100
_FEWEST_OF_REFERENCE = 30
_MOST_LABELS = 2_000


def has_days(settings: Settings) -> bool:
    """Tell whether windows have days to be looked at: two or more, in a stream whose time is no count of rows."""
    return settings.time != ROW_TIME and settings.windows.span >= 2 * DAY


def gone_by_day(current: pa.Table, reference: pa.Table, settings: Settings) -> dict[str, str]:
    """Return of each feature that is gone on some day the sentence that says so.

    Parameters
    ----------
    current, reference : pyarrow.Table
        Rows of the window and of the reference, with ``event_time``.
    """
    days, usual = _by_day(current, _FEWEST_ROWS), _by_day(reference, _FEWEST_OF_REFERENCE)
    found = {}
    for name in settings.batch_kinds if days and usual else ():
        column = feature_column(name)
        if column not in reference.column_names:
            continue
        worst = max(_missing(rows, column) for rows in usual.values())
        missing = {day: _missing(rows, column) for day, rows in days.items()}
        gone = [day for day, share in missing.items() if share >= GONE and share - worst > WORSE]
        if gone:
            differ = len({f"{missing[day]:.0%}" for day in gone}) > 1
            least = f"{min(missing[day] for day in gone):.0%} of the rows{' or more' if differ else ''}"
            usually = f"{'at most ' if worst else ''}{worst:.0%} was usual on a day"
            found[name] = f"{name} is missing in {least} on {named(gone)}, where {usually}."
    return found


def contradicting_days(examples: pa.Table, settings: Settings, until: int | None) -> tuple[list[int], float | None]:
    """Return the days whose labels surely contradict the champion, and its agreement over all of them.

    Parameters
    ----------
    examples : pyarrow.Table
        Labelled rows of the window, with ``event_time``.
    until : int or None
        Only days whose labels are due by then, ms: of a day's first labels alone a champion may well be wrong the
        other way, if what takes longest is known last. None for all days.
    """
    due = {
        day: take_sample(rows, _MOST_LABELS)
        for day, rows in _by_day(examples, FEWEST_LABELS).items()
        if until is None or (day + 1) * DAY + settings.label.horizon <= until
    }
    days = [day for day, rows in due.items() if _contradicts(rows, settings)]
    together = pa.concat_tables([due[day] for day in days]) if days else examples.slice(0, 0)
    return days, agreement(together, "champion", settings.task)


def named(days: Sequence[int]) -> str:
    """Return days (since 1970) as text.

    Examples
    --------
    >>> named([0, 1]), named([0, 1, 2, 3, 4, 5, 6])
    ('1970-01-01 and 1970-01-02', '1970-01-01, 1970-01-02, 1970-01-03, 1970-01-04, 1970-01-05 and 2 more')
    """
    return listed([datetime.fromtimestamp(day * DAY / 1000, UTC).date().isoformat() for day in days])


def _contradicts(rows: pa.Table, settings: Settings) -> bool:
    seen = agreement(rows, "champion", settings.task)
    if seen is None or seen >= CONTRADICTS:
        return False
    most = largest_agreement(rows, "champion", settings.task)
    return most is not None and most < CONTRADICTS


def _by_day(table: pa.Table, fewest: int) -> dict[int, pa.Table]:
    """Return the rows of each day that has so many; none of a table without times."""
    if "event_time" not in table.column_names:
        return {}
    days = milliseconds(table["event_time"]) // DAY
    numbers, counts = np.unique(days, return_counts=True)
    return {int(day): table.filter(pa.array(days == day)) for day in numbers[counts >= fewest]}


def _missing(rows: pa.Table, column: str) -> float:
    return float(rows[column].null_count / rows.num_rows)
