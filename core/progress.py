"""How far the stream is, as told from what the worker says of its partitions. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Stream:
    """How far the stream is, in event time, ms.

    Attributes
    ----------
    progress : int
        Up to here every row is in the tables.
    first_event : int or None
        Time of the first event; None before it.
    """

    progress: int
    first_event: int | None


def stream_of(status: Mapping[str, Any] | None) -> Stream | None:
    """Return how far the worker's status says that the stream is; None while it does not say.

    The slowest partition counts. One that has read no record at all is taken to be empty and does not count, as long
    as another has: no record may ever come to it. While it recovers it does count: it may repeat many. One that is
    caught up, with nothing new for a while, holds up nobody either; where all are, the farthest counts.

    Examples
    --------
    >>> full = {"phase": "running", "clock": 9, "flushed_through": 7, "first_event": 2}
    >>> empty = {"phase": "running", "clock": 0, "flushed_through": 0, "first_event": None}
    >>> stream_of({"partitions": {"0": full, "1": empty}})
    Stream(progress=7, first_event=2)
    >>> stream_of({"partitions": {"0": full, "1": {**empty, "phase": "recovering"}}})
    Stream(progress=0, first_event=2)
    >>> stream_of({"partitions": {"0": full, "1": {**full, "flushed_through": 5, "caught_up": True}}})
    Stream(progress=7, first_event=2)
    >>> stream_of({"partitions": {"1": empty}})
    Stream(progress=0, first_event=None)
    """
    partitions = list(((status or {}).get("partitions") or {}).values())
    counting = [entry for entry in partitions if not _is_empty(entry)] or partitions
    flushed = [entry.get("flushed_through") for entry in counting]
    if not flushed or None in flushed:
        return None
    first = [moment for entry in partitions if (moment := entry.get("first_event")) is not None]
    behind = [entry["flushed_through"] for entry in counting if not entry.get("caught_up")]
    return Stream(min(behind, default=max(flushed)), min(first, default=None))


def _is_empty(entry: Mapping[str, Any]) -> bool:
    """Tell whether a partition has read nothing, and has nothing to repeat that it read before.

    Its positions do not tell: they begin where the topics do.
    """
    return not (entry.get("clock") or entry.get("step") or entry.get("phase") == "recovering")
