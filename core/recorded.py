"""A recorded stream in a file: what the project file may leave out for it.

A file without a column for the time counts its rows instead: each is a second later than the one before, and durations
are written in rows (``500 rows``). Where it has no column for the id, the row's number is the id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from core.durations import ROW, parse_duration

ROW_ID, ROW_TIME = "_row", "_row_time"
FIRST_ROW = 946_684_800_000
"""Event time of the first row of a file without times, ms: the year 2000."""

_IN_ROWS = re.compile(r"\s*(\d+(\.\d+)?\s*(per|/)\s*)?\d+(\.\d+)?\s*rows?\s*", re.IGNORECASE)
_WINDOW = 1_000


def counts_rows(text: str) -> bool:
    """Tell whether a duration, or a rate, is written in rows.

    Examples
    --------
    >>> counts_rows("500 Rows"), counts_rows("1 per 4000 rows"), counts_rows("28d")
    (True, True, False)
    """
    return _IN_ROWS.fullmatch(text) is not None


def filled_in(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a project file with what follows from its recorded file.

    Raises
    ------
    ValueError
        If a duration is in rows where rows are not the time, or in units of time where they are.

    Examples
    --------
    >>> content = filled_in({"label": "y", "replay": {"file": "a.csv", "label_delay": "100 rows"}})
    >>> content["id"], content["label"], content["windows"]
    ('_row', {'path': 'y', 'horizon': '101 rows'}, {'span': '1000 rows'})
    """
    replay = content.get("replay")
    in_file = isinstance(replay, Mapping) and replay.get("file") is not None
    if not in_file or "time" in content:
        if found := next(_in_rows(content), None):
            raise ValueError(
                f"{found!r} counts rows, which only a recorded file without 'time' has; write a unit of time"
            )
        return {"id": ROW_ID, **content} if in_file else dict(content)
    filled: dict[str, Any] = {"id": ROW_ID, **content, "time": ROW_TIME, "time_unit": "ms"}
    delay = _delay(replay)
    if found := next(_in_time(content), None):
        raise ValueError(f"{found}, but the file has no 'time': its rows count; write rows, such as '500 rows'")
    for section, defaults in _row_defaults(delay).items():
        given = content.get(section)
        if given is None or isinstance(given, Mapping):
            filled[section] = {**defaults, **(given or {})}
    label = content.get("label")
    label = {"path": label} if isinstance(label, str) else label
    if isinstance(label, Mapping):
        filled["label"] = {**label, "horizon": label.get("horizon", f"{delay + 1} rows")}
    return filled


def _row_defaults(delay: int) -> dict[str, dict[str, str | int]]:
    """Return what follows from windows of 1,000 rows, and from labels that are so many rows late.

    A first fit splits its rows twice, to search and to judge, and leaves out each time what had no label by then.
    """
    first = 2 * _WINDOW + 3 * delay
    return {
        "windows": {"span": f"{_WINDOW} rows"},
        "batch": {"holdout": f"{_WINDOW} rows"},
        "retrain": {"bootstrap_after": f"{first} rows", "every": f"{4 * _WINDOW} rows", "duration": "10 rows"},
        "drift": {"cooldown": f"{2 * _WINDOW} rows", "false_alarms": f"1 per {50 * _WINDOW} rows"},
        "promotion": {"block": f"{_WINDOW // 10} rows", "max_labels": 4 * _WINDOW},
    }


def _delay(replay: Any) -> int:
    """Return how many rows a label is late."""
    try:
        return parse_duration(replay.get("label_delay", "0 rows")) // ROW
    except ValueError:
        return 0  # reported where it stands


def _in_rows(content: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is written in rows; durations are settings of a section, never deeper."""
    for section in content.values():
        for value in section.values() if isinstance(section, Mapping) else ():
            if isinstance(value, str) and counts_rows(value):
                yield value


def _in_time(content: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is written in units of time, of all that the stream's own clock measures."""
    by_default = {
        section: {name for name, value in defaults.items() if isinstance(value, str)}
        for section, defaults in _row_defaults(delay=0).items()
    }
    for section, names in {**by_default, "label": {"horizon"}, "replay": {"label_delay"}}.items():
        given = content.get(section)
        for name, value in given.items() if isinstance(given, Mapping) else ():
            if name in names and isinstance(value, str) and not counts_rows(value):
                yield f"{section}.{name} is {value!r}"
