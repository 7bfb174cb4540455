"""Splits in time: what is mature, what is trained on, what is held out. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from core.spans import label_wait

Times = np.ndarray[Any, np.dtype[np.int64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, eq=False)
class Split:
    """Masks over the same rows; `start` is where the hold-out begins, ms."""

    train: Mask
    holdout: Mask
    start: int


def mature(event_time: Times, label_clock: Times, *, until: int, horizon: int, implied: bool) -> Mask:
    """Tell which examples are old enough that nearly all labels of their age are known.

    How old, and what the parameters are, is in :func:`core.spans.label_wait`.

    Examples
    --------
    >>> mature(np.array([0, 80, 95]), np.array([10, 90, 99]), until=100, horizon=50, implied=True).tolist()
    [True, False, False]
    """
    wait = label_wait(event_time, label_clock, until=until, horizon=horizon, implied=implied)
    return np.asarray(event_time <= until - wait)


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
    return folds(event_time, label_clock, 1, share)[0]


def folds(event_time: Times, label_clock: Times, count: int, share: float = 0.2) -> list[Split]:
    """Split training rows in time, several times: each fold validates on a later span of about equally many rows.

    A fold trains on all rows before its span whose label was known before the span began (an expanding window).

    Parameters
    ----------
    count : int
        How many; the earliest is first.
    share : float
        Rows that a fold validates on, of all; less where `count` of them would leave fewer to the first training.

    Examples
    --------
    >>> times = np.arange(10)
    >>> found = folds(times, times + 1, 2)
    >>> [(fold.train.nonzero()[0].tolist(), fold.holdout.nonzero()[0].tolist()) for fold in found]
    [([0, 1, 2, 3], [5, 6]), ([0, 1, 2, 3, 4, 5], [7, 8, 9])]
    """
    if not len(event_time):
        return [_cut(event_time, label_clock, 0)] * count
    share = min(share, 1.0 / (count + 1))
    shares = [1.0 - share * number for number in range(count, 0, -1)]
    starts = [int(start) for start in np.quantile(event_time, shares, method="lower")]
    return [_cut(event_time, label_clock, start, end) for start, end in zip(starts, [*starts[1:], None], strict=True)]


def known_before(event_time: Times, label_clock: Times, start: int) -> Mask:
    """Tell which examples were known before a time (ms): the event, and its label."""
    return np.asarray((event_time < start) & (label_clock < start))


def _cut(event_time: Times, label_clock: Times, start: int, end: int | None = None) -> Split:
    held = event_time >= start if end is None else (event_time >= start) & (event_time < end)
    return Split(known_before(event_time, label_clock, start), np.asarray(held), start)
