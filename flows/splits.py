"""Splits in time: what is mature, what is trained on, what is held out. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Times = np.ndarray[Any, np.dtype[np.int64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

_ENOUGH = 100


@dataclass(frozen=True, eq=False)
class Split:
    """Masks over the same rows; `start` is where the hold-out begins, ms."""

    train: Mask
    holdout: Mask
    start: int


def mature(event_time: Times, label_clock: Times, *, until: int, horizon: int, implied: bool) -> Mask:
    """Tell which examples are old enough that nearly all labels of their age are known.

    Where a missing label gets a value at the horizon, younger examples have one class only. Otherwise
    the wait is the 99th percentile of the labels' delays, measured on events older than the horizon:
    of the last hours only fast labels are known, and fast labels are not like slow ones.

    Parameters
    ----------
    until : int
        Time up to which labels are known, ms.
    horizon : int
        How long a label may take, ms.
    implied : bool
        Whether a missing label gets a value at the horizon.

    Examples
    --------
    >>> mature(np.array([0, 80, 95]), np.array([10, 90, 99]), until=100, horizon=50, implied=True).tolist()
    [True, False, False]
    """
    wait = mature_after(event_time, label_clock, until=until, horizon=horizon, implied=implied)
    return np.asarray(event_time <= until - wait)


def mature_after(event_time: Times, label_clock: Times, *, until: int, horizon: int, implied: bool) -> int:
    """Return the age from which examples are mature, ms; the parameters are those of :func:`mature`."""
    if implied:
        return horizon
    delays = label_clock - event_time
    due = event_time <= until - horizon
    usual = delays[due] if int(due.sum()) >= _ENOUGH else delays
    return min(max(int(np.quantile(usual, 0.99)), 0), horizon) if len(usual) else 0


def split_by_time(event_time: Times, label_clock: Times, *, span: int, after: int | None) -> Split:
    """Hold out the latest span; train only on what was known before it began.

    Parameters
    ----------
    span : int
        Length of the hold-out, ms.
    after : int or None
        The champion's data cut, ms: the hold-out begins there or later, so that neither model has seen it.

    Examples
    --------
    >>> split = split_by_time(np.array([0, 10, 20, 30]), np.array([5, 25, 26, 36]), span=11, after=None)
    >>> split.start, split.train.tolist(), split.holdout.tolist()
    (20, [True, False, False, False], [False, False, True, True])
    """
    if not len(event_time):
        nothing = np.zeros(0, dtype=bool)
        return Split(nothing, nothing, after or 0)
    start = int(event_time.max()) + 1 - span
    start = start if after is None else max(start, after)
    return _cut(event_time, label_clock, start)


def inner_split(event_time: Times, label_clock: Times, share: float = 0.2) -> Split:
    """Split training rows in time for the search: the latest `share` of them validates."""
    start = int(np.quantile(event_time, 1.0 - share, method="lower")) if len(event_time) else 0
    return _cut(event_time, label_clock, start)


def _cut(event_time: Times, label_clock: Times, start: int) -> Split:
    train = (event_time < start) & (label_clock < start)
    return Split(np.asarray(train), np.asarray(event_time >= start), start)
