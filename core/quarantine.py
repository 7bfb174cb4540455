"""Quarantine: windows that nothing is to be learned from, as the ledger says. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.audit import LedgerRecord

Span = tuple[int, int]
"""Start and end of a window in event time [start, end), ms."""


def quarantined(records: Iterable[LedgerRecord], moment: int) -> list[Span]:
    """Return the windows in quarantine at event time `moment` (ms), in order.

    Examples
    --------
    >>> kept = LedgerRecord("quarantine", "a", 10, 0.0, {"span": [0, 10]})
    >>> freed = LedgerRecord("release", "b", 30, 0.0, {"spans": [[0, 10]]})
    >>> quarantined([kept, freed], 20), quarantined([kept, freed], 30)
    ([(0, 10)], [])
    """
    spans: set[Span] = set()
    for record in records:
        if record.event_time is not None and record.event_time <= moment:
            if record.kind == "quarantine":
                spans.add(_span(record.body["span"]))
            elif record.kind == "release":
                spans -= {_span(span) for span in record.body["spans"]}
    return sorted(spans)


def released(records: Iterable[LedgerRecord], moment: int) -> list[Span]:
    """Return the windows whose break has lasted, so that they are how the stream is, at event time `moment` (ms).

    Examples
    --------
    >>> released([LedgerRecord("release", "b", 30, 0.0, {"spans": [[5, 10], [0, 5]]})], 30)
    [(0, 5), (5, 10)]
    """
    known = (record for record in records if record.event_time is not None and record.event_time <= moment)
    return sorted({_span(span) for record in known if record.kind == "release" for span in record.body["spans"]})


def unlearned(records: Iterable[LedgerRecord]) -> list[Span]:
    """Return the windows that the online experts are to forget, in order.

    Examples
    --------
    >>> unlearned([LedgerRecord("unlearn", "a", 10, 0.0, {"spans": [[5, 10], [0, 5]]})])
    [(0, 5), (5, 10)]
    """
    return sorted({_span(span) for record in records if record.kind == "unlearn" for span in record.body["spans"]})


def is_inside(time: int, spans: Sequence[Span]) -> bool:
    """Tell whether an event time (ms) lies in one of the spans."""
    return any(start <= time < end for start, end in spans)


def outside(times: NDArray[np.int64], spans: Sequence[Span]) -> NDArray[np.bool_]:
    """Return a mask of the event times (ms) that lie in none of the spans.

    Examples
    --------
    >>> outside(np.array([0, 5, 10]), [(3, 10)]).tolist()
    [True, False, True]
    """
    inside = np.zeros(len(times), dtype=bool)
    for start, end in spans:
        inside |= (times >= start) & (times < end)
    return ~inside


def _span(value: Any) -> Span:
    start, end = value
    return int(start), int(end)
