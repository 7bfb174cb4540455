"""Where windows begin, and when something about a span becomes due: agreed by all who judge it."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.durations import DAY
from core.recorded import FIRST_ROW

_ENOUGH = 100
_Times = np.ndarray[Any, np.dtype[np.int64]]


def window_origin(first_event: int, span: int) -> int:
    """Return where the first window starts: `first_event` floored to a day, or to a shorter span, ms.

    Shorter spans are counted from the year 2000: a file that counts its rows begins there, with a whole window.

    Examples
    --------
    >>> window_origin(DAY + 5, 7 * DAY) == DAY, window_origin(FIRST_ROW + 5, 1_000_000) == FIRST_ROW
    (True, True)
    """
    unit = DAY if span >= DAY else span
    return first_event - (first_event - FIRST_ROW) % unit


def next_due(origin: int, span: int, horizon: int, after: int) -> int:
    """Return the next time later than `after` at which a window ends, or its labels are due, ms.

    Examples
    --------
    >>> next_due(0, 10, 3, 10), next_due(0, 10, 3, 13), next_due(0, 10, 3, 0)
    (13, 20, 10)
    """
    ends = origin + max((after - origin) // span + 1, 1) * span
    first_labels = origin + span + horizon
    periods = max((after - first_labels) // span + 1, 0)
    return min(ends, first_labels + periods * span)


def label_wait(event_time: _Times, label_clock: _Times, *, until: int, horizon: int, implied: bool) -> int:
    """Return how long after an event nearly every label has come, ms.

    Where a missing label gets a value at the horizon, that is the horizon: earlier there is one class only. Otherwise
    it is the 99th percentile of the labels' delays, measured on events older than the horizon: of the last hours only
    fast labels are known, and fast labels are not like slow ones.

    Parameters
    ----------
    until : int
        Time up to which labels are known, ms.
    horizon : int
        How long a label may take, ms.
    implied : bool
        Whether a missing label gets a value at the horizon.
    """
    if implied:
        return horizon
    delays = label_clock - event_time
    due = event_time <= until - horizon
    usual = delays[due] if int(due.sum()) >= _ENOUGH else delays
    return min(max(int(np.quantile(usual, 0.99)), 0), horizon) if len(usual) else 0
