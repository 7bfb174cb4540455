"""Where windows begin and when something about them becomes due: agreed by monitoring and lockstep."""

from __future__ import annotations

from core.durations import DAY


def window_origin(first_event: int, span: int) -> int:
    """Return where the first window starts: `first_event` floored to a day, or to a shorter span, ms.

    Examples
    --------
    >>> window_origin(DAY + 5, 7 * DAY) == DAY
    True
    """
    unit = DAY if span >= DAY else span
    return first_event // unit * unit


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
